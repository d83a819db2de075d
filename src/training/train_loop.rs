//! The training: epochs over the feed, validation, checkpoints, and going on where a training was interrupted.
//!
//! In the job's folder lie `last.safetensors`, the whole state after the last epoch (weights, moments of the optimizer, the
//! curve), and `model.safetensors`, the weights of the epoch with the best validation DSC. The model holds no times, so
//! that one training gives one file on one machine, interrupted or not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tch::{Device, Kind, TchError, Tensor};
use torcula::engine::feed::{Batch, Feed, FeedOptions, SampleRef};
use torcula::engine::learner::{EpochReport, TrainJob, TrainedModel};
use torcula::error::{Error, Result};
use torcula::formats::files::{Published, hash_file};

use crate::checkpoint::{self, Checkpoint};
use crate::device::{self, torch_error};
use crate::loss::dice_and_cross_entropy;
use crate::model::network::{Network, NetworkSpec};
use crate::optimizer::{Adam, learning_rate};

/// Metadata keys of model files.
pub mod keys {
    /// The network, JSON of [`NetworkSpec`](crate::model::network::NetworkSpec).
    pub const NETWORK: &str = "torcula.network";
    /// Epoch of the weights, from 1.
    pub const EPOCH: &str = "torcula.epoch";
    /// Mean validation DSC of that epoch.
    pub const VAL_DICE: &str = "torcula.val_dice";
    /// Fingerprint of the training.
    pub const TRAINING: &str = "torcula.training_fingerprint";
    /// Best epoch so far; in `last.safetensors` only, like the following.
    pub const BEST_EPOCH: &str = "torcula.best_epoch";
    /// Its mean validation DSC.
    pub const BEST_VAL_DICE: &str = "torcula.best_val_dice";
    /// Steps that the optimizer has taken.
    pub const STEP: &str = "torcula.optimizer_step";
    /// Every epoch so far, JSON.
    pub const CURVE: &str = "torcula.curve";
}

/// Samples that the scale of intensities is measured on, at most.
const SCALE_SAMPLES: usize = 64;

/// How far a training has come.
#[derive(Debug, Default)]
struct Progress {
    /// Whole epochs done.
    epoch: usize,
    best_epoch: usize,
    best_val_dice: f64,
    curve: Vec<EpochReport>,
}

/// A training under way.
struct Training<'a> {
    job: &'a TrainJob,
    feed: Feed,
    validation: Feed,
    network: Network,
    adam: Adam,
    progress: Progress,
}

/// Trains as [`torcula::engine::learner::Learner::train`] describes.
///
/// # Errors
/// See there.
pub fn train(
    job: &TrainJob,
    progress: &dyn Fn(&EpochReport),
    stop: &dyn Fn() -> bool,
) -> Result<TrainedModel> {
    job.params.validate()?;
    let device = device::open(&job.params.device)?;
    device::set_threads(job.params.threads);
    let mut training = Training::new(job, device)?;
    training.resume()?;
    while !training.is_over() {
        let report = training.epoch(stop)?;
        progress(&report);
    }
    training.finish()
}

impl<'a> Training<'a> {
    fn new(job: &'a TrainJob, device: Device) -> Result<Self> {
        let params = &job.params;
        let feed = Feed::open(FeedOptions {
            samples: job.train.clone(),
            batch: params.batch,
            draws: params.draws,
            seed: job.seed,
            augment: params.augment.plan(),
            spacing_mm: job.spacing_mm,
            shuffle: true,
            workers: params.feed_threads,
            depth: params.feed_depth,
        })
        .map_err(|e| e.context("training samples"))?;
        let plain = |samples| FeedOptions::plain(samples, params.batch.max(2), params.feed_threads);
        let validation =
            Feed::open(plain(job.val.clone())).map_err(|e| e.context("validation samples"))?;
        if feed.shape() != validation.shape() {
            return Err(Error::data(format!(
                "training samples have shape {:?}, validation samples {:?} (channels, z, y, x)",
                feed.shape(),
                validation.shape()
            ))
            .hint("make both from one step that writes shards"));
        }
        let scale = intensity_scale(plain(spread(&job.train)))?;
        let spec = NetworkSpec::plan(params, feed.shape(), job.spacing_mm, scale)?;
        let network = Network::new(spec, job.seed, device)?;
        let adam = Adam::new(&network.store, params.weight_decay).map_err(|e| torch_error(&e))?;
        Ok(Self { job, feed, validation, network, adam, progress: Progress::default() })
    }

    fn is_over(&self) -> bool {
        let Progress { epoch, best_epoch, .. } = self.progress;
        let patience = self.job.params.patience;
        epoch >= self.job.params.epochs || (patience > 0 && epoch - best_epoch >= patience)
    }

