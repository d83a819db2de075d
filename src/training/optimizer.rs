//! How the weights follow their gradient, with the whole state in named tensors, so that a checkpoint holds it.
//!
//! ```text
//! AdamW  w ← w − η λ w                              (Loshchilov & Hutter 2019, arXiv:1711.05101)
//! Adam   g ← g + λ w                                (Kingma & Ba 2015, arXiv:1412.6980)
//!        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
//!        w ← w − η · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
//! SGD    g ← g + λ w        m ← μ m + g        w ← w − η (g + μ m)        (Sutskever et al. 2013, Nesterov momentum)
//! ```
//!
//! with β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸ as in PyTorch. Only kernels decay: scales, shifts and biases are vectors.

mod average;
mod schedule;

pub use average::Average;
pub use schedule::learning_rate;

use std::collections::BTreeMap;

use tch::{TchError, Tensor};
use torcula::engine::learner::{Optimizer as Kind, TrainParams};

use crate::model::Store;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// What is remembered of one tensor's gradients.
#[derive(Debug)]
struct Moments {
    /// Their mean, or in SGD their momentum.
    first: Tensor,
    /// The mean of their squares; none in SGD.
    second: Option<Tensor>,
}

/// The optimizer of all trained tensors of a store.
#[derive(Debug)]
pub struct Optimizer {
    /// Steps taken.
    pub step: i64,
    kind: Kind,
    weight_decay: f64,
    momentum: f64,
    clip_norm: f64,
    moments: BTreeMap<String, Moments>,
}

impl Optimizer {
    /// An optimizer that has taken no step.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn new(store: &Store, params: &TrainParams) -> Result<Self, TchError> {
        let mut moments = BTreeMap::new();
        for (name, tensor) in store.trainable() {
            let zeros = || tensor.f_zeros_like()?.f_detach();
            let second = if params.optimizer == Kind::Sgd { None } else { Some(zeros()?) };
            moments.insert(name.to_owned(), Moments { first: zeros()?, second });
        }
        Ok(Self {
            step: 0,
            kind: params.optimizer,
            weight_decay: params.weight_decay,
            momentum: params.momentum,
            clip_norm: params.clip_norm,
            moments,
        })
    }

    /// Every tensor of the state by its name in a checkpoint.
    pub fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.moments.iter().flat_map(|(name, moments)| {
            let first = (format!("optimizer.first.{name}"), &moments.first);
            let second = moments.second.as_ref();
            let second = second.map(|m| (format!("optimizer.second.{name}"), m));
            std::iter::once(first).chain(second)
        })
    }

    /// Moves every tensor against its gradient, by `learning_rate`, and forgets the gradients.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn step(&mut self, store: &Store, learning_rate: f64) -> Result<(), TchError> {
        self.step += 1;
        let _guard = tch::no_grad_guard();
        let shrink = self.shrink(store)?;
        for (name, tensor) in store.trainable() {
            let mut gradient = tensor.f_grad()?;
            let Some(m) = self.moments.get_mut(name).filter(|_| gradient.defined()) else {
                continue;
            };
            if let Some(factor) = shrink {
                let _ = gradient.f_mul_scalar_(factor)?;
            }
            let mut weights = tensor.shallow_clone();
            let decay = if weights.dim() > 1 { self.weight_decay } else { 0.0 };
            if decay > 0.0 {
                if self.kind == Kind::AdamW {
                    let _ = weights.f_mul_scalar_(1.0 - learning_rate * decay)?;
                } else {
                    let _ = gradient.f_add_(&weights.f_mul_scalar(decay)?)?;
                }
            }
            let change = m.follow(&gradient, self.step, self.momentum)?;
            let _ = weights.f_sub_(&change.f_mul_scalar(learning_rate)?)?;
            let _ = gradient.f_zero_()?;
        }
        Ok(())
    }

    /// What gradients are multiplied by so that their common norm is at most `clip_norm`; none where it is.
    fn shrink(&self, store: &Store) -> Result<Option<f64>, TchError> {
        if self.clip_norm <= 0.0 {
            return Ok(None);
        }
        let mut squares = 0.0;
        for (_, tensor) in store.trainable() {
            let gradient = tensor.f_grad()?;
            if gradient.defined() {
                squares += gradient.f_norm()?.f_double_value(&[])?.powi(2);
            }
        }
        let factor = self.clip_norm / (squares.sqrt() + 1e-6);
        Ok((factor < 1.0).then_some(factor))
    }
}

