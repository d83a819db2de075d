//! A head in mm of an atlas: where scalp, skull, fluid, grey and white matter lie.
//!
//! The atlas frame is RAS+ with its origin at the anterior commissure and the extents of the MNI152 template (brain
//! x ±69, y −106…71, z −62…78), so that lesion masks stored in that space can be planted as they are. A subject is
//! the atlas seen through a pose (rotation, size, shift), a quadratic warp (asymmetry of the hemispheres) and its
//! own folds, ventricles and atrophy. Every structure is a closed-form depth (see `shapes`), painted from
//! the outside inwards: scalp, skull, fluid, brain, ventricles, nuclei.

use rand_chacha::ChaCha8Rng;

use super::shapes::{Ellipsoid, Lanes, Waves, blend, ellipse_depth, rotation, share};
use super::tissue::{Palette, Tissue};
use crate::imaging::random::{normal, uniform};
use crate::volume::Affine;

const HEAD: Ellipsoid = Ellipsoid::new([0.0, -10.0, -5.0], [92.0, 116.0, 108.0]);
const FACE: Ellipsoid = Ellipsoid::new([0.0, 34.0, -62.0], [60.0, 52.0, 54.0]);
const NECK: Ellipsoid = Ellipsoid::new([0.0, -44.0, -92.0], [58.0, 60.0, 70.0]);
const SINUS: Ellipsoid = Ellipsoid::new([0.0, 46.0, -42.0], [13.0, 26.0, 17.0]);
const SPHENOID: Ellipsoid = Ellipsoid::new([0.0, 8.0, -35.0], [13.0, 11.0, 9.0]);
const EYE: Ellipsoid = Ellipsoid::new([31.0, 58.0, -33.0], [12.5, 12.5, 12.0]);
const CEREBRUM: Ellipsoid = Ellipsoid::new([0.0, -17.0, 12.0], [68.0, 88.0, 66.0]);
const TEMPORAL: Ellipsoid = Ellipsoid::new([41.0, -16.0, -18.0], [26.0, 45.0, 26.0]);
const CEREBELLUM: Ellipsoid = Ellipsoid::new([17.0, -64.0, -33.0], [37.0, 30.0, 28.0]);
const CEREBELLAR_CORE: Ellipsoid = Ellipsoid::new([14.0, -56.0, -35.0], [11.0, 9.0, 7.0]);
/// What the insula covers: the fissure beside it follows the lateral surface.
const INSULA: Ellipsoid = Ellipsoid::new([16.0, 0.0, 3.0], [24.0, 27.0, 19.0]);
const CAUDATE: Ellipsoid = Ellipsoid::new([14.5, 13.0, 9.0], [5.0, 13.0, 10.0]);
const THALAMUS: Ellipsoid = Ellipsoid::new([10.5, -18.0, 8.0], [9.0, 15.0, 9.0]);
const PUTAMEN: Ellipsoid = Ellipsoid::new([26.5, 2.0, 2.0], [5.5, 17.0, 10.0]);
const PALLIDUM: Ellipsoid = Ellipsoid::new([19.5, -3.0, 0.0], [4.5, 8.0, 6.5]);

/// Wavelength of the folds of the cerebrum, twice the distance between neighbouring sulci, and how much finer those of
/// the cerebellum are.
const FOLD_MM: f64 = 21.0;
const FOLIA: f32 = 2.4;

/// One subject's head.
#[derive(Debug, Clone)]
pub struct Anatomy {
    pose: Affine,
    /// Coefficients in mm of the quadratic warp.
    warp: [f32; 6],
    /// Widths of the left and right lateral ventricle, 1 in a typical subject.
    ventricles: [f32; 2],
    /// Width of sulci and of the fluid around the brain, 1 in a typical subject.
    atrophy: f32,
    folds: Waves,
    texture: Waves,
    /// Wave vector in cycles a mm of the slow change of the depth of sulci.
    relief: [f32; 3],
}

