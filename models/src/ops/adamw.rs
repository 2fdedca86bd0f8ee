//! One step of AdamW where the weights lie, with f32 master weights.
//!
//! Comes in: a state (3, n) in f32 (weights, first and second moments), a gradient of n elements in f32 or bf16. Goes out: the state moved on,
//! in place. The learning rate's schedule and which weights decay are the caller's.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, bail};

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Factor of the gradient: what clipping says.
    pub scale: f32,
    /// Learning rate.
    pub lr: f32,
    /// Share of the weights that is taken off, learning rate included.
    pub decay: f32,
    /// Decay of the first and of the second moment.
    pub betas: [f32; 2],
    /// What makes up for moments that began at zero: `1 / (1 - beta^updates)`.
    pub unbias: [f32; 2],
}

impl AdamWStep {
    /// Moves `state` (3, n) by `grad`.
    pub fn apply(self, state: &Tensor, grad: &Tensor) -> Result<()> {
        let (three, n) = state.dims2()?;
        if three != 3 || n != grad.elem_count() || state.dtype() != DType::F32 {
            bail!(
                "AdamW: a state of {:?} {:?} for {} gradients",
                state.shape(),
                state.dtype(),
                grad.elem_count()
            )
        }
        state.inplace_op2(&grad.contiguous()?, &self)
    }

    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn scalars(&self, n: usize) -> Vec<super::kernels::launch::Scalar> {
        use super::kernels::launch::Scalar::{Float, Size};
        let Self { scale, lr, decay, betas: [b1, b2], unbias: [u1, u2] } = *self;
        [Size(n as u64)].into_iter().chain([scale, lr, decay, b1, b2, u1, u2].map(Float)).collect()
    }
}

impl InplaceOp2 for AdamWStep {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, state: &mut CpuStorage, ls: &Layout, grad: &CpuStorage, lg: &Layout) -> Result<()> {
        let (Some((from, to)), Some((first, last)), CpuStorage::F32(state)) =
            (ls.contiguous_offsets(), lg.contiguous_offsets(), state)
        else {
            bail!("AdamW: the state and the gradient must be dense")
        };
        let grad: Vec<f32> = match grad {
            CpuStorage::F32(grad) => grad[first..last].to_vec(),
            CpuStorage::BF16(grad) => grad[first..last].iter().map(|g| g.to_f32()).collect(),
            _ => bail!("AdamW: gradients are f32 or bf16"),
        };
        let (weights, moments) = state[from..to].split_at_mut(grad.len());
        let (firsts, seconds) = moments.split_at_mut(grad.len());
        let Self { scale, lr, decay, betas: [b1, b2], unbias: [u1, u2] } = *self;
        for (((x, g), m), v) in weights.iter_mut().zip(grad).zip(firsts).zip(seconds) {
            let g = g * scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *x -= decay * *x + lr * (*m * u1) / ((*v * u2).sqrt() + 1e-8);
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        state: &mut candle_core::CudaStorage,
        ls: &Layout,
        grad: &candle_core::CudaStorage,
        lg: &Layout,
    ) -> Result<()> {
        use super::kernels::launch::{Launch, device, spread};
        use candle_core::backend::BackendStorage;
        let n = lg.shape().elem_count();
        let launch = Launch {
            kernel: "adamw",
            dtype: grad.dtype(),
            width: None,
            grid: spread(n),
            threads: 256,
            inputs: &[],
            outputs: &[],
            scalars: &self.scalars(n),
        };
        let addresses = [device::address(grad, lg)?, device::address(state, ls)?];
        device::queue(&launch, &grad.device, &addresses)
    }
}
