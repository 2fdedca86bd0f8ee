//! How much memory an update needs, part by part, from sizes alone.
//!
//! Comes in: a network's sizes, what moves and how, and what a micro-batch makes the network read. Goes out: bytes that live at once. Counted is what lives
//! through an update or through the largest step of the backward pass, as the fused kernels hold it (attention and cross-entropy recompute); candle operations that compose a
//! kernel where there is none (bf16 on the CPU) hold more. Where the bytes lie: parameters and activations on the device that computes, the rest in
//! the host's memory. Nothing is measured here; a test holds the numbers against a run.

use utr_models::Config;
use utr_models::network::Work;
use utr_models::weights;

/// What moves, and how it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The tower moves.
    pub tower: bool,
    /// The decoder moves.
    pub decoder: bool,
    /// Numbers in low-rank adapters, where the decoder learns through these; they are taken to sit on all its matrices.
    pub adapters: usize,
    /// Bytes per weight and activation: 4 for f32, 2 for bf16.
    pub width: usize,
    /// See [`super::recipe::Recipe::checkpointing`].
    pub checkpointing: bool,
    /// Micro-batches at once, one per worker.
    pub workers: usize,
    /// Processes that share moments and masters.
    pub ranks: usize,
}

/// Bytes that live at once in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights that the network computes with.
    pub parameters: usize,
    /// Gradients of one worker alone: the sum of an update's, and the one that is made. (Several workers or ranks keep more, see [`super::plan`].)
    pub gradients: usize,
    /// What rank 0 copies to write a checkpoint, between updates: the moments and values of all ranks, and matrices with their adapters in them. (On a
    /// CPU in f32 the values are not copied.)
    pub checkpoint: usize,
    /// First and second moments.
    pub moments: usize,
    /// f32 values of what is computed with in another type.
    pub masters: usize,
    /// What the tower keeps for the backward pass, all workers.
    pub tower: usize,
    /// What the decoder keeps for the backward pass, all workers.
    pub decoder: usize,
    /// What the largest step needs while it is gone back through, all workers.
    pub step: usize,
}

impl Memory {
    /// All that lives in an update.
    pub fn total(&self) -> usize {
        let Self { parameters, gradients, moments, masters, tower, decoder, step, .. } = *self;
        parameters + gradients + moments + masters + tower + decoder + step
    }

    /// What lies at most in the memory of rank 0's host: gradients in an update, or copies while a checkpoint is written.
    pub fn host(&self) -> usize {
        self.gradients.max(self.checkpoint) + self.moments + self.masters
    }

    /// What lies on the device that computes, where that is not the host.
    pub fn device(&self) -> usize {
        self.parameters + self.tower + self.decoder + self.step
    }
}

/// Numbers of the weights whose names `of` accepts.
pub fn count(config: &Config, of: impl Fn(&str) -> bool) -> usize {
    let rows = weights::table(config).into_iter().filter(|(name, _, _)| of(name));
    rows.map(|(_, shape, _)| shape.iter().product::<usize>()).sum()
}

/// Numbers that move.
pub fn moving(config: &Config, setting: &Setting) -> usize {
    let of = |name: &str| match name {
        name if name.starts_with("vision_tower") => setting.tower && !name.contains("post_layernorm"),
        name if name.starts_with("multi_modal_projector") => true,
        "image_newline" => setting.decoder || setting.adapters > 0,
        _ => setting.decoder,
    };
    count(config, of) + setting.adapters
}

/// Numbers per row that the graph of one block of the tower keeps: two norms, queries, keys, values, attention, three maps' and two sums' results,
/// and the activation with what goes into it.
pub fn tower_block(config: &Config) -> usize {
    10 * config.vision.hidden + 2 * config.vision.intermediate
}

/// The same for a block of the decoder.
pub fn decoder_block(config: &Config) -> usize {
    let t = &config.text;
    6 * t.hidden + 2 * (t.heads + t.kv_heads) * t.head_dim + 3 * t.intermediate
}

/// Numbers per row that adapters on all seven matrices of a block of the decoder keep beside it: what each adds, and the sum with it.
fn adapted(config: &Config) -> usize {
    let t = &config.text;
    2 * (t.heads + 2 * t.kv_heads) * t.head_dim + 4 * t.hidden + 4 * t.intermediate
}

/// Numbers per row of patches that projector and pool keep: features, two maps and the activation; a quarter is left after the pool.
fn projector(config: &Config) -> usize {
    config.feature_channels() + 3 * config.text.hidden + config.text.hidden / 4
}

