//! Geometry of the phantom: soft edges, ellipsoids, bent tubes and plane-wave noise, all in mm of the atlas.
//!
//! A shape is a *depth*: its approximate signed distance to the surface in mm, positive inside. For an ellipsoid
//! with semi-axes r it is (1 − |q|²) / (2 |q / r|) with q = (p − c) / r, the first-order distance `f / |∇f|`. Depth
//! d and an edge of half-width w give the share of a voxel that the shape fills, `clamp(½ + d / 2w)`: partial
//! volume without super-sampling.
//!
//! Folds are the zeros of a sum of eight plane waves of one wavelength and random directions, which look like
//! cortex in section because sulci keep their distance from each other. Only +, −, ×, ÷ and √ are used per voxel,
//! so that the same bytes come out on every machine.

use rand_chacha::ChaCha8Rng;

use crate::imaging::random::{normal, unit};

/// What a voxel holds: signal at b = 0, signal at the diffusion b-value, share of brain tissue, share of white
/// matter.
pub(super) type Lanes = [f32; 4];

/// `below` where `share` is 0, `above` where it is 1.
#[inline]
pub(super) fn blend(below: Lanes, above: Lanes, share: f32) -> Lanes {
    let mut out = below;
    for (o, a) in out.iter_mut().zip(above) {
        *o += share * (a - *o);
    }
    out
}

/// Share of a voxel inside a shape whose surface lies `depth_mm` away, for an edge of half-width `half_mm`.
#[inline]
pub(super) fn share(depth_mm: f32, half_mm: f32) -> f32 {
    (0.5 + 0.5 * depth_mm / half_mm).clamp(0.0, 1.0)
}

/// An axis-aligned ellipsoid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ellipsoid {
    centre: [f32; 3],
    inverse: [f32; 3],
}

impl Ellipsoid {
    pub(super) const fn new(centre_mm: [f32; 3], [x, y, z]: [f32; 3]) -> Self {
        Self { centre: centre_mm, inverse: [1.0 / x, 1.0 / y, 1.0 / z] }
    }

    /// Squared distance from the centre in units of the semi-axes: below 1 inside.
    #[inline]
    pub(super) fn radius2(&self, p: [f32; 3]) -> f32 {
        let q = |a: usize| (p[a] - self.centre[a]) * self.inverse[a];
        q(0) * q(0) + q(1) * q(1) + q(2) * q(2)
    }

    /// Depth of a point in mm.
    #[inline]
    pub(super) fn depth(&self, p: [f32; 3]) -> f32 {
        let mut radius2 = 0.0;
        let mut slope2 = 1e-8;
        for ((p, c), i) in p.iter().zip(&self.centre).zip(&self.inverse) {
            let q = (p - c) * i;
            let g = q * i;
            radius2 += q * q;
            slope2 += g * g;
        }
        0.5 * (1.0 - radius2) / slope2.sqrt()
    }
}

/// Depth in mm inside an ellipse with semi-axes `a`, `b`, for an offset `(u, v)` from its centre.
#[inline]
pub(super) fn ellipse_depth(u: f32, v: f32, a: f32, b: f32) -> f32 {
    let (p, q) = (u / a, v / b);
    (1.0 - (p * p + q * q).sqrt()) * a.min(b)
}

/// A number between −1 and 1 that follows sin(2πt) within 6 %, made of a parabola on each half turn; and its slope.
#[inline]
fn wave(t: f32) -> (f32, f32) {
    // Adding and taking away 1.5 · 2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let t = t - ((t + ROUND) - ROUND);
    (t * (8.0 - 16.0 * t.abs()), 8.0 - 32.0 * t.abs())
}

/// Plane waves in one sum.
const WAVES: usize = 8;

/// A random field of one wavelength, with mean 0 and a standard deviation of about 1.
#[derive(Debug, Clone)]
pub(super) struct Waves {
    /// Wave vectors in cycles a mm, one row an axis.
    vector: [[f32; WAVES]; 3],
    /// Where in its cycle each wave starts.
    phase: [f32; WAVES],
}

