//! Random changes to a training sample: drawn first, applied after.
//!
//! Every transform is a pair. The parameters (`Flip`, `Gamma`, ..) draw from a keyed generator and give a small record; the
//! record (`FlipDraw`, `GammaDraw`, ..) changes image and mask without any randomness. So a sample is replayed from its
//! record alone, on any machine, and the record can be stored beside it as JSON. Meanings and defaults are those of
//! `TorchIO` (Pérez-García et al. 2021, doi:10.1016/j.cmpb.2021.106236), except that each transform is applied to half of the
//! samples instead of all, so that a network also sees images as they were scanned.
//!
//! A record that changes nothing keeps the bytes.

mod affine_slices;
mod bias_field;
mod flip;
mod fused;
mod gamma;

use rand_chacha::ChaCha8Rng;

pub use affine_slices::{AffineSlices, AffineSlicesDraw, InPlane};
pub use bias_field::{BiasField, BiasFieldDraw};
pub use flip::{Direction, Flip, FlipDraw};
pub use gamma::{Gamma, GammaDraw};

use crate::error::{Error, Result};
use crate::imaging::random::chance;
use crate::volume::{Grid, Image, Mask};

/// The name of a transform.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// Rotation, scale and shift in the slice plane.
    AffineSlices,
    /// A smooth change of brightness.
    BiasField,
    /// Mirroring along axes of the head.
    Flip,
    /// A change of contrast.
    Gamma,
}

/// Which transforms a sample goes through, always in the order of the fields; one that is left out or null is not applied.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Augmentation")]
pub struct Plan {
    /// Rotation, scale and shift in the slice plane.
    pub affine_slices: Option<AffineSlices>,
    /// A smooth change of brightness.
    pub bias_field: Option<BiasField>,
    /// Mirroring along axes of the head.
    pub flip: Option<Flip>,
    /// A change of contrast.
    pub gamma: Option<Gamma>,
}

impl Plan {
    /// All four transforms with their defaults.
    pub fn all() -> Self {
        Self {
            affine_slices: Some(AffineSlices::default()),
            bias_field: Some(BiasField::default()),
            flip: Some(Flip::default()),
            gamma: Some(Gamma::default()),
        }
    }

    /// The named transforms with their defaults.
    pub fn of(names: &[Transform]) -> Self {
        let all = Self::all();
        let has = |name| names.contains(&name);
        Self {
            affine_slices: all.affine_slices.filter(|_| has(Transform::AffineSlices)),
            bias_field: all.bias_field.filter(|_| has(Transform::BiasField)),
            flip: all.flip.filter(|_| has(Transform::Flip)),
            gamma: all.gamma.filter(|_| has(Transform::Gamma)),
        }
    }

    /// Refuses parameters that mean nothing, with the parameter named.
    ///
    /// # Errors
    /// A configuration error for the first parameter out of its range.
    pub fn check(&self) -> Result<()> {
        self.affine_slices.as_ref().map_or(Ok(()), AffineSlices::check)?;
        self.bias_field.as_ref().map_or(Ok(()), BiasField::check)?;
        self.flip.as_ref().map_or(Ok(()), Flip::check)?;
        self.gamma.as_ref().map_or(Ok(()), Gamma::check)
    }

    /// Draws what happens to one sample on a grid. A transform that is not drawn, or draws no change, is left out.
    pub fn draw(&self, rng: &mut ChaCha8Rng, grid: &Grid) -> Draw {
        let affine = self.affine_slices.as_ref().filter(|p| chance(rng, p.probability));
        let affine_slices = affine.map(|p| p.draw(rng, grid));
        let bias = self.bias_field.as_ref().filter(|p| chance(rng, p.probability));
        let bias_field = bias.map(|p| p.draw(rng));
        let flip = self.flip.as_ref().map(|p| p.draw(rng, grid));
        let flip = flip.filter(|drawn| drawn.voxel_axes.contains(&true));
        let contrast = self.gamma.as_ref().filter(|p| chance(rng, p.probability));
        let gamma = contrast.map(|p| p.draw(rng));
        Draw { affine_slices, bias_field, flip, gamma }
    }
}

/// The record of what happens to one sample.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Draw {
    /// How its slices move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affine_slices: Option<AffineSlicesDraw>,
    /// The field that it is multiplied by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_field: Option<BiasFieldDraw>,
    /// The axes that are reversed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<FlipDraw>,
    /// The exponent of its contrast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<GammaDraw>,
}

impl Draw {
    /// Changes image and mask as recorded: the slices move, then the field, the mirror and the contrast.
    ///
    /// # Errors
    /// A data error where the mask has another shape than the image, or the record was made for another grid.
    pub fn apply(&self, image: &mut Image, mask: Option<&mut Mask>) -> Result<()> {
        fused::apply(self, image, mask)
    }
}

