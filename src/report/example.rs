//! A report with everything in it, on invented cases, for the tests of the page.

use std::sync::LazyLock;

use ndarray::Array3;

use super::data::{
    CentreMetric, CurvePoint, Example, Exclusion, FailedCase, Failures, Flow, Group, LineageFacts,
    Outlier, Part, Quality, Reason, ReportData, ScoredCase, Scores, Spread, StageCount, Station,
    Stratum, Training,
};
use super::montage::{montage, thumbnail};
use crate::volume::{Affine, Image, Mask};

const AFFINE: Affine =
    Affine([[-1.5, 0.0, 0.0, 90.0], [0.0, 1.5, 0.0, -100.0], [0.0, 0.0, 5.0, -50.0]]);
const SHAPE: (usize, usize, usize) = (20, 140, 120);

/// A number in [0, 1) that depends on `i` alone.
fn unit(i: u64) -> f64 {
    let mixed =
        i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// A bell-shaped number of mean 0 and standard deviation near 1.
fn normal(i: u64) -> f64 {
    (0..12).map(|k| unit(i * 12 + k)).sum::<f64>() - 6.0
}

/// Distance from a centre in units of the radii: below 1 is inside.
fn ellipsoid(at: (usize, usize, usize), centre: [f64; 3], radii: [f64; 3]) -> f64 {
    let p = [at.2 as f64, at.1 as f64, at.0 as f64];
    (0..3).map(|i| ((p[i] - centre[i]) / radii[i]).powi(2)).sum::<f64>().sqrt()
}

/// A lesion of a radius in voxels.
pub fn lesion(centre: [f64; 3], radius: f64) -> Mask {
    let wobble =
        |at: (usize, usize, usize)| 0.25 * ((at.1 as f64 * 0.5).sin() + (at.2 as f64 * 0.4).cos());
    let radii = [radius, radius * 1.3, (radius * 0.3).max(1.0)];
    let inside = |at| u8::from(ellipsoid(at, centre, radii) + wobble(at) < 1.0);
    Mask { data: Array3::from_shape_fn(SHAPE, inside), affine: AFFINE }
}

/// A head with a bright lesion.
pub fn head(truth: &Mask, noise: f64) -> Image {
    let voxel = |at: (usize, usize, usize)| {
        let brain = ellipsoid(at, [60.0, 70.0, 10.0], [48.0, 60.0, 11.0]);
        let ventricle =
            ellipsoid((at.0, at.1, at.2.abs_diff(60)), [8.0, 68.0, 11.0], [6.0, 18.0, 4.0]);
        let texture = 14.0 * ((at.1 as f64 * 0.33).sin() * (at.2 as f64 * 0.29).cos());
        let signal = match (brain < 1.0, ventricle < 1.0, truth.data[at] > 0) {
            (false, ..) => 0.0,
            (_, _, true) => 250.0,
            (_, true, _) => 35.0,
            _ => 120.0 + texture - 25.0 * brain,
        };
        (signal + noise * normal((at.0 * SHAPE.1 * SHAPE.2 + at.1 * SHAPE.2 + at.2) as u64)).abs()
            as f32
    };
    Image { data: Array3::from_shape_fn(SHAPE, voxel), affine: AFFINE }
}

fn spread(n: u64, mean: f64, sd: f64) -> Spread {
    Spread::new(n, Some(mean), Some(sd), Some(mean + 0.02))
}

fn group(label: &str, n: u64, dice: f64) -> Group {
    Group {
        label: label.to_owned(),
        n,
        dice: spread(n, dice, 0.21 - dice * 0.1),
        sensitivity: spread(n, dice - 0.03, 0.18),
        precision: spread(n, dice + 0.05, 0.15),
        lesion_f1: spread(n, dice - 0.08, 0.22),
        hd95_mm: spread(n.saturating_sub(1), 22.0 - 18.0 * dice, 6.2),
        absolute_volume_difference_ml: spread(n, 1.2 + dice, 2.4),
    }
}

fn stratum(variable: &str, label: &str, groups: &[(&str, u64, f64)]) -> Stratum {
    Stratum {
        variable: variable.to_owned(),
        label: label.to_owned(),
        groups: Ok(groups.iter().map(|(label, n, dice)| group(label, *n, *dice)).collect()),
        sql: format!("SELECT {variable}, avg(dice)\nFROM scores\nGROUP BY {variable}"),
    }
}

/// The report; drawn once.
pub fn report() -> ReportData {
    static REPORT: LazyLock<ReportData> = LazyLock::new(make);
    REPORT.clone()
}

fn make() -> ReportData {
    ReportData {
        title: "Infarct segmentation, internal test".to_owned(),
        html: "report.html".into(),
        notes: vec![],
        tiles: vec![],
        study: vec![],
        shows_run: true,
        lineage: LineageFacts {
            run_id: "0198c7a2-5b1e-7c43-9f0e-3a1d5f0c7b21".to_owned(),
            pipeline: "infarct-demo".to_owned(),
            pipeline_hash: "5f1c0e7d9a3b42c8e6f0d1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6"
                .to_owned(),
            seed: 20_230_702,
            software_version: "0.1.0".to_owned(),
            catalog_version: Some(12),
            command: Some("torcula run pipelines/demo.yaml".to_owned()),
            started_at: Some("2026-03-14T09:26:53.589793Z".to_owned()),
        },
        flow: flow(),
        failures: failures(),
        quality: quality(),
        training: Some(training()),
        scores: Some(scores()),
    }
}

fn exclusion(place: &str, reasons: &[(&str, u64)]) -> Exclusion {
    Exclusion {
        place: place.to_owned(),
        cases: reasons.iter().map(|r| r.1).sum(),
        reasons: reasons
            .iter()
            .map(|(r, n)| Reason { reason: (*r).to_owned(), cases: *n })
            .collect(),
    }
}

fn flow() -> Flow {
    let station = |label: &str, cases, detail: &[&str], exclusions| Station {
        label: label.to_owned(),
        cases,
        detail: detail.iter().map(|d| (*d).to_owned()).collect(),
        exclusions,
    };
    let part = |part: &str, cases, scored| Part { part: part.to_owned(), cases, scored };
    let ingest = exclusion(
        "registry › ingest",
        &[
            ("…: the gzip stream ends after … of … bytes", 6),
            ("the image is constant, every voxel is 0", 2),
            ("truth is on another grid: shape …, the image has 200 × 200 × 24", 1),
        ],
    );
    let qc = exclusion(
        "prepared › qc",
        &[("SNR … is below 4", 7), ("… slices without signal, at most 1 is allowed", 3)],
    );
    let n4 = exclusion("prepared › n4", &[("the mask is empty", 1)]);
    let lost = exclusion("predicted › infer", &[("needs … GiB, the budget is 4 GiB", 1)]);
    Flow {
        before: vec![
            station("Found", 1_209, &[], vec![]),
            station("Ingested", 1_200, &["internal 1,000", "external 200"], vec![ingest]),
            station(
                "Prepared",
                989,
                &["step prepared"],
                vec![qc, n4, exclusion("prepared", &[("not asked for by the step’s query", 200)])],
            ),
        ],
        parts: vec![part("train", 633, 0), part("val", 158, 0), part("test", 198, 197)],
        lost_in_training: vec![exclusion(
            "train, shards › resample",
            &[("… slices, 24 were expected", 2)],
        )],
        after: vec![station("Scored", 197, &["step scores"], vec![lost])],
        sql: "SELECT count(*) FROM cases".to_owned(),
    }
}

fn failures() -> Failures {
    let row = |case: &str, step: &str, stage: &str, reason: &str, hint: Option<&str>| FailedCase {
        case_id: case.to_owned(),
        step: step.to_owned(),
        stage: stage.to_owned(),
        fault: "data".to_owned(),
        reason: reason.to_owned(),
        hint: hint.map(str::to_owned),
        transient: false,
    };
    let count = |step: &str, stage: &str, failures| StageCount {
        step: step.to_owned(),
        stage: stage.to_owned(),
        failures,
    };
    Failures {
        total: 20,
        cases: 20,
        rows: vec![
            row(
                "sub-0042",
                "registry",
                "ingest",
                "internal/sub-0042/dwi/sub-0042_dwi.nii.gz: the gzip stream ends after 81920 of 960352 bytes",
                Some("copy the file again from its source"),
            ),
            row(
                "sub-0107",
                "registry",
                "ingest",
                "truth is on another grid: shape 128 × 128 × 24, the image has 200 × 200 × 24",
                Some("export the mask on the grid of the diffusion-weighted image"),
            ),
            row("sub-0311", "prepared", "qc", "SNR 2.71 is below 4; <b> & such is escaped", None),
        ],
        by_stage: vec![
            count("registry", "ingest", 9),
            count("prepared", "qc", 10),
            count("prepared", "n4", 1),
        ],
        sql: "SELECT * FROM failures\nWHERE run_id = '0198c7a2'".to_owned(),
    }
}

fn quality() -> Quality {
    let centres = ["Aker", "Bjerke", "University Hospital North", "Dal", "Eik"];
    let metric = |label: &str, base: f64, salt: u64| CentreMetric {
        label: label.to_owned(),
        centres: centres
            .iter()
            .enumerate()
            .map(|(c, name)| {
                let n = [3, 12, 60, 140, 40][c];
                let value = |i| {
                    base * (1.0 + 0.12 * c as f64)
                        * (1.0 + 0.16 * normal(salt + 1000 * c as u64 + i))
                };
                let mut values: Vec<f64> = (0..n).map(value).collect();
                values.sort_by(f64::total_cmp);
                ((*name).to_owned(), values)
            })
            .collect(),
    };
    let truth = lesion([80.0, 60.0, 11.0], 11.0);
    let outlier = |case: &str, verdict: &str, reason: &str, picture| Outlier {
        case_id: case.to_owned(),
        centre: Some("Dal".to_owned()),
        verdict: verdict.to_owned(),
        reasons: vec![reason.to_owned()],
        picture,
    };
    let picture = |noise| thumbnail(&head(&truth, noise)).map_err(|e| e.to_string());
    Quality {
        cases: 999,
        verdicts: [("pass", 961), ("warn", 28), ("fail", 10)]
            .map(|(verdict, cases)| Reason { reason: verdict.to_owned(), cases })
            .to_vec(),
        metrics: vec![metric("SNR", 11.0, 1), metric("Noise SD (intensity)", 9.0, 77)],
        outliers: vec![
            outlier("sub-0311", "fail", "SNR 2.71 is below 4", picture(60.0)),
            outlier(
                "sub-0645",
                "fail",
                "the image cannot be read",
                Err("the gzip stream ends after 81920 of 960352 bytes".to_owned()),
            ),
            outlier("sub-0702", "warn", "ghost-to-signal ratio 0.12 is above 0.1", picture(24.0)),
            outlier(
                "sub-0810",
                "unusual",
                "SNR 31.2: median of the centre 14.9 (robust z 5.1)",
                picture(2.0),
            ),
        ],
        more_outliers: 26,
        sql: "SELECT centre, snr, noise_sigma\nFROM quality JOIN cases USING (case_id)".to_owned(),
    }
}

fn training() -> Training {
    let curve = (0..20).map(|i| {
        let t = f64::from(i);
        CurvePoint {
            epoch: i64::from(i),
            train_loss: Some(0.22 + 1.1 * (-t / 5.0).exp() + 0.02 * normal(i as u64)),
            val_dice: Some(
                (0.78 * (1.0 - (-t / 4.0).exp()) + 0.015 * normal(900 + i as u64)).clamp(0.0, 1.0),
            ),
            seconds: Some(11.4),
        }
    });
    Training {
        model_id: "unet-6f2c19a0".to_owned(),
        name: "unet".to_owned(),
        architecture: "unet3d".to_owned(),
        best_epoch: 17,
        best_val_dice: Some(0.754),
        train_cases: 633,
        val_cases: 158,
        parent: None,
        curve: curve.collect(),
        sql: "SELECT * FROM models WHERE name = 'unet'".to_owned(),
    }
}

fn scores() -> Scores {
    let cases: Vec<ScoredCase> = (0..197)
        .map(|i| {
            let truth = 10_f64.powf(0.35 + 0.75 * normal(4000 + i));
            let dice = (0.62 + 0.1 * truth.log10() + 0.16 * normal(8000 + i)).clamp(0.0, 0.97);
            let predicted = if i % 41 == 0 {
                0.0
            } else {
                truth * (0.95 + 0.3 * (1.0 - dice) * normal(i)).max(0.02)
            };
            ScoredCase {
                case_id: format!("sub-{:04}", i * 5),
                dice: Some(if predicted == 0.0 { 0.0 } else { dice }),
                volume_truth_ml: truth,
                volume_predicted_ml: predicted,
            }
        })
        .collect();
    let example = |rank: &str, dice, centre: [f64; 3], radius: f64, shift: f64, factor: f64| {
        let truth = lesion(centre, radius);
        let moved = lesion([centre[0] + shift, centre[1] - shift, centre[2]], radius * factor);
        let ml = |mask: &Mask| mask.data.iter().filter(|v| **v > 0).count() as f64 * 11.25 / 1000.0;
        Example {
            rank: rank.to_owned(),
            case_id: format!("sub-{:04}", radius as usize * 97),
            dice,
            volume_truth_ml: ml(&truth),
            volume_predicted_ml: ml(&moved),
            slices: montage(&head(&truth, 7.0), &truth, &moved).map_err(|e| e.to_string()),
        }
    };
    Scores {
        step: "scores".to_owned(),
        overall: group("all cases", 197, 0.712),
        strata: vec![
            stratum(
                "volume_ml",
                "Lesion volume",
                &[("< 1.7 mL", 91, 0.604), ("1.7–14 mL", 70, 0.741), ("> 14 mL", 36, 0.823)],
            ),
            stratum(
                "onset_h",
                "Onset to imaging",
                &[
                    ("< 3 h", 1, 0.551),
                    ("3–24 h", 102, 0.705),
                    ("> 24 h", 61, 0.733),
                    ("not known", 33, 0.690),
                ],
            ),
            stratum(
                "chronic_infarct",
                "Chronic infarct",
                &[("no", 140, 0.72), ("yes", 57, 0.66), ("not known", 0, 0.0)],
            ),
            Stratum {
                variable: "shoe_size".to_owned(),
                label: "shoe_size".to_owned(),
                groups: Err(
                    "neither the table cases nor the step scored has a column shoe_size".to_owned()
                ),
                sql: String::new(),
            },
        ],
        cases,
        empty_policy: Some("both empty score 1, one empty scores 0".to_owned()),
        examples: vec![
            example("Best", 0.951, [82.0, 66.0, 11.0], 16.0, 0.6, 1.0),
            example("Median", 0.742, [40.0, 84.0, 9.0], 6.0, 1.0, 1.1),
            example("Worst", 0.0, [76.0, 50.0, 6.0], 2.2, 9.0, 1.4),
        ],
        sql: "SELECT count(*) AS n, avg(dice)\nFROM scores WHERE step = 'scores'".to_owned(),
        cases_sql: "SELECT case_id, dice, volume_truth_ml, volume_predicted_ml\nFROM scores"
            .to_owned(),
    }
}
