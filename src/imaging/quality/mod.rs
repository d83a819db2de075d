//! What can be measured on one image to tell a good scan from a bad one, and the verdict on it.
//!
//! Definitions follow MRIQC (Esteban et al. 2017, doi:10.1371/journal.pone.0184661) wherever it has the measure; each file
//! gives formula, unit and source, and says where the absence of a tissue segmentation makes ours differ. All measures
//! are pure functions of the voxels: [`measure`] takes them, [`judge`] holds them against [`Thresholds`].

mod foreground;
mod ghosting;
mod intensity;
mod noise;
mod slices;
mod verdict;

use std::borrow::Cow;

pub use noise::NoiseSource;
pub use verdict::{Judgement, Thresholds, Verdict, judge};

use crate::error::{Error, Result};
use crate::volume::{Image, Mask};
use foreground::Head;
use intensity::Census;

/// The signal-to-noise ratio given to an image without any noise.
const SNR_LIMIT: f64 = 10_000.0;

/// The voxel axis along which phase was encoded.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PhaseAxis {
    /// Left to right on most scanners.
    X,
    /// Front to back, as in nearly all brain EPI.
    #[default]
    Y,
}

/// What the measures need to be told.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "QualityOptions")]
pub struct Options {
    /// The voxel axis along which phase was encoded, where ghosts are looked for.
    pub phase_axis: PhaseAxis,
    /// A slice has dropped out where its mean is below this share of its neighbours'.
    pub dropout_ratio: f64,
}

impl Default for Options {
    /// Phase along y; a slice that lost 40 % of its signal has dropped out.
    fn default() -> Self {
        Self { phase_axis: PhaseAxis::Y, dropout_ratio: 0.6 }
    }
}

/// The measures of one image. Intensities are in the image's own units, shares between 0 and 1.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Quality {
    /// Smallest finite voxel.
    pub intensity_min: f64,
    /// Largest finite voxel.
    pub intensity_max: f64,
    /// Voxels that are NaN or infinite.
    pub nonfinite_share: f64,
    /// Voxels below 0.
    pub negative_share: f64,
    /// Head voxels at exactly the maximum; 0 where there are five or fewer.
    pub clipped_share: f64,
    /// Voxels in the head: above Otsu's threshold.
    pub foreground_share: f64,
    /// Standard deviation of the noise.
    pub noise_sigma: f64,
    /// What the noise was estimated from.
    pub noise_source: NoiseSource,
    /// Mean of the head / `noise_sigma`; at most 10,000, which an image without noise has.
    pub snr: f64,
    /// Entropy focus criterion, 0 sharp to 1 blurred.
    pub efc: f64,
    /// Coefficient of joint variation of the head's two intensity classes.
    pub cjv: f64,
    /// Ghost-to-signal ratio along the phase axis; negative where the ghost's place is darker than the rest.
    pub ghost_to_signal_ratio: f64,
    /// Largest relative step of the median between neighbouring slices, 0 to 1.
    pub slice_jump_max: f64,
    /// Slices that lost their signal.
    pub dropout_slices: u64,
    /// Volume of the truth in mL, where there is one.
    pub truth_volume_ml: Option<f64>,
    /// Voxels of the truth that lie outside the (filled) head, where there is a truth with voxels.
    pub truth_outside_head_share: Option<f64>,
}

/// Takes every measure. NaN and infinite voxels count in `nonfinite_share` and are 0 for the other measures.
///
/// # Errors
/// A data error where the image has no voxels, or the truth another shape than the image.
pub fn measure(image: &Image, truth: Option<&Mask>, options: &Options) -> Result<Quality> {
    let grid = image.grid();
    if grid.voxels() == 0 {
        return Err(Error::data(format!(
            "the image has {:?} voxels (x, y, z), so none",
            grid.shape
        )));
    }
    let census = Census::take(image.voxels());
    let image = without_nonfinite(image, census.nonfinite_share);
    let voxels = image.voxels();
    let (low, high) = finite_range(&census);
    let head = Head::find(&image, low, high);
    let (noise_sigma, noise_source) = noise::sigma(voxels, &head, image.spacing_mm()[0]);
    let truth = truth.map(|t| truth_measures(t, &image, &head)).transpose()?;
    Ok(Quality {
        intensity_min: f64::from(census.min),
        intensity_max: f64::from(census.max),
        nonfinite_share: census.nonfinite_share,
        negative_share: census.negative_share,
        clipped_share: intensity::clipped_share(&head, census.max),
        foreground_share: head.voxels() as f64 / voxels.len() as f64,
        noise_sigma,
        noise_source,
        snr: snr(&head, noise_sigma),
        efc: intensity::efc(voxels),
        cjv: intensity::cjv(&head, census.max),
        ghost_to_signal_ratio: ghosting::ratio(voxels, &head, options.phase_axis),
        slice_jump_max: slices::largest_jump(voxels, &head),
        dropout_slices: slices::dropouts(voxels, &head, options.dropout_ratio) as u64,
        truth_volume_ml: truth.map(|(volume_ml, _)| volume_ml),
        truth_outside_head_share: truth.and_then(|(_, outside)| outside),
    })
}

