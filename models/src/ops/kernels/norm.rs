//! Root-mean-square norm and layer norm by kernels.
//!
//! Comes in: rows, a scale, for layer norm a shift; see `norm.rs` of the parent folder. The gradients of scale and shift are added up in two
//! steps, by blocks and then over the blocks, always in the same order.

use super::launch::{Launch, Scalar, spread};
use super::tape::{record, tensor};
use candle_core::{DType, Result, Storage, Tensor};

/// Threads of a block, as the kernels are written for.
const THREADS: u32 = 256;
/// Blocks that share the rows of a backward pass.
const BLOCKS: usize = 256;

/// Sizes of a call: rows and channels.
fn sizes(x: &Tensor, weight: &Tensor) -> Result<[usize; 2]> {
    let channels = weight.dims1()?;
    if x.dims().last() != Some(&channels) {
        candle_core::bail!("norm: rows of {:?} meet a scale of {channels}", x.shape())
    }
    Ok([x.elem_count() / channels, channels])
}

fn forward(kernel: &str, inputs: &[&Tensor], [rows, channels]: [usize; 2], eps: f32) -> Result<Storage> {
    let launch = Launch {
        kernel,
        dtype: inputs[0].dtype(),
        width: None,
        grid: [rows, 1],
        threads: THREADS,
        inputs,
        outputs: &[(rows * channels, inputs[0].dtype())],
        scalars: &[Scalar::int(channels)?, Scalar::Float(eps)],
    };
    Ok(launch.run()?.remove(0))
}

/// The gradient of `x`, and `vectors` gradients of channel vectors one after the other.
fn backward(
    kernel: &str,
    [x, weight, grad]: [&Tensor; 3],
    [rows, channels]: [usize; 2],
    vectors: usize,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    let (dtype, blocks, wide) = (x.dtype(), rows.min(BLOCKS), vectors * channels);
    let mut outputs = Launch {
        kernel,
        dtype,
        width: None,
        grid: [blocks, 1],
        threads: THREADS,
        inputs: &[x, weight, grad],
        outputs: &[(rows * channels, dtype), (blocks * wide, DType::F32)],
        scalars: &[Scalar::int(rows)?, Scalar::int(channels)?, Scalar::Float(eps)],
    }
    .run()?;
    let dx = tensor(outputs.remove(0), x.shape());
    let parts = tensor(outputs.remove(0), (blocks, wide));
    let sums = Launch {
        kernel: "column_sums",
        dtype,
        width: None,
        grid: spread(wide),
        threads: THREADS,
        inputs: &[&parts],
        outputs: &[(wide, dtype)],
        scalars: &[Scalar::int(blocks)?, Scalar::int(wide)?],
    }
    .run()?
    .remove(0);
    Ok((dx, tensor(sums, (vectors, channels))))
}

/// See [`crate::ops::rms_norm`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (x, weight, eps) = (x.contiguous()?, weight.contiguous()?, eps as f32);
    let (sizes, kept, scale) = (sizes(&x, &weight)?, x.detach(), weight.detach());
    let out = forward("rms_norm", &[&kept, &scale], sizes, eps)?;
    record(&[&x, &weight], out, x.shape(), move |_, grad| {
        let (dx, sums) = backward("rms_norm_back", [&kept, &scale, grad], sizes, 1, eps)?;
        Ok(vec![Some(dx), Some(sums.flatten_all()?)])
    })
}

/// See [`crate::ops::layer_norm`].
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let (x, weight, bias, eps) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?, eps as f32);
    let (sizes, kept, scale) = (sizes(&x, &weight)?, x.detach(), weight.detach());
    let out = forward("layer_norm", &[&kept, &scale, &bias.detach()], sizes, eps)?;
    record(&[&x, &weight, &bias], out, x.shape(), move |_, grad| {
        let (dx, sums) = backward("layer_norm_back", [&kept, &scale, grad], sizes, 2, eps)?;
        Ok(vec![Some(dx), Some(sums.get(0)?), Some(sums.get(1)?)])
    })
}
