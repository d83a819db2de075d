//! Swin UNETR (Hatamizadeh et al. 2022, arXiv:2201.01266): a Swin transformer as encoder, residual convolutions as decoder.
//!
//! ```text
//! image ─ encoder1 ─────────────────────────────────────────────────────────────── decoder1 ─ out ── logits
//!    └ patches of 2³ ─ encoder2 ──────────────────────────────────── decoder2 ─┘
//!         └ stage 1 ─ encoder3 ────────────────────────── decoder3 ─┘
//!              └ stage 2 ─ encoder4 ───────────── decoder4 ─┘
//!                   └ stage 3 ──────── decoder5 ─┘
//!                        └ stage 4 ─ encoder10 ─┘
//! ```
//!
//! Names and shapes of the parameters, and the order of every sum that they enter, are MONAI 1.6's (`SwinUNETR`): a state dict of
//! MONAI loads unchanged, and the outputs agree to rounding. So its quirks are kept: the position bias of a window that
//! a small axis clips is the corner of the whole window's table.

mod attention;
mod config;
mod transformer;

use tch::{TchError, Tensor};
use torcula::error::Result;

pub use config::SwinUnetrConfig;
use transformer::SwinTransformer;

use super::layers::{Conv, Norm, UpConv};
use super::{PRIOR_LOGIT, Store};

/// Patches of so many voxels along an axis are one token.
const PATCH: i64 = 2;
/// Every axis is a multiple of this: patches, then four halvings.
pub const MULTIPLE: usize = 32;

/// The network.
#[derive(Debug)]
pub struct SwinUnetr {
    transformer: SwinTransformer,
    /// Before the patches, then after the patches, stage 1, stage 2 and stage 4.
    encoders: [Residual; 5],
    /// From the coarsest.
    decoders: [Up; 5],
    out: Conv,
}

impl SwinUnetr {
    /// Builds the network with its first weights in `store`.
    ///
    /// # Errors
    /// A data error for a configuration that does not hold together; libtorch's own otherwise.
    pub fn new(store: &mut Store, config: &SwinUnetrConfig) -> Result<Self> {
        config.check()?;
        Self::build(store, config).map_err(|e| crate::device::torch_error(&e))
    }

    fn build(store: &mut Store, config: &SwinUnetrConfig) -> Result<Self, TchError> {
        let (size, affine) = (config.feature_size, config.norm_affine);
        let mut encoder = |name: &str, from: i64, to: i64| {
            Residual::new(store, &format!("{name}.layer"), [from, to], affine)
        };
        let encoders = [
            encoder("encoder1", config.channels, size)?,
            encoder("encoder2", size, size)?,
            encoder("encoder3", 2 * size, 2 * size)?,
            encoder("encoder4", 4 * size, 4 * size)?,
            encoder("encoder10", 16 * size, 16 * size)?,
        ];
        let mut decoder = |name: &str, from: i64, to: i64| Up::new(store, name, [from, to], affine);
        let decoders = [
            decoder("decoder5", 16 * size, 8 * size)?,
            decoder("decoder4", 8 * size, 4 * size)?,
            decoder("decoder3", 4 * size, 2 * size)?,
            decoder("decoder2", 2 * size, size)?,
            decoder("decoder1", size, size)?,
        ];
        let out =
            Conv::new(store, "out.conv.conv", [size, config.classes], [1; 3], Some(PRIOR_LOGIT))?;
        let transformer = SwinTransformer::new(store, config)?;
        Ok(Self { transformer, encoders, decoders, out })
    }

    /// The logits of a batch.
    ///
    /// # Shapes
    /// `[batch, channels, d, h, w]` → `[batch, classes, d, h, w]`; d, h, w are multiples of [`MULTIPLE`].
    ///
    /// # Errors
    /// libtorch's: another shape, or memory that ran out.
    pub fn forward(&self, images: &Tensor, training: bool) -> Result<Tensor, TchError> {
        if let Some(wrong) =
            images.size()[2..].iter().find(|n| !(**n as usize).is_multiple_of(MULTIPLE))
        {
            return Err(TchError::Shape(format!(
                "swin_unetr: an axis has {wrong} voxels, expected a multiple of {MULTIPLE}"
            )));
        }
        if images.size()[2..] == [MULTIPLE as i64; 3] {
            return Err(TchError::Shape(format!(
                "swin_unetr: {MULTIPLE} voxels along every axis leave one at the coarsest level, and nothing to \
                 normalise; it needs 64 along at least one axis"
            )));
        }
        let [tokens, first, second, third, fourth] = self.transformer.forward(images, training)?;
        let [image, patches, fine, middle, coarse] = &self.encoders;
        let skips = [
            third,
            middle.forward(&second)?,
            fine.forward(&first)?,
            patches.forward(&tokens)?,
            image.forward(images)?,
        ];
        let mut x = coarse.forward(&fourth)?;
        for (up, skip) in self.decoders.iter().zip(skips) {
            x = up.forward(&x, &skip)?;
        }
        self.out.forward(&x)
    }
}

/// MONAI's `UnetResBlock`: two convolutions with instance normalisation beside a shortcut, leaky ReLU.
#[derive(Debug)]
struct Residual {
    convs: [(Conv, Norm); 2],
    /// Where the number of channels changes.
    shortcut: Option<(Conv, Norm)>,
}

impl Residual {
    fn new(
        store: &mut Store,
        name: &str,
        [from, to]: [i64; 2],
        affine: bool,
    ) -> Result<Self, TchError> {
        let mut normed = |number: usize, from: i64, kernel: i64| {
            let conv = Conv::new(
                store,
                &format!("{name}.conv{number}.conv"),
                [from, to],
                [kernel; 3],
                None,
            )?;
            let norm = match affine {
                true => Norm::instance(store, &format!("{name}.norm{number}"), to)?,
                false => Norm::plain_instance(),
            };
            Ok::<_, TchError>((conv, norm))
        };
        let convs = [normed(1, from, 3)?, normed(2, to, 3)?];
        let shortcut = (from != to).then(|| normed(3, from, 1)).transpose()?;
        Ok(Self { convs, shortcut })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let pass = |(conv, norm): &(Conv, Norm), x: &Tensor| norm.forward(&conv.forward(x)?, true);
        let [first, second] = &self.convs;
        let inner = pass(second, &pass(first, x)?.f_leaky_relu_()?)?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => pass(shortcut, x)?,
            None => x.shallow_clone(),
        };
        inner.f_add(&shortcut)?.f_leaky_relu_()
    }
}

/// MONAI's `UnetrUpBlock`: doubles the resolution, joins what the encoder knew there.
#[derive(Debug)]
struct Up {
    widen: UpConv,
    block: Residual,
}

impl Up {
    fn new(
        store: &mut Store,
        name: &str,
        [from, to]: [i64; 2],
        affine: bool,
    ) -> Result<Self, TchError> {
        let widen = format!("{name}.transp_conv.conv");
        let block = format!("{name}.conv_block");
        Ok(Self {
            widen: UpConv::new(store, &widen, [from, to], [2; 3], false)?,
            block: Residual::new(store, &block, [2 * to, to], affine)?,
        })
    }

    fn forward(&self, x: &Tensor, skip: &Tensor) -> Result<Tensor, TchError> {
        self.block.forward(&Tensor::f_cat(&[&self.widen.forward(x)?, skip], 1)?)
    }
}

#[cfg(test)]
mod tests;
