//! Products with weights: `x Wᵀ + b`, and the fixed row mixing that the pool is.
//!
//! Comes in: rows `x` (n, in), weights (out, in) as Hugging Face stores them, an optional bias (out). Goes out: (n, out). A weight that is
//! not a trained variable costs no gradient.

use super::gemm::{View, gemm};
use super::{fused, plain, slice, with};
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};
use std::sync::Arc;

/// `x Wᵀ + b` for `x` (n, in), `w` (out, in), `b` (out).
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    if !(fused(x) && fused(w) || on_device(x, w)) {
        return match x.track_op() && !w.track_op() {
            true => frozen(x, w, b),
            false => plain::linear(x, w, b),
        };
    }
    let op = Linear { input_grad: x.track_op(), weight_grad: w.track_op() };
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    match b {
        Some(b) => x.apply_op3(&w, &b.contiguous()?, op),
        None => x.apply_op2(&w, op),
    }
}

/// [`plain::linear`] with a weight that does not move. Candle's product would form the weight's gradient all the same, a third of all arithmetic.
fn frozen(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let y = x.contiguous()?.apply_op2(&w.contiguous()?, Frozen)?;
    b.map_or(Ok(y.clone()), |b| y.broadcast_add(b))
}

/// `x Wᵀ` for a constant `W`, of any type and on any device, by candle's own product.
struct Frozen;

impl Frozen {
    fn product<S: BackendStorage>(x: &S, lx: &Layout, w: &S, lw: &Layout) -> Result<(S, Shape)> {
        let ((n, inputs), (outputs, inner)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if inputs != inner {
            bail!("linear: {inputs} input channels meet weights for {inner}")
        }
        let out = x.matmul(w, (1, n, outputs, inputs), lx, &lw.transpose(0, 1)?)?;
        Ok((out, (n, outputs).into()))
    }
}

impl CustomOp2 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Self::product(x, lx, w, lw)
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        w: &CudaStorage,
        lw: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Self::product(x, lx, w, lw)
    }

    fn bwd(
        &self,
        _: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.contiguous()?.matmul(w)?), None))
    }
}

/// Whether a product is made by cuBLAS, with the gradients of this file, which leave out what is not trained.
fn on_device(x: &Tensor, w: &Tensor) -> bool {
    #[cfg(any(test, feature = "cuda"))]
    {
        super::kernels::apply(&[x, w])
    }
    #[cfg(not(any(test, feature = "cuda")))]
    {
        let _ = (x, w);
        false
    }
}

struct Linear {
    input_grad: bool,
    weight_grad: bool,
}

