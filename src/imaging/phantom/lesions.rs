//! Lesions: acute infarcts, old infarcts and white-matter hyperintensities, by location and volume.
//!
//! A lesion is a level field over the brain. For a drawn lesion the level at p is 1 − |M (p − c)|² + 0.4 n₁(p) +
//! 0.2 n₂(p), an ellipsoid with two octaves of noise; for a stored mask it is the smoothed mask, looked up in the
//! atlas. The voxels of brain tissue with the highest levels, as many as the volume asks for, are the lesion: so
//! its volume is right to one voxel whatever fluid, midline or skull cut from the ellipsoid.

use std::f64::consts::TAU;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::location::Location;
use super::shapes::{Waves, rotation};
use crate::imaging::random::{below, chance, normal, uniform, unit};
use crate::volume::{Affine, Mask};

/// What a lesion is, which decides whether it is part of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An acute infarct: diffusion restricted, the truth.
    Acute,
    /// An old infarct: fluid-like, bright at b = 0 and not on the ADC.
    Chronic,
    /// A white-matter hyperintensity: bright at b = 0, only shining through on diffusion-weighted images.
    Hyperintensity,
}

/// The outline of a lesion.
#[derive(Debug, Clone)]
pub enum Shape {
    /// An irregular blob.
    Blob(Blob),
    /// A mask in the space of the atlas, its size multiplied by `scale` about `centre_mm`.
    Stored {
        /// The mask.
        mask: Arc<Mask>,
        /// World → voxel of the mask.
        inverse: Affine,
        /// Centre of mass in mm of the atlas.
        centre_mm: [f64; 3],
        /// Half of the extent of the mask in mm along each axis, before scaling.
        extent_mm: [f64; 3],
        /// Magnification.
        scale: f64,
    },
}

/// An ellipsoid with a noisy surface.
#[derive(Debug, Clone)]
pub struct Blob {
    centre: [f32; 3],
    /// Rows take an offset from the centre in mm into the unit ball.
    into: [[f32; 3]; 3],
    /// Largest semi-axis in mm.
    reach: f32,
    coarse: Waves,
    fine: Waves,
    /// Sign of x on the side that the lesion keeps to; 0 where it may cross.
    side: f32,
}

/// One lesion to plant.
#[derive(Debug, Clone)]
pub struct Lesion {
    /// Infarct or distractor.
    pub kind: Kind,
    /// Outline.
    pub shape: Shape,
    /// Volume in mL within brain tissue.
    pub volume_ml: f64,
    /// Apparent diffusion coefficient in mm²/s.
    pub adc_mm2_per_s: f64,
    /// Signal at b = 0, relative to the mean of grey and white matter.
    pub b0_gain: f64,
}

impl Lesion {
    /// One or (for [`Location::Multiple`]) two to six acute infarcts of a total volume.
    ///
    /// The younger the infarct (`onset_h`, last known well to imaging), the less its diffusion is restricted and
    /// the less it shows at b = 0.
    pub fn acute(
        rng: &mut ChaCha8Rng,
        location: Location,
        volume_ml: f64,
        onset_h: Option<f64>,
    ) -> Vec<Self> {
        let (adc, gain) = restriction(rng, onset_h);
        let one = |rng: &mut ChaCha8Rng, place: Location, volume_ml: f64| Self {
            kind: Kind::Acute,
            shape: Shape::Blob(Blob::draw(rng, place, volume_ml)),
            volume_ml,
            adc_mm2_per_s: adc,
            b0_gain: gain,
        };
        if location != Location::Multiple {
            return vec![one(rng, location, volume_ml)];
        }
        let n = 2 + below(rng, 5) as usize;
        let weights: Vec<f64> = (0..n).map(|_| 0.15 - (1.0 - unit(rng)).ln()).collect();
        let total: f64 = weights.iter().sum();
        let places = [
            Location::Cortex,
            Location::Cortex,
            Location::Cortex,
            Location::CoronaRadiata,
            Location::BasalGanglia,
            Location::Cerebellum,
            Location::Thalamus,
        ];
        weights
            .iter()
            .map(|w| volume_ml * w / total)
            .map(|v| {
                let drawn = places[below(rng, places.len() as u64) as usize];
                let place = if v > drawn.capacity_ml() { Location::Cortex } else { drawn };
                one(rng, place, v)
            })
            .collect()
    }

    /// An acute infarct with the outline of a stored mask.
    ///
    /// The mask is magnified where that is needed to reach `minimum_ml`. `None` where it is empty or its affine is
    /// singular.
    pub fn stored(
        rng: &mut ChaCha8Rng,
        mask: Arc<Mask>,
        minimum_ml: f64,
        onset_h: Option<f64>,
    ) -> Option<Self> {
        let inverse = mask.affine.inverse().ok()?;
        let (centre_mm, extent_mm, voxels) = moments(&mask)?;
        let own_ml = voxels as f64 * mask.grid().voxel_volume_mm3() / 1000.0;
        let scale = (minimum_ml / own_ml).max(1.0).cbrt();
        let (adc_mm2_per_s, b0_gain) = restriction(rng, onset_h);
        Some(Self {
            kind: Kind::Acute,
            volume_ml: own_ml * scale.powi(3),
            shape: Shape::Stored { mask, inverse, centre_mm, extent_mm, scale },
            adc_mm2_per_s,
            b0_gain,
        })
    }

