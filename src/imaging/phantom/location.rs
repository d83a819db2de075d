//! Places in the brain where infarcts lie, after the study, as ellipsoids of the atlas.

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;

use crate::imaging::random::{chance, uniform};

/// Where an infarct lies, in the words of the study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// Cortex and the white matter just below it.
    Cortex,
    /// White matter beside the bodies of the lateral ventricles.
    CoronaRadiata,
    /// Putamen, pallidum, caudate nucleus and the internal capsule between them.
    BasalGanglia,
    /// Thalamus.
    Thalamus,
    /// Midbrain.
    Midbrain,
    /// Pons.
    Pons,
    /// Medulla oblongata.
    Medulla,
    /// Cerebellum.
    Cerebellum,
    /// Several lesions in more than one of the others.
    Multiple,
}

impl Location {
    /// Every location, in the study's order.
    pub const ALL: [Self; 9] = [
        Self::Cortex,
        Self::CoronaRadiata,
        Self::BasalGanglia,
        Self::Thalamus,
        Self::Midbrain,
        Self::Pons,
        Self::Medulla,
        Self::Cerebellum,
        Self::Multiple,
    ];

    /// The word in `participants.tsv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cortex => "cortex",
            Self::CoronaRadiata => "corona_radiata",
            Self::BasalGanglia => "basal_ganglia_internal_capsule",
            Self::Thalamus => "thalamus",
            Self::Midbrain => "midbrain",
            Self::Pons => "pons",
            Self::Medulla => "medulla",
            Self::Cerebellum => "cerebellum",
            Self::Multiple => "multiple",
        }
    }

    /// The largest infarct in mL that fits.
    pub fn capacity_ml(self) -> f64 {
        match self {
            Self::Cortex => 250.0,
            Self::CoronaRadiata => 12.0,
            Self::BasalGanglia => 25.0,
            Self::Thalamus => 4.0,
            Self::Midbrain => 1.5,
            Self::Pons => 3.0,
            Self::Medulla => 0.8,
            Self::Cerebellum => 45.0,
            Self::Multiple => 120.0,
        }
    }

    /// The location whose centre lies nearest to a point of the atlas in mm.
    pub fn nearest([x, y, z]: [f64; 3]) -> Self {
        let a = [x.abs(), y, z];
        let outside = |l: Self| {
            let (c, r) = l.region();
            (0..3).map(|k| ((a[k] - c[k]) / (r[k] + 6.0)).powi(2)).sum::<f64>()
        };
        Self::ALL[1..8]
            .iter()
            .copied()
            .map(|l| (outside(l), l))
            .filter(|(d, _)| *d < 2.0)
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .map_or(Self::Cortex, |(_, l)| l)
    }

    /// Centre and semi-axes in mm of the atlas of where centres of lesions lie, on the right side.
    fn region(self) -> ([f64; 3], [f64; 3]) {
        match self {
            Self::Cortex | Self::Multiple => ([0.0, -17.0, 12.0], [68.0, 88.0, 66.0]),
            Self::CoronaRadiata => ([25.0, -10.0, 28.0], [5.0, 20.0, 6.0]),
            Self::BasalGanglia => ([24.0, 0.0, 4.0], [5.0, 11.0, 6.0]),
            Self::Thalamus => ([11.0, -18.0, 8.0], [4.0, 8.0, 4.0]),
            Self::Midbrain => ([8.0, -22.0, -10.0], [4.0, 4.0, 3.0]),
            Self::Pons => ([6.0, -21.0, -29.0], [4.0, 4.0, 6.0]),
            Self::Medulla => ([4.0, -37.0, -51.0], [2.5, 3.0, 4.0]),
            Self::Cerebellum => ([25.0, -64.0, -38.0], [13.0, 13.0, 9.0]),
        }
    }

    /// A centre in mm of the atlas, either side.
    pub(super) fn centre(self, rng: &mut ChaCha8Rng) -> [f64; 3] {
        let (c, r) = self.region();
        let side = if chance(rng, 0.5) { 1.0 } else { -1.0 };
        if matches!(self, Self::Cortex | Self::Multiple) {
            // A direction on the convexity, mostly in the territory of the middle cerebral artery.
            let (turn, rise) = (uniform(rng, -0.33..0.36), uniform(rng, -0.22..0.75));
            let (s, t) = ((turn * PI).sin(), (turn * PI).cos());
            let flat = (1.0 - rise * rise).sqrt();
            let depth = uniform(rng, 0.80..0.94);
            return [
                side * r[0] * depth * flat * t,
                c[1] + r[1] * depth * flat * s,
                c[2] + r[2] * depth * rise,
            ];
        }
        let inside = |rng: &mut ChaCha8Rng, k: usize| c[k] + r[k] * uniform(rng, -0.8..0.8);
        [side * inside(rng, 0), inside(rng, 1), inside(rng, 2)]
    }

    /// How much longer than wide lesions are along x, y and z.
    pub(super) fn aspect(self) -> [f64; 3] {
        match self {
            Self::CoronaRadiata | Self::BasalGanglia => [0.75, 1.35, 1.0],
            Self::Pons | Self::Midbrain | Self::Medulla => [0.8, 1.1, 1.0],
            Self::Cerebellum => [1.1, 1.1, 0.75],
            _ => [1.0, 1.15, 1.0],
        }
    }

    /// Whether lesions stop at the midline.
    pub(super) fn is_paramedian(self) -> bool {
        !matches!(self, Self::Cerebellum | Self::Multiple)
    }
}
