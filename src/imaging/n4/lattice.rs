//! Cubic B-spline lattices on a regular grid, axis by axis.
//!
//! An axis of n voxels with K control points has s = K − 3 spans. Voxel i lies at u = s·i/(n − 1) — from its index
//! alone — in span j = ⌊u⌋ at t = u − j, where control points j … j + 3 weigh
//! b = [(1−t)³, 3t³−6t²+4, −3t³+3t²+3t+1, t³] / 6. The last voxel would open a span of its own: it is moved back by
//! ε = 10⁻³·s/(n − 1). The least-squares fit of scattered points (Lee, Wolberg, Shin, IEEE TVCG 3, 1997) weighs a
//! point by Π b³/S and normalises by Π b², with S = Σ b² on each axis; both are products of one-axis factors, so on a
//! grid the fit is three one-axis contractions. An axis of one voxel is flat: one control point carries it all.

/// Weights of one axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// Control points.
    pub controls: usize,
    /// First control point of each voxel.
    pub base: Vec<usize>,
    /// b of each voxel: evaluation.
    pub value: Vec<[f64; 4]>,
    /// b³/S of each voxel: numerator of the fit.
    pub fit: Vec<[f64; 4]>,
    /// b² of each voxel: denominator of the fit.
    pub square: Vec<[f64; 4]>,
}

impl Axis {
    /// The axis of `voxels` ≥ 1 voxels and `controls` ≥ 4 control points.
    pub fn new(voxels: usize, controls: usize) -> Self {
        let spans = (controls - 3) as f64;
        let last = voxels.saturating_sub(1) as f64;
        let epsilon = 1e-3 * spans / last;
        let mut axis = Self {
            controls,
            base: Vec::with_capacity(voxels),
            value: Vec::with_capacity(voxels),
            fit: Vec::with_capacity(voxels),
            square: Vec::with_capacity(voxels),
        };
        for i in 0..voxels {
            let (base, value) = if voxels == 1 {
                (0, [1.0, 0.0, 0.0, 0.0])
            } else {
                let u = spans * i as f64 / last;
                let u = if (u - spans).abs() <= epsilon { spans - epsilon } else { u };
                (u.floor() as usize, weights(u - u.floor()))
            };
            let sum: f64 = value.iter().map(|b| b * b).sum();
            axis.base.push(base);
            axis.value.push(value);
            axis.fit.push(value.map(|b| b * b * b / sum));
            axis.square.push(value.map(|b| b * b));
        }
        axis
    }
}

/// Cubic B-spline weights at `t` in [0, 1).
fn weights(t: f64) -> [f64; 4] {
    let s = 1.0 - t;
    [
        s * s * s / 6.0,
        (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0,
        (-3.0 * t * t * t + 3.0 * t * t + 3.0 * t + 1.0) / 6.0,
        t * t * t / 6.0,
    ]
}

/// Control points, x fastest, in double precision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lattice {
    /// Control points along x, y, z.
    pub size: [usize; 3],
    /// Their values.
    pub data: Vec<f64>,
}

impl Lattice {
    /// All control points zero.
    pub fn zeros(size: [usize; 3]) -> Self {
        Self { size, data: vec![0.0; size.iter().product()] }
    }

    /// The same surface with twice the spans along the axes where `refine` holds: K → 2K − 3. Even outputs are
    /// ½(cᵢ + cᵢ₊₁), odd ones ⅛cᵢ + ¾cᵢ₊₁ + ⅛cᵢ₊₂.
    pub fn refined(&self, refine: [bool; 3]) -> Self {
        (0..3)
            .filter(|&a| refine[a])
            .fold(self.clone(), |lattice, axis| lattice.refined_along(axis))
    }

