//! Voxels that two masks share, and the box around both.

use super::{ratio, same_grid};
use crate::error::Result;
use crate::volume::Mask;

/// Voxel counts of two masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Voxels of the truth.
    pub truth: u64,
    /// Voxels of the prediction.
    pub predicted: u64,
    /// Voxels of both.
    pub both: u64,
}

/// Counts the voxels of both masks in one pass.
///
/// # Errors
/// As [`score`](super::score).
pub fn overlap(truth: &Mask, predicted: &Mask) -> Result<Overlap> {
    same_grid(truth, predicted)?;
    let [truth, predicted, both] = count(truth.voxels(), predicted.voxels());
    Ok(Overlap { truth, predicted, both })
}

impl Overlap {
    /// 2 |T ∩ P| / (|T| + |P|); 1 where both are empty.
    pub fn dice(&self) -> f64 {
        ratio(2 * self.both, self.truth + self.predicted)
    }

    /// |T ∩ P| / |T|; 1 where both are empty, none where only the truth is.
    pub fn sensitivity(&self) -> Option<f64> {
        self.share(self.truth)
    }

    /// |T ∩ P| / |P|; 1 where both are empty, none where only the prediction is.
    pub fn precision(&self) -> Option<f64> {
        self.share(self.predicted)
    }

    fn share(&self, of: u64) -> Option<f64> {
        match (of, self.truth + self.predicted) {
            (_, 0) => Some(1.0),
            (0, _) => None,
            _ => Some(self.both as f64 / of as f64),
        }
    }
}

/// Voxels that are not zero in the truth, in the prediction and in both.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn count(truth: &[u8], predicted: &[u8]) -> [u64; 3] {
    const LANES: usize = 64;
    let mut sums = [0_u64; 3];
    // As many additions as a byte can hold; the inner loop adds whole vectors of bytes.
    for (t, p) in truth.chunks(255 * LANES).zip(predicted.chunks(255 * LANES)) {
        let mut lanes = [[0_u8; LANES]; 3];
        let ((ts, t_rest), (ps, p_rest)) = (t.as_chunks::<LANES>(), p.as_chunks::<LANES>());
        for (t, p) in ts.iter().zip(ps) {
            for i in 0..LANES {
                let (t, p) = (u8::from(t[i] != 0), u8::from(p[i] != 0));
                lanes[0][i] += t;
                lanes[1][i] += p;
                lanes[2][i] += t & p;
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(&lanes) {
            *sum += lanes.iter().map(|v| u64::from(*v)).sum::<u64>();
        }
        for (t, p) in t_rest.iter().zip(p_rest) {
            let (t, p) = (u64::from(*t != 0), u64::from(*p != 0));
            sums[0] += t;
            sums[1] += p;
            sums[2] += t & p;
        }
    }
    sums
}

/// A box of voxels, both corners included, as (x, y, z).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    low: [usize; 3],
    high: [usize; 3],
}

impl Bounds {
    /// The box around the voxels of both masks; none where both are empty.
    pub fn of(truth: &Mask, predicted: &Mask) -> Option<Self> {
        let [nx, ny, _] = truth.grid().shape;
        let mut columns = vec![0_u8; nx];
        let mut rows: Option<[[usize; 2]; 2]> = None;
        let pairs = truth.voxels().chunks_exact(nx.max(1));
        let pairs = pairs.zip(predicted.voxels().chunks_exact(nx.max(1)));
        for (index, (t, p)) in pairs.enumerate() {
            if gather(&mut columns, t, p) != 0 {
                let at = [index % ny, index / ny];
                let [low, high] = rows.get_or_insert([at, at]);
                for axis in 0..2 {
                    low[axis] = low[axis].min(at[axis]);
                    high[axis] = high[axis].max(at[axis]);
                }
            }
        }
        let [low, high] = rows?;
        let first = columns.iter().position(|v| *v != 0)?;
        let last = columns.iter().rposition(|v| *v != 0)?;
        Some(Self { low: [first, low[0], low[1]], high: [last, high[0], high[1]] })
    }

    /// Voxels along x, y, z.
    pub fn shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|a| self.high[a] - self.low[a] + 1)
    }

    /// The part of a mask's rows that lies inside, in memory order.
    pub fn rows<'a>(&self, mask: &'a Mask) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let ([x0, y0, z0], [x1, y1, z1]) = (self.low, self.high);
        let [nx, ny, _] = mask.grid().shape;
        let voxels = mask.voxels();
        (z0..=z1).flat_map(move |z| (y0..=y1).map(move |y| &voxels[(z * ny + y) * nx..][x0..=x1]))
    }
}

/// Adds the bits of two rows to the columns' and returns the bits of the rows together.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn gather(columns: &mut [u8], truth: &[u8], predicted: &[u8]) -> u8 {
    let mut all = 0;
    for ((column, t), p) in columns.iter_mut().zip(truth).zip(predicted) {
        *column |= t | p;
        all |= t | p;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};

    #[test]
    fn every_voxel_counts_once_whatever_its_value() -> Result<()> {
        // More than one block of 255 vectors, and a rest.
        let grid = Grid { shape: [131, 67, 5], affine: Affine::from_spacing_mm([1.0; 3]) };
        let (mut t, mut p) = (Mask::filled(&grid, 0), Mask::filled(&grid, 0));
        for (i, (t, p)) in t.voxels_mut().iter_mut().zip(p.voxels_mut()).enumerate() {
            (*t, *p) = ((i % 3) as u8, if i % 5 == 0 { 200 } else { 0 });
        }
        let n = grid.voxels();
        let counted = overlap(&t, &p)?;
        let both = (0..n).filter(|i| i % 3 != 0 && i % 5 == 0).count();
        let expected = [n - n.div_ceil(3), n.div_ceil(5), both].map(|n| n as u64);
        assert_eq!([counted.truth, counted.predicted, counted.both], expected);
        Ok(())
    }

    #[test]
    fn the_box_holds_both_masks() {
        let grid = Grid { shape: [9, 8, 7], affine: Affine::from_spacing_mm([1.0; 3]) };
        let (mut t, mut p) = (Mask::filled(&grid, 0), Mask::filled(&grid, 0));
        assert_eq!(Bounds::of(&t, &p), None);
        t.data[[2, 6, 1]] = 1;
        p.data[[5, 3, 4]] = 4;
        let bounds = Bounds::of(&t, &p);
        assert_eq!(bounds, Some(Bounds { low: [1, 3, 2], high: [4, 6, 5] }));
        assert_eq!(bounds.map(|b| b.rows(&p).flatten().filter(|v| **v != 0).count()), Some(1));
    }
}
