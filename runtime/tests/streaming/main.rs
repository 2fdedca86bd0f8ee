//! The window's three modes against the streaming reference, on random decoders and random streams.
//!
//! In: nothing. Out: a failure that names the mode, the sizes and the frame at which states differ.

mod reference;

use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reference::{Reference, Stream};
use utr_models::RgbFrame;
use utr_models::config::TextConfig;
use utr_models::manifest::WindowMode;
use utr_models::qwen2::Qwen2;
use utr_models::weights::Weights;
use utr_runtime::capture::Stamp;
use utr_runtime::decode::{CandleDecoder, Decoder, KvPrecision, Place, Span};
use utr_runtime::interrupt::Interrupt;
use utr_runtime::prefill::{self, Prefill, Reading};
use utr_runtime::window::EncodedFrame;

/// Largest difference of final-normed states, whose values are of order one, between f32 and the reference in f64.
const TOLERANCE: f64 = 1e-4;

/// Sizes of a random case.
#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    layers: usize,
    group: usize,
    window: usize,
    prefix: usize,
    tokens: usize,
}

struct Bench {
    case: Case,
    decoder: Arc<dyn Decoder>,
    reference: Reference,
    prefix_ids: Vec<u32>,
    rng: ChaCha8Rng,
    hidden: usize,
}

