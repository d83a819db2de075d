//! The networks that can be trained, and what decides their shape.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrainParams;

/// The network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 3D U-Net with pre-activated units: normalisation, ReLU, convolution.
    #[default]
    Unet3d,
    /// Swin UNETR, parameter for parameter MONAI's: windowed attention, a convolutional decoder.
    SwinUnetr,
}

impl Architecture {
    /// The word in pipelines and in the `models` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unet3d => "unet3d",
            Self::SwinUnetr => "swin_unetr",
        }
    }
}

/// How feature maps are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// By the statistics of the batch while training, by running ones afterwards.
    #[default]
    Batch,
    /// Each channel of each sample by its own statistics.
    Instance,
    /// Groups of up to eight channels of each sample by their own statistics.
    Group,
}

/// How a Swin transformer halves its resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Merging {
    /// MONAI's `merging`: the eight neighbours in MONAI's first order.
    #[default]
    Merging,
    /// MONAI's `mergingv2`: the eight neighbours in the order of their coordinates.
    MergingV2,
}

/// The shape of a Swin UNETR. The defaults are MONAI's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SwinParams {
    /// Features of the first stage, a multiple of 12; each next stage has twice as many.
    #[schemars(range(min = 12, max = 192))]
    pub feature_size: usize,
    /// Transformer blocks of the four stages.
    pub depths: [usize; 4],
    /// Attention heads of the four stages; each divides its stage's features.
    pub num_heads: [usize; 4],
    /// Voxels of an attention window along an axis.
    #[schemars(range(min = 2, max = 16))]
    pub window_size: usize,
    /// How the resolution is halved.
    pub downsample: Merging,
    /// Whether a residual convolution stands before every stage (MONAI's `use_v2`).
    pub use_v2: bool,
    /// Share of features that are dropped while training.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub drop_rate: f64,
    /// Share of attention weights that are dropped while training.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub attn_drop_rate: f64,
    /// Share of the last block's updates that are dropped while training; earlier blocks have proportionally less.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub dropout_path_rate: f64,
}

impl Default for SwinParams {
    fn default() -> Self {
        Self {
            feature_size: 24,
            depths: [2; 4],
            num_heads: [3, 6, 12, 24],
            window_size: 7,
            downsample: Merging::Merging,
            use_v2: false,
            drop_rate: 0.0,
            attn_drop_rate: 0.0,
            dropout_path_rate: 0.0,
        }
    }
}

impl SwinParams {
    /// Everything that cannot be.
    pub fn problems(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let Self { feature_size, depths, num_heads, window_size, .. } = *self;
        let sound = (12..=192).contains(&feature_size) && feature_size.is_multiple_of(12);
        if !sound {
            wrong.push(format!(
                "feature_size is {feature_size}, expected a multiple of 12 up to 192"
            ));
        }
        if depths.iter().any(|d| !(1..=32).contains(d)) {
            wrong.push(format!("depths are {depths:?}, expected four counts from 1 to 32"));
        }
        for (stage, heads) in num_heads.into_iter().enumerate() {
            // What divides a wrong number of features says nothing.
            let features = feature_size << stage;
            if heads == 0 || sound && !features.is_multiple_of(heads) {
                wrong.push(format!(
                    "num_heads has {heads} for {features} features, expected a divisor"
                ));
            }
        }
        if !(2..=16).contains(&window_size) {
            wrong.push(format!("window_size is {window_size}, expected 2 to 16"));
        }
        for (name, rate) in [
            ("drop_rate", self.drop_rate),
            ("attn_drop_rate", self.attn_drop_rate),
            ("dropout_path_rate", self.dropout_path_rate),
        ] {
            if !(0.0..=0.9).contains(&rate) {
                wrong.push(format!("{name} is {rate}, expected 0 to 0.9"));
            }
        }
        wrong.into_iter().map(|w| format!("swin_unetr.{w}")).collect()
    }
}

