//! ONNX files: a small builder of graphs and a reader of initializers.
//!
//! Comes in: nodes, tensors and metadata by name, or a path. Goes out: a protobuf file (one, without external data), or the
//! tensors in it under their names with the vision configuration. Knows nothing of what the graph computes, checks no
//! graph and runs none.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use half::f16;
use prost::Message;
use tract_onnx::pb::{self, attribute_proto::AttributeType, tensor_proto::DataType};

use crate::atomic;
use crate::error::{Error, Result};
use crate::onnx::VisionExport;

/// Intermediate representation version that belongs to opset 17.
const IR_VERSION: i64 = 8;
/// Protobuf's limit on one message; larger models would need external data.
const LARGEST_FILE: usize = i32::MAX as usize;
/// Names of tensors that are the graph's own, not the checkpoint's.
const OWN: &str = "graph.";

/// Attributes of nodes.
pub(crate) struct Attribute;

impl Attribute {
    pub(crate) fn int(name: &str, value: i64) -> pb::AttributeProto {
        pb::AttributeProto {
            name: name.into(),
            r#type: AttributeType::Int as i32,
            i: value,
            ..Default::default()
        }
    }

    pub(crate) fn ints(name: &str, values: &[i64]) -> pb::AttributeProto {
        let r#type = AttributeType::Ints as i32;
        pb::AttributeProto { name: name.into(), r#type, ints: values.to_vec(), ..Default::default() }
    }

    pub(crate) fn float(name: &str, value: f32) -> pb::AttributeProto {
        pb::AttributeProto {
            name: name.into(),
            r#type: AttributeType::Float as i32,
            f: value,
            ..Default::default()
        }
    }
}

/// Collects nodes and tensors; names of results are numbered, constants are shared.
pub(crate) struct GraphBuilder {
    path: PathBuf,
    half: bool,
    graph: pb::GraphProto,
    constants: HashMap<String, String>,
}

impl GraphBuilder {
    /// A graph that will be written to `path`; `half` stores tensors of two or more axes as f16.
    pub(crate) fn new(path: &Path, half: bool) -> Self {
        let graph = pb::GraphProto { name: "vision".into(), ..Default::default() };
        Self { path: path.to_path_buf(), half, graph, constants: HashMap::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a node with one result and returns the result's name.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<pb::AttributeProto>) -> String {
        let output = format!("{OWN}{}.{}", self.graph.node.len(), op.to_lowercase());
        self.node_named(op, inputs, &output, attribute);
        output
    }

    /// Adds a node whose result is called `output`.
    pub(crate) fn node_named(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<pb::AttributeProto>,
    ) {
        self.graph.node.push(pb::NodeProto {
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: format!("{output}.node"),
            op_type: op.to_owned(),
            attribute,
            ..Default::default()
        });
    }

    /// Adds a checkpoint tensor; returns the f32 name to compute with, behind a Cast where it is stored as f16.
    pub(crate) fn initializer(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<String> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(Error::Tensor {
                name: name.into(),
                file: self.path.clone(),
                reason: format!("shape {shape:?} needs another number of values than {}", values.len()),
            });
        }
        let half = self.half && shape.len() >= 2;
        let (data_type, raw_data) = if half {
            (DataType::Float16, values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect())
        } else {
            (DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        self.push(name, shape, data_type, raw_data);
        if !half {
            return Ok(name.to_owned());
        }
        Ok(self.node("Cast", &[name], vec![Attribute::int("to", DataType::Float as i64)]))
    }

    /// A tensor of the graph's own.
    pub(crate) fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<String> {
        let name = format!("{OWN}{name}");
        let half = std::mem::replace(&mut self.half, false);
        let added = self.initializer(&name, shape, values);
        self.half = half;
        added
    }

    /// A number.
    pub(crate) fn scalar(&mut self, value: f32) -> Result<String> {
        let key = format!("scalar.{value}");
        if let Some(name) = self.constants.get(&key) {
            return Ok(name.clone());
        }
        let name = self.constant(&key, &[], &[value])?;
        self.constants.insert(key, name.clone());
        Ok(name)
    }

    /// A target shape for Reshape.
    pub(crate) fn shape(&mut self, dims: &[i64]) -> String {
        let words: Vec<String> = dims.iter().map(i64::to_string).collect();
        let key = format!("{OWN}shape.{}", words.join("."));
        if !self.constants.contains_key(&key) {
            let bytes = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
            self.push(&key, &[dims.len()], DataType::Int64, bytes);
            self.constants.insert(key.clone(), key.clone());
        }
        key
    }

    fn push(&mut self, name: &str, shape: &[usize], data_type: DataType, raw_data: Vec<u8>) {
        self.graph.initializer.push(pb::TensorProto {
            name: name.to_owned(),
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: data_type as i32,
            raw_data,
            ..Default::default()
        });
    }

    /// Declares an f32 input; `None` is the batch axis `n`.
    pub(crate) fn input(&mut self, name: &str, shape: &[Option<usize>]) {
        self.graph.input.push(value_info(name, shape));
    }

    /// Declares an f32 output.
    pub(crate) fn output(&mut self, name: &str, shape: &[Option<usize>]) {
        self.graph.output.push(value_info(name, shape));
    }

    /// Writes the file (under a temporary name, then renamed).
    pub(crate) fn write(self, opset: i64, metadata: &[(&str, &str)]) -> Result<()> {
        let entry = |&(key, value): &(&str, &str)| pb::StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        let model = pb::ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: opset }],
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            metadata_props: metadata.iter().map(entry).collect(),
            ..Default::default()
        };
        let size = model.encoded_len();
        if size > LARGEST_FILE {
            let reason = format!(
                "{size} bytes exceed the {LARGEST_FILE} an ONNX file can hold; store the weights as f16"
            );
            return Err(Error::format(&self.path, reason));
        }
        atomic::write(&self.path, &model.encode_to_vec())
    }
}

