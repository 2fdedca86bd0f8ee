//! The network against numbers that transformers computed (`tests/golden/make_golden.py`).
//!
//! In:  the models and `golden.safetensors` under `tests/golden`. Checked: the selected feature, the projection, the pool,
//! logits, both losses, the gradient of every parameter, greedy tokens through the cache, every tensor-name layout.
//! Tolerances are absolute, in f32, and named here.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, IndexOp, Tensor, Var, safetensors};
use utr_models::config::Config;
use utr_models::generate::argmax;
use utr_models::network::{Example, Network, Span};
use utr_models::weights::{self, Weights};
use utr_runtime::decode::{CandleDecoder, Decoder, KvPrecision, Place, Span as KvSpan};

/// Features, projections, pools and logits.
const ABSOLUTE: f32 = 1e-4;
/// Losses.
const LOSS: f32 = 1e-5;
/// Gradients, whose values reach a few units.
const GRADIENT: f32 = 1e-4;

type Tensors = HashMap<String, Tensor>;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn golden(path: &str) -> Tensors {
    safetensors::load(folder(path), &Device::Cpu).unwrap()
}

fn network(name: &str) -> Network {
    Network::load(folder(name), DType::F32, &Device::Cpu).unwrap()
}

fn difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let theirs = theirs.to_dtype(DType::F32).unwrap();
    (ours - theirs).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f32) {
    let difference = difference(ours, theirs);
    assert!(difference <= tolerance, "{what} differs by {difference}, more than {tolerance}");
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The example of F frames with the repeated placeholder folded into one; `labels` choose the targets.
fn example(network: &Network, golden: &Tensors, frames: usize, labels: Option<&str>) -> Example {
    let ids = integers(&golden[&format!("F{frames}.ids")]);
    let labels = labels.map(|kind| integers(&golden[&format!("F{frames}.labels_{kind}")]));
    let video = i64::from(network.config.video_token);
    let mut trunk = Span::default();
    for (at, &id) in ids.iter().enumerate() {
        if id == video && at > 0 && ids[at - 1] == video {
            continue;
        }
        let target = labels.as_ref().is_some_and(|labels| labels[at] != -100);
        trunk.push(&[u32::try_from(id).unwrap()], if target { 1.0 } else { 0.0 });
    }
    let pixels = golden["pixel_values"].i(..frames).unwrap();
    let patches = network.vision.patches(&pixels).unwrap();
    Example { patches: Some(patches), pictures: Vec::new(), trunk, branches: Vec::new(), window: None }
}

fn loss(network: &Network, example: Example) -> Tensor {
    let (sum, weight) = network.loss(&[example]).unwrap();
    (sum / weight).unwrap()
}

fn check_forward(name: &str) {
    let (network, golden) = (network(name), golden(&format!("{name}/golden.safetensors")));
    let vision = &network.vision;
    let features = vision.features(&vision.patches(&golden["pixel_values"]).unwrap()).unwrap();
    assert_close("the selected feature", &features, &golden["siglip"], ABSOLUTE);
    let projected = vision.project(&features).unwrap();
    assert_close("the projection", &projected, &golden["projected"], ABSOLUTE);
    assert_close("the pool", &vision.pool(&projected).unwrap(), &golden["pooled"], ABSOLUTE);
    for frames in [1, 2, 5] {
        let logits = network.logits(&example(&network, &golden, frames, None)).unwrap();
        assert_close("logits", &logits, &golden[&format!("F{frames}.logits")], ABSOLUTE);
        for kind in ["reference", "clean"] {
            let ours = loss(&network, example(&network, &golden, frames, Some(kind)));
            assert_close(&format!("{kind} loss"), &ours, &golden[&format!("F{frames}.loss_{kind}")], LOSS);
        }
    }
}

#[test]
fn odd_grid_with_tied_head_equals_transformers() {
    check_forward("odd_tied");
}

#[test]
fn even_grid_with_own_head_and_grouped_keys_equals_transformers() {
    check_forward("even_untied");
}

fn check_gradients(name: &str) {
    let golden = golden(&format!("{name}/golden.safetensors"));
    let mut config = Config::load(folder(name)).unwrap();
    let loaded = weights::load(&folder(name), &mut config, DType::F32, &Device::Cpu).unwrap();
    let variables: HashMap<String, Var> =
        loaded.into_iter().map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap())).collect();
    let weights: Weights =
        variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let network = Network::new(config, &weights).unwrap();
    let gradients = loss(&network, example(&network, &golden, 2, Some("clean"))).backward().unwrap();
    let expected: HashMap<String, &Tensor> = golden
        .iter()
        .filter_map(|(name, tensor)| Some((weights::canonical(name.strip_prefix("grad.")?)?, tensor)))
        .collect();
    assert!(expected.len() > 60, "{} gradients in the golden file", expected.len());
    for (name, theirs) in &expected {
        let ours =
            gradients.get(variables[name].as_tensor()).unwrap_or_else(|| panic!("{name} has no gradient"));
        assert_close(&format!("the gradient of {name}"), ours, theirs, GRADIENT);
    }
    for name in variables.keys().filter(|name| !expected.contains_key(*name)) {
        assert!(name.contains("post_layernorm"), "{name} has no golden gradient");
    }
}

