//! Rotation, scaling and shift within the slice plane.
//!
//! As `RandomAffine` of `TorchIO` with its meanings, kept to the plane of the slices (voxel x and y): DWI slices are
//! several times thicker than wide, and a rotation out of the plane would blend tissue that was never imaged together.
//! Around the centre of the slice, in mm, a point q goes to p = R(θ) S q + t. A scale above 1 enlarges the head, an angle
//! above 0 turns voxel x towards voxel y. The image is bilinear, the mask takes the nearest voxel; what comes in from
//! outside is the image's minimum and 0 in the mask.
//!
//! One draw moves all slices alike by default. `slice_jitter` = j moves every slice on its own as well: its parameters are
//! (1 − j) × the shared draw + j × a draw of the slice, so that j = 1 is a wholly independent affine for each slice.

use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{check_probability, check_range, same_shape, to_record};
use crate::error::{Error, Result};
use crate::imaging::random::uniform;
use crate::imaging::resample::{inside, nearest, neighbours};
use crate::volume::{Grid, Image, Mask, Volume};

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
        let grid = image.grid();
        let lookups = self.lookups(&grid)?;
        if let Some(mask) = mask {
            same_shape(image, mask)?;
            move_slices(mask, &lookups, 0, |slice, [nx, ny], [x, y]| {
                slice[nearest(y, ny - 1) * nx + nearest(x, nx - 1)]
            });
        }
        let outside = image.voxels().iter().copied().fold(f32::INFINITY, f32::min);
        let outside = if outside.is_finite() { outside } else { 0.0 };
        move_slices(image, &lookups, outside, |slice, [nx, ny], [x, y]| {
            let ((x0, x1, wx), (y0, y1, wy)) = (neighbours(x, nx - 1), neighbours(y, ny - 1));
            let (above, below) = (&slice[y0 * nx..][..nx], &slice[y1 * nx..][..nx]);
            let along_x = |row: &[f32]| (1.0 - wx) * row[x0] + wx * row[x1];
            (1.0 - wy) * along_x(above) + wy * along_x(below)
        });
        Ok(())
    }

    /// For every slice the map from output to input pixel; none where it stays as it is.
    fn lookups(&self, grid: &Grid) -> Result<Vec<Option<PixelMap>>> {
        let slices = grid.shape[2];
        if self.slices.len() != 1 && self.slices.len() != slices {
            return Err(Error::data(format!(
                "the draw moves {} slices, the image has {slices}",
                self.slices.len()
            ))
            .hint("apply a recorded draw to the grid that it was drawn for"));
        }
        let maps: Vec<_> =
            self.slices.iter().map(|slice| slice.pixel_map(grid)).collect::<Result<_>>()?;
        Ok((0..slices).map(|z| maps[z.min(maps.len() - 1)]).collect())
    }
}

/// Output pixel (x, y) → input pixel: rows of a 2 × 3 matrix.
type PixelMap = [[f64; 3]; 2];

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
        // q = S⁻¹ R(−θ) (p − t), in mm around the centre, then back to pixels.
        let turned = [[cos, sin], [-sin, cos]];
        Ok(Some([0, 1].map(|a| {
            let mm = [0, 1].map(|b| turned[a][b] / self.scale[a]);
            let pixels = [0, 1].map(|b| mm[b] * spacing[b] / spacing[a]);
            let shift: f64 = (0..2).map(|b| mm[b] * self.translation_mm[b] / spacing[a]).sum();
            let start = centre[a] - pixels[0] * centre[0] - pixels[1] * centre[1] - shift;
            [pixels[0], pixels[1], start]
        })))
    }
}

/// Replaces each slice by its look-up in itself; pixels from outside become `outside`.
fn move_slices<T: Copy + Send + Sync>(
    volume: &mut Volume<T>,
    lookups: &[Option<PixelMap>],
    outside: T,
    sample: impl Fn(&[T], [usize; 2], [f64; 2]) -> T + Sync,
) {
    let [nx, ny, _] = volume.grid().shape;
    if nx * ny == 0 {
        return;
    }
    let slices = volume.voxels_mut().par_chunks_exact_mut(nx * ny).zip(lookups);
    slices.for_each_init(Vec::new, |before, (slice, lookup)| {
        let Some([to_x, to_y]) = lookup else { return };
        before.clear();
        before.extend_from_slice(slice);
        for (y, row) in slice.chunks_exact_mut(nx).enumerate() {
            let start = [to_x, to_y].map(|m| m[1] * y as f64 + m[2]);
            let (on_x, on_y) =
                (inside(start[0], to_x[0], nx, nx), inside(start[1], to_y[0], ny, nx));
            let range = on_x.start.max(on_y.start)..on_x.end.min(on_y.end);
            for (x, output) in row.iter_mut().enumerate() {
                *output = if range.contains(&x) {
                    let at = x as f64;
                    sample(before, [nx, ny], [start[0] + to_x[0] * at, start[1] + to_y[0] * at])
                } else {
                    outside
                };
            }
        }
    });
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

    // benches/peers/geometry.py, `affine_slices`: SimpleITK 2.5.7, sitk.Euler2DTransform and sitk.ScaleTransform.
    #[test]
    fn agrees_with_simpleitk() -> Result<()> {
        let mut image = ramp();
        let movement = InPlane { degrees: 12.0, scale: [1.1, 0.9], translation_mm: [1.5, -0.8] };
        AffineSlicesDraw { slices: vec![movement] }.apply(&mut image, None)?;
        let row = image.data.slice(ndarray::s![2, 1, ..]).to_vec();
        let want: [f32; 6] = [11.863_43, 20.809_925, 20.619_179, 14.544_941, 24.606_52, 8.575_921];
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
