//! 3D U-Net (Çiçek et al. 2016, arXiv:1606.06650) with pre-activated units (He et al. 2016, arXiv:1603.05027): every
//! convolution is normalisation → ReLU → (dropout) → Conv3d.
//!
//! ```text
//! image ── stem ─ unit ─ unit ───────────────────── concat ─ unit ─ unit ─ norm ReLU conv 1×1×1 ── logit
//!                          └ pool ─ unit ─ unit ─ up ┘  └ side: norm ReLU conv 1×1×1, with deep supervision
//! ```
//!
//! `benches/peers/unet3d.py` is the same network in PyTorch, with the same names, and loads the tensors unchanged.

mod plan;

use tch::{TchError, Tensor};
use torcula::engine::learner::Normalization;
use torcula::error::Result;

pub use plan::UNet3dConfig;

use super::layers::{Conv, Norm, UpConv};
use super::{PRIOR_LOGIT, Store};

/// The network.
#[derive(Debug)]
pub struct UNet3d {
    stem: Conv,
    down: Vec<[Unit; 2]>,
    up: Vec<Up>,
    head: Unit,
    /// Heads of the decoder's levels from the second, while deep supervision trains; without it none.
    sides: Vec<Unit>,
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
        let of = Style { norm: config.norm, dropout: config.dropout };
        let stem = Conv::new(store, "stem", [config.channels, filters[0]], kernels[0], None)?;
        let mut down = Vec::with_capacity(filters.len());
        for (level, &width) in filters.iter().enumerate() {
            let from = if level == 0 { width } else { filters[level - 1] };
            let kernel = kernels[level];
            down.push([
                Unit::new(store, &format!("down{level}.0"), of, [from, width], kernel, None)?,
                Unit::new(store, &format!("down{level}.1"), of, [width, width], kernel, None)?,
            ]);
        }
        let up =
            (0..strides.len()).map(|l| Up::new(store, l, of, config)).collect::<Result<_, _>>()?;
        let mut head = |name: &str, width: i64| {
            let plain = Style { dropout: 0.0, ..of };
            Unit::new(store, name, plain, [width, 1], [1; 3], Some(PRIOR_LOGIT))
        };
        let sides = (1..strides.len())
            .filter(|_| config.deep_supervision)
            .map(|level| head(&format!("side{level}"), filters[level]))
            .collect::<Result<_, _>>()?;
        let head = head("head", filters[0])?;
        Ok(Self { stem, down, up, head, sides, strides: strides.clone() })
    }

    /// The logits of a batch. While `training`, normalisation uses the batch's statistics and updates the running ones.
    ///
    /// # Shapes
    /// `[batch, channels, z, y, x]` → `[batch, 1, z, y, x]`; z, y, x are multiples of [`UNet3dConfig::multiple`].
    ///
    /// # Errors
    /// libtorch's: another shape, or memory that ran out.
    pub fn forward(&self, images: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut levels = self.levels(images, training)?;
        self.head.forward(&levels.swap_remove(0), training)
    }

    /// The logits of every head while training, finest first: those of [`forward`](Self::forward), then, with deep
    /// supervision, those of the coarser levels, brought to the shape of the image (trilinear).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn heads(&self, images: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let levels = self.levels(images, true)?;
        let mut heads = vec![self.head.forward(&levels[0], true)?];
        for (side, level) in self.sides.iter().zip(&levels[1..]) {
            let coarse = side.forward(level, true)?;
            let fine =
                coarse.f_upsample_trilinear3d(&images.size()[2..], false, None, None, None)?;
            heads.push(fine);
        }
        Ok(heads)
    }

    /// The decoder's features, finest first; the coarsest are the encoder's.
    fn levels(&self, images: &Tensor, training: bool) -> Result<Vec<Tensor>, TchError> {
        let mut x = self.stem.forward(images)?;
        let mut skips = Vec::with_capacity(self.strides.len());
        for (level, [first, second]) in self.down.iter().enumerate() {
            x = second.forward(&first.forward(&x, training)?, training)?;
            if let Some(stride) = self.strides.get(level) {
                let pooled = x.f_max_pool3d(stride, stride, [0; 3], [1; 3], false)?;
                skips.push(std::mem::replace(&mut x, pooled));
            }
        }
        let mut levels = vec![x];
        for (up, skip) in self.up.iter().zip(skips).rev() {
            let finer = up.forward(&levels[levels.len() - 1], &skip, training)?;
            if !training {
                levels.clear();
            }
            levels.push(finer);
        }
        levels.reverse();
        Ok(levels)
    }
}

/// What all units have in common.
#[derive(Debug, Clone, Copy)]
struct Style {
    norm: Normalization,
    dropout: f64,
}

/// Doubles the resolution, joins what the encoder knew there, two units.
#[derive(Debug)]
struct Up {
    widen: UpConv,
    units: [Unit; 2],
}

impl Up {
    fn new(
        store: &mut Store,
        level: usize,
        of: Style,
        config: &UNet3dConfig,
    ) -> Result<Self, TchError> {
        let (width, below) = (config.filters[level], config.filters[level + 1]);
        let (stride, kernel) = (config.strides[level], config.kernels[level]);
        let name = format!("up{level}");
        let units = [2 * width, width];
        Ok(Self {
            widen: UpConv::new(store, &name, [below, width], stride, true)?,
            units: [
                Unit::new(store, &format!("{name}.0"), of, units, kernel, None)?,
                Unit::new(store, &format!("{name}.1"), of, [width, width], kernel, None)?,
            ],
        })
    }

    fn forward(&self, x: &Tensor, skip: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let joined = Tensor::f_cat(&[skip, &self.widen.forward(x)?], 1)?;
        self.units[1].forward(&self.units[0].forward(&joined, training)?, training)
    }
}

/// Normalisation → ReLU → dropout of whole channels → Conv3d.
#[derive(Debug)]
struct Unit {
    norm: Norm,
    dropout: f64,
    conv: Conv,
}

impl Unit {
    fn new(
        store: &mut Store,
        name: &str,
        of: Style,
        [from, to]: [i64; 2],
        kernel: [i64; 3],
        bias: Option<f64>,
    ) -> Result<Self, TchError> {
        Ok(Self {
            norm: Norm::new(store, &format!("{name}.norm"), from, of.norm)?,
            dropout: of.dropout,
            conv: Conv::new(store, &format!("{name}.conv"), [from, to], kernel, bias)?,
        })
    }

    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut active = self.norm.forward(x, training)?.f_relu_()?;
        if training && self.dropout > 0.0 {
            active = active.f_feature_dropout(self.dropout, true)?;
        }
        self.conv.forward(&active)
    }
}

#[cfg(test)]
mod tests;
