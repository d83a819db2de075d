//! What the engine asks of whoever trains networks: the crate `torcula-training`, the only one that links libtorch.
//!
//! A train step hands a [`TrainJob`] to a [`Learner`] and gets a [`TrainedModel`]; an infer step asks it for a
//! [`Predictor`]. The lean binary has no learner, and execs the training binary for a pipeline that needs one.

mod architecture;
mod job;
mod methods;
mod prediction;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::volume::Image;

pub use architecture::{Architecture, Merging, Normalization, SwinParams};
pub use job::{BatchReport, EpochReport, TrainEvent, TrainJob, TrainedModel};
pub use methods::{Augmentation, Optimizer, Schedule};
pub use prediction::{Activation, AxisOrder, PredictOptions, VoxelAxis};

/// Trains networks and runs them.
pub trait Learner: Send + Sync {
    /// Trains on the job's samples until its epochs are over or its patience ends. Continues from the job's folder, in the
    /// middle of an epoch too, where a training with the same fingerprint was interrupted. `progress` hears of every epoch
    /// and, every few seconds, of the steps between; `stop` is asked after every step.
    ///
    /// # Errors
    /// A cancelled error when `stop` said so (all steps so far are kept); a data error that names the cases of the
    /// batch whose loss is not finite; a configuration error where the job's parent is another network; a resource error
    /// where the device ran out of memory.
    fn train(
        &self,
        job: TrainJob,
        progress: &dyn Fn(&TrainEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<TrainedModel>;

    /// How many trainings with these parameters can run at once on `cores`, each ending with the weights that it would end
    /// with alone: one for each CUDA device, or for each `threads` of the cores. At least 1.
    fn places(&self, params: &TrainParams, cores: usize) -> usize;

    /// Loads a model that [`Learner::train`] wrote, or a Swin UNETR checkpoint with MONAI's names.
    ///
    /// # Errors
    /// An error where the file is no such model, the device is not there, or the options do not fit the model.
    fn predictor(&self, model: &Path, options: &PredictOptions) -> Result<Arc<dyn Predictor>>;

    /// What this learner runs on, for `doctor`.
    fn describe(&self) -> LearnerInfo;
}

/// A trained network, ready to run.
pub trait Predictor: Send + Sync {
    /// The probability (0 to 1) of the lesion in every voxel. `channels` are images on one grid with the spacing of
    /// [`Predictor::spacing_mm`], as many as the network was trained on. Images larger than a window are done in
    /// overlapping windows.
    ///
    /// # Errors
    /// A data error where there are too few or too many images, they lie on different grids, or one holds a value that is
    /// not finite; a resource error where memory ran out.
    fn predict(&self, channels: &[&Image]) -> Result<Image>;

    /// Images that make one input.
    fn channels(&self) -> usize;

    /// Voxels along x, y, z of the images that the model was trained on, or of a window.
    fn grid_shape(&self) -> [usize; 3];

    /// Spacing along x, y, z of the images that the model was trained on; none where it is not known.
    fn spacing_mm(&self) -> Option<[f64; 3]>;

    /// Upper bound of the memory in bytes that an image of so many voxels needs in the network.
    fn working_bytes(&self, voxels: u64) -> u64;

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

/// Parameters of a train step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainParams {
    /// The network.
    pub model: Architecture,
    /// Levels of resolution, the full one included.
    pub levels: usize,
    /// Filters of the finest level; each next one has twice as many, up to 320.
    pub filters: usize,
    /// Size of the kernels of every level along x, y, z, finest level first. By default they follow from the spacing: thick
    /// slices are not convolved until the pixels have grown as wide.
    pub kernels: Option<Vec<[usize; 3]>>,
    /// Pooling between every level and the next along x, y, z. By default it follows from the spacing: thick slices are
    /// not pooled until the pixels have grown as wide.
    pub strides: Option<Vec<[usize; 3]>>,
    /// Normalisation before every convolution.
    pub norm: Normalization,
    /// Share of channels that are dropped before a convolution while training.
    pub dropout: f64,
    /// Whether coarser levels are trained to find the lesions too, each with half the weight of the finer one.
    pub deep_supervision: bool,
    /// The shape of the network where `model` is `swin_unetr`; the parameters from `levels` to `deep_supervision` are
    /// `unet3d`'s.
    pub swin_unetr: SwinParams,
    /// Times that every training case is seen.
    pub epochs: usize,
    /// Cases a batch.
    pub batch: usize,
    /// Differently augmented draws of every case in an epoch: more than 1 makes epochs of small training sets longer.
    pub draws: usize,
    /// How training samples are augmented: names of transforms, or the parameters of each.
    pub augment: Augmentation,
    /// Voxels along x, y, z of the patches that are cut out of the samples to train on; none trains on whole samples.
    pub patch: Option<[usize; 3]>,
    /// Share of patches that are centred on a voxel of the lesion, where the sample has one; the others lie anywhere.
    pub lesion_patches: f64,
    /// How the weights follow their gradient.
    pub optimizer: Optimizer,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the weights, times the learning rate, that decays at every step (kernels only).
    pub weight_decay: f64,
    /// Momentum of `sgd`.
    pub momentum: f64,
    /// Largest norm of all gradients together; longer ones are shortened to it. 0 leaves them as they are.
    pub clip_norm: f64,
    /// Batches whose gradients are added up for one step: a larger batch in the memory of a smaller.
    pub accumulate: usize,
    /// Decay of a moving average of the weights, such as 0.99, which is then validated and kept in their place; 0 keeps the
    /// weights themselves.
    pub ema: f64,
    /// Epochs over which the learning rate rises to its highest.
    pub warmup_epochs: usize,
    /// How the learning rate falls afterwards.
    pub schedule: Schedule,
    /// Share of the overlap (Dice or Tversky) in the loss; the rest is cross-entropy or focal loss.
    pub dice_weight: f64,
    /// Weight of false positives in the overlap (Tversky); 0.5 here and for false negatives is Dice.
    pub tversky_alpha: f64,
    /// Weight of false negatives in the overlap (Tversky).
    pub tversky_beta: f64,
    /// Exponent of the focal loss, such as 2: the higher, the less count voxels that are right already. 0 is cross-entropy.
    pub focal_gamma: f64,
    /// Share of voxels, those where it is largest, that count in the cross-entropy: small lesions weigh more the smaller it is.
    pub hardest_share: f64,
    /// Stop when the validation DSC has not risen for this many epochs; 0 never stops early.
    pub patience: usize,
    /// Parts of the network that keep the weights they start with, such as `stem`, `down0`; for fine-tuning. Running
    /// statistics of normalisations follow the new images all the same.
    pub freeze: Vec<String>,
    /// Seconds of training after which the state is saved within an epoch, so that a training that is killed loses no
    /// more; it is saved after every epoch in any case.
    pub checkpoint_s: f64,
    /// `auto` (CUDA where there is one), `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads of libtorch; 0 uses all cores. Its sums, and so the last digits of the weights, depend on the number.
    /// Trainings that do not need each other run side by side when they fit the cores: two with 4 threads on 8 cores.
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
            kernels: None,
            strides: None,
            norm: Normalization::Batch,
            dropout: 0.0,
            deep_supervision: false,
            swin_unetr: SwinParams::default(),
            epochs: 20,
            batch: 4,
            draws: 1,
            augment: Augmentation::default(),
            patch: None,
            lesion_patches: 0.5,
            optimizer: Optimizer::AdamW,
            learning_rate: 0.003,
            weight_decay: 0.0001,
            momentum: 0.9,
            clip_norm: 0.0,
            accumulate: 1,
            ema: 0.0,
            warmup_epochs: 1,
            schedule: Schedule::Cosine,
            dice_weight: 0.5,
            tversky_alpha: 0.5,
            tversky_beta: 0.5,
            focal_gamma: 0.0,
            hardest_share: 1.0,
            patience: 0,
            freeze: Vec::new(),
            checkpoint_s: 60.0,
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
        for voxels in self.patch.into_iter().flatten() {
            within("patch", voxels as f64, 1.0, 4096.0);
        }
        within("lesion_patches", self.lesion_patches, 0.0, 1.0);
        within("learning_rate", self.learning_rate, 1e-9, 1.0);
        within("weight_decay", self.weight_decay, 0.0, 1.0);
        within("momentum", self.momentum, 0.0, 0.9999);
        within("clip_norm", self.clip_norm, 0.0, 1e6);
        within("accumulate", self.accumulate as f64, 1.0, 1024.0);
        within("ema", self.ema, 0.0, 0.99999);
        within("warmup_epochs", self.warmup_epochs as f64, 0.0, self.epochs as f64);
        within("dice_weight", self.dice_weight, 0.0, 1.0);
        within("tversky_alpha", self.tversky_alpha, 0.0, 10.0);
        within("tversky_beta", self.tversky_beta, 0.0, 10.0);
        within("focal_gamma", self.focal_gamma, 0.0, 10.0);
        within("hardest_share", self.hardest_share, 1e-6, 1.0);
        within("checkpoint_s", self.checkpoint_s, 0.0, 86_400.0);
        within("threads", self.threads as f64, 0.0, 1024.0);
        within("feed_threads", self.feed_threads as f64, 0.0, 1024.0);
        within("feed_depth", self.feed_depth as f64, 1.0, 1024.0);
        if !is_device(&self.device) {
            wrong.push(format!("device is `{}`, expected auto, cpu or cuda:N", self.device));
        }
        if let Some(Err(e)) = self.augment.plan().map(|plan| plan.check()) {
            wrong.push(e.reason().to_owned());
        }
        wrong.extend(architecture::problems(self));
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Error::configuration(format!("train: {}", wrong.join("; ")))
            .hint("correct these parameters of the train step"))
    }
}