impl Linear {
    fn forward(
        &self,
        x: &[f32],
        w: &[f32],
        b: Option<&[f32]>,
        lx: &Layout,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((n, inputs), (outputs, inner)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if inputs != inner {
            bail!("linear: {inputs} input channels meet weights for {inner}")
        }
        let mut out = match b {
            Some(b) => b.repeat(n),
            None => vec![0.0; n * outputs],
        };
        gemm(
            &mut out,
            outputs,
            n,
            outputs,
            inputs,
            View::rows(x, inputs),
            View::rows(w, inputs).t(),
            1.0,
            b.is_some(),
        );
        Ok((CpuStorage::F32(out), (n, outputs).into()))
    }

    #[cfg(feature = "cuda")]
    fn on_cuda(
        &self,
        (x, lx): (&CudaStorage, &Layout),
        (w, lw): (&CudaStorage, &Layout),
        b: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let ((n, inputs), (outputs, inner)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if inputs != inner {
            bail!("linear: {inputs} input channels meet weights for {inner}")
        }
        let product = x.matmul(w, (1, n, outputs, inputs), lx, &lw.transpose(0, 1)?)?;
        let shape = Shape::from((n, outputs));
        let out = match b {
            None => product,
            Some((b, lb)) => {
                let every_row = lb.broadcast_as(shape.clone())?;
                product.binary_impl::<candle_core::op::Add>(
                    b,
                    &Layout::contiguous(shape.clone()),
                    &every_row,
                )?
            }
        };
        Ok((out, shape))
    }

    /// The gradients as products of tensors, wherever they lie.
    fn products(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, w) = (x.detach(), w.detach());
        let dx = if self.input_grad { Some(grad.matmul(&w)?) } else { None };
        let dw = if self.weight_grad { Some(grad.t()?.matmul(&x)?) } else { None };
        Ok((dx, dw))
    }

    fn backward(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !fused(x) || on_device(x, w) {
            return self.products(x, w, grad);
        }
        let ((n, inputs), (outputs, _)) = (x.dims2()?, w.dims2()?);
        with(grad, |g| {
            let dx = match self.input_grad {
                false => None,
                true => Some(with(w, |w| {
                    let mut dx = vec![0.0; n * inputs];
                    gemm(
                        &mut dx,
                        inputs,
                        n,
                        inputs,
                        outputs,
                        View::rows(g, outputs),
                        View::rows(w, inputs),
                        1.0,
                        false,
                    );
                    Tensor::from_vec(dx, (n, inputs), x.device())
                })?),
            };
            let dw = match self.weight_grad {
                false => None,
                true => Some(with(x, |x_rows| {
                    let mut dw = vec![0.0; outputs * inputs];
                    gemm(
                        &mut dw,
                        inputs,
                        outputs,
                        inputs,
                        n,
                        View::rows(g, outputs).t(),
                        View::rows(x_rows, inputs),
                        1.0,
                        false,
                    );
                    Tensor::from_vec(dw, (outputs, inputs), x.device())
                })?),
            };
            Ok((dx, dw))
        })
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(slice(x, lx)?, slice(w, lw)?, None, lx, lw)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        w: &CudaStorage,
        lw: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda((x, lx), (w, lw), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(x, w, &grad.contiguous()?)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(slice(x, lx)?, slice(w, lw)?, Some(slice(b, lb)?), lx, lw)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        w: &CudaStorage,
        lw: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda((x, lx), (w, lw), Some((b, lb)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, dw) = self.backward(x, w, &grad)?;
        let db = match self.weight_grad {
            false => None,
            true if !fused(x) || on_device(x, w) => Some(grad.detach().sum(0)?),
            true => Some(with(&grad, |g| {
                let mut sums = vec![0.0; b.elem_count()];
                for row in g.chunks_exact(sums.len()) {
                    sums.iter_mut().zip(row).for_each(|(s, g)| *s += g);
                }
                Tensor::from_vec(sums, b.shape(), b.device())
            })?),
        };
        Ok((dx, dw, db))
    }
}

/// For `x` (frames, rows_in, channels) and a constant `matrix` (rows_out, rows_in): (frames, rows_out, channels).
///
/// The 2x bilinear pool is such a mixing of rows; as a product it has the gradient that candle's resampling lacks.
pub fn mix_rows(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    if !fused(x) {
        return plain::mix_rows(x, matrix);
    }
    let (rows_out, rows_in) = matrix.dims2()?;
    let matrix: Arc<[f32]> = matrix.flatten_all()?.to_vec1::<f32>()?.into();
    x.contiguous()?.apply_op1(MixRows { matrix, rows_out, rows_in })
}

struct MixRows {
    matrix: Arc<[f32]>,
    rows_out: usize,
    rows_in: usize,
}

impl CustomOp1 for MixRows {
    fn name(&self) -> &'static str {
        "mix-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let (frames, rows, channels) = lx.shape().dims3()?;
        if rows != self.rows_in {
            bail!("mix_rows: {rows} rows meet a matrix for {}", self.rows_in)
        }
        let mut out = vec![0.0; frames * self.rows_out * channels];
        let blocks = slice(x, lx)?.chunks_exact(rows * channels);
        for (out, x) in out.chunks_exact_mut(self.rows_out * channels).zip(blocks) {
            let matrix = View::rows(&self.matrix, rows);
            gemm(out, channels, self.rows_out, channels, rows, matrix, View::rows(x, channels), 1.0, false);
        }
        Ok((CpuStorage::F32(out), (frames, self.rows_out, channels).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (frames, rows, channels) = x.dims3()?;
        with(&grad.contiguous()?, |g| {
            let mut dx = vec![0.0; frames * rows * channels];
            for (dx, g) in dx.chunks_exact_mut(rows * channels).zip(g.chunks_exact(self.rows_out * channels))
            {
                let matrix = View::rows(&self.matrix, rows).t();
                gemm(
                    dx,
                    channels,
                    rows,
                    channels,
                    self.rows_out,
                    matrix,
                    View::rows(g, channels),
                    1.0,
                    false,
                );
            }
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}
