//! 3D U-Net (Çiçek et al. 2016, arXiv:1606.06650) with pre-activated units (He et al. 2016, arXiv:1603.05027): every
//! convolution is BatchNorm → ReLU → Conv3d.
//!
//! ```text
//! image ── stem ─ unit ─ unit ───────────────── concat ─ unit ─ unit ─ BN ReLU conv 1×1×1 ── logit
//!                          └ pool ─ unit ─ unit ─ up ┘
//! ```
//!
//! Slices of DWI are thicker than its pixels are wide. An axis is pooled by 2 only where its spacing is less than twice
//! the finest one that can still be pooled (the rule of nnU-Net, Isensee et al. 2021), and a convolution spans one voxel
//! along an axis that is still that much coarser, so that a kernel is about as long along z as in plane.

use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};
use torcula::error::{Error, Result};

use super::Store;

/// An axis this many times coarser than the finest one is neither pooled nor convolved.
const COARSE: f64 = 2.0;
/// An axis is not pooled below this many voxels.
const MIN_VOXELS: usize = 4;
/// Filters stop doubling here.
const MAX_FILTERS: i64 = 320;
/// First bias of the logit: the network starts by taking 0.1 % of the voxels for lesion, not half of them, and does not spend
/// its first epochs on unlearning that (Lin et al. 2017, arXiv:1708.02002, section 4.1).
const PRIOR_LOGIT: f64 = -7.0;
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// The shape of the network: all that is needed to build it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UNet3dConfig {
    /// Channels of the image.
    pub channels: i64,
    /// Filters of each level, finest first.
    pub filters: Vec<i64>,
    /// Size of the kernels of each level, along z, y, x.
    pub kernels: Vec<[i64; 3]>,
    /// Pooling between each level and the next, along z, y, x; one fewer than the levels.
    pub strides: Vec<[i64; 3]>,
}

impl UNet3dConfig {
    /// Plans `levels` levels for a grid of `shape` and `spacing_mm` (x, y, z), the finest with `filters` filters and
    /// twice as many at each next one.
    ///
    /// # Errors
    /// A configuration error where the grid is too small for that many levels, or a number is out of range.
    pub fn plan(
        channels: usize,
        levels: usize,
        filters: usize,
        shape: [usize; 3],
        spacing_mm: [f64; 3],
    ) -> Result<Self> {
        if !(1..=8).contains(&levels) || !(1..=256).contains(&filters) || channels == 0 {
            return Err(Error::configuration(format!(
                "unet3d: levels {levels}, filters {filters}, channels {channels}: \
                 expected 1 to 8 levels, 1 to 256 filters, at least one channel"
            )));
        }
        if spacing_mm.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::configuration(format!(
                "unet3d: spacing {spacing_mm:?} mm is not positive"
            )));
        }
        let (mut shape, mut spacing) = (shape, spacing_mm);
        let (mut kernels, mut strides) = (Vec::new(), Vec::new());
        let mut convolved = [false; 3];
        for level in 0..levels {
            let roomy = shape.map(|n| n.div_ceil(2) >= MIN_VOXELS);
            let finest =
                (0..3).filter(|&a| roomy[a]).map(|a| spacing[a]).fold(f64::INFINITY, f64::min);
            let fine = spacing.map(|s| s < COARSE * finest);
            convolved = std::array::from_fn(|a| convolved[a] || fine[a]);
            kernels.push(zyx(convolved.map(|f| if f { 3 } else { 1 })));
            if level + 1 == levels {
                break;
            }
            let pooled: [bool; 3] = std::array::from_fn(|a| fine[a] && roomy[a]);
            if pooled == [false; 3] {
                return Err(Error::configuration(format!(
                    "unet3d: {levels} levels do not fit the grid: level {} would be smaller than {MIN_VOXELS} voxels",
                    level + 2
                ))
                .hint(format!("set levels to {}, or resample to a larger shape", level + 1)));
            }
            for a in (0..3).filter(|&a| pooled[a]) {
                shape[a] = shape[a].div_ceil(2);
                spacing[a] *= 2.0;
            }
            strides.push(zyx(pooled.map(|p| if p { 2 } else { 1 })));
        }
        let filters = (0..levels).map(|l| ((filters as i64) << l).min(MAX_FILTERS)).collect();
        Ok(Self { channels: channels as i64, filters, kernels, strides })
    }

    /// What every axis (z, y, x) must be a multiple of: the product of the strides.
    pub fn multiple(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.strides.iter().map(|s| s[a] as usize).product())
    }

    /// Checks a configuration that was read from a file.
    fn check(&self) -> Result<()> {
        let levels = self.filters.len();
        let sound = self.channels >= 1
            && (1..=8).contains(&levels)
            && self.kernels.len() == levels
            && self.strides.len() + 1 == levels
            && self.filters.iter().all(|f| (1..=MAX_FILTERS).contains(f))
            && self.kernels.iter().flatten().all(|k| [1, 3].contains(k))
            && self.strides.iter().flatten().all(|s| [1, 2].contains(s));
        if sound {
            return Ok(());
        }
        Err(Error::data(format!("the model's configuration is not a 3D U-Net's: {self:?}"))
            .hint("the model file was not written by this software, or is damaged; train again"))
    }
}

