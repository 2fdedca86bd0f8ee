//! How much arithmetic an update needs, and how much of it this machine could do in the same time.
//!
//! Comes in: a network's sizes and what a batch made it read; threads. Goes out: floating-point operations of forward and backward, and the rate that
//! plain matrix products reach on these threads. Their quotient over time is the model FLOPs utilization (Chowdhery et al., PaLM, 2022,
//! appendix B): what the update had to compute, not what the program happened to compute; norms, softmax and the pool are left out.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use std::time::{Duration, Instant};
use utr_models::Config;
use utr_models::network::Work;
use utr_models::ops::gemm::{View, gemm};

/// Operations of one forward and backward pass: `6 N` per row of a part with `N` weights, and `12 heads dim` per layer and pair of rows that attend
/// (PaLM's `12 L H Q T` per token, with only the pairs that the mask lets through).
///
/// Of the 6, 2 are the forward pass, 2 the gradient of the rows and 2 the gradient of the weights: with tower and decoder `frozen` (adapters of low rank
/// are not counted) the tower costs 2, the decoder, which must pass gradients on, 4. The embedding table is a look-up; the head counts where it is asked, at the targets.
pub fn flops(config: &Config, frozen: bool, work: &Work) -> f64 {
    let (v, t) = (&config.vision, &config.text);
    let [patches, rows, pairs, targets] =
        [work.patches, work.rows, work.pairs, work.targets].map(|count| count as f64);
    let tower = v.layers * (4 * v.hidden * v.hidden + 2 * v.hidden * v.intermediate)
        + 3 * v.patch * v.patch * v.hidden;
    let tower_attention = (v.layers * 2 * v.hidden * v.grid().pow(2)) as f64;
    let projector = (config.feature_channels() + t.hidden) * t.hidden;
    let attention = t.heads * t.head_dim;
    let block = 2 * t.hidden * (attention + t.kv_heads * t.head_dim) + 3 * t.hidden * t.intermediate;
    let (per_tower, per_decoder) = if frozen { (2.0, 4.0) } else { (6.0, 6.0) };
    patches * (per_tower * (tower as f64 + tower_attention) + 6.0 * projector as f64)
        + per_decoder * (rows * (t.layers * block) as f64 + targets * (t.hidden * t.vocab) as f64)
        + 12.0 * pairs * (t.layers * attention) as f64
}

/// Side of the products that the ceiling is measured with: large enough for full speed, small enough for a core's second cache.
const SIDE: usize = 384;

/// How long products are run; the fastest one counts, since other programs may take a core for a while.
const MEASURE: Duration = Duration::from_millis(120);

/// Side of the products on a GPU, where only large ones reach full speed.
const DEVICE_SIDE: usize = 4096;

/// Operations per second of matrix products: on a GPU its own in `dtype`, on the CPU those of all one-thread `pools` at once, in f32.
pub fn ceiling(device: &Device, dtype: DType, pools: &[rayon::ThreadPool]) -> Result<f64> {
    if device.is_cpu() {
        return Ok(threads(pools));
    }
    let x = Tensor::ones((DEVICE_SIDE, DEVICE_SIDE), dtype, device)?;
    let mut fastest = Duration::MAX;
    // The first products load the library.
    for _ in 0..6 {
        device.synchronize()?;
        let product = Instant::now();
        x.matmul(&x)?;
        device.synchronize()?;
        fastest = fastest.min(product.elapsed());
    }
    Ok(2.0 * (DEVICE_SIDE as f64).powi(3) / fastest.as_secs_f64())
}

fn threads(pools: &[rayon::ThreadPool]) -> f64 {
    let rate = || {
        let (a, b) = (vec![0.5f32; SIDE * SIDE], vec![0.25f32; SIDE * SIDE]);
        let mut out = vec![0.0f32; SIDE * SIDE];
        let (begun, mut fastest) = (Instant::now(), Duration::MAX);
        while begun.elapsed() < MEASURE {
            let product = Instant::now();
            gemm(&mut out, SIDE, SIDE, SIDE, SIDE, View::rows(&a, SIDE), View::rows(&b, SIDE), 1.0, false);
            fastest = fastest.min(product.elapsed());
        }
        std::hint::black_box(&out);
        2.0 * (SIDE as f64).powi(3) / fastest.as_secs_f64()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = pools.iter().map(|pool| scope.spawn(move || pool.install(rate))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use utr_models::config::{TextConfig, VisionConfig};
    use utr_models::ops::{Sequence, Stream};

    fn config() -> Config {
        Config {
            vision: VisionConfig {
                hidden: 8,
                intermediate: 16,
                layers: 2,
                heads: 2,
                image_size: 8,
                patch: 4,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                hidden: 16,
                intermediate: 24,
                layers: 3,
                heads: 4,
                kv_heads: 2,
                head_dim: 4,
                vocab: 50,
                rope_theta: 1e4,
                rms_norm_eps: 1e-6,
                max_positions: 64,
                tied: true,
            },
            feature_layers: vec![2],
            image_token: 0,
            video_token: 1,
        }
    }

    #[test]
    fn six_operations_per_weight_and_row_by_the_table_of_weights() {
        let config = config();
        let work = Work { patches: 8, rows: 10, pairs: 0, targets: 10 };
        let count = |prefix: &str| -> f64 {
            let rows = utr_models::weights::table(&config);
            let matrices = rows.iter().filter(|(name, shape, _)| {
                name.starts_with(prefix) && shape.len() > 1 && !name.contains("position_embedding")
            });
            matrices.map(|(_, shape, _)| shape.iter().product::<usize>() as f64).sum()
        };
        let (tower, projector) = (count("vision_tower"), count("multi_modal_projector"));
        // The decoder's matrices hold the tied table, which is the head of every target.
        let decoder = count("language_model");
        let attention = 8.0 * (2 * 2 * 8 * 4) as f64;
        let want = 6.0 * (8.0 * (tower + projector) + attention + 10.0 * decoder);
        assert_eq!(flops(&config, false, &work), want);
        let align = 8.0 * (2.0 * tower + 6.0 * projector) + 2.0 * attention + 4.0 * 10.0 * decoder;
        assert_eq!(flops(&config, true, &work), align);
    }

    #[test]
    fn pairs_are_those_that_the_mask_lets_through() {
        assert_eq!(Sequence::new(3, vec![2, 1]).pairs(), (1 + 2 + 3) + (4 + 5) + 4);
        // Two rows of text, four frames of one row through a window of two, one row of text.
        let stream = Stream { prefix: 2, frame: 1, frames: 4, window: 2 };
        let sequence = Sequence { trunk: 7, branches: Vec::new(), stream: Some(stream) };
        assert_eq!(sequence.pairs(), (1 + 2) + (3 + 4 + 4 + 4) + 5);
    }

    #[test]
    fn the_ceiling_of_this_machine_is_measured() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(ceiling(&Device::Cpu, DType::F32, &[pool]).unwrap() > 1e8);
    }
}