impl Anatomy {
    /// A subject of the given age whose head lies in the world as `tilt` (radians about x, y, z) says, give or take
    /// the few degrees and mm by which a technologist misses.
    pub fn draw(rng: &mut ChaCha8Rng, age_y: f64, tilt: [f64; 3]) -> Self {
        let angle = [0.05, 0.03, 0.04].map(|s| s * normal(rng).clamp(-2.0, 2.0));
        let size = 0.955 + 0.03 * normal(rng).clamp(-2.0, 2.0);
        let scale = [0.02, 0.025, 0.02].map(|s| size + s * normal(rng).clamp(-2.0, 2.0));
        let shift_mm = [2.0, 3.0, 3.0].map(|s| s * normal(rng).clamp(-2.0, 2.0));
        let old = ((age_y - 45.0) / 40.0).clamp(0.0, 1.2);
        let ventricle = (0.85 + 0.6 * old) * (0.22 * normal(rng).clamp(-2.0, 2.0)).exp();
        let unequal = 0.10 * normal(rng).clamp(-2.0, 2.0);
        let warp =
            [1.6, 1.2, 1.6, 1.2, 1.4, 1.4].map(|s| (s * normal(rng).clamp(-2.0, 2.0)) as f32);
        let atrophy = (0.7 + 0.75 * old) * uniform(rng, 0.85..1.2);
        Self {
            pose: pose(angle, tilt, scale, shift_mm),
            warp,
            ventricles: [1.0 - unequal, 1.0 + unequal].map(|s| (s * ventricle) as f32),
            atrophy: atrophy as f32,
            folds: Waves::draw(rng, FOLD_MM),
            texture: Waves::draw(rng, 34.0),
            relief: [0; 3].map(|_| uniform(rng, -0.14..0.14) as f32),
        }
    }

    /// World → atlas, both RAS+ in mm, before the warp.
    pub fn pose(&self) -> Affine {
        self.pose
    }

    /// Moves a point by the subject's warp, at most about 5 mm within the head.
    #[inline]
    pub(super) fn warped(&self, [x, y, z]: [f32; 3]) -> [f32; 3] {
        let (u, v, w) = (x * 0.0125, (y + 17.0) * 0.0125, z * 0.0125);
        [
            x + self.warp[0] * v * v + self.warp[1] * v * w,
            y + self.warp[2] * u * u + self.warp[3] * u * w,
            z + self.warp[4] * u * v + self.warp[5] * v * v,
        ]
    }

    /// What lies at a point of the atlas, and how deep in mm the point lies inside the skull.
    ///
    /// `half_mm` is the half-width of an edge: half a voxel, or the blur of the sequence where that is more.
    #[inline]
    pub(super) fn at(&self, p: [f32; 3], half_mm: f32, palette: &Palette) -> (Lanes, f32) {
        let air = palette.of(Tissue::Air);
        if HEAD.radius2(p) > 1.0 {
            return (air, -99.0);
        }
        let a = [p[0].abs(), p[1], p[2]];
        let parts = Parts::new(p, a);
        let mut lanes = air;
        if a[2] < 5.0 {
            lanes = face(a, half_mm, palette);
        }
        let envelope = parts.brain();
        if envelope < -22.0 - half_mm {
            return (lanes, envelope);
        }
        let uneven = self.texture.value(p);
        let skull = envelope + 1.4 * self.atrophy + 0.8 + 0.5 * uneven;
        if skull < half_mm {
            lanes = wrapping(lanes, a, skull, half_mm, palette);
            lanes[0] *= 1.0 + 0.2 * uneven;
            lanes[1] *= 1.0 + 0.2 * uneven;
        }
        if skull > -half_mm {
            lanes = blend(lanes, palette.of(Tissue::Csf), share(skull, half_mm));
            lanes = self.brain(lanes, p, a, &parts, half_mm, palette);
            // Tissue is not uniform: a few percent over a few cm.
            let gain = 1.0 + 0.02 * uneven * lanes[2];
            lanes[0] *= gain;
            lanes[1] *= gain;
        }
        (lanes, skull)
    }

