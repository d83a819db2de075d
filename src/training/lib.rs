//! The training side of Torcula: networks, their training and their predictions, on libtorch.
//!
//! [`TorchLearner`] is what the engine asks for; all else serves it. This is the only crate that links libtorch.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | networks and their named tensors |
//! | [`loss`], [`optimizer`] | Dice, Tversky, cross-entropy, focal; AdamW, Adam, SGD, the learning rate, the average |
//! | [`train_loop`] | epochs, validation, checkpoints, resuming |
//! | [`checkpoint`] | safetensors in and out |
//! | [`predict`] | whole volumes and windows |
//! | [`device`] | CPU and CUDA, threads, memory, errors |

pub mod checkpoint;
pub mod device;
pub mod loss;
pub mod model;
pub mod optimizer;
pub mod predict;
pub mod train_loop;

use std::path::Path;
use std::sync::Arc;

use torcula::engine::learner::{
    Learner, LearnerInfo, PredictOptions, Predictor, TrainEvent, TrainJob, TrainParams,
    TrainedModel,
};
use torcula::error::Result;

/// Trains with libtorch.
#[derive(Debug, Clone, Copy, Default)]
pub struct TorchLearner;

impl TorchLearner {
    /// A learner; nothing is loaded before it is used.
    pub fn new() -> Self {
        Self
    }
}

impl Learner for TorchLearner {
    fn train(
        &self,
        job: TrainJob,
        progress: &dyn Fn(&TrainEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<TrainedModel> {
        train_loop::train(&job, progress, stop)
    }

    fn places(&self, params: &TrainParams, cores: usize) -> usize {
        device::places(&params.device, params.threads, cores)
    }

    fn predictor(&self, model: &Path, options: &PredictOptions) -> Result<Arc<dyn Predictor>> {
        Ok(Arc::new(predict::TorchPredictor::open(model, options)?))
    }

    fn describe(&self) -> LearnerInfo {
        device::describe()
    }
}
