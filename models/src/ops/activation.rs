//! The two element-wise non-linearities on the hot path: tanh-GELU (SigLIP) and SwiGLU (Qwen2), with gradients.
//!
//! Comes in and goes out: tensors of one shape. [`exp`] is a polynomial that compilers turn into vector code; its relative error stays
//! below 3e-7 over the whole f32 range that matters.

#[cfg(any(test, feature = "cuda"))]
use super::kernels;
use super::{fused, plain, slice, with};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// e^x for f32 by range reduction and a degree-6 polynomial (Cody and Waite's two-part logarithm of two).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + MAGIC) - MAGIC;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.0
        + r * (1.0
            + r * (0.5 + r * (1.666_666_5e-1 + r * (4.166_579_6e-2 + r * (8.333_452e-3 + r * 1.398_2e-3)))));
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`, torch's `gelu(approximate="tanh")`.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    #[cfg(any(test, feature = "cuda"))]
    if kernels::apply(&[x]) {
        return kernels::gelu_tanh(x);
    }
    if !fused(x) {
        return plain::gelu_tanh(x);
    }
    x.contiguous()?.apply_op1(GeluTanh)
}

struct GeluTanh;

const ROOT: f32 = 0.797_884_6; // sqrt(2 / π)

impl CustomOp1 for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu-tanh"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        // tanh(u) = 2 sigmoid(2u) - 1, hence gelu = x sigmoid(2u).
        let gelu = |x: &f32| x * sigmoid(2.0 * ROOT * (x + 0.044_715 * x * x * x));
        Ok((CpuStorage::F32(slice(x, lx)?.iter().map(gelu).collect()), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with(x, |x| {
            with(&grad, |g| {
                let derivative = |(x, g): (&f32, &f32)| {
                    let s = sigmoid(2.0 * ROOT * (x + 0.044_715 * x * x * x));
                    let du = 2.0 * ROOT * (1.0 + 3.0 * 0.044_715 * x * x);
                    g * (s + x * s * (1.0 - s) * du)
                };
                Ok(x.iter().zip(g).map(derivative).collect::<Vec<f32>>())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// `silu(gate) * up`, element by element.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    #[cfg(any(test, feature = "cuda"))]
    if kernels::apply(&[gate, up]) {
        return kernels::swiglu(gate, up);
    }
    if !fused(gate) {
        return plain::swiglu(gate, up);
    }
    gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu)
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        lg: &Layout,
        up: &CpuStorage,
        lu: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = slice(gate, lg)?.iter().zip(slice(up, lu)?).map(|(g, u)| g * sigmoid(*g) * u);
        Ok((CpuStorage::F32(out.collect()), lg.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dgate, dup) = with(gate, |gate| {
            with(up, |up| {
                with(&grad, |grad| {
                    let (mut dg, mut du) = (vec![0.0f32; gate.len()], vec![0.0f32; gate.len()]);
                    for ((dg, du), ((g, u), d)) in
                        dg.iter_mut().zip(&mut du).zip(gate.iter().zip(up).zip(grad))
                    {
                        let s = sigmoid(*g);
                        *dg = d * u * s * (1.0 + g * (1.0 - s));
                        *du = d * g * s;
                    }
                    Ok((dg, du))
                })
            })
        })?;
        let tensor = |v| Tensor::from_vec(v, gate.shape(), gate.device());
        Ok((Some(tensor(dgate)?), Some(tensor(dup)?)))
    }
}
