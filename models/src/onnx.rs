//! The vision side as one ONNX file: SigLIP tower, projector and 2× pool, and the newline vector.
//!
//! Comes in: the sizes and the tensors under their Hugging Face names (reference.md §1.2, §1.3, layout A of §1.6). Goes
//! out: an opset 17 graph `pixels` [n, 3, S, S] f32 → `tokens` [n, T, hidden], `newline` [hidden], whose initializers keep
//! those names and shapes, so that the same file also feeds the candle tower. Made of primitives that onnxruntime and
//! tract both run. Preprocessing is not in the graph, the language model neither.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::onnx_file::{Attribute, GraphBuilder};
pub use crate::onnx_file::{VisionFile, read_initializers, read_vision};

/// Opset 17 is the first with LayerNormalization and understood by onnxruntime 1.12 and later.
const OPSET: i64 = 17;
/// Most patches per side: 4096 pixels at 16, far beyond any SigLIP.
const LARGEST_GRID: usize = 256;
const TOWER: &str = "vision_tower.vision_model";

/// Type in which the large tensors lie in the file; they are always computed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// As trained.
    #[default]
    F32,
    /// Half the size; each matrix passes a Cast.
    F16,
}

/// Sizes of the exported graph; stored in the file as JSON under the key [`VisionExport::METADATA_KEY`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionExport {
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; pixels beyond the last whole patch are never read.
    pub patch_size: usize,
    /// Width of the tower.
    pub hidden_size: usize,
    /// Width inside the tower's MLPs.
    pub intermediate_size: usize,
    /// Tower blocks; the output of the last one is used, before `post_layernorm`.
    pub num_layers: usize,
    /// Attention heads of the tower.
    pub num_heads: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
    /// Width of a visual token, that of the language model.
    pub text_hidden_size: usize,
    /// Type of the stored matrices.
    #[serde(default)]
    pub storage: Storage,
}

impl VisionExport {
    /// Where `metadata_props` holds this configuration.
    pub const METADATA_KEY: &'static str = "video_utr.vision";

    /// Patches per side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Tokens per side after the pool: half the grid, rounded up.
    pub fn pooled_grid(&self) -> usize {
        self.grid().div_ceil(2)
    }

    /// Visual tokens per frame.
    pub fn tokens(&self) -> usize {
        self.pooled_grid() * self.pooled_grid()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let sizes = [
            self.patch_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_heads,
            self.text_hidden_size,
        ];
        if sizes.contains(&0)
            || self.image_size < self.patch_size
            || self.image_size / self.patch_size > LARGEST_GRID
            || !self.hidden_size.is_multiple_of(self.num_heads)
        {
            return Err(Error::Argument(format!(
                "no tower has these sizes (all above zero, 1 to {LARGEST_GRID} patches per side, hidden_size a multiple of \
                 num_heads): {self:?}"
            )));
        }
        Ok(())
    }
}

