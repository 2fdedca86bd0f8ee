//! What to expect of `utr bench` on a board nobody has measured: a roofline over its data sheet.
//!
//! Comes in: a board's profile. Goes out: one [`Expect`] for every case, decoder, format and window mode that
//! fits into its memory, for the processor, on which the default engines run; figures that the profile holds
//! stand in the place of the estimated ones. The GPU is left out until something runs there.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utr_models::manifest::WindowMode;

use super::Board;
use crate::bench::Case;
use crate::bench::random::{Bits, Model, Shape, Tower, matrices};
use crate::budget::{Available, Choice, Sizes};
use crate::decode::KvPrecision;
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

/// A figure to expect of `utr bench` on a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// As `utr bench` names it: `enc`, `frame`, `ttft32`, `tg128`, `rss_peak`, `drop%`.
    pub case: String,
    /// The shape of random weights, such as `qwen2-0.5b+siglip-b16`; none where `bundle` is given.
    #[serde(default)]
    pub shape: Option<String>,
    /// A bundle's name.
    #[serde(default)]
    pub bundle: Option<String>,
    /// Bits of the decoder's matrices, such as `q4_0`; none where it makes no difference.
    #[serde(default)]
    pub bits: Option<String>,
    /// Window mode; none where the case has none.
    #[serde(default)]
    pub mode: Option<String>,
    /// The figure.
    pub value: f64,
    /// Its unit, as `utr bench` prints it.
    pub unit: String,
    /// Whether anybody saw it.
    pub basis: Basis,
    /// The formula, or how it was measured.
    pub how: String,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// From a formula over the profile.
    Estimated,
    /// Seen on the board.
    Measured,
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Estimated => "estimated",
            Self::Measured => "measured",
        })
    }
}

impl Expect {
    /// Whether two are about the same thing.
    fn same(&self, other: &Self) -> bool {
        (&self.case, &self.shape, &self.bundle, &self.bits, &self.mode)
            == (&other.case, &other.shape, &other.bundle, &other.bits, &other.mode)
    }
}

impl Board {
    /// What to expect of `utr bench` here: the profile's figures, then estimates for what they leave open.
    /// Empty for a profile that fits many machines.
    pub fn expectations(&self) -> Vec<Expect> {
        let mut all = self.expect.clone();
        for estimate in self.estimates() {
            if !all.iter().any(|known| known.same(&estimate)) {
                all.push(estimate);
            }
        }
        all
    }

    /// The one for a case. A shape without a tower is that of its decoder alone; what makes no difference to
    /// the case is not looked at.
    pub fn expected(&self, case: &str, shape: &str, bits: &str, mode: Option<&str>) -> Option<Expect> {
        let alike = |known: &Option<String>, asked: &str| known.as_deref().is_none_or(|known| known == asked);
        self.expectations().into_iter().find(|expect| {
            let known = expect.shape.as_deref().unwrap_or_default();
            let decoder = known.split('+').next() == Some(shape) && expect.case != "enc";
            expect.case == case
                && (known == shape || decoder)
                && alike(&expect.bits, bits)
                && (expect.mode.is_none() || expect.mode.as_deref() == mode)
        })
    }

    fn estimates(&self) -> Vec<Expect> {
        let (Some(compute), Some(bandwidth)) = (&self.compute, self.memory.bandwidth_gb_s) else {
            return Vec::new();
        };
        let peak =
            f64::from(compute.cores) * f64::from(compute.mhz) * f64::from(compute.flop_per_cycle) / 1e3;
        let speed = Speed { gflop_s: peak * SHARE, gb_s: bandwidth * SHARE };
        let free = Available::of_board(self).map(|available| available.free);
        let all =
            MODELS.iter().flat_map(|pair| Bits::value_variants().iter().map(move |bits| (*pair, *bits)));
        let packs = compute.dot_products;
        let subjects = all.map(|((decoder, tower), bits)| Subject::new(decoder, tower, bits, packs));
        subjects.flat_map(|subject| subject.expect(&speed, free)).collect()
    }
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
    fn new(decoder: Shape, tower: Tower, bits: Bits, packs: bool) -> Self {
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
        let bytes_per_weight = bits.bytes(matrices(&text)) as f64 / blocks;
        let sizes = model.sizes(bits, tokens, Case::Frame).packing(packs);
        Self { name, bits: word, tokens, sizes, blocks, output, bytes_per_weight, tower_flop }
    }

    fn total(&self, mode: WindowMode) -> u64 {
        self.sizes.need(Choice { frames: CAPACITY, mode, kv: KvPrecision::F16 }).total()
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
        let modes = [WindowMode::Exact, WindowMode::Ahead, WindowMode::Rolling];
        let modes = modes.into_iter().filter(|mode| free.is_none_or(|free| self.total(*mode) <= free));
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
            let mib = self.total(mode) as f64 / f64::from(1 << 20);
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

/// As the command line spells it.
pub fn mode_name(mode: WindowMode) -> &'static str {
    match mode {
        WindowMode::Exact => "exact",
        WindowMode::Ahead => "ahead",
        WindowMode::Rolling => "rolling",
    }
}

/// The largest decoder of the estimated models, in 4 bits, whose live window fits into `free` bytes; its name
/// and what it takes. `packs` says whether the processor works on a second copy of the decoder's matrices.
pub fn largest_model(free: u64, packs: bool) -> Option<(String, u64)> {
    let models = MODELS.iter().map(|(decoder, tower)| Subject::new(*decoder, *tower, Bits::Q4, packs));
    let fitting =
        models.map(|model| (model.total(WindowMode::Rolling), model)).filter(|(total, _)| *total <= free);
    let largest = fitting.max_by(|(_, a), (_, b)| a.blocks.total_cmp(&b.blocks));
    largest.map(|(total, model)| (model.name, total))
}
