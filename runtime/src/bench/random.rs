//! Random weights in the shapes of public models: how fast a model would be, without having it.
//!
//! Comes in: a shape and the bits of its decoder. Goes out: a decoder, and a `vision.onnx`, that compute as trained ones do and say nothing. Values
//! are drawn from a fixed seed; a matrix repeats its first rows, because time depends on sizes alone and a large model is made in seconds
//! so. Nothing is read; only [`vision`] writes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use utr_models::DeviceChoice;
use utr_models::onnx::{VisionExport, write_vision};
use utr_models::qwen2::Qwen2;
use utr_models::weights::{self, Init};

use crate::error::Result;
use crate::shape::{Bits, Model, Shape};

/// Rows of a matrix that are drawn; the others repeat them.
const DRAWN_ROWS: usize = 64;

/// Draws evenly from -1 to 1.
pub fn draw(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// A decoder with random weights, and the bytes of the matrices that one token reads.
///
/// # Errors
/// Whatever candle reports, such as too little memory.
pub fn decoder(shape: Shape, bits: Bits, device: DeviceChoice) -> Result<(Qwen2, u64)> {
    let (device, _) = device.open(0)?;
    let config = shape.config();
    let c = config.clone();
    let (wide, narrow) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = 0;
    let network = Qwen2::quantized(config, &device, |name| {
        let part =
            name.rsplit_once("blk.").map_or(name, |(_, rest)| rest.split_once('.').map_or(rest, |p| p.1));
        let (rows, columns) = match part {
            "token_embd.weight" | "output.weight" => (c.vocab, c.hidden),
            "attn_q.weight" => (wide, c.hidden),
            "attn_k.weight" | "attn_v.weight" => (narrow, c.hidden),
            "attn_output.weight" => (c.hidden, wide),
            "ffn_gate.weight" | "ffn_up.weight" => (c.intermediate, c.hidden),
            "ffn_down.weight" => (c.hidden, c.intermediate),
            "attn_q.bias" => return Ok(vector(0.0, wide)?),
            "attn_k.bias" | "attn_v.bias" => return Ok(vector(0.0, narrow)?),
            _ => return Ok(vector(1.0, c.hidden)?),
        };
        let matrix = matrix(rows, columns, bits.dtype(), &mut state)?;
        // Of a table that is not the head too, a token reads one row.
        if c.tied || part != "token_embd.weight" {
            bytes += matrix.storage_size_in_bytes() as u64;
        }
        Ok(matrix)
    })?;
    Ok((network, bytes))
}

fn vector(value: f32, size: usize) -> candle_core::Result<QTensor> {
    QTensor::quantize(&Tensor::full(value, size, &Device::Cpu)?, GgmlDType::F32)
}

fn matrix(rows: usize, columns: usize, dtype: GgmlDType, state: &mut u64) -> candle_core::Result<QTensor> {
    let drawn = rows.min(DRAWN_ROWS);
    let spread = (3.0 / columns as f32).sqrt();
    let values: Vec<f32> = (0..drawn * columns).map(|_| spread * draw(state)).collect();
    let first = QTensor::quantize(&Tensor::from_vec(values, (drawn, columns), &Device::Cpu)?, dtype)?;
    let block = first.data()?;
    let mut bytes = block.repeat(rows.div_ceil(drawn));
    bytes.truncate(block.len() / drawn * rows);
    QTensor::new(QStorage::from_data(bytes.into(), &Device::Cpu, dtype)?, (rows, columns))
}

/// Writes the `vision.onnx` of a shape with a tower.
///
/// # Errors
/// A file that cannot be written.
pub fn vision(shape: Model, export: &VisionExport, path: &Path) -> Result<()> {
    let table = weights::table(&shape.network()).into_iter();
    let table: BTreeMap<_, _> = table.map(|(name, sizes, init)| (name, (sizes, init))).collect();
    let state = Cell::new(0x9E37_79B9_7F4A_7C15u64);
    write_vision(path, export, &|published| {
        let found = weights::canonical(published).and_then(|name| table.get(&name));
        let (sizes, init) = found.cloned().unwrap_or((Vec::new(), Init::Zero));
        let count = sizes.iter().product();
        let values = match init {
            Init::One => vec![1.0; count],
            Init::Zero => vec![0.0; count],
            Init::Normal(deviation) => {
                let (mut drawn, spread) = (state.get(), deviation * 3f32.sqrt());
                let values = (0..count).map(|_| spread * draw(&mut drawn)).collect();
                state.set(drawn);
                values
            }
        };
        Ok((sizes, values))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::matrices;

    #[test]
    fn a_matrix_repeats_its_first_rows() {
        let mut state = 1;
        let matrix = matrix(150, 64, GgmlDType::Q8_0, &mut state).unwrap();
        let rows = matrix.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!((rows.len(), rows[0].len()), (150, 64));
        assert_eq!((&rows[0], &rows[21]), (&rows[64], &rows[149]));
        assert!(rows[0] != rows[1] && rows.iter().flatten().all(|v| v.is_finite()));
    }

    #[test]
    fn a_random_network_sees_and_reads() {
        let shape: Model = "tiny+tiny".parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vision.onnx");
        vision(shape, &shape.export().unwrap(), &file).unwrap();
        let tower = utr_models::vision::VisionTower::from_onnx(&file).unwrap();
        let pixels =
            Tensor::full(0.5f32, (1, 3, shape.image_size(), shape.image_size()), &Device::Cpu).unwrap();
        let tokens = tower.encode(&pixels).unwrap();
        assert_eq!(tokens.dims(), [1, shape.frame_tokens().unwrap(), 64]);
        assert!(tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
        let (network, bytes) = decoder(shape.decoder, Bits::Q4, DeviceChoice::Cpu).unwrap();
        let weights = matrices(network.config()) + 256 * 64;
        assert_eq!(bytes as usize, weights / 32 * 18);
        let logits = network.logits(&network.embed(&[3, 200]).unwrap()).unwrap().flatten_all().unwrap();
        assert!(logits.to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
    }
}
