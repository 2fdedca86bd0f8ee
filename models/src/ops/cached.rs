//! Attention of new rows over a key-value cache.
//!
//! Comes in: rotated queries, and all rotated keys and values, the new ones last. Goes out: (t, heads * dim). Inference only: no gradient.

use super::attention::softmax;
use super::gemm::{View, gemm};
use super::{fused, plain, slice};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// New rows over a cache: queries (t, heads * dim), keys and values (past + t, kv_heads * dim), all rotated; row i sees keys up to past + i.
/// No gradient. Goes out: (t, heads * dim).
pub fn attend_cached(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, kv_heads: usize) -> Result<Tensor> {
    if !fused(q) {
        return plain::attend_cached(q, k, v, heads, kv_heads);
    }
    q.contiguous()?.apply_op3_no_bwd(&k.contiguous()?, &v.contiguous()?, &CachedAttention { heads, kv_heads })
}

struct CachedAttention {
    heads: usize,
    kv_heads: usize,
}

impl CustomOp3 for CachedAttention {
    fn name(&self) -> &'static str {
        "cached-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (keys, kv_width)) = (lq.shape().dims2()?, lk.shape().dims2()?);
        let (q, k, v) = (slice(q, lq)?, slice(k, lk)?, slice(v, lv)?);
        if keys < rows || v.len() != k.len() || width * self.kv_heads != kv_width * self.heads {
            bail!("attention: {rows} queries of {width} channels over {keys} keys of {kv_width}")
        }
        let dim = width / self.heads;
        let (mut out, mut scores) = (vec![0.0; rows * width], vec![0.0; rows * keys]);
        for head in 0..self.heads {
            let kv_head = head / (self.heads / self.kv_heads) * dim;
            let queries = View::rows(&q[head * dim..], width);
            let scale = (dim as f32).powf(-0.5);
            gemm(
                &mut scores,
                keys,
                rows,
                keys,
                dim,
                queries,
                View::rows(&k[kv_head..], kv_width).t(),
                scale,
                false,
            );
            for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                let seen = keys - rows + i + 1;
                softmax([&mut row[..seen]]);
                row[seen..].fill(0.0);
            }
            let values = View::rows(&v[kv_head..], kv_width);
            gemm(
                &mut out[head * dim..],
                width,
                rows,
                dim,
                keys,
                View::rows(&scores, keys),
                values,
                1.0,
                false,
            );
        }
        Ok((CpuStorage::F32(out), lq.shape().clone()))
    }
}