impl TrainParams {
    /// The keys that say what the network is; a network that is trained further keeps its own.
    pub const NETWORK: &[&str] = &[
        "model",
        "levels",
        "filters",
        "kernels",
        "strides",
        "norm",
        "deep_supervision",
        "swin_unetr",
    ];

    /// The parameters that decide which weights come out: all but those of comfort and speed.
    pub fn identity(&self) -> Value {
        let mut all = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(map) = &mut all {
            for key in ["checkpoint_s", "feed_threads", "feed_depth"] {
                map.remove(key);
            }
        }
        all
    }
}

/// Whether a word names a device: `auto`, `cpu`, `cuda` or `cuda:N`.
pub fn is_device(word: &str) -> bool {
    matches!(word, "auto" | "cpu" | "cuda")
        || word.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::augment::{Plan, Transform};

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
    fn only_what_decides_the_weights_is_their_identity() {
        let plain = TrainParams::default();
        let comfort =
            TrainParams { checkpoint_s: 1.0, feed_threads: 1, feed_depth: 9, ..plain.clone() };
        assert_eq!(comfort.identity(), plain.identity());
        let other = TrainParams { threads: 1, ..plain.clone() };
        assert_ne!(other.identity(), plain.identity());
        let keys = plain.identity();
        assert!(TrainParams::NETWORK.iter().all(|key| keys.get(key).is_some()));
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
