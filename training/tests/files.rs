//! The paper's recipe on small parts and small data: the same file, with other folders and fewer samples an update.
//!
//! In: the binary that cargo built, a Qwen2 and a SigLIP folder of random weights, pictures and folders of frames. Out: losses that do not depend on kills,
//! threads or ranks, and words where files are not what they were. How well anything is learnt is not asked.

mod tiny;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use utr_models::bpe::{AddedToken, save_tokenizer, train_bpe};
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::weights::table;
use utr_models::{Config, Network};

use tiny::{UTR_TRAIN, done, losses, train};

const SIDE: usize = 32;
const VOCAB: usize = 320;

/// Both parts, of a tower with two blocks.
fn config() -> Config {
    let vision = VisionConfig {
        hidden: 32,
        intermediate: 48,
        layers: 2,
        heads: 2,
        image_size: SIDE,
        patch: 8,
        layer_norm_eps: 1e-6,
    };
    let text = TextConfig {
        hidden: 32,
        intermediate: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        vocab: VOCAB,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        max_positions: 600,
        tied: false,
    };
    Config { vision, text, feature_layers: vec![2], image_token: 0, video_token: 1 }
}

/// Writes the two folders that a recipe is begun from, as the hub has them.
fn parts(folder: &Path) -> [PathBuf; 2] {
    let [qwen, siglip] = ["qwen", "siglip"].map(|name| folder.join(name));
    let config = config();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut files = [Vec::new(), Vec::new()];
    for (name, shape, _) in table(&config) {
        let (part, name) = match name.strip_prefix("vision_tower.") {
            Some(rest) => (1, format!("vision_model.{rest}")),
            None if name.starts_with("multi_modal") || name == "image_newline" => continue,
            None => (0, name.replace("language_model.", "model.")),
        };
        let around = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        let data: Vec<f32> =
            (0..shape.iter().product()).map(|_| around + rng.random_range(-0.3f32..0.3)).collect();
        files[part].push((name, Tensor::from_vec(data, shape, &Device::Cpu).unwrap()));
    }
    // What a whole SigLIP has besides.
    for name in ["text_model.embeddings.token_embedding.weight", "vision_model.head.probe", "logit_scale"] {
        files[1].push((name.into(), Tensor::new(&[1f32], &Device::Cpu).unwrap()));
    }
    for (folder, tensors) in [&qwen, &siglip].into_iter().zip(files) {
        std::fs::create_dir_all(folder).unwrap();
        let tensors = tensors.into_iter().collect();
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    }
    let model = config.to_hf();
    std::fs::write(qwen.join("config.json"), model["text_config"].to_string()).unwrap();
    let whole = serde_json::json!({"model_type": "siglip", "vision_config": model["vision_config"]});
    std::fs::write(siglip.join("config.json"), whole.to_string()).unwrap();
    let size = serde_json::json!({"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5, 0.5, 0.5]});
    std::fs::write(siglip.join("preprocessor_config.json"), size.to_string()).unwrap();
    let added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(AddedToken::special);
    let corpus = (0..50).map(|n| format!("user assistant what is this {n} it moves left right"));
    save_tokenizer(&qwen, &train_bpe(corpus, 300, &added).unwrap()).unwrap();
    [qwen, siglip]
}

fn picture(path: &Path, (width, height): (u32, u32), shade: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x, y| image::Rgb([shade.wrapping_add(x as u8 * 3), shade.wrapping_mul(y as u8), shade]);
    image::RgbImage::from_fn(width, height, pixel).save(path).unwrap();
}

/// Captions, and a mixture of pictures, lists of pictures, clips and text, some of which cannot be read.
fn data(folder: &Path) {
    let said = |media: &str, question: &str, answer: &str| {
        let talk =
            serde_json::json!([{"from": "human", "value": question}, {"from": "gpt", "value": answer}]);
        let mut record: serde_json::Value = serde_json::from_str(&format!("{{{media}}}")).unwrap();
        record["conversations"] = talk;
        record
    };
    let (mut captions, mut talks) = (Vec::new(), Vec::new());
    for n in 0..9u8 {
        picture(
            &folder.join(format!("images/{n}.png")),
            (20 + 9 * u32::from(n), 70 - 5 * u32::from(n)),
            n * 20,
        );
        captions.push(said(&format!("\"image\": \"{n}.png\""), "<image>\nSay it.", &format!("this is {n}")));
        talks.push(said(&format!("\"image\": \"{n}.png\""), "what <image> is this", &format!("it is {n}")));
    }
    for clip in 0..3u8 {
        for frame in 0..60u8 {
            picture(&folder.join(format!("videos/c{clip}/{frame:03}.png")), (24, 24), clip * 60 + frame);
        }
        talks.push(said(&format!("\"video\": \"c{clip}\""), "<image>\nwhat moves", &format!("left {clip}")));
        talks.push(said("", "hello <image>", &format!("no picture, only text {clip}")));
    }
    talks.push(said("\"image\": [\"1.png\", \"2.png\"]", "a:<image>, b:<image> same?", "no"));
    talks.push(said("\"id\": \"gone\", \"video\": \"nothing.mp4\"", "<image>\nwhat?", "nothing"));
    talks.push(said("\"id\": \"two\", \"image\": [\"1.png\", \"2.png\"]", "<image>\nwhich?", "this"));
    std::fs::write(folder.join("captions.json"), serde_json::to_string(&captions).unwrap()).unwrap();
    let lines: String = talks.iter().map(|talk| format!("{talk}\n")).collect();
    std::fs::write(folder.join("talks.jsonl"), lines).unwrap();
    let yaml = "datasets:\n- json_path: talks.jsonl\n  sampling_strategy: all\n- {json_path: captions.json, sampling_strategy: 'first:3'}\n";
    std::fs::write(folder.join("sft.yaml"), yaml).unwrap();
}

/// The paper's recipe on these folders, with fewer samples an update.
fn recipe(folder: &Path) -> PathBuf {
    let [qwen, siglip] = parts(folder);
    data(folder);
    let mut text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/video-utr-7b.toml")).unwrap();
    let quoted = |path: PathBuf| format!("{path:?}");
    for (from, to) in [
        ("\"weights/Qwen2-7B-Instruct\"", quoted(qwen)),
        ("\"weights/siglip-so400m-patch14-384\"", quoted(siglip)),
        ("\"data/blip_laion_cc_sbu_558k.json\"", quoted(folder.join("captions.json"))),
        ("\"data/sft.yaml\"", quoted(folder.join("sft.yaml"))),
        ("\"data/images\"", quoted(folder.join("images"))),
        ("\"data/videos\"", quoted(folder.join("videos"))),
        ("epochs = 1.0", "epochs = 2.0".into()),
        ("micro_batch = 16", "micro_batch = 2".into()),
        ("accumulate = 64", "accumulate = 2".into()),
        ("accumulate = 512", "accumulate = 4".into()),
        ("checkpoint_every = 100", "checkpoint_every = 3".into()),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, &to);
    }
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Two ranks of one process each.
fn two_ranks(recipe: &Path, run: &Path) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let start = |rank: usize| {
        let mut command = train("tune", recipe, run, "1");
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", &port).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [start(0), start(1)] {
        done(child.wait_with_output().unwrap());
    }
}

#[test]
fn the_papers_recipe_trains_from_files_to_the_same_losses_whatever_happens() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let [whole, broken, two] = ["whole", "broken", "two"].map(|name| folder.path().join(name));
    let output = train("tune", &recipe, &whole, "2").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let model = PathBuf::from(done(output).trim());
    // Nine captions in updates of four, twice; twenty of twenty-one records in updates of four, twice.
    assert_eq!(losses(&whole).len(), 4 + 10, "{told}");
    for words in ["align: 9 samples, 0 left out, 4 updates", "tune: 20 samples, 1 left out, 10 updates"] {
        assert!(told.contains(words), "{told}");
    }
    for words in
        ["two: 1 <image> placeholders for 2", "sample gone is left out", "nothing.mp4", "plan of tune"]
    {
        assert!(told.contains(words), "{told}");
    }

    for updates in [2, 6, 9] {
        let mut command = train("tune", &recipe, &broken, "1");
        command.args(["--read-workers", "1", "--read-queue", "1"]).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        while losses(&broken).len() < updates && began.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    done(train("tune", &recipe, &broken, "2").args(["--read-workers", "4"]).output().unwrap());
    assert_eq!(losses(&whole), losses(&broken), "the interrupted run took another way");
    two_ranks(&recipe, &two);
    assert_eq!(losses(&whole), losses(&two), "two ranks took another way");

    let load = |folder: &Path| {
        candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
    };
    let (start, end) = (load(&whole.join("start")), load(&model));
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let still: Vec<_> =
        start.iter().filter(|(name, t)| values(t) == values(&end[*name])).map(|(n, _)| n).collect();
    assert!(still.iter().all(|name| name.contains("post_layernorm")), "not moved: {still:?}");

    // Other data are another run.
    let talks = folder.path().join("talks.jsonl");
    let text = std::fs::read_to_string(&talks).unwrap();
    std::fs::write(&talks, text.replace("what moves", "what stands")).unwrap();
    let refused = train("tune", &recipe, &whole, "2").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("made with another recipe: stage tune"), "{said}");
}

