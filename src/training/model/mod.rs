//! Networks, and the named tensors that they are made of.
//!
//! A network asks a [`Store`] for its tensors by name. The store draws the first weights from a generator keyed by
//! (seed, name), so that they depend neither on the order of construction nor on the device, and hands the tensors to
//! the optimizer and to the checkpoint.

#[cfg(test)]
pub(crate) mod formula;
pub mod layers;
pub mod network;
pub mod swin_unetr;
pub mod unet3d;

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Kind, TchError, Tensor};
use torcula::imaging::random::{keyed, normal, uniform};

/// First bias of the logit: a network starts by taking 0.1 % of the voxels for lesion, not half of them, and does not spend
/// its first epochs on unlearning that (Lin et al. 2017, arXiv:1708.02002, section 4.1).
const PRIOR_LOGIT: f64 = -7.0;

/// A tensor with a name that a checkpoint keeps.
#[derive(Debug)]
pub struct Named {
    /// Shares its storage with the network's.
    pub tensor: Tensor,
    /// Whether the optimizer changes it; the others are running statistics and indices.
    pub trainable: bool,
    /// Whether it follows from the network's shape, so that no file needs to hold it.
    pub computed: bool,
}

/// All tensors of a network by name.
#[derive(Debug)]
pub struct Store {
    seed: u64,
    device: Device,
    tensors: BTreeMap<String, Named>,
}

impl Store {
    /// An empty store; `seed` decides the first weights.
    pub fn new(seed: u64, device: Device) -> Self {
        Self { seed, device, tensors: BTreeMap::new() }
    }

    /// Where the tensors lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Named)> {
        self.tensors.iter().map(|(name, named)| (name.as_str(), named))
    }

    /// The tensors that are trained, in the order of their names.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors().filter(|(_, n)| n.trainable).map(|(name, n)| (name, &n.tensor))
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.trainable().map(|(_, t)| t.numel()).sum()
    }

    /// Weights of a convolution followed (or preceded) by a ReLU: normal with variance 2 / `fan_in` (He 2015).
    pub fn weight(&mut self, name: &str, shape: &[i64], fan_in: i64) -> Result<Tensor, TchError> {
        self.normal(name, shape, (2.0 / fan_in as f64).sqrt())
    }

    /// A trained tensor that starts with normal values around 0.
    pub fn normal(
        &mut self,
        name: &str,
        shape: &[i64],
        deviation: f64,
    ) -> Result<Tensor, TchError> {
        let mut rng = keyed(self.seed, &["weights", name]);
        self.drawn(name, shape, || deviation * normal(&mut rng))
    }

    /// A trained tensor that starts with values uniform within ±`bound`.
    pub fn uniform(&mut self, name: &str, shape: &[i64], bound: f64) -> Result<Tensor, TchError> {
        let mut rng = keyed(self.seed, &["weights", name]);
        self.drawn(name, shape, || uniform(&mut rng, -bound..bound))
    }

    fn drawn(
        &mut self,
        name: &str,
        shape: &[i64],
        mut draw: impl FnMut() -> f64,
    ) -> Result<Tensor, TchError> {
        let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| draw() as f32).collect();
        let tensor = Tensor::f_from_slice(&values)?.f_view(shape)?;
        self.insert(name, tensor, true, false)
    }

    /// A trained vector that starts with one value.
    pub fn constant(&mut self, name: &str, length: i64, value: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_full([length], value, (Kind::Float, Device::Cpu))?;
        self.insert(name, tensor, true, false)
    }

    /// A vector that the network itself keeps, such as a running mean.
    pub fn statistic(&mut self, name: &str, length: i64, value: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_full([length], value, (Kind::Float, Device::Cpu))?;
        self.insert(name, tensor, false, false)
    }

    /// Whole numbers that follow from the network's shape.
    pub fn index(&mut self, name: &str, values: &[i64], shape: &[i64]) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_from_slice(values)?.f_view(shape)?;
        self.insert(name, tensor, false, true)
    }

    /// Takes the trained tensors of a part of the network (`stem`, `down0`: what stands before a dot in their names) out of the
    /// training; how many there were.
    pub fn freeze(&mut self, part: &str) -> Result<usize, TchError> {
        let mut frozen = 0;
        for (name, named) in &mut self.tensors {
            let inside = name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
            if inside && named.trainable {
                named.tensor = named.tensor.f_set_requires_grad(false)?;
                named.trainable = false;
                frozen += 1;
            }
        }
        Ok(frozen)
    }

    /// The parts of the network that [`Self::freeze`] knows.
    pub fn parts(&self) -> BTreeSet<&str> {
        self.trainable().map(|(name, _)| name.split('.').next().unwrap_or(name)).collect()
    }

    fn insert(
        &mut self,
        name: &str,
        tensor: Tensor,
        trainable: bool,
        computed: bool,
    ) -> Result<Tensor, TchError> {
        let tensor = channels_last(&tensor.f_to_device(self.device)?)?;
        let tensor = tensor.f_set_requires_grad(trainable)?;
        let shared = tensor.shallow_clone();
        self.tensors.insert(name.to_owned(), Named { tensor, trainable, computed });
        Ok(shared)
    }
}

/// The same kernel of a 3D convolution with its channels last in memory. libtorch then keeps the channels of all that comes out
/// of it last too, which makes a step of a small network on the CPU about twice as fast (`benches/peers/training.py` measures it). Other
/// tensors stay as they are.
fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    if tensor.dim() != 5 {
        return Ok(tensor.shallow_clone());
    }
    tensor.f_permute([0, 2, 3, 4, 1])?.f_contiguous()?.f_permute([0, 4, 1, 2, 3])
}
