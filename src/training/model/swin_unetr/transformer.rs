//! The encoder of Swin UNETR: four stages of attention within windows (Liu et al. 2021, arXiv:2103.14030), every second
//! block with windows shifted by half, each stage ending in half the resolution. Tokens are `[batch, d, h, w, features]`.

use tch::{Kind, TchError, Tensor};
use torcula::engine::learner::Merging;

use super::attention::Attention;
use super::{PATCH, Residual, SwinUnetrConfig};
use crate::model::Store;
use crate::model::layers::{LayerNorm, Linear, plain_layer_norm};

/// The encoder.
#[derive(Debug)]
pub struct SwinTransformer {
    weight: Tensor,
    bias: Tensor,
    patch_norm: Option<LayerNorm>,
    normalize: bool,
    drop_rate: f64,
    stages: Vec<Stage>,
}

impl SwinTransformer {
    /// Builds the encoder with its first weights in `store`.
    pub fn new(store: &mut Store, config: &SwinUnetrConfig) -> Result<Self, TchError> {
        let size = config.feature_size;
        let bound = 1.0 / ((config.channels * PATCH.pow(3)) as f64).sqrt();
        let name = "swinViT.patch_embed";
        let shape = [size, config.channels, PATCH, PATCH, PATCH];
        Ok(Self {
            weight: store.uniform(&format!("{name}.proj.weight"), &shape, bound)?,
            bias: store.uniform(&format!("{name}.proj.bias"), &[size], bound)?,
            patch_norm: config
                .patch_norm
                .then(|| LayerNorm::new(store, &format!("{name}.norm"), size))
                .transpose()?,
            normalize: config.normalize,
            drop_rate: config.drop_rate,
            stages: (0..4).map(|s| Stage::new(store, s, config)).collect::<Result<_, _>>()?,
        })
    }

    /// The tokens before the first stage and after each, `[batch, features, d, h, w]`, finest first.
    pub fn forward(&self, images: &Tensor, training: bool) -> Result<[Tensor; 5], TchError> {
        let stride = [PATCH; 3];
        let embedded =
            images.f_conv3d(&self.weight, Some(&self.bias), stride, [0; 3], [1; 3], 1)?;
        let mut x = channels_last(&embedded)?;
        if let Some(norm) = &self.patch_norm {
            x = norm.forward(&x)?;
        }
        x = dropout(x, self.drop_rate, training)?;
        let mut found = vec![self.hand_out(&x)?];
        for stage in &self.stages {
            x = stage.forward(&x, training)?;
            found.push(self.hand_out(&x)?);
        }
        found.try_into().map_err(|_| TchError::Shape("a Swin UNETR has four stages".to_owned()))
    }

    fn hand_out(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = if self.normalize { plain_layer_norm(x)? } else { x.shallow_clone() };
        channels_first(&x)
    }
}

fn channels_last(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_permute([0, 2, 3, 4, 1])?.f_contiguous()
}

fn channels_first(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_permute([0, 4, 1, 2, 3])?.f_contiguous()
}

fn dropout(x: Tensor, rate: f64, training: bool) -> Result<Tensor, TchError> {
    if training && rate > 0.0 { x.f_dropout(rate, true) } else { Ok(x) }
}

/// Blocks at one resolution, and the way to the next.
#[derive(Debug)]
struct Stage {
    /// Before the blocks, in the second version of the network.
    convs: Option<Residual>,
    blocks: Vec<Block>,
    window: i64,
    merging: Merging,
    norm: LayerNorm,
    reduction: Linear,
}

