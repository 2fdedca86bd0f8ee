//! Tests of [`super`]: what is kept, what leaves, and that nothing stale is found.

use super::super::start::draw;
use super::*;
use utr_models::config::{Config, TextConfig, VisionConfig};

fn tower(seed: u64) -> (VisionTower, Weights) {
    let vision = VisionConfig {
        hidden: 8,
        intermediate: 12,
        layers: 2,
        heads: 2,
        image_size: 16,
        patch: 4,
        layer_norm_eps: 1e-6,
    };
    let text = TextConfig {
        hidden: 16,
        intermediate: 24,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        vocab: 20,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        max_positions: 256,
        tied: true,
    };
    let config = Config { vision, text, feature_layers: vec![2], image_token: 18, video_token: 19 };
    let weights = draw(&config, seed).unwrap();
    (VisionTower::new(&config.vision, &config.feature_layers, &weights).unwrap(), weights)
}

fn patches(seed: u64, frames: usize) -> Tensor {
    let data =
        (0..frames * 16 * 48).map(|i| ((i as u64 * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0);
    Tensor::from_vec(data.collect::<Vec<_>>(), (frames * 16, 48), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn held(cache: &Features) -> usize {
    cache.held.lock().unwrap().features.len()
}

#[test]
fn what_is_found_is_what_would_be_computed_and_memory_is_bounded() {
    let (tower, weights) = tower(1);
    // 2 frames of 16 patches of 8 channels are 1 KiB; half a MiB would hold 512.
    let limits = CacheLimits { memory_mb: 1, folder: None };
    let cache = Features::new(&limits, &weights).unwrap();
    for turn in 0..2 {
        for clip in 0..3 {
            let found = cache.get("clip", &patches(clip, 2), &tower).unwrap();
            assert_eq!(values(&found), values(&tower.features(&patches(clip, 2)).unwrap()), "{turn} {clip}");
        }
        assert_eq!(held(&cache), 3, "one name, three clips");
    }
    // A found entry is the tensor that is held, not a new one.
    let once = cache.get("clip", &patches(0, 2), &tower).unwrap();
    assert_eq!(once.id(), cache.get("clip", &patches(0, 2), &tower).unwrap().id());
    for clip in 0..40 {
        cache.get("long", &patches(clip, 64), &tower).unwrap();
        let held = cache.held.lock().unwrap();
        assert!(held.bytes <= 1 << 20 && held.order.len() == held.features.len());
    }
    assert_eq!(held(&cache), 32, "of 32 KiB each");
}

#[test]
fn a_folder_serves_the_next_run_and_not_another_tower() {
    let folder = tempfile::tempdir().unwrap();
    let limits = CacheLimits { memory_mb: 0, folder: Some(folder.path().join("features")) };
    let files = || std::fs::read_dir(folder.path().join("features")).unwrap().count();
    let ((one, weights), (other, others)) = (tower(1), tower(2));
    let want = values(&Features::new(&limits, &weights).unwrap().get("a", &patches(0, 1), &one).unwrap());
    assert_eq!(files(), 1);
    let again = Features::new(&limits, &weights).unwrap();
    // Of this tower: only the file can answer.
    assert_eq!(values(&again.get("a", &patches(0, 1), &other).unwrap()), want);
    assert_eq!((files(), held(&again)), (1, 0));
    let changed = Features::new(&limits, &others).unwrap();
    assert_ne!(values(&changed.get("a", &patches(0, 1), &other).unwrap()), want);
    assert_eq!(files(), 2);
}