    fn refined_along(&self, axis: usize) -> Self {
        let mut size = self.size;
        size[axis] = 2 * size[axis] - 3;
        let mut out = Self::zeros(size);
        let stride = [1, self.size[0], self.size[0] * self.size[1]][axis];
        let mut cells = out.data.iter_mut();
        for z in 0..size[2] {
            for y in 0..size[1] {
                for x in 0..size[0] {
                    let mut at = [x, y, z];
                    let odd = at[axis] % 2 == 1;
                    at[axis] /= 2;
                    let first = (at[2] * self.size[1] + at[1]) * self.size[0] + at[0];
                    let c = |i: usize| self.data[first + i * stride];
                    if let Some(cell) = cells.next() {
                        *cell = if odd {
                            0.125 * c(0) + 0.75 * c(1) + 0.125 * c(2)
                        } else {
                            0.5 * (c(0) + c(1))
                        };
                    }
                }
            }
        }
        out
    }
}

/// `out = Σ w[a] · from[a·n ..][.. n]`: contracts the slowest axis of four layers of n values.
pub(super) fn contract(from: &[f64], n: usize, w: &[f64; 4], out: &mut [f64]) {
    out.fill(0.0);
    for (layer, w) in from.chunks_exact(n).zip(w) {
        for (o, c) in out.iter_mut().zip(layer) {
            *o += w * c;
        }
    }
}

/// `to[a·n ..][.. n] += w[a] · from`: the transpose of [`contract`].
pub(super) fn spread(from: &[f64], w: &[f64; 4], to: &mut [f64]) {
    for (layer, w) in to.chunks_exact_mut(from.len()).zip(w) {
        for (t, f) in layer.iter_mut().zip(from) {
            *t += w * f;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lattice: &Lattice, n: [usize; 3], p: [usize; 3]) -> f64 {
        let axes = [0, 1, 2].map(|a| Axis::new(n[a], lattice.size[a]));
        let mut sum = 0.0;
        for c in 0..64 {
            let k = [c % 4, c / 4 % 4, c / 16];
            let w: f64 = (0..3).map(|a| axes[a].value[p[a]][k[a]]).product();
            let i = [0, 1, 2].map(|a| axes[a].base[p[a]] + k[a]);
            sum += w * lattice.data[(i[2] * lattice.size[1] + i[1]) * lattice.size[0] + i[0]];
        }
        sum
    }

    fn wavy(size: [usize; 3]) -> Lattice {
        let mut lattice = Lattice::zeros(size);
        for (i, c) in lattice.data.iter_mut().enumerate() {
            *c = (i as f64 * 0.7).sin();
        }
        lattice
    }

    #[test]
    fn weights_sum_to_one_and_match_the_formula() {
        for i in 0..100 {
            let w = weights(f64::from(i) / 100.0);
            assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        let half = weights(0.5);
        for (found, expected) in half.iter().zip([1.0 / 48.0, 23.0 / 48.0, 23.0 / 48.0, 1.0 / 48.0])
        {
            assert!((found - expected).abs() < 1e-15);
        }
    }

    #[test]
    fn the_last_voxel_stays_in_the_last_span() {
        for (n, k) in [(2, 4), (25, 4), (256, 19), (7, 11)] {
            let axis = Axis::new(n, k);
            assert!(axis.base.iter().all(|b| b + 3 < k), "{n} voxels, {k} control points");
            assert!(axis.base.is_sorted());
        }
    }

    #[test]
    fn refinement_keeps_the_surface() {
        let coarse = wavy([4, 5, 4]);
        let fine = coarse.refined([true; 3]);
        assert_eq!(fine.size, [5, 7, 5]);
        let n = [17, 9, 5];
        // Not at the far faces: there ε halves with the spans, by design.
        for p in [[0, 0, 0], [3, 4, 2], [15, 7, 3], [8, 1, 1]] {
            let (a, b) = (at(&coarse, n, p), at(&fine, n, p));
            assert!((a - b).abs() < 1e-12, "{p:?}: {a} and {b}");
        }
    }

    #[test]
    fn a_flat_axis_is_carried_by_one_control_point() {
        let axis = Axis::new(1, 4);
        assert_eq!((axis.value[0], axis.fit[0]), ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]));
        let lattice = wavy([4, 4, 4]);
        assert_eq!(lattice.refined([true, true, false]).size, [5, 5, 4]);
    }
}