/// The image itself, or a copy with zeros for NaN and infinity.
fn without_nonfinite(image: &Image, nonfinite_share: f64) -> Cow<'_, Image> {
    if nonfinite_share == 0.0 {
        return Cow::Borrowed(image);
    }
    let mut finite = image.clone();
    finite.data.map_inplace(|v| *v = if v.is_finite() { *v } else { 0.0 });
    Cow::Owned(finite)
}

/// The range of the voxels once NaN and infinity are 0.
fn finite_range(census: &Census) -> (f32, f32) {
    if census.nonfinite_share > 0.0 {
        (census.min.min(0.0), census.max.max(0.0))
    } else {
        (census.min, census.max)
    }
}

fn snr(head: &Head, noise_sigma: f64) -> f64 {
    if head.voxels() == 0 {
        return 0.0;
    }
    let mean = head.values.iter().map(|v| f64::from(*v)).sum::<f64>() / head.voxels() as f64;
    let ratio = mean / noise_sigma;
    if ratio.is_finite() { ratio.clamp(0.0, SNR_LIMIT) } else { SNR_LIMIT }
}

/// Volume in mL, and the share of its voxels outside the head.
fn truth_measures(truth: &Mask, image: &Image, head: &Head) -> Result<(f64, Option<f64>)> {
    let (a, b) = (image.grid().shape, truth.grid().shape);
    if a != b {
        return Err(Error::data(format!("the image has {a:?} voxels (x, y, z), its truth {b:?}"))
            .hint("give the truth on the image's grid"));
    }
    let [nx, ny, _] = a;
    let (mut inside, mut all) = (0_usize, 0_usize);
    for (z, slice) in truth.voxels().chunks_exact(nx * ny).enumerate() {
        let count = slice.iter().filter(|&&t| t != 0).count();
        if count > 0 {
            let filled = head.filled_slice(z);
            inside += slice.iter().zip(filled).filter(|(t, f)| **t != 0 && *f).count();
            all += count;
        }
    }
    let volume_ml = all as f64 * image.grid().voxel_volume_mm3() / 1000.0;
    Ok((volume_ml, (all > 0).then(|| (all - inside) as f64 / all as f64)))
}

/// The middle value, or the mean of the two middle ones; reorders the values. None where there are none.
fn median(values: &mut [f32]) -> Option<f64> {
    let upper = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    if values.is_empty() {
        return None;
    }
    let (below, value, _) = values.select_nth_unstable_by(upper, f32::total_cmp);
    let value = f64::from(*value);
    if !even {
        return Some(value);
    }
    let lower = below.iter().copied().max_by(f32::total_cmp)?;
    Some(f64::midpoint(f64::from(lower), value))
}