impl Stage {
    fn new(store: &mut Store, stage: usize, config: &SwinUnetrConfig) -> Result<Self, TchError> {
        let features = config.feature_size << stage;
        let name = format!("swinViT.layers{}", stage + 1);
        let before: i64 = config.depths[..stage].iter().sum();
        let last = (config.depths.iter().sum::<i64>() - 1).max(1) as f64;
        let convs = config
            .use_v2
            .then(|| Residual::new(store, &format!("{name}c.0.layer"), [features; 2], false))
            .transpose()?;
        let mut blocks = Vec::new();
        for block in 0..config.depths[stage] {
            let drop_path = config.dropout_path_rate * (before + block) as f64 / last;
            let name = format!("{name}.0.blocks.{block}");
            blocks.push(Block::new(store, &name, features, stage, drop_path, config)?);
        }
        let down = format!("{name}.0.downsample");
        Ok(Self {
            convs,
            blocks,
            window: config.window_size,
            merging: config.downsample,
            norm: LayerNorm::new(store, &format!("{down}.norm"), 8 * features)?,
            reduction: Linear::new(
                store,
                &format!("{down}.reduction"),
                [8 * features, 2 * features],
                false,
            )?,
        })
    }

    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut x = x.shallow_clone();
        if let Some(convs) = &self.convs {
            x = channels_last(&convs.forward(&channels_first(&x)?)?)?;
        }
        let windows = Windows::new(&x, self.window);
        let labels = windows.labels(&x)?;
        for (number, block) in self.blocks.iter().enumerate() {
            let shifted = number % 2 == 1 && windows.shift != [0; 3];
            let labels = labels.as_ref().filter(|_| shifted);
            x = block.forward(&x, &windows, labels, training)?;
        }
        self.merge(&x)
    }

    /// Eight neighbours become one token of twice the features.
    fn merge(&self, x: &Tensor) -> Result<Tensor, TchError> {
        const FIRST: [[i64; 3]; 8] = [
            [0, 0, 0],
            [1, 0, 0],
            [0, 1, 0],
            [0, 0, 1],
            [1, 1, 0],
            [1, 0, 1],
            [0, 1, 1],
            [1, 1, 1],
        ];
        let size = x.size();
        let odd: Vec<i64> = size[1..4].iter().map(|n| n % 2).collect();
        let x = match odd[..] {
            [0, 0, 0] => x.shallow_clone(),
            _ => x.f_constant_pad_nd([0, 0, 0, odd[2], 0, odd[1], 0, odd[0]])?,
        };
        let mut neighbours = Vec::with_capacity(8);
        for number in 0..8 {
            let at = match self.merging {
                Merging::Merging => FIRST[number as usize],
                Merging::MergingV2 => [number >> 2, (number >> 1) & 1, number & 1],
            };
            let mut part = x.shallow_clone();
            for (axis, start) in (1..).zip(at) {
                part = part.f_slice(axis, start, None, 2)?;
            }
            neighbours.push(part);
        }
        self.reduction.forward(&self.norm.forward(&Tensor::f_cat(&neighbours, -1)?)?)
    }
}

/// How an image of tokens is divided into windows.
#[derive(Debug)]
struct Windows {
    /// Tokens of the image along each axis.
    size: [i64; 3],
    /// Tokens of a window along each axis: an axis no longer than a window is one window.
    window: [i64; 3],
    /// By how much the windows of every second block are shifted.
    shift: [i64; 3],
    /// Tokens along each axis after padding to whole windows.
    padded: [i64; 3],
}

impl Windows {
    fn new(x: &Tensor, window: i64) -> Self {
        let shape = x.size();
        let size = [shape[1], shape[2], shape[3]];
        let clipped = size.map(|n| n <= window);
        let of = |a: usize| if clipped[a] { size[a] } else { window };
        let window: [i64; 3] = std::array::from_fn(of);
        let shift = std::array::from_fn(|a| if clipped[a] { 0 } else { window[a] / 2 });
        let padded = std::array::from_fn(|a| (size[a] + window[a] - 1) / window[a] * window[a]);
        Self { size, window, shift, padded }
    }

    /// `[batch, d, h, w, features]` → `[batch · windows, tokens of a window, features]`
    fn divide(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let ([d, h, w], [a, b, c], shape) = (self.padded, self.window, x.size());
        let tokens = a * b * c;
        x.f_reshape([shape[0], d / a, a, h / b, b, w / c, c, shape[4]])?
            .f_permute([0, 1, 3, 5, 2, 4, 6, 7])?
            .f_reshape([-1, tokens, shape[4]])
    }

    /// The way back.
    fn join(&self, windows: &Tensor, batch: i64) -> Result<Tensor, TchError> {
        let ([d, h, w], [a, b, c]) = (self.padded, self.window);
        windows
            .f_reshape([batch, d / a, h / b, w / c, a, b, c, -1])?
            .f_permute([0, 1, 4, 2, 5, 3, 6, 7])?
            .f_reshape([batch, d, h, w, -1])
    }