    /// An old infarct in the cortex or a lacune in the depth.
    pub fn chronic(rng: &mut ChaCha8Rng, volume_ml: f64) -> Self {
        let deep = [Location::BasalGanglia, Location::CoronaRadiata, Location::Thalamus];
        let drawn = deep[below(rng, 3) as usize];
        let fits = volume_ml < 0.5 * drawn.capacity_ml() && chance(rng, 0.6);
        let place = if fits { drawn } else { Location::Cortex };
        Self {
            kind: Kind::Chronic,
            shape: Shape::Blob(Blob::draw(rng, place, volume_ml)),
            volume_ml,
            adc_mm2_per_s: uniform(rng, 1.6e-3..2.4e-3),
            b0_gain: uniform(rng, 1.8..2.4),
        }
    }

    /// White-matter hyperintensities of a total volume: caps and bands of the ventricles, and spots beside them.
    pub fn hyperintensities(rng: &mut ChaCha8Rng, volume_ml: f64) -> Vec<Self> {
        // Centre on the right, semi-axes, share of the volume.
        const PLACES: [([f64; 3], [f64; 3], f64); 4] = [
            ([16.0, 36.0, 9.0], [4.0, 5.0, 6.0], 0.25),
            ([29.0, -50.0, 14.0], [5.0, 8.0, 7.0], 0.35),
            ([17.0, -12.0, 27.0], [3.0, 20.0, 3.5], 0.25),
            ([29.0, 8.0, 30.0], [4.0, 6.0, 4.0], 0.15),
        ];
        let mut lesions = Vec::new();
        for (centre, axes, part) in PLACES {
            for side in [-1.0, 1.0] {
                let volume_ml = 0.5 * part * volume_ml * uniform(rng, 0.7..1.3);
                let c = [0, 1, 2].map(|k| centre[k] + 2.5 * normal(rng).clamp(-2.0, 2.0));
                lesions.push(Self {
                    kind: Kind::Hyperintensity,
                    shape: Shape::Blob(Blob::new(rng, [side * c[0], c[1], c[2]], axes, volume_ml)),
                    volume_ml,
                    adc_mm2_per_s: uniform(rng, 0.95e-3..1.15e-3),
                    b0_gain: uniform(rng, 1.3..1.6),
                });
            }
        }
        lesions
    }
}

impl Blob {
    /// A blob of a volume at a location.
    fn draw(rng: &mut ChaCha8Rng, location: Location, volume_ml: f64) -> Self {
        let centre = location.centre(rng);
        let mut blob = Self::new(rng, centre, location.aspect(), volume_ml);
        if location.is_paramedian() {
            blob.side = if centre[0] < 0.0 { -1.0 } else { 1.0 };
        }
        blob
    }

    /// A blob whose semi-axes are in the given proportion, give or take 30 %, turned a little at random.
    fn new(rng: &mut ChaCha8Rng, centre: [f64; 3], proportion: [f64; 3], volume_ml: f64) -> Self {
        let axes = proportion.map(|a| a * (0.22 * normal(rng).clamp(-2.0, 2.0)).exp());
        let product: f64 = axes.iter().product();
        let unit_mm = (volume_ml * 1000.0 * 3.0 / (2.0 * TAU) / product).cbrt().max(0.1);
        let axes = axes.map(|a| a * unit_mm);
        let turn = rotation([0; 3].map(|_| 0.35 * normal(rng).clamp(-2.0, 2.0)));
        let reach = axes.iter().copied().fold(0.0, f64::max);
        Self {
            centre: centre.map(|c| c as f32),
            into: [0, 1, 2].map(|r| [0, 1, 2].map(|c| (turn[r][c] / axes[r]) as f32)),
            reach: reach as f32,
            coarse: Waves::draw(rng, (1.5 * reach).max(7.0)),
            fine: Waves::draw(rng, (0.6 * reach).clamp(4.0, 14.0)),
            side: 0.0,
        }
    }

    /// 1 at the centre, about 0 at the surface, negative outside.
    #[inline]
    fn level(&self, p: [f32; 3]) -> f32 {
        let d = [0, 1, 2].map(|a| p[a] - self.centre[a]);
        let radius2: f32 = self
            .into
            .iter()
            .map(|row| row[0] * d[0] + row[1] * d[1] + row[2] * d[2])
            .map(|v| v * v)
            .sum();
        if radius2 > 5.0 {
            return -9.0;
        }
        let across = (1.0 - p[0] * self.side).max(0.0) * self.side.abs();
        1.0 - radius2 + 0.4 * self.coarse.value(p) + 0.2 * self.fine.value(p) - 0.8 * across
    }
}

