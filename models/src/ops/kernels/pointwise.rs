//! SwiGLU, tanh-GELU and rotary positions by kernels.
//!
//! Comes in and goes out: tensors of one shape; see `activation.rs` and `rope.rs` of the parent folder.

use super::launch::{Launch, Scalar, spread};
use super::tape::{record, tensor};
use candle_core::{Result, Storage, Tensor};

/// A kernel over `inputs` of one shape with one output for each of `outputs` gradients or results.
fn each(kernel: &str, inputs: &[&Tensor], outputs: usize) -> Result<Vec<Storage>> {
    let (count, dtype) = (inputs[0].elem_count(), inputs[0].dtype());
    Launch {
        kernel,
        dtype,
        width: None,
        grid: spread(count),
        threads: 256,
        inputs,
        outputs: &vec![(count, dtype); outputs],
        scalars: &[Scalar::Size(count as u64)],
    }
    .run()
}

/// Results as tensors like `like`.
fn shaped(storages: Vec<Storage>, like: &Tensor) -> Vec<Option<Tensor>> {
    storages.into_iter().map(|storage| Some(tensor(storage, like.shape()))).collect()
}

/// See [`crate::ops::swiglu`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    let (g, u) = (gate.detach(), up.detach());
    let out = each("swiglu", &[&g, &u], 1)?.remove(0);
    record(&[&gate, &up], out, gate.shape(), move |_, grad| {
        Ok(shaped(each("swiglu_back", &[&g, &u, grad], 2)?, &g))
    })
}

/// See [`crate::ops::gelu_tanh`].
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let kept = x.detach();
    let out = each("gelu", &[&kept], 1)?.remove(0);
    record(&[&x], out, x.shape(), move |_, grad| Ok(shaped(each("gelu_back", &[&kept, grad], 1)?, &kept)))
}

/// Rotates rows by tables of cosines and sines (rows, half); `direction` is 1 to rotate, -1 to undo. No gradient.
pub fn rotate(x: &Tensor, [cosine, sine]: &[Tensor; 2], direction: f32) -> Result<Tensor> {
    let ((rows, width), (_, half)) = (x.dims2()?, cosine.dims2()?);
    let mut out = Launch {
        kernel: "rotate",
        dtype: x.dtype(),
        width: None,
        grid: spread(rows * width / 2),
        threads: 256,
        inputs: &[x, cosine, sine],
        outputs: &[(rows * width, x.dtype())],
        scalars: &[Scalar::int(rows)?, Scalar::int(width)?, Scalar::int(half)?, Scalar::Float(direction)],
    }
    .run()?;
    Ok(tensor(out.remove(0), (rows, width)))
}