    /// Which region each token of the shifted image comes from, `[batch · windows, tokens of a window]`: only those of one
    /// region attend to each other. None where nothing is shifted.
    fn labels(&self, x: &Tensor) -> Result<Option<Tensor>, TchError> {
        if self.shift == [0; 3] {
            return Ok(None);
        }
        let region = |axis: usize, at: i64| {
            let (length, shift) = (self.padded[axis], self.shift[axis]);
            match at {
                _ if shift == 0 || at >= length - shift => 2,
                _ if at >= length - self.window[axis] => 1,
                _ => 0,
            }
        };
        let [d, h, w] = self.padded;
        let mut labels = Vec::with_capacity((d * h * w) as usize);
        for z in 0..d {
            for y in 0..h {
                let row = 9 * region(0, z) + 3 * region(1, y);
                labels.extend((0..w).map(|x| (row + region(2, x)) as f32));
            }
        }
        let labels = Tensor::f_from_slice(&labels)?.f_view([1, d, h, w, 1])?;
        let windows = self.divide(&labels.f_to_device(x.device())?)?.f_squeeze_dim(-1)?;
        Ok(Some(windows.f_repeat([x.size()[0], 1])?))
    }
}

/// Attention within windows, then a perceptron for every token; both beside a shortcut.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    drop_rate: f64,
    drop_path: f64,
}

impl Block {
    fn new(
        store: &mut Store,
        name: &str,
        features: i64,
        stage: usize,
        drop_path: f64,
        config: &SwinUnetrConfig,
    ) -> Result<Self, TchError> {
        let hidden = config.mlp_ratio * features;
        Ok(Self {
            norm1: LayerNorm::new(store, &format!("{name}.norm1"), features)?,
            attention: Attention::new(
                store,
                &format!("{name}.attn"),
                features,
                config.num_heads[stage],
                config,
            )?,
            norm2: LayerNorm::new(store, &format!("{name}.norm2"), features)?,
            linear1: Linear::new(store, &format!("{name}.mlp.linear1"), [features, hidden], true)?,
            linear2: Linear::new(store, &format!("{name}.mlp.linear2"), [hidden, features], true)?,
            drop_rate: config.drop_rate,
            drop_path,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        windows: &Windows,
        labels: Option<&Tensor>,
        training: bool,
    ) -> Result<Tensor, TchError> {
        let attended = self.attend(&self.norm1.forward(x)?, windows, labels, training)?;
        let x = x.f_add(&self.path(attended, training)?)?;
        let hidden = self.linear1.forward(&self.norm2.forward(&x)?)?.f_gelu("none")?;
        let hidden = self.linear2.forward(&dropout(hidden, self.drop_rate, training)?)?;
        x.f_add(&self.path(dropout(hidden, self.drop_rate, training)?, training)?)
    }

    /// Attention within windows: pads to whole windows, shifts where there are `labels`, and goes back.
    fn attend(
        &self,
        x: &Tensor,
        windows: &Windows,
        labels: Option<&Tensor>,
        training: bool,
    ) -> Result<Tensor, TchError> {
        let missing: [i64; 3] = std::array::from_fn(|a| windows.padded[a] - windows.size[a]);
        let mut x = match missing {
            [0, 0, 0] => x.shallow_clone(),
            [d, h, w] => x.f_constant_pad_nd([0, 0, 0, w, 0, h, 0, d])?,
        };
        let batch = x.size()[0];
        if labels.is_some() {
            x = x.f_roll(windows.shift.map(|s| -s), [1, 2, 3])?;
        }
        let attended = self.attention.forward(&windows.divide(&x)?, labels, training)?;
        x = windows.join(&dropout(attended, self.drop_rate, training)?, batch)?;
        if labels.is_some() {
            x = x.f_roll(windows.shift, [1, 2, 3])?;
        }
        for (axis, size) in (1..).zip(windows.size) {
            x = x.f_narrow(axis, 0, size)?;
        }
        Ok(x)
    }

    /// Drops the whole update of some samples while training (Huang et al. 2016, arXiv:1603.09382).
    fn path(&self, update: Tensor, training: bool) -> Result<Tensor, TchError> {
        if !training || self.drop_path <= 0.0 {
            return Ok(update);
        }
        let keep = 1.0 - self.drop_path;
        let shape = [update.size()[0], 1, 1, 1, 1];
        let kept = Tensor::f_full(shape, keep, (Kind::Float, update.device()))?.f_bernoulli()?;
        update.f_mul(&kept.f_div_scalar(keep)?)
    }
}
