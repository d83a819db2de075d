//! The verdict on an image: its measures held against limits.

use super::{Options, Quality};
use crate::volume::Grid;

/// How an image fared.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within all limits.
    Pass,
    /// To be looked at, still used.
    Warn,
    /// Not to be used.
    Fail,
}

impl Verdict {
    /// The word stored in the `quality` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// A verdict and every reason for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Judgement {
    /// The worst of what was found.
    pub verdict: Verdict,
    /// Each limit that was passed: severity, measure, value, limit and the threshold's name.
    pub reasons: Vec<String>,
}

/// The limits. A measure past `min_…` or `max_…` fails; past the same name with `_warn` it warns. The defaults pass
/// clinical brain DWI from 1.5 T and 3 T scanners, stripped or not.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "QualityThresholds")]
pub struct Thresholds {
    /// Fewest voxels along x, y, z.
    pub min_shape: [usize; 3],
    /// Most voxels along x, y, z.
    pub max_shape: [usize; 3],
    /// Smallest distance between voxels along x, y, z in mm.
    pub min_spacing_mm: [f64; 3],
    /// Largest distance between voxels along x, y, z in mm.
    pub max_spacing_mm: [f64; 3],
    /// Largest share of NaN and infinite voxels.
    pub max_nonfinite_share: f64,
    /// Largest share of negative voxels.
    pub max_negative_share: f64,
    /// Share of negative voxels above which to warn.
    pub max_negative_share_warn: f64,
    /// Largest share of the head at exactly the maximum.
    pub max_clipped_share: f64,
    /// Share of the head at exactly the maximum above which to warn.
    pub max_clipped_share_warn: f64,
    /// Smallest share of the voxels in the head.
    pub min_foreground_share: f64,
    /// Largest share of the voxels in the head.
    pub max_foreground_share: f64,
    /// Smallest signal-to-noise ratio.
    pub min_snr: f64,
    /// Signal-to-noise ratio below which to warn.
    pub min_snr_warn: f64,
    /// Largest entropy focus criterion.
    pub max_efc: f64,
    /// Coefficient of joint variation above which to warn.
    pub max_cjv_warn: f64,
    /// Largest ghost-to-signal ratio.
    pub max_ghost_to_signal_ratio: f64,
    /// Ghost-to-signal ratio above which to warn.
    pub max_ghost_to_signal_ratio_warn: f64,
    /// Largest relative step of the median between neighbouring slices.
    pub max_slice_jump: f64,
    /// Step of the median between neighbouring slices above which to warn.
    pub max_slice_jump_warn: f64,
    /// Most slices that lost their signal.
    pub max_dropout_slices: u64,
    /// Number of slices that lost their signal above which to warn.
    pub max_dropout_slices_warn: u64,
    /// Largest truth in mL.
    pub max_truth_volume_ml: f64,
    /// Volume of the truth in mL above which to warn.
    pub max_truth_volume_ml_warn: f64,
    /// Warn where the truth has no voxels.
    pub warn_empty_truth: bool,
    /// Largest share of the truth outside the head.
    pub max_truth_outside_head_share: f64,
    /// Share of the truth outside the head above which to warn.
    pub max_truth_outside_head_share_warn: f64,
    /// How the measures are taken.
    pub measure: Options,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            min_shape: [32, 32, 8],
            max_shape: [1024, 1024, 512],
            min_spacing_mm: [0.3, 0.3, 0.5],
            max_spacing_mm: [5.0, 5.0, 12.0],
            max_nonfinite_share: 0.0,
            max_negative_share: 0.05,
            max_negative_share_warn: 0.01,
            max_clipped_share: 0.05,
            max_clipped_share_warn: 0.005,
            min_foreground_share: 0.02,
            max_foreground_share: 0.9,
            min_snr: 4.0,
            min_snr_warn: 8.0,
            max_efc: 0.95,
            max_cjv_warn: 2.0,
            max_ghost_to_signal_ratio: 0.3,
            max_ghost_to_signal_ratio_warn: 0.15,
            max_slice_jump: 0.6,
            max_slice_jump_warn: 0.35,
            max_dropout_slices: 3,
            max_dropout_slices_warn: 0,
            max_truth_volume_ml: 600.0,
            max_truth_volume_ml_warn: 400.0,
            warn_empty_truth: true,
            max_truth_outside_head_share: 0.5,
            max_truth_outside_head_share_warn: 0.05,
            measure: Options::default(),
        }
    }
}

