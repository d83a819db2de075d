//! Adam with decoupled weight decay (Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019, arXiv:1711.05101) and
//! the schedule of its learning rate. Written on tensors, so that its whole state is in the checkpoint.
//!
//! ```text
//! m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
//! w ← w − η λ w − η · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
//! ```

use std::collections::BTreeMap;

use tch::{TchError, Tensor};
use torcula::engine::learner::Schedule;

use crate::model::Store;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Moments of one tensor's gradient.
#[derive(Debug)]
pub struct Moments {
    /// Mean of the gradient.
    pub first: Tensor,
    /// Mean of its square.
    pub second: Tensor,
}

/// The optimizer of all trained tensors of a store.
#[derive(Debug)]
pub struct Adam {
    /// Steps taken.
    pub step: i64,
    /// By the tensor's name.
    pub moments: BTreeMap<String, Moments>,
    weight_decay: f64,
}

impl Adam {
    /// An optimizer that has taken no step.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn new(store: &Store, weight_decay: f64) -> Result<Self, TchError> {
        let mut moments = BTreeMap::new();
        for (name, tensor) in store.trainable() {
            let zeros = || tensor.f_zeros_like()?.f_detach();
            moments.insert(name.to_owned(), Moments { first: zeros()?, second: zeros()? });
        }
        Ok(Self { step: 0, moments, weight_decay })
    }

    /// Moves every tensor against its gradient, by `learning_rate`, and forgets the gradients.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn step(&mut self, store: &Store, learning_rate: f64) -> Result<(), TchError> {
        self.step += 1;
        let correction_1 = 1.0 - BETA_1.powf(self.step as f64);
        let correction_2 = 1.0 - BETA_2.powf(self.step as f64);
        let _guard = tch::no_grad_guard();
        for (name, tensor) in store.trainable() {
            let mut gradient = tensor.f_grad()?;
            let Some(m) = self.moments.get_mut(name).filter(|_| gradient.defined()) else {
                continue;
            };
            let _ = m.first.f_mul_scalar_(BETA_1)?.f_add_(&gradient.f_mul_scalar(1.0 - BETA_1)?)?;
            let square = gradient.f_mul(&gradient)?.f_mul_scalar(1.0 - BETA_2)?;
            let _ = m.second.f_mul_scalar_(BETA_2)?.f_add_(&square)?;
            let spread = m.second.f_div_scalar(correction_2)?.f_sqrt()?.f_add_scalar(EPSILON)?;
            let change = m.first.f_div(&spread)?.f_mul_scalar(learning_rate / correction_1)?;
            let mut weights = tensor.shallow_clone();
            // Only kernels decay: scales, shifts and biases are vectors.
            if self.weight_decay > 0.0 && weights.dim() > 1 {
                let _ = weights.f_mul_scalar_(1.0 - learning_rate * self.weight_decay)?;
            }
            let _ = weights.f_sub_(&change)?;
            let _ = gradient.f_zero_()?;
        }
        Ok(())
    }
}

/// The learning rate of `step` (from 0) of `steps`: rises linearly over `warmup` steps to `peak`, then follows the schedule.
pub fn learning_rate(
    schedule: Schedule,
    peak: f64,
    step: usize,
    steps: usize,
    warmup: usize,
) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / (warmup + 1) as f64;
    }
    let share = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    match schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => peak * 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos()),
        Schedule::Poly => peak * (1.0 - share.min(1.0)).powf(0.9),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    // import math
    // w, m, v = 1.0, 0.0, 0.0
    // for t, g in enumerate([0.5, -0.25, 2.0], 1):
    //     m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    //     w = w * (1 - 0.1 * 0.01) - 0.1 * (m / (1 - 0.9 ** t)) / (math.sqrt(v / (1 - 0.999 ** t)) + 1e-8)
    //     print(w)
    #[test]
    fn steps_are_those_of_the_formula() -> Result<(), TchError> {
        let mut store = Store::new(0, Device::Cpu);
        let weight = store.weight("w", &[1, 1], 1)?;
        let _ = tch::no_grad(|| weight.shallow_clone().f_fill_(1.0))?;
        let mut adam = Adam::new(&store, 0.01)?;
        for (gradient, expected) in
            [(0.5, 0.899_000_002), (-0.25, 0.871_467_299), (2.0, 0.803_531_067)]
        {
            weight.f_mul_scalar(gradient)?.f_sum(None)?.f_backward()?;
            adam.step(&store, 0.1)?;
            let found = weight.f_double_value(&[0, 0])?;
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
        Ok(())
    }

    #[test]
    fn vectors_do_not_decay_and_statistics_do_not_move() -> Result<(), TchError> {
        let mut store = Store::new(0, Device::Cpu);
        let shift = store.constant("shift", 1, 1.0)?;
        let mean = store.statistic("mean", 1, 0.5)?;
        let mut adam = Adam::new(&store, 0.5)?;
        shift.f_mul_scalar(0.0)?.f_sum(None)?.f_backward()?;
        adam.step(&store, 0.1)?;
        assert!((shift.f_double_value(&[0])? - 1.0).abs() < 1e-12);
        assert!((mean.f_double_value(&[0])? - 0.5).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let rate = |schedule, step| learning_rate(schedule, 1.0, step, 104, 4);
        for (step, expected) in [(0, 0.2), (3, 0.8), (4, 1.0), (54, 0.5), (104, 0.0)] {
            assert!((rate(Schedule::Cosine, step) - expected).abs() < 1e-12, "{step}");
        }
        assert!((rate(Schedule::Poly, 54) - 0.5_f64.powf(0.9)).abs() < 1e-12);
        assert!((rate(Schedule::Constant, 104) - 1.0).abs() < 1e-12);
    }
}
