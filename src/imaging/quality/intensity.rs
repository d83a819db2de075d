//! Measures of the intensities alone: range, broken and clipped values, sharpness, contrast.

use super::foreground::{Head, split};
use crate::imaging::elementary::log2;

/// This many voxels at the maximum are chance, not clipping.
const HANDFUL: usize = 5;

/// Values that are summed side by side.
const LANES: usize = 16;

/// Counts of one pass over all voxels.
pub(super) struct Census {
    /// Smallest finite voxel; 0 where there is none.
    pub min: f32,
    /// Largest finite voxel; 0 where there is none.
    pub max: f32,
    /// NaN and infinite voxels as a share of all.
    pub nonfinite_share: f64,
    /// Finite voxels below 0 as a share of all.
    pub negative_share: f64,
}

impl Census {
    pub fn take(voxels: &[f32]) -> Self {
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        let (mut finite, mut negative) = (0_usize, 0_usize);
        for &v in voxels {
            let is_finite = v.is_finite();
            finite += usize::from(is_finite);
            negative += usize::from(is_finite && v < 0.0);
            min = if is_finite && v < min { v } else { min };
            max = if is_finite && v > max { v } else { max };
        }
        if finite == 0 {
            (min, max) = (0.0, 0.0);
        }
        let share = |n: usize| if voxels.is_empty() { 0.0 } else { n as f64 / voxels.len() as f64 };
        Self {
            min,
            max,
            nonfinite_share: share(voxels.len() - finite),
            negative_share: share(negative),
        }
    }
}

/// Share of the head's voxels at exactly the image's maximum; 0 where they are no more than a handful.
pub(super) fn clipped_share(head: &Head, max: f32) -> f64 {
    let at_max = head.values.iter().map(|&v| usize::from(v >= max)).sum::<usize>();
    if at_max > HANDFUL { at_max as f64 / head.voxels() as f64 } else { 0.0 }
}

/// Entropy focus criterion: Shannon's entropy of the voxels as shares of their root sum of squares, between 0 (all energy in
/// one voxel) and 1 (spread over all of them evenly). Motion and ghosting blur the image and raise it.
///
/// E = Σ (v / B) ln (v / B) / (√n ln (1 / √n)) with B = √Σv² and n the number of voxels; magnitudes for v (Atkinson et al.
/// 1997, doi:10.1109/42.650886; MRIQC's `efc` without a frame mask).
pub(super) fn efc(voxels: &[f32]) -> f64 {
    let n = voxels.len() as f64;
    let (mut energy, mut sum, mut entropy) = (0.0, 0.0, 0.0);
    // Sums of a row's length in single precision lanes, the rows in double: Σ (v/B) log (v/B) = (Σ v log v − log B Σ v) / B.
    for block in voxels.chunks(256) {
        let [squares, values, information] = block_sums(block);
        (energy, sum, entropy) = (energy + squares, sum + values, entropy + information);
    }
    if !(energy > 0.0 && energy.is_finite()) || n < 2.0 {
        return 0.0;
    }
    let b = energy.sqrt();
    (entropy - b.log2() * sum) / b / (n.sqrt() * (1.0 / n.sqrt()).log2())
}

/// Σ v², Σ |v| and Σ |v| log₂ |v|.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn block_sums(block: &[f32]) -> [f64; 3] {
    let mut lanes = [[0.0_f32; LANES]; 3];
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for chunk in chunks.iter().chain(std::iter::once(&last)) {
        for i in 0..LANES {
            let v = chunk[i].abs();
            let information = if v < f32::MIN_POSITIVE { 0.0 } else { v * log2(v) };
            lanes[0][i] += v * v;
            lanes[1][i] += v;
            lanes[2][i] += information;
        }
    }
    let sum = |lane: [f32; LANES]| lane.iter().map(|&v| f64::from(v)).sum::<f64>();
    [sum(lanes[0]), sum(lanes[1]), sum(lanes[2])]
}

