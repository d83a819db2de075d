//! A synthetic head on diffusion-weighted MRI, with infarcts whose outline is known.
//!
//! [`make`] takes a subject ([`Anatomy`]), a scan ([`Acquisition`]) and [`Lesion`]s and returns the volumes at b =
//! 0 and at the diffusion b-value, the mask of the acute infarcts and the mask of the brain. Geometry lives in an
//! atlas ([`anatomy`]), contrast in relaxation times and ADC (`tissue`), lesions in level fields ([`lesions`]) at
//! the study's locations ([`location`]), the scanner in [`acquisition`]. Signals follow S(b) = S(0) · e^(−b · ADC),
//! so that an ADC map made of the two volumes shows restriction in acute infarcts and none in the distractors.
//!
//! What is made depends on the arguments alone: slices run in parallel, each with noise keyed by its number.

pub mod acquisition;
pub mod anatomy;
pub mod lesions;
pub mod location;
mod plant;
mod shapes;
mod tissue;

use ndarray::Array3;
use rayon::prelude::*;

pub use acquisition::{Acquisition, Bias};
pub use anatomy::Anatomy;
pub use lesions::{Kind, Lesion, Shape};
pub use location::Location;

use self::acquisition::{Susceptibility, add_noise};
use self::tissue::{Palette, Tissue};
use crate::imaging::random::keyed;
use crate::volume::{Affine, Grid, Image, Mask, Volume};

/// A scanned synthetic head.
#[derive(Debug, Clone)]
pub struct Phantom {
    /// Magnitudes at b = 0, whole numbers from 0 to 32,767.
    pub b0: Image,
    /// Magnitudes at the acquisition's b-value, whole numbers from 0 to 32,767.
    pub dwi: Image,
    /// Acute infarcts.
    pub truth: Mask,
    /// Brain and the fluid within and around it.
    pub brain: Mask,
    /// Volume of old infarcts within brain tissue in mL.
    pub chronic_ml: f64,
    /// Volume of white-matter hyperintensities in mL.
    pub hyperintensity_ml: f64,
}

/// Scans a subject with lesions.
///
/// `seed` and `name` key the noise and the disturbances of the field. Lesions are painted in the order given, so
/// acute ones belong last. An empty grid gives an empty phantom.
pub fn make(
    anatomy: &Anatomy,
    acquisition: &Acquisition,
    lesions: &[Lesion],
    seed: u64,
    name: &str,
) -> Phantom {
    let palette = Palette::new(&acquisition.sequence());
    let locator = Locator::new(anatomy, &acquisition.grid);
    let mut fields = Fields::paint(&locator, acquisition, &palette);
    let mut truth = Mask::filled(&acquisition.grid, 0);
    let voxel_ml = acquisition.grid.voxel_volume_mm3() / 1000.0;
    let (mut chronic_ml, mut hyperintensity_ml) = (0.0, 0.0);
    for lesion in lesions {
        let planted = plant::plant(&mut fields, &locator, lesion, &palette);
        match lesion.kind {
            Kind::Acute => {
                let voxels = truth.voxels_mut();
                for &i in &planted {
                    voxels[i as usize] = 1;
                }
            }
            Kind::Chronic => chronic_ml += planted.len() as f64 * voxel_ml,
            Kind::Hyperintensity => hyperintensity_ml += planted.len() as f64 * voxel_ml,
        }
    }
    let noise = acquisition.white_level * f64::from(palette.of(Tissue::White)[1])
        / acquisition.snr.max(1e-3);
    scan(&mut fields, &locator, acquisition, noise as f32, (seed, name));
    let volume = |data| Volume { data, affine: acquisition.grid.affine };
    Phantom {
        b0: volume(fields.b0),
        dwi: volume(fields.dwi),
        truth,
        brain: Volume { data: fields.brain, affine: acquisition.grid.affine },
        chronic_ml,
        hyperintensity_ml,
    }
}