#[test]
fn parts_make_a_model_that_loads_and_a_run_of_nothing_readable_stops() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let images = folder.path().join("images");
    std::fs::rename(&images, folder.path().join("elsewhere")).unwrap();
    let run = folder.path().join("run");
    let refused = |run: &Path| {
        let output = train("tune", &recipe, run, "2").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&run).contains("there is no folder"));
    std::fs::create_dir(&images).unwrap();
    let said = refused(&run);
    assert!(said.contains("9 samples in a row cannot be read") && said.contains("image_root"), "{said}");

    let start = run.join("start");
    let network = Network::load(&start, candle_core::DType::F32, &Device::Cpu).unwrap();
    let Config { vision, text, feature_layers, image_token, video_token } = &network.config;
    assert_eq!((vision.layers, feature_layers.as_slice(), text.vocab), (1, &[1][..], VOCAB));
    assert!(*video_token == *image_token + 1 && (*video_token as usize) < VOCAB);
    let model: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(start.join("config.json")).unwrap()).unwrap();
    assert_eq!(model["image_grid_pinpoints"].as_array().unwrap().len(), 36);
    let load = |folder: &Path| {
        candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
    };
    let (whole, qwen, siglip) =
        (load(&start), load(&folder.path().join("qwen")), load(&folder.path().join("siglip")));
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(&whole["language_model.lm_head.weight"]), values(&qwen["lm_head.weight"]));
    let norm = "encoder.layers.0.layer_norm1.weight";
    assert_eq!(
        values(&whole[&format!("vision_tower.vision_model.{norm}")]),
        values(&siglip[&format!("vision_model.{norm}")])
    );
    let projector = values(&whole["multi_modal_projector.linear_1.weight"]);
    let bound = 32f32.powf(-0.5);
    let deviation = (projector.iter().map(|x| x * x).sum::<f32>() / projector.len() as f32).sqrt();
    assert!(projector.iter().all(|x| x.abs() <= bound) && (deviation - bound / 3f32.sqrt()).abs() < 0.01);
}

#[test]
fn the_plan_says_what_a_recipe_takes_and_refuses_a_device_that_is_too_small() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let plan = |more: &[&str]| {
        Command::new(UTR_TRAIN).args(["plan", "--recipe"]).arg(&recipe).args(more).output().unwrap()
    };
    let said = done(plan(&["--device-memory", "80GiB"]));
    assert_eq!(said.lines().count(), 2, "{said}");
    let refused = plan(&["--device-memory", "100KiB", "--ranks", "2"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2)
            && said.contains("the device of each rank has")
            && said.contains("micro_batch = 1 saves"),
        "{said}"
    );
}
