//! Normalisation by the peak of the intensity histogram: multiply by 150 / peak, clip to [0, 255].
//!
//! The peak, in `NumPy`, of the voxels `v = image[mask & (image > 0)]` (background left out) as float64:
//! ```python
//! top = np.percentile(v, 99, method='lower')
//! counts, edges = np.histogram(v, 128, (0, top))
//! peak = (edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2
//! ```
//! The brightest 1 % neither widens the bins nor is counted, so a few hyperintense voxels cannot move the peak; the
//! lowest edge is 0, so the result scales with the image.

use crate::error::{Error, Result};
use crate::imaging::histogram::{Histogram, extremes};
use crate::volume::{Image, Mask};

/// Bins from zero to the 99th percentile.
const BINS: usize = 128;

/// Voxels that are looked at together.
const CHUNK: usize = 32;

/// What shares one coefficient.
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
pub enum Scope {
    /// One peak for the whole volume.
    #[default]
    Volume,
    /// A peak for every slice (constant z).
    Slice,
}

/// What one volume or slice was multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Coefficient {
    /// Peak of the intensity histogram, in the image's own unit.
    pub peak: f64,
    /// Target over peak.
    pub factor: f64,
}

/// The coefficients of an image, in the order of its slices; a single one where the scope is the volume.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Coefficients {
    /// Nothing for a slice without a voxel above zero in the mask: it is left as it is.
    pub parts: Vec<Option<Coefficient>>,
}

/// Brings the histogram's peak to `peak` and clips every voxel, outside the mask too, to [0, `clip`].
///
/// Without a mask every voxel above zero counts. A voxel outside the mask that is not a number stays so.
///
/// # Errors
/// Configuration: `peak` or `clip` not above zero. Data: no voxel above zero in the mask (an empty mask, an empty
/// image), an infinite or not-a-number voxel in the mask, a mask of another shape.
pub fn normalize(
    image: &mut Image,
    mask: Option<&Mask>,
    peak: f32,
    clip: f32,
    scope: Scope,
) -> Result<Coefficients> {
    for (key, value) in [("peak", peak), ("clip", clip)] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::configuration(format!(
                "normalize.{key} is {value}; expected a number above 0"
            )));
        }
    }
    let shape = image.grid().shape;
    if let Some(found) = mask.map(|m| m.grid().shape).filter(|found| *found != shape) {
        return Err(Error::data(format!(
            "the mask has {found:?} voxels; expected the image's {shape:?}"
        ))
        .hint("resample it onto the image's grid"));
    }
    let part = match scope {
        Scope::Volume => shape.iter().product(),
        Scope::Slice => shape[0] * shape[1],
    };
    // Every part is measured before any is changed, so that an error leaves the image as it was.
    let mut parts = Vec::new();
    let step = usize::max(part, 1);
    for (i, voxels) in image.voxels().chunks(step).enumerate() {
        let inside = mask.map(|m| &m.voxels()[i * step..i * step + voxels.len()]);
        parts.push(
            histogram_peak(voxels, inside)?
                .map(|found| Coefficient { peak: found, factor: f64::from(peak) / found }),
        );
    }
    if parts.iter().all(Option::is_none) {
        return Err(Error::data("no voxel above zero in the mask; normalisation needs some")
            .hint("look at the brain mask: it may be empty or on the background"));
    }
    for (voxels, coefficient) in image.voxels_mut().chunks_mut(step).zip(&parts) {
        if let Some(coefficient) = coefficient {
            scale(voxels, coefficient.factor as f32, clip);
        }
    }
    Ok(Coefficients { parts })
}

/// Multiplies and clips to [0, `clip`]; what is not a number stays so.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn scale(voxels: &mut [f32], factor: f32, clip: f32) {
    for v in voxels {
        *v = (*v * factor).clamp(0.0, clip);
    }
}