/// The verdict on an image by its measures and its grid, with a reason for each limit that was passed.
pub fn judge(quality: &Quality, grid: &Grid, limits: &Thresholds) -> Judgement {
    let mut bench = Bench::default();
    judge_grid(&mut bench, grid, limits);
    judge_values(&mut bench, quality, limits);
    judge_artefacts(&mut bench, quality, limits);
    judge_truth(&mut bench, quality, limits);
    let verdict = bench.findings.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Pass);
    // The gravest first, otherwise in the order of the checks.
    bench.findings.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    Judgement { verdict, reasons: bench.findings.into_iter().map(|(_, reason)| reason).collect() }
}

fn judge_grid(bench: &mut Bench, grid: &Grid, limits: &Thresholds) {
    let spacing = grid.affine.spacing_mm();
    for (a, axis) in ["x", "y", "z"].into_iter().enumerate() {
        let voxels = grid.shape[a] as f64;
        bench.at_least(
            &format!("shape_{axis}"),
            voxels,
            fail(limits.min_shape[a] as f64, "min_shape"),
        );
        bench.at_most(
            &format!("shape_{axis}"),
            voxels,
            fail(limits.max_shape[a] as f64, "max_shape"),
        );
        let name = format!("spacing_{axis}_mm");
        bench.at_least(&name, spacing[a], fail(limits.min_spacing_mm[a], "min_spacing_mm"));
        bench.at_most(&name, spacing[a], fail(limits.max_spacing_mm[a], "max_spacing_mm"));
    }
}

fn judge_values(bench: &mut Bench, q: &Quality, limits: &Thresholds) {
    let nonfinite = fail(limits.max_nonfinite_share, "max_nonfinite_share");
    bench.at_most("nonfinite_share", q.nonfinite_share, nonfinite);
    if q.intensity_max <= q.intensity_min {
        let value = short(q.intensity_min);
        bench.add(Verdict::Fail, &format!("every voxel is {value} (expected an image)"));
        return;
    }
    let negative = (limits.max_negative_share, limits.max_negative_share_warn);
    bench.at_most("negative_share", q.negative_share, both(negative, "max_negative_share"));
    let clipped = (limits.max_clipped_share, limits.max_clipped_share_warn);
    bench.at_most("clipped_share", q.clipped_share, both(clipped, "max_clipped_share"));
    let name = "foreground_share";
    bench.at_least(
        name,
        q.foreground_share,
        fail(limits.min_foreground_share, "min_foreground_share"),
    );
    bench.at_most(
        name,
        q.foreground_share,
        fail(limits.max_foreground_share, "max_foreground_share"),
    );
    bench.at_least("snr", q.snr, both((limits.min_snr, limits.min_snr_warn), "min_snr"));
    bench.at_most("efc", q.efc, fail(limits.max_efc, "max_efc"));
    bench.at_most(
        "cjv",
        q.cjv,
        Limits { fail: None, warn: Some(limits.max_cjv_warn), name: "max_cjv" },
    );
}

fn judge_artefacts(bench: &mut Bench, q: &Quality, limits: &Thresholds) {
    let ghost = (limits.max_ghost_to_signal_ratio, limits.max_ghost_to_signal_ratio_warn);
    let ghost = both(ghost, "max_ghost_to_signal_ratio");
    bench.at_most("ghost_to_signal_ratio", q.ghost_to_signal_ratio, ghost);
    let jump = (limits.max_slice_jump, limits.max_slice_jump_warn);
    bench.at_most("slice_jump_max", q.slice_jump_max, both(jump, "max_slice_jump"));
    let dropout = (limits.max_dropout_slices as f64, limits.max_dropout_slices_warn as f64);
    bench.at_most("dropout_slices", q.dropout_slices as f64, both(dropout, "max_dropout_slices"));
}

fn judge_truth(bench: &mut Bench, q: &Quality, limits: &Thresholds) {
    if let Some(volume_ml) = q.truth_volume_ml {
        if volume_ml == 0.0 && limits.warn_empty_truth {
            bench.add(Verdict::Warn, "the truth has no voxels (warn_empty_truth)");
        }
        let volume = (limits.max_truth_volume_ml, limits.max_truth_volume_ml_warn);
        bench.at_most("truth_volume_ml", volume_ml, both(volume, "max_truth_volume_ml"));
    }
    if let Some(share) = q.truth_outside_head_share {
        let outside =
            (limits.max_truth_outside_head_share, limits.max_truth_outside_head_share_warn);
        let outside = both(outside, "max_truth_outside_head_share");
        bench.at_most("truth_outside_head_share", share, outside);
    }
}

/// The limits of one measure and the threshold that sets the failing one.
#[derive(Clone, Copy)]
struct Limits {
    fail: Option<f64>,
    warn: Option<f64>,
    name: &'static str,
}

fn fail(limit: f64, name: &'static str) -> Limits {
    Limits { fail: Some(limit), warn: None, name }
}

fn both((fail, warn): (f64, f64), name: &'static str) -> Limits {
    Limits { fail: Some(fail), warn: Some(warn), name }
}

