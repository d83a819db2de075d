//! How well a predicted mask agrees with the truth: overlap, volumes, lesions, surfaces.
//!
//! With T the truth, P the prediction, both on one grid:
//! - `dice` = 2 |T ∩ P| / (|T| + |P|), `sensitivity` = |T ∩ P| / |T|, `precision` = |T ∩ P| / |P|, voxel-wise;
//! - volumes in mL: voxels × |det of the affine| / 1000;
//! - lesions are components that touch by a face, an edge or a corner (26-connectivity). A lesion of T that shares a
//!   voxel with P is found; one of P that shares none with T is false. `lesion_f1` = 2 tp / (2 tp + fn + fp) with tp the
//!   found and fn the missed lesions of T, fp the false ones of P, and `lesion_count_difference` = |n(T) − n(P)|:
//!   the ISLES'22 evaluation (Hernandez Petzsche et al. 2022, doi:10.1038/s41597-022-01875-5);
//! - the surface of a mask is its voxels with a face towards the outside (outside the grid counts as outside). Every
//!   surface voxel has a distance in mm to the nearest surface voxel of the other mask. `assd_mm` is the mean of the
//!   distances of both surfaces together; `hd95_mm` the larger of the two 95th percentiles (linear between order
//!   statistics).
//!
//! Empty masks: see [`EMPTY_POLICY`].

mod lesions;
mod overlap;
mod surface;

pub use lesions::{Lesions, lesions};
pub use overlap::{Overlap, overlap};
pub use surface::{SurfaceDistances, surface_distances};

use crate::error::{Error, Result};
use crate::volume::Mask;
use overlap::Bounds;

/// What the figures are where a mask is empty; written with every score.
pub const EMPTY_POLICY: &str = "both masks empty: dice, sensitivity, precision and lesion_f1 are 1; one empty: dice \
                                and lesion_f1 are 0, sensitivity or precision is 0, or null where it divides by 0; \
                                hd95_mm and assd_mm are null unless both have voxels";

/// Corners of the two grids may differ by this share of the smallest voxel edge.
const GRID_TOLERANCE: f64 = 0.1;

/// The agreement of one predicted mask with the truth. The module's head defines each figure.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scores {
    /// Overlap of the two, 0 to 1.
    pub dice: f64,
    /// Share of the truth's voxels that were found; none where only the truth is empty.
    pub sensitivity: Option<f64>,
    /// Share of the predicted voxels that are right; none where only the prediction is empty.
    pub precision: Option<f64>,
    /// Volume of the truth in mL.
    pub volume_truth_ml: f64,
    /// Volume of the prediction in mL.
    pub volume_predicted_ml: f64,
    /// Distance between the two volumes in mL.
    pub absolute_volume_difference_ml: f64,
    /// Harmonic mean of lesion-wise sensitivity and precision, 0 to 1.
    pub lesion_f1: f64,
    /// Lesions in the truth.
    pub lesion_count_truth: u64,
    /// Lesions in the prediction.
    pub lesion_count_predicted: u64,
    /// Distance between the two counts.
    pub lesion_count_difference: u64,
    /// 95 % Hausdorff distance in mm; none where a mask is empty.
    pub hd95_mm: Option<f64>,
    /// Average symmetric surface distance in mm; none where a mask is empty.
    pub assd_mm: Option<f64>,
    /// What these figures are where a mask is empty.
    pub empty_policy: String,
}

/// Scores a prediction against the truth.
///
/// # Errors
/// A data error where the two lie on different grids (another shape, or corners further apart than a tenth of the
/// smallest voxel edge), or on one whose voxels have no size.
pub fn score(truth: &Mask, predicted: &Mask) -> Result<Scores> {
    let overlap = overlap(truth, predicted)?;
    let bounds = Bounds::of(truth, predicted);
    let lesions = Lesions::count(truth, predicted, bounds.as_ref());
    let distances = SurfaceDistances::measure(truth, predicted, bounds.as_ref());
    let ml = truth.grid().voxel_volume_mm3() / 1000.0;
    let (volume_truth_ml, volume_predicted_ml) =
        (overlap.truth as f64 * ml, overlap.predicted as f64 * ml);
    Ok(Scores {
        dice: overlap.dice(),
        sensitivity: overlap.sensitivity(),
        precision: overlap.precision(),
        volume_truth_ml,
        volume_predicted_ml,
        absolute_volume_difference_ml: (volume_truth_ml - volume_predicted_ml).abs(),
        lesion_f1: lesions.f1(),
        lesion_count_truth: lesions.truth,
        lesion_count_predicted: lesions.predicted,
        lesion_count_difference: lesions.count_difference(),
        hd95_mm: distances.as_ref().map(|d| d.hd95_mm),
        assd_mm: distances.as_ref().map(|d| d.assd_mm),
        empty_policy: EMPTY_POLICY.to_owned(),
    })
}

