//! What the engine asks of whoever trains networks: the crate `torcula-training`, the only one that links libtorch.
//!
//! A train step hands a [`TrainJob`] to a [`Learner`] and gets a [`TrainedModel`]; an infer step asks it for a
//! [`Predictor`]. The lean binary has no learner, and execs the training binary for a pipeline that needs one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::imaging::augment::{Plan, Transform};
use crate::volume::Image;

use super::feed::SampleRef;

/// Trains networks and runs them.
pub trait Learner: Send + Sync {
    /// Trains on the job's samples until its epochs are over or its patience ends. Continues from the job's folder where
    /// a training with the same fingerprint was interrupted. `progress` hears of every epoch; `stop` is asked after
    /// every batch.
    ///
    /// # Errors
    /// A cancelled error when `stop` said so (the last whole epoch is kept); a data error that names the cases of the
    /// batch whose loss is not finite; a resource error where the device ran out of memory.
    fn train(
        &self,
        job: TrainJob,
        progress: &dyn Fn(&EpochReport),
        stop: &dyn Fn() -> bool,
    ) -> Result<TrainedModel>;

    /// Loads a model that [`Learner::train`] wrote, onto `device` (`auto`, `cpu`, `cuda:N`).
    ///
    /// # Errors
    /// An error where the file is no such model, or the device is not there.
    fn predictor(&self, model: &Path, device: &str) -> Result<Arc<dyn Predictor>>;

    /// What this learner runs on, for `doctor`.
    fn describe(&self) -> LearnerInfo;
}

/// A trained network, ready to run.
pub trait Predictor: Send + Sync {
    /// The probability (0 to 1) of the lesion in every voxel of an image with the spacing of [`Predictor::spacing_mm`].
    /// An image larger than [`Predictor::grid_shape`] is done in overlapping windows.
    ///
    /// # Errors
    /// A data error where the image holds a value that is not finite; a resource error where memory ran out.
    fn predict(&self, image: &Image) -> Result<Image>;

    /// Voxels along x, y, z of the images that the model was trained on.
    fn grid_shape(&self) -> [usize; 3];

    /// Spacing along x, y, z of the images that the model was trained on.
    fn spacing_mm(&self) -> [f64; 3];

    /// The job's metadata (lineage, how images were resampled) and what the training added.
    fn metadata(&self) -> &BTreeMap<String, String>;
}

/// What a learner runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LearnerInfo {
    /// Version of libtorch.
    pub libtorch: String,
    /// Whether a CUDA device can be used.
    pub cuda: bool,
    /// Names that `device` accepts here.
    pub devices: Vec<String>,
    /// Threads that libtorch would use on the CPU.
    pub threads: usize,
}

/// The network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 3D U-Net with pre-activated units: batch normalisation, ReLU, convolution.
    #[default]
    Unet3d,
}

impl Architecture {
    /// The word in pipelines and in the `models` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unet3d => "unet3d",
        }
    }
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It does not.
    Constant,
    /// Half a cosine, down to 0.
    #[default]
    Cosine,
    /// (1 − share done)^0.9, down to 0.
    Poly,
}

/// How training samples are augmented: a list of transforms with their defaults, `[flip, gamma]`, or the parameters of each.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Augmentation {
    /// These transforms, with their defaults; an empty list trains on the samples as they are.
    Names(Vec<Transform>),
    /// The transforms that are given, with these parameters.
    Parameters(Box<Plan>),
}

impl Default for Augmentation {
    fn default() -> Self {
        use Transform::{AffineSlices, BiasField, Flip, Gamma};
        Self::Names(vec![AffineSlices, BiasField, Flip, Gamma])
    }
}

impl Augmentation {
    /// What is drawn for every sample; none where nothing is.
    pub fn plan(&self) -> Option<Plan> {
        let plan = match self {
            Self::Names(names) => Plan::of(names),
            Self::Parameters(plan) => plan.as_ref().clone(),
        };
        (plan != Plan::default()).then_some(plan)
    }
}

