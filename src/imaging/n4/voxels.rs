//! The masked voxels, gathered once: log intensities in memory order, and where they lie.

use super::math::{self, LANES};
use super::shrink::Thinned;
use crate::error::{Error, Result};
use crate::volume::{Image, Mask};

/// Voxels that are handled while they stay in the innermost cache; a longer row is a block of its own.
const BLOCK: usize = 4096;

/// Voxels that an image may have along x, so that runs stay small.
pub(super) const MOST_ALONG_X: usize = u16::MAX as usize;

/// Neighbouring masked voxels of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// First voxel.
    pub x: u16,
    /// Number of voxels.
    pub len: u16,
}

/// One row of a slice with at least one masked voxel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Row within the slice.
    pub y: u32,
    /// First of its runs.
    run: u32,
    /// One past the last of its runs.
    run_end: u32,
}

/// Whole rows of one slice, at most about [`BLOCK`] voxels of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// First row.
    pub row: usize,
    /// One past the last row.
    pub row_end: usize,
    /// First voxel.
    pub start: usize,
    /// One past the last voxel.
    pub end: usize,
}

/// One slice with at least one masked voxel.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    /// Its place along z.
    pub z: usize,
    /// Its rows, block by block.
    pub blocks: Vec<Block>,
}

/// Log intensities of the masked voxels, in memory order.
#[derive(Debug, Clone, Default)]
pub(super) struct Voxels {
    /// Log intensity where it is above zero, else the intensity itself.
    pub input: Vec<f32>,
    /// How much each voxel counts in the fit; empty if all count alike.
    pub weights: Vec<f32>,
    /// Rows in memory order.
    pub rows: Vec<Row>,
    /// Runs of all rows.
    pub runs: Vec<Run>,
    /// Slices in memory order.
    pub slices: Vec<Slice>,
}

impl Voxels {
    /// Gathers the thinned grid's voxels that are masked and have a weight above zero.
    ///
    /// # Errors
    /// A data error where a masked intensity or its weight is not finite.
    pub fn gather(
        image: &Image,
        mask: &Mask,
        weights: Option<&Image>,
        axes: [Thinned; 3],
    ) -> Result<Self> {
        let mut voxels = Self::default();
        let [nx, ny, _] = image.grid().shape;
        let [most, runs, rows] = counts(mask, nx, axes);
        voxels.input.reserve_exact(most);
        voxels.runs.reserve_exact(runs);
        voxels.rows.reserve_exact(rows);
        voxels.weights.reserve_exact(if weights.is_some() { most } else { 0 });
        let [along_x, along_y, along_z] = axes;
        for z in 0..along_z.count {
            let (row, start) = (voxels.rows.len(), voxels.input.len());
            for y in 0..along_y.count {
                let row =
                    (along_z.first + z * along_z.factor) * ny + along_y.first + y * along_y.factor;
                let source = row * nx..(row + 1) * nx;
                let inside = &mask.voxels()[source.clone()];
                let weights = weights.map(|w| &w.voxels()[source.clone()]);
                let run = voxels.runs.len();
                voxels.gather_row(&image.voxels()[source], inside, weights, along_x);
                if voxels.runs.len() > run {
                    let [run, run_end] = [run, voxels.runs.len()].map(|r| r as u32);
                    voxels.rows.push(Row { y: y as u32, run, run_end });
                }
            }
            if voxels.rows.len() > row {
                let blocks = voxels.blocks(row, start);
                voxels.slices.push(Slice { z, blocks });
            }
        }
        let given = [&voxels.input, &voxels.weights];
        if given.iter().any(|v| !v.iter().fold(true, |finite, v| finite & v.is_finite())) {
            let value = given.into_iter().flatten().find(|v| !v.is_finite()).unwrap_or(&f32::NAN);
            return Err(Error::data(format!(
                "a voxel in the mask is {value}; expected a finite number"
            ))
            .hint("replace such voxels first, or leave them out of the mask"));
        }
        take_log(&mut voxels.input);
        Ok(voxels)
    }

    fn gather_row(&mut self, image: &[f32], mask: &[u8], weights: Option<&[f32]>, along: Thinned) {
        if weights.is_none() && along.factor == 1 {
            return self.gather_whole_row(image, mask);
        }
        let mut open = false;
        for i in 0..along.count {
            let x = along.first + i * along.factor;
            // A weight that is not a number is taken in, to be reported.
            let excluded = mask[x] == 0 || weights.is_some_and(|w| w[x] <= 0.0);
            if excluded {
                open = false;
                continue;
            }
            self.input.push(image[x]);
            self.weights.extend(weights.map(|w| w[x]));
            match self.runs.last_mut().filter(|_| open) {
                Some(run) => run.len += 1,
                None => self.runs.push(Run { x: i as u16, len: 1 }),
            }
            open = true;
        }
    }

    /// [`Self::gather_row`] without weights or thinning, run by run.
    fn gather_whole_row(&mut self, image: &[f32], mask: &[u8]) {
        let mut x = 0;
        while let Some(start) = first(&mask[x..], |m| m != 0) {
            let start = x + start;
            x = first(&mask[start..], |m| m == 0).map_or(mask.len(), |len| start + len);
            self.input.extend_from_slice(&image[start..x]);
            self.runs.push(Run { x: start as u16, len: (x - start) as u16 });
        }
    }

