//! Contrast: sign(v) · M · (|v| / M)^γ with M the largest magnitude of the image and ln γ drawn at random.
//!
//! As `RandomGamma` of `TorchIO`, which expects intensities within [−1, 1]; dividing by M and multiplying again gives
//! any image that range and leaves its brightest voxel where it was. γ < 1 brightens, γ > 1 darkens.

use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Draw, check_probability, check_range, to_record};
use crate::error::Result;
use crate::imaging::elementary::power;
use crate::imaging::random::uniform;
use crate::volume::Image;

/// Parameters of a random contrast change.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gamma {
    /// Share of the samples that are changed.
    pub probability: f64,
    /// ln γ is uniform between minus this and this.
    pub log_gamma: f64,
}

impl Default for Gamma {
    /// `TorchIO`'s ±0.3, on half of the samples.
    fn default() -> Self {
        Self { probability: 0.5, log_gamma: 0.3 }
    }
}

/// The exponent that was drawn.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GammaDraw {
    /// The exponent γ, above 0.
    pub gamma: f64,
}

impl Gamma {
    /// Refuses parameters that mean nothing, with the parameter named.
    pub fn check(&self) -> Result<()> {
        check_probability("gamma", self.probability)?;
        check_range("gamma.log_gamma", self.log_gamma, 0.0, 5.0)
    }

    /// Draws an exponent.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> GammaDraw {
        GammaDraw { gamma: to_record(uniform(rng, -self.log_gamma..self.log_gamma).exp()) }
    }
}

impl GammaDraw {
    /// Changes the contrast of an image by the drawn exponent; 1 changes nothing.
    ///
    /// # Errors
    /// None at present.
    pub fn apply(&self, image: &mut Image) -> Result<()> {
        Draw { gamma: Some(self.clone()), ..Draw::default() }.apply(image, None)
    }

    /// Whether any voxel may change.
    pub(super) fn changes(&self) -> bool {
        (self.gamma as f32 - 1.0).abs() >= f32::EPSILON
    }

    /// Changes voxels whose largest magnitude is `largest`.
    pub(super) fn spread(&self, voxels: &mut [f32], largest: f32) {
        let inverse = 1.0 / largest;
        if largest.is_finite() && inverse.is_normal() {
            let blocks = voxels.par_chunks_mut(BLOCK);
            blocks.for_each(|block| raise(block, largest, inverse, self.gamma as f32));
        }
    }
}

/// Voxels that one thread takes at a time.
const BLOCK: usize = 64 << 10;

/// largest · (|v| / largest)ᵞ with the sign of v.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn raise(voxels: &mut [f32], largest: f32, inverse: f32, gamma: f32) {
    for v in voxels {
        let unit = v.abs() * inverse;
        let unit = if unit > 1.0 { 1.0 } else { unit };
        *v = (largest * power(unit, gamma)).copysign(*v);
    }
}

/// The largest |v|, NaN left out.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn largest_magnitude(voxels: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 32];
    let (blocks, rest) = voxels.as_chunks::<32>();
    for block in blocks {
        for (lane, v) in lanes.iter_mut().zip(block) {
            *lane = if v.abs() > *lane { v.abs() } else { *lane };
        }
    }
    // Eight lanes at a time: one after the other, each comparison would wait for the last.
    let (eights, _) = lanes.as_chunks::<8>();
    let mut eight = [0.0_f32; 8];
    for eight_more in eights {
        eight.iter_mut().zip(eight_more).for_each(|(a, b)| *a = if *b > *a { *b } else { *a });
    }
    rest.iter().map(|v| v.abs()).chain(eight).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::super::tests::ramp;
    use super::*;
    use crate::imaging::random::keyed;

    #[test]
    fn gamma_one_keeps_the_bytes() -> Result<()> {
        let image = ramp();
        let mut out = image.clone();
        GammaDraw { gamma: 1.0 }.apply(&mut out)?;
        assert!(image.data.iter().zip(&out.data).all(|(a, b)| a.to_bits() == b.to_bits()));
        Ok(())
    }

    #[test]
    fn negative_voxels_keep_their_sign_and_the_brightest_stays() -> Result<()> {
        let mut image = ramp();
        image.data[[0, 0, 0]] = -10.0;
        image.data[[1, 0, 0]] = 200.0;
        GammaDraw { gamma: 0.8 }.apply(&mut image)?;
        let want = -200.0 * (10.0_f64 / 200.0).powf(0.8);
        assert!(
            (f64::from(image.data[[0, 0, 0]]) - want).abs() < 1e-4,
            "{}",
            image.data[[0, 0, 0]]
        );
        assert!((image.data[[1, 0, 0]] - 200.0).abs() < 1e-4);
        Ok(())
    }

    #[test]
    fn draws_stay_in_range() {
        let mut rng = keyed(3, &["gamma"]);
        for _ in 0..500 {
            let drawn = Gamma { log_gamma: 0.3, probability: 1.0 }.draw(&mut rng);
            assert!(drawn.gamma.ln().abs() <= 0.3 + 1e-6, "{drawn:?}");
        }
    }

    #[test]
    fn a_black_image_stays_black() -> Result<()> {
        let mut image = ramp();
        image.data.fill(0.0);
        GammaDraw { gamma: 0.8 }.apply(&mut image)?;
        assert!(image.data.iter().all(|v| v.to_bits() == 0));
        Ok(())
    }
}
