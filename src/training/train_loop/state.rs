//! The two files of a training: its state, to go on from, and the model.

use std::path::PathBuf;

use tch::Tensor;
use torcula::engine::learner::EpochReport;
use torcula::error::{Error, Result};

use super::{Partial, Progress, Training};
use crate::checkpoint::{self, Checkpoint};
use crate::model::network::NetworkSpec;
use crate::optimizer::Average;

/// Metadata keys of model files.
pub mod keys {
    /// The network, JSON of [`NetworkSpec`](crate::model::network::NetworkSpec).
    pub const NETWORK: &str = "torcula.network";
    /// Epoch of the weights, from 1; in the state, whole epochs done.
    pub const EPOCH: &str = "torcula.epoch";
    /// Mean validation DSC of that epoch.
    pub const VAL_DICE: &str = "torcula.val_dice";
    /// Fingerprint of the training.
    pub const TRAINING: &str = "torcula.training_fingerprint";
    /// Steps that the optimizer has taken; in the state only, like the following.
    pub const STEP: &str = "torcula.optimizer_step";
    /// How far the epoch under way has come, JSON.
    pub const PARTIAL: &str = "torcula.partial_epoch";
    /// Every epoch so far, JSON.
    pub const CURVE: &str = "torcula.curve";
}

impl Training<'_> {
    /// Ends an epoch: writes the model if it is the best so far, then the state.
    pub(super) fn keep(&mut self, report: EpochReport) -> Result<()> {
        self.progress.epoch = report.epoch;
        self.progress.partial = Partial::default();
        if self.progress.best_epoch == 0 || report.val_dice > self.progress.best_val_dice {
            self.swap()?;
            let written = self.write_model(&report);
            self.swap()?;
            written?;
            self.progress.best_epoch = report.epoch;
            self.progress.best_val_dice = report.val_dice;
        }
        self.progress.curve.push(report);
        self.write_state()
    }

    fn write_model(&self, report: &EpochReport) -> Result<()> {
        let mut metadata = self.job.metadata.clone();
        metadata.extend(self.identity()?);
        metadata.insert(keys::EPOCH.to_owned(), report.epoch.to_string());
        metadata.insert(keys::VAL_DICE.to_owned(), report.val_dice.to_string());
        let weights = self.network.store.tensors();
        let weights = weights.map(|(name, named)| (name.to_owned(), &named.tensor));
        checkpoint::write(&self.model_path(), weights, &metadata)?;
        Ok(())
    }

    fn identity(&self) -> Result<[(String, String); 2]> {
        Ok([
            (keys::NETWORK.to_owned(), json(&self.network.spec)?),
            (keys::TRAINING.to_owned(), self.job.fingerprint.clone()),
        ])
    }

    /// Writes all that the training needs to go on from here. No gradient may be pending.
    pub(super) fn write_state(&self) -> Result<()> {
        let Progress { epoch, curve, partial, .. } = &self.progress;
        let mut metadata = self.job.metadata.clone();
        metadata.extend(self.identity()?);
        metadata.extend(
            [
                (keys::EPOCH, epoch.to_string()),
                (keys::STEP, self.optimizer.step.to_string()),
                (keys::PARTIAL, json(partial)?),
                (keys::CURVE, json(curve)?),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        checkpoint::write(&self.state_path(), self.state(), &metadata)?;
        tracing::debug!(batches = partial.batches, "the training's state is written");
        Ok(())
    }

    /// Every tensor of the state by its name in the file.
    fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let weights = self.network.store.tensors().map(|(name, n)| (name.to_owned(), &n.tensor));
        let average = self.average.iter().flat_map(Average::state);
        weights.chain(self.optimizer.state()).chain(average)
    }

    /// Takes up the state of an interrupted training with this fingerprint; any other state is left behind.
    pub(super) fn resume(&mut self) -> Result<()> {
        let path = self.state_path();
        if !path.exists() {
            return Ok(());
        }
        // A state that cannot be read is no reason to fail: the training begins anew and replaces it.
        let Ok(file) = Checkpoint::read(&path) else { return Ok(()) };
        let spec: Option<NetworkSpec> = file.json(keys::NETWORK).ok();
        let same = file.text(keys::TRAINING).is_ok_and(|f| f == self.job.fingerprint)
            && spec.as_ref() == Some(&self.network.spec);
        let curve: Vec<EpochReport> = file.json(keys::CURVE).unwrap_or_default();
        // Before the first epoch ends there is no model; afterwards the best epoch is in no other file.
        let best = self.best_so_far();
        if !same || (best.is_none() && !curve.is_empty()) {
            return Ok(());
        }
        for (name, tensor) in self.state() {
            file.load(&name, tensor)?;
        }
        self.optimizer.step = file.json(keys::STEP)?;
        let (best_epoch, best_val_dice) = best.unwrap_or_default();
        let (epoch, partial) = (file.json(keys::EPOCH)?, file.json(keys::PARTIAL)?);
        tracing::info!(epochs_done = epoch, "the training goes on where it was interrupted");
        self.progress = Progress { epoch, best_epoch, best_val_dice, curve, partial };
        Ok(())
    }

    /// Epoch and validation DSC of the model file, if it is there and of this training.
    fn best_so_far(&self) -> Option<(usize, f64)> {
        let model = Checkpoint::read(&self.model_path()).ok()?;
        let same = model.text(keys::TRAINING).is_ok_and(|f| f == self.job.fingerprint);
        Some((model.json(keys::EPOCH).ok()?, model.json(keys::VAL_DICE).ok()?)).filter(|_| same)
    }

    pub(super) fn model_path(&self) -> PathBuf {
        self.job.folder.join("model.safetensors")
    }

    fn state_path(&self) -> PathBuf {
        self.job.folder.join("last.safetensors")
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::bug(format!("the state of a training is no JSON: {e}")))
}
