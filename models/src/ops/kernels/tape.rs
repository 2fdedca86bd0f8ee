//! What kernels computed, on candle's tape.
//!
//! Comes in: a result and a function that gives the gradients of what it was computed from. Goes out: a tensor that candle's backward pass goes
//! through. The forward pass of the operation only hands the result over.

use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};
use std::sync::Mutex;

/// From the result and its gradient to the gradients of the operands, `None` where one is not wanted.
type Gradients = Box<dyn Fn(&Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

/// A tensor outside the tape.
pub fn tensor(storage: Storage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}

/// Puts `result`, computed from one to three `operands`, on the tape, where any of them is trained.
pub fn record(
    operands: &[&Tensor],
    result: Storage,
    shape: impl Into<Shape>,
    gradients: impl Fn(&Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let shape = shape.into();
    if !operands.iter().any(|x| x.track_op()) {
        return Ok(tensor(result, shape));
    }
    let op = Recorded { result: Mutex::new(Some(result)), shape, gradients: Box::new(gradients) };
    match operands {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => bail!("the tape takes one to three operands, got {}", operands.len()),
    }
}

struct Recorded {
    result: Mutex<Option<Storage>>,
    shape: Shape,
    gradients: Gradients,
}

impl Recorded {
    fn take(&self) -> Result<(Storage, Shape)> {
        let result =
            self.result.lock().map_err(|_| candle_core::Error::Msg("a kernel's thread died".into()))?.take();
        match result {
            Some(result) => Ok((result, self.shape.clone())),
            None => bail!("a kernel's result was already handed over"),
        }
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(result), shape) => Ok((result, shape)),
            _ => bail!("a kernel's result lies on another device than its operands"),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(result), shape) => Ok((result, shape)),
            _ => bail!("a kernel's result lies on another device than its operands"),
        }
    }

    /// The first `N` gradients.
    fn back<const N: usize>(&self, result: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let mut gradients = (self.gradients)(&result.detach(), &grad.detach().contiguous()?)?.into_iter();
        Ok(std::array::from_fn(|_| gradients.next().flatten()))
    }
}

impl CustomOp1 for Recorded {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.back(result, grad)?;
        Ok(a)
    }
}

impl CustomOp2 for Recorded {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.back(result, grad)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Recorded {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.back(result, grad)?;
        Ok((a, b, c))
    }
}
