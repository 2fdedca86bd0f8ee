//! What an update holds in memory, counted by the allocator.
//!
//! In: small networks whose activations outweigh their weights. Out: peaks beside each other and beside the numbers of `train::memory`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor, Var};
use utr_models::Config;
use utr_models::backward::{Gradient, Pass};
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::network::{Example, Network, Span};
use utr_models::weights::Weights;
use utr_training::train::lora::{Adapters, Lora};
use utr_training::train::memory::{Memory, Setting, memory};
use utr_training::train::start::draw;

/// How far a peak may lie from what is foretold, either way.
const FACTOR: f64 = 1.25;

/// Counts bytes that live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time.
static TURN: Mutex<()> = Mutex::new(());

fn config() -> Config {
    Config {
        vision: VisionConfig {
            hidden: 48,
            intermediate: 160,
            layers: 8,
            heads: 4,
            image_size: 64,
            patch: 8,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden: 64,
            intermediate: 224,
            layers: 8,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            vocab: 400,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            max_positions: 4096,
            tied: true,
        },
        feature_layers: vec![8],
        image_token: 398,
        video_token: 399,
    }
}

/// A clip of so many frames with questions.
fn example(frames: usize) -> Example {
    let mut trunk = Span::context((1..40).collect());
    trunk.push(&[399], 0.0);
    let branch = |first: u32| {
        let mut span = Span::context((first..first + 20).collect());
        span.push(&[first, first + 1, first + 2], 1.0);
        span
    };
    let patches = (0..frames * 64 * 192).map(|i| (i % 97) as f32 / 48.0 - 1.0).collect::<Vec<_>>();
    let patches = Some(Tensor::from_vec(patches, (frames * 64, 192), &Device::Cpu).unwrap());
    Example { patches, trunk, branches: (0..10).map(|b| branch(b * 30)).collect(), ..Example::default() }
}

/// A network whose weights move where `moves` says so.
fn network(lora: Option<&Lora>, moves: impl Fn(&str) -> bool) -> (Network, Vec<Var>) {
    let (mut weights, mut vars) = (Weights::new(), Vec::new());
    for (name, tensor) in draw(&config(), 1).unwrap() {
        let tensor = match moves(&name) {
            true => {
                vars.push(Var::from_tensor(&tensor).unwrap());
                vars[vars.len() - 1].as_tensor().clone()
            }
            false => tensor,
        };
        weights.insert(name, tensor);
    }
    if let Some(lora) = lora {
        let adapters = Adapters::new(lora, &weights, 1).unwrap();
        vars.extend(adapters.variables().map(|(_, var)| var));
        weights = adapters.beside(&weights).unwrap();
    }
    (Network::new(config(), &weights).unwrap(), vars)
}

/// A gradient and the bytes that lived at most while it was computed.
fn measured(network: &Network, vars: &[Var], checkpointing: bool) -> (Gradient, usize) {
    let examples = [example(24)];
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let pass = Pass { checkpointing, features: None };
    let gradient = network.gradient(&examples, vars, &pass).unwrap();
    (gradient, PEAK.load(Ordering::Relaxed) - before)
}

fn projector(name: &str) -> bool {
    name.starts_with("multi_modal_projector")
}

#[test]
fn checkpointing_keeps_what_lies_between_blocks_and_changes_no_bit() {
    let _turn = TURN.lock();
    let (network, vars) = network(None, |name| !name.contains("post_layernorm"));
    let (kept, most) = measured(&network, &vars, false);
    let (again, least) = measured(&network, &vars, true);
    assert!(kept.loss == again.loss && kept.grads == again.grads);
    // Eight blocks of each part: one of them and the inputs of all are left.
    assert!(least * 5 < most * 2, "{least} bytes with, {most} without");
}

#[test]
fn a_frozen_tower_keeps_nothing_for_the_way_back() {
    let _turn = TURN.lock();
    let decoder = |name: &str| name.starts_with("language_model");
    let (all, all_vars) = network(None, |name| !name.contains("post_layernorm"));
    let (frozen, vars) = network(None, decoder);
    let (want, most) = measured(&all, &all_vars, false);
    let (got, least) = measured(&frozen, &vars, false);
    assert_eq!(got.loss, want.loss);
    let work = all.work(&[example(24)]).unwrap();
    let tower = memory(&config(), &setting(true, true, false), &work).tower;
    assert!(most - least > tower * 9 / 10, "{most} bytes with a tower that moves, {least} without; {tower}");
}

fn setting(tower: bool, decoder: bool, checkpointing: bool) -> Setting {
    Setting { tower, decoder, adapters: 0, width: 4, checkpointing, workers: 1, ranks: 1 }
}

/// Its name, its adapters, the names that move, and how that is called.
type Case<'a> = (&'static str, Option<&'a Lora>, fn(&str) -> bool, Setting);

#[test]
fn peaks_are_as_foretold() {
    let _turn = TURN.lock();
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let lora = Lora { rank: 4, alpha: 8.0, targets: targets.map(String::from).to_vec() };
    let adapters = 8 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 224));
    let cases: [Case; 3] = [
        ("all", None, |name| !name.contains("post_layernorm"), setting(true, true, false)),
        ("align", None, projector, setting(false, false, false)),
        (
            "adapters",
            Some(&lora),
            |name| projector(name) || name == "image_newline",
            Setting { adapters, ..setting(false, false, false) },
        ),
    ];
    for (name, lora, moves, setting) in cases {
        let (network, vars) = network(lora, moves);
        let work = network.work(&[example(24)]).unwrap();
        for checkpointing in [false, true] {
            let (gradient, peak) = measured(&network, &vars, checkpointing);
            let numbers: usize = gradient.grads.iter().map(Vec::len).sum();
            let want: Memory = memory(&config(), &Setting { checkpointing, ..setting }, &work);
            assert_eq!(want.gradients, 2 * 4 * numbers, "{name}: the sum and the one that is made");
            // Parameters are there before, and no sum is made here.
            let want = (want.total() - want.parameters - want.moments - want.masters - 4 * numbers) as f64;
            let ratio = peak as f64 / want;
            println!("{name}, checkpointing {checkpointing}: {peak} bytes, {want} foretold, {ratio:.2}");
            assert!((1.0 / FACTOR..FACTOR).contains(&ratio), "{name}, {checkpointing}: {peak} of {want}");
        }
    }
}

#[test]
fn scoring_over_variables_holds_one_block_at_a_time() {
    let _turn = TURN.lock();
    let peak = |moves: fn(&str) -> bool| {
        let (network, _vars) = network(None, moves);
        let examples = [example(24)];
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let nll = network.nll(&examples).unwrap();
        (nll[1], PEAK.load(Ordering::Relaxed) - before)
    };
    let ((nll, constants), (same, variables)) = (peak(|_| false), peak(|_| true));
    assert_eq!(nll, same);
    // A block's graph lives to its end; all blocks' would be eight times that.
    assert!(variables < 3 * constants, "{variables} over variables, {constants} over constants");
    assert_eq!(DType::F32, example(1).patches.unwrap().dtype());
}
