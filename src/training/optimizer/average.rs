//! The exponential moving average of all tensors of a network (Polyak & Juditsky 1992; as in PyTorch's `AveragedModel`):
//!
//! ```text
//! a ← w after the first step,   then   a ← d a + (1 − d) w
//! ```
//!
//! It is smoother than the weights of any one step, and so is its validation.

use std::collections::BTreeMap;

use tch::{TchError, Tensor};

use crate::model::Store;

/// An average, running statistics included.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    tensors: BTreeMap<String, Tensor>,
}

impl Average {
    /// An average of no steps; none where `decay` is 0.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn new(store: &Store, decay: f64) -> Result<Option<Self>, TchError> {
        if decay <= 0.0 {
            return Ok(None);
        }
        let mut tensors = BTreeMap::new();
        for (name, named) in store.tensors() {
            tensors.insert(name.to_owned(), named.tensor.f_detach_copy()?);
        }
        Ok(Some(Self { decay, tensors }))
    }

    /// Takes in the tensors after step number `step`, from 1.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn update(&mut self, store: &Store, step: i64) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        for (name, named) in store.tensors() {
            let Some(mean) = self.tensors.get_mut(name) else { continue };
            if step <= 1 {
                mean.f_copy_(&named.tensor)?;
            } else {
                let _ = mean.f_lerp_(&named.tensor, 1.0 - self.decay)?;
            }
        }
        Ok(())
    }

    /// Puts the average into the store and the store's tensors here; a second time undoes it, bit for bit.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn swap(&mut self, store: &Store) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        for (name, named) in store.tensors() {
            let Some(mean) = self.tensors.get_mut(name) else { continue };
            let weights = named.tensor.f_detach_copy()?;
            named.tensor.shallow_clone().f_copy_(mean)?;
            mean.f_copy_(&weights)?;
        }
        Ok(())
    }

    /// Every tensor of the average by its name in a checkpoint.
    pub fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (format!("average.{name}"), tensor))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    // `python benches/peers/training.py` prints these: torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(0.9).
    #[test]
    fn averages_are_those_of_pytorch() -> Result<(), TchError> {
        let mut store = Store::new(0, Device::Cpu);
        let weight = store.weight("w", &[1, 1], 1)?;
        assert!(Average::new(&store, 0.0)?.is_none());
        let Some(mut average) = Average::new(&store, 0.9)? else {
            return Err(TchError::Kind("no average".to_owned()));
        };
        for (step, (value, expected)) in
            [(1.0, EMA[0]), (3.0, EMA[1]), (-2.0, EMA[2])].iter().enumerate()
        {
            let _ = tch::no_grad(|| weight.shallow_clone().f_fill_(*value))?;
            average.update(&store, step as i64 + 1)?;
            average.swap(&store)?;
            let found = weight.f_double_value(&[0, 0])?;
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
            average.swap(&store)?;
            assert!((weight.f_double_value(&[0, 0])? - value).abs() < 1e-12);
        }
        Ok(())
    }

    const EMA: [f64; 3] = [1.0, 1.200_000_048, 0.880_000_055];
}