/// The peak of the histogram of the voxels above zero in the mask; nothing if there are none.
fn histogram_peak(voxels: &[f32], mask: Option<&[u8]>) -> Result<Option<f64>> {
    let values = bright(voxels, mask);
    if extremes(&values).is_none()
        && let Some(value) = values.iter().find(|v| !v.is_finite())
    {
        return Err(Error::data(format!(
            "a voxel to normalise is {value}; expected finite numbers"
        ))
        .hint("run qc first, or leave such voxels out of the mask"));
    }
    if values.is_empty() {
        return Ok(None);
    }
    let top = order_statistic(&values, (values.len() - 1) * 99 / 100);
    Ok(Some(Histogram::new(&values, BINS, [0.0, f64::from(top)])?.peak()))
}

/// The voxels above zero in the mask, in memory order; what is not a number is taken in, to be reported.
fn bright(voxels: &[f32], mask: Option<&[u8]>) -> Vec<f32> {
    let mut values = Vec::with_capacity(voxels.len());
    for (i, chunk) in voxels.chunks(CHUNK).enumerate() {
        let inside = mask.map(|m| &m[i * CHUNK..i * CHUNK + chunk.len()]);
        // Masks are mostly whole chunks of one or the other.
        let masked =
            inside.map_or(chunk.len(), |m| m.iter().map(|&m| usize::from(m != 0)).sum::<usize>());
        if masked == 0 {
            continue;
        }
        let above = chunk.iter().map(|&v| usize::from(v > 0.0)).sum::<usize>();
        if masked == chunk.len() && above == chunk.len() {
            values.extend_from_slice(chunk);
            continue;
        }
        let (mut kept, mut count) = ([0.0; CHUNK], 0);
        for (k, &v) in chunk.iter().enumerate() {
            kept[count] = v;
            let is_masked = inside.map_or(1, |m| usize::from(m[k] != 0));
            count += is_masked & (usize::from(v > 0.0) | usize::from(v.is_nan()));
        }
        values.extend_from_slice(&kept[..count]);
    }
    values
}

