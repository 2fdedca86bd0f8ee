//! What the network has *learned*: named tensors, in and out of Hugging Face folders.
//!
//! Comes in: a folder with one or several safetensors files, in any of the tensor-name layouts in use (saved by
//! transformers up to 4.51, by 4.52 and later, by 5.x, or by LLaVA-NeXT itself). Goes out: [`Weights`] under one set of names,
//! each tensor present exactly once and of the shape that [`Config`] asks for, or an error that names the culprit.
//! Saving writes the oldest layout, which every version of transformers reads. No arithmetic here.

use crate::config::Config;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor, safetensors::MmapedSafetensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tensors by canonical name, for example `vision_tower.encoder.layers.0.mlp.fc1.weight`.
pub type Weights = BTreeMap<String, Tensor>;

/// The canonical name of a tensor in any layout (reference.md §1.6), or `None` for buffers that carry no weights.
pub fn canonical(name: &str) -> Option<String> {
    if name.ends_with("position_ids") || name.ends_with("rotary_emb.inv_freq") {
        return None;
    }
    let name = name.strip_prefix("model.").unwrap_or(name);
    let name = name
        .strip_prefix("language_model.lm_head.")
        .map_or(name.to_string(), |rest| format!("lm_head.{rest}"));
    let prefixes = [
        ("vision_tower.vision_tower.vision_model.", "vision_tower."),
        ("vision_tower.vision_model.", "vision_tower."),
        ("language_model.model.", "language_model."),
        ("mm_projector.0.", "multi_modal_projector.linear_1."),
        ("mm_projector.2.", "multi_modal_projector.linear_2."),
        ("embed_tokens.", "language_model.embed_tokens."),
        ("layers.", "language_model.layers."),
        ("norm.", "language_model.norm."),
    ];
    for (from, to) in prefixes {
        if let Some(rest) = name.strip_prefix(from) {
            return Some(format!("{to}{rest}"));
        }
    }
    Some(name)
}

/// The name under which a canonical tensor is saved: the layout of all published checkpoints.
pub fn published(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("vision_tower.") {
        format!("vision_tower.vision_model.{rest}")
    } else if let Some(rest) = name.strip_prefix("language_model.") {
        format!("language_model.model.{rest}")
    } else if let Some(rest) = name.strip_prefix("lm_head.") {
        format!("language_model.lm_head.{rest}")
    } else {
        name.to_string()
    }
}

/// How a tensor starts its life, and what it is for weight decay and learning rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// A matrix drawn from a normal distribution of this standard deviation.
    Normal(f32),
    /// All ones: scales of norms.
    One,
    /// All zeros: biases.
    Zero,
}

/// Every tensor of a network: canonical name, shape, initialisation. The one table that loading, saving and training share.
pub fn table(config: &Config) -> Vec<(String, Vec<usize>, Init)> {
    let mut rows = vec![(
        "image_newline".to_string(),
        vec![config.text.hidden],
        Init::Normal((config.text.hidden as f32).powf(-0.5)),
    )];
    vision_rows(config, &mut rows);
    decoder_rows(config, &mut rows);
    rows
}

type Rows = Vec<(String, Vec<usize>, Init)>;

fn linear(rows: &mut Rows, name: String, outputs: usize, inputs: usize, bias: bool) {
    rows.push((format!("{name}.weight"), vec![outputs, inputs], Init::Normal((inputs as f32).powf(-0.5))));
    if bias {
        rows.push((format!("{name}.bias"), vec![outputs], Init::Zero));
    }
}

fn layer_norm(rows: &mut Rows, name: String, channels: usize) {
    rows.push((format!("{name}.weight"), vec![channels], Init::One));
    rows.push((format!("{name}.bias"), vec![channels], Init::Zero));
}

fn vision_rows(config: &Config, rows: &mut Rows) {
    let v = &config.vision;
    let inputs = 3 * v.patch * v.patch;
    let patch = "vision_tower.embeddings.patch_embedding";
    rows.push((
        format!("{patch}.weight"),
        vec![v.hidden, 3, v.patch, v.patch],
        Init::Normal((inputs as f32).powf(-0.5)),
    ));
    rows.push((format!("{patch}.bias"), vec![v.hidden], Init::Zero));
    let positions = "vision_tower.embeddings.position_embedding.weight".to_string();
    rows.push((positions, vec![v.grid() * v.grid(), v.hidden], Init::Normal((v.hidden as f32).powf(-0.5))));
    for i in 0..v.layers {
        let block = format!("vision_tower.encoder.layers.{i}");
        layer_norm(rows, format!("{block}.layer_norm1"), v.hidden);
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(rows, format!("{block}.self_attn.{part}"), v.hidden, v.hidden, true);
        }
        layer_norm(rows, format!("{block}.layer_norm2"), v.hidden);
        linear(rows, format!("{block}.mlp.fc1"), v.intermediate, v.hidden, true);
        linear(rows, format!("{block}.mlp.fc2"), v.hidden, v.intermediate, true);
    }
    layer_norm(rows, "vision_tower.post_layernorm".into(), v.hidden);
    linear(
        rows,
        "multi_modal_projector.linear_1".into(),
        config.text.hidden,
        config.feature_channels(),
        true,
    );
    linear(rows, "multi_modal_projector.linear_2".into(), config.text.hidden, config.text.hidden, true);
}

