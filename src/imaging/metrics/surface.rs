//! Distances between the surfaces of two masks.
//!
//! Surfaces are few voxels, so the nearest one is searched among the runs of the other surface, row by row from near to
//! far, and the search ends at the distance found. Neighbours are at most their own distance further away, which bounds
//! the next search from the start. Where masks lie so far apart that this looks at more than a distance transform of
//! the whole box would, the transform takes over.

use ndarray::Array3;

use super::overlap::Bounds;
use super::same_grid;
use crate::error::Result;
use crate::imaging::components::Runs;
use crate::imaging::distance::squared_edt;
use crate::volume::Mask;

/// Rows that a search may look at for each voxel of the box: about what the distance transform costs.
const ROWS_PER_VOXEL: usize = 8;

/// Distances between two surfaces in mm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceDistances {
    /// The larger of the two 95th percentiles.
    pub hd95_mm: f64,
    /// Mean over both surfaces.
    pub assd_mm: f64,
}

/// Measures the distances between the surfaces; none where a mask is empty.
///
/// # Errors
/// As [`score`](super::score).
pub fn surface_distances(truth: &Mask, predicted: &Mask) -> Result<Option<SurfaceDistances>> {
    same_grid(truth, predicted)?;
    let bounds = Bounds::of(truth, predicted);
    Ok(SurfaceDistances::measure(truth, predicted, bounds.as_ref()))
}

impl SurfaceDistances {
    pub(super) fn measure(a: &Mask, b: &Mask, bounds: Option<&Bounds>) -> Option<Self> {
        let bounds = bounds?;
        let (from_a, from_b) = (surface(a, bounds), surface(b, bounds));
        if from_a.all.is_empty() || from_b.all.is_empty() {
            return None;
        }
        let spacing_mm = a.spacing_mm();
        let mut there = directed(&from_a, &from_b, spacing_mm);
        let mut back = directed(&from_b, &from_a, spacing_mm);
        let sum: f64 = there.iter().chain(&back).sum();
        Some(Self {
            assd_mm: sum / (there.len() + back.len()) as f64,
            hd95_mm: percentile(&mut there, 0.95).max(percentile(&mut back, 0.95)),
        })
    }
}

/// The voxels of a mask with at least one of six face neighbours outside it; outside the box nothing is inside.
fn surface(mask: &Mask, bounds: &Bounds) -> Runs {
    let shape = bounds.shape();
    let rows: Vec<&[u8]> = bounds.rows(mask).collect();
    let mut runs = Runs::none(shape);
    let nothing = vec![0; shape[0]];
    let mut edge = vec![0; shape[0]];
    for (index, row) in rows.iter().enumerate() {
        let (y, z) = (index % shape[1], index / shape[1]);
        let neighbour = |is: bool, at: usize| if is { rows[at] } else { &nothing };
        let around = [
            neighbour(y > 0, index.wrapping_sub(1)),
            neighbour(y + 1 < shape[1], index + 1),
            neighbour(z > 0, index.wrapping_sub(shape[1])),
            neighbour(z + 1 < shape[2], index + shape[1]),
        ];
        edge_of(row, around, &mut edge);
        runs.push_row(&edge, |v| v != 0);
    }
    runs
}

/// Marks the voxels of a row that are inside, with a neighbour in the row or in the four rows around that is not.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn edge_of(row: &[u8], around: [&[u8]; 4], edge: &mut [u8]) {
    let n = row.len();
    let is = |v: u8| u8::from(v != 0);
    edge.iter_mut().zip(row).for_each(|(e, v)| *e = is(*v));
    if n > 2 {
        let [a, b, c, d] = around.map(|r| &r[1..n - 1]);
        let (left, right) = (&row[..n - 2], &row[2..]);
        for (i, e) in edge[1..n - 1].iter_mut().enumerate() {
            let across = is(a[i]) & is(b[i]) & is(c[i]) & is(d[i]);
            *e &= 1 - (is(left[i]) & is(right[i]) & across);
        }
    }
}

/// Distance in mm of every voxel of `from` to the nearest voxel of `to`, in memory order.
fn directed(from: &Runs, to: &Runs, spacing_mm: [f64; 3]) -> Vec<f64> {
    let mut search = Search { to, spacing_mm, looked: 0 };
    let most = ROWS_PER_VOXEL * to.shape.iter().product::<usize>();
    let mut distances = Vec::new();
    for (row, range) in from.rows.windows(2).enumerate() {
        let (y, z) = (row % from.shape[1], row / from.shape[1]);
        let mut last: Option<(u32, f64)> = None;
        for x in from.all[range[0]..range[1]].iter().flat_map(|run| run.start..run.end) {
            // A hair further than the triangle inequality allows, so that the nearest voxel itself is within reach.
            let reach = last.map_or(f64::INFINITY, |(before, mm)| {
                (mm + f64::from(x - before) * spacing_mm[0]) * (1.0 + 1e-9)
            });
            let mm = search.nearest([x as usize, y, z], reach * reach).sqrt();
            last = Some((x, mm));
            distances.push(mm);
        }
        if search.looked > most {
            return transformed(from, to, spacing_mm);
        }
    }
    distances
}

