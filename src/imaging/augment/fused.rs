//! What was drawn, done in one pass over the slices.
//!
//! A slice is copied once where it moves, and each of its rows is then looked up, multiplied by the field, mirrored and
//! measured while it is in the first cache. The contrast needs the brightest voxel of all slices and follows in a second
//! pass of arithmetic alone. Slices are independent, so threads change nothing.

use rayon::prelude::*;

use super::affine_slices::{PixelMap, Taps};
use super::bias_field::{Field, InPlaneField};
use super::flip::swap_ends;
use super::gamma;
use super::{Draw, same_shape};
use crate::error::Result;
use crate::volume::{Grid, Image, Mask};

/// Slices that one thread moves together.
const TOGETHER: usize = 4;

/// Changes image and mask as drawn: the slices move, then the field, the mirror and the contrast.
pub(super) fn apply(draw: &Draw, image: &mut Image, mask: Option<&mut Mask>) -> Result<()> {
    if let Some(mask) = mask.as_deref() {
        same_shape(image, mask)?;
    }
    let grid = image.grid();
    let moves = Moves::of(draw, &grid, mask.is_some())?;
    let field = draw.bias_field.as_ref().map(|f| f.field(&grid)).transpose()?.flatten();
    let mirrored = draw.flip.as_ref().map_or([false; 3], |flip| flip.voxel_axes);
    if grid.voxels() == 0 {
        return Ok(());
    }
    if let Some(mask) = mask {
        change_mask(mask, &moves, mirrored);
    }
    let contrast = draw.gamma.as_ref().filter(|g| g.changes());
    let outside = if moves.any() { lowest(image.voxels()) } else { 0.0 };
    let pass = Pass { grid, moves, field, mirrored, measures: contrast.is_some(), outside };
    let together = TOGETHER * grid.shape[0] * grid.shape[1];
    let slabs = image.voxels_mut().par_chunks_mut(together).enumerate();
    let largest = slabs
        .map_init(Vec::new, |before, (i, slab)| pass.slab(TOGETHER * i, slab, before))
        .reduce(|| 0.0, f32::max);
    if mirrored[2] {
        swap_ends(image.voxels_mut(), grid.shape[0] * grid.shape[1]);
    }
    if let Some(contrast) = contrast {
        contrast.spread(image.voxels_mut(), largest);
    }
    Ok(())
}

/// How the slices move: not at all, all alike, or each on its own.
struct Moves {
    /// One for all slices, or one a slice; none where a slice keeps its bytes.
    maps: Vec<Option<PixelMap>>,
    /// The look-up of all slices where they move alike.
    shared: Option<Taps>,
    shape: [usize; 2],
    masked: bool,
}

impl Moves {
    fn of(draw: &Draw, grid: &Grid, masked: bool) -> Result<Self> {
        let maps =
            draw.affine_slices.as_ref().map_or(Ok(vec![None]), |affine| affine.pixel_maps(grid))?;
        let shape = [grid.shape[0], grid.shape[1]];
        let shared = match maps[..] {
            [Some(map)] => Some(Taps::new(&map, shape, masked)),
            _ => None,
        };
        Ok(Self { maps, shared, shape, masked })
    }

    fn any(&self) -> bool {
        self.maps.iter().any(Option::is_some)
    }

    /// Hands the look-up of slice `z` to `work`; false where the slice stays as it is.
    fn with(&self, z: usize, work: impl FnOnce(&Taps)) -> bool {
        if let Some(taps) = &self.shared {
            work(taps);
            return true;
        }
        let map = self.maps[z.min(self.maps.len() - 1)];
        map.map(|map| work(&Taps::new(&map, self.shape, self.masked))).is_some()
    }
}

/// What every slice of the image goes through.
struct Pass<'a> {
    grid: Grid,
    moves: Moves,
    field: Option<Field<'a>>,
    mirrored: [bool; 3],
    /// Whether the largest magnitude is wanted.
    measures: bool,
    /// What comes in from outside the image.
    outside: f32,
}

