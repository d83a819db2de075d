//! How a training starts: its feeds, the scale of intensities, the network with random weights or those of a parent.

use std::path::Path;

use tch::Device;
use torcula::engine::feed::{Feed, FeedOptions, Patch, SampleRef};
use torcula::engine::learner::TrainJob;
use torcula::error::{Error, Result};

use super::keys;
use crate::checkpoint::Checkpoint;
use crate::device::torch_error;
use crate::model::network::{Network, NetworkSpec};

/// Samples that the scale of intensities is measured on, at most.
const SCALE_SAMPLES: usize = 64;

/// The feeds of training and validation.
pub(super) fn feeds(job: &TrainJob) -> Result<(Feed, Feed)> {
    let params = &job.params;
    let feed = Feed::open(FeedOptions {
        samples: job.train.clone(),
        batch: params.batch,
        draws: params.draws,
        seed: job.seed,
        augment: params.augment.plan(),
        patch: params.patch.map(|shape| Patch { shape, lesion_share: params.lesion_patches }),
        spacing_mm: job.spacing_mm,
        shuffle: true,
        workers: params.feed_threads,
        depth: params.feed_depth,
    })
    .map_err(|e| e.context("training samples"))?;
    let validation = Feed::open(plain(job, job.val.clone()));
    let validation = validation.map_err(|e| e.context("validation samples"))?;
    if feed.sample_shape() != validation.shape() {
        return Err(Error::data(format!(
            "training samples have shape {:?}, validation samples {:?} (channels, z, y, x)",
            feed.sample_shape(),
            validation.shape()
        ))
        .hint("make both from one step that writes shards"));
    }
    Ok((feed, validation))
}

fn plain(job: &TrainJob, samples: Vec<SampleRef>) -> FeedOptions {
    FeedOptions::plain(samples, job.params.batch.max(2), job.params.feed_threads)
}

/// The network before its first step, with what is frozen taken out of the training.
pub(super) fn network(job: &TrainJob, feed: &Feed, device: Device) -> Result<Network> {
    let scale = intensity_scale(plain(job, spread(&job.train)))?;
    let planned = NetworkSpec::plan(&job.params, feed.shape(), job.spacing_mm, scale)?;
    let mut network = match &job.parent {
        Some(parent) => of_parent(parent, planned, job.seed, device)?,
        None => Network::new(planned, job.seed, device)?,
    };
    for part in &job.params.freeze {
        if network.store.freeze(part).map_err(|e| torch_error(&e))? == 0 {
            let parts: Vec<&str> = network.store.parts().into_iter().collect();
            return Err(Error::configuration(format!(
                "freeze: the network has no part `{part}` that is trained"
            ))
            .hint(format!("its parts are {}", parts.join(", "))));
        }
    }
    if network.store.parameters() == 0 {
        return Err(Error::configuration("freeze leaves nothing to train")
            .hint("take a part out of the list"));
    }
    Ok(network)
}

/// The network of a model file with its weights and its scale of intensities, on the grid of the new samples.
fn of_parent(path: &Path, planned: NetworkSpec, seed: u64, device: Device) -> Result<Network> {
    let file = Checkpoint::read(path)?;
    let parent: NetworkSpec = file.json(keys::NETWORK)?;
    let (theirs, ours) = (parent.network.to_string(), planned.network.to_string());
    if theirs != ours {
        return Err(Error::configuration(format!(
            "fine_tune: {} is a {theirs}, and the step asks for a {ours}",
            path.display()
        ))
        .hint("give the step the model and the shape (levels, filters, norm, ..) of its parent"));
    }
    let network = parent.network.clone().with_rates_of(&planned.network);
    let spec =
        NetworkSpec { network, shape: planned.shape, spacing_mm: planned.spacing_mm, ..parent };
    let network = Network::new(spec, seed, device)?;
    file.load_all(&network.store)?;
    Ok(network)
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