/// A drawn number to six decimals: short to read in the record, and short enough that every JSON reader gives back the
/// very same number.
fn to_record(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn same_shape(image: &Image, mask: &Mask) -> Result<()> {
    let (a, b) = (image.grid().shape, mask.grid().shape);
    if a == b {
        return Ok(());
    }
    Err(Error::data(format!("the image has {a:?} voxels (x, y, z), its mask {b:?}"))
        .hint("resample the mask to the image's grid first"))
}

fn check_probability(transform: &str, probability: f64) -> Result<()> {
    check_range(&format!("{transform}.probability"), probability, 0.0, 1.0)
}

fn check_range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::configuration(format!("{name} is {value} (expected {low} to {high})")))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, s};
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::random::keyed;
    use crate::volume::{Affine, Volume};

    /// `ramp` of benches/peers/augment.py.
    pub(super) fn ramp() -> Image {
        let data = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| {
            ((x * 7 + y * 13 + z * 29) % 31) as f32 + 0.5 * x as f32 - 0.25 * (y * z) as f32
        });
        Volume { data, affine: Affine::from_spacing_mm([2.0, 1.5, 4.0]) }
    }

    pub(super) fn lesion() -> Mask {
        let mut mask = Volume::filled(&ramp().grid(), 0_u8);
        mask.data.slice_mut(s![1..3, 1..4, 2..5]).fill(1);
        mask
    }

    fn eager() -> Plan {
        let mut plan = Plan::all();
        plan.affine_slices = Some(AffineSlices {
            probability: 1.0,
            translation_mm: 2.0,
            slice_jitter: 0.2,
            ..Default::default()
        });
        plan.bias_field = Some(BiasField { probability: 1.0, ..Default::default() });
        plan.gamma = Some(Gamma { probability: 1.0, ..Default::default() });
        plan
    }

    #[test]
    fn the_empty_plan_keeps_the_bytes() -> Result<()> {
        let (mut image, mut mask) = (ramp(), lesion());
        let drawn = Plan::default().draw(&mut keyed(1, &["draw"]), &image.grid());
        assert_eq!(drawn, Draw::default());
        drawn.apply(&mut image, Some(&mut mask))?;
        assert_eq!((image, mask), (ramp(), lesion()));
        Ok(())
    }

    #[test]
    fn each_transform_is_drawn_as_often_as_its_probability() {
        let (grid, mut rng) = (ramp().grid(), keyed(2, &["often"]));
        let mut counts = [0; 4];
        for _ in 0..2000 {
            let d = Plan::all().draw(&mut rng, &grid);
            let drawn = [
                d.affine_slices.is_some(),
                d.bias_field.is_some(),
                d.flip.is_some(),
                d.gamma.is_some(),
            ];
            counts.iter_mut().zip(drawn).for_each(|(n, d)| *n += i32::from(d));
        }
        assert!(counts.iter().all(|n| (900..1100).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_plan_is_read_from_names_and_from_parameters() -> serde_json::Result<()> {
        let plan = Plan::of(&serde_json::from_str::<Vec<Transform>>(r#"["flip", "gamma"]"#)?);
        assert!(plan.flip.is_some() && plan.gamma.is_some() && plan.bias_field.is_none());
        let plan: Plan =
            serde_json::from_str(r#"{"flip": {"directions": ["left", "superior"]}, "gamma": {}}"#)?;
        assert_eq!(plan.gamma, Some(Gamma::default()));
        let directions = plan.flip.map(|f| f.directions);
        assert_eq!(directions, Some(vec![Direction::LeftRight, Direction::InferiorSuperior]));
        assert!(serde_json::from_str::<Plan>(r#"{"gama": {}}"#).is_err());
        Ok(())
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let mut plan = Plan::all();
        assert!(plan.check().is_ok());
        plan.gamma = Some(Gamma { probability: 1.5, ..Default::default() });
        let reason = plan.check().map_err(|e| e.reason().to_owned());
        assert_eq!(reason, Err("gamma.probability is 1.5 (expected 0 to 1)".to_owned()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_recorded_draw_replays_the_same_bytes(seed in any::<u64>()) {
            let (mut image, mut mask) = (ramp(), lesion());
            let drawn = eager().draw(&mut keyed(seed, &["replay"]), &image.grid());
            drawn.apply(&mut image, Some(&mut mask))?;
            let stored = serde_json::to_string(&drawn)?;
            let read: Draw = serde_json::from_str(&stored)?;
            prop_assert_eq!(&read, &drawn);
            let (mut again, mut mask_again) = (ramp(), lesion());
            read.apply(&mut again, Some(&mut mask_again))?;
            prop_assert!(image.data.iter().zip(&again.data).all(|(a, b)| a.to_bits() == b.to_bits()));
            prop_assert_eq!(&mask, &mask_again);
            prop_assert!(mask.data.iter().all(|v| *v <= 1));
            prop_assert!(image.data.iter().all(|v| v.is_finite()));
        }
    }
}
