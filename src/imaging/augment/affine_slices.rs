//! Rotation, scaling and shift within the slice plane.
//!
//! As `RandomAffine` of `TorchIO` with its meanings, kept to the plane of the slices (voxel x and y): DWI slices are
//! several times thicker than wide, and a rotation out of the plane would blend tissue that was never imaged together.
//! Around the centre of the slice, in mm, a point q goes to p = S (R(θ) q + t). A scale above 1 enlarges the head, an angle
//! above 0 turns voxel x towards voxel y. The image is bilinear, the mask takes the nearest voxel; what comes in from
//! outside is the image's minimum and 0 in the mask.
//!
//! One draw moves all slices alike by default. `slice_jitter` = j moves every slice on its own as well: its parameters are
//! (1 − j) × the shared draw + j × a draw of the slice, so that j = 1 is a wholly independent affine for each slice.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use super::{Draw, check_probability, check_range, to_record};
use crate::error::{Error, Result};
use crate::imaging::random::uniform;
use crate::imaging::resample::{inside, nearest, neighbours};
use crate::volume::{Grid, Image, Mask};

/// Parameters of a random affine in the slice plane.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AffineSlices {
    /// Share of the samples that are changed.
    pub probability: f64,
    /// The angle is uniform between minus this and this, in degrees.
    pub degrees: f64,
    /// Each scale is uniform between 1 minus this and 1 plus this.
    pub scales: f64,
    /// One scale for both axes of the plane instead of one each.
    pub isotropic: bool,
    /// The shift along each axis is uniform between minus this and this, in mm.
    pub translation_mm: f64,
    /// How much of the movement each slice has to itself: 0 none, 1 all of it.
    pub slice_jitter: f64,
}

impl Default for AffineSlices {
    /// `TorchIO`'s ±10° and scales 0.9 to 1.1 without shift, on half of the samples, all slices alike.
    fn default() -> Self {
        Self {
            probability: 0.5,
            degrees: 10.0,
            scales: 0.1,
            isotropic: false,
            translation_mm: 0.0,
            slice_jitter: 0.0,
        }
    }
}

/// How one slice moves.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InPlane {
    /// Angle in degrees, from voxel x towards voxel y.
    pub degrees: f64,
    /// Scale along voxel x and y.
    pub scale: [f64; 2],
    /// Shift along voxel x and y in mm.
    pub translation_mm: [f64; 2],
}

/// The movements that were drawn.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AffineSlicesDraw {
    /// One for every slice, or a single one for all of them.
    pub slices: Vec<InPlane>,
}

impl AffineSlices {
    /// Refuses parameters that mean nothing, with the parameter named.
    pub fn check(&self) -> Result<()> {
        check_probability("affine_slices", self.probability)?;
        check_range("affine_slices.degrees", self.degrees, 0.0, 180.0)?;
        check_range("affine_slices.scales", self.scales, 0.0, 0.9)?;
        check_range("affine_slices.translation_mm", self.translation_mm, 0.0, 1000.0)?;
        check_range("affine_slices.slice_jitter", self.slice_jitter, 0.0, 1.0)
    }

    /// Draws the movement of all slices, and of each one where they have their own.
    pub fn draw(&self, rng: &mut ChaCha8Rng, grid: &Grid) -> AffineSlicesDraw {
        let shared = self.draw_one(rng);
        let j = self.slice_jitter;
        if j <= 0.0 {
            return AffineSlicesDraw { slices: vec![shared] };
        }
        let slices = (0..grid.shape[2])
            .map(|_| {
                let own = self.draw_one(rng);
                let mix = |shared: f64, own: f64| to_record((1.0 - j) * shared + j * own);
                InPlane {
                    degrees: mix(shared.degrees, own.degrees),
                    scale: [0, 1].map(|a| mix(shared.scale[a], own.scale[a])),
                    translation_mm: [0, 1]
                        .map(|a| mix(shared.translation_mm[a], own.translation_mm[a])),
                }
            })
            .collect();
        AffineSlicesDraw { slices }
    }

    fn draw_one(&self, rng: &mut ChaCha8Rng) -> InPlane {
        let mut within = |limit: f64| to_record(uniform(rng, -limit..limit));
        let degrees = within(self.degrees);
        let (sx, sy) = (within(self.scales), within(self.scales));
        let scale = [sx, if self.isotropic { sx } else { sy }];
        let translation_mm = [within(self.translation_mm), within(self.translation_mm)];
        InPlane { degrees, scale: scale.map(|s| to_record(1.0 + s)), translation_mm }
    }
}

impl AffineSlicesDraw {
    /// Moves the slices of image and mask; slices that do not move keep their bytes.
    ///
    /// # Errors
    /// A data error where the mask has another shape than the image, where there are neither one movement nor as many as
    /// slices, or where a scale is not above 0.
    pub fn apply(&self, image: &mut Image, mask: Option<&mut Mask>) -> Result<()> {
        Draw { affine_slices: Some(self.clone()), ..Draw::default() }.apply(image, mask)
    }

