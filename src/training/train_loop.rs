//! The training: epochs over the feed, validation, checkpoints, and going on where a training was interrupted.
//!
//! In the job's folder lie `last.safetensors`, the whole state (weights, memory of the optimizer, how far the epoch under
//! way has come, the curve), and `model.safetensors`, the weights of the epoch with the best validation DSC. The state is
//! written after every epoch and every `checkpoint_s` seconds within one. Batches depend on (seed, epoch, case, draw)
//! alone, so a training that was killed anywhere and goes on from its state gives the same model on the CPU, bit for bit. The
//! model holds no times for the same reason.

mod start;
mod state;
mod validate;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};
use torcula::engine::feed::{Batch, Epoch, Feed};
use torcula::engine::learner::{BatchReport, EpochReport, TrainEvent, TrainJob, TrainedModel};
use torcula::error::{Error, Fault, Result};
use torcula::formats::files::{Published, hash_file};
use torcula::imaging::random::{below, keyed};

use crate::device::{self, torch_error};
use crate::loss::Loss;
use crate::model::network::Network;
use crate::optimizer::{Average, Optimizer, learning_rate};

pub use state::keys;

/// Held while a network draws at random, as dropout does.
static DRAWING: Mutex<()> = Mutex::new(());

/// How often progress is told within an epoch.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How far a training has come.
#[derive(Debug, Default)]
struct Progress {
    /// Whole epochs done.
    epoch: usize,
    best_epoch: usize,
    best_val_dice: f64,
    curve: Vec<EpochReport>,
    partial: Partial,
}

/// How far the epoch under way has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Partial {
    batches: usize,
    samples: usize,
    /// Sum of the losses of all samples.
    loss: f64,
    seconds: f64,
    feed_wait_s: f64,
    network_wait_s: f64,
}

/// A training under way.
struct Training<'a> {
    job: &'a TrainJob,
    feed: Feed,
    validation: Feed,
    network: Network,
    loss: Loss,
    optimizer: Optimizer,
    average: Option<Average>,
    progress: Progress,
}

/// Trains as [`torcula::engine::learner::Learner::train`] describes.
///
/// # Errors
/// See there.
pub fn train(
    job: &TrainJob,
    progress: &dyn Fn(&TrainEvent),
    stop: &dyn Fn() -> bool,
) -> Result<TrainedModel> {
    job.params.validate()?;
    let device = device::open(&device::of_place(&job.params.device, job.place))?;
    device::set_threads(job.params.threads);
    let mut training = Training::new(job, device)?;
    training.resume()?;
    while !training.is_over() {
        let report = training.epoch(progress, stop)?;
        progress(&TrainEvent::Epoch(report));
    }
    training.finish()
}

impl<'a> Training<'a> {
    fn new(job: &'a TrainJob, device: Device) -> Result<Self> {
        let (feed, validation) = start::feeds(job)?;
        let network = start::network(job, &feed, device)?;
        let optimizer = Optimizer::new(&network.store, &job.params).map_err(|e| torch_error(&e))?;
        let average = Average::new(&network.store, job.params.ema).map_err(|e| torch_error(&e))?;
        let (loss, progress) = (Loss::of(&job.params), Progress::default());
        Ok(Self { job, feed, validation, network, loss, optimizer, average, progress })
    }

    fn is_over(&self) -> bool {
        let Progress { epoch, best_epoch, .. } = self.progress;
        let patience = self.job.params.patience;
        let waited = epoch.saturating_sub(best_epoch);
        epoch >= self.job.params.epochs || (patience > 0 && waited >= patience)
    }

