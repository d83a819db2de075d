//! A small synthetic head for the tests inside pipeline files: known truth, made in milliseconds.
//!
//! Nested ellipsoids in a box scaled to −1 … 1 along each axis: a faint scalp shell, and within it the brain with
//! grey matter (the outer tenth of its radius), white matter and two dark ventricles; a bright sphere of known volume is the lesion.
//! On it lie a smooth multiplicative bias field, `exp(bias · (0.6 x + 0.4 y² − 0.3 z))` with the mean of its exponent
//! over the brain taken off, and Rician noise, `√((s + n₁)² + n₂²)` with normal n of standard deviation `noise`.

use ndarray::Array3;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::imaging::random;
use crate::volume::{Affine, Grid, Image, Mask, Volume};

/// Largest phantom, in voxels.
const MAX_VOXELS: usize = 1 << 24;

/// A synthetic head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PhantomParams {
    /// Voxels along x, y, z.
    pub shape: [usize; 3],
    /// Distance of voxels along x, y, z, in mm.
    pub spacing_mm: [f64; 3],
    /// Seed of the noise.
    pub seed: u64,
    /// Strength of the bias field: the exponent's factor. 0 is none, 0.3 is strong.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub bias: f64,
    /// Standard deviation of the noise in intensity units; white matter is at 100.
    #[schemars(range(min = 0.0))]
    pub noise: f64,
    /// Volume of the lesion in mL; 0 is none.
    #[schemars(range(min = 0.0))]
    pub lesion_ml: f64,
}

impl Default for PhantomParams {
    fn default() -> Self {
        Self {
            shape: [48, 48, 16],
            spacing_mm: [4.0, 4.0, 8.0],
            seed: 0,
            bias: 0.0,
            noise: 0.0,
            lesion_ml: 10.0,
        }
    }
}

/// A synthetic head with its masks.
#[derive(Debug, Clone, PartialEq)]
pub struct Phantom {
    /// Intensities: background 0, scalp 20, ventricles 30, white matter 100, grey matter 120, lesion 220, before bias and
    /// noise.
    pub image: Image,
    /// The lesion.
    pub truth: Mask,
    /// The brain with ventricles and lesion.
    pub brain: Mask,
}

/// Semi-axes of the brain along x, y, z, in the box from −1 to 1.
const BRAIN: [f64; 3] = [0.66, 0.8, 0.76];
/// Outer and inner edge of the scalp, as multiples of the brain's radius.
const SCALP: [f64; 2] = [1.18, 1.1];
/// Centre of the lesion.
const LESION: [f64; 3] = [0.3, -0.1, 0.1];

impl PhantomParams {
    /// Makes the head.
    ///
    /// # Errors
    /// A configuration error where a size is zero, not finite, or too large for a test.
    pub fn make(&self) -> Result<Phantom> {
        self.check()?;
        let affine = Affine::from_spacing_mm(self.spacing_mm);
        let grid = Grid { shape: self.shape, affine };
        let labels = Array3::from_shape_fn(grid.dim(), |(z, y, x)| self.tissue([x, y, z]));
        let mask = |wanted: fn(Tissue) -> bool| Volume {
            data: labels.mapv(|label| u8::from(wanted(label))),
            affine,
        };
        let brain = mask(|t| !matches!(t, Tissue::Air | Tissue::Scalp));
        let truth = mask(|t| matches!(t, Tissue::Lesion));
        let image = Volume { data: self.measure(&labels, &brain), affine };
        Ok(Phantom { image, truth, brain })
    }

    /// Whether such a head can be made.
    ///
    /// # Errors
    /// A configuration error where a size is zero, not finite, or too large for a test.
    pub fn check(&self) -> Result<()> {
        let voxels =
            self.shape.iter().try_fold(1_usize, |n, s| n.checked_mul(*s)).unwrap_or(usize::MAX);
        let spaced = self.spacing_mm.iter().all(|s| s.is_finite() && *s > 0.0);
        if voxels == 0 || voxels > MAX_VOXELS || !spaced {
            let found = format!("a phantom of {:?} voxels at {:?} mm", self.shape, self.spacing_mm);
            return Err(Error::configuration(format!("{found} cannot be made"))
                .hint("give positive sizes, and at most 16 million voxels"));
        }
        Ok(())
    }

    /// Position of a voxel's centre in the box.
    fn position(&self, voxel: [usize; 3]) -> [f64; 3] {
        [0, 1, 2].map(|a| (2 * voxel[a] + 1) as f64 / self.shape[a] as f64 - 1.0)
    }

