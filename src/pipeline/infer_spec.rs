//! The step that predicts: which network, and how it is run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::Slot;
use crate::engine::learner::{PredictOptions, VoxelAxis};

/// Predicts infarcts with a trained network, in each case's own grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InferParams {
    /// The network: the step of this file that trained it; `newest:NAME` for the newest model that any pipeline's step of
    /// that name put into the catalog; the identifier of a model in the catalog (`unet-0198c7a25b`); or a safetensors file
    /// (a path with `/`, or a name that ends in `.safetensors`). A new model is inferred with anew, in all cases.
    pub model: String,
    /// Probability from which a voxel is infarct.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// Volumes that are written as files.
    #[serde(default = "default_infer_keep")]
    pub keep: Vec<Slot>,
    /// Voxels of a window along x, y, z; 0 takes the whole axis. By default the shape of the samples that the model was
    /// trained on, so that a case of that size is seen whole. An axis that is shorter clips the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<[usize; 3]>,
    /// Share of a window that overlaps the next one.
    #[serde(default = "default_overlap")]
    #[schemars(range(min = 0.0, max = 0.95))]
    pub overlap: f64,
    /// Axes to mirror along: the mean over all mirrored images is taken, at twice the time an axis.
    #[serde(default)]
    pub flip: Vec<VoxelAxis>,
    /// Where the network runs: `auto` (CUDA where there is one), `cpu` or `cuda:N`.
    #[serde(default = "default_device")]
    pub device: String,
}

/// Where an inference has its network from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSource<'a> {
    /// A step of the same pipeline trains it.
    Step(&'a str),
    /// The newest that a step of this name put into the catalog, whatever its pipeline.
    Newest(&'a str),
    /// A model of the catalog, by its identifier.
    Id(&'a str),
    /// A safetensors file.
    File(&'a str),
}

impl InferParams {
    /// What `model` names.
    pub fn source(&self) -> ModelSource<'_> {
        let name = self.model.as_str();
        if let Some(step) = name.strip_prefix("newest:") {
            ModelSource::Newest(step.trim())
        } else if name.contains('/') || name.ends_with(".safetensors") {
            ModelSource::File(name)
        } else if name.contains('-') {
            // The identifier of a model has a hyphen, the name of a step has none.
            ModelSource::Id(name)
        } else {
            ModelSource::Step(name)
        }
    }

    /// How the network is run.
    pub fn options(&self) -> PredictOptions {
        PredictOptions {
            device: self.device.clone(),
            window: self.window,
            overlap: self.overlap,
            flip: self.flip.clone(),
            ..PredictOptions::default()
        }
    }
}

fn default_overlap() -> f64 {
    PredictOptions::default().overlap
}

fn default_device() -> String {
    PredictOptions::default().device
}

fn default_threshold() -> f64 {
    0.5
}

fn default_infer_keep() -> Vec<Slot> {
    vec![Slot::Prediction]
}
