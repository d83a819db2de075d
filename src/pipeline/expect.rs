//! What a test inside a pipeline file may expect of a stage, compared on the image before and after it.
//!
//! "In the brain" means: where the brain mask is 1, or over the whole image where there is no mask. The peak is the centre of the fullest
//! of 256 bins between the smallest and the largest intensity; the coefficient of variation (cv) is the standard deviation
//! over the mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::volume::{Image, Mask};

/// Something that must hold after a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// No intensity is below this.
    MinAtLeast(f64),
    /// No intensity is above this.
    MaxAtMost(f64),
    /// Lower and upper bound of the mean in the brain.
    MeanBetween([f64; 2]),
    /// Lower and upper bound of the histogram's peak in the brain.
    PeakBetween([f64; 2]),
    /// Upper bound of the coefficient of variation in the brain.
    CvInBrainBelow(f64),
    /// By which share of itself the coefficient of variation in the brain is at least reduced, 0 to 1.
    CvInBrainReducedBy(f64),
    /// Lower and upper bound of the brain mask's volume in mL.
    BrainVolumeMlBetween([f64; 2]),
    /// Distance of voxels along x, y, z afterwards, in mm.
    SpacingMm([f64; 3]),
    /// Number of voxels along x, y, z afterwards.
    Shape([usize; 3]),
    /// Something is different.
    Changed,
    /// Nothing is different.
    Unchanged,
    /// Nothing outside of the brain is different.
    UnchangedOutsideBrain,
    /// Outside of the brain is nothing but 0.
    ZeroOutsideBrain,
}

/// Whether an expectation holds for a stage that made `after` from `before`; `brain` is the mask after the stage.
///
/// # Errors
/// What was found and what was expected, in one line.
pub fn evaluate(
    expectation: &Expectation,
    before: &Image,
    after: &Image,
    brain: Option<&Mask>,
) -> Result<(), String> {
    if brain.is_some_and(|b| b.data.dim() != after.data.dim()) {
        return Err("the brain mask is on another grid than the image".to_owned());
    }
    let same_grid = before.data.dim() == after.data.dim();
    match expectation {
        Expectation::MinAtLeast(min) => {
            let found = after.voxels().iter().copied().fold(f32::INFINITY, f32::min);
            hold(f64::from(found) >= *min, || {
                format!("the smallest intensity is {found}, below {min}")
            })
        }
        Expectation::MaxAtMost(max) => {
            let found = after.voxels().iter().copied().fold(f32::NEG_INFINITY, f32::max);
            hold(f64::from(found) <= *max, || {
                format!("the largest intensity is {found}, above {max}")
            })
        }
        Expectation::MeanBetween(range) => {
            between("the mean in the brain", mean_and_cv(after, brain).0, range)
        }
        Expectation::PeakBetween(range) => {
            between("the peak in the brain", peak(after, brain), range)
        }
        Expectation::CvInBrainBelow(max) => {
            let found = mean_and_cv(after, brain).1;
            hold(found < *max, || format!("the cv in the brain is {found:.4}, not below {max}"))
        }
        Expectation::CvInBrainReducedBy(share) => {
            let mask = brain.filter(|_| same_grid);
            let (was, is) = (mean_and_cv(before, mask).1, mean_and_cv(after, brain).1);
            hold(is <= was * (1.0 - share), || {
                format!(
                    "the cv in the brain went from {was:.4} to {is:.4}, not down by a share of {share}"
                )
            })
        }
        Expectation::BrainVolumeMlBetween(range) => {
            let Some(brain) = brain else { return Err("there is no brain mask".to_owned()) };
            let voxels = brain.voxels().iter().map(|v| usize::from(*v)).sum::<usize>();
            let volume_ml = voxels as f64 * brain.grid().voxel_volume_mm3() / 1000.0;
            between("the brain's volume in mL", volume_ml, range)
        }
        Expectation::SpacingMm(spacing_mm) => {
            let found = after.spacing_mm();
            let equal = found.iter().zip(spacing_mm).all(|(a, b)| (a - b).abs() < 1e-3);
            hold(equal, || format!("the voxels are {found:?} mm apart, not {spacing_mm:?}"))
        }
        Expectation::Shape(shape) => {
            let found = after.grid().shape;
            hold(found == *shape, || format!("the shape is {found:?}, not {shape:?}"))
        }
        Expectation::Changed => hold(before != after, || "nothing has changed".to_owned()),
        Expectation::Unchanged => hold(before == after, || "the image has changed".to_owned()),
        Expectation::UnchangedOutsideBrain => {
            if !same_grid {
                return Err("the image is on another grid than before".to_owned());
            }
            let pairs = before.voxels().iter().zip(after.voxels());
            let n = outside(pairs, brain)?.filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            hold(n == 0, || format!("{n} voxels outside of the brain have changed"))
        }
        Expectation::ZeroOutsideBrain => {
            let n = outside(after.voxels().iter(), brain)?.filter(|v| **v != 0.0).count();
            hold(n == 0, || format!("{n} voxels outside of the brain are not 0"))
        }
    }
}