    fn tissue(&self, voxel: [usize; 3]) -> Tissue {
        let p = self.position(voxel);
        let radius = |centre: [f64; 3], axes: [f64; 3]| {
            (0..3).map(|a| ((p[a] - centre[a]) / axes[a]).powi(2)).sum::<f64>().sqrt()
        };
        let half_mm = [0, 1, 2].map(|a| self.shape[a] as f64 * self.spacing_mm[a] / 2.0);
        let lesion_mm = (self.lesion_ml * 1000.0 * 3.0 / (4.0 * std::f64::consts::PI)).cbrt();
        let lesion = half_mm.map(|half| lesion_mm / half);
        let head = radius([0.0; 3], BRAIN);
        let ventricle = |side: f64| radius([0.13 * side, 0.1, 0.1], [0.08, 0.25, 0.2]) < 1.0;
        if head < 0.9 && self.lesion_ml > 0.0 && radius(LESION, lesion) < 1.0 {
            Tissue::Lesion
        } else if ventricle(-1.0) || ventricle(1.0) {
            Tissue::Ventricle
        } else if head < 0.9 {
            Tissue::White
        } else if head < 1.0 {
            Tissue::Grey
        } else if (SCALP[1]..SCALP[0]).contains(&head) {
            Tissue::Scalp
        } else {
            Tissue::Air
        }
    }

    /// Intensities with bias and noise.
    fn measure(&self, labels: &Array3<Tissue>, brain: &Mask) -> Array3<f32> {
        let exponent = |(z, y, x): (usize, usize, usize)| {
            let [px, py, pz] = self.position([x, y, z]);
            self.bias * (0.6 * px + 0.4 * py * py - 0.3 * pz)
        };
        let inside =
            brain.data.indexed_iter().filter(|(_, b)| **b == 1).map(|(at, _)| exponent(at));
        let (sum, n) = inside.fold((0.0, 0_usize), |(sum, n), e| (sum + e, n + 1));
        let mean = sum / n.max(1) as f64;
        let mut rng = random::keyed(self.seed, &["phantom"]);
        Array3::from_shape_fn(labels.dim(), |at| {
            let signal = labels[at].intensity() * (exponent(at) - mean).exp();
            if self.noise == 0.0 {
                return signal as f32;
            }
            let (a, b) = (random::normal(&mut rng), random::normal(&mut rng));
            (signal + self.noise * a).hypot(self.noise * b) as f32
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tissue {
    Air,
    Scalp,
    Ventricle,
    White,
    Grey,
    Lesion,
}

impl Tissue {
    fn intensity(self) -> f64 {
        match self {
            Self::Air => 0.0,
            Self::Scalp => 20.0,
            Self::Ventricle => 30.0,
            Self::White => 100.0,
            Self::Grey => 120.0,
            Self::Lesion => 220.0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn volume_ml(mask: &Mask) -> f64 {
        mask.voxels().iter().map(|v| f64::from(*v)).sum::<f64>() * mask.grid().voxel_volume_mm3()
            / 1000.0
    }

    #[test]
    fn the_lesion_has_its_volume_and_lies_in_the_brain() {
        let params = PhantomParams {
            shape: [96, 96, 48],
            spacing_mm: [2.0, 2.0, 3.0],
            ..Default::default()
        };
        let phantom = params.make().unwrap();
        assert!((volume_ml(&phantom.truth) - 10.0).abs() < 0.3, "{}", volume_ml(&phantom.truth));
        let inside = phantom.truth.voxels().iter().zip(phantom.brain.voxels()).all(|(t, b)| t <= b);
        assert!(inside && (900.0..1800.0).contains(&volume_ml(&phantom.brain)));
    }

    #[test]
    fn without_bias_and_noise_tissues_are_flat() {
        let phantom = PhantomParams::default().make().unwrap();
        let known = [0.0, 20.0, 30.0, 100.0, 120.0, 220.0];
        assert!(phantom.image.voxels().iter().all(|v| known.contains(v)));
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let params = PhantomParams { bias: 0.3, noise: 3.0, ..PhantomParams::default() };
        assert_eq!(params.make().unwrap(), params.make().unwrap());
        let other = PhantomParams { seed: 1, ..params.clone() };
        assert_ne!(params.make().unwrap(), other.make().unwrap());
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for (shape, spacing_mm) in
            [([0, 4, 4], [1.0; 3]), ([usize::MAX, 2, 2], [1.0; 3]), ([4; 3], [0.0, 1.0, f64::NAN])]
        {
            let params = PhantomParams { shape, spacing_mm, ..PhantomParams::default() };
            assert!(params.make().is_err());
        }
    }
}