/// Written out, since a derived untagged enum would not say which key or name is wrong.
impl<'de> Deserialize<'de> for Augmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Augmentation;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of transforms or a map of their parameters")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Augmentation, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(names)).map(Augmentation::Names)
            }

            fn visit_map<A: MapAccess<'de>>(self, plan: A) -> Result<Augmentation, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(plan))
                    .map(Augmentation::Parameters)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Parameters of a train step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainParams {
    /// The network.
    pub model: Architecture,
    /// Levels of resolution, the full one included.
    pub levels: usize,
    /// Filters of the finest level; each next one has twice as many.
    pub filters: usize,
    /// Times that every training case is seen.
    pub epochs: usize,
    /// Cases a batch.
    pub batch: usize,
    /// Differently augmented draws of every case in an epoch: more than 1 makes epochs of small training sets longer.
    pub draws: usize,
    /// How training samples are augmented: names of transforms, or the parameters of each.
    pub augment: Augmentation,
    /// Highest learning rate of Adam.
    pub learning_rate: f64,
    /// Share of the weights, times the learning rate, that decays at every step (decoupled, kernels only).
    pub weight_decay: f64,
    /// Epochs over which the learning rate rises to its highest.
    pub warmup_epochs: usize,
    /// How the learning rate falls afterwards.
    pub schedule: Schedule,
    /// Share of Dice in the loss; the rest is cross-entropy.
    pub dice_weight: f64,
    /// Share of voxels, those where it is largest, that count in the cross-entropy: small lesions weigh more the smaller it is.
    pub hardest_share: f64,
    /// Stop when the validation DSC has not risen for this many epochs; 0 never stops early.
    pub patience: usize,
    /// `auto` (CUDA where there is one), `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads of libtorch; 0 uses all cores. Its sums, and so the last digits of the weights, depend on the number.
    pub threads: usize,
    /// CPU threads that prepare batches; 0 uses all cores.
    pub feed_threads: usize,
    /// Batches prepared ahead of the training, at most.
    pub feed_depth: usize,
}

impl Default for TrainParams {
    fn default() -> Self {
        Self {
            model: Architecture::Unet3d,
            levels: 4,
            filters: 16,
            epochs: 20,
            batch: 4,
            draws: 1,
            augment: Augmentation::default(),
            learning_rate: 0.003,
            weight_decay: 0.0001,
            warmup_epochs: 1,
            schedule: Schedule::Cosine,
            dice_weight: 0.5,
            hardest_share: 1.0,
            patience: 0,
            device: "auto".to_owned(),
            threads: 0,
            feed_threads: 0,
            feed_depth: 4,
        }
    }
}

impl TrainParams {
    /// Checks every number against its range.
    ///
    /// # Errors
    /// A configuration error that lists all that is out of range.
    pub fn validate(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut within = |name: &str, value: f64, low: f64, high: f64| {
            if !(low..=high).contains(&value) {
                wrong.push(format!("{name} is {value}, expected {low} to {high}"));
            }
        };
        within("levels", self.levels as f64, 1.0, 8.0);
        within("filters", self.filters as f64, 1.0, 256.0);
        within("epochs", self.epochs as f64, 1.0, 100_000.0);
        within("batch", self.batch as f64, 1.0, 1024.0);
        within("draws", self.draws as f64, 1.0, 10_000.0);
        within("learning_rate", self.learning_rate, 1e-9, 1.0);
        within("weight_decay", self.weight_decay, 0.0, 1.0);
        within("warmup_epochs", self.warmup_epochs as f64, 0.0, self.epochs as f64);
        within("dice_weight", self.dice_weight, 0.0, 1.0);
        within("hardest_share", self.hardest_share, 1e-6, 1.0);
        within("threads", self.threads as f64, 0.0, 1024.0);
        within("feed_threads", self.feed_threads as f64, 0.0, 1024.0);
        within("feed_depth", self.feed_depth as f64, 1.0, 1024.0);
        if !is_device(&self.device) {
            wrong.push(format!("device is `{}`, expected auto, cpu or cuda:N", self.device));
        }
        if let Some(Err(e)) = self.augment.plan().map(|plan| plan.check()) {
            wrong.push(e.reason().to_owned());
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::configuration(format!("train: {}", wrong.join("; ")))
            .hint("correct these parameters of the train step"))
    }
}