impl Waves {
    /// Directions uniform on the sphere, phases uniform.
    pub(super) fn draw(rng: &mut ChaCha8Rng, wavelength_mm: f64) -> Self {
        let mut waves = Self { vector: [[0.0; WAVES]; 3], phase: [0.0; WAVES] };
        for i in 0..WAVES {
            let v = [normal(rng), normal(rng), normal(rng)];
            let length = v.iter().map(|c| c * c).sum::<f64>().sqrt().max(1e-6);
            for (row, c) in waves.vector.iter_mut().zip(v) {
                row[i] = (c / length / wavelength_mm) as f32;
            }
            waves.phase[i] = unit(rng) as f32;
        }
        waves
    }

    /// The field at a point.
    #[inline]
    pub(super) fn value(&self, p: [f32; 3]) -> f32 {
        let mut terms = [0.0; WAVES];
        for (i, term) in terms.iter_mut().enumerate() {
            *term = wave(self.cycles(p, i)).0;
        }
        0.5 * terms.iter().sum::<f32>()
    }

    /// The field and the length of its gradient (a mm) at a point.
    #[inline]
    pub(super) fn value_and_slope(&self, p: [f32; 3]) -> (f32, f32) {
        let mut terms = [0.0; WAVES];
        let mut slopes = [[0.0; WAVES]; 3];
        for i in 0..WAVES {
            let (value, slope) = wave(self.cycles(p, i));
            terms[i] = value;
            for (slopes, row) in slopes.iter_mut().zip(&self.vector) {
                slopes[i] = slope * row[i];
            }
        }
        let slope2: f32 = slopes.iter().map(|s| s.iter().sum::<f32>()).map(|s| s * s).sum();
        (0.5 * terms.iter().sum::<f32>(), 0.5 * slope2.sqrt())
    }

    #[inline]
    fn cycles(&self, p: [f32; 3], i: usize) -> f32 {
        p[0] * self.vector[0][i]
            + p[1] * self.vector[1][i]
            + p[2] * self.vector[2][i]
            + self.phase[i]
    }
}

/// A rotation by angles in radians about x, then y, then z.
pub(super) fn rotation([a, b, c]: [f64; 3]) -> [[f64; 3]; 3] {
    let ((sa, ca), (sb, cb), (sc, cc)) = (a.sin_cos(), b.sin_cos(), c.sin_cos());
    [
        [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
        [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
        [-sb, cb * sa, cb * ca],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::random::keyed;

    #[test]
    fn depth_is_a_distance_near_the_surface() {
        let e = Ellipsoid::new([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]);
        assert!((e.depth([10.0, 2.0, 3.0]) - 1.0).abs() < 0.1);
        assert!((e.depth([1.0, 23.0, 3.0]) + 1.0).abs() < 0.1);
        assert!(e.depth([1.0, 2.0, 3.0]) > 5.0, "the centre is inside");
        assert!(e.radius2([1.0, 2.0, 33.0]) <= 1.0);
    }

    #[test]
    fn waves_follow_the_sine_and_have_unit_spread() {
        for i in -40..40 {
            let t = f64::from(i) / 17.0;
            assert!((f64::from(wave(t as f32).0) - (std::f64::consts::TAU * t).sin()).abs() < 0.06);
        }
        let waves = Waves::draw(&mut keyed(1, &["waves"]), 20.0);
        let n = 20_000_u32;
        let mut rng = keyed(2, &["points"]);
        let values: Vec<f64> = (0..n)
            .map(|_| [0; 3].map(|_| (unit(&mut rng) * 2000.0) as f32))
            .map(|p| f64::from(waves.value(p)))
            .collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| v * v).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.05 && (variance - 1.07).abs() < 0.1, "{mean} {variance}");
    }

    #[test]
    fn the_slope_is_the_derivative() {
        let waves = Waves::draw(&mut keyed(3, &["waves"]), 20.0);
        let p = [3.0_f32, -7.0, 11.0];
        let difference = |a: usize| {
            let (mut lower, mut upper) = (p, p);
            lower[a] -= 0.05;
            upper[a] += 0.05;
            (waves.value(upper) - waves.value(lower)) / 0.1
        };
        let expected = (0..3).map(difference).map(|d| d * d).sum::<f32>().sqrt();
        let (value, slope) = waves.value_and_slope(p);
        assert!((value - waves.value(p)).abs() < 1e-6);
        assert!((slope - expected).abs() < 0.02 * expected.max(0.05), "{slope} {expected}");
    }

    #[test]
    fn rotations_keep_lengths() {
        let r = rotation([0.3, -0.7, 1.9]);
        for (i, a) in r.iter().enumerate() {
            for (j, b) in r.iter().enumerate() {
                let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }
}
