//! Commands as a stranger meets them.

use super::support::{Registry, TORCULA, succeed, text, torcula};

#[test]
fn every_command_has_help() {
    let help = succeed(&["--help"]);
    for command in [
        "run",
        "check",
        "explain",
        "test",
        "cohort",
        "split",
        "sql",
        "apply",
        "score",
        "synth",
        "curate",
        "lineage",
        "failures",
        "status",
        "runs",
        "reveal",
        "doctor",
        "completions",
    ] {
        assert!(help.contains(command), "{command}\n{help}");
        let own = succeed(&[command, "--help"]);
        assert!(own.contains("Usage:"), "{own}");
    }
    assert!(succeed(&["completions", "bash"]).contains("torcula"));
}

#[test]
fn apply_agrees_with_the_pipeline_to_the_byte() {
    let registry = Registry::synth(2, &[]);
    registry.counts(&[]);
    let image = registry.image(0);
    let out = |name: &str| registry.path().join(name).to_str().unwrap().to_owned();
    let (stripped, mask, corrected, normal) =
        (out("s.nii.gz"), out("m.nii.gz"), out("n.nii.gz"), out("o.nii.gz"));
    succeed(&[
        "apply",
        "skull_strip",
        image.to_str().unwrap(),
        &stripped,
        "--save-mask",
        &mask,
        "--set",
        "blur_mm=2",
        "--set",
        "largest_component=true",
        "--set",
        "fill_holes=true",
    ]);
    succeed(&[
        "apply",
        "n4",
        &stripped,
        &corrected,
        "--mask",
        &mask,
        "--set",
        "iterations=[4,4]",
        "--set",
        "shrink=2",
    ]);
    succeed(&["apply", "normalize", &corrected, &normal, "--mask", &mask]);
    let prepared = registry.sql("SELECT image_uri FROM prepared ORDER BY case_id LIMIT 1");
    let voxels = |path: &str| {
        let (image, _) =
            torcula::formats::nifti::read_image(std::path::Path::new(path), 0).unwrap();
        image.voxels().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(voxels(&normal), voxels(&prepared));
}

#[test]
fn score_prints_the_agreed_keys() {
    let registry = Registry::synth(2, &[]);
    let truth = super::support::files(&registry.path().join("internal/derivatives"))
        .into_iter()
        .find(|p| p.to_string_lossy().ends_with("mask.nii.gz"))
        .unwrap();
    let truth = truth.to_str().unwrap();
    let scores: serde_json::Value =
        serde_json::from_str(&succeed(&["score", truth, truth, "--format", "json"])).unwrap();
    for key in [
        "dice",
        "sensitivity",
        "precision",
        "volume_truth_ml",
        "volume_predicted_ml",
        "absolute_volume_difference_ml",
        "lesion_f1",
        "lesion_count_difference",
        "hd95_mm",
        "assd_mm",
    ] {
        assert!(scores.get(key).is_some(), "{key}: {scores}");
    }
    assert_eq!(scores["dice"], 1.0);
}

#[test]
fn sql_reads_an_earlier_version() {
    let registry = Registry::synth(10, &[]);
    registry.counts(&[]);
    assert_eq!(registry.sql("SELECT count(*) FROM cases VERSION AS OF 0"), "0");
    assert_eq!(registry.sql("SELECT count(*) FROM cases"), "10");
    assert_eq!(registry.sql("SELECT count(DISTINCT part) FROM split"), "3");
    let error = torcula(&[
        "sql",
        "SELECT * FROM casez",
        "--catalog",
        registry.path().join("catalog").to_str().unwrap(),
    ]);
    assert!(!error.status.success() && text(&error).contains("cases"), "{}", text(&error));
}

#[test]
fn status_and_failures_read_well() {
    let registry = Registry::synth(10, &["--broken", "0.2"]);
    registry.run(&[]);
    let catalog = registry.path().join("catalog");
    let catalog = catalog.to_str().unwrap();
    let failures = succeed(&["failures", "--catalog", catalog]);
    assert_eq!(failures.lines().count(), 1 + 2, "{failures}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let script = format!("{TORCULA} --help | head -n 1; {TORCULA} completions zsh | head -n 1");
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
}
