//! The vision encoder as the reference network: the candle tower.
//!
//! Comes in: a tower loaded from a Hugging Face folder, or a `vision.onnx`, whose initializers carry the same names.
//! Goes out: tokens, in f32, computed where the tower is. It is the one the other two are compared with; no candle type leaves it.

use std::path::Path;

use candle_core::{DType, Tensor};
use utr_models::preprocess::Preprocessor;
use utr_models::vision::VisionTower;

use super::{VisionEncoder, check_pixels};
use crate::error::{Error, Result};

const NAME: &str = "candle";

/// The tower, projector and pool.
pub struct CandleEncoder {
    tower: VisionTower,
    newline: Vec<f32>,
    preprocessor: Preprocessor,
}

impl CandleEncoder {
    /// Wraps a loaded tower.
    ///
    /// # Errors
    /// [`Error::Encoder`] where its newline cannot be read.
    pub fn new(tower: VisionTower, preprocessor: Preprocessor) -> Result<Self> {
        let newline = values(tower.newline())?;
        Ok(Self { tower, newline, preprocessor })
    }

    /// Loads the tower from a `vision.onnx`.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    pub fn open(onnx: &Path, preprocessor: Preprocessor) -> Result<Self> {
        Self::new(VisionTower::from_onnx(onnx)?, preprocessor)
    }
}

impl VisionEncoder for CandleEncoder {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tokens_per_frame(&self) -> usize {
        self.tower.tokens_per_frame()
    }

    fn hidden(&self) -> usize {
        self.newline.len()
    }

    fn newline(&self) -> &[f32] {
        &self.newline
    }

    fn preprocessing(&self) -> &Preprocessor {
        &self.preprocessor
    }

    fn encode(&mut self, pixels: &[f32], n: usize) -> Result<Vec<f32>> {
        check_pixels(NAME, pixels, n, &self.preprocessor)?;
        let shape = (n, 3, self.preprocessor.height, self.preprocessor.width);
        let device = self.tower.newline().device();
        let pixels =
            Tensor::from_slice(pixels, shape, device).map_err(|error| Error::encoder(NAME, error))?;
        values(&self.tower.encode(&pixels)?)
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor
        .flatten_all()
        .and_then(|flat| flat.to_dtype(DType::F32)?.to_vec1())
        .map_err(|error| Error::encoder(NAME, error))
}