/// A small, clean case for tests: diffusion-weighted image, mask of one to three infarcts, mask of the brain.
///
/// The grid is centred on the head; the infarcts hold about 1 % of the brain and at least 20 voxels together.
pub fn simple(shape: [usize; 3], spacing_mm: [f64; 3], seed: u64) -> (Image, Mask, Mask) {
    let mut rng = keyed(seed, &["phantom", "simple"]);
    let grid = centred(shape, spacing_mm);
    let anatomy = Anatomy::draw(&mut rng, 65.0, [0.0; 3]);
    let mut acquisition = Acquisition::typical(grid);
    acquisition.bias = Bias::draw(&mut rng, 0.15);
    let volume_ml = (20.0 * grid.voxel_volume_mm3() / 1000.0).max(14.0);
    let mut lesions = Lesion::acute(&mut rng, Location::Cortex, 0.7 * volume_ml, Some(12.0));
    lesions.extend(Lesion::acute(&mut rng, Location::BasalGanglia, 0.3 * volume_ml, Some(12.0)));
    let made = make(&anatomy, &acquisition, &lesions, seed, "simple");
    (made.dwi, made.truth, made.brain)
}

/// The middle of a head in mm of the atlas, which lies in the middle of a grid.
const MIDDLE_MM: [f64; 3] = [0.0, -17.0, 8.0];

/// A grid along the axes of the world with the middle of the head in its middle.
pub fn centred(shape: [usize; 3], spacing_mm: [f64; 3]) -> Grid {
    axial(shape, spacing_mm, [0.0; 3], false)
}

/// A grid of slices that are axial for a head which lies in the world as `tilt` says (radians about x, y, z).
///
/// With `flip_x`, the first voxel of a row lies on the right: the affine has a negative determinant.
pub fn axial(shape: [usize; 3], spacing_mm: [f64; 3], tilt: [f64; 3], flip_x: bool) -> Grid {
    let turn = shapes::rotation(tilt);
    let step = [if flip_x { -spacing_mm[0] } else { spacing_mm[0] }, spacing_mm[1], spacing_mm[2]];
    let first = [0, 1, 2].map(|a| MIDDLE_MM[a] - 0.5 * (shape[a] as f64 - 1.0) * step[a]);
    Grid {
        shape,
        affine: Affine(turn.map(|row| {
            let shift: f64 = row.iter().zip(first).map(|(r, f)| r * f).sum();
            [row[0] * step[0], row[1] * step[1], row[2] * step[2], shift]
        })),
    }
}

/// From voxels to places in the atlas.
struct Locator<'a> {
    anatomy: &'a Anatomy,
    grid: Grid,
    to_atlas: Affine,
}

impl<'a> Locator<'a> {
    fn new(anatomy: &'a Anatomy, grid: &Grid) -> Self {
        Self { anatomy, grid: *grid, to_atlas: anatomy.pose().compose(&grid.affine) }
    }

    /// The place of voxel (0, y, z) and the step from one voxel to the next along x, in mm of the atlas, unwarped.
    fn row(&self, y: f64, z: f64) -> ([f32; 3], [f32; 3]) {
        let start = self.to_atlas.apply([0.0, y, z]).map(|v| v as f32);
        (start, self.to_atlas.0.map(|row| row[0] as f32))
    }

    /// The place of a voxel in the atlas.
    #[inline]
    fn at(&self, (start, step): ([f32; 3], [f32; 3]), x: usize) -> [f32; 3] {
        self.anatomy.warped([0, 1, 2].map(|a| start[a] + x as f32 * step[a]))
    }
}

/// What has been painted so far: signals relative to white matter, and shares of tissue.
struct Fields {
    b0: Array3<f32>,
    dwi: Array3<f32>,
    /// Share of brain tissue.
    tissue: Array3<f32>,
    /// Share of white matter.
    white: Array3<f32>,
    brain: Array3<u8>,
    /// Half-width of edges in mm.
    half_mm: f32,
}

/// The slices of an array, in order; all arrays here are in standard layout.
fn slices<T: Send>(array: &mut Array3<T>) -> rayon::slice::ChunksMut<'_, T> {
    let (_, ny, nx) = array.dim();
    array.as_slice_mut().unwrap_or_default().par_chunks_mut((ny * nx).max(1))
}

