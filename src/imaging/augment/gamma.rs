//! Contrast: sign(v) · M · (|v| / M)^γ with M the largest magnitude of the image and ln γ drawn at random.
//!
//! As `RandomGamma` of `TorchIO`, which expects intensities within [−1, 1]; dividing by M and multiplying again gives
//! any image that range and leaves its brightest voxel where it was. γ < 1 brightens, γ > 1 darkens.

use rand_chacha::ChaCha8Rng;

use super::{check_probability, check_range, to_record};
use crate::error::Result;
use crate::imaging::augment::elementary::power;
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
    pub fn apply(&self, image: &mut Image) {
        let gamma = self.gamma as f32;
        if (gamma - 1.0).abs() < f32::EPSILON {
            return;
        }
        let voxels = image.voxels_mut();
        let largest = largest_magnitude(voxels);
        let inverse = 1.0 / largest;
        if !(largest.is_finite() && inverse.is_normal()) {
            return;
        }
        for v in voxels {
            let unit = (v.abs() * inverse).min(1.0);
            *v = (largest * power(unit, gamma)).copysign(*v);
        }
    }
}

/// The largest |v|, NaN left out.
fn largest_magnitude(voxels: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (blocks, rest) = voxels.as_chunks::<16>();
    for block in blocks {
        for (lane, v) in lanes.iter_mut().zip(block) {
            *lane = if v.abs() > *lane { v.abs() } else { *lane };
        }
    }
    rest.iter().map(|v| v.abs()).chain(lanes).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::super::tests::ramp;
    use super::*;
    use crate::imaging::random::keyed;

    #[test]
    fn gamma_one_keeps_the_bytes() {
        let image = ramp();
        let mut out = image.clone();
        GammaDraw { gamma: 1.0 }.apply(&mut out);
        assert!(image.data.iter().zip(&out.data).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn negative_voxels_keep_their_sign_and_the_brightest_stays() {
        let mut image = ramp();
        image.data[[0, 0, 0]] = -10.0;
        image.data[[1, 0, 0]] = 200.0;
        GammaDraw { gamma: 0.8 }.apply(&mut image);
        let want = -200.0 * (10.0_f64 / 200.0).powf(0.8);
        assert!(
            (f64::from(image.data[[0, 0, 0]]) - want).abs() < 1e-4,
            "{}",
            image.data[[0, 0, 0]]
        );
        assert!((image.data[[1, 0, 0]] - 200.0).abs() < 1e-4);
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
    fn a_black_image_stays_black() {
        let mut image = ramp();
        image.data.fill(0.0);
        GammaDraw { gamma: 0.8 }.apply(&mut image);
        assert!(image.data.iter().all(|v| v.to_bits() == 0));
    }
}
