//! Tests of [`super`]: what reaches a question of a stream.

use super::*;
use crate::config::{TextConfig, VisionConfig};
use crate::weights::{Init, table};

pub(super) const FRAMES: usize = 7;
pub(super) const WINDOW: usize = 3;

fn random(shape: &[usize], seed: u64, deviation: f32) -> Tensor {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> =
        (0..shape.iter().product()).map(|_| rng.random_range(-1.7f32..1.7) * deviation).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Sizes and random tensors.
pub(super) fn weights(layers: usize) -> (Config, Weights) {
    let vision = VisionConfig {
        hidden: 8,
        intermediate: 12,
        layers: 1,
        heads: 2,
        image_size: 16,
        patch: 4,
        layer_norm_eps: 1e-6,
    };
    let text = TextConfig {
        hidden: 16,
        intermediate: 24,
        layers,
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        vocab: 20,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        max_positions: 256,
        tied: true,
    };
    let config = Config { vision, text, feature_layers: vec![1], image_token: 18, video_token: 19 };
    let weight = |(seed, (name, shape, init)): (u64, (String, Vec<usize>, Init))| {
        let tensor = match init {
            Init::One => Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap(),
            // Larger than in training, so that what one frame does to another shows.
            Init::Zero | Init::Normal(_) => random(&shape, seed, 0.5),
        };
        (name, tensor)
    };
    let weights: Weights = (0..).zip(table(&config)).map(weight).collect();
    (config, weights)
}

pub(super) fn network(layers: usize) -> Network {
    let (config, weights) = weights(layers);
    Network::new(config, &weights).unwrap()
}

/// Frames of noise, the one called `changed` of other noise.
pub(super) fn patches(network: &Network, frames: std::ops::Range<usize>, changed: Option<usize>) -> Tensor {
    let rows = network.config.vision.grid().pow(2);
    let frame = |f: usize| random(&[rows, 48], f as u64 + if changed == Some(f) { 100 } else { 0 }, 1.0);
    Tensor::cat(&frames.map(frame).collect::<Vec<_>>(), 0).unwrap()
}

pub(super) fn asked(patches: Tensor, window: Option<usize>) -> Example {
    let mut trunk = Span::context(vec![1, 2, 19, 3]);
    trunk.push(&[4], 1.0);
    let branch = |id| {
        let mut span = Span::context(vec![5]);
        span.push(&[id, 6], 1.0);
        span
    };
    Example {
        patches: Some(patches),
        pictures: Vec::new(),
        trunk,
        branches: vec![branch(7), branch(8)],
        window,
    }
}

fn nll(network: &Network, changed: Option<usize>, window: Option<usize>) -> Vec<f64> {
    network.nll(&[asked(patches(network, 0..FRAMES, changed), window)]).unwrap()
}

fn gap(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn with_one_layer_a_frame_that_left_does_nothing_and_the_stream_is_its_newest_frames() {
    let network = network(1);
    let whole = nll(&network, None, Some(WINDOW));
    for changed in 0..FRAMES {
        let moved = gap(&whole, &nll(&network, Some(changed), Some(WINDOW)));
        assert_eq!(moved > 1e-4, changed >= FRAMES - WINDOW, "frame {changed} moved the loss by {moved}");
    }
    // Positions are relative: the newest frames alone, counted from zero, are the same clip.
    let newest = asked(patches(&network, FRAMES - WINDOW..FRAMES, None), None);
    assert!(gap(&whole, &network.nll(&[newest]).unwrap()) < 1e-5);
}

#[test]
fn with_more_layers_kept_frames_carry_those_they_saw() {
    let reach = |layers: usize| {
        let network = network(layers);
        let whole = nll(&network, None, Some(WINDOW));
        let moves = |f: &usize| gap(&whole, &nll(&network, Some(*f), Some(WINDOW))) > 1e-7;
        (0..FRAMES).find(moves).unwrap()
    };
    // Each layer reaches back another window less one.
    assert_eq!([reach(1), reach(2), reach(3)], [4, 2, 0]);
}

#[test]
fn a_clip_within_its_window_is_an_ordinary_one_also_beside_a_stream() {
    let network = network(2);
    let (alone, within) = (nll(&network, None, None), nll(&network, None, Some(FRAMES)));
    assert_eq!(alone, within);
    let streamed = nll(&network, None, Some(WINDOW));
    assert!(gap(&alone, &streamed) > 1e-4);
    let example = |window| asked(patches(&network, 0..FRAMES, None), window);
    let both = network.nll(&[example(Some(WINDOW)), example(None)]).unwrap();
    assert!(gap(&both, &[streamed, alone].concat()) < 1e-5);
}

/// The loss of a clip that is a stream and of one that is not, with several questions each, and the gradient of every weight.
fn gradients(device: &Device) -> (f32, Vec<(String, Vec<f32>)>) {
    let (config, weights) = weights(2);
    let vars: std::collections::BTreeMap<String, candle_core::Var> = weights
        .into_iter()
        .map(|(name, w)| (name, candle_core::Var::from_tensor(&w.to_device(device).unwrap()).unwrap()))
        .collect();
    let weights = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let network = Network::new(config, &weights).unwrap();
    let mut question = Span::context(vec![7, 8]);
    question.push(&[9, 10, 11], 0.5);
    let example = |frames, window| Example {
        patches: Some(patches(&network, 0..frames, None)),
        trunk: Span::context(vec![1, 2, 19, 3]),
        branches: vec![question.clone(), question.clone()],
        window,
        ..Example::default()
    };
    let (loss, _) = network.loss(&[example(FRAMES, Some(WINDOW)), example(2, None)]).unwrap();
    let grads = loss.backward().unwrap();
    let of =
        |var: &candle_core::Var| grads.get(var).map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    let all = vars.iter().filter_map(|(name, var)| Some((name.clone(), of(var)?))).collect();
    (loss.to_scalar().unwrap(), all)
}

/// Whether two sets of gradients agree within `tolerance` of each weight's largest.
fn agree(a: (f32, Vec<(String, Vec<f32>)>), b: (f32, Vec<(String, Vec<f32>)>), tolerance: f32) {
    assert!((a.0 - b.0).abs() <= tolerance * a.0.abs(), "losses {} and {}", a.0, b.0);
    assert_eq!(a.1.len(), b.1.len());
    for ((name, a), (_, b)) in a.1.iter().zip(&b.1) {
        let largest = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let gap = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        // The bias of keys shifts all scores of a row alike, so that its gradient is nothing but rounding.
        let size = if name.contains("k_proj.bias") { 1.0 } else { largest };
        assert!(gap <= tolerance * size, "{name}: {gap} where gradients go up to {largest}");
    }
}

/// Largest difference of gradients between two ways of computing a network in f32.
const TOLERANCE: f32 = 1e-3;

#[test]
fn a_network_of_kernels_has_the_gradients_of_the_cpu() {
    use crate::ops::emulate;
    if emulate::available() {
        agree(gradients(&Device::Cpu), emulate::with(3, || gradients(&Device::Cpu)), TOLERANCE);
    }
}

#[test]
fn a_cuda_device_gives_the_gradients_of_the_cpu() {
    match crate::DeviceChoice::Cuda(None).open(0) {
        Ok((device, _)) => agree(gradients(&Device::Cpu), gradients(&device), TOLERANCE),
        Err(reason) => crate::device::skipped(&reason),
    }
}
