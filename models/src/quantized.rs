//! Quantized matrices, spread over cores or on a GPU.
//!
//! Comes in: a matrix (out, in) as a GGUF file holds it, and where it is to be. Goes out: products with f32 rows, and single rows as f32. On the CPU
//! a large matrix is cut into as many parts as there are cores, each multiplied by one core of the current rayon pool: candle's own threads take one
//! caller at a time and spin meanwhile, which a program that sees while it speaks cannot afford (set `CANDLE_NUM_THREADS=1`). The numbers are those of
//! the whole matrix. On a GPU it stays in one piece. A processor without the instructions that candle multiplies quantized rows with works on f32 copies.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{D, Device, Module, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Elements from which on a matrix is cut.
const CUT: usize = 1 << 19;

/// A quantized matrix (out, in). Clones share it.
#[derive(Clone)]
pub struct Quantized {
    parts: Vec<Part>,
}

/// Rows `first..` of the matrix.
#[derive(Clone)]
struct Part {
    first: usize,
    rows: usize,
    matrix: Arc<QTensor>,
    /// Made when it is first asked for: rows of a table of embeddings need none.
    product: Arc<OnceLock<QMatMul>>,
}

impl Quantized {
    /// Takes a matrix over, onto `device`.
    pub fn new(matrix: QTensor, device: &Device) -> Result<Self> {
        let (out, width) = matrix.shape().dims2()?;
        if !device.is_cpu() {
            // What boards multiply single rows with takes 64 columns a step and does not look for the end (`dequantize_mul_mat_vec`).
            if cfg!(target_arch = "aarch64") && matrix.dtype().block_size() == 32 && !width.is_multiple_of(64)
            {
                let reason = format!(
                    "a quantized matrix of {width} columns, no multiple of 64: it needs --device cpu"
                );
                return Err(Error::Argument(reason));
            }
            let matrix = if matrix.device().is_cpu() { moved(&matrix, device)? } else { matrix };
            return Ok(Self { parts: vec![Part::new(0, out, matrix)?] });
        }
        let count = if out * width < CUT { 1 } else { rayon::current_num_threads().clamp(1, out) };
        if count == 1 {
            return Ok(Self { parts: vec![Part::new(0, out, matrix)?] });
        }
        let (dtype, bytes) = (matrix.dtype(), matrix.data()?);
        let row_bytes = bytes.len() / out;
        // Columns are multiplied four at a time.
        let share = out.div_ceil(count).next_multiple_of(4);
        let part = |first: usize| {
            let rows = share.min(out - first);
            let piece = bytes.get(first * row_bytes..(first + rows) * row_bytes);
            let piece = piece
                .ok_or_else(|| Error::Argument("a quantized matrix is shorter than its shape".into()))?;
            let storage = QStorage::from_data(Cow::Borrowed(piece), &Device::Cpu, dtype)?;
            Part::new(first, rows, QTensor::new(storage, (rows, width))?)
        };
        Ok(Self { parts: (0..out).step_by(share).map(part).collect::<Result<_>>()? })
    }

    /// (n, in) rows to (n, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.parts.as_slice() {
            [whole] => Ok(whole.product()?.forward(x)?),
            parts => {
                let done: Vec<Tensor> =
                    parts.par_iter().map(|part| Ok(part.product()?.forward(x)?)).collect::<Result<_>>()?;
                Ok(Tensor::cat(&done, D::Minus1)?)
            }
        }
    }

    /// Rows (n, in) of the matrix as f32.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let row = |id: &u32| -> Result<Tensor> {
            let at = *id as usize;
            let part = self.parts.iter().find(|part| (part.first..part.first + part.rows).contains(&at));
            let part =
                part.ok_or_else(|| Error::Argument(format!("row {id} lies outside a quantized matrix")))?;
            Ok(part.matrix.embedding(&Tensor::new(&[(at - part.first) as u32], &part.matrix.device())?)?)
        };
        let rows: Vec<Tensor> = ids.iter().map(row).collect::<Result<_>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }
}

/// A copy on another device.
pub(crate) fn moved(matrix: &QTensor, device: &Device) -> Result<QTensor> {
    let storage = QStorage::from_data(matrix.data()?, device, matrix.dtype())?;
    Ok(QTensor::new(storage, matrix.shape())?)
}

/// Whether this processor multiplies quantized matrices as they are. candle 0.11 takes dot products of 8-bit numbers for granted on aarch64; some cores
/// lack them (Carmel, Cortex-A72 and older) and would stop at an illegal instruction.
pub fn multiplied_as_they_are() -> bool {
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(target_arch = "aarch64"))]
    true
}

impl Part {
    fn new(first: usize, rows: usize, matrix: QTensor) -> Result<Self> {
        let part = Self { first, rows, matrix: Arc::new(matrix), product: Arc::default() };
        // At once where it costs no copy.
        if multiplied_as_they_are() && part.matrix.dtype().block_size() > 1 {
            part.product()?;
        }
        Ok(part)
    }

    fn product(&self) -> Result<&QMatMul> {
        if let Some(product) = self.product.get() {
            return Ok(product);
        }
        let product = match self.matrix.device().is_cpu() && !multiplied_as_they_are() {
            true => QMatMul::Tensor(self.matrix.dequantize(&Device::Cpu)?),
            false => QMatMul::from_arc(Arc::clone(&self.matrix))?,
        };
        Ok(self.product.get_or_init(|| product))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::GgmlDType;

    #[test]
    fn a_cut_matrix_gives_the_numbers_of_the_whole() {
        let (out, width) = (1030, 1024);
        let values: Vec<f32> = (0..out * width).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect();
        let dense = Tensor::from_vec(values, (out, width), &Device::Cpu).unwrap();
        let x = dense.narrow(0, 5, 3).unwrap();
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::F32] {
            let whole = QTensor::quantize(&dense, dtype).unwrap();
            let expected = QMatMul::from_qtensor(QTensor::quantize(&dense, dtype).unwrap())
                .unwrap()
                .forward(&x)
                .unwrap();
            let table = whole.dequantize(&Device::Cpu).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            let cut = pool.install(|| Quantized::new(whole, &Device::Cpu).unwrap());
            assert_eq!(cut.parts.len(), 3);
            let found = cut.forward(&x).unwrap();
            assert_eq!(found.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap(), "{dtype:?}");
            let rows = cut.rows(&[0, 343, 344, 1029]).unwrap();
            let ids = Tensor::new(&[0u32, 343, 344, 1029], &Device::Cpu).unwrap();
            assert_eq!(
                rows.to_vec2::<f32>().unwrap(),
                table.index_select(&ids, 0).unwrap().to_vec2::<f32>().unwrap()
            );
            assert!(cut.rows(&[1030]).is_err());
        }
    }
}
