//! How a scanner sees the head: grid, sequence, coil, ghost, susceptibility and noise.
//!
//! The magnitude of a voxel with signal s is √((s′ + σ n₁)² + (σ n₂)²) (Rician; Gudbjartsson & Patz 1995, Magn
//! Reson Med 34:910), where n₁ and n₂ are standard normal and s′ = gain · coil(p) · susceptibility(p) · (s + ghost
//! · s shifted by half the field of view along the phase-encoding axis y). The coil field is a positive quadratic
//! polynomial of the position. Values are whole numbers of the scanner's unit, at most 32,767.

use std::sync::LazyLock;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::tissue::Sequence;
use crate::imaging::random::normal;
use crate::volume::Grid;

/// A diffusion scan: where, with which sequence, and how well.
#[derive(Debug, Clone)]
pub struct Acquisition {
    /// The voxels.
    pub grid: Grid,
    /// Diffusion weighting of the second volume in s/mm².
    pub b_value_s_per_mm2: f64,
    /// Field strength in tesla, which changes relaxation.
    pub field_strength_t: f64,
    /// Repetition time in ms.
    pub repetition_time_ms: f64,
    /// Echo time in ms.
    pub echo_time_ms: f64,
    /// Value of white matter at b = 0 without a bias field, in the scanner's unit.
    pub white_level: f64,
    /// White matter on the diffusion-weighted volume over the standard deviation of the noise.
    pub snr: f64,
    /// Receive field of the coil.
    pub bias: Bias,
    /// Nyquist ghost as a share of the signal.
    pub ghost_share: f64,
    /// Strength of bright spots and signal loss near air; 0 for none, 1 for common.
    pub susceptibility: f64,
    /// Half-width in mm by which the sequence blurs edges, beside the size of the voxels.
    pub blur_mm: f64,
    /// Samples through the thickness of a slice; 1 takes edges in a slice's plane only.
    pub sub_slices: usize,
}

impl Acquisition {
    /// A clean scan on a grid: b = 1,000 s/mm², 1.5 T, TR 5 s, TE 80 ms, SNR 25, mild bias.
    pub fn typical(grid: Grid) -> Self {
        Self {
            grid,
            b_value_s_per_mm2: 1000.0,
            field_strength_t: 1.5,
            repetition_time_ms: 5000.0,
            echo_time_ms: 80.0,
            white_level: 400.0,
            snr: 25.0,
            bias: Bias::none(),
            ghost_share: 0.01,
            susceptibility: 0.7,
            blur_mm: 0.7,
            sub_slices: 1,
        }
    }

    pub(super) fn sequence(&self) -> Sequence {
        Sequence {
            b_value_s_per_mm2: self.b_value_s_per_mm2,
            field_strength_t: self.field_strength_t,
            repetition_time_ms: self.repetition_time_ms,
            echo_time_ms: self.echo_time_ms,
        }
    }
}

/// A smooth multiplicative field: 1 plus a quadratic of x, y and z in units of 100 mm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bias([f32; 9]);

impl Bias {
    /// 1 everywhere.
    pub fn none() -> Self {
        Self([0.0; 9])
    }

    /// A field of about ± `strength` over a head, brighter towards the coil around it.
    pub fn draw(rng: &mut ChaCha8Rng, strength: f64) -> Self {
        // x, y, z, x², y², z², xy, xz, yz
        const MEAN: [f64; 9] = [0.0, 0.0, 0.0, 0.5, 0.4, 0.4, 0.0, 0.0, 0.0];
        const SPREAD: [f64; 9] = [0.5, 0.5, 0.5, 0.35, 0.35, 0.35, 0.3, 0.3, 0.3];
        Self(
            [0, 1, 2, 3, 4, 5, 6, 7, 8]
                .map(|i| (strength * (MEAN[i] + SPREAD[i] * normal(rng).clamp(-2.0, 2.0))) as f32),
        )
    }

    /// The field at a point of the world in mm.
    #[inline]
    pub fn at(&self, p: [f32; 3]) -> f32 {
        let [x, y, z] = p.map(|v| 0.01 * v);
        let c = &self.0;
        let sum = x * (c[0] + c[3] * x + c[6] * y + c[7] * z)
            + y * (c[1] + c[4] * y + c[8] * z)
            + z * (c[2] + c[5] * z);
        (1.0 + sum).clamp(0.35, 2.5)
    }
}

/// A place in mm of the atlas (right side) where the field is disturbed: centre, semi-axes, relative change of
/// signal.
type Spot = ([f32; 3], [f32; 3], f32);

/// Pile-up over the orbits, the petrous bones and beside the brainstem, loss above the sinuses.
const SPOTS: [Spot; 5] = [
    ([16.0, 36.0, -17.0], [9.0, 12.0, 7.0], 0.9),
    ([46.0, -26.0, -37.0], [12.0, 9.0, 9.0], 1.1),
    ([40.0, 20.0, -28.0], [10.0, 7.0, 9.0], 0.7),
    ([0.0, 26.0, -20.0], [11.0, 13.0, 7.0], -0.7),
    ([60.0, -30.0, -20.0], [8.0, 12.0, 9.0], 0.8),
];

/// Bright spots and signal loss near air-filled bone, uneven between the sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Susceptibility([[f32; 2]; SPOTS.len()]);

impl Susceptibility {
    pub(super) fn draw(rng: &mut ChaCha8Rng, strength: f64) -> Self {
        Self(SPOTS.map(|s| {
            [0; 2].map(|_| s.2 * (strength * (1.0 + 0.45 * normal(rng).clamp(-2.0, 2.0))) as f32)
        }))
    }

