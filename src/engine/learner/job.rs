//! A training as the learner gets it, what it tells on the way, and what it gives back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TrainParams;
use crate::engine::feed::SampleRef;

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
    /// The model whose weights the network starts from; none starts from random weights.
    pub parent: Option<PathBuf>,
    /// Where checkpoints and the model go; made if missing.
    pub folder: PathBuf,
    /// Lineage and how images were resampled; stored in the model.
    pub metadata: BTreeMap<String, String>,
    /// Hash of all that decides the result: a checkpoint with another one is not continued.
    pub fingerprint: String,
    /// Number, from 0, among the trainings that run at once. Decides the CUDA device where `device` is `auto`.
    pub place: usize,
}

/// What a training tells while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainEvent {
    /// Some batches later, a few seconds after the last one.
    Batch(BatchReport),
    /// An epoch ended.
    Epoch(EpochReport),
}

/// Where an epoch is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchReport {
    /// From 1.
    pub epoch: usize,
    /// Epochs planned.
    pub epochs: usize,
    /// Batches of this epoch that are done.
    pub batch: usize,
    /// Batches an epoch.
    pub batches: usize,
    /// Mean loss over the batches of this epoch so far.
    pub train_loss: f64,
    /// Validation DSC after the epoch before; none in the first.
    pub val_dice: Option<f64>,
    /// Training samples a second in this epoch.
    pub samples_per_s: f64,
    /// Share of this epoch's time in which the network waited for a batch.
    pub feed_wait_share: f64,
    /// Time that all epochs left would take at this speed, validation not counted.
    pub left_s: f64,
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
    /// Share of the training time in which the feed, with all its batches ready, waited for the network.
    pub network_wait_share: f64,
}

impl EpochReport {
    /// Who waited for whom, in words.
    pub fn waits(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        format!(
            "the network waited for the feed {}, the feed for the network {}",
            percent(self.feed_wait_share),
            percent(self.network_wait_share)
        )
    }
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
