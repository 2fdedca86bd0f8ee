//! Tests of [`super`]: the same losses and gradients as candle's own backward pass over the whole graph.

use super::*;
use crate::config::{Config, TextConfig, VisionConfig};
use crate::network::Span;
use crate::weights::{Init, Weights, table};
use candle_core::Device;

/// Largest difference of two gradients that add the same terms in another order, for values of order one.
const REORDERED: f32 = 1e-5;

fn random(shape: &[usize], seed: u64, deviation: f32) -> Tensor {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> =
        (0..shape.iter().product()).map(|_| rng.random_range(-1.7f32..1.7) * deviation).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn config(tied: bool, feature_layers: &[usize]) -> Config {
    Config {
        vision: VisionConfig {
            hidden: 8,
            intermediate: 12,
            layers: 2,
            heads: 2,
            image_size: 16,
            patch: 4,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden: 16,
            intermediate: 24,
            layers: 3,
            heads: 2,
            kv_heads: 1,
            head_dim: 8,
            vocab: 20,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            max_positions: 256,
            tied,
        },
        feature_layers: feature_layers.to_vec(),
        image_token: 18,
        video_token: 19,
    }
}

/// A network of a type, and the variables among its weights, those whose names `moves` accepts; with adapters on the queries where asked.
fn network(
    config: &Config,
    dtype: DType,
    adapters: bool,
    moves: impl Fn(&str) -> bool,
) -> (Network, Vec<Var>) {
    let (mut weights, mut vars) = (Weights::new(), Vec::new());
    let mut names = table(config);
    if adapters {
        for layer in 0..config.text.layers {
            let stem = format!("language_model.layers.{layer}.self_attn.q_proj");
            names.push((format!("{stem}.lora_a"), vec![2, 16], Init::Normal(0.5)));
            names.push((format!("{stem}.lora_b"), vec![16, 2], Init::Normal(0.5)));
        }
    }
    for (seed, (name, shape, init)) in (0..).zip(names) {
        let tensor = match init {
            Init::One => Tensor::ones(shape, dtype, &Device::Cpu).unwrap(),
            Init::Zero | Init::Normal(_) => random(&shape, seed, 0.4).to_dtype(dtype).unwrap(),
        };
        let tensor = match moves(&name) {
            true => {
                vars.push(Var::from_tensor(&tensor).unwrap());
                vars[vars.len() - 1].as_tensor().clone()
            }
            false => tensor,
        };
        weights.insert(name, tensor);
    }
    (Network::new(config.clone(), &weights).unwrap(), vars)
}

/// A clip with branches, a stream, and text alone; tokens come several times.
fn examples() -> Vec<Example> {
    let clip = |frames: usize, window| {
        let mut trunk = Span::context(vec![1, 2, 19, 3]);
        trunk.push(&[4], 1.0);
        let branch = |id| {
            let mut span = Span::context(vec![5, 5]);
            span.push(&[id, 6], 0.5);
            span
        };
        let patches = Some(random(&[frames * 16, 48], frames as u64, 1.0));
        Example { patches, trunk, branches: vec![branch(7), branch(4)], window, ..Example::default() }
    };
    let mut text = Span::context(vec![2, 2]);
    text.push(&[9, 2, 6], 1.0);
    vec![
        clip(2, None),
        clip(5, Some(2)),
        Example { patches: None, trunk: text, branches: Vec::new(), ..Example::default() },
    ]
}

/// What candle's backward pass over the whole graph says.
fn whole(network: &Network, vars: &[Var], examples: &[Example]) -> Gradient {
    let (loss, weight) = network.loss(examples).unwrap();
    let store = loss.backward().unwrap();
    let flat = |var: &Var| match store.get(var) {
        Some(grad) => grad.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap(),
        None => vec![0.0; var.elem_count()],
    };
    let grads = vars.iter().map(flat).collect();
    Gradient { loss: f64::from(loss.to_scalar::<f32>().unwrap()), weight, grads }
}

fn pass(checkpointing: bool) -> Pass {
    Pass { checkpointing, features: None }
}

fn alive(gradient: &Gradient) -> usize {
    gradient.grads.iter().filter(|grad| grad.iter().any(|g| *g != 0.0)).count()
}

/// Its name, the names that move, and whether there are adapters.
type Case = (&'static str, fn(&str) -> bool, bool);

#[test]
fn every_gradient_is_that_of_the_whole_graph_bit_by_bit() {
    let cases: [Case; 5] = [
        ("all", |_| true, false),
        ("projector", |name| name.starts_with("multi_modal_projector"), false),
        ("adapters", |name| name.contains("lora") || name.starts_with("multi_modal_projector"), true),
        ("decoder", |name| name.starts_with("language_model"), false),
        ("tower", |name| name.starts_with("vision_tower"), false),
    ];
    for tied in [true, false] {
        for (name, moves, adapters) in cases {
            let (network, vars) = network(&config(tied, &[2]), DType::F32, adapters, moves);
            for examples in [examples(), examples().split_off(2)] {
                let want = whole(&network, &vars, &examples);
                for checkpointing in [false, true] {
                    let got = network.gradient(&examples, &vars, &pass(checkpointing)).unwrap();
                    assert_eq!((got.loss, got.weight), (want.loss, want.weight), "{name}");
                    assert!(got.grads == want.grads, "{name}, tied {tied}, checkpointing {checkpointing}");
                }
                // All but the tower's last norm; some only where something is shown.
                let dead = vars.len() - alive(&want);
                assert!(dead <= 2 || examples.len() == 1, "{name}: {dead} gradients vanish");
            }
        }
    }
}

#[test]
fn features_of_several_depths_add_up() {
    let (network, vars) = network(&config(true, &[0, 1, 2, 2]), DType::F32, false, |_| true);
    let want = whole(&network, &vars, &examples());
    for checkpointing in [false, true] {
        let got = network.gradient(&examples(), &vars, &pass(checkpointing)).unwrap();
        assert_eq!(got.loss, want.loss);
        for (got, want) in got.grads.iter().zip(&want.grads) {
            let size = want.iter().fold(1.0f32, |most, g| most.max(g.abs()));
            let gap = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap <= REORDERED * size, "{gap} of {size}");
        }
    }
}

#[test]
fn features_that_are_known_save_the_tower_and_change_no_bit() {
    let projector = |name: &str| name.starts_with("multi_modal_projector");
    let (network, vars) = network(&config(true, &[2]), DType::F32, false, projector);
    let examples = examples();
    let want = network.gradient(&examples, &vars, &pass(false)).unwrap();
    let patches: Vec<Tensor> = examples.iter().filter_map(|e| e.patches.clone()).collect();
    let features = network.vision.features(&Tensor::cat(&patches, 0).unwrap()).unwrap();
    for checkpointing in [false, true] {
        let pass = Pass { checkpointing, features: Some(features.clone()) };
        let got = network.gradient(&examples, &vars, &pass).unwrap();
        assert!(got.loss == want.loss && got.grads == want.grads);
    }
    // Clip by clip, as a cache has them: products of other sizes round in other places.
    let clips: Vec<Tensor> = patches.iter().map(|p| network.vision.features(p).unwrap()).collect();
    let clips = Pass { checkpointing: true, features: Some(Tensor::cat(&clips, 0).unwrap()) };
    let gap = network.gradient(&examples, &vars, &clips).unwrap().loss / want.loss - 1.0;
    assert!(gap.abs() < f64::from(REORDERED), "{gap}");
    let other = Pass { checkpointing: true, features: Some((&features * 1.1).unwrap()) };
    assert!(network.gradient(&examples, &vars, &other).unwrap().loss != want.loss, "they are not looked at");
    let short = Pass { checkpointing: true, features: Some(features.narrow(0, 0, 3).unwrap()) };
    let error = network.gradient(&examples, &vars, &short).unwrap_err().to_string();
    assert!(error.contains("3 frames"), "{error}");
}

#[test]
fn in_bf16_gradients_point_where_those_in_f32_do() {
    let config = config(true, &[2]);
    let (wide, wide_vars) = network(&config, DType::F32, false, |_| true);
    let (narrow, vars) = network(&config, DType::BF16, false, |_| true);
    let want = wide.gradient(&examples(), &wide_vars, &pass(false)).unwrap();
    let got = narrow.gradient(&examples(), &vars, &pass(false)).unwrap();
    assert!((got.loss / want.loss - 1.0).abs() < 0.02, "{} and {}", got.loss, want.loss);
    let again = narrow.gradient(&examples(), &vars, &pass(true)).unwrap();
    assert!(again.loss == got.loss && again.grads == got.grads, "checkpointing changes bits");
    let dot = |a: &[Vec<f32>], b: &[Vec<f32>]| -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| f64::from(a * b)).sum()
    };
    let cosine =
        dot(&got.grads, &want.grads) / (dot(&got.grads, &got.grads) * dot(&want.grads, &want.grads)).sqrt();
    assert!(cosine > 0.995, "{cosine}");
    assert_eq!(alive(&got), alive(&want));
}

#[test]
fn a_network_of_constants_is_only_read() {
    let (network, vars) = network(&config(true, &[2]), DType::F32, false, |_| false);
    let got = network.gradient(&examples(), &vars, &pass(true)).unwrap();
    assert_eq!(got.loss, whole(&network, &vars, &examples()).loss);
    assert!(got.grads.is_empty());
}