fn zyx<T: Copy>([x, y, z]: [T; 3]) -> [T; 3] {
    [z, y, x]
}

/// The network.
#[derive(Debug)]
pub struct UNet3d {
    stem: Conv,
    down: Vec<[Unit; 2]>,
    up: Vec<Up>,
    head: Unit,
    strides: Vec<[i64; 3]>,
}

impl UNet3d {
    /// Builds the network with its first weights in `store`.
    ///
    /// # Errors
    /// A data error for a configuration that does not hold together; libtorch's own otherwise.
    pub fn new(store: &mut Store, config: &UNet3dConfig) -> Result<Self> {
        config.check()?;
        Self::build(store, config).map_err(|e| crate::device::torch_error(&e))
    }

    fn build(store: &mut Store, config: &UNet3dConfig) -> Result<Self, TchError> {
        let UNet3dConfig { filters, kernels, strides, .. } = config;
        let stem = Conv::new(store, "stem", config.channels, filters[0], kernels[0], None)?;
        let mut down = Vec::with_capacity(filters.len());
        for (level, &width) in filters.iter().enumerate() {
            let from = if level == 0 { width } else { filters[level - 1] };
            down.push([
                Unit::new(store, &format!("down{level}.0"), from, width, kernels[level], None)?,
                Unit::new(store, &format!("down{level}.1"), width, width, kernels[level], None)?,
            ]);
        }
        let mut up = Vec::with_capacity(strides.len());
        for level in 0..strides.len() {
            up.push(Up::new(store, level, config)?);
        }
        let head = Unit::new(store, "head", filters[0], 1, [1; 3], Some(PRIOR_LOGIT))?;
        Ok(Self { stem, down, up, head, strides: strides.clone() })
    }

    /// The logits of a batch. While `training`, normalisation uses the batch's statistics and updates the running ones.
    ///
    /// # Shapes
    /// `[batch, channels, z, y, x]` → `[batch, 1, z, y, x]`; z, y, x are multiples of [`UNet3dConfig::multiple`].
    ///
    /// # Errors
    /// libtorch's: another shape, or memory that ran out.
    pub fn forward(&self, images: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut x = self.stem.forward(images)?;
        let mut skips = Vec::with_capacity(self.strides.len());
        for (level, [first, second]) in self.down.iter().enumerate() {
            x = second.forward(&first.forward(&x, training)?, training)?;
            if let Some(stride) = self.strides.get(level) {
                let pooled = x.f_max_pool3d(stride, stride, [0; 3], [1; 3], false)?;
                skips.push(std::mem::replace(&mut x, pooled));
            }
        }
        for (up, skip) in self.up.iter().zip(skips).rev() {
            x = up.forward(&x, &skip, training)?;
        }
        self.head.forward(&x, training)
    }
}

/// Doubles the resolution, joins what the encoder knew there, two units.
#[derive(Debug)]
struct Up {
    weight: Tensor,
    bias: Tensor,
    stride: [i64; 3],
    units: [Unit; 2],
}

impl Up {
    fn new(store: &mut Store, level: usize, config: &UNet3dConfig) -> Result<Self, TchError> {
        let (width, below) = (config.filters[level], config.filters[level + 1]);
        let (stride, kernel) = (config.strides[level], config.kernels[level]);
        let name = format!("up{level}");
        let shape = [below, width, stride[0], stride[1], stride[2]];
        Ok(Self {
            weight: store.weight(&format!("{name}.weight"), &shape, below)?,
            bias: store.constant(&format!("{name}.bias"), width, 0.0)?,
            stride,
            units: [
                Unit::new(store, &format!("{name}.0"), 2 * width, width, kernel, None)?,
                Unit::new(store, &format!("{name}.1"), width, width, kernel, None)?,
            ],
        })
    }

    fn forward(&self, x: &Tensor, skip: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let wide = x.f_conv_transpose3d(
            &self.weight,
            Some(&self.bias),
            self.stride,
            [0; 3],
            [0; 3],
            1,
            [1; 3],
        )?;
        let joined = Tensor::f_cat(&[skip, &wide], 1)?;
        self.units[1].forward(&self.units[0].forward(&joined, training)?, training)
    }
}

/// BatchNorm → ReLU → Conv3d.
#[derive(Debug)]
struct Unit {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    conv: Conv,
}

impl Unit {
    fn new(
        store: &mut Store,
        name: &str,
        from: i64,
        to: i64,
        kernel: [i64; 3],
        bias: Option<f64>,
    ) -> Result<Self, TchError> {
        Ok(Self {
            scale: store.constant(&format!("{name}.norm.scale"), from, 1.0)?,
            shift: store.constant(&format!("{name}.norm.shift"), from, 0.0)?,
            mean: store.statistic(&format!("{name}.norm.mean"), from, 0.0)?,
            variance: store.statistic(&format!("{name}.norm.variance"), from, 1.0)?,
            conv: Conv::new(store, &format!("{name}.conv"), from, to, kernel, bias)?,
        })
    }

    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let normed = x.f_batch_norm(
            Some(&self.scale),
            Some(&self.shift),
            Some(&self.mean),
            Some(&self.variance),
            training,
            MOMENTUM,
            EPSILON,
            true,
        )?;
        self.conv.forward(&normed.f_relu()?)
    }
}

