//! Tissues and their signal on a spin-echo echo-planar sequence.
//!
//! S(b) = PD · (1 − e^(−TR / T1)) · e^(−TE / T2) · e^(−b · ADC), in arbitrary units until the acquisition scales
//! white matter at b = 0 to its own level. T1 and T2 in ms at 1.5 T and 3 T follow Stanisz et al. 2005 (Magn Reson
//! Med 54:507) and Wansapura et al. 1999 (J Magn Reson Imaging 9:531), adjusted within their spread so that grey
//! matter is 1.2–1.3 times white matter on diffusion-weighted images; ADC in mm²/s follows Helenius et al. 2002
//! (AJNR 23:194). Fat is suppressed by the sequence: the scalp keeps a tenth of its protons' signal.

use super::shapes::Lanes;

/// What the phantom is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tissue {
    Air,
    Scalp,
    Bone,
    Muscle,
    Vitreous,
    Csf,
    White,
    Grey,
    DeepGrey,
    Pallidum,
}

/// Proton density, T1 and T2 in ms at 1.5 T and at 3 T, ADC in mm²/s.
struct Relaxation {
    density: f64,
    t1_ms: [f64; 2],
    t2_ms: [f64; 2],
    adc: f64,
}

impl Tissue {
    const ALL: [Self; 10] = [
        Self::Air,
        Self::Scalp,
        Self::Bone,
        Self::Muscle,
        Self::Vitreous,
        Self::Csf,
        Self::White,
        Self::Grey,
        Self::DeepGrey,
        Self::Pallidum,
    ];

    fn relaxation(self) -> Relaxation {
        let (density, t1_ms, t2_ms, adc) = match self {
            Self::Air => (0.0, [1000.0; 2], [50.0; 2], 0.0),
            Self::Scalp => (0.12, [290.0, 370.0], [75.0, 68.0], 0.25e-3),
            Self::Bone => (0.035, [400.0, 450.0], [60.0, 55.0], 0.5e-3),
            Self::Muscle => (0.72, [950.0, 1350.0], [44.0, 38.0], 1.5e-3),
            Self::Vitreous => (0.98, [3300.0, 3800.0], [1100.0, 900.0], 2.8e-3),
            Self::Csf => (1.0, [4000.0, 4200.0], [1600.0, 1400.0], 3.0e-3),
            Self::White => (0.70, [680.0, 900.0], [80.0, 72.0], 0.70e-3),
            Self::Grey => (0.81, [1000.0, 1350.0], [95.0, 86.0], 0.80e-3),
            Self::DeepGrey => (0.78, [900.0, 1200.0], [84.0, 72.0], 0.74e-3),
            Self::Pallidum => (0.73, [800.0, 1050.0], [68.0, 54.0], 0.74e-3),
        };
        Relaxation { density, t1_ms, t2_ms, adc }
    }
}

/// The sequence, as far as contrast depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    pub(super) b_value_s_per_mm2: f64,
    pub(super) field_strength_t: f64,
    pub(super) repetition_time_ms: f64,
    pub(super) echo_time_ms: f64,
}

/// The signal of every tissue, white matter at b = 0 being 1.
#[derive(Debug, Clone)]
pub(super) struct Palette {
    lanes: [Lanes; Tissue::ALL.len()],
    b_value: f64,
}

impl Palette {
    pub(super) fn new(sequence: &Sequence) -> Self {
        // Relaxation times between 1.5 T and 3 T are interpolated, those beyond are the nearer ones.
        let high = ((sequence.field_strength_t - 1.5) / 1.5).clamp(0.0, 1.0);
        let b0 = |t: Tissue| {
            let r = t.relaxation();
            let at = |pair: [f64; 2]| pair[0] + high * (pair[1] - pair[0]);
            let recovered = 1.0 - (-sequence.repetition_time_ms / at(r.t1_ms)).exp();
            r.density * recovered * (-sequence.echo_time_ms / at(r.t2_ms)).exp()
        };
        let white = b0(Tissue::White).max(1e-12);
        let lanes = Tissue::ALL.map(|t| {
            let s = b0(t) / white;
            let weighted = s * (-sequence.b_value_s_per_mm2 * t.relaxation().adc).exp();
            let brain =
                matches!(t, Tissue::White | Tissue::Grey | Tissue::DeepGrey | Tissue::Pallidum);
            let share = |yes: bool| f32::from(u8::from(yes));
            [s as f32, weighted as f32, share(brain), share(t == Tissue::White)]
        });
        Self { lanes, b_value: sequence.b_value_s_per_mm2 }
    }

    /// Signals and shares of a tissue.
    #[inline]
    pub(super) fn of(&self, tissue: Tissue) -> Lanes {
        self.lanes[tissue as usize]
    }

    /// Signal at the diffusion b-value of something with `b0` signal and an ADC in mm²/s.
    pub(super) fn weighted(&self, b0: f32, adc_mm2_per_s: f64) -> f32 {
        b0 * (-self.b_value * adc_mm2_per_s).exp() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn palette(field_strength_t: f64) -> Palette {
        Palette::new(&Sequence {
            b_value_s_per_mm2: 1000.0,
            field_strength_t,
            repetition_time_ms: 5000.0,
            echo_time_ms: 80.0,
        })
    }

    // import math
    // s = lambda pd, t1, t2: pd * (1 - math.exp(-5000 / t1)) * math.exp(-80 / t2)
    // w, g, c = s(.70, 680, 80), s(.81, 1000, 95), s(1, 4000, 1600)
    // print(g / w, math.exp(-.7), g / w * math.exp(-.8), c / w * math.exp(-3))
    #[test]
    fn signals_at_1_5_t() {
        let p = palette(1.5);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");
        near(p.of(Tissue::White)[0], 1.0);
        near(p.of(Tissue::Grey)[0], 1.346_797);
        near(p.of(Tissue::White)[1], 0.496_585);
        near(p.of(Tissue::Grey)[1], 0.605_155);
        near(p.of(Tissue::Csf)[1], 0.131_301);
        near(p.weighted(1.0, 0.45e-3), 0.637_628);
    }

    #[test]
    fn grey_matter_is_brighter_and_fluid_darker_on_dwi() {
        for field in [0.5, 1.5, 2.0, 3.0, 7.0] {
            let p = palette(field);
            let ratio = p.of(Tissue::Grey)[1] / p.of(Tissue::White)[1];
            assert!((1.1..1.4).contains(&ratio), "{ratio} at {field} T");
            assert!(p.of(Tissue::Csf)[1] < 0.4 * p.of(Tissue::White)[1]);
            assert!(p.of(Tissue::Csf)[0] > 2.0 * p.of(Tissue::White)[0]);
        }
    }
}
