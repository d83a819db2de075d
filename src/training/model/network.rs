//! A network with all that is needed to run it: architecture, the samples' grid, the scale of its input, its tensors.

use std::fmt;

use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};
use torcula::engine::learner::{Activation, Architecture, AxisOrder, Normalization, TrainParams};
use torcula::error::{Error, Result};

use super::Store;
use super::swin_unetr::{MULTIPLE, SwinUnetr, SwinUnetrConfig};
use super::unet3d::{UNet3d, UNet3dConfig};

/// The architecture and its shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// 3D U-Net.
    Unet3d(UNet3dConfig),
    /// Swin UNETR.
    SwinUnetr(SwinUnetrConfig),
}

/// What two networks must have in common for one to take the other's weights.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} channels, ", self.architecture().name(), self.channels())?;
        match self {
            Self::Unet3d(config) => {
                let norm = match config.norm {
                    Normalization::Batch => "batch",
                    Normalization::Instance => "instance",
                    Normalization::Group => "group",
                };
                let deep = if config.deep_supervision { "with" } else { "without" };
                write!(f, "norm {norm}, {deep} deep supervision, filters {:?}", config.filters)
            }
            Self::SwinUnetr(config) => write!(
                f,
                "feature_size {}, depths {:?}, num_heads {:?}, window_size {}, use_v2 {}",
                config.feature_size,
                config.depths,
                config.num_heads,
                config.window_size,
                config.use_v2
            ),
        }
    }
}

/// What is written beside the tensors, so that the network can be built again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The network and its shape.
    pub network: Shape,
    /// Voxels along x, y, z of the samples.
    pub shape: [usize; 3],
    /// Spacing along x, y, z of the samples in mm; none for a network from elsewhere that does not say.
    pub spacing_mm: Option<[f64; 3]>,
    /// Intensities are multiplied by this before the network sees them. It brings the mean of what is not background to 1 and
    /// leaves background at 0, like the padding of convolutions.
    pub intensity_scale: f32,
    /// Which way the axes go in.
    pub axes: AxisOrder,
    /// From logits to probabilities.
    pub activation: Activation,
    /// Which channel of the output is the lesion.
    pub channel: usize,
}

impl Shape {
    /// The word for the architecture.
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::Unet3d(_) => Architecture::Unet3d,
            Self::SwinUnetr(_) => Architecture::SwinUnetr,
        }
    }

    /// Channels of the image.
    pub fn channels(&self) -> i64 {
        match self {
            Self::Unet3d(config) => config.channels,
            Self::SwinUnetr(config) => config.channels,
        }
    }

    /// Channels of the output.
    pub fn classes(&self) -> i64 {
        match self {
            Self::Unet3d(_) => 1,
            Self::SwinUnetr(config) => config.classes,
        }
    }

    /// The shape with another one's shares of what is dropped while training.
    pub fn with_rates_of(mut self, other: &Self) -> Self {
        match (&mut self, other) {
            (Self::Unet3d(config), Self::Unet3d(other)) => config.dropout = other.dropout,
            (Self::SwinUnetr(config), Self::SwinUnetr(other)) => {
                config.drop_rate = other.drop_rate;
                config.attn_drop_rate = other.attn_drop_rate;
                config.dropout_path_rate = other.dropout_path_rate;
            }
            _ => {}
        }
        self
    }

    /// What every axis (in the order of the network) is padded to a multiple of.
    pub fn multiple(&self) -> [usize; 3] {
        match self {
            Self::Unet3d(config) => config.multiple(),
            Self::SwinUnetr(_) => [MULTIPLE; 3],
        }
    }
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
        let network = match params.model {
            Architecture::Unet3d => {
                Shape::Unet3d(UNet3dConfig::plan(channels, params, shape, spacing_mm)?)
            }
            Architecture::SwinUnetr if shape.iter().all(|n| *n <= MULTIPLE) => {
                return Err(Error::configuration(format!(
                    "swin_unetr: of {shape:?} voxels one is left at the coarsest level, and nothing to normalise"
                ))
                .hint(format!("resample to more than {MULTIPLE} voxels along an axis, or train a unet3d")));
            }
            Architecture::SwinUnetr => {
                Shape::SwinUnetr(SwinUnetrConfig::plan(channels, &params.swin_unetr))
            }
        };
        Ok(Self {
            network,
            shape,
            spacing_mm: Some(spacing_mm),
            intensity_scale,
            axes: AxisOrder::Zyx,
            activation: Activation::Sigmoid,
            channel: 0,
        })
    }

    /// Checks what was read from a file or given by a user.
    ///
    /// # Errors
    /// A data error for a grid or a scale that makes no sense.
    pub fn check(&self) -> Result<()> {
        let scale = f64::from(self.intensity_scale);
        let mut numbers = self.spacing_mm.iter().flatten().chain([&scale]);
        let positive = numbers.all(|v| v.is_finite() && *v > 0.0);
        let classes = usize::try_from(self.network.classes()).unwrap_or_default();
        if self.channel >= classes {
            let (channel, message) = (self.channel, "the output has no channel");
            return Err(Error::data(format!("{message} {channel}, there are {classes} (from 0)"))
                .hint("set channel to that of the lesion"));
        }
        if positive && self.shape.iter().all(|n| *n <= 4096) {
            return Ok(());
        }
        Err(Error::data(format!(
            "the model's grid or scale makes no sense: shape {:?}, spacing_mm {:?}, intensity_scale {}",
            self.shape, self.spacing_mm, self.intensity_scale
        ))
        .hint("shape needs counts up to 4096, the others numbers above 0; or the model file is damaged"))
    }
}