/// The value that `at` of these finite numbers above zero do not exceed, when sorted.
fn order_statistic(values: &[f32], at: usize) -> f32 {
    // Numbers above zero are ordered as their bits are: the upper half of the bits finds the neighbourhood.
    let mut counts = vec![0_u32; 1 << 15];
    for v in values {
        counts[(v.to_bits() >> 16) as usize & 0x7fff] += 1;
    }
    let mut below = 0;
    let found = counts.iter().position(|&count| {
        let next = below + count as usize;
        let here = next > at;
        below = if here { below } else { next };
        here
    });
    let upper = found.unwrap_or_default() as u32;
    let mut near: Vec<f32> =
        values.iter().copied().filter(|v| v.to_bits() >> 16 == upper).collect();
    let (_, value, _) = near.select_nth_unstable_by(at - below, f32::total_cmp);
    *value
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};

    const PEAK: f64 = 73.886_718_75;

    fn image() -> Image {
        let grid = Grid { shape: [20, 10, 3], affine: Affine::from_spacing_mm([1.0; 3]) };
        let mut image = Image::filled(&grid, 0.0);
        for (i, v) in image.voxels_mut().iter_mut().enumerate() {
            *v = ((i * 7919 % 600) as f32 - 100.0).max(0.0) * if i < 200 { 1.0 } else { 0.5 };
        }
        image
    }

    /// The reference is the module's Python on
    /// `i = np.arange(600); v = np.maximum(i * 7919 % 600 - 100, 0) * np.where(i < 200, 1, .5)`.
    #[test]
    fn the_coefficient_is_that_of_numpy() {
        let mut volume = image();
        let found = normalize(&mut volume, None, 150.0, 255.0, Scope::Volume).unwrap();
        let [Some(c)] = found.parts[..] else { panic!("{found:?}") };
        assert!((c.peak - PEAK).abs() < 1e-9, "{c:?}");
        assert!((c.factor - 150.0 / PEAK).abs() < 1e-9);
        let factor = c.factor as f32;
        for (v, before) in volume.voxels().iter().zip(image().voxels()) {
            assert_eq!(v.to_bits(), (before * factor).clamp(0.0, 255.0).to_bits());
        }
    }

    #[test]
    fn peak_at_target_is_the_identity() {
        let mut volume = image();
        let found = normalize(&mut volume.clone(), None, 150.0, 255.0, Scope::Volume).unwrap();
        let peak = found.parts[0].unwrap().peak as f32;
        normalize(&mut volume, None, peak, 1e6, Scope::Volume).unwrap();
        assert_eq!(volume, image());
    }

    #[test]
    fn order_statistics_are_those_of_sorting() {
        let values: Vec<f32> = (1..4000).map(|i| (i * 7919 % 4001) as f32 * 0.37).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        for at in [0, 1, 1999, 3958, 3998] {
            assert_eq!(order_statistic(&values, at).to_bits(), sorted[at].to_bits());
        }
    }

    #[test]
    fn what_is_bright_is_found_in_chunks_of_any_kind() {
        let voxels: Vec<f32> = (0..517).map(|i| (i * 7919 % 600) as f32 - 40.0).collect();
        for modulus in [1_usize, 2, 7, 64, 200, 1000] {
            let mask: Vec<u8> =
                (0..517_usize).map(|i| u8::from(i % modulus < modulus.div_ceil(2))).collect();
            let plain: Vec<f32> = voxels
                .iter()
                .zip(&mask)
                .filter(|(v, m)| **m != 0 && **v > 0.0)
                .map(|(v, _)| *v)
                .collect();
            assert_eq!(bright(&voxels, Some(&mask)), plain);
        }
        assert_eq!(bright(&voxels, None).len(), voxels.iter().filter(|v| **v > 0.0).count());
    }

    #[test]
    fn scaling_the_image_changes_nothing() {
        let (mut one, mut two) = (image(), image());
        two.voxels_mut().iter_mut().for_each(|v| *v *= 8.0);
        normalize(&mut one, None, 150.0, 255.0, Scope::Slice).unwrap();
        normalize(&mut two, None, 150.0, 255.0, Scope::Slice).unwrap();
        assert_eq!(one, two);
    }

    #[test]
    fn a_slice_without_brain_is_left_as_it_is() {
        let mut volume = image();
        let mut mask = Mask::filled(&volume.grid(), 1);
        mask.voxels_mut()[200..400].fill(0);
        let found = normalize(&mut volume, Some(&mask), 150.0, 255.0, Scope::Slice).unwrap();
        assert_eq!(
            found.parts.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert_eq!(volume.voxels()[200..400], image().voxels()[200..400]);
        assert!(volume.voxels()[..200].iter().all(|v| (0.0..=255.0).contains(v)));
    }

    #[test]
    fn nothing_to_measure_is_a_data_error_and_changes_nothing() {
        let mut volume = image();
        let empty = Mask::filled(&volume.grid(), 0);
        assert!(normalize(&mut volume, Some(&empty), 150.0, 255.0, Scope::Volume).is_err());
        volume.voxels_mut()[599] = f32::NAN;
        let before = volume.voxels()[..599].to_vec();
        assert!(normalize(&mut volume, None, 150.0, 255.0, Scope::Slice).is_err());
        assert_eq!(volume.voxels()[..599], before);
        assert!(normalize(&mut image(), None, 0.0, 255.0, Scope::Volume).is_err());
    }

    #[test]
    fn equal_voxels_still_have_a_peak() {
        let mut flat = image();
        flat.voxels_mut().fill(40.0);
        normalize(&mut flat, None, 150.0, 255.0, Scope::Volume).unwrap();
        assert!(flat.voxels().iter().all(|v| (v - 150.0).abs() < 1.0), "{}", flat.voxels()[0]);
    }
}
