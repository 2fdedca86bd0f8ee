//! Pictures of any resolution against numbers that transformers and LLaVA-NeXT computed (`tests/golden/anyres.py`).
//!
//! In: `odd_tied`, `anyres.safetensors` and `anyres_tiles.json` under `tests/golden`. Checked: tiles bit by bit, then logits, losses and gradients of prompts with
//! a tiled picture (padded either way, and shrunk) and with a list of pictures. Tolerances are absolute, in f32.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var, safetensors};
use sha2::{Digest, Sha256};
use utr_models::anyres::{squared, tiles, tiling};
use utr_models::config::Config;
use utr_models::network::{Example, Network, Picture, Span};
use utr_models::preprocess::{Filter, resize};
use utr_models::weights::{self, Weights};
use utr_models::{RgbFrame, anyres::Packed};

const ABSOLUTE: f32 = 1e-4;
const LOSS: f32 = 1e-5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn hexadecimal(frame: &RgbFrame) -> String {
    Sha256::digest(&frame.data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tiles_are_cut_as_llava_next_cuts_them() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(golden("anyres_tiles.json")).unwrap()).unwrap();
    assert!(cases.len() >= 7);
    for case in cases {
        let [height, width, side] =
            ["height", "width", "side"].map(|key| case[key].as_u64().unwrap() as usize);
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                data.extend((0..3).map(|c| ((x * 7 + y * 13 + c * 50 + x * y / 3) % 256) as u8));
            }
        }
        let picture = RgbFrame::new(width, height, data).unwrap();
        let best = tiling(height, width, side);
        assert_eq!(
            serde_json::json!([best.rows * side, best.columns * side]),
            case["best"],
            "{height}x{width}"
        );
        let found: Vec<String> = tiles(&picture, side).unwrap().iter().map(hexadecimal).collect();
        assert_eq!(serde_json::json!(found), case["tiles"], "{height}x{width} in tiles of {side}");
        let square = resize(&squared(&picture, [127; 3]).unwrap(), (side, side), Filter::Bicubic).unwrap();
        assert_eq!(serde_json::json!(hexadecimal(&square)), case["square"], "{height}x{width}");
    }
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn prompts_with_pictures_equal_transformers() {
    let golden_file = safetensors::load(golden("anyres.safetensors"), &Device::Cpu).unwrap();
    let mut config = Config::load(golden("odd_tied")).unwrap();
    let loaded = weights::load(&golden("odd_tied"), &mut config, DType::F32, &Device::Cpu).unwrap();
    let variables: HashMap<String, Var> =
        loaded.into_iter().map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap())).collect();
    let weights: Weights =
        variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let network = Network::new(config.clone(), &weights).unwrap();
    let mut shrunk = 0;
    for name in ["one", "wide", "tall", "many", "list"] {
        let get = |key: &str| &golden_file[&format!("{name}.{key}")];
        let sizes: Vec<(usize, usize)> =
            integers(get("sizes")).chunks(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
        let pictures = match sizes[..] {
            [(height, width)] => vec![Picture::AnyRes { height, width }],
            _ => vec![Picture::Single { newline: true }; sizes.len()],
        };
        let side = config.vision.image_size;
        shrunk +=
            usize::from(Packed::new(sizes[0].0, sizes[0].1, side, config.vision.grid()).shrunk.is_some());
        let bytes = get("pixels").to_dtype(DType::F32).unwrap();
        let pixels = (((bytes / 255.0).unwrap() - 0.5).unwrap() / 0.5).unwrap();
        let (ids, labels) = (integers(get("ids")), integers(get("labels")));
        let image = i64::from(config.image_token);
        let mut trunk = Span::default();
        let mut counts = pictures.iter().map(|picture| picture.tokens(&config));
        let mut at = 0;
        while at < ids.len() {
            trunk.push(&[u32::try_from(ids[at]).unwrap()], if labels[at] == -100 { 0.0 } else { 1.0 });
            if ids[at] != image {
                at += 1;
                continue;
            }
            let run = counts.next().unwrap();
            assert!(ids[at..at + run].iter().all(|id| *id == image), "{name}: {run} tokens at {at}");
            at += run;
        }
        assert_eq!(counts.next(), None);
        let patches = Some(network.vision.patches(&pixels).unwrap());
        let example = Example { patches, pictures, trunk, branches: Vec::new(), window: None };
        let logits = network.logits(&example).unwrap();
        let last = logits.narrow(0, logits.dim(0).unwrap() - 8, 8).unwrap();
        let gap = difference(&last, get("logits"));
        assert!(gap <= ABSOLUTE, "{name}: logits differ by {gap}");
        let (sum, weight) = network.loss(&[example.clone(), example]).unwrap();
        let loss = (sum / weight).unwrap();
        let gap = difference(&loss, get("loss"));
        assert!(gap <= LOSS, "{name}: losses differ by {gap}");
        let grads = loss.backward().unwrap();
        for part in [
            "image_newline",
            "multi_modal_projector.linear_1.weight",
            "vision_tower.embeddings.position_embedding.weight",
        ] {
            let ours = grads.get(&variables[part]).unwrap();
            let gap = difference(ours, get(&format!("grad.{part}")));
            assert!(gap <= ABSOLUTE, "{name}: gradients of {part} differ by {gap}");
        }
    }
    assert_eq!(shrunk, 1, "one case must be too large for nine tiles");
}
