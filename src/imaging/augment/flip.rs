//! Mirrors image and mask along axes of the head.
//!
//! As `RandomFlip` of `TorchIO`: each axis is drawn on its own, the voxels are reversed and the affine stays, so the
//! mirrored head lies on the same grid. Axes are named by what they mean in the head; the voxel axis that runs closest
//! to that direction is the one reversed.

use rand_chacha::ChaCha8Rng;

use super::{Draw, check_probability};
use crate::error::Result;
use crate::imaging::random::chance;
use crate::volume::{Affine, Grid, Image, Mask};

/// A direction of the head, with its opposite.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// World x.
    #[serde(alias = "left", alias = "right")]
    LeftRight,
    /// World y.
    #[serde(alias = "anterior", alias = "posterior")]
    AnteriorPosterior,
    /// World z.
    #[serde(alias = "inferior", alias = "superior")]
    InferiorSuperior,
}

/// Parameters of random mirroring.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Flip {
    /// Probability of mirroring, for each direction on its own.
    pub probability: f64,
    /// The directions that may be mirrored.
    pub directions: Vec<Direction>,
}

impl Default for Flip {
    /// Left and right, half of the time: the mirror image of a brain is a plausible brain.
    fn default() -> Self {
        Self { probability: 0.5, directions: vec![Direction::LeftRight] }
    }
}

/// The voxel axes that are reversed.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FlipDraw {
    /// For voxel axis x, y and z, whether it is reversed.
    pub voxel_axes: [bool; 3],
}

impl Flip {
    /// Refuses parameters that mean nothing, with the parameter named.
    pub fn check(&self) -> Result<()> {
        check_probability("flip", self.probability)
    }

    /// Draws, for each direction, whether its voxel axis is reversed on this grid.
    pub fn draw(&self, rng: &mut ChaCha8Rng, grid: &Grid) -> FlipDraw {
        let axis_of = voxel_axes(&grid.affine);
        let mut voxel_axes = [false; 3];
        for direction in &self.directions {
            voxel_axes[axis_of[*direction as usize]] ^= chance(rng, self.probability);
        }
        FlipDraw { voxel_axes }
    }
}

impl FlipDraw {
    /// Reverses the drawn axes of image and mask.
    ///
    /// # Errors
    /// A data error where the mask has another shape than the image.
    pub fn apply(&self, image: &mut Image, mask: Option<&mut Mask>) -> Result<()> {
        Draw { flip: Some(self.clone()), ..Draw::default() }.apply(image, mask)
    }
}

/// For world x, y and z the voxel axis that runs closest to it; each voxel axis is given once, the clearest first.
fn voxel_axes(affine: &Affine) -> [usize; 3] {
    let spacing = affine.spacing_mm();
    let alignment = |world: usize, voxel: usize| (affine.0[world][voxel] / spacing[voxel]).abs();
    let mut pairs: Vec<(usize, usize)> = (0..9).map(|i| (i / 3, i % 3)).collect();
    pairs.sort_by(|&(a, b), &(c, d)| alignment(c, d).total_cmp(&alignment(a, b)));
    let mut axes = [usize::MAX; 3];
    for (world, voxel) in pairs {
        if axes[world] == usize::MAX && !axes.contains(&voxel) {
            axes[world] = voxel;
        }
    }
    axes
}

/// Reverses the order of the blocks of `length` items.
pub(super) fn swap_ends<T>(items: &mut [T], length: usize) {
    let blocks = items.len() / length;
    let (front, back) = items.split_at_mut(blocks.div_ceil(2) * length);
    let pairs = front.chunks_exact_mut(length).zip(back.chunks_exact_mut(length).rev());
    pairs.for_each(|(a, b)| a.swap_with_slice(b));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{lesion, ramp};
    use super::*;
    use crate::imaging::random::keyed;
    use crate::volume::Volume;

    #[test]
    fn each_axis_is_reversed_in_image_and_mask() -> Result<()> {
        let (image, mask) = (ramp(), lesion());
        let (nz, ny, nx) = image.data.dim();
        let (mut out, mut moved) = (image.clone(), mask.clone());
        FlipDraw { voxel_axes: [true, false, true] }.apply(&mut out, Some(&mut moved))?;
        for ((z, y, x), v) in out.data.indexed_iter() {
            assert!((v - image.data[[nz - 1 - z, y, nx - 1 - x]]).abs() < f32::EPSILON);
            assert_eq!(moved.data[[z, y, x]], mask.data[[nz - 1 - z, y, nx - 1 - x]]);
        }
        let mut out = image.clone();
        FlipDraw { voxel_axes: [false, true, false] }.apply(&mut out, None)?;
        assert!((out.data[[1, 0, 3]] - image.data[[1, ny - 1, 3]]).abs() < f32::EPSILON);
        Ok(())
    }

    #[test]
    fn directions_follow_the_affine() {
        // Voxel x runs to the head's front, y to its feet, z to its right.
        let affine = Affine([[0.1, 0.2, 4.9, 0.0], [1.9, 0.3, 0.1, 0.0], [0.2, -1.9, 0.6, 0.0]]);
        assert_eq!(voxel_axes(&affine), [2, 0, 1]);
        let grid = Grid { shape: [4, 4, 4], affine };
        let flip = Flip { probability: 1.0, directions: vec![Direction::LeftRight] };
        let drawn = flip.draw(&mut keyed(1, &["flip"]), &grid);
        assert_eq!(drawn.voxel_axes, [false, false, true]);
    }

    #[test]
    fn a_mask_of_another_shape_is_refused() {
        let mut mask = Volume { data: ndarray::Array3::zeros((2, 2, 2)), affine: ramp().affine };
        assert!(FlipDraw { voxel_axes: [true; 3] }.apply(&mut ramp(), Some(&mut mask)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn twice_is_the_identity(axes in prop::array::uniform3(any::<bool>()), shape in (1_usize..5, 1_usize..6, 1_usize..7)) {
            let mut count = 0.0;
            let data = ndarray::Array3::from_shape_simple_fn(shape, || { count += 1.0; count });
            let image = Volume { data, affine: Affine::from_spacing_mm([1.0; 3]) };
            let mut out = image.clone();
            let drawn = FlipDraw { voxel_axes: axes };
            drawn.apply(&mut out, None)?;
            drawn.apply(&mut out, None)?;
            prop_assert_eq!(out, image);
        }
    }
}