impl Pass<'_> {
    /// Changes some slices from `z` on; the largest magnitude in them, or 0 where nobody asks.
    fn slab(&self, z: usize, slab: &mut [f32], before: &mut Vec<f32>) -> f32 {
        if let Some(taps) = &self.moves.shared {
            return self.moved(taps, z, slab, before);
        }
        let slices = slab.chunks_exact_mut(self.grid.shape[0] * self.grid.shape[1]);
        let each = slices.enumerate().map(|(i, slice)| {
            let mut largest = 0.0;
            let moved = self.moves.with(z + i, |taps| {
                largest = self.moved(taps, z + i, slice, before);
            });
            if moved { largest } else { self.still(z + i, slice) }
        });
        each.fold(0.0, f32::max)
    }

    /// Slices that move alike, row by row, so that the look-up of a row serves all of them from the first cache.
    fn moved(&self, taps: &Taps, z: usize, slab: &mut [f32], before: &mut Vec<f32>) -> f32 {
        let [nx, ny, _] = self.grid.shape;
        before.clear();
        before.reserve_exact(slab.len() / (nx * ny) * (nx + 1) * (ny + 1));
        slab.chunks_exact(nx * ny).for_each(|slice| taps.pad(slice, before));
        let slices = slab.len() / (nx * ny);
        let padded = before.len() / slices;
        let fields: Vec<_> = (z..z + slices).map(|z| self.in_plane(z)).collect();
        let mut largest = 0.0_f32;
        for y in 0..ny {
            let to = if self.mirrored[1] { ny - 1 - y } else { y };
            for (i, field) in fields.iter().enumerate() {
                let row = &mut slab[(i * ny + to) * nx..][..nx];
                taps.linear(y, &before[i * padded..][..padded], self.outside, row);
                largest = largest.max(self.finish(field.as_ref(), y, row));
            }
        }
        largest
    }

    /// A slice that stays in its place.
    fn still(&self, z: usize, slice: &mut [f32]) -> f32 {
        let nx = self.grid.shape[0];
        let field = self.in_plane(z);
        let rows = slice.chunks_exact_mut(nx).enumerate();
        let largest = rows.map(|(y, row)| self.finish(field.as_ref(), y, row)).fold(0.0, f32::max);
        if self.mirrored[1] {
            swap_ends(slice, nx);
        }
        largest
    }

    fn in_plane(&self, z: usize) -> Option<InPlaneField> {
        self.field.as_ref().map(|field| field.at_z(z))
    }

    /// Field and mirror of a row that was `y` before the mirror; its largest magnitude.
    fn finish(&self, in_plane: Option<&InPlaneField>, y: usize, row: &mut [f32]) -> f32 {
        if let (Some(field), Some(in_plane)) = (&self.field, in_plane) {
            field.multiply(in_plane, y, row);
        }
        if self.mirrored[0] {
            row.reverse();
        }
        if self.measures { gamma::largest_magnitude(row) } else { 0.0 }
    }
}

fn change_mask(mask: &mut Mask, moves: &Moves, [mirror_x, mirror_y, mirror_z]: [bool; 3]) {
    let [nx, ny, _] = mask.grid().shape;
    let slices = mask.voxels_mut().par_chunks_exact_mut(nx * ny).enumerate();
    slices.for_each_init(Vec::new, |before: &mut Vec<u8>, (z, slice)| {
        moves.with(z, |taps| {
            before.clear();
            before.extend_from_slice(slice);
            let rows = slice.chunks_exact_mut(nx).enumerate();
            rows.for_each(|(y, row)| taps.nearest(y, before, row));
        });
        if mirror_x {
            slice.chunks_exact_mut(nx).for_each(<[u8]>::reverse);
        }
        if mirror_y {
            swap_ends(slice, nx);
        }
    });
    if mirror_z {
        swap_ends(mask.voxels_mut(), nx * ny);
    }
}

/// The least finite voxel, or 0 where there is none.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn lowest(voxels: &[f32]) -> f32 {
    let mut lanes = [f32::MAX; 32];
    let (blocks, rest) = voxels.as_chunks::<32>();
    let least = |a: f32, v: f32| if v < a && v >= f32::MIN { v } else { a };
    for block in blocks {
        for (lane, v) in lanes.iter_mut().zip(block) {
            *lane = least(*lane, *v);
        }
    }
    let lowest = rest.iter().copied().chain(lanes).fold(f32::MAX, least);
    if lowest < f32::MAX { lowest } else { 0.0 }
}