    /// The factor on the signal at a point of the atlas.
    #[inline]
    pub(super) fn at(&self, p: [f32; 3]) -> f32 {
        if p[2] > -8.0 {
            return 1.0;
        }
        let side = usize::from(p[0] > 0.0);
        let mut factor = 1.0;
        for ((centre, axes, _), strength) in SPOTS.iter().zip(&self.0) {
            let q = |a: usize, v: f32| (v - centre[a]) / axes[a];
            let (x, y, z) = (q(0, p[0].abs()), q(1, p[1]), q(2, p[2]));
            let near = (1.0 - (x * x + y * y + z * z)).max(0.0);
            factor += strength[side] * near * near;
        }
        factor.max(0.1)
    }
}

/// Intervals of the table of quantiles.
const STEPS: usize = 4096;

/// Quantiles of the standard normal distribution at (i + ½) / 4,097, scaled to a variance of 1.
static QUANTILES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let raw: Vec<f64> =
        (0..=STEPS).map(|i| quantile((i as f64 + 0.5) / (STEPS + 1) as f64)).collect();
    let variance = raw.iter().map(|v| v * v).sum::<f64>() / raw.len() as f64;
    raw.iter().map(|v| (v / variance.sqrt()) as f32).collect()
});

/// The inverse of the normal distribution (Acklam's rational approximation, relative error below 1.2e-9).
fn quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    let polynomial = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = p.min(1.0 - p);
    if tail < 0.02425 {
        let q = (-2.0 * tail.ln()).sqrt();
        let value = polynomial(&C, q) / (polynomial(&D, q) * q + 1.0);
        return if p < 0.5 { value } else { -value };
    }
    let q = p - 0.5;
    let r = q * q;
    polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
}

/// Turns the clean signal of one slice into whole magnitudes with Rician noise, for two volumes at once.
pub(super) fn add_noise(rng: &mut ChaCha8Rng, b0: &mut [f32], dwi: &mut [f32], sigma: f32) {
    let table = QUANTILES.as_slice();
    let draw = |bits: u64| {
        let bits = bits as usize & 0xffff;
        let (low, t) = (table[bits >> 4], (bits & 15) as f32 * 0.0625);
        low + t * (table[(bits >> 4) + 1] - low)
    };
    for (a, b) in b0.iter_mut().zip(dwi) {
        let bits = rng.next_u64();
        *a = magnitude(*a, sigma * draw(bits), sigma * draw(bits >> 16));
        *b = magnitude(*b, sigma * draw(bits >> 32), sigma * draw(bits >> 48));
    }
}

/// The rounded length of signal and noise in the complex plane.
#[inline]
fn magnitude(signal: f32, real: f32, imaginary: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let s = signal + real;
    let m = (s * s + imaginary * imaginary).sqrt().min(32_767.0);
    (m + ROUND) - ROUND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::random::keyed;

    // from scipy.stats import norm; norm.ppf([0.001, 0.025, 0.5, 0.8, 0.9999])
    #[test]
    fn quantiles_agree_with_scipy() {
        let expected = [
            (0.001, -3.090_232_306),
            (0.025, -1.959_963_985),
            (0.5, 0.0),
            (0.8, 0.841_621_234),
            (0.9999, 3.719_016_485),
        ];
        for (p, z) in expected {
            assert!((quantile(p) - z).abs() < 1e-7, "{p}: {} {z}", quantile(p));
        }
    }

    #[test]
    fn noise_over_nothing_is_rayleigh_and_over_signal_is_normal() {
        let n = 100_000;
        let (mut air, mut brain) = (vec![0.0; n], vec![5000.0; n]);
        add_noise(&mut keyed(1, &["noise"]), &mut air, &mut brain, 100.0);
        let mean = |v: &[f32]| v.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
        let spread = |v: &[f32]| {
            let m = mean(v);
            (v.iter().map(|v| (f64::from(*v) - m).powi(2)).sum::<f64>() / n as f64).sqrt()
        };
        // Rayleigh: mean σ √(π / 2), standard deviation σ √(2 − π / 2).
        assert!((mean(&air) - 125.33).abs() < 0.8 && (spread(&air) - 65.51).abs() < 0.8);
        assert!((mean(&brain) - 5001.0).abs() < 1.5 && (spread(&brain) - 100.0).abs() < 1.0);
        assert!(air.iter().all(|v| v.fract() == 0.0));
    }

    #[test]
    fn without_noise_whole_signals_stay() {
        let (mut b0, mut dwi) = (vec![0.0, 17.0, 40_000.0], vec![3.0, 5.0, 7.0]);
        add_noise(&mut keyed(1, &["noise"]), &mut b0, &mut dwi, 0.0);
        assert_eq!((b0, dwi), (vec![0.0, 17.0, 32_767.0], vec![3.0, 5.0, 7.0]));
    }

    #[test]
    fn no_strength_no_field() {
        let mut rng = keyed(5, &["field"]);
        let flat = Bias::draw(&mut rng, 0.0);
        let still = Susceptibility::draw(&mut rng, 0.0);
        for p in [[0.0; 3], [70.0, -80.0, -30.0], [16.0, 36.0, -17.0]] {
            assert!((flat.at(p) - 1.0).abs() < 1e-6 && (still.at(p) - 1.0).abs() < 1e-6);
        }
        let field = Bias::draw(&mut rng, 0.3);
        assert!(field.at([60.0, 0.0, 0.0]) > 0.0);
        assert!((field.at([0.0; 3]) - 1.0).abs() < 1e-6);
    }
}