    /// Paints cerebrum, cerebellum, brainstem, ventricles and nuclei.
    #[inline]
    fn brain(
        &self,
        mut lanes: Lanes,
        p: [f32; 3],
        a: [f32; 3],
        parts: &Parts,
        half_mm: f32,
        palette: &Palette,
    ) -> Lanes {
        let (white, grey) = (palette.of(Tissue::White), palette.of(Tissue::Grey));
        if parts.stem > -half_mm {
            let stem = blend(white, grey, 0.25);
            lanes = blend(lanes, stem, share(parts.stem, half_mm));
        }
        if parts.cerebellum > -half_mm && parts.cerebellum > parts.cerebrum {
            let depth = self.folia(p, parts.cerebellum);
            let core = share(CEREBELLAR_CORE.depth(a), half_mm.max(2.0));
            let ribbon = share(2.0 - depth, half_mm) * (1.0 - core);
            lanes = blend(
                lanes,
                blend(white, grey, ribbon),
                share(depth.max(parts.cerebellum.min(0.3) * core), half_mm),
            );
        }
        let cerebrum = parts.cerebrum.max(parts.temporal);
        if cerebrum > -half_mm && cerebrum >= parts.cerebellum {
            let depth = self.cortex(p, a, parts, cerebrum);
            let colour = blend(white, grey, share(2.9 - depth, half_mm));
            lanes = blend(lanes, colour, share(depth, half_mm));
        }
        if cerebrum > 12.0 {
            lanes = self.deep(lanes, p, a, half_mm, palette);
        }
        let fourth =
            Ellipsoid::new([0.0, -43.0, -33.0], [8.0 * self.ventricles[0].min(1.3), 5.5, 10.0]);
        if a[0] < 14.0 && p[2] < -20.0 {
            lanes = blend(lanes, palette.of(Tissue::Csf), share(fourth.depth(p), half_mm));
        }
        lanes
    }

    /// Depth in mm below the nearest surface of the cerebrum, sulci, fissures and clefts included.
    #[inline]
    fn cortex(&self, p: [f32; 3], a: [f32; 3], parts: &Parts, envelope: f32) -> f32 {
        let mut depth = envelope.min(fissure(p) - 0.45 * self.atrophy);
        let beside_insula = a[0] > 26.0 && a[2].abs() < 24.0;
        if depth > 24.0 && !beside_insula {
            return depth;
        }
        let radius = parts.radius2.sqrt();
        let stretch = 1.0 / (0.45 + 0.55 * radius);
        let q = [p[0] * stretch, (p[1] + 17.0) * stretch, (p[2] - 12.0) * stretch];
        let (value, slope) = self.folds.value_and_slope(q);
        let lateral = value.abs() / (slope.max(0.1) * stretch);
        // A triangle wave: sulci are between 6 and 20 mm deep.
        let slow = self.relief[0] * q[0] + self.relief[1] * q[1] + self.relief[2] * q[2];
        let slow = (slow - slow.floor() - 0.5).abs() * 4.0 - 1.0;
        let operculum = if beside_insula { (a[0] - 34.0).clamp(0.0, 8.0) } else { 0.0 };
        let beyond = (depth - (13.0 + 7.0 * slow) - operculum).max(0.0);
        let width = 0.6 * self.atrophy * (1.3 - 0.05 * depth).max(0.3);
        depth = depth.min(lateral + 0.8 * beyond - width);
        if beside_insula { depth.min(sylvian(a) + 0.9 * value - 0.8 * self.atrophy) } else { depth }
    }

    /// Depth in mm below the nearest surface of the cerebellum, the fissures between folia included.
    #[inline]
    fn folia(&self, p: [f32; 3], envelope: f32) -> f32 {
        let q = [p[0] * 0.6, p[1] * FOLIA, p[2] * FOLIA];
        let (value, slope) = self.folds.value_and_slope(q);
        let lateral = value.abs() / (slope.max(0.12) * FOLIA);
        envelope.min(lateral + 0.6 * (envelope - 17.0).max(0.0) + 0.35 - 0.35 * self.atrophy)
    }

