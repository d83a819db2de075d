//! What networks are built of. A layer keeps handles on named tensors of a [`Store`].

use tch::{TchError, Tensor};
use torcula::engine::learner::Normalization;

use super::Store;

const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;
/// Groups of a group normalisation, where they divide the channels.
const GROUPS: i64 = 8;

/// A convolution that keeps the shape.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    padding: [i64; 3],
}

impl Conv {
    /// A convolution `name` with kernels along the three axes. Its bias, if any, starts at a value; none is needed where a
    /// normalisation follows.
    pub fn new(
        store: &mut Store,
        name: &str,
        [from, to]: [i64; 2],
        kernel: [i64; 3],
        bias: Option<f64>,
    ) -> Result<Self, TchError> {
        let shape = [to, from, kernel[0], kernel[1], kernel[2]];
        let fan_in = from * kernel.iter().product::<i64>();
        let weight = store.weight(&format!("{name}.weight"), &shape, fan_in)?;
        let bias = bias.map(|b| store.constant(&format!("{name}.bias"), to, b)).transpose()?;
        Ok(Self { weight, bias, padding: kernel.map(|k| k / 2) })
    }

    /// # Shapes
    /// `[batch, from, d, h, w]` → `[batch, to, d, h, w]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_conv3d(&self.weight, self.bias.as_ref(), [1; 3], self.padding, [1; 3], 1)
    }
}

/// A transposed convolution whose kernels do not overlap: every axis becomes `stride` times as long.
#[derive(Debug)]
pub struct UpConv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: [i64; 3],
}

impl UpConv {
    /// A transposed convolution `name`.
    pub fn new(
        store: &mut Store,
        name: &str,
        [from, to]: [i64; 2],
        stride: [i64; 3],
        bias: bool,
    ) -> Result<Self, TchError> {
        let shape = [from, to, stride[0], stride[1], stride[2]];
        let weight = store.weight(&format!("{name}.weight"), &shape, from)?;
        let bias = bias.then(|| store.constant(&format!("{name}.bias"), to, 0.0)).transpose()?;
        Ok(Self { weight, bias, stride })
    }

    /// # Shapes
    /// `[batch, from, d, h, w]` → `[batch, to, d · stride, h · stride, w · stride]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (bias, stride) = (self.bias.as_ref(), self.stride);
        x.f_conv_transpose3d(&self.weight, bias, stride, [0; 3], [0; 3], 1, [1; 3])
    }
}

/// Normalisation of feature maps.
#[derive(Debug)]
pub struct Norm {
    /// Scale and shift of every channel, where they are trained.
    affine: Option<[Tensor; 2]>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Running mean and variance.
    Batch([Tensor; 2]),
    Instance,
    Group(i64),
}

impl Norm {
    /// A normalisation `name` with a trained scale and shift.
    pub fn new(
        store: &mut Store,
        name: &str,
        channels: i64,
        normalization: Normalization,
    ) -> Result<Self, TchError> {
        let scale = store.constant(&format!("{name}.scale"), channels, 1.0)?;
        let shift = store.constant(&format!("{name}.shift"), channels, 0.0)?;
        let kind = match normalization {
            Normalization::Batch => Kind::Batch([
                store.statistic(&format!("{name}.mean"), channels, 0.0)?,
                store.statistic(&format!("{name}.variance"), channels, 1.0)?,
            ]),
            Normalization::Instance => Kind::Instance,
            Normalization::Group => Kind::Group(greatest_common_divisor(channels, GROUPS)),
        };
        Ok(Self { affine: Some([scale, shift]), kind })
    }

    /// Instance normalisation with a trained scale and shift, named as PyTorch does.
    pub fn instance(store: &mut Store, name: &str, channels: i64) -> Result<Self, TchError> {
        let scale = store.constant(&format!("{name}.weight"), channels, 1.0)?;
        let shift = store.constant(&format!("{name}.bias"), channels, 0.0)?;
        Ok(Self { affine: Some([scale, shift]), kind: Kind::Instance })
    }

    /// Instance normalisation without parameters.
    pub fn plain_instance() -> Self {
        Self { affine: None, kind: Kind::Instance }
    }

    /// Normalises; while `training`, batch normalisation uses the batch's statistics and updates the running ones.
    ///
    /// # Shapes
    /// `[batch, channels, d, h, w]`, kept.
    pub fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let [scale, shift] = match &self.affine {
            Some([scale, shift]) => [Some(scale), Some(shift)],
            None => [None, None],
        };
        match &self.kind {
            Kind::Batch([mean, variance]) => x.f_batch_norm(
                scale,
                shift,
                Some(mean),
                Some(variance),
                training,
                MOMENTUM,
                EPSILON,
                true,
            ),
            Kind::Instance => x.f_instance_norm(
                scale,
                shift,
                None::<&Tensor>,
                None::<&Tensor>,
                true,
                MOMENTUM,
                EPSILON,
                true,
            ),
            Kind::Group(groups) => x.f_group_norm(*groups, scale, shift, EPSILON, true),
        }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A linear map of the last axis.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A linear map `name`; first weights are uniform within ±1/√from, as PyTorch's.
    pub fn new(
        store: &mut Store,
        name: &str,
        [from, to]: [i64; 2],
        bias: bool,
    ) -> Result<Self, TchError> {
        let bound = 1.0 / (from as f64).sqrt();
        let weight = store.uniform(&format!("{name}.weight"), &[to, from], bound)?;
        let bias =
            bias.then(|| store.uniform(&format!("{name}.bias"), &[to], bound)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// # Shapes
    /// `[.., from]` → `[.., to]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, self.bias.as_ref())
    }
}

/// Layer normalisation of the last axis.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    size: i64,
}

impl LayerNorm {
    /// A layer normalisation `name` of `size` features.
    pub fn new(store: &mut Store, name: &str, size: i64) -> Result<Self, TchError> {
        let weight = store.constant(&format!("{name}.weight"), size, 1.0)?;
        let bias = store.constant(&format!("{name}.bias"), size, 0.0)?;
        Ok(Self { weight, bias, size })
    }

    /// # Shapes
    /// `[.., size]`, kept.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm([self.size], Some(&self.weight), Some(&self.bias), EPSILON, true)
    }
}

/// Layer normalisation of the last axis without parameters.
pub fn plain_layer_norm(x: &Tensor) -> Result<Tensor, TchError> {
    let size = x.size().last().copied().unwrap_or_default();
    x.f_layer_norm([size], None::<&Tensor>, None::<&Tensor>, EPSILON, true)
}
