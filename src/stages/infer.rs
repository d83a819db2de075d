//! `infer`: brings the image to the model's grid, asks the network, and brings the probability back to the case's own grid.

use std::sync::Arc;

use serde_json::{Value, json};

use super::resample::Resample;
use crate::engine::learner::Predictor;
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::{Error, Result};
use crate::imaging::resample::{Interpolation, resample_image, target_grid};
use crate::volume::Mask;

/// A trained network at work.
pub struct Infer {
    /// The network; absent where the step is only looked at and not run.
    pub predictor: Option<Arc<dyn Predictor>>,
    /// The model in the catalog.
    pub model_id: String,
    /// Hash of the model's bytes.
    pub model_blake3: String,
    /// Probability from which a voxel is infarct.
    pub threshold: f32,
    /// The grid that the model was trained on.
    pub resample: Resample,
}

impl std::fmt::Debug for Infer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Infer").field("model_id", &self.model_id).finish_non_exhaustive()
    }
}

impl Stage for Infer {
    fn name(&self) -> &'static str {
        "infer"
    }

    fn version(&self) -> u32 {
        1
    }

    fn parameters(&self) -> Value {
        json!({"model": self.model_blake3, "threshold": self.threshold, "resample": self.resample})
    }

    fn reads(&self) -> &'static [Slot] {
        &[Slot::Image]
    }

    fn writes(&self) -> &'static [Slot] {
        &[Slot::Probability, Slot::Prediction]
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        let shape = self.predictor.as_ref().map_or([0; 3], |p| p.grid_shape());
        let sample: u64 = shape.iter().map(|n| *n as u64).product();
        // Activations of a network without gradients, beside the resampled image and probability.
        4 * voxels + sample * 1_000
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let predictor =
            self.predictor.as_ref().ok_or_else(|| Error::bug("infer without a network"))?;
        let image = case.image()?;
        let native = image.grid();
        let grid = target_grid(&native, self.resample.spacing_mm, self.resample.shape)?;
        let input = resample_image(image, &grid, self.resample.interpolation, 0.0)?;
        context.check()?;
        let output = predictor.predict(&input)?;
        let probability = resample_image(&output, &native, Interpolation::Linear, 0.0)?;
        case.prediction = Some(Mask {
            data: probability.data.mapv(|p| u8::from(p >= self.threshold)),
            affine: probability.affine,
        });
        case.probability = Some(probability);
        case.notes.insert("infer".to_owned(), json!({"model_id": self.model_id}));
        Ok(())
    }
}