/// A search for the nearest voxel among runs.
struct Search<'a> {
    to: &'a Runs,
    spacing_mm: [f64; 3],
    /// Rows looked at so far.
    looked: usize,
}

impl Search<'_> {
    /// Squared distance in mm² from a voxel to the nearest one of the runs, or `reach` where that is less.
    fn nearest(&mut self, [x, y, z]: [usize; 3], reach: f64) -> f64 {
        let [_, ny, nz] = self.to.shape;
        let [_, sy, sz] = self.spacing_mm;
        let mut best = reach;
        for dz in 0..nz {
            let apart = (dz as f64 * sz).powi(2);
            if apart >= best {
                break;
            }
            for z in both_sides(z, dz, nz) {
                for dy in 0..ny {
                    let apart = apart + (dy as f64 * sy).powi(2);
                    if apart >= best {
                        break;
                    }
                    for y in both_sides(y, dy, ny) {
                        best = best.min(self.in_row(x as u32, y, z, apart));
                    }
                }
            }
        }
        best
    }

    fn in_row(&mut self, x: u32, y: usize, z: usize, apart: f64) -> f64 {
        self.looked += 1;
        let gaps = self.to.row(y, z).iter().map(|run| {
            // One of the two is 0 outside the run, both are inside.
            run.start.saturating_sub(x) + (x + 1).saturating_sub(run.end)
        });
        gaps.min()
            .map_or(f64::INFINITY, |gap| apart + (f64::from(gap) * self.spacing_mm[0]).powi(2))
    }
}

/// The places `step` before and after `at` among `n`; one where they are the same.
fn both_sides(at: usize, step: usize, n: usize) -> impl Iterator<Item = usize> {
    let after = (step > 0 && at + step < n).then_some(at + step);
    at.checked_sub(step).into_iter().chain(after)
}

/// As [`directed`], by the distance transform of the box.
fn transformed(from: &Runs, to: &Runs, spacing_mm: [f64; 3]) -> Vec<f64> {
    let [nx, ny, nz] = to.shape;
    let mut sites = vec![0_u8; nx * ny * nz];
    to.ranges().for_each(|range| sites[range].fill(1));
    let Ok(sites) = Array3::from_shape_vec((nz, ny, nx), sites) else { return Vec::new() };
    let squared = squared_edt(&sites, spacing_mm).into_raw_vec_and_offset().0;
    from.ranges().flatten().map(|i| f64::from(squared[i]).sqrt()).collect()
}

/// The value below which the given share of the values lies, linear between order statistics (method 7 of Hyndman &
/// Fan 1996). Reorders the values; 0 where there are none.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let position = share * (values.len() - 1) as f64;
    let (below, weight) = (position.floor() as usize, position.fract());
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    if weight > 0.0 && high.is_finite() { low + weight * (high - low) } else { low }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::random::{chance, keyed};

    fn sites(shape: [usize; 3], share: f64, seed: u64) -> Runs {
        let mut rng = keyed(seed, &["sites"]);
        let mut runs = Runs::none(shape);
        for _ in 0..shape[1] * shape[2] {
            let row: Vec<u8> = (0..shape[0]).map(|_| u8::from(chance(&mut rng, share))).collect();
            runs.push_row(&row, |v| v != 0);
        }
        runs
    }

    #[test]
    fn percentiles_are_linear_between_order_statistics() {
        // numpy.percentile([4, 1, 3, 2], [0, 50, 95, 100])
        for (share, want) in [(0.0, 1.0), (0.5, 2.5), (0.95, 3.85), (1.0, 4.0)] {
            let got = percentile(&mut [4.0, 1.0, 3.0, 2.0], share);
            assert!((got - want).abs() < 1e-12, "{share}: {got}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_search_finds_what_the_transform_does(
            shape in [1_usize..90, 1_usize..12, 1_usize..6],
            spacing in prop::array::uniform3(0.3_f64..6.0),
            shares in prop::array::uniform2(0.001_f64..0.2),
            seed in any::<u64>(),
        ) {
            let (a, b) = (sites(shape, shares[0], seed), sites(shape, shares[1], seed ^ 1));
            prop_assume!(!b.all.is_empty());
            let (found, want) = (directed(&a, &b, spacing), transformed(&a, &b, spacing));
            prop_assert_eq!(found.len(), want.len());
            for (f, w) in found.iter().zip(&want) {
                prop_assert!((f - w).abs() <= 1e-6 * w.max(1.0), "{} {}", f, w);
            }
        }
    }
}