#[test]
fn every_gradient_equals_transformers_with_a_tied_head() {
    check_gradients("odd_tied");
}

#[test]
fn every_gradient_equals_transformers_with_an_own_head() {
    check_gradients("even_untied");
}

/// Greedy tokens through the runtime's decoder: the prompt in one piece, then one token at a time.
fn greedy(network: Network, golden: &Tensors, frames: usize, count: usize) -> Vec<i64> {
    let prompt = integers(&golden[&format!("F{frames}.prompt_len")])[0] as usize;
    let ids: Vec<u32> =
        integers(&golden[&format!("F{frames}.ids")])[..prompt].iter().map(|id| *id as u32).collect();
    let first = ids.iter().position(|id| *id == network.config.video_token).unwrap();
    let last = ids.iter().rposition(|id| *id == network.config.video_token).unwrap();
    let pixels = golden["pixel_values"].i(..frames).unwrap();
    let clip = network.clip_rows(&network.vision.patches(&pixels).unwrap()).unwrap();
    assert_eq!(clip.dim(0).unwrap(), last + 1 - first);
    let decoder = CandleDecoder::new(network.decoder);
    let clip = clip.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let rows =
        [decoder.embed(&ids[..first]).unwrap(), clip, decoder.embed(&ids[last + 1..]).unwrap()].concat();

    let mut span = KvSpan::new(decoder.shape(), KvPrecision::F32, prompt + count);
    let mut read = |rows: &[f32]| {
        let states = decoder.read(&[], Place { own: &mut span, start: 0 }, rows, None).unwrap();
        argmax(&decoder.logits(&states[states.len() - decoder.hidden()..]).unwrap()).unwrap()
    };
    let mut made = vec![read(&rows)];
    while made.len() < count {
        let row = decoder.embed(&made[made.len() - 1..]).unwrap();
        made.push(read(&row));
    }
    made.into_iter().map(i64::from).collect()
}

#[test]
fn greedy_tokens_through_the_cache_equal_transformers() {
    for name in ["odd_tied", "even_untied"] {
        let golden = golden(&format!("{name}/golden.safetensors"));
        for frames in [1, 2, 5] {
            let expected = integers(&golden[&format!("F{frames}.greedy")]);
            let made = greedy(network(name), &golden, frames, expected.len());
            assert_eq!(made, expected, "{name}, {frames} frames");
        }
    }
}

#[test]
fn every_tensor_name_layout_gives_the_same_logits() {
    let golden = golden("layouts/golden.safetensors");
    for layout in ["a", "b", "c", "d", "lln", "sharded"] {
        let network = network(&format!("layouts/{layout}"));
        let logits = network.logits(&example(&network, &golden, 2, None)).unwrap();
        assert_close(&format!("logits of layout {layout}"), &logits, &golden["F2.logits"], ABSOLUTE);
    }
}