/// Bytes of an update whose largest micro-batch is `work`.
pub fn memory(config: &Config, setting: &Setting, work: &Work) -> Memory {
    let (v, t) = (&config.vision, &config.text);
    let Setting { width, workers, ranks, .. } = *setting;
    let all = count(config, |_| true) + setting.adapters;
    let moving = moving(config, setting);
    let (patches, rows) = (work.patches, work.rows);
    let tower_moves = setting.tower;
    // Between blocks lies one row of channels; without checkpointing also what is inside of the block, and a copy of what went in.
    let inside = |block: usize| if setting.checkpointing { 0 } else { block };
    let tower = match tower_moves {
        true => patches * (v.layers * (v.hidden + inside(tower_block(config))) + v.hidden),
        false => 0,
    };
    let projector_rows = patches * (config.feature_channels() + inside(projector(config)));
    let in_decoder = decoder_block(config) + if setting.adapters > 0 { adapted(config) } else { 0 };
    let decoder = rows * (t.layers * (t.hidden + inside(in_decoder)) + 2 * t.hidden);
    // The kernels of the CPU, which are f32, hold one head's scores, twice on the way back; half of them count.
    let scores = if width == 4 { 4 * work.pairs } else { 0 };
    let block = |prefix: &str| count(config, |name| name.starts_with(prefix));
    let attention = t.heads * t.head_dim;
    let adapted_matrix =
        |name: &str| name.starts_with("language_model.layers.") && name.ends_with("proj.weight");
    let merged = if setting.adapters > 0 { count(config, adapted_matrix) } else { 0 };
    // A step's own graph, what comes from above, and the widest of what goes back through it, in a gradient and the sum that it is added to.
    let steps = [
        patches * if tower_moves { tower_block(config) + 3 * v.hidden + 3 * v.intermediate } else { 0 }
            + if tower_moves { block("vision_tower.encoder.layers.0.") } else { 0 },
        patches * (projector(config) + 6 * t.hidden) + block("multi_modal_projector"),
        rows * (in_decoder + 3 * t.hidden + 3 * t.intermediate.max(attention))
            + scores
            + if setting.decoder { block("language_model.layers.0.") } else { 0 },
        // Logits, and the head's gradient with the sum that it is added to.
        work.targets * (t.vocab + t.hidden) * 4 / width
            + 3 * rows * t.hidden
            + if setting.decoder { 2 * t.vocab * t.hidden } else { 0 },
    ];
    Memory {
        parameters: all * width,
        gradients: moving * 4 * 2,
        checkpoint: moving * (8 + 4) + merged * 4,
        moments: moving * 8 / ranks.max(1),
        masters: if width < 4 { moving * 4 / ranks.max(1) + (all - moving) * 4 } else { 0 },
        tower: tower * width * workers,
        decoder: (projector_rows + decoder) * width * workers,
        step: steps.into_iter().max().unwrap_or(0) * width * workers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use utr_models::config::{TextConfig, VisionConfig};

    /// Qwen2-7B with SigLIP so400m, whose last block is not used.
    fn seven_billion() -> Config {
        Config {
            vision: VisionConfig {
                hidden: 1152,
                intermediate: 4304,
                layers: 26,
                heads: 16,
                image_size: 384,
                patch: 14,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                hidden: 3584,
                intermediate: 18944,
                layers: 28,
                heads: 28,
                kv_heads: 4,
                head_dim: 128,
                vocab: 152_064,
                rope_theta: 1e6,
                rms_norm_eps: 1e-6,
                max_positions: 32_768,
                tied: false,
            },
            feature_layers: vec![26],
            image_token: 0,
            video_token: 1,
        }
    }

    #[test]
    fn a_model_of_seven_billion_fits_a_large_gpu_with_checkpointing_and_only_so() {
        let config = seven_billion();
        let billions = count(&config, |_| true) as f64 / 1e9;
        assert!((8.0..8.1).contains(&billions), "{billions}");
        // 32 frames and a conversation.
        let work = Work { patches: 32 * 729, rows: 32 * 196 + 1 + 800, pairs: 0, targets: 300 };
        let with = |checkpointing| Setting {
            tower: true,
            decoder: true,
            adapters: 0,
            width: 2,
            checkpointing,
            workers: 1,
            ranks: 1,
        };
        let [kept, less] = [false, true].map(|c| memory(&config, &with(c), &work).device() as f64 / 1e9);
        assert!(less < 40.0 && kept > 60.0, "{less} and {kept} GB");
        let align = Setting { tower: false, decoder: false, ..with(true) };
        let found = memory(&config, &align, &work);
        assert_eq!(found.tower, 0);
        assert_eq!(found.moments, 8 * count(&config, |name| name.starts_with("multi_modal_projector")));
    }

    #[test]
    fn ranks_share_moments_and_masters_only() {
        let (config, work) = (seven_billion(), Work { patches: 729, rows: 900, pairs: 0, targets: 10 });
        let of = |ranks| {
            let setting = Setting {
                tower: true,
                decoder: true,
                adapters: 0,
                width: 4,
                checkpointing: false,
                workers: 2,
                ranks,
            };
            memory(&config, &setting, &work)
        };
        let (one, eight) = (of(1), of(8));
        assert_eq!(one.moments / 8, eight.moments);
        assert_eq!(Memory { moments: one.moments, ..eight }, one);
    }
}