impl Bench {
    fn new(case: Case) -> Self {
        let (dim, kv_heads, hidden) = (8, 2, 24);
        let heads = case.group * kv_heads;
        let config = TextConfig {
            hidden,
            intermediate: 40,
            layers: case.layers,
            heads,
            kv_heads,
            head_dim: dim,
            vocab: 50,
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            max_positions: 4096,
            tied: true,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
        let mut weights = Weights::default();
        let mut put = |name: &str, shape: &[usize]| {
            let spread = 1.5 / (*shape.last().unwrap() as f32).sqrt();
            let norm = name.contains("norm");
            let count = shape.iter().product();
            let values: Vec<f32> =
                (0..count).map(|_| f32::from(norm) + rng.random_range(-spread..spread)).collect();
            weights.insert(
                format!("language_model.{name}"),
                Tensor::from_vec(values, shape, &Device::Cpu).unwrap(),
            );
        };
        put("embed_tokens.weight", &[50, hidden]);
        put("norm.weight", &[hidden]);
        for i in 0..case.layers {
            let mut at = |part: &str, shape: &[usize]| put(&format!("layers.{i}.{part}"), shape);
            at("input_layernorm.weight", &[hidden]);
            at("post_attention_layernorm.weight", &[hidden]);
            for (part, rows) in [("q", heads * dim), ("k", kv_heads * dim), ("v", kv_heads * dim)] {
                at(&format!("self_attn.{part}_proj.weight"), &[rows, hidden]);
                at(&format!("self_attn.{part}_proj.bias"), &[rows]);
            }
            at("self_attn.o_proj.weight", &[hidden, heads * dim]);
            at("mlp.gate_proj.weight", &[40, hidden]);
            at("mlp.up_proj.weight", &[40, hidden]);
            at("mlp.down_proj.weight", &[hidden, 40]);
        }
        let reference = Reference::new(&config, &weights);
        let decoder = Arc::new(CandleDecoder::new(Qwen2::new(&config, &weights).unwrap()));
        let prefix_ids = (0..case.prefix).map(|_| rng.random_range(0..50)).collect();
        Self { case, decoder, reference, prefix_ids, rng, hidden }
    }

    fn rows(&mut self, n: usize) -> Vec<f32> {
        (0..n * self.hidden).map(|_| self.rng.random_range(-1.7..1.7)).collect()
    }

    fn frame(&mut self, index: usize) -> Arc<EncodedFrame> {
        let tokens = self.rows(self.case.tokens);
        let stamp = Stamp { index, pts_ms: index as u64 * 500 };
        let picture = RgbFrame::new(1, 1, vec![0; 3]).unwrap();
        Arc::new(EncodedFrame { stamp, captured: Instant::now(), picture, tokens })
    }

    fn prefill(&self, mode: WindowMode) -> Prefill {
        let sizes = (self.case.window, self.case.tokens);
        let decoder = Arc::clone(&self.decoder);
        Prefill::new(decoder, mode, KvPrecision::F32, sizes, &self.prefix_ids, &Interrupt::default()).unwrap()
    }

    /// States of suffix rows behind a reading.
    fn continued(&self, reading: &Reading, suffix: &[f32]) -> Vec<f32> {
        let mut own = Span::new(self.decoder.shape(), KvPrecision::F32, suffix.len() / self.hidden);
        let place = Place { own: &mut own, start: reading.end() };
        self.decoder.read(&reading.past(), place, suffix, None).unwrap()
    }

    /// The reference's states behind the newest of `frames`, in a window so long.
    fn expected(&self, frames: &[Vec<f32>], first: usize, suffix: &[f32], window: usize) -> Vec<f64> {
        let prefix = self.decoder.embed(&self.prefix_ids).unwrap();
        let stream = Stream { prefix: &prefix, frames, first, suffix, window };
        self.reference.suffix_states(&stream).concat()
    }
}

fn off(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

fn cases() -> impl Strategy<Value = Case> {
    (any::<u64>(), 1usize..4, 1usize..4, 1usize..7, 1usize..8, 1usize..5).prop_map(
        |(seed, layers, group, window, prefix, tokens)| Case { seed, layers, group, window, prefix, tokens },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rolling_equals_the_streaming_reference_beyond_three_windows(case in cases()) {
        let mut bench = Bench::new(case);
        let mut prefill = bench.prefill(WindowMode::Rolling);
        let mut frames: Vec<Vec<f32>> = Vec::new();
        for index in 0..3 * case.window + 3 {
            let frame = bench.frame(index);
            frames.push(frame.tokens.clone());
            prop_assert!(prefill.see(&frame, &Interrupt::default()).unwrap());
            let suffix = bench.rows(3);
            let reading = prefill.reading().unwrap();
            let held: Vec<usize> = reading.frames().map(|f| f.stamp.index).collect();
            prop_assert_eq!(held, ((index + 1).saturating_sub(case.window)..=index).collect::<Vec<_>>());
            let gap = off(&bench.continued(reading, &suffix), &bench.expected(&frames, 0, &suffix, case.window));
            prop_assert!(gap < TOLERANCE, "frame {index}: states differ by {gap}");
        }
    }

    #[test]
    fn ahead_is_exact_on_the_frames_it_reports_and_all_modes_coincide_at_first(case in cases()) {
        let mut bench = Bench::new(case);
        let (mut ahead, mut rolling) = (bench.prefill(WindowMode::Ahead), bench.prefill(WindowMode::Rolling));
        let mut frames: Vec<Vec<f32>> = Vec::new();
        let fewest = case.window - case.window.div_ceil(2) + 1;
        for index in 0..4 * case.window + 2 {
            let frame = bench.frame(index);
            frames.push(frame.tokens.clone());
            prop_assert!(ahead.see(&frame, &Interrupt::default()).unwrap());
            prop_assert!(rolling.see(&frame, &Interrupt::default()).unwrap());
            let suffix = bench.rows(2);
            let reading = ahead.reading().unwrap();
            let held: Vec<usize> = reading.frames().map(|f| f.stamp.index).collect();
            prop_assert_eq!(*held.last().unwrap(), index);
            prop_assert!(held.windows(2).all(|pair| pair[1] == pair[0] + 1));
            prop_assert!(held.len() <= case.window && held.len() >= fewest.min(index + 1), "{held:?}");
            prop_assert_eq!(reading.history_reaches().unwrap().index, held[0]);
            // Exact: as if the stream had begun with its first frame.
            let expected = bench.expected(&frames[held[0]..], 0, &suffix, case.window);
            let found = bench.continued(reading, &suffix);
            prop_assert!(off(&found, &expected) < TOLERANCE, "frame {index}");
            if index < case.window {
                prop_assert_eq!(&held, &(0..=index).collect::<Vec<_>>());
                let rolled = bench.continued(rolling.reading().unwrap(), &suffix);
                prop_assert!(off(&rolled, &expected) < TOLERANCE, "rolling at frame {index}");
            }
        }
    }
}

#[test]
fn rolling_goes_on_where_absolute_positions_leave_sixteen_bits() {
    let case = Case { seed: 5, layers: 2, group: 2, window: 4, prefix: 5, tokens: 7 };
    let mut bench = Bench::new(case);
    let mut prefill = bench.prefill(WindowMode::Rolling);
    let mut tail: Vec<Vec<f32>> = Vec::new();
    let reach = case.layers * (case.window - 1) + 1;
    // Positions run to 7 * 20,000 = 140,000 in the definition; here they never exceed prompt, window and question.
    for index in 0..20_000 {
        let frame = bench.frame(index);
        tail.push(frame.tokens.clone());
        if tail.len() > reach {
            tail.remove(0);
        }
        assert!(prefill.see(&frame, &Interrupt::default()).unwrap());
        // 2^16 is crossed at frame 9,361.
        if [9_000, 9_360, 9_361, 9_362, 19_999].contains(&index) {
            let suffix = bench.rows(3);
            let reading = prefill.reading().unwrap();
            let expected = bench.expected(&tail, index + 1 - tail.len(), &suffix, case.window);
            let gap = off(&bench.continued(reading, &suffix), &expected);
            assert!(gap < TOLERANCE, "frame {index}: {gap}");
            assert_eq!(reading.end(), case.prefix + case.window * case.tokens);
            assert_eq!(
                reading.history_reaches().unwrap().index,
                index + 1 - reach,
                "the reach is the definition's"
            );
        }
    }
}

#[test]
fn a_pinned_view_is_not_changed_by_later_frames_and_what_does_not_fit_is_dropped() {
    for mode in [WindowMode::Rolling, WindowMode::Ahead] {
        let mut bench = Bench::new(Case { seed: 9, layers: 2, group: 1, window: 4, prefix: 3, tokens: 2 });
        let mut prefill = bench.prefill(mode);
        let interrupt = Interrupt::default();
        let see = |bench: &mut Bench, prefill: &mut Prefill, index| {
            let frame = bench.frame(index);
            prefill.see(&frame, &interrupt).unwrap()
        };
        (0..9).for_each(|index| assert!(see(&mut bench, &mut prefill, index)));
        let pinned = prefill.reading().unwrap().clone();
        let suffix = bench.rows(3);
        let before = bench.continued(&pinned, &suffix);
        // While the view is pinned, frames go on arriving until the spare spans are used up; then they are dropped, one by one.
        let taken: Vec<bool> = (9..60).map(|index| see(&mut bench, &mut prefill, index)).collect();
        assert_eq!(before, bench.continued(&pinned, &suffix), "{mode:?}");
        assert!(taken.iter().take(4).all(|taken| *taken), "{mode:?}: there are spare spans");
        let views: Vec<Reading> = (60..200)
            .map_while(|index| {
                let view = prefill.reading().unwrap().clone();
                see(&mut bench, &mut prefill, index).then_some(view)
            })
            .collect();
        assert!(views.len() < 30, "{mode:?}: memory is bounded, so that pinning every view ends in a drop");
        let newest = prefill.reading().unwrap().frames().last().unwrap().stamp.index;
        assert_eq!(newest, 59 + views.len(), "{mode:?}: the dropped frame is not in the window");
        drop((views, pinned));
        assert!(see(&mut bench, &mut prefill, 300), "{mode:?}: what was pinned is free again");
    }
}

#[test]
fn half_and_eight_bits_cost_a_little_and_the_same_in_every_mode() {
    let mut bench = Bench::new(Case { seed: 3, layers: 3, group: 2, window: 5, prefix: 4, tokens: 3 });
    let suffix = bench.rows(2);
    let frames: Vec<_> = (0..5).map(|index| bench.frame(index)).collect();
    let states = |kv: KvPrecision| {
        let sizes = (bench.case.window, bench.case.tokens);
        let decoder = Arc::clone(&bench.decoder);
        let interrupt = Interrupt::default();
        let mut prefill =
            Prefill::new(decoder, WindowMode::Rolling, kv, sizes, &bench.prefix_ids, &interrupt).unwrap();
        frames.iter().for_each(|frame| assert!(prefill.see(frame, &interrupt).unwrap()));
        bench.continued(prefill.reading().unwrap(), &suffix)
    };
    let exact: Vec<f64> = states(KvPrecision::F32).into_iter().map(f64::from).collect();
    let (half, eight) = (off(&states(KvPrecision::F16), &exact), off(&states(KvPrecision::Q8), &exact));
    assert!(0.0 < half && half < 0.01, "f16: {half}");
    assert!(half < eight && eight < 0.1, "q8: {eight}");
}

#[test]
fn an_interrupt_leaves_the_reading_as_it_was() {
    let mut bench = Bench::new(Case { seed: 1, layers: 1, group: 1, window: 2, prefix: 2, tokens: 2 });
    let mut prefill = bench.prefill(WindowMode::Rolling);
    let (first, second) = (bench.frame(0), bench.frame(1));
    prefill.see(&first, &Interrupt::default()).unwrap();
    let stop = Interrupt::default();
    stop.request();
    assert!(prefill.see(&second, &stop).is_err());
    assert_eq!(prefill.reading().unwrap().len(), 1);
    assert!(prefill.see(&second, &Interrupt::default()).unwrap());
    assert_eq!(prefill::spans(WindowMode::Exact, 32), 0);
}
