//! The shape of a Swin UNETR: from the parameters of a train step, or from the tensors of a MONAI checkpoint.

use serde::{Deserialize, Serialize};
use torcula::engine::learner::{Merging, SwinParams};
use torcula::error::{Error, Result};

use super::PATCH;
use crate::checkpoint::Checkpoint;

/// The shape of the network: all that is needed to build it again. Names are those of MONAI's arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are the arguments of MONAI's SwinUNETR")]
pub struct SwinUnetrConfig {
    /// Channels of the image (`in_channels`).
    pub channels: i64,
    /// Channels of the output (`out_channels`).
    pub classes: i64,
    /// Features of the first stage.
    pub feature_size: i64,
    /// Transformer blocks of the four stages.
    pub depths: [i64; 4],
    /// Attention heads of the four stages.
    pub num_heads: [i64; 4],
    /// Voxels of an attention window along an axis.
    pub window_size: i64,
    /// Features inside a block's perceptron, over those outside.
    pub mlp_ratio: i64,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether tokens are normalised before the first stage.
    pub patch_norm: bool,
    /// Whether what the stages hand to the decoder is normalised.
    pub normalize: bool,
    /// Whether the decoder's normalisation has trained scales and shifts.
    pub norm_affine: bool,
    /// How the resolution is halved.
    pub downsample: Merging,
    /// Whether a residual convolution stands before every stage.
    pub use_v2: bool,
    /// Share of features that are dropped while training.
    pub drop_rate: f64,
    /// Share of attention weights that are dropped while training.
    pub attn_drop_rate: f64,
    /// Share of the last block's updates that are dropped while training.
    pub dropout_path_rate: f64,
}

impl SwinUnetrConfig {
    /// The network of a train step, for images of so many channels; one logit a voxel.
    pub fn plan(channels: usize, params: &SwinParams) -> Self {
        Self {
            channels: channels as i64,
            classes: 1,
            feature_size: params.feature_size as i64,
            depths: params.depths.map(|n| n as i64),
            num_heads: params.num_heads.map(|n| n as i64),
            window_size: params.window_size as i64,
            mlp_ratio: 4,
            qkv_bias: true,
            patch_norm: false,
            normalize: true,
            norm_affine: false,
            downsample: params.downsample,
            use_v2: params.use_v2,
            drop_rate: params.drop_rate,
            attn_drop_rate: params.attn_drop_rate,
            dropout_path_rate: params.dropout_path_rate,
        }
    }

    /// Reads the shape from the tensors of a checkpoint with MONAI's names. How the resolution is halved, and whether the
    /// stages' outputs are normalised, leaves no trace in the shapes: MONAI's defaults are taken.
    ///
    /// # Errors
    /// A data error where a tensor that says it is missing, or the shapes are no Swin UNETR's.
    pub fn of_checkpoint(file: &Checkpoint) -> Result<Self> {
        let shape = |name: &str| file.shape(name).map(<[i64]>::to_vec);
        let needed = |name: &str, axes: usize| {
            shape(name).filter(|s| s.len() == axes).ok_or_else(|| {
                Error::data(format!("{file}: no tensor {name} of {axes} axes"))
                    .hint("give a state dict of MONAI's SwinUNETR, saved with safetensors.torch.save_file")
            })
        };
        let embed = needed("swinViT.patch_embed.proj.weight", 5)?;
        let stage = |stage: usize, block: usize| format!("swinViT.layers{stage}.0.blocks.{block}");
        let table =
            |s: usize| needed(&format!("{}.attn.relative_position_bias_table", stage(s, 0)), 2);
        let first = stage(1, 0);
        let depths = std::array::from_fn(|s| {
            let blocks = (0..64).take_while(|b| {
                file.shape(&format!("{}.norm1.weight", stage(s + 1, *b))).is_some()
            });
            blocks.count() as i64
        });
        let mut num_heads = [0; 4];
        for (s, heads) in num_heads.iter_mut().enumerate() {
            *heads = table(s + 1)?[1];
        }
        let rows = table(1)?[0];
        let config = Self {
            channels: embed[1],
            classes: needed("out.conv.conv.weight", 5)?[0],
            feature_size: embed[0],
            depths,
            num_heads,
            window_size: (1..64).find(|w: &i64| (2 * w - 1).pow(3) == rows).unwrap_or_default(),
            mlp_ratio: needed(&format!("{first}.mlp.linear1.weight"), 2)?[0] / embed[0].max(1),
            qkv_bias: shape(&format!("{first}.attn.qkv.bias")).is_some(),
            patch_norm: shape("swinViT.patch_embed.norm.weight").is_some(),
            normalize: true,
            norm_affine: shape("encoder1.layer.norm1.weight").is_some(),
            downsample: Merging::Merging,
            use_v2: shape("swinViT.layers1c.0.layer.conv1.conv.weight").is_some(),
            drop_rate: 0.0,
            attn_drop_rate: 0.0,
            dropout_path_rate: 0.0,
        };
        if embed[2..] != [PATCH; 3] {
            return Err(Error::data(format!("{file}: patches of {:?} voxels", &embed[2..]))
                .hint("only MONAI's default patch_size, 2, is supported"));
        }
        config.check().map_err(|e| e.context(file.to_string()))?;
        Ok(config)
    }

    /// Checks a configuration that was read from a file.
    pub(super) fn check(&self) -> Result<()> {
        let heads = (0..).zip(self.num_heads);
        let sound = (1..=64).contains(&self.channels)
            && (1..=256).contains(&self.classes)
            && (12..=768).contains(&self.feature_size)
            && self.depths.iter().all(|d| (1..=64).contains(d))
            && heads.into_iter().all(|(s, n)| n > 0 && (self.feature_size << s) % n == 0)
            && (2..=32).contains(&self.window_size)
            && (1..=16).contains(&self.mlp_ratio)
            && [self.drop_rate, self.attn_drop_rate, self.dropout_path_rate]
                .iter()
                .all(|rate| (0.0..1.0).contains(rate));
        if sound {
            return Ok(());
        }
        Err(Error::data(format!("the configuration is not a Swin UNETR's: {self:?}"))
            .hint("the model file is damaged, or of another network"))
    }
}
