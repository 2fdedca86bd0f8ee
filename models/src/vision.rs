//! The vision side: SigLIP tower → two-layer projector → bilinear 2x pool.
//!
//! Comes in: normalised pixels (n, 3, S, S), n frames or images. Goes out: visual tokens (n, T, hidden of the decoder). The tower's output is taken
//! *before* `post_layernorm` (reference: `modeling_llava_onevision.py`, `vision_feature_layer`), the pool works on projected
//! features, as the reference's video path does. Frames do not see each other. Tiles of pictures are cut and put together elsewhere (`anyres`, `network`).

use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::ops::{self, Packing, Sequence};
use crate::weights::{Weights, canonical};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::Arc;

/// Looks up a tensor that [`crate::weights::load`] has already checked.
pub(crate) fn take(weights: &Weights, name: &str) -> Result<Tensor> {
    weights.get(name).cloned().ok_or_else(|| Error::Tensor {
        name: name.to_string(),
        file: "the weights in memory".into(),
        reason: "is missing".into(),
    })
}

/// A dense map with bias.
struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    fn new(weights: &Weights, name: &str) -> Result<Self> {
        Ok(Self {
            weight: take(weights, &format!("{name}.weight"))?,
            bias: take(weights, &format!("{name}.bias"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(x, &self.weight, Some(&self.bias))?)
    }
}

/// A layer norm.
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    fn new(weights: &Weights, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: take(weights, &format!("{name}.weight"))?,
            bias: take(weights, &format!("{name}.bias"))?,
            eps,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

/// Pixels (n, 3, S, S) to rows of patches (n * grid², 3 * patch²), as [`VisionTower::patches`], without a tower.
pub fn patch_rows(pixels: &Tensor, grid: usize, patch: usize) -> Result<Tensor> {
    let (n, channels, height, width) = pixels.dims4()?;
    let (g, p) = (grid, patch);
    if channels != 3 || height < g * p || width < g * p {
        return Err(Error::Argument(format!(
            "the tower needs (n, 3, {0}, {0}) pixels or more, got {1:?}",
            g * p,
            pixels.dims()
        )));
    }
    let x = pixels.narrow(2, 0, g * p)?.narrow(3, 0, g * p)?;
    let x = x.reshape(&[n, 3, g, p, g, p][..])?.permute(&[0usize, 2, 4, 1, 3, 5][..])?;
    Ok(x.contiguous()?.reshape((n * g * g, 3 * p * p))?)
}

/// One pre-norm transformer block of the tower.
struct Block {
    norm1: Norm,
    q: Dense,
    k: Dense,
    v: Dense,
    out: Dense,
    norm2: Norm,
    fc1: Dense,
    fc2: Dense,
}

impl Block {
    fn new(weights: &Weights, index: usize, eps: f64) -> Result<Self> {
        let at = |part: &str| format!("vision_tower.encoder.layers.{index}.{part}");
        Ok(Self {
            norm1: Norm::new(weights, &at("layer_norm1"), eps)?,
            q: Dense::new(weights, &at("self_attn.q_proj"))?,
            k: Dense::new(weights, &at("self_attn.k_proj"))?,
            v: Dense::new(weights, &at("self_attn.v_proj"))?,
            out: Dense::new(weights, &at("self_attn.out_proj"))?,
            norm2: Norm::new(weights, &at("layer_norm2"), eps)?,
            fc1: Dense::new(weights, &at("mlp.fc1"))?,
            fc2: Dense::new(weights, &at("mlp.fc2"))?,
        })
    }

    fn forward(&self, x: &Tensor, packing: &Arc<Packing>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        let x = (x + self.out.forward(&ops::attend_packed(&q, &k, &v, packing)?)?)?;
        let h = ops::gelu_tanh(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
        Ok((x + self.fc2.forward(&h)?)?)
    }
}

/// Tower, projector and pool with their weights.
pub struct VisionTower {
    patch_weight: Tensor,
    patch_bias: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    linear_1: Dense,
    linear_2: Dense,
    pool: Tensor,
    newline: Tensor,
    feature_layers: Vec<usize>,
    grid: usize,
    patch: usize,
    heads: usize,
}

impl VisionTower {
    /// Builds the tower from checked weights; `feature_layers` as [`crate::Config::feature_layers`].
    pub fn new(v: &VisionConfig, feature_layers: &[usize], weights: &Weights) -> Result<Self> {
        let patch_weight = take(weights, "vision_tower.embeddings.patch_embedding.weight")?;
        let grid = v.grid();
        let matrix = crate::onnx::pool_matrix(grid, grid.div_ceil(2));
        let pool = Tensor::from_vec(matrix, (grid.div_ceil(2).pow(2), grid * grid), patch_weight.device())?;
        let deepest = feature_layers.iter().copied().max().unwrap_or(v.layers);
        Ok(Self {
            patch_weight: patch_weight.reshape((v.hidden, 3 * v.patch * v.patch))?,
            patch_bias: take(weights, "vision_tower.embeddings.patch_embedding.bias")?,
            positions: take(weights, "vision_tower.embeddings.position_embedding.weight")?,
            blocks: (0..deepest).map(|i| Block::new(weights, i, v.layer_norm_eps)).collect::<Result<_>>()?,
            linear_1: Dense::new(weights, "multi_modal_projector.linear_1")?,
            linear_2: Dense::new(weights, "multi_modal_projector.linear_2")?,
            pool,
            newline: take(weights, "image_newline")?,
            feature_layers: feature_layers.to_vec(),
            grid,
            patch: v.patch,
            heads: v.heads,
        })
    }

    /// Loads the tower of a `vision.onnx` that this program wrote: the same weights as the graph runs with.
    pub fn from_onnx(path: impl AsRef<Path>) -> Result<Self> {
        let file = crate::onnx::read_vision(path.as_ref())?;
        let e = &file.config;
        let config = VisionConfig {
            hidden: e.hidden_size,
            intermediate: e.intermediate_size,
            layers: e.num_layers,
            heads: e.num_heads,
            image_size: e.image_size,
            patch: e.patch_size,
            layer_norm_eps: f64::from(e.layer_norm_eps),
        };
        let tensor = |(name, (shape, data)): (String, (Vec<usize>, Vec<f32>))| {
            let name = canonical(&name).unwrap_or(name);
            Ok((name, Tensor::from_vec(data, shape, &Device::Cpu)?))
        };
        let weights = file.tensors.into_iter().map(tensor).collect::<Result<Weights>>()?;
        Self::new(&config, &[config.layers], &weights)
    }

    /// The vector that closes a video: (hidden of the decoder).
    pub fn newline(&self) -> &Tensor {
        &self.newline
    }

    /// Tokens per frame after the pool.
    pub fn tokens_per_frame(&self) -> usize {
        self.grid.div_ceil(2).pow(2)
    }

    /// Pixels (n, 3, S, S) to rows of patches (n * grid², 3 * patch²), channel, row, column within a patch as the convolution's weights.
    /// Pixels right and below of the last whole patch are never read.
    pub fn patches(&self, pixels: &Tensor) -> Result<Tensor> {
        patch_rows(pixels, self.grid, self.patch)
    }

    /// How so many rows of patches attend: each frame within itself.
    pub(crate) fn packing(&self, rows: usize) -> Arc<Packing> {
        let tokens = self.grid * self.grid;
        Arc::new(Packing::tower(vec![Sequence::plain(tokens); rows / tokens], self.heads))
    }

    /// Rows of patches (n * grid², 3 * patch²) to the rows (n * grid², channels) that enter the first block.
    pub(crate) fn embed(&self, patches: &Tensor) -> Result<Tensor> {
        let (rows, tokens) = (patches.dim(0)?, self.grid * self.grid);
        let patches = patches.to_dtype(self.patch_weight.dtype())?;
        let x = ops::linear(&patches, &self.patch_weight, Some(&self.patch_bias))?;
        let channels = x.dim(1)?;
        let x = x.reshape((rows / tokens, tokens, channels))?.broadcast_add(&self.positions)?;
        Ok(x.reshape((rows, channels))?)
    }

    /// Blocks that are used.
    pub(crate) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// One block over the rows of [`VisionTower::packing`].
    pub(crate) fn block(&self, index: usize, x: &Tensor, packing: &Arc<Packing>) -> Result<Tensor> {
        self.blocks[index].forward(x, packing)
    }

    /// How often the rows at a depth are features; 0 is what enters the first block.
    pub(crate) fn selected(&self, depth: usize) -> usize {
        self.feature_layers.iter().filter(|layer| **layer == depth).count()
    }

    /// Rows at the selected depths, shallow to deep, to features (n, grid², channels).
    pub(crate) fn join(&self, selected: &[Tensor]) -> Result<Tensor> {
        let joined = match selected {
            [one] => one.clone(),
            many => Tensor::cat(many, 1)?,
        };
        let ((rows, width), tokens) = (joined.dims2()?, self.grid * self.grid);
        Ok(joined.reshape((rows / tokens, tokens, width))?)
    }

    /// The selected features (n, grid², channels), before `post_layernorm`, for rows of patches (n * grid², 3 * patch²).
    pub fn features(&self, patches: &Tensor) -> Result<Tensor> {
        self.features_through(patches, |x| x)
    }

    /// The same, with `between` over what goes from block to block.
    pub(crate) fn features_through(
        &self,
        patches: &Tensor,
        between: impl Fn(Tensor) -> Tensor,
    ) -> Result<Tensor> {
        let packing = self.packing(patches.dim(0)?);
        let mut x = between(self.embed(patches)?);
        let mut selected = Vec::new();
        for depth in 0..=self.depth() {
            selected.extend(std::iter::repeat_n(x.clone(), self.selected(depth)));
            if depth < self.depth() {
                x = between(self.block(depth, &x, &packing)?);
            }
        }
        self.join(&selected)
    }

    /// Features (n, grid², channels) to the decoder's width: (n, grid², hidden).
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        let (n, tokens, channels) = features.dims3()?;
        let h = self.linear_1.forward(&features.reshape((n * tokens, channels))?)?.gelu_erf()?;
        let y = self.linear_2.forward(&h)?;
        let hidden = y.dim(1)?;
        Ok(y.reshape((n, tokens, hidden))?)
    }

    /// The 2x bilinear pool: (n, grid², hidden) to (n, T, hidden).
    pub fn pool(&self, projected: &Tensor) -> Result<Tensor> {
        Ok(ops::mix_rows(projected, &self.pool)?)
    }

    /// Pixels (n, 3, S, S) to visual tokens (n, T, hidden).
    pub fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        self.encode_patches(&self.patches(pixels)?)
    }

    /// Rows of patches (n * grid², 3 * patch²) to visual tokens (n, T, hidden).
    pub fn encode_patches(&self, patches: &Tensor) -> Result<Tensor> {
        self.pool(&self.project(&self.features(patches)?)?)
    }
}