    /// One epoch: training, validation, checkpoints.
    fn epoch(&mut self, stop: &dyn Fn() -> bool) -> Result<EpochReport> {
        let began = Instant::now();
        let epoch = self.progress.epoch + 1;
        let params = &self.job.params;
        let per_epoch = self.feed.batches();
        let (steps, warmup) = (params.epochs * per_epoch, params.warmup_epochs * per_epoch);
        let (mut total, mut rate) = (0.0, 0.0);
        let mut batches = self.feed.epoch(epoch)?;
        for batch in batches.by_ref() {
            let batch = batch?;
            if stop() {
                return Err(Error::cancelled());
            }
            let step = (epoch - 1) * per_epoch + batch.index;
            rate = learning_rate(params.schedule, params.learning_rate, step, steps, warmup);
            total += self.step(&batch, rate)? * batch.case_ids.len() as f64;
        }
        let (waits, trained) = (batches.waits(), began.elapsed());
        drop(batches);
        let val_dice = validate(&self.network, &self.validation, stop)?;
        let report = EpochReport {
            epoch,
            epochs: params.epochs,
            train_loss: total / self.feed.samples() as f64,
            val_dice,
            learning_rate: rate,
            seconds: began.elapsed().as_secs_f64(),
            samples_per_s: self.feed.samples() as f64 / seconds(trained),
            feed_wait_share: (seconds(waits.consumer) / seconds(trained)).min(1.0),
        };
        self.keep(report.clone())?;
        Ok(report)
    }

    /// Learns from one batch; its loss.
    fn step(&mut self, batch: &Batch, rate: f64) -> Result<f64> {
        let device = self.network.store.device();
        let attempt = || -> Result<(Tensor, f64), TchError> {
            let (images, truths) = tensors(batch, device)?;
            let logits = self.network.logits(&images, true)?;
            let params = &self.job.params;
            let loss =
                dice_and_cross_entropy(&logits, &truths, params.dice_weight, params.hardest_share)?;
            let value = loss.f_double_value(&[])?;
            Ok((loss, value))
        };
        let (loss, value) = attempt().map_err(|e| torch_error(&e))?;
        if !value.is_finite() {
            return Err(Error::data(format!(
                "epoch {}: the loss of the batch of {} is {value}",
                batch.epoch,
                batch.case_ids.join(", ")
            ))
            .hint("look at these cases' samples, or lower learning_rate"));
        }
        loss.f_backward().map_err(|e| torch_error(&e))?;
        self.adam.step(&self.network.store, rate).map_err(|e| torch_error(&e))?;
        Ok(value)
    }

    /// Writes the model if it is the best so far, then the state.
    fn keep(&mut self, report: EpochReport) -> Result<()> {
        let progress = &mut self.progress;
        progress.epoch = report.epoch;
        if progress.best_epoch == 0 || report.val_dice > progress.best_val_dice {
            (progress.best_epoch, progress.best_val_dice) = (report.epoch, report.val_dice);
            let mut metadata = self.job.metadata.clone();
            metadata.extend(self.identity()?);
            metadata.insert(keys::EPOCH.to_owned(), report.epoch.to_string());
            metadata.insert(keys::VAL_DICE.to_owned(), report.val_dice.to_string());
            let weights = self.network.store.tensors();
            let weights = weights.map(|(name, named)| (name.to_owned(), &named.tensor));
            checkpoint::write(&self.model_path(), weights, &metadata)?;
        }
        self.progress.curve.push(report);
        self.write_state()
    }

    fn identity(&self) -> Result<[(String, String); 2]> {
        let network = serde_json::to_string(&self.network.spec)
            .map_err(|e| Error::bug(format!("the network's description is no JSON: {e}")))?;
        Ok([
            (keys::NETWORK.to_owned(), network),
            (keys::TRAINING.to_owned(), self.job.fingerprint.clone()),
        ])
    }