fn hold(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn between(what: &str, found: f64, [low, high]: &[f64; 2]) -> Result<(), String> {
    let holds = found >= *low && found <= *high;
    hold(holds, || format!("{what} is {found:.4}, not between {low} and {high}"))
}

fn outside<'a, T>(
    items: impl Iterator<Item = T> + 'a,
    brain: Option<&'a Mask>,
) -> Result<impl Iterator<Item = T> + 'a, String> {
    let brain = brain.ok_or_else(|| "there is no brain mask".to_owned())?;
    Ok(items.zip(brain.voxels()).filter(|(_, inside)| **inside == 0).map(|(item, _)| item))
}

fn inside<'a>(image: &'a Image, brain: Option<&'a Mask>) -> impl Iterator<Item = f64> + 'a {
    let mask = brain.map(Mask::voxels);
    let voxels = image.voxels().iter().enumerate();
    voxels.filter(move |(i, _)| mask.is_none_or(|m| m[*i] == 1)).map(|(_, v)| f64::from(*v))
}

/// Mean and coefficient of variation (σ / µ, over n) in the brain; 0 where there is nothing.
fn mean_and_cv(image: &Image, brain: Option<&Mask>) -> (f64, f64) {
    let n = inside(image, brain).count().max(1) as f64;
    let mean = inside(image, brain).sum::<f64>() / n;
    let variance = inside(image, brain).map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, if mean == 0.0 { 0.0 } else { variance.sqrt() / mean.abs() })
}

/// Centre of the fullest of 256 bins between the smallest and the largest intensity.
fn peak(image: &Image, brain: Option<&Mask>) -> f64 {
    let low = inside(image, brain).fold(f64::INFINITY, f64::min);
    let high = inside(image, brain).fold(f64::NEG_INFINITY, f64::max);
    if high <= low || !(high - low).is_finite() {
        return low;
    }
    let width = (high - low) / 256.0;
    let mut bins = [0_usize; 256];
    for v in inside(image, brain) {
        bins[(((v - low) / width) as usize).min(255)] += 1;
    }
    let fullest = (0..256).rev().max_by_key(|b| bins[*b]).unwrap_or(0);
    low + (fullest as f64 + 0.5) * width
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::phantom::PhantomParams;
    use super::*;

    fn check(expectation: &Expectation, change: impl Fn(&mut Image)) -> Result<(), String> {
        let phantom = PhantomParams { bias: 0.3, ..PhantomParams::default() }.make().unwrap();
        let mut after = phantom.image.clone();
        change(&mut after);
        evaluate(expectation, &phantom.image, &after, Some(&phantom.brain))
    }

    #[test]
    fn each_expectation_can_hold_and_fail() {
        let flat = PhantomParams::default().make().unwrap();
        let clip = |image: &mut Image| image.data.mapv_inplace(|v| v.min(90.0));
        let none = |_: &mut Image| {};
        let unbias = |image: &mut Image| image.data.assign(&flat.image.data);
        let strip = |image: &mut Image| {
            image.data.zip_mut_with(&flat.brain.data, |v, b| *v *= f32::from(*b));
        };
        assert!(check(&Expectation::MaxAtMost(90.0), clip).is_ok());
        assert!(check(&Expectation::MaxAtMost(90.0), none).is_err());
        assert!(check(&Expectation::MinAtLeast(0.0), none).is_ok());
        assert!(check(&Expectation::MinAtLeast(1.0), none).is_err());
        assert!(check(&Expectation::PeakBetween([99.0, 101.0]), unbias).is_ok());
        assert!(check(&Expectation::PeakBetween([99.0, 101.0]), clip).is_err());
        assert!(check(&Expectation::MeanBetween([90.0, 110.0]), unbias).is_ok());
        assert!(check(&Expectation::MeanBetween([0.0, 10.0]), unbias).is_err());
        assert!(check(&Expectation::CvInBrainReducedBy(0.05), unbias).is_ok());
        assert!(check(&Expectation::CvInBrainReducedBy(0.05), none).is_err());
        assert!(check(&Expectation::CvInBrainBelow(0.5), unbias).is_ok());
        assert!(check(&Expectation::CvInBrainBelow(0.01), unbias).is_err());
        assert!(check(&Expectation::ZeroOutsideBrain, strip).is_ok());
        assert!(check(&Expectation::ZeroOutsideBrain, none).is_err());
        assert!(check(&Expectation::UnchangedOutsideBrain, none).is_ok());
        assert!(check(&Expectation::UnchangedOutsideBrain, strip).is_err());
        assert!(check(&Expectation::Changed, strip).is_ok());
        assert!(check(&Expectation::Unchanged, strip).is_err());
        assert!(check(&Expectation::Shape([48, 48, 16]), none).is_ok());
        assert!(check(&Expectation::SpacingMm([4.0, 4.0, 7.0]), none).is_err());
        assert!(check(&Expectation::BrainVolumeMlBetween([900.0, 1800.0]), none).is_ok());
    }

    #[test]
    fn a_missing_mask_is_said() {
        let phantom = PhantomParams::default().make().unwrap();
        let image = &phantom.image;
        let found = evaluate(&Expectation::ZeroOutsideBrain, image, image, None);
        assert_eq!(found, Err("there is no brain mask".to_owned()));
    }
}