/// A convolution that keeps the shape; its bias, if any, starts at a value. None is needed where a normalisation follows.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    padding: [i64; 3],
}

impl Conv {
    fn new(
        store: &mut Store,
        name: &str,
        from: i64,
        to: i64,
        kernel: [i64; 3],
        bias: Option<f64>,
    ) -> Result<Self, TchError> {
        let shape = [to, from, kernel[0], kernel[1], kernel[2]];
        let fan_in = from * kernel.iter().product::<i64>();
        let weight = store.weight(&format!("{name}.weight"), &shape, fan_in)?;
        let bias = bias.map(|b| store.constant(&format!("{name}.bias"), to, b)).transpose()?;
        Ok(Self { weight, bias, padding: kernel.map(|k| k / 2) })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_conv3d(&self.weight, self.bias.as_ref(), [1; 3], self.padding, [1; 3], 1)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::device::torch_error;

    fn plan(levels: usize, shape: [usize; 3], spacing_mm: [f64; 3]) -> Result<UNet3dConfig> {
        UNet3dConfig::plan(1, levels, 4, shape, spacing_mm)
    }

    #[test]
    fn thick_slices_are_pooled_later() -> Result<()> {
        let config = plan(4, [96, 96, 24], [2.0, 2.0, 5.0])?;
        assert_eq!(config.strides, [[1, 2, 2], [2, 2, 2], [2, 2, 2]]);
        assert_eq!(config.kernels, [[1, 3, 3], [3; 3], [3; 3], [3; 3]]);
        assert_eq!(config.filters, [4, 8, 16, 32]);
        assert_eq!(config.multiple(), [4, 8, 8]);
        let cube = plan(4, [32, 32, 32], [1.0; 3])?;
        assert_eq!((cube.strides, cube.kernels), (vec![[2; 3]; 3], vec![[3; 3]; 4]));
        let flat = plan(4, [64, 64, 8], [1.0, 1.0, 1.0])?;
        assert_eq!(flat.strides, [[2, 2, 2], [1, 2, 2], [1, 2, 2]]);
        assert_eq!(flat.kernels, vec![[3; 3]; 4]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        let error = plan(4, [16, 16, 8], [1.0; 3]).err();
        let hint = error.as_ref().and_then(Error::advice).unwrap_or_default();
        assert!(hint.contains("set levels to 3"), "{hint}");
        assert!(plan(0, [16; 3], [1.0; 3]).is_err());
        assert!(plan(2, [16; 3], [1.0, f64::NAN, 1.0]).is_err());
        let mut broken = UNet3dConfig::plan(1, 2, 4, [16; 3], [1.0; 3]).ok();
        if let Some(config) = &mut broken {
            config.filters.clear();
            assert!(UNet3d::new(&mut Store::new(0, Device::Cpu), config).is_err());
        }
    }

    #[test]
    fn logits_have_the_shape_of_the_image() -> Result<()> {
        for (levels, shape, spacing_mm) in [
            (1, [8, 8, 8], [1.0; 3]),
            (2, [8, 12, 5], [2.0, 2.0, 5.0]),
            (3, [16, 32, 8], [1.0, 1.0, 3.0]),
        ] {
            let config = plan(levels, shape, spacing_mm)?;
            let mut store = Store::new(1, Device::Cpu);
            let net = UNet3d::new(&mut store, &config)?;
            let multiple = config.multiple();
            let [x, y, z] = shape;
            let size: [i64; 3] =
                std::array::from_fn(|a| [z, y, x][a].next_multiple_of(multiple[a]) as i64);
            let size = [2, 1, size[0], size[1], size[2]];
            let run = || {
                let images = Tensor::f_ones(size, (Kind::Float, Device::Cpu))?;
                net.forward(&images, true)
            };
            assert_eq!(run().map_err(|e| torch_error(&e))?.size(), size);
        }
        Ok(())
    }

    #[test]
    fn one_seed_gives_one_network() -> Result<()> {
        let config = plan(2, [8; 3], [1.0; 3])?;
        let weights = |seed| -> Result<Vec<f32>> {
            let mut store = Store::new(seed, Device::Cpu);
            UNet3d::new(&mut store, &config)?;
            let (_, stem) = store.trainable().find(|(name, _)| *name == "stem.weight").unzip();
            let stem = stem.ok_or_else(|| Error::bug("no stem"))?;
            crate::checkpoint::values(stem).map_err(|e| torch_error(&e))
        };
        assert_eq!(weights(3)?, weights(3)?);
        assert_ne!(weights(3)?, weights(4)?);
        Ok(())
    }
}