    /// Paints ventricles and the grey matter in the depth of the cerebrum.
    #[inline]
    fn deep(
        &self,
        mut lanes: Lanes,
        p: [f32; 3],
        a: [f32; 3],
        half_mm: f32,
        palette: &Palette,
    ) -> Lanes {
        if a[0] < 38.0 && (a[2] - 5.0).abs() < 18.0 {
            let grey = palette.of(Tissue::DeepGrey);
            let ventral = [a[0] + 0.30 * (a[1] - 2.0), a[1], a[2]];
            lanes = blend(lanes, grey, share(CAUDATE.depth(a), half_mm));
            lanes = blend(lanes, grey, share(THALAMUS.depth(a), half_mm.max(1.2)));
            lanes = blend(lanes, grey, share(PUTAMEN.depth(ventral), half_mm));
            let pallidum = palette.of(Tissue::Pallidum);
            lanes = blend(lanes, pallidum, share(PALLIDUM.depth(ventral), half_mm));
        }
        let width = self.ventricles[usize::from(p[0] > 0.0)];
        let lateral = lateral_ventricle(a, width);
        let third = Ellipsoid::new([0.0, -12.0, 2.0], [1.9 * width, 14.0, 10.0]);
        let mut fluid = lateral;
        if a[0] < 8.0 {
            fluid = fluid.max(third.depth(p));
        }
        blend(lanes, palette.of(Tissue::Csf), share(fluid, half_mm))
    }
}

/// World → atlas for a head that lies rotated by `angle` after `tilt`, is `scale` times the atlas and shifted.
fn pose(angle: [f64; 3], tilt: [f64; 3], scale: [f64; 3], shift_mm: [f64; 3]) -> Affine {
    let (inner, outer) = (rotation(angle), rotation(tilt));
    // The inverse of a rotation is its transpose: atlas = scale⁻¹ · innerᵀ · (outerᵀ · world − shift).
    let mut rows = [[0.0; 4]; 3];
    for (r, row) in rows.iter_mut().enumerate() {
        for k in 0..3 {
            for (c, world) in outer.iter().enumerate() {
                row[c] += inner[k][r] * world[k] / scale[r];
            }
            row[3] -= inner[k][r] * shift_mm[k] / scale[r];
        }
    }
    Affine(rows)
}

/// Depths in mm of the parts of the brain at one point.
struct Parts {
    cerebrum: f32,
    temporal: f32,
    cerebellum: f32,
    stem: f32,
    /// Squared distance from the centre of the cerebrum in units of its semi-axes.
    radius2: f32,
}

impl Parts {
    #[inline]
    fn new(p: [f32; 3], a: [f32; 3]) -> Self {
        // The base: orbital roof in front, tentorium behind.
        let forward = ((p[1] + 40.0) / 35.0).clamp(0.0, 1.0);
        let tent = -7.0 - 0.16 * a[0];
        let base = tent + forward * (-20.0 - tent);
        let low = p[2] < 12.0;
        // Narrower in front than behind.
        let egg = [p[0] * (1.0 + 0.0011 * (p[1] + 17.0)), p[1], p[2]];
        Self {
            cerebrum: CEREBRUM.depth(egg).min(0.97 * (p[2] - base)),
            temporal: if low { TEMPORAL.depth(a) } else { -99.0 },
            cerebellum: if low {
                CEREBELLUM.depth(a).min(0.97 * (tent - 2.0 - p[2]))
            } else {
                -99.0
            },
            stem: if low && a[0] < 30.0 { brainstem(p) } else { -99.0 },
            radius2: CEREBRUM.radius2(egg),
        }
    }

    #[inline]
    fn brain(&self) -> f32 {
        self.cerebrum.max(self.temporal).max(self.cerebellum).max(self.stem)
    }
}

/// Depth inside midbrain, pons and medulla: ellipses whose size and place change with z.
#[inline]
fn brainstem([x, y, z]: [f32; 3]) -> f32 {
    // z, centre y, half-width, half-depth
    const PROFILE: [[f32; 4]; 6] = [
        [-66.0, -42.0, 7.0, 6.5],
        [-48.0, -36.0, 9.5, 8.0],
        [-38.0, -29.0, 15.0, 12.0],
        [-28.0, -26.0, 17.0, 14.0],
        [-16.0, -24.0, 15.0, 11.5],
        [-2.0, -20.0, 19.0, 12.0],
    ];
    let end = (z - PROFILE[0][0]).min(PROFILE[5][0] - z);
    let upper = PROFILE.iter().position(|row| row[0] > z).unwrap_or(5).max(1);
    let (low, high) = (PROFILE[upper - 1], PROFILE[upper]);
    let t = ((z - low[0]) / (high[0] - low[0])).clamp(0.0, 1.0);
    let at = |i: usize| low[i] + t * (high[i] - low[i]);
    // The fossa between the peduncles of the midbrain.
    let fossa = (x * x + (y + 8.0) * (y + 8.0)).sqrt() - 2.0 - (z + 18.0).clamp(0.0, 8.0) * 0.5;
    ellipse_depth(x, y - at(1), at(2), at(3)).min(end).min(fossa)
}