impl Fields {
    /// Paints the head without lesions.
    fn paint(locator: &Locator<'_>, acquisition: &Acquisition, palette: &Palette) -> Self {
        let dim = locator.grid.dim();
        let zeros = || Array3::<f32>::zeros(dim);
        let (mut b0, mut dwi, mut tissue, mut white) = (zeros(), zeros(), zeros(), zeros());
        let mut brain = Array3::<u8>::zeros(dim);
        let spacing = locator.grid.affine.spacing_mm();
        let half_mm = (0.5 * spacing[0].max(spacing[1])).hypot(acquisition.blur_mm) as f32;
        let n = acquisition.sub_slices.max(1);
        let offsets: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64 - 0.5).collect();
        let part = 1.0 / n as f32;
        slices(&mut b0)
            .zip(slices(&mut dwi))
            .zip(slices(&mut tissue))
            .zip(slices(&mut white))
            .zip(slices(&mut brain))
            .enumerate()
            .for_each(|(z, ((((b0, dwi), tissue), white), brain))| {
                for (y, offset) in
                    (0..locator.grid.shape[1]).flat_map(|y| offsets.iter().map(move |o| (y, *o)))
                {
                    let row = locator.row(y as f64, z as f64 + offset);
                    for x in 0..locator.grid.shape[0] {
                        let i = y * locator.grid.shape[0] + x;
                        let (lanes, depth) =
                            locator.anatomy.at(locator.at(row, x), half_mm, palette);
                        b0[i] += part * lanes[0];
                        dwi[i] += part * lanes[1];
                        tissue[i] += part * lanes[2];
                        white[i] += part * lanes[3];
                        brain[i] |= u8::from(depth > 1.0);
                    }
                }
            });
        Self { b0, dwi, tissue, white, brain, half_mm }
    }
}

/// Turns relative signals into what the scanner writes: field, ghost, gain, noise.
fn scan(
    fields: &mut Fields,
    locator: &Locator<'_>,
    acquisition: &Acquisition,
    sigma: f32,
    (seed, name): (u64, &str),
) {
    let [nx, ny, _] = locator.grid.shape;
    let disturbed = Susceptibility::draw(
        &mut keyed(seed, &["phantom", name, "field"]),
        acquisition.susceptibility,
    );
    let world = acquisition.grid.affine;
    let gain = acquisition.white_level as f32;
    slices(&mut fields.b0).zip(slices(&mut fields.dwi)).enumerate().for_each(|(z, (b0, dwi))| {
        for y in 0..ny {
            let row = locator.row(y as f64, z as f64);
            let start = world.apply([0.0, y as f64, z as f64]).map(|v| v as f32);
            for x in 0..nx {
                let i = y * nx + x;
                if b0[i] + dwi[i] <= 0.0 {
                    continue;
                }
                let p = [0, 1, 2].map(|a| start[a] + x as f32 * world.0[a][0] as f32);
                let factor = gain * acquisition.bias.at(p) * disturbed.at(locator.at(row, x));
                b0[i] *= factor;
                dwi[i] *= factor;
            }
        }
        if acquisition.ghost_share > 0.0 {
            ghost(b0, nx, ny, acquisition.ghost_share as f32);
            ghost(dwi, nx, ny, acquisition.ghost_share as f32);
        }
        let mut rng = keyed(seed, &["phantom", name, "noise", &z.to_string()]);
        add_noise(&mut rng, b0, dwi, sigma);
    });
}

/// Adds to a slice a share of itself, shifted by half the field of view along y.
fn ghost(slice: &mut [f32], nx: usize, ny: usize, part: f32) {
    let half = ny / 2 * nx;
    if half == 0 {
        return;
    }
    let (front, rest) = slice.split_at_mut(half);
    for (a, b) in front.iter_mut().zip(rest) {
        (*a, *b) = (*a + part * *b, *b + part * *a);
    }
}

#[cfg(test)]
mod tests;
