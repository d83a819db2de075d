//! The shape of a 3D U-Net, planned for a grid.
//!
//! Slices of DWI are thicker than its pixels are wide. An axis is pooled by 2 only where its spacing is less than twice
//! the finest one that can still be pooled (the rule of nnU-Net, Isensee et al. 2021), and a convolution spans one voxel
//! along an axis that is still that much coarser, so that a kernel is about as long along z as in plane.

use serde::{Deserialize, Serialize};
use torcula::engine::learner::{Normalization, TrainParams};
use torcula::error::{Error, Result};

/// An axis this many times coarser than the finest one is neither pooled nor convolved.
const COARSE: f64 = 2.0;
/// An axis is not pooled below this many voxels.
const MIN_VOXELS: usize = 4;
/// Filters stop doubling here.
const MAX_FILTERS: i64 = 320;
/// Longest kernel and stride along an axis.
const MAX_KERNEL: i64 = 7;
const MAX_STRIDE: i64 = 4;

/// The shape of the network: all that is needed to build it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNet3dConfig {
    /// Channels of the image.
    pub channels: i64,
    /// Filters of each level, finest first.
    pub filters: Vec<i64>,
    /// Size of the kernels of each level, along z, y, x.
    pub kernels: Vec<[i64; 3]>,
    /// Pooling between each level and the next, along z, y, x; one fewer than the levels.
    pub strides: Vec<[i64; 3]>,
    /// Normalisation before every convolution.
    pub norm: Normalization,
    /// Share of channels that are dropped before a convolution while training.
    pub dropout: f64,
    /// Whether coarser levels have heads of their own.
    pub deep_supervision: bool,
}

impl UNet3dConfig {
    /// Plans the network of a train step for a grid of `shape` and `spacing_mm` (x, y, z). Kernels and strides are the
    /// step's where it gives them, and otherwise follow from the grid.
    ///
    /// # Errors
    /// A configuration error where the grid is too small for that many levels, or a number is out of range.
    pub fn plan(
        channels: usize,
        params: &TrainParams,
        shape: [usize; 3],
        spacing_mm: [f64; 3],
    ) -> Result<Self> {
        let TrainParams { levels, filters, .. } = *params;
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
        let given = |axes: &[[usize; 3]]| -> Vec<[i64; 3]> {
            axes.iter().map(|a| zyx(a.map(|n| n as i64))).collect()
        };
        let (kernels, strides) = match (&params.kernels, &params.strides) {
            (Some(kernels), Some(strides)) => (given(kernels), given(strides)),
            (kernels, strides) => {
                let [kernel, stride] = follow(levels, shape, spacing_mm)?;
                let kernels = kernels.as_deref().map_or(kernel, given);
                (kernels, strides.as_deref().map_or(stride, given))
            }
        };
        let config = Self {
            channels: channels as i64,
            filters: (0..levels).map(|l| ((filters as i64) << l).min(MAX_FILTERS)).collect(),
            kernels,
            strides,
            norm: params.norm,
            dropout: params.dropout,
            deep_supervision: params.deep_supervision,
        };
        config.check().map_err(|e| {
            Error::configuration(e.reason().to_owned()).hint(
                "kernels need one triple a level (odd, 1 to 7), strides one fewer (1 to 4); deep_supervision needs 3 levels",
            )
        })?;
        let needed = config.multiple();
        let too_long = (0..3).find(|&a| needed[a] > zyx(shape)[a].next_power_of_two());
        match too_long {
            Some(a) => Err(Error::configuration(format!(
                "unet3d: strides pool {} voxels along {} into one, the samples have {}",
                needed[a],
                ["z", "y", "x"][a],
                zyx(shape)[a]
            ))
            .hint("lower strides along that axis, or leave strides out")),
            None => Ok(config),
        }
    }

    /// What every axis (z, y, x) must be a multiple of: the product of the strides.
    pub fn multiple(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.strides.iter().map(|s| s[a] as usize).product())
    }

    /// Checks a configuration that was read from a file.
    pub(super) fn check(&self) -> Result<()> {
        let levels = self.filters.len();
        let sound = self.channels >= 1
            && (1..=8).contains(&levels)
            && self.kernels.len() == levels
            && self.strides.len() + 1 == levels
            && self.filters.iter().all(|f| (1..=MAX_FILTERS).contains(f))
            && self.kernels.iter().flatten().all(|k| k % 2 == 1 && (1..=MAX_KERNEL).contains(k))
            && self.strides.iter().flatten().all(|s| (1..=MAX_STRIDE).contains(s))
            && (0.0..1.0).contains(&self.dropout)
            && (levels >= 3 || !self.deep_supervision);
        if sound {
            return Ok(());
        }
        Err(Error::data(format!("the configuration is not a 3D U-Net's: {self:?}"))
            .hint("the model file was not written by this software, or is damaged; train again"))
    }
}

/// Kernels of every level and strides between them, along z, y, x, that follow from the grid.
fn follow(levels: usize, shape: [usize; 3], spacing_mm: [f64; 3]) -> Result<[Vec<[i64; 3]>; 2]> {
    let (mut shape, mut spacing) = (shape, spacing_mm);
    let (mut kernels, mut strides) = (Vec::new(), Vec::new());
    let mut convolved = [false; 3];
    for level in 0..levels {
        let roomy = shape.map(|n| n.div_ceil(2) >= MIN_VOXELS);
        let finest = (0..3).filter(|&a| roomy[a]).map(|a| spacing[a]).fold(f64::INFINITY, f64::min);
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
    Ok([kernels, strides])
}

fn zyx<T: Copy>([x, y, z]: [T; 3]) -> [T; 3] {
    [z, y, x]
}