/// Distance in mm from the cleft between the hemispheres, which the corpus callosum and what is below it interrupt.
#[inline]
fn fissure(p: [f32; 3]) -> f32 {
    let (u, v) = ((p[1] + 7.0) / 45.0, (p[2] - 7.0) / 27.0);
    let bridge = (1.0 - (u * u + v * v).sqrt()).max(0.0) * 27.0;
    let below = (-12.0 - p[2]).max(0.0);
    let sway = 1.2 * (p[1] + 17.0) * (p[1] - 20.0) * 1e-4;
    (p[0] + sway).abs() + bridge + below
}

/// Distance in mm from the Sylvian fissure: a slab beside the insula and an oblique sheet from it to the surface.
#[inline]
fn sylvian(a: [f32; 3]) -> f32 {
    let sheet = (a[2] + 3.0 + 0.42 * a[1]).abs() * 0.92
        + (38.0 - a[0]).max(0.0)
        + (a[1] - 20.0).max(0.0)
        + (-42.0 - a[1]).max(0.0);
    let cleft = INSULA.depth(a).abs() + (31.0 - a[0]).max(0.0);
    sheet.min(cleft)
}

/// Depth inside a lateral ventricle: an elliptic tube from the frontal horn over the body to the atrium.
#[inline]
fn lateral_ventricle(a: [f32; 3], width: f32) -> f32 {
    let forward = a[1] - 8.0;
    let x = a[0] - (6.8 + 0.0062 * forward * forward + 1.5 * (width - 1.0));
    let z = a[2] - (21.0 - 0.0085 * (a[1] + 5.0) * (a[1] + 5.0));
    let end = (a[1] + 56.0).min(39.0 - a[1]);
    if end < -4.0 || x.abs() > 16.0 || z.abs() > 22.0 {
        return -9.0;
    }
    // Rounded at both ends.
    let t = (0.08 * end).clamp(0.05, 1.0);
    let taper = t * (2.0 - t);
    let narrow = (3.6 + 0.0012 * forward * forward) * taper;
    let tall = (6.2 + 0.0026 * forward * forward) * taper;
    // The septum keeps the two ventricles apart.
    ellipse_depth(x, z, narrow * width, tall * width).min(end).min(a[0] - 1.0)
}

/// Muscle, air cavities and eyes below the brain.
#[inline]
fn face(a: [f32; 3], half_mm: f32, palette: &Palette) -> Lanes {
    let soft = FACE.depth(a).max(NECK.depth(a));
    let mut lanes = palette.of(Tissue::Air);
    if soft > -5.0 - half_mm {
        lanes = blend(lanes, palette.of(Tissue::Scalp), share(soft + 5.0, half_mm));
        lanes = blend(lanes, palette.of(Tissue::Muscle), share(soft, half_mm.max(1.5)));
    }
    if a[1] > -10.0 {
        let cavity = SINUS.depth(a).max(SPHENOID.depth(a));
        lanes = blend(lanes, palette.of(Tissue::Air), share(cavity, half_mm));
        let orbit = EYE.depth([a[0], a[1] + 10.0, a[2]]) + 4.0;
        lanes = blend(lanes, palette.of(Tissue::Scalp), share(orbit, half_mm.max(2.0)));
        lanes = blend(lanes, palette.of(Tissue::Vitreous), share(EYE.depth(a), half_mm));
    }
    lanes
}

/// Scalp and skull around the brain, `skull` being the depth inside the inner table in mm.
#[inline]
fn wrapping(mut lanes: Lanes, a: [f32; 3], skull: f32, half_mm: f32, palette: &Palette) -> Lanes {
    let eye = a[2] < -18.0 && EYE.depth(a) > -2.0;
    let cavity = a[2] < -18.0 && SINUS.depth(a).max(SPHENOID.depth(a)) > -1.0;
    if eye || cavity {
        return lanes;
    }
    lanes = blend(lanes, palette.of(Tissue::Scalp), share(skull + 14.0, half_mm));
    blend(lanes, palette.of(Tissue::Bone), share(skull + 8.0, half_mm))
}