#[test]
fn half_precision_files_load_as_their_rounded_weights() {
    for kind in ["f16", "bf16"] {
        let golden = golden(&format!("layouts/golden_{kind}.safetensors"));
        let network = network(&format!("layouts/{kind}"));
        let logits = network.logits(&example(&network, &golden, 2, None)).unwrap();
        assert_close(&format!("logits of {kind} weights"), &logits, &golden["F2.logits"], ABSOLUTE);
    }
}

#[test]
fn files_of_both_transformers_generations_give_the_same_logits() {
    let golden = golden("tiny_llava_ov_a/golden.safetensors");
    for name in ["tiny_llava_ov_a", "tiny_llava_ov_c"] {
        let network = network(name);
        let ids = integers(&golden["input_ids"]);
        let video = i64::from(network.config.video_token);
        let mut folded: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        folded.dedup_by(|a, b| a == b && i64::from(*a) == video);
        let patches = network.vision.patches(&golden["pixel_values_videos"].i(0).unwrap()).unwrap();
        let trunk = Span::context(folded);
        let example = Example {
            patches: Some(patches),
            pictures: Vec::new(),
            trunk,
            branches: Vec::new(),
            window: None,
        };
        let logits = network.logits(&example).unwrap();
        assert_close(name, &logits, &golden["logits"].i(0).unwrap(), ABSOLUTE);
    }
}

/// Rewrites the tensors of layout C into a new folder.
fn altered(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let mut tensors = safetensors::load(folder("layouts/c/model.safetensors"), &Device::Cpu).unwrap();
    change(&mut tensors);
    let target = tempfile::tempdir().unwrap();
    std::fs::copy(folder("layouts/c/config.json"), target.path().join("config.json")).unwrap();
    safetensors::save(&tensors, target.path().join("model.safetensors")).unwrap();
    target
}

fn load_error(folder: &Path) -> String {
    Network::load(folder, DType::F32, &Device::Cpu).err().expect("loads although it must not").to_string()
}

#[test]
fn a_missing_tensor_is_named_with_the_folder() {
    let name = "language_model.model.norm.weight";
    let folder = altered(|tensors| drop(tensors.remove(name).unwrap()));
    let message = load_error(folder.path());
    assert!(message.contains("language_model.norm.weight") || message.contains(name), "{message}");
    assert!(message.contains("16"), "no shape in: {message}");
    assert!(message.contains(&*folder.path().to_string_lossy()), "no place in: {message}");
}

#[test]
fn an_extra_tensor_is_named_with_shape_and_file() {
    let extra = Tensor::zeros((3, 7), DType::F32, &Device::Cpu).unwrap();
    let folder = altered(|tensors| drop(tensors.insert("vision_tower.head.probe".into(), extra)));
    let message = load_error(folder.path());
    for part in ["vision_tower.head.probe", "[3, 7]", "model.safetensors"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let wrong = Tensor::zeros((12, 15), DType::F32, &Device::Cpu).unwrap();
    let name = "vision_tower.encoder.layers.0.mlp.fc2.weight";
    let folder = altered(|tensors| drop(tensors.insert(name.into(), wrong)));
    let message = load_error(folder.path());
    for part in ["mlp.fc2.weight", "[12, 15]", "[12, 16]", "model.safetensors"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
}

#[test]
fn what_is_saved_loads_with_the_same_tensors() {
    for name in ["odd_tied", "even_untied"] {
        let mut config = Config::load(folder(name)).unwrap();
        let loaded = weights::load(&folder(name), &mut config, DType::F32, &Device::Cpu).unwrap();
        let target = tempfile::tempdir().unwrap();
        weights::save(target.path(), &loaded).unwrap();
        std::fs::write(target.path().join("config.json"), config.to_hf().to_string()).unwrap();
        let mut again = Config::load(target.path()).unwrap();
        let reloaded = weights::load(target.path(), &mut again, DType::F32, &Device::Cpu).unwrap();
        let names = |weights: &Weights| weights.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&loaded), names(&reloaded));
        for (name, tensor) in &loaded {
            assert_eq!(difference(tensor, &reloaded[name]), 0.0, "{name}");
        }
    }
}
