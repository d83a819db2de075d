//! The mean DSC of the validation samples.

use tch::{Device, Kind, TchError, Tensor};
use torcula::engine::feed::{Batch, Feed};
use torcula::error::{Error, Result};

use super::tensors;
use crate::device::torch_error;
use crate::model::network::Network;

/// Mean DSC over the samples at probability 0.5; both masks empty counts as 1.
pub(super) fn dice(network: &Network, feed: &Feed, stop: &dyn Fn() -> bool) -> Result<f64> {
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