impl Moments {
    /// Takes in a gradient; the direction of the step, to be multiplied by the learning rate.
    fn follow(&mut self, gradient: &Tensor, step: i64, momentum: f64) -> Result<Tensor, TchError> {
        let Some(second) = &mut self.second else {
            let _ = self.first.f_mul_scalar_(momentum)?.f_add_(gradient)?;
            return self.first.f_mul_scalar(momentum)?.f_add(gradient);
        };
        let _ = self.first.f_mul_scalar_(BETA_1)?.f_add_(&gradient.f_mul_scalar(1.0 - BETA_1)?)?;
        let square = gradient.f_mul(gradient)?.f_mul_scalar(1.0 - BETA_2)?;
        let _ = second.f_mul_scalar_(BETA_2)?.f_add_(&square)?;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let spread = second.f_div_scalar(correction(BETA_2))?.f_sqrt()?.f_add_scalar(EPSILON)?;
        self.first.f_div(&spread)?.f_div_scalar(correction(BETA_1))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// A weight of 1 that follows the gradients 0.5, −0.25, 2 (clipped where `clip_norm` says so).
    fn followed(params: &TrainParams) -> Result<[f64; 3], TchError> {
        let mut store = Store::new(0, Device::Cpu);
        let weight = store.weight("w", &[1, 1], 1)?;
        let _ = tch::no_grad(|| weight.shallow_clone().f_fill_(1.0))?;
        let mut optimizer = Optimizer::new(&store, params)?;
        let mut found = [0.0; 3];
        for (gradient, found) in [0.5, -0.25, 2.0].into_iter().zip(&mut found) {
            weight.f_mul_scalar(gradient)?.f_sum(None)?.f_backward()?;
            optimizer.step(&store, 0.1)?;
            *found = weight.f_double_value(&[0, 0])?;
        }
        Ok(found)
    }

    // `python benches/peers/training.py` prints these: torch.optim.AdamW, Adam and SGD(nesterov=True), and AdamW after
    // clip_grad_norm_.
    #[test]
    fn steps_are_those_of_pytorch() -> Result<(), TchError> {
        let base = TrainParams { weight_decay: 0.01, ..TrainParams::default() };
        let with = |optimizer, clip_norm| TrainParams { optimizer, clip_norm, ..base.clone() };
        for (name, params, expected) in [
            ("AdamW", with(Kind::AdamW, 0.0), ADAMW),
            ("Adam", with(Kind::Adam, 0.0), ADAM),
            ("SGD", with(Kind::Sgd, 0.0), SGD),
            ("clipped", with(Kind::Sgd, 0.4), CLIPPED),
        ] {
            let found = followed(&params)?;
            let near = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6);
            assert!(near, "{name}: {found:?}, expected {expected:?}");
        }
        Ok(())
    }

    const ADAMW: [f64; 3] = [0.899_000_049, 0.871_467_352, 0.803_531_110];
    const ADAM: [f64; 3] = [0.900_000_036, 0.871_229_410, 0.803_715_289];
    const SGD: [f64; 3] = [0.903_100_014, 0.907_574_117, 0.508_189_261];
    const CLIPPED: [f64; 3] = [0.922_100_127, 0.934_638_202, 0.846_476_555];

    #[test]
    fn vectors_do_not_decay_and_statistics_do_not_move() -> Result<(), TchError> {
        for optimizer in [Kind::AdamW, Kind::Adam, Kind::Sgd] {
            let params = TrainParams { weight_decay: 0.5, optimizer, ..TrainParams::default() };
            let mut store = Store::new(0, Device::Cpu);
            let shift = store.constant("shift", 1, 1.0)?;
            let mean = store.statistic("mean", 1, 0.5)?;
            let mut optimizer = Optimizer::new(&store, &params)?;
            shift.f_mul_scalar(0.0)?.f_sum(None)?.f_backward()?;
            optimizer.step(&store, 0.1)?;
            assert!((shift.f_double_value(&[0])? - 1.0).abs() < 1e-12);
            assert!((mean.f_double_value(&[0])? - 0.5).abs() < 1e-12);
        }
        Ok(())
    }

    #[test]
    fn what_is_frozen_stays() -> Result<(), TchError> {
        let mut store = Store::new(0, Device::Cpu);
        let [stem, head] =
            ["stem.weight", "head.weight"].map(|name| store.weight(name, &[1, 1], 1));
        let (stem, head) = (stem?, head?);
        assert_eq!(store.freeze("stem")?, 1);
        assert_eq!(store.freeze("ste")?, 0);
        let before = stem.f_double_value(&[0, 0])?;
        let mut optimizer = Optimizer::new(&store, &TrainParams::default())?;
        stem.f_mul(&head)?.f_sum(None)?.f_backward()?;
        optimizer.step(&store, 0.1)?;
        assert!((stem.f_double_value(&[0, 0])? - before).abs() < 1e-12);
        assert_eq!(optimizer.state().count(), 2);
        Ok(())
    }
}
