//! Root-mean-square norm (Qwen2) and layer norm (SigLIP), with gradients.
//!
//! Comes in: rows (n, channels), a scale (channels), for layer norm a shift. Goes out: rows of the same shape. Sums are taken in f32, as
//! the originals do.

#[cfg(any(test, feature = "cuda"))]
use super::kernels;
use super::{fused, plain, slice, with};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

/// `x / sqrt(mean(x²) + eps) * weight` for each row of (n, channels).
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    #[cfg(any(test, feature = "cuda"))]
    if kernels::apply(&[x, weight]) {
        return kernels::rms_norm(x, weight, eps);
    }
    if !fused(x) {
        return plain::rms_norm(x, weight, eps);
    }
    x.contiguous()?.apply_op2(&weight.contiguous()?, RmsNorm { eps: eps as f32 })
}

struct RmsNorm {
    eps: f32,
}

fn sum(values: impl Iterator<Item = f32>) -> f32 {
    // Eight lanes, so that the compiler may use vector registers.
    let mut lanes = [0.0f32; 8];
    values.enumerate().for_each(|(i, v)| lanes[i & 7] += v);
    lanes.iter().sum()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = ca.remainder().iter().zip(cb.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in ca.zip(cb) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(x, lx)?, slice(w, lw)?);
        let mut out = vec![0.0; x.len()];
        for (out, x) in out.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
            let scale = 1.0 / (dot(x, x) / w.len() as f32 + self.eps).sqrt();
            out.iter_mut().zip(x.iter().zip(w)).for_each(|(o, (x, w))| *o = x * scale * w);
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (shape, device) = (x.shape(), x.device());
        let grad = grad.contiguous()?;
        let (dx, dw) = with(x, |x| {
            with(w, |w| {
                with(&grad, |g| {
                    let c = w.len();
                    let (mut dx, mut dw, mut gw) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
                    for ((dx, x), g) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(g.chunks_exact(c)) {
                        let scale = 1.0 / (dot(x, x) / c as f32 + self.eps).sqrt();
                        gw.iter_mut().zip(g.iter().zip(w)).for_each(|(o, (g, w))| *o = g * w);
                        let inner = dot(&gw, x) * scale * scale / c as f32;
                        for (((dx, dw), (x, g)), gw) in
                            dx.iter_mut().zip(dw.iter_mut()).zip(x.iter().zip(g)).zip(&gw)
                        {
                            *dx = scale * (gw - x * inner);
                            *dw += g * x * scale;
                        }
                    }
                    Ok((dx, dw))
                })
            })
        })?;
        Ok((Some(Tensor::from_vec(dx, shape, device)?), Some(Tensor::from_vec(dw, w.shape(), device)?)))
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for each row of (n, channels).
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    #[cfg(any(test, feature = "cuda"))]
    if kernels::apply(&[x, weight, bias]) {
        return kernels::layer_norm(x, weight, bias, eps);
    }
    if !fused(x) {
        return plain::layer_norm(x, weight, bias, eps);
    }
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNorm { eps: eps as f32 })
}

struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    /// Mean and reciprocal deviation of a row.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f32;
        let mean = sum(x.iter().copied()) / n;
        let variance = sum(x.iter().map(|x| (x - mean) * (x - mean))) / n;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        let (x, w, b) = (slice(x, lx)?, slice(w, lw)?, slice(b, lb)?);
        let mut out = vec![0.0; x.len()];
        for (out, x) in out.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
            let (mean, scale) = self.moments(x);
            out.iter_mut()
                .zip(x.iter().zip(w.iter().zip(b)))
                .for_each(|(o, (x, (w, b)))| *o = (x - mean) * scale * w + b);
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (shape, device) = (x.shape(), x.device());
        let grad = grad.contiguous()?;
        let (dx, dw, db) = with(x, |x| {
            with(w, |w| {
                with(&grad, |g| {
                    let c = w.len();
                    let n = c as f32;
                    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
                    let (mut gw, mut unit) = (vec![0.0; c], vec![0.0; c]);
                    for ((dx, x), g) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(g.chunks_exact(c)) {
                        let (mean, scale) = self.moments(x);
                        unit.iter_mut().zip(x).for_each(|(u, x)| *u = (x - mean) * scale);
                        gw.iter_mut().zip(g.iter().zip(w)).for_each(|(o, (g, w))| *o = g * w);
                        let (average, inner) = (sum(gw.iter().copied()) / n, dot(&gw, &unit) / n);
                        for (dx, (gw, unit)) in dx.iter_mut().zip(gw.iter().zip(&unit)) {
                            *dx = scale * (gw - average - unit * inner);
                        }
                        for ((dw, db), (g, unit)) in dw.iter_mut().zip(db.iter_mut()).zip(g.iter().zip(&unit))
                        {
                            *dw += g * unit;
                            *db += g;
                        }
                    }
                    Ok((dx, dw, db))
                })
            })
        })?;
        let tensor = |v, like: &Tensor| Tensor::from_vec(v, like.shape(), device);
        Ok((Some(Tensor::from_vec(dx, shape, device)?), Some(tensor(dw, w)?), Some(tensor(db, b)?)))
    }
}