/// The bilinear map (align_corners = false, no antialiasing) along one axis of `from` cells to `to` cells: a row of weights for each of the latter.
pub fn bilinear_axis(from: usize, to: usize) -> Vec<Vec<f32>> {
    (0..to)
        .map(|out| {
            // In f32 like the reference, whose weights are rounded the same way.
            let source = ((out as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
            let low = (source as usize).min(from.saturating_sub(1));
            let high = (low + 1).min(from.saturating_sub(1));
            let fraction = source - low as f32;
            (0..from)
                .map(|i| {
                    let mut weight = 0.0;
                    if i == low {
                        weight += 1.0 - fraction;
                    }
                    if i == high {
                        weight += fraction;
                    }
                    weight
                })
                .collect()
        })
        .collect()
}

/// The bilinear map from a grid of `grid_in`² to one of `grid_out`² cells: row-major (grid_out², grid_in²). A matrix, because as such it has a
/// gradient and runs everywhere (reference.md §1.3).
pub fn pool_matrix(grid_in: usize, grid_out: usize) -> Vec<f32> {
    let axis = bilinear_axis(grid_in, grid_out);
    let mut matrix = Vec::with_capacity(grid_out * grid_out * grid_in * grid_in);
    for row in &axis {
        for column in &axis {
            matrix.extend(row.iter().flat_map(|&r| column.iter().map(move |&c| r * c)));
        }
    }
    matrix
}

/// Gives the tensor of a layout-A name as shape and row-major values.
pub type TensorSource<'a> = dyn Fn(&str) -> Result<(Vec<usize>, Vec<f32>)> + 'a;

/// Writes the graph. Each tensor's shape is checked against `config`; a wrong one is an error naming it.
pub fn write_vision(path: &Path, config: &VisionExport, tensors: &TensorSource<'_>) -> Result<()> {
    config.validate()?;
    let mut tower = Tower { config, tensors, graph: GraphBuilder::new(path, config.storage == Storage::F16) };
    tower.build()?;
    let VisionExport { image_size, text_hidden_size, .. } = *config;
    let mut graph = tower.graph;
    graph.input("pixels", &[None, Some(3), Some(image_size), Some(image_size)]);
    graph.output("tokens", &[None, Some(config.tokens()), Some(text_hidden_size)]);
    graph.output("newline", &[Some(text_hidden_size)]);
    let json = serde_json::to_string(config).map_err(|e| Error::format(path, e.to_string()))?;
    graph.write(OPSET, &[(VisionExport::METADATA_KEY, &json)])
}

struct Tower<'a> {
    config: &'a VisionExport,
    tensors: &'a TensorSource<'a>,
    graph: GraphBuilder,
}

impl Tower<'_> {
    fn build(&mut self) -> Result<()> {
        let mut x = self.patches()?;
        for layer in 0..self.config.num_layers {
            x = self.block(&format!("{TOWER}.encoder.layers.{layer}"), &x)?;
        }
        self.projector(&x)?;
        let text = self.config.text_hidden_size;
        let newline = self.tensor("image_newline", &[text])?;
        self.graph.node_named("Identity", &[&newline], "newline", vec![]);
        Ok(())
    }

    /// Adds the named tensor as an initializer and returns the name to compute with.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<String> {
        let (found, values) = (self.tensors)(name)?;
        if found != shape {
            return Err(Error::Tensor {
                name: name.to_owned(),
                file: self.graph.path().to_path_buf(),
                reason: format!("the configuration asks for shape {shape:?}, the tensor has {found:?}"),
            });
        }
        self.graph.initializer(name, shape, &values)
    }

    /// [n, 3, S, S] → [n, patches, hidden] with positions added.
    fn patches(&mut self) -> Result<String> {
        let VisionExport { hidden_size: d, patch_size: p, .. } = *self.config;
        let patches = self.config.grid() * self.config.grid();
        let weight = self.tensor(&format!("{TOWER}.embeddings.patch_embedding.weight"), &[d, 3, p, p])?;
        let bias = self.tensor(&format!("{TOWER}.embeddings.patch_embedding.bias"), &[d])?;
        let side = p as i64;
        let attributes = vec![
            Attribute::ints("kernel_shape", &[side, side]),
            Attribute::ints("strides", &[side, side]),
            Attribute::ints("pads", &[0; 4]),
        ];
        let x = self.graph.node("Conv", &["pixels", &weight, &bias], attributes);
        let x = self.reshape(&x, &[-1, d as i64, patches as i64])?;
        let x = self.transpose(&x, &[0, 2, 1]);
        let position =
            self.tensor(&format!("{TOWER}.embeddings.position_embedding.weight"), &[patches, d])?;
        Ok(self.graph.node("Add", &[&x, &position], vec![]))
    }

    /// One pre-norm transformer block.
    fn block(&mut self, name: &str, x: &str) -> Result<String> {
        let VisionExport { hidden_size: d, intermediate_size: m, .. } = *self.config;
        let normed = self.layer_norm(&format!("{name}.layer_norm1"), x)?;
        let attended = self.attention(&format!("{name}.self_attn"), &normed)?;
        let x = self.graph.node("Add", &[x, &attended], vec![]);
        let normed = self.layer_norm(&format!("{name}.layer_norm2"), &x)?;
        let wide = self.linear(&format!("{name}.mlp.fc1"), &normed, d, m)?;
        let active = self.gelu_tanh(&wide)?;
        let narrow = self.linear(&format!("{name}.mlp.fc2"), &active, m, d)?;
        Ok(self.graph.node("Add", &[&x, &narrow], vec![]))
    }

    /// Bidirectional multi-head attention over the patches of one frame.
    fn attention(&mut self, name: &str, x: &str) -> Result<String> {
        let (d, heads) = (self.config.hidden_size, self.config.num_heads);
        let patches = (self.config.grid() * self.config.grid()) as i64;
        let head_dim = d / heads;
        let mut split = |part: &str, order: &[i64]| -> Result<String> {
            let y = self.linear(&format!("{name}.{part}"), x, d, d)?;
            let y = self.reshape(&y, &[-1, patches, heads as i64, head_dim as i64])?;
            Ok(self.transpose(&y, order))
        };
        let query = split("q_proj", &[0, 2, 1, 3])?;
        let key = split("k_proj", &[0, 2, 3, 1])?;
        let value = split("v_proj", &[0, 2, 1, 3])?;
        let scores = self.graph.node("MatMul", &[&query, &key], vec![]);
        let scale = self.graph.scalar((head_dim as f32).powf(-0.5))?;
        let scores = self.graph.node("Mul", &[&scores, &scale], vec![]);
        let weights = self.graph.node("Softmax", &[&scores], vec![Attribute::int("axis", -1)]);
        let mixed = self.graph.node("MatMul", &[&weights, &value], vec![]);
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.reshape(&mixed, &[-1, patches, d as i64])?;
        self.linear(&format!("{name}.out_proj"), &mixed, d, d)
    }

    /// linear, exact GELU, pool, linear. The pool's rows sum to one, so it commutes with the second linear map and its bias;
    /// in this order that map runs on a quarter of the tokens.
    fn projector(&mut self, x: &str) -> Result<()> {
        let VisionExport { hidden_size: d, text_hidden_size: h, .. } = *self.config;
        let x = self.linear("multi_modal_projector.linear_1", x, d, h)?;
        let x = self.gelu_erf(&x)?;
        let (grid, pooled) = (self.config.grid(), self.config.pooled_grid());
        let matrix =
            self.graph.constant("pool", &[pooled * pooled, grid * grid], &pool_matrix(grid, pooled))?;
        let x = self.graph.node("MatMul", &[&matrix, &x], vec![]);
        let (product, bias) = self.product("multi_modal_projector.linear_2", &x, h, h)?;
        self.graph.node_named("Add", &[&product, &bias], "tokens", vec![]);
        Ok(())
    }

    fn layer_norm(&mut self, name: &str, x: &str) -> Result<String> {
        let d = self.config.hidden_size;
        let weight = self.tensor(&format!("{name}.weight"), &[d])?;
        let bias = self.tensor(&format!("{name}.bias"), &[d])?;
        let attributes =
            vec![Attribute::int("axis", -1), Attribute::float("epsilon", self.config.layer_norm_eps)];
        Ok(self.graph.node("LayerNormalization", &[x, &weight, &bias], attributes))
    }

    /// `x Wᵀ + b` with W stored (out, in); engines fold the transposition of a constant when they load.
    fn linear(&mut self, name: &str, x: &str, inputs: usize, outputs: usize) -> Result<String> {
        let (product, bias) = self.product(name, x, inputs, outputs)?;
        Ok(self.graph.node("Add", &[&product, &bias], vec![]))
    }

    fn product(&mut self, name: &str, x: &str, inputs: usize, outputs: usize) -> Result<(String, String)> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.tensor(&format!("{name}.bias"), &[outputs])?;
        let transposed = self.transpose(&weight, &[1, 0]);
        Ok((self.graph.node("MatMul", &[x, &transposed], vec![]), bias))
    }

    /// `0.5 x (1 + tanh(√(2/π) x (1 + 0.044715 x²)))`.
    fn gelu_tanh(&mut self, x: &str) -> Result<String> {
        let cubic = self.graph.scalar(0.044715)?;
        let one = self.graph.scalar(1.0)?;
        let half = self.graph.scalar(0.5)?;
        let root = self.graph.scalar((2.0 / std::f32::consts::PI).sqrt())?;
        let g = &mut self.graph;
        let square = g.node("Mul", &[x, x], vec![]);
        let inner = g.node("Mul", &[&square, &cubic], vec![]);
        let inner = g.node("Add", &[&inner, &one], vec![]);
        let scaled = g.node("Mul", &[x, &root], vec![]);
        let inner = g.node("Mul", &[&scaled, &inner], vec![]);
        let tanh = g.node("Tanh", &[&inner], vec![]);
        let gate = g.node("Add", &[&tanh, &one], vec![]);
        let half_x = g.node("Mul", &[x, &half], vec![]);
        Ok(g.node("Mul", &[&half_x, &gate], vec![]))
    }

    /// `0.5 x (1 + erf(x / √2))`.
    fn gelu_erf(&mut self, x: &str) -> Result<String> {
        let root = self.graph.scalar(std::f32::consts::SQRT_2)?;
        let one = self.graph.scalar(1.0)?;
        let half = self.graph.scalar(0.5)?;
        let g = &mut self.graph;
        let scaled = g.node("Div", &[x, &root], vec![]);
        let erf = g.node("Erf", &[&scaled], vec![]);
        let gate = g.node("Add", &[&erf, &one], vec![]);
        let product = g.node("Mul", &[x, &gate], vec![]);
        Ok(g.node("Mul", &[&product, &half], vec![]))
    }

    fn reshape(&mut self, x: &str, shape: &[i64]) -> Result<String> {
        let shape = self.graph.shape(shape);
        Ok(self.graph.node("Reshape", &[x, &shape], vec![]))
    }

    fn transpose(&mut self, x: &str, order: &[i64]) -> String {
        self.graph.node("Transpose", &[x], vec![Attribute::ints("perm", order)])
    }
}

#[cfg(test)]
#[path = "onnx_tests.rs"]
mod tests;
