//! What to expect of `utr bench` on a board nobody has measured: a roofline over its data sheet.
//!
//! Comes in: a board's profile. Goes out: one [`Expect`] for every case, decoder, format and window mode that
//! fits into its memory, for the processor, on which the default engines run; figures that the profile holds
//! stand in the place of the estimated ones. Also the largest model that fits into some memory. The GPU is left
//! out until something runs there; nothing is measured here.

use clap::ValueEnum;
use utr_models::manifest::WindowMode;

use crate::board::{Basis, Board, Expect};
use crate::budget::{Available, Choice, Second, Sizes, mode_name};
use crate::decode::KvPrecision;
use crate::encode::Engines;
use crate::shape::{Bits, Model, Shape, Tower, matrices};
use crate::window::CAPACITY;

/// Share of the data sheet's bandwidth and arithmetic that an engine reaches. What peers reach on such boards
/// lies between a third and two thirds.
const SHARE: f64 = 0.5;
/// The models that are estimated: three sizes, and the released LLaVA-OneVision's smallest.
const MODELS: [(Shape, Tower); 4] = [
    (Shape::Qwen2Half, Tower::SiglipB16),
    (Shape::Qwen2OneAndHalf, Tower::SiglipB16),
    (Shape::Qwen2Half, Tower::SiglipSo400m),
    (Shape::Qwen2Seven, Tower::SiglipSo400m),
];
/// Tokens of the prompt before the frames, and of the question with the newline, as `utr bench` counts them.
const PROMPT: usize = 14;
const QUESTION: usize = 33;

/// What to expect of `utr bench` on a board: the profile's figures, then estimates for what they leave open.
/// Empty for a profile that fits many machines.
pub fn expectations(board: &Board) -> Vec<Expect> {
    let mut all = board.expect.clone();
    for estimate in estimates(board) {
        if !all.iter().any(|known| same(known, &estimate)) {
            all.push(estimate);
        }
    }
    all
}

/// The one for a case. A shape without a tower is that of its decoder alone; what makes no difference to the
/// case is not looked at.
pub fn expected(board: &Board, case: &str, shape: &str, bits: &str, mode: Option<&str>) -> Option<Expect> {
    let alike = |known: &Option<String>, asked: &str| known.as_deref().is_none_or(|known| known == asked);
    expectations(board).into_iter().find(|expect| {
        let known = expect.shape.as_deref().unwrap_or_default();
        let decoder = known.split('+').next() == Some(shape) && expect.case != "enc";
        expect.case == case
            && (known == shape || decoder)
            && alike(&expect.bits, bits)
            && (expect.mode.is_none() || expect.mode.as_deref() == mode)
    })
}

/// Whether two are about the same thing.
fn same(a: &Expect, b: &Expect) -> bool {
    (&a.case, &a.shape, &a.bundle, &a.bits, &a.mode) == (&b.case, &b.shape, &b.bundle, &b.bits, &b.mode)
}

fn estimates(board: &Board) -> Vec<Expect> {
    let (Some(compute), Some(bandwidth)) = (&board.compute, board.memory.bandwidth_gb_s) else {
        return Vec::new();
    };
    let peak = f64::from(compute.cores) * f64::from(compute.mhz) * f64::from(compute.flop_per_cycle) / 1e3;
    let speed = Speed { gflop_s: peak * SHARE, gb_s: bandwidth * SHARE };
    let free = Available::of_board(board).map(|available| available.free);
    let all = MODELS.iter().flat_map(|pair| Bits::value_variants().iter().map(move |bits| (*pair, *bits)));
    let second = if compute.dot_products { Second::Packed } else { Second::Dense };
    let subjects = all.map(|((decoder, tower), bits)| Subject::new(decoder, tower, bits, second));
    subjects.flat_map(|subject| subject.expect(&speed, free)).collect()
}

/// What a board's processor reaches.
struct Speed {
    gflop_s: f64,
    gb_s: f64,
}

