//! The live feed of training samples: shards → global shuffle → decode → augment → batch → bounded channel.
//!
//! A producer thread walks the epoch's order. It decodes and augments the samples of the next batches on its own rayon
//! pool and sends finished batches through a bounded channel to the consumer, which trains meanwhile. So the consumer
//! never waits as long as the pool keeps up, and at most `2 × depth + 1` batches are in memory. Buffers of batches that
//! the consumer has dropped are filled again.
//!
//! What a batch holds depends on (seed, epoch, case, draw) alone: the order is drawn from (seed, epoch), the augmentation
//! and the patch of a sample from (seed, epoch, case, draw). Batches are therefore the same at 1 or 64 threads, and an epoch
//! that is taken up in the middle goes on with the same batch.
//!
//! The shuffle is over all samples, not over a window of them: shards are memory-mapped, so any sample is as near as the
//! next, and what grows with their number is the order alone, 16 bytes a sample.

mod epoch;
mod patch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use ndarray::Array3;

use crate::error::{Error, Result};
use crate::formats::shards::ShardReader;
use crate::imaging::augment::Plan;
use crate::imaging::random::{keyed, shuffle};
use crate::volume::{Affine, Grid, Image, Mask, Volume};

pub use epoch::{Batch, Epoch, Waits};
pub use patch::Patch;

use epoch::Buffers;

/// Where a training sample lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SampleRef {
    /// The shard file.
    pub shard: PathBuf,
    /// Its row in the shard.
    pub row: usize,
    /// The case that the row must be of.
    pub case_id: String,
}

/// What to feed, and how.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    /// The samples of an epoch.
    pub samples: Vec<SampleRef>,
    /// Samples a batch; the last batch of an epoch may be smaller.
    pub batch: usize,
    /// Times that each sample is in an epoch, each time augmented otherwise.
    pub draws: usize,
    /// Decides order and augmentation.
    pub seed: u64,
    /// How samples are augmented; none feeds them as they are.
    pub augment: Option<Plan>,
    /// What is cut out of the augmented samples; none feeds them whole.
    pub patch: Option<Patch>,
    /// Spacing along x, y, z of the samples' grid.
    pub spacing_mm: [f64; 3],
    /// Whether the order is drawn anew for every epoch; otherwise it is that of `samples`.
    pub shuffle: bool,
    /// Threads that prepare samples; 0 uses all cores.
    pub workers: usize,
    /// Finished batches that may wait for the consumer.
    pub depth: usize,
}

impl FeedOptions {
    /// Samples in their given order, unchanged, once an epoch: for validation.
    pub fn plain(samples: Vec<SampleRef>, batch: usize, workers: usize) -> Self {
        Self {
            samples,
            batch,
            draws: 1,
            seed: 0,
            augment: None,
            patch: None,
            spacing_mm: [1.0; 3],
            shuffle: false,
            workers,
            depth: 2,
        }
    }
}

/// A feed over open shards.
#[derive(Debug)]
pub struct Feed {
    inner: Arc<Inner>,
}

/// What the feed and its producer threads share.
#[derive(Debug)]
struct Inner {
    options: FeedOptions,
    shards: Vec<ShardReader>,
    /// Index into `shards`, in the order of `options.samples`.
    shard_of: Vec<usize>,
    /// Channels, z, y, x of a sample.
    shape: [usize; 4],
    pool: rayon::ThreadPool,
    scratch: SegQueue<(Image, Mask)>,
    wholes: SegQueue<Buffers>,
}

/// A sample's turn in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// Index into the options' samples.
    sample: usize,
    draw: usize,
}

impl Feed {
    /// Opens every shard once and checks that all samples are there and have one shape.
    ///
    /// # Errors
    /// A configuration error for no samples, or a batch, depth or number of draws of 0; a data error where a row is
    /// missing, is of another case, or has another shape; the shard reader's.
    pub fn open(options: FeedOptions) -> Result<Self> {
        let (mut shards, mut opened) = (Vec::new(), HashMap::new());
        let mut shard_of = Vec::with_capacity(options.samples.len());
        let mut shape = None;
        check_counts(&options)?;
        for sample in &options.samples {
            let index = match opened.get(&sample.shard) {
                Some(&index) => index,
                None => {
                    shards.push(ShardReader::open(&sample.shard)?);
                    opened.insert(sample.shard.clone(), shards.len() - 1);
                    shards.len() - 1
                }
            };
            let reader = &shards[index];
            check_row(sample, reader)?;
            let expected = *shape.get_or_insert(reader.shape());
            if reader.shape() != expected {
                return Err(Error::data(format!(
                    "{}: samples of shape {:?}, others have {expected:?} (channels, z, y, x)",
                    sample.shard.display(),
                    reader.shape()
                ))
                .hint("resample to one shape before the shards are written"));
            }
            shard_of.push(index);
        }
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|i| format!("feed-{i}"))
            .build()
            .map_err(|e| Error::resource(format!("the feed's threads cannot start: {e}")))?;
        let shape = shape.unwrap_or_default();
        options.patch.as_ref().map_or(Ok(()), |patch| patch.check(shape))?;
        let (scratch, wholes) = (SegQueue::new(), SegQueue::new());
        let inner = Inner { options, shards, shard_of, shape, pool, scratch, wholes };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Channels, z, y, x of a sample, before a patch is cut out of it.
    pub fn sample_shape(&self) -> [usize; 4] {
        self.inner.shape
    }