/// Collects what was found.
#[derive(Default)]
struct Bench {
    findings: Vec<(Verdict, String)>,
}

impl Bench {
    fn add(&mut self, verdict: Verdict, reason: &str) {
        self.findings.push((verdict, format!("{}: {reason}", verdict.name())));
    }

    fn at_least(&mut self, measure: &str, value: f64, limits: Limits) {
        self.check(measure, value, limits, "below", |value, limit| value >= limit);
    }

    fn at_most(&mut self, measure: &str, value: f64, limits: Limits) {
        self.check(measure, value, limits, "above", |value, limit| value <= limit);
    }

    /// Adds a finding for the gravest limit that does not hold; NaN holds none.
    fn check(
        &mut self,
        measure: &str,
        value: f64,
        limits: Limits,
        side: &str,
        holds: fn(f64, f64) -> bool,
    ) {
        let Limits { fail, warn, name } = limits;
        let grades = [(Verdict::Fail, fail, ""), (Verdict::Warn, warn, "_warn")];
        for (verdict, limit, suffix) in grades {
            let Some(limit) = limit.filter(|&limit| !holds(value, limit)) else { continue };
            let (value, limit) = (short(value), short(limit));
            self.add(verdict, &format!("{measure} {value} is {side} {limit} ({name}{suffix})"));
            return;
        }
    }
}

/// Four significant digits, without trailing zeros.
fn short(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return value.to_string();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ball;
    use super::super::{Options, measure};
    use super::*;
    use crate::error::Result;
    use crate::volume::{Affine, Volume};

    fn judged(change: impl FnOnce(&mut Quality, &mut Grid, &mut Thresholds)) -> Result<Judgement> {
        let image = ball(25.0);
        let mut quality = measure(&image, None, &Options::default())?;
        let (mut grid, mut limits) = (image.grid(), Thresholds::default());
        change(&mut quality, &mut grid, &mut limits);
        Ok(judge(&quality, &grid, &limits))
    }

    #[test]
    fn each_reason_names_severity_measure_value_limit_and_threshold() -> Result<()> {
        let found = judged(|q, _, limits| {
            q.snr = 3.149;
            q.negative_share = 0.02;
            limits.min_snr = 4.5;
        })?;
        assert_eq!(found.verdict, Verdict::Fail);
        assert_eq!(
            found.reasons,
            [
                "fail: snr 3.149 is below 4.5 (min_snr)",
                "warn: negative_share 0.02 is above 0.01 (max_negative_share_warn)",
            ]
        );
        Ok(())
    }

    #[test]
    fn grids_out_of_range_fail() -> Result<()> {
        let found = judged(|_, grid, _| {
            grid.shape[2] = 3;
            grid.affine = Affine::from_spacing_mm([2.0, 2.0, 25.0]);
        })?;
        let reasons = [
            "fail: shape_z 3 is below 8 (min_shape)",
            "fail: spacing_z_mm 25 is above 12 (max_spacing_mm)",
        ];
        assert_eq!(found.reasons, reasons);
        Ok(())
    }

    #[test]
    fn empty_and_broken_images_fail() -> Result<()> {
        for (value, reason) in [
            (0.0, "fail: every voxel is 0 (expected an image)"),
            (f32::NAN, "fail: nonfinite_share 1 is above 0 (max_nonfinite_share)"),
        ] {
            let image = Volume::filled(&ball(0.0).grid(), value);
            let quality = measure(&image, None, &Options::default())?;
            let found = judge(&quality, &image.grid(), &Thresholds::default());
            assert_eq!(found.verdict, Verdict::Fail);
            assert!(found.reasons.contains(&reason.to_owned()), "{found:?}");
        }
        Ok(())
    }

    #[test]
    fn an_empty_truth_warns_unless_told_otherwise() -> Result<()> {
        let found = judged(|q, _, _| q.truth_volume_ml = Some(0.0))?;
        assert_eq!(found.verdict, Verdict::Warn);
        let found = judged(|q, _, limits| {
            q.truth_volume_ml = Some(0.0);
            limits.warn_empty_truth = false;
        })?;
        assert_eq!(found.verdict, Verdict::Pass);
        Ok(())
    }

    #[test]
    fn a_measure_that_is_no_number_fails() -> Result<()> {
        assert_eq!(judged(|q, _, _| q.efc = f64::NAN)?.verdict, Verdict::Fail);
        Ok(())
    }

    #[test]
    fn numbers_are_short() {
        let cases =
            [(0.0, "0"), (4.0, "4"), (0.012_346, "0.01235"), (123_456.7, "123457"), (-0.5, "-0.5")];
        for (value, want) in cases {
            assert_eq!(short(value), want);
        }
    }
}