/// Coefficient of joint variation of two tissues: (σ₁ + σ₂) / |μ₁ − μ₂| (Ganzetti et al. 2016, doi:10.3389/fninf.2016.00010;
/// MRIQC's `cjv`). Higher is worse: noise and shading widen the classes.
///
/// MRIQC takes white and grey matter from a segmentation. Without one, the two classes here are the head's voxels below and
/// above Otsu's threshold of the head: comparable between images of one kind, not with MRIQC's figures. 0 where
/// the head has no two classes.
pub(super) fn cjv(head: &Head, max: f32) -> f64 {
    let values = || head.values.iter().copied();
    let low = values().fold(f32::INFINITY, f32::min);
    let Some(threshold) = split(values(), low, max) else { return 0.0 };
    let mut classes = [(0.0_f64, 0.0_f64, 0.0_f64); 2];
    for v in values() {
        let (n, sum, squares) = &mut classes[usize::from(v > threshold)];
        let v = f64::from(v);
        (*n, *sum, *squares) = (*n + 1.0, *sum + v, *squares + v * v);
    }
    let [(mean_a, sd_a), (mean_b, sd_b)] = classes.map(|(n, sum, squares)| {
        let mean = sum / n;
        (mean, (squares / n - mean * mean).max(0.0).sqrt())
    });
    let value = (sd_a + sd_b) / (mean_a - mean_b).abs();
    if value.is_finite() { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid, Volume};

    #[test]
    fn the_census_leaves_broken_voxels_out_of_the_range() {
        let voxels = [1.0, f32::NAN, -2.0, f32::INFINITY, 5.0, 0.0, 0.0, 0.0];
        let c = Census::take(&voxels);
        assert_eq!((c.min, c.max, c.nonfinite_share, c.negative_share), (-2.0, 5.0, 0.25, 0.125));
        let c = Census::take(&[f32::NAN; 3]);
        assert_eq!((c.min, c.max, c.nonfinite_share), (0.0, 0.0, 1.0));
    }

    #[test]
    fn efc_runs_from_one_voxel_to_all_of_them() {
        let mut voxels = vec![0.0; 1000];
        voxels[17] = 9.0;
        assert!(efc(&voxels).abs() < 1e-6);
        assert!((efc(&[4.0; 1000]) - 1.0).abs() < 1e-6);
        assert!(efc(&[0.0; 1000]).abs() < 1e-12);
    }

    // benches/peers/geometry.py, `quality`: MRIQC's efc on `ramp`.
    #[test]
    fn efc_agrees_with_mriqc() {
        let voxels: Vec<f32> = (0..120)
            .map(|i| (i % 6, i / 6 % 5, i / 30))
            .map(|(x, y, z)| {
                ((x * 7 + y * 13 + z * 29) % 31) as f32 + 0.5 * x as f32 - 0.25 * (y * z) as f32
                    + 1.0
            })
            .collect();
        let got = efc(&voxels);
        assert!((got - 0.863_900_587_765_928_9).abs() < 1e-6, "{got}");
    }

    #[test]
    fn two_tissues_have_a_joint_variation_and_clipping_is_counted() {
        let grid = Grid { shape: [20, 10, 4], affine: Affine::from_spacing_mm([1.0; 3]) };
        let mut image = Volume::filled(&grid, 0.0_f32);
        // Head: half 100 ± 1, half 200 ± 2.
        for ((z, y, x), v) in image.data.indexed_iter_mut() {
            let sign = if (x + y + z) % 2 == 0 { 1.0 } else { -1.0 };
            if (4..16).contains(&x) {
                *v = if y < 5 { 100.0 + sign } else { 200.0 + 2.0 * sign };
            }
        }
        let head = Head::find(&image, 0.0, 202.0);
        assert_eq!(head.voxels(), 12 * 10 * 4);
        let value = cjv(&head, 202.0);
        assert!((value - 0.03).abs() < 1e-9, "{value}");
        let clipped = clipped_share(&head, 202.0);
        assert!((clipped - 0.25).abs() < 1e-12, "{clipped}");
    }
}