/// A model at a number of bits.
struct Subject {
    name: String,
    bits: String,
    tokens: usize,
    sizes: Sizes,
    /// Weights of the blocks' matrices, and of the output matrix.
    blocks: f64,
    output: f64,
    bytes_per_weight: f64,
    /// Multiplications and additions of one frame through the tower.
    tower_flop: f64,
}

impl Subject {
    fn new(decoder: Shape, tower: Tower, bits: Bits, second: Second) -> Self {
        let model = Model { decoder, tower: Some(tower) };
        let (text, v) = (decoder.config(), tower.config());
        let tokens = model.frame_tokens().unwrap_or(0);
        let name = model.to_string();
        let patches = (v.grid() * v.grid()) as f64;
        let block = 4 * v.hidden * v.hidden + 2 * v.hidden * v.intermediate;
        let tower_flop = (v.layers * 2) as f64 * patches * (block as f64 + 2.0 * patches * v.hidden as f64);
        let word = bits.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
        let (blocks, output) = (matrices(&text) as f64, (text.vocab * text.hidden) as f64);
        // The table of embeddings is multiplied with only where it is the output matrix too.
        let bytes_per_weight = match second {
            Second::Dense => 4.0,
            _ => bits.bytes(matrices(&text)) as f64 / blocks,
        };
        let sizes = model.sizes(bits, tokens, false).with_second(second);
        Self { name, bits: word, tokens, sizes, blocks, output, bytes_per_weight, tower_flop }
    }

    fn total(&self, mode: WindowMode, engines: Engines) -> u64 {
        self.sizes.need(Choice { frames: CAPACITY, mode, kv: KvPrecision::F16 }, engines).total()
    }

    fn one(&self, case: &str, mode: Option<WindowMode>, value: f64, unit: &str, how: String) -> Expect {
        Expect {
            case: case.into(),
            shape: Some(self.name.clone()),
            bundle: None,
            bits: (case != "enc").then(|| self.bits.clone()),
            mode: mode.map(|mode| mode_name(mode).to_string()),
            value,
            unit: unit.into(),
            basis: Basis::Estimated,
            how,
        }
    }

    /// All cases in the modes that fit into `free` bytes; none where `exact` does not.
    fn expect(&self, speed: &Speed, free: Option<u64>) -> Vec<Expect> {
        let total = |mode| self.total(mode, Engines::default());
        let modes = [WindowMode::Exact, WindowMode::Ahead, WindowMode::Rolling];
        let modes = modes.into_iter().filter(|mode| free.is_none_or(|free| total(*mode) <= free));
        let modes: Vec<WindowMode> = modes.collect();
        if modes.is_empty() {
            return Vec::new();
        }
        // The longer of what the arithmetic takes and what reading the matrices once takes, in ms.
        let matrices = (self.blocks + self.output) * self.bytes_per_weight;
        let ms = |rows: usize| {
            let arithmetic = 2.0 * self.blocks * rows as f64 / 1e6 / speed.gflop_s;
            arithmetic.max(matrices / 1e6 / speed.gb_s)
        };
        let arithmetic = format!("{:.0} GFLOP/s, half the processor's f32", speed.gflop_s);
        let how = format!("{:.1} GFLOP at {arithmetic}", self.tower_flop / 1e9);
        let mut all = vec![self.one("enc", None, self.tower_flop / 1e6 / speed.gflop_s, "ms", how)];
        all.push(self.one(
            "frame",
            None,
            ms(self.tokens),
            "ms",
            format!("{} rows at {arithmetic}", self.tokens),
        ));
        let window = PROMPT + CAPACITY * self.tokens;
        let read = matrices + self.sizes.shape().bytes(KvPrecision::F16, window) as f64;
        let seconds = (read / 1e9 / speed.gb_s).max(2.0 * (self.blocks + self.output) / 1e9 / speed.gflop_s);
        let memory = format!("{:.2} GB a token at {:.0} GB/s, half the memory's", read / 1e9, speed.gb_s);
        all.push(self.one("tg128", None, 1.0 / seconds, "tok/s", format!("{memory}; or {arithmetic}")));
        for mode in modes {
            let rows = if mode == WindowMode::Exact { window + QUESTION } else { QUESTION };
            all.push(self.one("ttft32", Some(mode), ms(rows), "ms", format!("{rows} rows at {arithmetic}")));
            let mib = total(mode) as f64 / f64::from(1 << 20);
            all.push(self.one(
                "rss_peak",
                Some(mode),
                mib,
                "MiB",
                "the memory budget of a full window".into(),
            ));
        }
        all
    }
}