    /// For every slice, or for all of them, the map from output to input pixel; none where it stays as it is.
    pub(super) fn pixel_maps(&self, grid: &Grid) -> Result<Vec<Option<PixelMap>>> {
        let slices = grid.shape[2];
        if self.slices.len() != 1 && self.slices.len() != slices {
            return Err(Error::data(format!(
                "the draw moves {} slices, the image has {slices}",
                self.slices.len()
            ))
            .hint("apply a recorded draw to the grid that it was drawn for"));
        }
        self.slices.iter().map(|slice| slice.pixel_map(grid)).collect()
    }
}

/// Output pixel (x, y) → input pixel: rows of a 2 × 3 matrix.
pub(super) type PixelMap = [[f64; 3]; 2];

impl InPlane {
    /// The inverse of the movement, from output to input pixel; none where nothing moves.
    fn pixel_map(&self, grid: &Grid) -> Result<Option<PixelMap>> {
        let numbers = [self.degrees, self.scale[0], self.scale[1]];
        let finite = numbers.iter().chain(&self.translation_mm).all(|v| v.is_finite());
        if !finite || self.scale.iter().any(|s| *s <= 0.0) {
            return Err(Error::data(format!(
                "{self:?} is no movement of a slice (expected numbers, and scales above 0)"
            )));
        }
        let still = Self { degrees: 0.0, scale: [1.0; 2], translation_mm: [0.0; 2] };
        if *self == still {
            return Ok(None);
        }
        let spacing = grid.affine.spacing_mm();
        let centre = [0, 1].map(|a| 0.5 * (grid.shape[a] as f64 - 1.0));
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        // q = R(−θ) (S⁻¹ p − t), in mm around the centre, then back to pixels.
        let turned = [[cos, sin], [-sin, cos]];
        Ok(Some([0, 1].map(|a| {
            let in_pixels = |b: usize, mm: f64| turned[a][b] * mm / spacing[a];
            let pixels = [0, 1].map(|b| in_pixels(b, spacing[b] / self.scale[b]));
            let shift: f64 = (0..2).map(|b| in_pixels(b, self.translation_mm[b])).sum();
            let start = centre[a] - pixels[0] * centre[0] - pixels[1] * centre[1] - shift;
            [pixels[0], pixels[1], start]
        })))
    }
}

/// Where the pixels of an output slice look in the input slice.
pub(super) struct Taps {
    shape: [usize; 2],
    /// For each row the pixels that lie in the field of view; the others come from outside.
    inside: Vec<Range<usize>>,
    /// For each pixel inside, row after row.
    pixels: Vec<Tap>,
    /// For each pixel inside, the input pixel nearest to it; empty where no mask moves.
    nearest: Vec<u32>,
    /// Pixels inside before each row.
    before: Vec<usize>,
}

/// The first of four neighbours in a padded slice, and the weights of those after it along x and y.
struct Tap {
    first: u32,
    x: f32,
    y: f32,
}

impl Taps {
    pub(super) fn new([to_x, to_y]: &PixelMap, [nx, ny]: [usize; 2], masked: bool) -> Self {
        let mut taps = Self {
            shape: [nx, ny],
            inside: Vec::with_capacity(ny),
            pixels: Vec::with_capacity(nx * ny),
            nearest: Vec::new(),
            before: Vec::with_capacity(ny),
        };
        for y in 0..ny {
            let start = [to_x, to_y].map(|m| m[1] * y as f64 + m[2]);
            let (on_x, on_y) =
                (inside(start[0], to_x[0], nx, nx), inside(start[1], to_y[0], ny, nx));
            let first = on_x.start.max(on_y.start);
            let row = first..on_x.end.min(on_y.end).max(first);
            let at = |x: usize| [start[0] + to_x[0] * x as f64, start[1] + to_y[0] * x as f64];
            taps.before.push(taps.pixels.len());
            taps.pixels.extend(row.clone().map(|x| {
                let [x, y] = at(x);
                let ((x, _, along_x), (y, _, along_y)) =
                    (neighbours(x, nx - 1), neighbours(y, ny - 1));
                Tap { first: (y * (nx + 1) + x) as u32, x: along_x, y: along_y }
            }));
            if masked {
                taps.nearest.extend(row.clone().map(|x| {
                    let [x, y] = at(x);
                    (nearest(y, ny - 1) * nx + nearest(x, nx - 1)) as u32
                }));
            }
            taps.inside.push(row);
        }
        taps
    }

    /// Appends a slice with its last column and row once more, so that every pixel has neighbours.
    pub(super) fn pad(&self, slice: &[f32], padded: &mut Vec<f32>) {
        let [nx, ny] = self.shape;
        for row in slice.chunks_exact(nx).chain([&slice[(ny - 1) * nx..]]) {
            padded.extend_from_slice(row);
            padded.push(row[nx - 1]);
        }
    }

    /// Row `y` of the output slice, bilinear in a padded slice.
    pub(super) fn linear(&self, y: usize, padded: &[f32], outside: f32, row: &mut [f32]) {
        let below = self.shape[0] + 1;
        let inside = self.inside[y].clone();
        row[..inside.start].fill(outside);
        row[inside.end..].fill(outside);
        let taps = &self.pixels[self.before[y]..][..inside.len()];
        bilinear(taps, padded, below, &mut row[inside]);
    }