/// `part / whole`, and 1 where there is nothing at all.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

fn same_grid(truth: &Mask, predicted: &Mask) -> Result<()> {
    let (a, b) = (truth.grid(), predicted.grid());
    if a.affine.spacing_mm().iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return Err(Error::data(format!(
            "the truth's voxels are {:?} mm apart along x, y, z; numbers above 0 are expected",
            a.affine.spacing_mm()
        ))
        .hint("set a valid sform or qform in the header"));
    }
    let hint = "resample the prediction to the truth's grid before scoring";
    if a.shape != b.shape {
        return Err(Error::data(format!(
            "the prediction has {:?} voxels (x, y, z), the truth {:?}",
            b.shape, a.shape
        ))
        .hint(hint));
    }
    let tolerance_mm =
        GRID_TOLERANCE * a.affine.spacing_mm().into_iter().fold(f64::INFINITY, f64::min);
    let distance_mm = a.corner_distance_mm(&b);
    if distance_mm > tolerance_mm {
        return Err(Error::data(format!(
            "corners of the prediction's grid lie up to {distance_mm:.3} mm from those of the truth \
             (at most {tolerance_mm:.3} mm, a tenth of a voxel, is taken as equal)"
        ))
        .hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "the same counts give the same quotient")]

    use ndarray::{Array3, s};
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::random::{chance, keyed};
    use crate::volume::{Affine, Grid, Volume};

    fn grid() -> Grid {
        Grid { shape: [9, 8, 7], affine: Affine::from_spacing_mm([1.5, 2.0, 4.0]) }
    }

    fn boxes(boxes: &[([usize; 3], [usize; 3])]) -> Mask {
        let mut mask = Volume::filled(&grid(), 0_u8);
        for &([x0, y0, z0], [x1, y1, z1]) in boxes {
            mask.data.slice_mut(s![z0..z1, y0..y1, x0..x1]).fill(1);
        }
        mask
    }

    fn random_mask(seed: u64, share: f64) -> Mask {
        let mut rng = keyed(seed, &["mask"]);
        let mut mask = Volume::filled(&grid(), 0_u8);
        mask.data.map_inplace(|v| *v = u8::from(chance(&mut rng, share)));
        mask
    }

    #[test]
    fn a_mask_agrees_with_itself() -> Result<()> {
        let mask = boxes(&[([1, 1, 1], [4, 4, 3]), ([6, 6, 4], [9, 8, 7])]);
        let s = score(&mask, &mask)?;
        assert_eq!(
            (s.dice, s.sensitivity, s.precision, s.lesion_f1),
            (1.0, Some(1.0), Some(1.0), 1.0)
        );
        assert_eq!((s.hd95_mm, s.assd_mm), (Some(0.0), Some(0.0)));
        assert_eq!((s.lesion_count_truth, s.lesion_count_difference), (2, 0));
        assert!((s.volume_truth_ml - 36.0 * 12.0 / 1000.0).abs() < 1e-12, "{s:?}");
        Ok(())
    }

    // benches/peers/geometry.py, `with_scipy`: NumPy 2.4.6 and SciPy 1.17.1 on the same boxes.
    #[test]
    fn agrees_with_scipy() -> Result<()> {
        let truth =
            boxes(&[([1, 1, 1], [4, 4, 3]), ([6, 6, 4], [9, 8, 7]), ([0, 6, 0], [1, 7, 1])]);
        let predicted =
            boxes(&[([2, 1, 1], [6, 3, 4]), ([7, 6, 5], [9, 8, 7]), ([5, 0, 6], [6, 1, 7])]);
        let s = score(&truth, &predicted)?;
        let got = [
            s.dice,
            s.sensitivity.unwrap_or(-1.0),
            s.precision.unwrap_or(-1.0),
            s.lesion_f1,
            s.hd95_mm.unwrap_or(-1.0),
            s.assd_mm.unwrap_or(-1.0),
        ];
        let want = [0.457_142_86, 0.432_432_43, 0.484_848_48, 0.666_666_67, 5.0, 1.765_933_93];
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} is not {want:?}");
        assert_eq!((s.lesion_count_truth, s.lesion_count_predicted), (3, 3));
        Ok(())
    }

    #[test]
    fn empty_masks_follow_the_written_policy() -> Result<()> {
        let (none, some) = (boxes(&[]), boxes(&[([1, 1, 1], [3, 3, 3])]));
        let s = score(&none, &none)?;
        assert_eq!(
            (s.dice, s.sensitivity, s.precision, s.lesion_f1),
            (1.0, Some(1.0), Some(1.0), 1.0)
        );
        assert_eq!((s.hd95_mm, s.assd_mm), (None, None));
        let s = score(&some, &none)?;
        assert_eq!((s.dice, s.sensitivity, s.precision, s.lesion_f1), (0.0, Some(0.0), None, 0.0));
        assert_eq!((s.hd95_mm, s.assd_mm, s.lesion_count_difference), (None, None, 1));
        let s = score(&none, &some)?;
        assert_eq!((s.dice, s.sensitivity, s.precision, s.lesion_f1), (0.0, None, Some(0.0), 0.0));
        assert_eq!(s.empty_policy, EMPTY_POLICY);
        Ok(())
    }

    #[test]
    fn corners_join_lesions() -> Result<()> {
        let mask = boxes(&[([1, 1, 1], [2, 2, 2]), ([2, 2, 2], [3, 3, 3]), ([5, 5, 5], [6, 6, 6])]);
        assert_eq!(score(&mask, &mask)?.lesion_count_truth, 2);
        Ok(())
    }

    #[test]
    fn grids_that_differ_are_refused_with_both_sides_named() {
        let truth = boxes(&[]);
        let mut shifted = truth.clone();
        shifted.affine.0[0][3] += 0.5;
        let reason = score(&truth, &shifted).map_err(|e| e.reason().to_owned());
        assert!(reason.as_ref().is_err_and(|r| r.contains("0.500 mm")), "{reason:?}");
        let smaller = Volume { data: Array3::zeros((7, 8, 8)), affine: truth.affine };
        let reason = score(&truth, &smaller).map_err(|e| e.reason().to_owned());
        assert!(reason.as_ref().is_err_and(|r| r.contains("[8, 8, 7]")), "{reason:?}");
        let mut rounded = truth.clone();
        rounded.affine.0[0][3] += 0.01;
        assert!(score(&truth, &rounded).is_ok());
    }

    #[test]
    fn voxels_without_a_size_are_refused() {
        let mut mask = boxes(&[([1, 1, 1], [3, 3, 3])]);
        for size in [0.0, f64::NAN] {
            mask.affine = Affine::from_spacing_mm([1.0, size, 1.0]);
            let reason = score(&mask, &mask).map_err(|e| e.reason().to_owned());
            assert!(reason.as_ref().is_err_and(|r| r.contains("mm apart")), "{reason:?}");
        }
    }

    #[test]
    fn the_parts_are_the_whole() -> Result<()> {
        let (t, p) = (random_mask(5, 0.1), random_mask(6, 0.1));
        let s = score(&t, &p)?;
        let (lesions, overlap) = (lesions(&t, &p)?, overlap(&t, &p)?);
        assert_eq!((lesions.f1(), overlap.dice()), (s.lesion_f1, s.dice));
        assert_eq!(
            [lesions.truth_voxels, lesions.predicted_voxels],
            [overlap.truth, overlap.predicted]
        );
        assert_eq!(surface_distances(&t, &p)?.map(|d| d.hd95_mm), s.hd95_mm);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn swapping_the_masks_swaps_sensitivity_and_precision(a in 0_u64..1_000_000, b in 0_u64..1_000_000) {
            let (t, p) = (random_mask(a, 0.1), random_mask(b, 0.05));
            let (forth, back) = (score(&t, &p)?, score(&p, &t)?);
            prop_assert_eq!(forth.sensitivity, back.precision);
            prop_assert_eq!(forth.dice, back.dice);
            prop_assert_eq!(forth.hd95_mm, back.hd95_mm);
            prop_assert!((forth.assd_mm.unwrap_or(0.0) - back.assd_mm.unwrap_or(0.0)).abs() < 1e-9);
            prop_assert!((0.0..=1.0).contains(&forth.dice) && (0.0..=1.0).contains(&forth.lesion_f1));
        }

        #[test]
        fn distances_and_volumes_scale_with_the_voxel(seed in 0_u64..1_000_000, factor in 0.2_f64..5.0) {
            let (t, p) = (random_mask(seed, 0.1), random_mask(seed + 1, 0.1));
            let affine = Affine(t.affine.0.map(|row| row.map(|v| v * factor)));
            let grown = |m: &Mask| Volume { data: m.data.clone(), affine };
            let (one, other) = (score(&t, &p)?, score(&grown(&t), &grown(&p))?);
            prop_assert_eq!(one.dice, other.dice);
            prop_assert_eq!(one.lesion_f1, other.lesion_f1);
            prop_assert!((one.volume_truth_ml * factor.powi(3) - other.volume_truth_ml).abs() < 1e-9);
            let (a, b) = (one.hd95_mm.unwrap_or(0.0) * factor, other.hd95_mm.unwrap_or(0.0));
            prop_assert!((a - b).abs() < 1e-5 * a.max(1.0), "{a} {b}");
        }
    }
}