fn value_info(name: &str, shape: &[Option<usize>]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |size: &Option<usize>| Dimension {
        value: Some(size.map_or_else(|| Value::DimParam("n".into()), |s| Value::DimValue(s as i64))),
        ..Default::default()
    };
    let tensor = pb::type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(pb::TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    };
    let r#type =
        pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
    pb::ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

/// Tensors by name: shape and row-major f32 values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// What a `vision.onnx` holds beside the graph.
#[derive(Debug, Clone)]
pub struct VisionFile {
    /// Sizes, from the metadata.
    pub config: VisionExport,
    /// The checkpoint's tensors under their layout-A names, as f32.
    pub tensors: Tensors,
}

/// Reads the configuration and the checkpoint tensors of a file from [`crate::onnx::write_vision`].
pub fn read_vision(path: &Path) -> Result<VisionFile> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let model = pb::ModelProto::decode(bytes.as_slice())
        .map_err(|e| Error::format(path, format!("not an ONNX file: {e}")))?;
    drop(bytes);
    let entry = model.metadata_props.iter().find(|e| e.key == VisionExport::METADATA_KEY);
    let json = entry.ok_or_else(|| {
        Error::format(
            path,
            format!("no metadata entry {:?}: not written by this program", VisionExport::METADATA_KEY),
        )
    })?;
    let config: VisionExport = serde_json::from_str(&json.value)
        .map_err(|e| Error::format(path, format!("metadata entry {:?}: {e}", json.key)))?;
    config.validate().map_err(|e| Error::format(path, e.to_string()))?;
    let mut tensors = Tensors::new();
    for tensor in model.graph.unwrap_or_default().initializer {
        if !tensor.name.starts_with(OWN) {
            let (name, shape, values) = read_tensor(path, tensor)?;
            tensors.insert(name, (shape, values));
        }
    }
    Ok(VisionFile { config, tensors })
}

/// The checkpoint tensors of a `vision.onnx`, see [`read_vision`].
pub fn read_initializers(path: &Path) -> Result<Tensors> {
    read_vision(path).map(|file| file.tensors)
}

fn read_tensor(path: &Path, tensor: pb::TensorProto) -> Result<(String, Vec<usize>, Vec<f32>)> {
    let pb::TensorProto { name, dims, data_type, float_data, raw_data, .. } = tensor;
    let fail = |reason: String| Error::Tensor { name: name.clone(), file: path.to_path_buf(), reason };
    let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| fail(format!("shape {dims:?} has a negative size")))?;
    let values: Vec<f32> = match DataType::try_from(data_type) {
        Ok(DataType::Float) if raw_data.is_empty() => float_data,
        Ok(DataType::Float) => {
            raw_data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        }
        Ok(DataType::Float16) => {
            raw_data.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
        }
        _ => return Err(fail(format!("data type {data_type}; expected f32 or f16"))),
    };
    let wanted = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
    if wanted != Some(values.len()) {
        return Err(fail(format!("shape {shape:?} does not fit the {} values in the file", values.len())));
    }
    Ok((name, shape, values))
}
