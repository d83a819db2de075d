//! One epoch under way: its producer thread, the channel, and the batches that come out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use rayon::prelude::*;

use super::{Inner, Turn};
use crate::error::{Error, Result};

/// Samples that are trained on together. Dropping it gives its memory back to the feed.
#[derive(Debug)]
pub struct Batch {
    buffers: Buffers,
    home: Option<Sender<Buffers>>,
    /// Samples, channels, z, y, x.
    pub shape: [usize; 5],
    /// The cases, in the order of the samples.
    pub case_ids: Vec<String>,
    /// The epoch.
    pub epoch: usize,
    /// Index of the batch in the epoch.
    pub index: usize,
}

/// Memory for images and truths.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) images: Vec<f32>,
    pub(super) truths: Vec<u8>,
}

impl Buffers {
    /// Makes room for `samples` of shape channels, z, y, x.
    pub(super) fn fit(&mut self, samples: usize, [channels, z, y, x]: [usize; 4]) {
        self.images.resize(samples * channels * z * y * x, 0.0);
        self.truths.resize(samples * z * y * x, 0);
    }
}

impl Batch {
    /// Intensities `[batch, channels, z, y, x]`, x fastest.
    pub fn images(&self) -> &[f32] {
        &self.buffers.images
    }

    /// Truth 0 or 1 `[batch, z, y, x]`, x fastest.
    pub fn truths(&self) -> &[u8] {
        &self.buffers.truths
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // The feed may be gone; then the memory is freed.
            drop(home.send(std::mem::take(&mut self.buffers)));
        }
    }
}

/// Who waited for whom in an epoch so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// The consumer, for a batch.
    pub consumer: Duration,
    /// The producer, for room in the channel.
    pub producer: Duration,
}

/// The batches of one epoch, in order. Dropping it stops the producer.
#[derive(Debug)]
pub struct Epoch {
    receiver: Option<Receiver<Result<Batch>>>,
    producer: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    producer_wait_ns: Arc<AtomicU64>,
    consumer_wait: Duration,
    remaining: usize,
}

impl Epoch {
    pub(super) fn start(
        inner: Arc<Inner>,
        epoch: usize,
        first: usize,
        batches: usize,
    ) -> Result<Self> {
        let (sender, receiver) = bounded(inner.options.depth);
        let stop = Arc::new(AtomicBool::new(false));
        let producer_wait_ns = Arc::new(AtomicU64::new(0));
        let (home, spare) = unbounded();
        let producer = Producer {
            inner,
            epoch,
            sender,
            home,
            spare,
            stop: Arc::clone(&stop),
            wait_ns: Arc::clone(&producer_wait_ns),
        };
        let handle = std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || producer.run(first))
            .map_err(|e| Error::resource(format!("the feed's thread cannot start: {e}")))?;
        Ok(Self {
            receiver: Some(receiver),
            producer: Some(handle),
            stop,
            producer_wait_ns,
            consumer_wait: Duration::ZERO,
            remaining: batches.saturating_sub(first),
        })
    }

    /// Who waited for whom so far.
    pub fn waits(&self) -> Waits {
        let producer = Duration::from_nanos(self.producer_wait_ns.load(Ordering::Relaxed));
        Waits { consumer: self.consumer_wait, producer }
    }

    /// Ends the producer and waits for it; false if it panicked.
    fn join(&mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.receiver = None;
        self.producer.take().is_none_or(|producer| producer.join().is_ok())
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let began = Instant::now();
        let received = self.receiver.as_ref()?.recv();
        self.consumer_wait += began.elapsed();
        self.remaining -= 1;
        match received {
            Ok(Ok(batch)) => Some(Ok(batch)),
            Ok(Err(error)) => {
                self.remaining = 0;
                Some(Err(error))
            }
            Err(_) => {
                self.remaining = 0;
                let how = if self.join() { "without a reason" } else { "with a panic" };
                Some(Err(Error::bug(format!("the training feed ended {how}"))))
            }
        }
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.join();
    }
}

/// Makes the batches of an epoch.
struct Producer {
    inner: Arc<Inner>,
    epoch: usize,
    sender: Sender<Result<Batch>>,
    home: Sender<Buffers>,
    spare: Receiver<Buffers>,
    stop: Arc<AtomicBool>,
    wait_ns: Arc<AtomicU64>,
}

impl Producer {
    fn run(self, first: usize) {
        let order = self.inner.order(self.epoch);
        let batches: Vec<&[Turn]> = order.chunks(self.inner.options.batch).collect();
        // So many batches at once that every worker has a sample.
        let workers = self.inner.pool.current_num_threads();
        let group = workers.div_ceil(self.inner.options.batch).min(self.inner.options.depth);
        let mut index = first;
        while index < batches.len() {
            let end = (index + group).min(batches.len());
            for made in self.make(index, &batches[index..end]) {
                let failed = made.is_err();
                let began = Instant::now();
                let sent = self.sender.send(made);
                self.wait_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
                if failed || sent.is_err() {
                    return;
                }
            }
            index = end;
        }
    }

    /// Fills consecutive batches, all their samples at once.
    fn make(&self, first: usize, batches: &[&[Turn]]) -> Vec<Result<Batch>> {
        let shape = self.inner.fed();
        let [channels, z, y, x] = shape;
        let (image, truth) = (channels * z * y * x, z * y * x);
        let mut buffers: Vec<Buffers> = batches
            .iter()
            .map(|turns| {
                let mut buffers = self.spare.try_recv().unwrap_or_default();
                buffers.fit(turns.len(), shape);
                buffers
            })
            .collect();
        let mut places = Vec::new();
        for (turns, buffers) in batches.iter().zip(&mut buffers) {
            let images = buffers.images.chunks_exact_mut(image);
            let truths = buffers.truths.chunks_exact_mut(truth);
            places.extend(turns.iter().copied().zip(images).zip(truths));
        }
        let filled: Vec<Result<()>> = self.inner.pool.install(|| {
            let fill = |((turn, images), truths)| match self.stop.load(Ordering::Relaxed) {
                true => Err(Error::cancelled()),
                false => self.inner.fill(self.epoch, turn, images, truths),
            };
            places.into_par_iter().map(fill).collect()
        });
        let mut filled = filled.into_iter();
        let batches = batches.iter().zip(buffers).enumerate();
        batches
            .map(|(offset, (turns, buffers))| {
                let samples: Vec<Result<()>> = filled.by_ref().take(turns.len()).collect();
                samples.into_iter().collect::<Result<()>>()?;
                Ok(self.batch(first + offset, turns, buffers))
            })
            .collect()
    }

    fn batch(&self, index: usize, turns: &[Turn], buffers: Buffers) -> Batch {
        let [channels, z, y, x] = self.inner.fed();
        let samples = &self.inner.options.samples;
        Batch {
            buffers,
            home: Some(self.home.clone()),
            shape: [turns.len(), channels, z, y, x],
            case_ids: turns.iter().map(|t| samples[t.sample].case_id.clone()).collect(),
            epoch: self.epoch,
            index,
        }
    }
}
