//! Tests of [`super`]: order, bounds, replacement and the end.

use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// A feed over `pictures` (0..n, some of which are not there) with so many threads and so long a queue.
fn feed(folder: &Path, present: &[bool], reading: Reading) -> Result<Feed> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/utr-nano");
    let config = utr_models::Config::load(&model)?;
    let encoder = Encoder::load(&model, &config, Default::default(), 0.0)?;
    let mut lines = String::new();
    for (number, present) in present.iter().enumerate() {
        if *present {
            let picture = image::RgbImage::from_pixel(64, 64, image::Rgb([number as u8, 0, 0]));
            picture.save(folder.join(format!("{number}.png")))?;
        }
        let talk = serde_json::json!([{"from": "human", "value": "<image>"}, {"from": "gpt", "value": format!("number {number}")}]);
        let record = serde_json::json!({"id": format!("r{number}"), "image": format!("{number}.png"), "conversations": talk});
        lines += &format!("{record}\n");
    }
    std::fs::write(folder.join("data.jsonl"), lines)?;
    let text = format!("conversations = {:?}\nimage_root = {folder:?}", folder.join("data.jsonl"));
    let data: Data = toml::from_str(&text)?;
    let corpus = Arc::new(Corpus::load(&data, 0)?);
    let lengths = corpus.records.iter().map(super::super::corpus::Record::length).collect();
    let order = Order::new(lengths, 2, 3, true, (5, 0));
    Feed::start(Source { data, corpus, order, encoder: Arc::new(encoder) }, 1, 1..3, reading)
}

fn all(feed: &Feed) -> Vec<(Vec<String>, Vec<f32>)> {
    let places = (1..5).flat_map(|step| (1..3).map(move |index| (step, index)));
    let one = |(step, index)| {
        let Ready { examples, ids } = feed.take(step, index).unwrap();
        let pixels =
            examples.iter().map(|e| e.patches.as_ref().unwrap().flatten_all().unwrap().to_vec1().unwrap()[0]);
        let total: f32 = examples.iter().flat_map(|e| e.trunk.weights.iter().skip(1)).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        (ids, pixels.collect())
    };
    places.map(one).collect()
}

#[test]
fn neither_threads_nor_queue_change_what_comes_and_a_missing_sample_is_replaced_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let present: Vec<bool> = (0..14).map(|n| n != 3 && n != 4 && n != 13).collect();
    let mut results = Vec::new();
    for (workers, queue) in [(1, 1), (3, 2), (2, 9)] {
        let feed = feed(folder.path(), &present, Reading { workers, queue }).unwrap();
        results.push(all(&feed));
        assert!(feed.unreadable() > 0);
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    for (ids, pixels) in &results[0] {
        for (id, pixel) in ids.iter().zip(pixels) {
            let number: usize = id[1..].parse().unwrap();
            assert!(present[number]);
            assert!((pixel - (number as f32 / 255.0 - 0.5) / 0.5).abs() < 1e-5, "{id}: {pixel}");
        }
    }
    let feed = feed(folder.path(), &present, Reading::default()).unwrap();
    let of_order = feed.ids(1, 1..3);
    let replaced = of_order.replace("r13", "r0").replace("r3", "r5").replace("r4", "r5");
    let taken = (1..3).flat_map(|index| feed.take(1, index).unwrap().ids).collect::<Vec<_>>().join(", ");
    assert_eq!(replaced, taken);
}

#[test]
fn the_queue_bounds_what_is_read_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let feed = feed(folder.path(), &[true; 12], Reading { workers: 3, queue: 2 }).unwrap();
    let began = Instant::now();
    while feed.shared.lock().ready.len() < 2 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    let (ready, begun) = {
        let state = feed.shared.lock();
        (state.ready.len(), state.next)
    };
    assert_eq!((ready, begun), (2, 2));
    feed.take(1, 2).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    // The second was taken, the first still waits: nothing new begins.
    assert_eq!(feed.shared.lock().next, 2);
    feed.take(1, 1).unwrap();
    let began = Instant::now();
    while feed.shared.lock().ready.len() < 2 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(feed.shared.lock().next, 4);
    assert!(feed.take(0, 1).is_err() && feed.take(1, 0).is_err());
}

#[test]
fn samples_of_which_none_can_be_read_end_the_run_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let feed = feed(folder.path(), &[false; 8], Reading::default()).unwrap();
    let error = format!("{:#}", feed.take(1, 1).unwrap_err());
    assert!(error.contains("8 samples in a row") && error.contains("no such file"), "{error}");
}