/// Whether a word names a device: `auto`, `cpu`, `cuda` or `cuda:N`.
pub fn is_device(word: &str) -> bool {
    matches!(word, "auto" | "cpu" | "cuda")
        || word.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok())
}

/// One training.
#[derive(Debug, Clone)]
pub struct TrainJob {
    /// The step's parameters.
    pub params: TrainParams,
    /// The cases to learn from.
    pub train: Vec<SampleRef>,
    /// The cases that choose the best epoch.
    pub val: Vec<SampleRef>,
    /// Spacing along x, y, z of the samples' grid; ones where it differs between them.
    pub spacing_mm: [f64; 3],
    /// Decides first weights, order and augmentation.
    pub seed: u64,
    /// Where checkpoints and the model go; made if missing.
    pub folder: PathBuf,
    /// Lineage and how images were resampled; stored in the model.
    pub metadata: BTreeMap<String, String>,
    /// Hash of all that decides the result: a checkpoint with another one is not continued.
    pub fingerprint: String,
}

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: usize,
    /// Epochs planned.
    pub epochs: usize,
    /// Mean loss over the training batches.
    pub train_loss: f64,
    /// Mean DSC over the validation cases, on the samples' grid; both masks empty counts as 1.
    pub val_dice: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Time of training and validation together.
    pub seconds: f64,
    /// Training samples a second, validation not counted.
    pub samples_per_s: f64,
    /// Share of the training time in which the network waited for a batch.
    pub feed_wait_share: f64,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedModel {
    /// The model with the best validation DSC, safetensors.
    pub path: PathBuf,
    /// Its epoch, from 1.
    pub best_epoch: usize,
    /// Its mean validation DSC.
    pub best_val_dice: f64,
    /// Every epoch in order.
    pub curve: Vec<EpochReport>,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Hash of the model file.
    pub blake3: String,
    /// Size of the model file.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_serde() -> std::result::Result<(), serde_json::Error> {
        let params: TrainParams = serde_json::from_str("{}")?;
        assert_eq!(params, TrainParams::default());
        assert!(params.validate().is_ok());
        assert!(serde_json::from_str::<TrainParams>(r#"{"epoch": 3}"#).is_err());
        assert!(serde_json::from_str::<TrainParams>(r#"{"model": "resnet"}"#).is_err());
        Ok(())
    }

    #[test]
    fn all_that_is_out_of_range_is_reported_at_once() {
        let params = TrainParams {
            batch: 0,
            dice_weight: f64::NAN,
            device: "gpu".to_owned(),
            ..TrainParams::default()
        };
        let reason = params.validate().map_err(|e| e.reason().to_owned());
        let reason = reason.err().unwrap_or_default();
        for word in ["batch is 0", "dice_weight is NaN", "device is `gpu`"] {
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn augmentation_is_named_or_spelled_out() -> std::result::Result<(), serde_json::Error> {
        let read = |text: &str| serde_json::from_str::<TrainParams>(text).map(|p| p.augment.plan());
        assert_eq!(read(r#"{"augment": []}"#)?, None);
        assert_eq!(read("{}")?, Some(Plan::all()));
        let flip = Some(Plan::of(&[Transform::Flip]));
        assert_eq!(read(r#"{"augment": ["flip"]}"#)?, flip);
        assert_eq!(read(r#"{"augment": {"flip": {}}}"#)?, flip);
        let wrong = read(r#"{"augment": ["flop"]}"#).err().map(|e| e.to_string());
        assert!(wrong.is_some_and(|e| e.contains("flop")));
        assert!(read(r#"{"augment": {"flop": {}}}"#).is_err());
        Ok(())
    }

    #[test]
    fn devices_have_names() {
        assert!(["auto", "cpu", "cuda", "cuda:0", "cuda:15"].iter().all(|d| is_device(d)));
        assert!(["", "CPU", "cuda:", "cuda:-1", "cuda:999", "mps"].iter().all(|d| !is_device(d)));
    }
}