    /// Blocks of the rows from `row` on, whose first voxel is `start`.
    fn blocks(&self, mut row: usize, mut start: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut end = start;
        for (i, r) in self.rows.iter().enumerate().skip(row) {
            let len: usize = self.runs(r).iter().map(|r| usize::from(r.len)).sum();
            if end > start && end - start + len > BLOCK {
                blocks.push(Block { row, row_end: i, start, end });
                (row, start) = (i, end);
            }
            end += len;
        }
        blocks.push(Block { row, row_end: self.rows.len(), start, end });
        blocks
    }

    /// The runs of a row.
    pub fn runs(&self, row: &Row) -> &[Run] {
        &self.runs[row.run as usize..row.run_end as usize]
    }

    /// Number of masked voxels.
    pub fn len(&self) -> usize {
        self.input.len()
    }

    /// Room for the largest block, and for one chunk past its end.
    pub fn block_room(&self) -> usize {
        let blocks = self.slices.iter().flat_map(|s| &s.blocks);
        blocks.map(|b| b.end - b.start).max().unwrap_or_default() + LANES
    }
}

/// The first voxel for which `wanted` holds, found 32 at a time.
fn first(mask: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (chunks, rest) = mask.as_chunks::<32>();
    let skipped =
        chunks.iter().take_while(|c| !c.iter().fold(false, |any, &m| any | wanted(m))).count();
    let tail = chunks.get(skipped).map_or(rest, |c| c.as_slice());
    tail.iter().position(|&m| wanted(m)).map(|i| skipped * 32 + i)
}

/// Masked voxels, runs and rows of the thinned grid: the first two exactly or, where it is thinned, at most and none.
fn counts(mask: &Mask, nx: usize, axes: [Thinned; 3]) -> [usize; 3] {
    let rows = axes[1].count * axes[2].count;
    if axes.iter().any(|a| a.factor > 1) {
        return [rows * axes[0].count, 0, rows];
    }
    let (mut masked, mut runs) = (0, 0);
    for row in mask.voxels().chunks_exact(nx) {
        masked += row.iter().map(|&m| usize::from(m != 0)).sum::<usize>();
        runs += usize::from(row[0] != 0);
        runs +=
            row.windows(2).map(|m| usize::from(m[0] == 0) & usize::from(m[1] != 0)).sum::<usize>();
    }
    [masked, runs, rows]
}

/// Logarithms of what is above zero; the rest stays.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn take_log(values: &mut [f32]) {
    for v in values {
        *v = if *v > 0.0 { math::ln(*v) } else { *v };
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::imaging::n4::shrink::thinned;
    use crate::volume::{Affine, Grid};

    fn volume() -> (Image, Mask) {
        let grid = Grid { shape: [7, 3, 2], affine: Affine::from_spacing_mm([1.0; 3]) };
        let mut image = Image::filled(&grid, 0.0);
        for (i, v) in image.voxels_mut().iter_mut().enumerate() {
            *v = i as f32 - 3.0;
        }
        let mut mask = Mask::filled(&grid, 0);
        for i in [0, 1, 2, 5, 6, 20, 30, 31] {
            mask.voxels_mut()[i] = 1;
        }
        (image, mask)
    }

    #[test]
    fn runs_rows_and_slices_cover_the_mask() {
        let (image, mask) = volume();
        let v = Voxels::gather(&image, &mask, None, thinned([7, 3, 2], [1.0; 3], 1)).unwrap();
        let runs: Vec<_> = v.runs.iter().map(|r| (r.x, r.len)).collect();
        assert_eq!(runs, [(0, 3), (5, 2), (6, 1), (2, 2)]);
        let rows: Vec<_> = v.rows.iter().map(|r| (r.y, v.runs(r).len())).collect();
        assert_eq!(rows, [(0, 2), (2, 1), (1, 1)]);
        let ends: Vec<_> =
            v.slices.iter().map(|s| (s.z, s.blocks.len(), s.blocks[0].end)).collect();
        assert_eq!((ends, v.len()), (vec![(0, 1, 6), (1, 1, 8)], 8));
        assert_eq!(v.input[..4], [-3.0, -2.0, -1.0, 2.0_f32.ln()]);
    }

    #[test]
    fn a_weight_of_zero_excludes_and_a_strange_one_is_an_error() {
        let (image, mask) = volume();
        let axes = thinned([7, 3, 2], [1.0; 3], 1);
        let mut weights = Image::filled(&image.grid(), 2.0);
        weights.voxels_mut()[1] = 0.0;
        let v = Voxels::gather(&image, &mask, Some(&weights), axes).unwrap();
        assert_eq!((v.len(), v.weights.len(), v.runs.len()), (7, 7, 5));
        weights.voxels_mut()[1] = f32::NAN;
        assert!(Voxels::gather(&image, &mask, Some(&weights), axes).is_err());
    }

    #[test]
    fn what_is_not_finite_matters_in_the_mask_only() {
        let (mut image, mask) = volume();
        let axes = thinned([7, 3, 2], [1.0; 3], 1);
        image.voxels_mut()[4] = f32::NAN;
        assert!(Voxels::gather(&image, &mask, None, axes).is_ok());
        image.voxels_mut()[5] = f32::INFINITY;
        let error = Voxels::gather(&image, &mask, None, axes).unwrap_err();
        assert!(error.reason().contains("inf"), "{error}");
    }
}