fn decoder_rows(config: &Config, rows: &mut Rows) {
    let t = &config.text;
    rows.push(("language_model.embed_tokens.weight".into(), vec![t.vocab, t.hidden], Init::Normal(0.02)));
    for i in 0..t.layers {
        let block = format!("language_model.layers.{i}");
        rows.push((format!("{block}.input_layernorm.weight"), vec![t.hidden], Init::One));
        linear(rows, format!("{block}.self_attn.q_proj"), t.heads * t.head_dim, t.hidden, true);
        linear(rows, format!("{block}.self_attn.k_proj"), t.kv_heads * t.head_dim, t.hidden, true);
        linear(rows, format!("{block}.self_attn.v_proj"), t.kv_heads * t.head_dim, t.hidden, true);
        linear(rows, format!("{block}.self_attn.o_proj"), t.hidden, t.heads * t.head_dim, false);
        rows.push((format!("{block}.post_attention_layernorm.weight"), vec![t.hidden], Init::One));
        linear(rows, format!("{block}.mlp.gate_proj"), t.intermediate, t.hidden, false);
        linear(rows, format!("{block}.mlp.up_proj"), t.intermediate, t.hidden, false);
        linear(rows, format!("{block}.mlp.down_proj"), t.hidden, t.intermediate, false);
    }
    rows.push(("language_model.norm.weight".into(), vec![t.hidden], Init::One));
    if !t.tied {
        linear(rows, "lm_head".into(), t.vocab, t.hidden, false);
    }
}

/// Loads every tensor of a Hugging Face folder, converted to `dtype`.
///
/// `config` is adjusted where the files are the authority: the vocabulary size follows the embedding table, and a head of
/// its own unties it. Errors name the tensor, its shape and the file.
pub fn load(folder: &Path, config: &mut Config, dtype: DType, device: &Device) -> Result<Weights> {
    complete(folder, config, read(folder, &canonical, Some(dtype), device)?, dtype, device)
}

/// Tensors by the name they were asked for, with the name and the file that they were found under.
pub type Found = BTreeMap<String, (String, PathBuf, Tensor)>;

/// Reads the tensors of a folder under the names that `rename` gives them; those without are passed over. Without a `dtype` each keeps its own.
pub fn read(
    folder: &Path,
    rename: &dyn Fn(&str) -> Option<String>,
    dtype: Option<DType>,
    device: &Device,
) -> Result<Found> {
    let mut found = Found::new();
    for file in safetensors_files(folder)? {
        // SAFETY: the map is read and dropped inside this loop; a file cut short underneath is the caller's to prevent.
        let map =
            unsafe { MmapedSafetensors::new(&file) }.map_err(|e| Error::format(&file, e.to_string()))?;
        for (name, view) in map.tensors() {
            let Some(key) = rename(&name) else { continue };
            if view.shape().iter().product::<usize>() == 0 {
                return Err(Error::Tensor { name, file, reason: "is empty".into() });
            }
            let tensor = map.load(&name, device)?;
            let tensor = dtype.map_or(Ok(tensor.clone()), |dtype| tensor.to_dtype(dtype))?;
            if let Some((other, at, _)) = found.insert(key, (name.clone(), file.clone(), tensor)) {
                let reason = format!("stands for the same weights as {other} in {}", at.display());
                return Err(Error::Tensor { name, file, reason });
            }
        }
    }
    Ok(found)
}

/// Weights of all that `config` asks for, from tensors that were [`read`]; `config` is adjusted as in [`load`]. A last norm that is not there, and not
/// used, is made plain.
pub fn complete(
    folder: &Path,
    config: &mut Config,
    found: Found,
    dtype: DType,
    device: &Device,
) -> Result<Weights> {
    if let Some((_, _, table)) = found.get("language_model.embed_tokens.weight")
        && let Ok((rows, _)) = table.dims2()
    {
        config.text.vocab = rows;
    }
    // A head that is there is used; one that is not may only be missing where config.json ties it.
    config.text.tied = config.text.tied && !found.contains_key("lm_head.weight");
    check(folder, config, found, dtype, device)
}

