//! Tests of [`super`]: what reaches a question of a stream, and gradients on other devices.

use super::*;
use crate::backward::Pass;
use crate::config::{TextConfig, VisionConfig};
use crate::weights::{Init, table};
use candle_core::Var;

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
    sized(layers, 8)
}

/// The same with heads of `dim` channels, half of that in the tower.
fn sized(layers: usize, dim: usize) -> (Config, Weights) {
    let vision = VisionConfig {
        hidden: dim,
        intermediate: dim * 3 / 2,
        layers: 1,
        heads: 2,
        image_size: 16,
        patch: 4,
        layer_norm_eps: 1e-6,
    };
    let text = TextConfig {
        hidden: 2 * dim,
        intermediate: 3 * dim,
        layers,
        heads: 2,
        kv_heads: 1,
        head_dim: dim,
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
            Init::Zero | Init::Normal(_) => random(&shape, seed, 0.5 * (8.0 / dim as f32).sqrt()),
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

/// A loss, and the gradient of every weight by name.
type Gradients = (f32, Vec<(String, Vec<f32>)>);

/// A clip that is a stream and one that is not, with several questions each.
fn clips(network: &Network) -> [Example; 2] {
    let mut question = Span::context(vec![7, 8]);
    question.push(&[9, 10, 11], 0.5);
    let example = |frames, window| Example {
        patches: Some(patches(network, 0..frames, None)),
        trunk: Span::context(vec![1, 2, 19, 3]),
        branches: vec![question.clone(), question.clone()],
        window,
        ..Example::default()
    };
    [example(FRAMES, Some(WINDOW)), example(2, None)]
}

/// What candle's backward pass over the whole graph says.
fn gradients(device: &Device) -> Gradients {
    let (config, weights) = weights(2);
    let vars: std::collections::BTreeMap<String, Var> = weights
        .into_iter()
        .map(|(name, w)| (name, Var::from_tensor(&w.to_device(device).unwrap()).unwrap()))
        .collect();
    let weights = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let network = Network::new(config, &weights).unwrap();
    let (loss, _) = network.loss(&clips(&network)).unwrap();
    let grads = loss.backward().unwrap();
    let of = |var: &Var| grads.get(var).map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    let all = vars.iter().filter_map(|(name, var)| Some((name.clone(), of(var)?))).collect();
    (loss.to_scalar().unwrap(), all)
}

/// What [`Network::gradient`] says, which the trainer calls, with heads of `dim` channels: of weights rounded to one type, computed in another; of all weights,
/// or of the projector and adapters on the decoder's queries.
fn trained(
    dim: usize,
    [rounded, dtype]: [DType; 2],
    device: &Device,
    [adapters, checkpointing]: [bool; 2],
) -> Gradients {
    let (config, mut weights) = sized(2, dim);
    if adapters {
        for (layer, seed) in [(0, 90), (1, 91)] {
            let stem = format!("language_model.layers.{layer}.self_attn.q_proj");
            weights.insert(format!("{stem}.lora_a"), random(&[2, 2 * dim], seed, 0.3));
            weights.insert(format!("{stem}.lora_b"), random(&[2 * dim, 2], seed + 2, 0.3));
        }
    }
    let (mut names, mut vars) = (Vec::new(), Vec::new());
    for (name, tensor) in &mut weights {
        let there = tensor.to_dtype(rounded).unwrap().to_dtype(dtype).unwrap().to_device(device).unwrap();
        *tensor = there;
        if !adapters || name.contains("lora") || name.starts_with("multi_modal_projector") {
            let var = Var::from_tensor(tensor).unwrap();
            *tensor = var.as_tensor().clone();
            names.push(name.clone());
            vars.push(var);
        }
    }
    let network = Network::new(config, &weights).unwrap();
    let pass = Pass { checkpointing, features: None };
    let gradient = network.gradient(&clips(&network), &vars, &pass).unwrap();
    (gradient.loss as f32, names.into_iter().zip(gradient.grads).collect())
}

/// Whether two sets of gradients agree within `tolerance` of each weight's largest.
fn agree(a: Gradients, b: Gradients, tolerance: f32) {
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

/// Heads of a network that a device is tried with: one width for each of its attention kernels.
const WIDTHS: [usize; 4] = [24, 64, 72, 128];

/// How far a loss and a whole gradient in bf16 may lie from those in f32 of the same rounded weights, as a share of their size.
const NARROW: [f64; 2] = [0.02, 0.15];

/// Whether two losses and two whole gradients agree within [`NARROW`].
fn near(a: Gradients, b: Gradients) {
    assert!(f64::from((a.0 - b.0).abs()) <= NARROW[0] * f64::from(a.0), "losses {} and {}", a.0, b.0);
    let pairs = a.1.iter().zip(&b.1).flat_map(|((_, a), (_, b))| a.iter().zip(b));
    let (gap, size) = pairs.fold((0.0, 0.0), |(gap, size), (a, b)| {
        (gap + f64::from(a - b).powi(2), size + f64::from(*a).powi(2))
    });
    assert!(gap.sqrt() <= NARROW[1] * size.sqrt(), "a gap of {} in {}", gap.sqrt(), size.sqrt());
}

#[test]
fn a_cuda_device_gives_the_trainers_gradients_of_the_cpu() {
    let device = match crate::DeviceChoice::Cuda(None).open(0) {
        Ok((device, _)) => device,
        Err(reason) => return crate::device::skipped(&reason),
    };
    for dim in WIDTHS {
        for how in [[false, false], [false, true], [true, false], [true, true]] {
            println!("heads of {dim}, adapters and checkpointing: {how:?}");
            let on = |types, device: &Device| trained(dim, types, device, how);
            let (wide, narrow) = ([DType::F32; 2], DType::BF16);
            agree(on(wide, &Device::Cpu), on(wide, &device), TOLERANCE);
            near(on([narrow, DType::F32], &Device::Cpu), on([narrow; 2], &device));
        }
    }
}