/// Everything about the network of a train step that cannot be, or that its architecture does not have.
pub(super) fn problems(params: &TrainParams) -> Vec<String> {
    let (unused, default) = (params.model.name(), TrainParams::default());
    let mut wrong = Vec::new();
    let mut foreign = |given: &[(&str, bool)]| {
        let names = given.iter().filter(|(_, differs)| *differs);
        wrong.extend(names.map(|(name, _)| format!("{name} is given, and {unused} has none")));
    };
    match params.model {
        Architecture::SwinUnetr => {
            foreign(&[
                ("levels", params.levels != default.levels),
                ("filters", params.filters != default.filters),
                ("kernels", params.kernels.is_some()),
                ("strides", params.strides.is_some()),
                ("norm", params.norm != default.norm),
                ("dropout", params.dropout.to_bits() != default.dropout.to_bits()),
                ("deep_supervision", params.deep_supervision),
            ]);
            wrong.extend(params.swin_unetr.problems());
        }
        Architecture::Unet3d => {
            foreign(&[("swin_unetr", params.swin_unetr != default.swin_unetr)]);
            wrong.extend(unet3d(params));
        }
    }
    wrong
}

fn unet3d(params: &TrainParams) -> Vec<String> {
    let mut wrong = Vec::new();
    let levels = params.levels;
    if !(0.0..=0.9).contains(&params.dropout) {
        wrong.push(format!("dropout is {}, expected 0 to 0.9", params.dropout));
    }
    if params.deep_supervision && levels < 3 {
        wrong.push(format!("deep_supervision needs 3 levels or more, levels is {levels}"));
    }
    if let Some(kernels) = &params.kernels {
        let odd = kernels.iter().flatten().all(|k| matches!(k, 1 | 3 | 5 | 7));
        if !odd || kernels.len() != levels {
            wrong.push(format!(
                "kernels are {kernels:?}, expected {levels} triples (x, y, z) of 1, 3, 5 or 7: one a level"
            ));
        }
    }
    if let Some(strides) = &params.strides {
        let fit = strides.iter().all(|s| s.iter().all(|n| (1..=4).contains(n)) && *s != [1; 3]);
        if !fit || strides.len() + 1 != levels {
            wrong.push(format!(
                "strides are {strides:?}, expected {} triples (x, y, z) of 1 to 4, not all 1: one between two levels",
                levels.saturating_sub(1)
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(params: &TrainParams) -> String {
        params.validate().err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_an_architecture_does_not_have_is_refused() {
        let swin = TrainParams { model: Architecture::SwinUnetr, ..TrainParams::default() };
        assert_eq!(reasons(&swin), "");
        let mixed = TrainParams { levels: 5, deep_supervision: true, ..swin.clone() };
        let found = reasons(&mixed);
        for word in ["levels is given, and swin_unetr has none", "deep_supervision is given"] {
            assert!(found.contains(word), "{found}");
        }
        let swin_unetr = SwinParams { feature_size: 48, ..SwinParams::default() };
        assert_eq!(reasons(&TrainParams { swin_unetr: swin_unetr.clone(), ..swin }), "");
        let found = reasons(&TrainParams { swin_unetr, ..TrainParams::default() });
        assert!(found.contains("swin_unetr is given, and unet3d has none"), "{found}");
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let swin_unetr = SwinParams {
            feature_size: 20,
            num_heads: [3, 0, 12, 24],
            window_size: 1,
            drop_rate: f64::NAN,
            ..SwinParams::default()
        };
        let found = reasons(&TrainParams {
            model: Architecture::SwinUnetr,
            swin_unetr,
            ..TrainParams::default()
        });
        for word in
            ["feature_size is 20", "num_heads has 0", "window_size is 1", "drop_rate is NaN"]
        {
            assert!(found.contains(word), "{found}");
        }
        let found = reasons(&TrainParams {
            levels: 2,
            deep_supervision: true,
            kernels: Some(vec![[3; 3], [2; 3]]),
            strides: Some(vec![[1; 3]]),
            dropout: 1.0,
            ..TrainParams::default()
        });
        for word in ["deep_supervision needs 3", "kernels are", "strides are", "dropout is 1"] {
            assert!(found.contains(word), "{found}");
        }
    }
}