fn check(folder: &Path, config: &Config, mut found: Found, dtype: DType, device: &Device) -> Result<Weights> {
    let mut weights = Weights::new();
    for (name, shape, init) in table(config) {
        match found.remove(&name) {
            Some((_, _, tensor)) if tensor.dims() == shape => {
                weights.insert(name, tensor);
            }
            Some((spelled, file, tensor)) => {
                let reason = format!("has shape {:?}, config.json asks for {shape:?}", tensor.dims());
                return Err(Error::Tensor { name: spelled, file, reason });
            }
            None if name.contains("post_layernorm") => {
                let plain = if init == Init::One {
                    Tensor::ones(shape, dtype, device)?
                } else {
                    Tensor::zeros(shape, dtype, device)?
                };
                weights.insert(name, plain);
            }
            None => {
                let reason = format!("is missing; config.json asks for shape {shape:?}");
                return Err(Error::Tensor { name: published(&name), file: folder.to_path_buf(), reason });
            }
        }
    }
    if let Some((_, (name, file, tensor))) = found.into_iter().next() {
        let reason =
            format!("of shape {:?} has no place in the network that config.json describes", tensor.dims());
        return Err(Error::Tensor { name, file, reason });
    }
    Ok(weights)
}

/// The safetensors files of a folder: those an index names, or the single `model.safetensors`, or all there are.
fn safetensors_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        let text = std::fs::read_to_string(&index).map_err(Error::io(&index))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Error::format(&index, e.to_string()))?;
        let map = value
            .get("weight_map")
            .and_then(|m| m.as_object())
            .ok_or_else(|| Error::format(&index, "has no weight_map"))?;
        let names: std::collections::BTreeSet<_> = map.values().filter_map(|v| v.as_str()).collect();
        return names
            .into_iter()
            .map(|name| {
                let path = folder.join(name);
                if Path::new(name).components().count() != 1 {
                    return Err(Error::format(&index, format!("names a shard outside the folder: {name}")));
                }
                if path.exists() {
                    Ok(path)
                } else {
                    Err(Error::format(&index, format!("names the shard {name}, which is not there")))
                }
            })
            .collect();
    }
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    Err(Error::format(folder, "holds neither model.safetensors nor model.safetensors.index.json"))
}

/// Writes `model.safetensors` in the published layout, through a temporary file.
pub fn save(folder: &Path, weights: &Weights) -> Result<()> {
    let named: std::collections::HashMap<String, Tensor> = weights
        .iter()
        .map(|(name, tensor)| Ok((published(name), tensor.contiguous()?)))
        .collect::<Result<_>>()?;
    let path = folder.join("model.safetensors");
    let temporary = folder.join("model.safetensors.tmp");
    let metadata = Some(std::collections::HashMap::from([("format".to_string(), "pt".to_string())]));
    safetensors::serialize_to_file(named.iter().map(|(k, v)| (k.as_str(), v)), metadata, &temporary)
        .map_err(|e| Error::format(&temporary, e.to_string()))?;
    std::fs::rename(&temporary, &path).map_err(Error::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layouts_meet_in_one_name() {
        let fc1 = "vision_tower.encoder.layers.0.mlp.fc1.weight";
        for name in [
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
            "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
            "vision_tower.encoder.layers.0.mlp.fc1.weight",
            "model.vision_tower.encoder.layers.0.mlp.fc1.weight",
            "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
        ] {
            assert_eq!(canonical(name).as_deref(), Some(fc1), "{name}");
        }
        let norm = "language_model.norm.weight";
        for name in
            ["language_model.model.norm.weight", "model.language_model.norm.weight", "model.norm.weight"]
        {
            assert_eq!(canonical(name).as_deref(), Some(norm), "{name}");
        }
        for name in ["language_model.lm_head.weight", "lm_head.weight"] {
            assert_eq!(canonical(name).as_deref(), Some("lm_head.weight"), "{name}");
        }
        assert_eq!(
            canonical("model.mm_projector.2.bias").as_deref(),
            Some("multi_modal_projector.linear_2.bias")
        );
        assert_eq!(canonical("model.image_newline").as_deref(), Some("image_newline"));
        assert_eq!(canonical(&published(fc1)).as_deref(), Some(fc1));
    }
}
