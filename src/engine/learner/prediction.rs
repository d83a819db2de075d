//! How a trained network is run, and what a checkpoint from elsewhere does not say itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Merging, is_device};
use crate::error::{Error, Result};

/// A voxel axis of an image.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum VoxelAxis {
    /// The first.
    X,
    /// The second.
    Y,
    /// The third, usually across slices.
    Z,
}

/// Which way the axes of an image go into the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AxisOrder {
    /// z, y, x, as networks are trained here.
    #[default]
    Zyx,
    /// x, y, z, as MONAI reads images.
    Xyz,
}

/// From logits to probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Each channel for itself.
    #[default]
    Sigmoid,
    /// The channels share a probability of 1.
    Softmax,
}

/// How a trained network is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictOptions {
    /// `auto` (CUDA where there is one), `cpu` or `cuda:N`.
    pub device: String,
    /// Voxels of a window along x, y, z; 0 takes the whole axis. Default: the shape of the samples that the model was trained on,
    /// or 96 along every axis for a checkpoint from elsewhere. An axis that is shorter clips the window.
    pub window: Option<[usize; 3]>,
    /// Share of a window that overlaps the next one.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub overlap: f64,
    /// Axes to mirror along: the mean over all mirrored images is taken, at twice the time an axis.
    pub flip: Vec<VoxelAxis>,
    /// Spacing along x, y, z in mm that the image is brought to. Only for a checkpoint from elsewhere; by default the image
    /// stays as it is.
    pub spacing_mm: Option<[f64; 3]>,
    /// What intensities are multiplied by. Only for a checkpoint from elsewhere; by default 1.
    pub intensity_scale: Option<f32>,
    /// Which way the axes go into the network. Only for a checkpoint from elsewhere; by default `xyz`.
    pub axes: Option<AxisOrder>,
    /// How a Swin UNETR halves its resolution. Only for a checkpoint from elsewhere; by default `merging`.
    pub downsample: Option<Merging>,
    /// Whether a Swin UNETR normalises what its stages hand on. Only for a checkpoint from elsewhere; by default it does.
    pub normalize: Option<bool>,
    /// From logits to probabilities. By default `sigmoid` for a network with one channel, `softmax` for one with more.
    pub activation: Option<Activation>,
    /// Which channel of the output is the lesion, from 0. By default 0 for `sigmoid`, 1 for `softmax`.
    pub channel: Option<usize>,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            window: None,
            overlap: 0.5,
            flip: Vec::new(),
            spacing_mm: None,
            intensity_scale: None,
            axes: None,
            downsample: None,
            normalize: None,
            activation: None,
            channel: None,
        }
    }
}

impl PredictOptions {
    /// The defaults on a device.
    pub fn on(device: &str) -> Self {
        Self { device: device.to_owned(), ..Self::default() }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// A configuration error that lists all that cannot be.
    pub fn validate(&self) -> Result<()> {
        let mut wrong = Vec::new();
        if !is_device(&self.device) {
            wrong.push(format!("device is `{}`, expected auto, cpu or cuda:N", self.device));
        }
        if !(0.0..=0.95).contains(&self.overlap) {
            wrong.push(format!("overlap is {}, expected 0 to 0.95", self.overlap));
        }
        if self.window.is_some_and(|w| w.iter().any(|n| *n > 4096)) {
            wrong.push(format!("window is {:?}, expected counts up to 4096", self.window));
        }
        if self.spacing_mm.is_some_and(|s| s.iter().any(|v| !v.is_finite() || *v <= 0.0)) {
            wrong.push(format!("spacing_mm is {:?}, expected numbers above 0", self.spacing_mm));
        }
        if self.intensity_scale.is_some_and(|s| !s.is_finite() || s <= 0.0) {
            wrong.push(format!(
                "intensity_scale is {:?}, expected more than 0",
                self.intensity_scale
            ));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::configuration(wrong.join("; ")).hint("correct these values"))
    }

    /// The values given that only a checkpoint from elsewhere has a use for.
    pub fn foreign(&self) -> Vec<&'static str> {
        [
            ("spacing_mm", self.spacing_mm.is_some()),
            ("intensity_scale", self.intensity_scale.is_some()),
            ("axes", self.axes.is_some()),
            ("downsample", self.downsample.is_some()),
            ("normalize", self.normalize.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_cannot_be_is_reported_at_once() {
        assert!(PredictOptions::default().validate().is_ok());
        let options = PredictOptions {
            device: "gpu".to_owned(),
            overlap: 1.0,
            spacing_mm: Some([1.0, 0.0, 1.0]),
            intensity_scale: Some(f32::NAN),
            ..PredictOptions::default()
        };
        let found = options.validate().err().map(|e| e.to_string()).unwrap_or_default();
        for word in ["device is `gpu`", "overlap is 1", "spacing_mm is", "intensity_scale is"] {
            assert!(found.contains(word), "{found}");
        }
        assert_eq!(options.foreign(), ["spacing_mm", "intensity_scale"]);
    }
}
