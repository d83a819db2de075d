//! A network with all that is needed to run it: architecture, the samples' grid, the scale of its input, its tensors.

use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};
use torcula::engine::learner::{Architecture, TrainParams};
use torcula::error::{Error, Result};

use super::Store;
use super::unet3d::{UNet3d, UNet3dConfig};

/// What is written beside the tensors, so that the network can be built again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The network.
    pub architecture: Architecture,
    /// Its shape.
    pub unet3d: UNet3dConfig,
    /// Voxels along x, y, z of the samples.
    pub shape: [usize; 3],
    /// Spacing along x, y, z of the samples.
    pub spacing_mm: [f64; 3],
    /// Intensities are multiplied by this before the network sees them. It brings the mean of what is not background to 1 and
    /// leaves background at 0, like the padding of convolutions.
    pub intensity_scale: f32,
}

impl NetworkSpec {
    /// Plans the network of a train step for samples of shape `[channels, z, y, x]`.
    ///
    /// # Errors
    /// A configuration error where the network does not fit the samples.
    pub fn plan(
        params: &TrainParams,
        [channels, z, y, x]: [usize; 4],
        spacing_mm: [f64; 3],
        intensity_scale: f32,
    ) -> Result<Self> {
        let shape = [x, y, z];
        let unet3d =
            UNet3dConfig::plan(channels, params.levels, params.filters, shape, spacing_mm)?;
        Ok(Self { architecture: params.model, unet3d, shape, spacing_mm, intensity_scale })
    }

    fn check(&self) -> Result<()> {
        let scale = f64::from(self.intensity_scale);
        let positive = self.spacing_mm.iter().chain([&scale]).all(|v| v.is_finite() && *v > 0.0);
        if positive && self.shape.iter().all(|n| (1..=4096).contains(n)) {
            return Ok(());
        }
        Err(Error::data(format!("the model's grid or scale makes no sense: {self:?}"))
            .hint("the model file is damaged; train again"))
    }
}

/// A network on a device.
#[derive(Debug)]
pub struct Network {
    /// How it was built.
    pub spec: NetworkSpec,
    /// Its tensors.
    pub store: Store,
    net: UNet3d,
}

impl Network {
    /// Builds the network with first weights that `seed` decides.
    ///
    /// # Errors
    /// A data error for a spec that does not hold together; libtorch's own otherwise.
    pub fn new(spec: NetworkSpec, seed: u64, device: Device) -> Result<Self> {
        spec.check()?;
        let mut store = Store::new(seed, device);
        let net = match spec.architecture {
            Architecture::Unet3d => UNet3d::new(&mut store, &spec.unet3d)?,
        };
        Ok(Self { spec, store, net })
    }

    /// The logits of a batch of any shape: padded with background to what the network needs, and cut back.
    ///
    /// # Shapes
    /// Intensities `[batch, channels, z, y, x]` → logits `[batch, 1, z, y, x]`.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn logits(&self, images: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let size = images.size();
        let multiple = self.spec.unet3d.multiple();
        let missing: [i64; 3] = std::array::from_fn(|axis| {
            let voxels = size[axis + 2];
            (voxels as usize).next_multiple_of(multiple[axis]) as i64 - voxels
        });
        let scaled = images.f_mul_scalar(f64::from(self.spec.intensity_scale))?;
        if missing == [0; 3] {
            return self.net.forward(&scaled, training);
        }
        let padded = scaled.f_constant_pad_nd([0, missing[2], 0, missing[1], 0, missing[0]])?;
        let mut logits = self.net.forward(&padded, training)?;
        for (axis, voxels) in size.iter().enumerate().skip(2) {
            logits = logits.f_narrow(axis as i64, 0, *voxels)?;
        }
        Ok(logits)
    }
}