    /// One epoch, or what is left of it: training, validation, checkpoints.
    fn epoch(
        &mut self,
        progress: &dyn Fn(&TrainEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<EpochReport> {
        let _span = tracing::info_span!("epoch", epoch = self.progress.epoch + 1).entered();
        let began = Instant::now();
        let before = self.progress.partial;
        let mut batches = self.feed.epoch_from(self.progress.epoch + 1, before.batches)?;
        let (mut saved, mut told) = (began, began);
        while let Some(batch) = batches.next() {
            self.learn(&batch?)?;
            if !self.between_steps() {
                continue;
            }
            self.clock(before, began, &batches);
            let due = saved.elapsed().as_secs_f64() >= self.job.params.checkpoint_s;
            if stop() {
                self.write_state()?;
                return Err(Error::cancelled());
            }
            if due {
                self.write_state()?;
                saved = Instant::now();
            }
            if told.elapsed() >= TELL_EVERY {
                progress(&TrainEvent::Batch(self.batch_report()));
                told = Instant::now();
            }
        }
        drop(batches);
        let validating = Instant::now();
        let val_dice = match self.validate(stop) {
            Err(e) if e.fault() == Fault::Cancelled => {
                self.write_state()?;
                return Err(e);
            }
            other => other?,
        };
        let report = self.epoch_report(val_dice, validating.elapsed());
        self.keep(report.clone())?;
        Ok(report)
    }

    /// Notes the time that this epoch took so far.
    fn clock(&mut self, before: Partial, began: Instant, batches: &Epoch) {
        let waits = batches.waits();
        let partial = &mut self.progress.partial;
        partial.seconds = before.seconds + began.elapsed().as_secs_f64();
        partial.feed_wait_s = before.feed_wait_s + waits.consumer.as_secs_f64();
        partial.network_wait_s = before.network_wait_s + waits.producer.as_secs_f64();
    }

    /// The batches before and after which the optimizer steps, of those that batch number `index` is among.
    fn group(&self, index: usize) -> [usize; 2] {
        let accumulate = self.job.params.accumulate;
        let first = index / accumulate * accumulate;
        [first, (first + accumulate).min(self.feed.batches())]
    }

    /// Whether the last batch completed a step, so that no gradient is pending.
    fn between_steps(&self) -> bool {
        let done = self.progress.partial.batches;
        done == 0 || self.group(done - 1)[1] == done
    }

    /// Learns from one batch: adds its gradient, and steps where it is the last of its group.
    fn learn(&mut self, batch: &Batch) -> Result<()> {
        let [first, last] = self.group(batch.index);
        let (size, samples) = (self.job.params.batch, self.feed.samples());
        let group = (last * size).min(samples) - first * size;
        let here = batch.case_ids.len();
        let weight = here as f64 / group as f64;
        let (loss, value) = self.loss_of(batch).map_err(|e| torch_error(&e))?;
        if !value.is_finite() {
            return Err(Error::data(format!(
                "epoch {}: the loss of the batch of {} is {value}",
                batch.epoch,
                batch.case_ids.join(", ")
            ))
            .hint("look at these cases' samples, or lower learning_rate, or set clip_norm"));
        }
        let backward = || match here == group {
            true => loss.f_backward(),
            false => loss.f_mul_scalar(weight)?.f_backward(),
        };
        backward().map_err(|e| torch_error(&e))?;
        if batch.index + 1 == last {
            self.step().map_err(|e| torch_error(&e))?;
        }
        let partial = &mut self.progress.partial;
        partial.batches = batch.index + 1;
        partial.samples += here;
        partial.loss += value * here as f64;
        Ok(())
    }

    fn loss_of(&self, batch: &Batch) -> Result<(Tensor, f64), TchError> {
        let (images, truths) = tensors(batch, self.network.store.device())?;
        // libtorch has one generator: another training must not draw from it before this one has drawn.
        let _drawing =
            self.network.draws().then(|| DRAWING.lock().unwrap_or_else(PoisonError::into_inner));
        if self.network.draws() {
            // Keyed like the batches, so that a training that was interrupted draws the same.
            let labels = ["network", &batch.epoch.to_string(), &batch.index.to_string()];
            tch::manual_seed(below(&mut keyed(self.job.seed, &labels), 1 << 62) as i64);
        }
        let mut total: Option<Tensor> = None;
        for head in self.network.heads(&images)? {
            let share = self.loss.of_batch(&head.logits, &truths)?.f_mul_scalar(head.weight)?;
            total = Some(match total {
                Some(total) => total.f_add(&share)?,
                None => share,
            });
        }
        let loss = total.ok_or_else(|| TchError::Shape("a network without a head".to_owned()))?;
        let value = loss.f_double_value(&[])?;
        Ok((loss, value))
    }

    fn step(&mut self) -> Result<(), TchError> {
        let rate = self.learning_rate(self.optimizer.step);
        self.optimizer.step(&self.network.store, rate)?;
        match &mut self.average {
            Some(average) => average.update(&self.network.store, self.optimizer.step),
            None => Ok(()),
        }
    }

    /// The learning rate of a step, from 0.
    fn learning_rate(&self, step: i64) -> f64 {
        let params = &self.job.params;
        let per_epoch = self.feed.batches().div_ceil(params.accumulate);
        let (steps, warmup) = (params.epochs * per_epoch, params.warmup_epochs * per_epoch);
        let step = usize::try_from(step).unwrap_or_default();
        learning_rate(params.schedule, params.learning_rate, step, steps, warmup)
    }

    fn batch_report(&self) -> BatchReport {
        let partial = &self.progress.partial;
        let seconds = partial.seconds.max(1e-9);
        let samples_per_s = partial.samples as f64 / seconds;
        let epochs = self.job.params.epochs;
        let left = (epochs - self.progress.epoch) * self.feed.samples() - partial.samples;
        BatchReport {
            epoch: self.progress.epoch + 1,
            epochs,
            batch: partial.batches,
            batches: self.feed.batches(),
            train_loss: partial.loss / partial.samples.max(1) as f64,
            val_dice: self.progress.curve.last().map(|e| e.val_dice),
            samples_per_s,
            feed_wait_share: (partial.feed_wait_s / seconds).min(1.0),
            left_s: left as f64 / samples_per_s.max(1e-9),
        }
    }

    fn epoch_report(&self, val_dice: f64, validating: Duration) -> EpochReport {
        let so_far = self.batch_report();
        let partial = &self.progress.partial;
        EpochReport {
            epoch: so_far.epoch,
            epochs: so_far.epochs,
            train_loss: so_far.train_loss,
            val_dice,
            learning_rate: self.learning_rate(self.optimizer.step - 1),
            seconds: partial.seconds + validating.as_secs_f64(),
            samples_per_s: so_far.samples_per_s,
            feed_wait_share: so_far.feed_wait_share,
            network_wait_share: (partial.network_wait_s / partial.seconds.max(1e-9)).min(1.0),
        }
    }

    /// The validation DSC of the weights that would be kept: their average where there is one.
    fn validate(&mut self, stop: &dyn Fn() -> bool) -> Result<f64> {
        self.swap()?;
        let dice = validate::dice(&self.network, &self.validation, stop);
        self.swap()?;
        dice
    }

    /// Exchanges weights and average, where there is one; a second time undoes it.
    fn swap(&mut self) -> Result<()> {
        let Some(average) = &mut self.average else { return Ok(()) };
        average.swap(&self.network.store).map_err(|e| torch_error(&e))
    }

    fn finish(self) -> Result<TrainedModel> {
        let path = self.model_path();
        let Published { bytes, blake3 } = hash_file(&path)?;
        let Progress { best_epoch, best_val_dice, curve, .. } = self.progress;
        let parameters = self.network.store.parameters();
        Ok(TrainedModel { path, best_epoch, best_val_dice, curve, parameters, blake3, bytes })
    }
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

#[cfg(test)]
mod tests;
