//! How noisy an image is: the standard deviation σ of the noise in each of its two channels, in intensity units.
//!
//! - **Air.** The magnitude of pure noise follows Rayleigh's distribution, whose standard deviation is σ √(2 − π/2), so
//!   σ = SD(air) / 0.6551 (Dietrich et al. 2007, doi:10.1002/jmri.20969; MRIQC's `snr_dietrich`). Air is what lies outside
//!   the head along its row, 8 mm or more from it, and rows without head. Values further from the median than five robust
//!   standard deviations (1.4826 × MAD) are scalp or ghosts and left out.
//! - **Head.** Where the background was set to zero (most of the air is 0, or all of it one value), σ is estimated where
//!   the signal is: 1.4826 × median |L| / 6 over the head, with L the in-plane second difference
//!   \[1 −2 1; −2 4 −2; 1 −2 1\], which removes linear changes and has norm 6 (Immerkær 1996, doi:10.1006/cviu.1996.0060).
//!   Fine structure counts as noise, so that this is an upper estimate.

use super::foreground::Head;
use super::median;

/// √((4 − π) / 2).
const RAYLEIGH: f64 = 0.655_136_377_562_033_6;
/// Median absolute deviation → standard deviation of a normal distribution.
const MAD_TO_SD: f64 = 1.482_602_218_505_602;
/// Air begins this far from the head.
const MARGIN_MM: f64 = 8.0;
/// Fewer voxels than this give no estimate.
const FEWEST: usize = 200;

/// What the noise was estimated from.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NoiseSource {
    /// The air around the head.
    Air,
    /// Second differences inside the head, where there is no air with noise in it.
    Head,
}

/// σ of the noise and what it was taken from; 0 where there are too few voxels for either way.
pub(super) fn sigma(voxels: &[f32], head: &Head, spacing_x_mm: f64) -> (f64, NoiseSource) {
    match in_air(voxels, head, spacing_x_mm) {
        Some(sigma) => (sigma, NoiseSource::Air),
        None => (in_head(voxels, head), NoiseSource::Head),
    }
}

fn in_air(voxels: &[f32], head: &Head, spacing_x_mm: f64) -> Option<f64> {
    let nx = head.shape[0];
    let margin = (MARGIN_MM / spacing_x_mm).ceil() as usize;
    let mut air = Vec::new();
    for (row, span) in voxels.chunks_exact(nx).zip(&head.row_spans) {
        match span {
            Some((first, last)) => {
                air.extend_from_slice(&row[..first.saturating_sub(margin)]);
                air.extend_from_slice(&row[(last + 1).saturating_add(margin).min(nx)..]);
            }
            None => air.extend_from_slice(row),
        }
    }
    let zeros = air.iter().filter(|v| **v == 0.0).count();
    if air.len() < FEWEST || 2 * zeros > air.len() {
        return None;
    }
    let middle = median(&mut air)?;
    let mut deviations: Vec<f32> =
        air.iter().map(|&v| (f64::from(v) - middle).abs() as f32).collect();
    let reach = 5.0 * MAD_TO_SD * median(&mut deviations)?;
    let kept = air.iter().map(|&v| f64::from(v)).filter(|v| (v - middle).abs() <= reach);
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for v in kept {
        let d = v - middle;
        (n, sum, squares) = (n + 1.0, sum + d, squares + d * d);
    }
    let sd = (squares / n - (sum / n).powi(2)).max(0.0).sqrt();
    (sd > 0.0).then_some(sd / RAYLEIGH)
}

fn in_head(voxels: &[f32], head: &Head) -> f64 {
    let [nx, ny, _] = head.shape;
    if nx < 3 || ny < 3 {
        return 0.0;
    }
    let mut responses = Vec::new();
    for (slice, mask) in voxels.chunks_exact(nx * ny).zip(head.mask.chunks_exact(nx * ny)) {
        for y in 1..ny - 1 {
            let [a, b, c] = [y - 1, y, y + 1].map(|y| &slice[y * nx..][..nx]);
            let [ma, mb, mc] = [y - 1, y, y + 1].map(|y| &mask[y * nx..][..nx]);
            for x in 1..nx - 1 {
                let all = |m: &[u8]| m[x - 1] & m[x] & m[x + 1];
                if all(ma) & all(mb) & all(mc) == 0 {
                    continue;
                }
                let second = |r: &[f32]| r[x - 1] - 2.0 * r[x] + r[x + 1];
                responses.push((second(a) - 2.0 * second(b) + second(c)).abs());
            }
        }
    }
    if responses.len() < FEWEST {
        return 0.0;
    }
    MAD_TO_SD * median(&mut responses).unwrap_or(0.0) / 6.0
}
