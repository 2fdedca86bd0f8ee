//! The kernels for NVIDIA GPUs (`models/cuda/`), as operations with gradients.
//!
//! Comes in: f32 or bf16 tensors on a CUDA device. Goes out: the same results and gradients as the readable twins in `plain.rs`. Each operation
//! runs its kernels, then puts the result on candle's tape with a function for its gradients ([`tape`]); an operand that is not
//! trained costs no gradient. In tests the same code runs on the CPU: the kernels compiled for the host stand in for the device
//! ([`emulate`]). Matrix products are cuBLAS's and not made here.

mod attention;
#[cfg(test)]
pub(crate) mod emulate;
mod launch;
mod loss;
mod norm;
mod pointwise;
mod tables;
mod tape;
#[cfg(test)]
mod tests;

pub(super) use attention::attend_packed;
pub(super) use loss::cross_entropy;
pub(super) use norm::{layer_norm, rms_norm};
pub(super) use pointwise::{gelu_tanh, swiglu};
pub(super) use tables::Cache;

use candle_core::{DType, Tensor};

/// Whether the kernels apply to operands like these: all on one CUDA device, all of one type that they know.
pub(super) fn apply(operands: &[&Tensor]) -> bool {
    let Some(first) = operands.first() else { return false };
    let alike = |x: &&Tensor| x.dtype() == first.dtype() && x.device().same_device(first.device());
    let known = matches!(first.dtype(), DType::F32 | DType::BF16);
    on_device(first) && known && operands.iter().all(alike) && first.elem_count() > 0
}

/// Whether a tensor is where the kernels run.
pub(super) fn on_device(x: &Tensor) -> bool {
    #[cfg(test)]
    if x.device().is_cpu() && emulate::active() {
        return true;
    }
    x.device().is_cuda()
}