/// The largest decoder of the estimated models, in 4 bits, whose live window fits into `free` bytes beside what
/// engines take; its name and what it all takes. `second` is the copy of the decoder's matrices that the
/// processor works on.
pub fn largest_model(free: u64, second: Second, engines: Engines) -> Option<(String, u64)> {
    let models = MODELS.iter().map(|(decoder, tower)| Subject::new(*decoder, *tower, Bits::Q4, second));
    let totals = models.map(|model| (model.total(WindowMode::Rolling, engines), model));
    let fitting = totals.filter(|(total, _)| *total <= free);
    let largest = fitting.max_by(|(_, a), (_, b)| a.blocks.total_cmp(&b.blocks));
    largest.map(|(total, model)| (model.name, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_the_data_sheet_and_leave_out_what_does_not_fit() {
        let named = |name: &str| Board::named(name).unwrap();
        let (nano, agx) = (named("jetson-orin-nano"), named("jetson-agx-orin"));
        let value = |board: &Board, case: &str, shape: &str, mode| {
            expected(board, case, shape, "q4_0", mode).map(|e| e.value)
        };
        let small = "qwen2-0.5b+siglip-b16";
        // 278 MB of matrices and 20 MB of keys and values a token, at half of 102.4 GB/s: by hand.
        let tokens = value(&nano, "tg128", small, None).unwrap();
        assert!(tokens < 190.0, "{tokens}");
        // Arithmetic bounds it on six cores: 494 M weights twice, at half of 6 x 1.728 GHz x 16.
        assert!((tokens - 83.0 / (2.0 * 0.4938)).abs() < 2.0, "{tokens}");
        assert!(value(&agx, "tg128", small, None).unwrap() > tokens);
        assert!(
            value(&nano, "ttft32", small, Some("exact")).unwrap()
                > 30.0 * value(&nano, "ttft32", small, Some("rolling")).unwrap()
        );
        // A decoder alone is that of the model with a tower; a tower alone is not.
        assert_eq!(
            expected(&nano, "frame", "qwen2-0.5b", "q4_0", None),
            expected(&nano, "frame", small, "q4_0", None)
        );
        assert_eq!(value(&nano, "enc", "qwen2-0.5b", None), None);
        let seven = "qwen2-7b+siglip-so400m";
        assert_eq!(value(&nano, "tg128", seven, None), None);
        assert!(value(&agx, "tg128", seven, None).is_some_and(|tokens| tokens < 40.0));
        assert!(expectations(&named("generic")).is_empty());
        for expect in expectations(&nano) {
            assert!(
                expect.value.is_finite() && expect.value > 0.0 && expect.basis == Basis::Estimated,
                "{expect:?}"
            );
        }
    }

    #[test]
    fn a_figure_of_the_profile_stands_in_the_place_of_an_estimate() {
        let text = include_str!("../../targets/jetson-orin-nano.toml").to_string()
            + "[[expect]]\ncase = \"tg128\"\nshape = \"qwen2-0.5b+siglip-b16\"\nbits = \"q4_0\"\nvalue = 12.5\nunit = \"tok/s\"\n\
               basis = \"measured\"\nhow = \"utr bench\"\n";
        let board = Board::parse(&text).unwrap();
        let found = expected(&board, "tg128", "qwen2-0.5b+siglip-b16", "q4_0", None).unwrap();
        assert_eq!((found.value, found.basis.to_string().as_str()), (12.5, "measured"));
        let estimated = expectations(&Board::named("jetson-orin-nano").unwrap());
        assert_eq!(expectations(&board).len(), estimated.len());
    }
}