/// The logits of one head of a network in training.
#[derive(Debug)]
pub struct Head {
    /// `[batch, 1, z, y, x]`, the shape of the images.
    pub logits: Tensor,
    /// Its share of the loss; the shares of all heads sum to 1.
    pub weight: f64,
}

/// A network on a device.
#[derive(Debug)]
pub struct Network {
    /// How it was built.
    pub spec: NetworkSpec,
    /// Its tensors.
    pub store: Store,
    net: Net,
}

#[derive(Debug)]
enum Net {
    Unet3d(Box<UNet3d>),
    SwinUnetr(Box<SwinUnetr>),
}

impl Network {
    /// Builds the network with first weights that `seed` decides.
    ///
    /// # Errors
    /// A data error for a spec that does not hold together; libtorch's own otherwise.
    pub fn new(spec: NetworkSpec, seed: u64, device: Device) -> Result<Self> {
        spec.check()?;
        let mut store = Store::new(seed, device);
        let net = match &spec.network {
            Shape::Unet3d(config) => Net::Unet3d(Box::new(UNet3d::new(&mut store, config)?)),
            Shape::SwinUnetr(config) => {
                Net::SwinUnetr(Box::new(SwinUnetr::new(&mut store, config)?))
            }
        };
        Ok(Self { spec, store, net })
    }

    /// The logits of a batch of any shape: padded with background to what the network needs, and cut back.
    ///
    /// # Shapes
    /// Intensities `[batch, channels, z, y, x]` → logits `[batch, classes, z, y, x]`; x, y, z where the spec's axes say so.
    ///
    /// # Errors
    /// libtorch's, where memory ran out.
    pub fn logits(&self, images: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let logits = match &self.net {
            Net::Unet3d(net) => net.forward(&self.padded(images)?, training)?,
            Net::SwinUnetr(net) => net.forward(&self.padded(images)?, training)?,
        };
        cut(logits, &images.size())
    }

    /// What a training step compares with the truth: the logits of every head, finest first. There is one head, or with
    /// deep supervision one a level of the decoder, each with half the weight of the finer one (Isensee et al. 2021).
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn heads(&self, images: &Tensor) -> Result<Vec<Head>, TchError> {
        let found = match &self.net {
            Net::Unet3d(net) => net.heads(&self.padded(images)?)?,
            Net::SwinUnetr(net) => vec![net.forward(&self.padded(images)?, true)?],
        };
        let total = 2.0 - 0.5_f64.powi(found.len() as i32 - 1);
        let weight = |level: usize| 0.5_f64.powi(level as i32) / total;
        let size = images.size();
        let heads = found.into_iter().enumerate();
        heads
            .map(|(level, logits)| Ok(Head { logits: cut(logits, &size)?, weight: weight(level) }))
            .collect()
    }

    /// Whether a training step draws random numbers inside the network. Whoever trains then seeds libtorch before every
    /// step, so that an interrupted training goes on with the same draws.
    pub fn draws(&self) -> bool {
        let drawn = |rates: &[f64]| rates.iter().any(|r| *r > 0.0);
        match &self.spec.network {
            Shape::Unet3d(config) => drawn(&[config.dropout]),
            Shape::SwinUnetr(config) => {
                drawn(&[config.drop_rate, config.attn_drop_rate, config.dropout_path_rate])
            }
        }
    }

    /// Scaled images, padded at the end of each axis with background.
    fn padded(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let (size, multiple) = (images.size(), self.spec.network.multiple());
        let missing: [i64; 3] = std::array::from_fn(|axis| {
            let voxels = size[axis + 2];
            (voxels as usize).next_multiple_of(multiple[axis]) as i64 - voxels
        });
        let scaled = images.f_mul_scalar(f64::from(self.spec.intensity_scale))?;
        match missing {
            [0, 0, 0] => Ok(scaled),
            [d, h, w] => scaled.f_constant_pad_nd([0, w, 0, h, 0, d]),
        }
    }
}

/// Cuts the axes after the second back to a size.
fn cut(mut logits: Tensor, size: &[i64]) -> Result<Tensor, TchError> {
    for (axis, voxels) in size.iter().enumerate().skip(2) {
        logits = logits.f_narrow(axis as i64, 0, *voxels)?;
    }
    Ok(logits)
}