    fn write_state(&self) -> Result<()> {
        let Progress { epoch, best_epoch, best_val_dice, curve } = &self.progress;
        let curve = serde_json::to_string(curve)
            .map_err(|e| Error::bug(format!("the training curve is no JSON: {e}")))?;
        let mut metadata = self.job.metadata.clone();
        metadata.extend(self.identity()?);
        metadata.extend(
            [
                (keys::EPOCH, epoch.to_string()),
                (keys::BEST_EPOCH, best_epoch.to_string()),
                (keys::BEST_VAL_DICE, best_val_dice.to_string()),
                (keys::STEP, self.adam.step.to_string()),
                (keys::CURVE, curve),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        checkpoint::write(&self.state_path(), self.state(), &metadata)?;
        Ok(())
    }

    /// Every tensor of the state by its name in the file.
    fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let weights = self.network.store.tensors().map(|(name, n)| (name.to_owned(), &n.tensor));
        let moments = self.adam.moments.iter().flat_map(|(name, m)| {
            [(format!("adam.first.{name}"), &m.first), (format!("adam.second.{name}"), &m.second)]
        });
        weights.chain(moments)
    }

    /// Takes up the state of an interrupted training with this fingerprint; any other state is left behind.
    fn resume(&mut self) -> Result<()> {
        let path = self.state_path();
        if !path.exists() {
            return Ok(());
        }
        // A state that cannot be read is no reason to fail: the training begins anew and replaces it.
        let Ok(file) = Checkpoint::read(&path) else { return Ok(()) };
        let spec: Option<NetworkSpec> = file.json(keys::NETWORK).ok();
        let same = file.text(keys::TRAINING).is_ok_and(|f| f == self.job.fingerprint)
            && spec.as_ref() == Some(&self.network.spec)
            && self.model_is(&file);
        if !same {
            return Ok(());
        }
        for (name, tensor) in self.state() {
            file.load(&name, tensor)?;
        }
        self.adam.step = file.json(keys::STEP)?;
        self.progress = Progress {
            epoch: file.json(keys::EPOCH)?,
            best_epoch: file.json(keys::BEST_EPOCH)?,
            best_val_dice: file.json(keys::BEST_VAL_DICE)?,
            curve: file.json(keys::CURVE)?,
        };
        Ok(())
    }

    /// Whether the model file is there and of the training that wrote `state`.
    fn model_is(&self, state: &Checkpoint) -> bool {
        Checkpoint::read(&self.model_path())
            .is_ok_and(|model| model.text(keys::TRAINING).ok() == state.text(keys::TRAINING).ok())
    }

    fn finish(self) -> Result<TrainedModel> {
        let path = self.model_path();
        let Published { bytes, blake3 } = hash_file(&path)?;
        let Progress { best_epoch, best_val_dice, curve, .. } = self.progress;
        let parameters = self.network.store.parameters();
        Ok(TrainedModel { path, best_epoch, best_val_dice, curve, parameters, blake3, bytes })
    }

    fn model_path(&self) -> PathBuf {
        self.job.folder.join("model.safetensors")
    }

    fn state_path(&self) -> PathBuf {
        self.job.folder.join("last.safetensors")
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

/// Images and truths of a batch on a device, both `[batch, channels, z, y, x]` f32; through page-locked memory when that
/// is a GPU.
fn tensors(batch: &Batch, device: Device) -> Result<(Tensor, Tensor), TchError> {
    let [samples, channels, z, y, x] = batch.shape.map(|n| n as i64);
    let place = |tensor: Tensor| match device {
        Device::Cuda(_) => tensor.f_pin_memory(device)?.f_to_device(device),
        _ => Ok(tensor),
    };
    let images =
        place(Tensor::f_from_slice(batch.images())?)?.f_view([samples, channels, z, y, x])?;
    let truths = place(Tensor::f_from_slice(batch.truths())?)?.f_view([samples, 1, z, y, x])?;
    Ok((images, truths.f_to_kind(Kind::Float)?))
}

/// Mean DSC over the samples at probability 0.5; both masks empty counts as 1.
fn validate(network: &Network, feed: &Feed, stop: &dyn Fn() -> bool) -> Result<f64> {
    let mut total = 0.0;
    for batch in feed.epoch(0)? {
        if stop() {
            return Err(Error::cancelled());
        }
        let dices = batch_dices(network, &batch?).map_err(|e| torch_error(&e))?;
        total += dices.iter().sum::<f64>();
    }
    Ok(total / feed.samples() as f64)
}

fn batch_dices(network: &Network, batch: &Batch) -> Result<Vec<f64>, TchError> {
    let _guard = tch::no_grad_guard();
    let (images, truths) = tensors(batch, network.store.device())?;
    let found = network.logits(&images, false)?.f_gt(0.0)?.f_to_kind(Kind::Float)?;
    let count = |t: &Tensor| -> Result<Vec<f64>, TchError> {
        let sums = t.f_sum_dim_intlist([1_i64, 2, 3, 4].as_slice(), false, Kind::Double)?;
        Vec::try_from(&sums.f_to_device(Device::Cpu)?)
    };
    let (overlap, found, truth) = (count(&found.f_mul(&truths)?)?, count(&found)?, count(&truths)?);
    let dice = |((o, f), t): ((f64, f64), f64)| if f + t > 0.0 { 2.0 * o / (f + t) } else { 1.0 };
    Ok(overlap.into_iter().zip(found).zip(truth).map(dice).collect())
}

/// At most [`SCALE_SAMPLES`] samples, evenly spread.
fn spread(samples: &[SampleRef]) -> Vec<SampleRef> {
    let step = samples.len().div_ceil(SCALE_SAMPLES).max(1);
    samples.iter().step_by(step).cloned().collect()
}

/// One over the mean of all intensities above 0.
fn intensity_scale(options: FeedOptions) -> Result<f32> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for batch in Feed::open(options)?.epoch(0)? {
        for value in batch?.images().iter().filter(|v| **v > 0.0) {
            sum += f64::from(*value);
            count += 1;
        }
    }
    let scale = (count as f64 / sum) as f32;
    if count > 0 && scale.is_finite() && scale > 0.0 {
        return Ok(scale);
    }
    Err(Error::data(format!("the training samples have {count} voxels above 0, of sum {sum}"))
        .hint("look at the shards' images; after skull strip and normalise most are about 100"))
}

#[cfg(test)]
mod tests;