    /// Row `y` of the output mask, the nearest pixels of a slice.
    pub(super) fn nearest(&self, y: usize, slice: &[u8], row: &mut [u8]) {
        let inside = self.inside[y].clone();
        row[..inside.start].fill(0);
        row[inside.end..].fill(0);
        let taps = &self.nearest[self.before[y]..][..inside.len()];
        row[inside].iter_mut().zip(taps).for_each(|(output, &i)| *output = slice[i as usize]);
    }
}

/// Each output pixel from its four neighbours, the lower two `below` after the upper.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn bilinear(taps: &[Tap], padded: &[f32], below: usize, row: &mut [f32]) {
    for (output, tap) in row.iter_mut().zip(taps) {
        let upper = padded[tap.first as usize..].first_chunk::<2>();
        let lower = padded[tap.first as usize + below..].first_chunk::<2>();
        let (Some(upper), Some(lower)) = (upper, lower) else { continue };
        let along_y = [0, 1].map(|i| (1.0 - tap.y) * upper[i] + tap.y * lower[i]);
        *output = (1.0 - tap.x) * along_y[0] + tap.x * along_y[1];
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lesion, ramp};
    use super::*;
    use crate::imaging::random::keyed;

    fn still() -> InPlane {
        InPlane { degrees: 0.0, scale: [1.0; 2], translation_mm: [0.0; 2] }
    }

    #[test]
    fn no_movement_keeps_the_bytes() -> Result<()> {
        let (image, mask) = (ramp(), lesion());
        let (mut out, mut moved) = (image.clone(), mask.clone());
        AffineSlicesDraw { slices: vec![still()] }.apply(&mut out, Some(&mut moved))?;
        assert!(image.data.iter().zip(&out.data).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!(mask, moved);
        Ok(())
    }

    // benches/peers/augment.py: TorchIO 1.2.1, tio.Affine.
    #[test]
    fn agrees_with_torchio() -> Result<()> {
        let mut image = ramp();
        let movement = InPlane { degrees: 12.0, scale: [1.1, 0.9], translation_mm: [1.5, -0.8] };
        AffineSlicesDraw { slices: vec![movement] }.apply(&mut image, None)?;
        let row = image.data.slice(ndarray::s![2, 1, ..]).to_vec();
        let want: [f32; 6] = [-1.0, 23.183_975, 21.825_813, 14.846_877, 25.947_39, 9.984_467];
        for (g, w) in row.iter().zip(want) {
            assert!((g - w).abs() < 1e-5 * w.abs().max(1.0), "{row:?}");
        }
        Ok(())
    }

    #[test]
    fn whole_voxel_shifts_copy_and_fill_with_the_minimum() -> Result<()> {
        let (image, mask) = (ramp(), lesion());
        let (mut out, mut moved) = (image.clone(), mask.clone());
        // Spacing 2 mm: one voxel towards larger x.
        let movement = InPlane { translation_mm: [2.0, 0.0], ..still() };
        AffineSlicesDraw { slices: vec![movement] }.apply(&mut out, Some(&mut moved))?;
        let minimum = image.data.iter().copied().fold(f32::INFINITY, f32::min);
        for ((z, y, x), v) in out.data.indexed_iter() {
            let want = if x == 0 { minimum } else { image.data[[z, y, x - 1]] };
            assert!((v - want).abs() < 1e-4, "{x} {y} {z}: {v} {want}");
            assert_eq!(moved.data[[z, y, x]], if x == 0 { 0 } else { mask.data[[z, y, x - 1]] });
        }
        Ok(())
    }

    #[test]
    fn jitter_gives_every_slice_its_own_movement() -> Result<()> {
        let grid = ramp().grid();
        let parameters =
            AffineSlices { slice_jitter: 0.5, translation_mm: 3.0, ..Default::default() };
        let drawn = parameters.draw(&mut keyed(1, &["slices"]), &grid);
        assert_eq!(drawn.slices.len(), 4);
        assert_ne!(drawn.slices[0], drawn.slices[1]);
        assert!(drawn.slices.iter().all(|s| s.degrees.abs() <= 10.0));
        drawn.apply(&mut ramp(), None)?;
        let shared = AffineSlices::default().draw(&mut keyed(1, &["slices"]), &grid);
        assert_eq!(shared.slices.len(), 1);
        let other = AffineSlicesDraw { slices: vec![still(); 3] };
        assert!(other.apply(&mut ramp(), None).is_err());
        Ok(())
    }

    #[test]
    fn an_impossible_movement_is_refused() {
        for scale in [[0.0, 1.0], [f64::NAN, 1.0], [-1.0, 1.0]] {
            let drawn = AffineSlicesDraw { slices: vec![InPlane { scale, ..still() }] };
            assert!(drawn.apply(&mut ramp(), None).is_err());
        }
        assert!(AffineSlices { scales: 1.0, ..Default::default() }.check().is_err());
        assert!(AffineSlices { degrees: f64::NAN, ..Default::default() }.check().is_err());
    }
}