#[cfg(test)]
pub(super) mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::imaging::random::{keyed, normal};
    use crate::volume::{Affine, Volume};

    /// A ball of 1000 in a Rician background of the given noise, 48 × 48 × 12 voxels of 2 × 2 × 5 mm.
    pub(in crate::imaging) fn ball(sigma: f64) -> Image {
        let mut rng = keyed(11, &["ball"]);
        let data = Array3::from_shape_fn((12, 48, 48), |(z, y, x)| {
            let r = [(x as f64 - 23.5) * 2.0, (y as f64 - 23.5) * 2.0, (z as f64 - 5.5) * 5.0];
            let signal =
                if r.iter().map(|v| v * v).sum::<f64>() < 27.0_f64.powi(2) { 1000.0 } else { 0.0 };
            (signal + sigma * normal(&mut rng)).hypot(sigma * normal(&mut rng)) as f32
        });
        Volume { data, affine: Affine::from_spacing_mm([2.0, 2.0, 5.0]) }
    }

    fn truth(image: &Image) -> Mask {
        let mut mask = Volume::filled(&image.grid(), 0_u8);
        mask.data.slice_mut(ndarray::s![5..7, 20..26, 20..30]).fill(1);
        mask
    }

    #[test]
    fn noise_in_air_and_in_the_head_agree_with_what_was_added() -> Result<()> {
        let image = ball(25.0);
        let q = measure(&image, None, &Options::default())?;
        assert_eq!(q.noise_source, NoiseSource::Air);
        assert!((q.noise_sigma / 25.0 - 1.0).abs() < 0.03, "{q:?}");
        assert!((q.snr / 40.0 - 1.0).abs() < 0.03, "{q:?}");
        let mut stripped = image;
        stripped.data.map_inplace(|v| *v = if *v > 500.0 { *v } else { 0.0 });
        let q = measure(&stripped, None, &Options::default())?;
        assert_eq!(q.noise_source, NoiseSource::Head);
        assert!((q.noise_sigma / 25.0 - 1.0).abs() < 0.05, "{q:?}");
        Ok(())
    }

    #[test]
    fn a_clean_ball_passes() -> Result<()> {
        let image = ball(25.0);
        let mask = truth(&image);
        let q = measure(&image, Some(&mask), &Options::default())?;
        assert!((q.truth_volume_ml.unwrap_or(0.0) - 120.0 * 0.02).abs() < 1e-9, "{q:?}");
        assert_eq!((q.truth_outside_head_share, q.dropout_slices), (Some(0.0), 0));
        assert!(q.slice_jump_max < 0.05 && q.ghost_to_signal_ratio.abs() < 0.01, "{q:?}");
        let judged = judge(&q, &image.grid(), &Thresholds::default());
        assert_eq!(judged, Judgement { verdict: Verdict::Pass, reasons: vec![] });
        Ok(())
    }

    #[test]
    fn dropped_slices_are_counted_also_side_by_side() -> Result<()> {
        let mut image = ball(10.0);
        for z in [4, 7, 8] {
            image.data.slice_mut(ndarray::s![z, .., ..]).map_inplace(|v| *v *= 0.3);
        }
        let q = measure(&image, None, &Options::default())?;
        assert_eq!(q.dropout_slices, 3, "{q:?}");
        Ok(())
    }

    #[test]
    fn a_brighter_slice_is_a_jump() -> Result<()> {
        let mut image = ball(10.0);
        image.data.slice_mut(ndarray::s![5, .., ..]).map_inplace(|v| *v *= 1.25);
        let q = measure(&image, None, &Options::default())?;
        assert!((q.slice_jump_max - 0.2).abs() < 0.02, "{q:?}");
        Ok(())
    }

    #[test]
    fn a_ghost_is_seen_along_its_axis() -> Result<()> {
        let clean = ball(10.0);
        let mut image = clean.clone();
        for ((z, y, x), v) in image.data.indexed_iter_mut() {
            *v += 0.1 * clean.data[[z, (y + 24) % 48, x]];
        }
        let q = measure(&image, None, &Options::default())?;
        assert!((q.ghost_to_signal_ratio - 0.1).abs() < 0.01, "{q:?}");
        let across = Options { phase_axis: PhaseAxis::X, ..Options::default() };
        let q = measure(&image, None, &across)?;
        assert!(q.ghost_to_signal_ratio < 0.02, "{q:?}");
        Ok(())
    }

    #[test]
    fn broken_images_are_measured_without_a_panic() -> Result<()> {
        let grid = ball(0.0).grid();
        for value in [0.0, 7.0, f32::NAN, f32::INFINITY, -3.0, f32::MAX] {
            let mut image = Volume::filled(&grid, value);
            let q = measure(&image, None, &Options::default())?;
            assert!(q.snr.is_finite() && q.efc.is_finite() && q.cjv.is_finite(), "{value}: {q:?}");
            image.data[[1, 1, 1]] = f32::MIN;
            measure(&image, None, &Options::default())?;
        }
        let empty = Volume { data: Array3::zeros((0, 4, 4)), affine: grid.affine };
        assert!(measure(&empty, None, &Options::default()).is_err());
        let other = Volume { data: Array3::zeros((2, 2, 2)), affine: grid.affine };
        assert!(measure(&ball(0.0), Some(&other), &Options::default()).is_err());
        Ok(())
    }

    #[test]
    fn a_truth_outside_the_head_is_noticed() -> Result<()> {
        let image = ball(10.0);
        let mut mask = Volume::filled(&image.grid(), 0_u8);
        mask.data.slice_mut(ndarray::s![5, 1..3, 1..3]).fill(1);
        mask.data.slice_mut(ndarray::s![5, 23, 22..26]).fill(1);
        let q = measure(&image, Some(&mask), &Options::default())?;
        assert_eq!(q.truth_outside_head_share, Some(0.5));
        Ok(())
    }
}