impl Shape {
    /// Centre and half-extents in mm of the atlas of a box that holds the lesion.
    pub(super) fn bounds(&self) -> ([f64; 3], [f64; 3]) {
        match self {
            Self::Blob(blob) => {
                (blob.centre.map(f64::from), [2.3 * f64::from(blob.reach) + 6.0; 3])
            }
            Self::Stored { centre_mm, extent_mm, scale, .. } => {
                (*centre_mm, extent_mm.map(|e| e * scale + 6.0))
            }
        }
    }

    /// The level at a point of the atlas; `spread_mm` is how far apart neighbouring voxels lie.
    #[inline]
    pub(super) fn level(&self, p: [f32; 3], spread_mm: f32) -> f32 {
        match self {
            Self::Blob(blob) => blob.level(p),
            Self::Stored { mask, inverse, centre_mm, scale, .. } => {
                let s = f64::from(spread_mm) * 0.3;
                let offsets = [
                    [0.0; 3],
                    [s, 0.0, 0.0],
                    [-s, 0.0, 0.0],
                    [0.0, s, 0.0],
                    [0.0, -s, 0.0],
                    [0.0, 0.0, s],
                    [0.0, 0.0, -s],
                ];
                let sum: f32 = offsets
                    .iter()
                    .map(|o| {
                        let q = [0, 1, 2].map(|a| {
                            centre_mm[a] + (f64::from(p[a]) + o[a] - centre_mm[a]) / scale
                        });
                        linear(mask, inverse.apply(q))
                    })
                    .sum();
                let level = sum / offsets.len() as f32;
                if level > 0.02 { level } else { -9.0 }
            }
        }
    }

    /// Relative change of signal at a point: infarcts are not uniform.
    #[inline]
    pub(super) fn mottle(&self, p: [f32; 3]) -> f32 {
        match self {
            Self::Blob(blob) => 1.0 + 0.07 * blob.fine.value(p),
            Self::Stored { .. } => 1.0,
        }
    }

    /// How much the level changes over a mm near the surface.
    pub(super) fn steepness(&self) -> f32 {
        match self {
            Self::Blob(blob) => 2.0 / blob.reach.max(0.5),
            Self::Stored { .. } => 0.3,
        }
    }
}

/// ADC in mm²/s and gain at b = 0 of an infarct by its age.
fn restriction(rng: &mut ChaCha8Rng, onset_h: Option<f64>) -> (f64, f64) {
    let hours = onset_h.unwrap_or_else(|| uniform(rng, 3.0..60.0));
    if hours < 3.0 {
        (uniform(rng, 0.48e-3..0.58e-3), uniform(rng, 0.95..1.1))
    } else if hours < 24.0 {
        (uniform(rng, 0.40e-3..0.50e-3), uniform(rng, 1.0..1.2))
    } else {
        (uniform(rng, 0.42e-3..0.54e-3), uniform(rng, 1.1..1.4))
    }
}

/// Centre of mass and half-extent in mm, and the number of voxels of a mask; `None` where it is empty.
fn moments(mask: &Mask) -> Option<([f64; 3], [f64; 3], usize)> {
    let mut sum = [0.0; 3];
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    let mut n = 0_usize;
    for ((z, y, x), _) in mask.data.indexed_iter().filter(|(_, v)| **v > 0) {
        let p = mask.affine.apply([x as f64, y as f64, z as f64]);
        for a in 0..3 {
            sum[a] += p[a];
            low[a] = low[a].min(p[a]);
            high[a] = high[a].max(p[a]);
        }
        n += 1;
    }
    if n == 0 {
        return None;
    }
    let centre = sum.map(|s| s / n as f64);
    let extent = [0, 1, 2].map(|a| (high[a] - centre[a]).max(centre[a] - low[a]) + 1.0);
    Some((centre, extent, n))
}

/// Trilinear interpolation of a mask at a voxel coordinate; 0 outside.
fn linear(mask: &Mask, v: [f64; 3]) -> f32 {
    let (nz, ny, nx) = mask.data.dim();
    let base = v.map(f64::floor);
    let inside = (0..3).all(|a| base[a] >= -1.0 && base[a] < [nx, ny, nz][a] as f64);
    if !inside {
        return 0.0;
    }
    let mut sum = 0.0;
    for corner in 0..8_usize {
        let mut weight = 1.0;
        let mut index = [0_usize; 3];
        for a in 0..3 {
            let upper = corner >> a & 1;
            let t = v[a] - base[a];
            weight *= if upper == 1 { t } else { 1.0 - t };
            // A corner one before the first voxel wraps to a huge index, which holds nothing.
            index[a] = (base[a] as isize + upper as isize) as usize;
        }
        if let Some(&value) = mask.data.get((index[2], index[1], index[0])) {
            sum += weight * f64::from(value);
        }
    }
    sum as f32
}
