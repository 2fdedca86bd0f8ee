//! The arithmetic that the network is made of, with gradients.
//!
//! Comes in: f32 tensors on the CPU take the fused kernels of this folder (each a candle custom operation with its own
//! backward pass); f32 and bf16 tensors on a CUDA device take the kernels of `models/cuda/` (feature `cuda`); any other type or device takes the readable composition of plain candle operations in `plain.rs`, which is
//! also what the kernels are tested against. Work is spread over the current rayon pool: a caller that already runs one
//! network per thread installs a pool of one. No weights and no shapes of a particular network here.

mod activation;
mod attention;
mod cross_entropy;
pub mod gemm;
#[cfg(any(test, feature = "cuda"))]
mod kernels;
mod linear;
mod norm;
mod packing;
pub mod plain;
mod rope;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use kernels::emulate;

pub use activation::{gelu_tanh, swiglu};
pub use attention::{attend_packed, softmax};
pub use cross_entropy::{Label, cross_entropy};
pub use linear::{linear, mix_rows};
pub use norm::{layer_norm, rms_norm};
pub use packing::{Packing, Sequence, Stream};
pub use rope::Rope;

use candle_core::{CpuStorage, DType, Layout, Result, Tensor, bail};

/// Whether the fused CPU kernels apply.
fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The elements of a contiguous f32 CPU storage.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (Some((from, to)), CpuStorage::F32(data)) = (layout.contiguous_offsets(), storage) else {
        bail!("fused kernels need contiguous f32 tensors, got {:?} {:?}", layout.shape(), storage)
    };
    data.get(from..to).ok_or_else(|| candle_core::Error::Msg("a tensor's layout exceeds its storage".into()))
}

/// Runs `f` on the elements of a contiguous f32 CPU tensor.
fn with<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => f(slice(storage, layout)?),
        _ => bail!("fused kernels run on the CPU only"),
    }
}