    /// Channels, z, y, x of a sample in a batch.
    pub fn shape(&self) -> [usize; 4] {
        self.inner.fed()
    }

    /// Samples of an epoch, every draw counted.
    pub fn samples(&self) -> usize {
        self.inner.options.samples.len() * self.inner.options.draws
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        self.samples().div_ceil(self.inner.options.batch)
    }

    /// The batches of an epoch, in order.
    ///
    /// # Errors
    /// A resource error where no thread can be started.
    pub fn epoch(&self, epoch: usize) -> Result<Epoch> {
        self.epoch_from(epoch, 0)
    }

    /// As [`Feed::epoch`], without the first `first` batches: takes up an epoch in the middle.
    ///
    /// # Errors
    /// A resource error where no thread can be started.
    pub fn epoch_from(&self, epoch: usize, first: usize) -> Result<Epoch> {
        Epoch::start(Arc::clone(&self.inner), epoch, first, self.batches())
    }
}

fn check_counts(options: &FeedOptions) -> Result<()> {
    let FeedOptions { samples, batch, draws, depth, .. } = options;
    if samples.is_empty() {
        return Err(Error::configuration("the feed has no samples")
            .hint("look at the parts of the split, and at `torcula failures`"));
    }
    if *batch == 0 || *draws == 0 || *depth == 0 {
        return Err(Error::configuration(format!(
            "the feed's batch is {batch}, draws {draws}, depth {depth}: each must be at least 1"
        )));
    }
    Ok(())
}

fn check_row(sample: &SampleRef, reader: &ShardReader) -> Result<()> {
    let SampleRef { shard, row, case_id } = sample;
    let found = if *row < reader.len() { Some(reader.case_id(*row)) } else { None };
    match found {
        Some(found) if found == case_id => Ok(()),
        Some(found) => Err(Error::data(format!(
            "{}: row {row} is of {found}, expected {case_id}",
            shard.display()
        ))),
        None => Err(Error::data(format!(
            "{}: no row {row} (of {case_id}), the shard has {}",
            shard.display(),
            reader.len()
        ))),
    }
    .map_err(|e| {
        e.hint("the catalog and the shard disagree; run the step that writes the shards again")
    })
}

impl Inner {
    /// The epoch's order.
    fn order(&self, epoch: usize) -> Vec<Turn> {
        let (samples, draws) = (self.options.samples.len(), self.options.draws);
        let mut order: Vec<Turn> = (0..draws)
            .flat_map(|draw| (0..samples).map(move |sample| Turn { sample, draw }))
            .collect();
        if self.options.shuffle {
            let mut rng = keyed(self.options.seed, &["order", &epoch.to_string()]);
            shuffle(&mut rng, &mut order);
        }
        order
    }

    /// Channels, z, y, x of what is fed.
    fn fed(&self) -> [usize; 4] {
        let [channels, z, y, x] = self.shape;
        let [x, y, z] = self.options.patch.as_ref().map_or([x, y, z], |patch| patch.shape);
        [channels, z, y, x]
    }

    /// Makes one sample in its place in a batch.
    fn fill(&self, epoch: usize, turn: Turn, images: &mut [f32], truths: &mut [u8]) -> Result<()> {
        let Some(patch) = &self.options.patch else {
            return self.augmented(epoch, turn, images, truths);
        };
        let mut whole = self.wholes.pop().unwrap_or_default();
        whole.fit(1, self.shape);
        self.augmented(epoch, turn, &mut whole.images, &mut whole.truths)?;
        let case_id = &self.options.samples[turn.sample].case_id;
        let labels = ["patch", &epoch.to_string(), case_id, &turn.draw.to_string()];
        let mut rng = keyed(self.options.seed, &labels);
        patch.cut(&mut rng, self.shape, (&whole.images, &whole.truths), (images, truths));
        self.wholes.push(whole);
        Ok(())
    }

    /// Decodes and augments one whole sample.
    fn augmented(
        &self,
        epoch: usize,
        turn: Turn,
        images: &mut [f32],
        truths: &mut [u8],
    ) -> Result<()> {
        let sample = &self.options.samples[turn.sample];
        let reader = &self.shards[self.shard_of[turn.sample]];
        reader.image_f32(sample.row, images);
        truths.copy_from_slice(reader.truth(sample.row));
        let Some(plan) = &self.options.augment else { return Ok(()) };
        let labels = ["augment", &epoch.to_string(), &sample.case_id, &turn.draw.to_string()];
        let mut rng = keyed(self.options.seed, &labels);
        let (mut image, mut mask) = self.scratch.pop().unwrap_or_else(|| self.blank());
        let draw = plan.draw(&mut rng, &image.grid());
        mask.voxels_mut().copy_from_slice(truths);
        for (channel, voxels) in images.chunks_exact_mut(truths.len()).enumerate() {
            image.voxels_mut().copy_from_slice(voxels);
            draw.apply(&mut image, (channel == 0).then_some(&mut mask))?;
            voxels.copy_from_slice(image.voxels());
        }
        truths.copy_from_slice(mask.voxels());
        self.scratch.push((image, mask));
        Ok(())
    }

    fn blank(&self) -> (Image, Mask) {
        let [_, z, y, x] = self.shape;
        let affine = Affine::from_spacing_mm(self.options.spacing_mm);
        let grid = Grid { shape: [x, y, z], affine };
        (Volume { data: Array3::zeros(grid.dim()), affine }, Volume::filled(&grid, 0))
    }
}

#[cfg(test)]
mod tests;
