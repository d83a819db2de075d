//! `infer`: brings the image to the model's grid, asks the network, and brings the probability back to the case's own grid.

use std::sync::Arc;

use serde_json::{Value, json};

use super::resample::Resample;
use crate::engine::learner::{PredictOptions, Predictor};
use crate::engine::{Case, Context, Slot, Stage};
use crate::error::{Error, Result};
use crate::imaging::resample::{Interpolation, resample_image, target_grid};
use crate::volume::{Image, Mask};

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
    /// How the network is run.
    pub options: PredictOptions,
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
        2
    }

    fn parameters(&self) -> Value {
        json!({
            "model": self.model_blake3, "threshold": self.threshold, "resample": self.resample,
            "window": self.options.window, "overlap": self.options.overlap, "flip": self.options.flip,
        })
    }

    fn reads(&self) -> &'static [Slot] {
        &[Slot::Image]
    }

    fn writes(&self) -> &'static [Slot] {
        &[Slot::Probability, Slot::Prediction]
    }

    fn working_bytes(&self, voxels: u64) -> u64 {
        // The resampled image and probability beside what the network needs.
        let network = self.predictor.as_ref().map_or(0, |p| p.working_bytes(voxels));
        8 * voxels + network
    }

    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let predictor =
            self.predictor.as_ref().ok_or_else(|| Error::bug("infer without a network"))?;
        let image = case.image()?;
        let probability = predict(predictor.as_ref(), &[image], &self.resample, context)?;
        case.prediction = Some(mask(&probability, self.threshold));
        case.probability = Some(probability);
        case.notes.insert("infer".to_owned(), json!({"model_id": self.model_id}));
        Ok(())
    }
}

/// The probability of the lesion on the grid of the images, which are brought to the model's grid and back.
///
/// # Errors
/// A data error where an image cannot be resampled or the network does not take it; a cancelled one where the case is given up.
pub fn predict(
    predictor: &dyn Predictor,
    channels: &[&Image],
    resample: &Resample,
    context: &Context,
) -> Result<Image> {
    let native = channels.first().ok_or_else(|| Error::bug("a case without an image"))?.grid();
    let grid = target_grid(&native, resample.spacing_mm, resample.shape)?;
    let input = channels
        .iter()
        .map(|image| resample_image(image, &grid, resample.interpolation, 0.0))
        .collect::<Result<Vec<_>>>()?;
    context.check()?;
    let output = predictor.predict(&input.iter().collect::<Vec<_>>())?;
    resample_image(&output, &native, Interpolation::Linear, 0.0)
}

/// Voxels whose probability reaches a threshold.
pub fn mask(probability: &Image, threshold: f32) -> Mask {
    Mask { data: probability.data.mapv(|p| u8::from(p >= threshold)), affine: probability.affine }
}
