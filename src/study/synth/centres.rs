//! Hospitals: their scanners, protocols and image quality.
//!
//! Every centre has a 1.5 T and a 3 T scanner and uses them in its own proportion. Ranges are the study's:
//! repetition time 2,400–9,000 ms, echo time 50–99 ms, slices of 3–7 mm with gaps of 0–2 mm, pixels of about 1 mm.
//! Centres of an external source differ more from each other: noisier, with stronger fields, longer echoes and
//! another range of intensities, which is the domain shift that a network has to bridge.

use rand_chacha::ChaCha8Rng;

use super::Options;
use crate::imaging::random::{below, chance, keyed, normal, uniform};

/// One of a centre's scanners with its diffusion protocol.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// `Siemens`, `Philips` or `GE`.
    pub(super) vendor: &'static str,
    /// The vendor's name for itself.
    pub(super) manufacturer: &'static str,
    pub(super) model: &'static str,
    pub(super) field_strength_t: f64,
    pub(super) repetition_time_ms: f64,
    pub(super) echo_time_ms: f64,
    pub(super) slice_thickness_mm: f64,
    pub(super) slice_spacing_mm: f64,
    pub(super) pixel_mm: f64,
    pub(super) shape: [usize; 3],
    pub(super) white_level: f64,
    pub(super) snr: f64,
    pub(super) bias: f64,
    pub(super) ghost_share: f64,
    pub(super) susceptibility: f64,
    pub(super) blur_mm: f64,
    /// Whether rows run from right to left.
    pub(super) flip_x: bool,
    /// Rotation of the slices about x in radians.
    pub(super) tilt: f64,
}

/// A hospital.
#[derive(Debug, Clone)]
pub(super) struct Centre {
    pub(super) name: String,
    /// At 1.5 T and at 3 T.
    scanners: [Scanner; 2],
    low_field_share: f64,
    /// Relative number of cases.
    weight: f64,
}

/// Height of the head that the slices cover, in mm.
const COVERAGE_MM: f64 = 146.0;

/// A vendor: its name, what it calls itself, its models at 1.5 T and 3 T, its share of the centres.
struct Vendor(&'static str, &'static str, [&'static str; 2], f64);

const VENDORS: [Vendor; 3] = [
    Vendor("Siemens", "SIEMENS", ["Avanto", "Skyra"], 0.38),
    Vendor("Philips", "Philips Medical Systems", ["Achieva", "Achieva dStream"], 0.36),
    Vendor("GE", "GE MEDICAL SYSTEMS", ["Signa HDxt", "Discovery MR750"], 0.26),
];

/// The centres of a registry.
pub(super) fn draw(options: &Options) -> Vec<Centre> {
    (0..options.sites.max(1))
        .map(|i| {
            let name = format!("site-{:02}", i + 1);
            let mut rng = keyed(options.seed, &["synth", "centre", &options.source, &name]);
            let external = options.is_external();
            let share = if external { 0.985 } else { 0.69 + 0.2 * normal(&mut rng) };
            let vendor = vendor(&mut rng);
            Centre {
                name,
                low_field_share: share.clamp(0.05, 1.0),
                weight: uniform(&mut rng, 0.5..1.5),
                scanners: [1.5, 3.0].map(|t| Scanner::draw(&mut rng, vendor, t, options)),
            }
        })
        .collect()
}

fn vendor(rng: &mut ChaCha8Rng) -> &'static Vendor {
    let mut rest = uniform(rng, 0.0..1.0);
    VENDORS
        .iter()
        .find(|v| {
            rest -= v.3;
            rest < 0.0
        })
        .unwrap_or(&VENDORS[0])
}

impl Centre {
    /// The centre of the case with the given number: each once, then by their weights.
    pub(super) fn choose<'a>(centres: &'a [Self], index: usize, rng: &mut ChaCha8Rng) -> &'a Self {
        let total: f64 = centres.iter().map(|c| c.weight).sum();
        let mut rest = uniform(rng, 0.0..total);
        let drawn = centres.iter().position(|c| {
            rest -= c.weight;
            rest < 0.0
        });
        &centres[if index < centres.len() { index } else { drawn.unwrap_or(0) }]
    }

    /// The scanner that a case went to.
    pub(super) fn scanner(&self, rng: &mut ChaCha8Rng) -> &Scanner {
        &self.scanners[usize::from(!chance(rng, self.low_field_share))]
    }
}

impl Scanner {
    fn draw(
        rng: &mut ChaCha8Rng,
        vendor: &Vendor,
        field_strength_t: f64,
        options: &Options,
    ) -> Self {
        const THICKNESS_MM: [f64; 8] = [3.0, 4.0, 5.0, 5.0, 5.0, 5.0, 6.0, 7.0];
        const GAP_MM: [f64; 6] = [0.0, 0.5, 1.0, 1.0, 1.5, 2.0];
        const MATRIX: [usize; 6] = [256, 256, 256, 240, 192, 128];
        let external = options.is_external();
        let high = field_strength_t > 2.0;
        let round = |v: f64, unit: f64| (v / unit).round() * unit;
        let pick = |rng: &mut ChaCha8Rng, n: usize| below(rng, n as u64) as usize;
        let matrix = MATRIX[pick(rng, MATRIX.len())];
        let thickness = THICKNESS_MM[pick(rng, THICKNESS_MM.len())];
        let spacing = thickness + GAP_MM[pick(rng, GAP_MM.len())];
        let field_of_view_mm = uniform(rng, 222.0..240.0);
        let coverage_mm = COVERAGE_MM * uniform(rng, 0.98..1.04);
        let matrix = options.matrix.unwrap_or(matrix);
        let (thickness, spacing, slices) = match options.slices {
            None => (thickness, spacing, (COVERAGE_MM / spacing).ceil() as usize),
            Some(n) => {
                let spacing = round(coverage_mm / n as f64, 0.05);
                (round(spacing * 0.85, 0.05), spacing, n)
            }
        };
        let repetition = if high { 4000.0..9000.0 } else { 2400.0..7000.0 };
        let echo = if external { 78.0..99.0 } else { 55.0..95.0 };
        let snr = if external { 10.0..16.0 } else { 15.0..26.0 };
        Self {
            vendor: vendor.0,
            manufacturer: vendor.1,
            model: vendor.2[usize::from(high)],
            field_strength_t,
            repetition_time_ms: round(uniform(rng, repetition), 100.0),
            echo_time_ms: round(uniform(rng, echo) - if high { 5.0 } else { 0.0 }, 1.0),
            slice_thickness_mm: thickness,
            slice_spacing_mm: spacing,
            pixel_mm: round(field_of_view_mm / matrix.max(1) as f64, 1e-4),
            shape: [matrix, matrix, slices],
            white_level: 160.0 * uniform(rng, 0.0..if external { 2.2 } else { 1.6 }).exp(),
            snr: uniform(rng, snr) * if high { 1.3 } else { 1.0 },
            bias: uniform(rng, if external { 0.25..0.45 } else { 0.08..0.32 })
                + if high { 0.08 } else { 0.0 },
            ghost_share: uniform(rng, 0.004..if external { 0.03 } else { 0.018 }),
            susceptibility: uniform(rng, 0.35..0.9) * if high { 1.3 } else { 1.0 },
            blur_mm: uniform(rng, 0.5..1.0),
            flip_x: chance(rng, 0.5),
            tilt: round(uniform(rng, -0.28..0.28), 0.01),
        }
    }
}
