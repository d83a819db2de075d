//! The shipped pipelines with their training, from images to a report.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic")]

mod models;
mod nightly;
mod resume;

use std::path::{Path, PathBuf};
use std::process::Command;

const TORCULA: &str = env!("CARGO_BIN_EXE_torcula-training");

fn pipeline(name: &str) -> String {
    format!("{}/../../pipelines/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program, which must succeed; everything that it printed.
fn run(args: &[&str]) -> String {
    let output = Command::new(TORCULA).args(args).output().unwrap();
    let text = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

/// The mean DSC that a run printed.
fn dice(text: &str) -> f64 {
    let line =
        text.lines().find(|l| l.starts_with("DSC ")).unwrap_or_else(|| panic!("no DSC: {text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn check_report(path: &Path) {
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.contains("<svg") && page.contains("data:image/png"));
}

#[test]
fn the_demo_learns_scores_and_reports_and_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let registry = folder.path().join("registry");
    run(&[
        "synth",
        registry.to_str().unwrap(),
        "--cases",
        "50",
        "--sites",
        "3",
        "--seed",
        "7",
        "--matrix",
        "64",
        "--slices",
        "16",
        "--broken",
        "0.04",
    ]);
    let data = format!("data={}", folder.path().display());
    let args = [
        "run",
        &pipeline("demo"),
        "--set",
        &data,
        "--set",
        "steps.unet.train.epochs=14",
        "--progress",
        "none",
    ];
    let first = run(&args);
    assert!(dice(&first) > 0.2, "it learned nothing: {first}");
    check_report(&folder.path().join("report.html"));
    let again = run(&args);
    assert!(again.contains("is trained already"), "{again}");
    assert!((dice(&again) - dice(&first)).abs() < 1e-9);
    let catalog = folder.path().join("catalog");
    let ask = |query: &str| {
        run(&["sql", query, "--catalog", catalog.to_str().unwrap(), "--format", "csv"])
            .lines()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    let model = ask("SELECT model_id FROM models");
    let tree = run(&["lineage", &model, "--catalog", catalog.to_str().unwrap()]);
    assert!(
        tree.contains("trained on") && tree.contains("sub-") && tree.contains("blake3"),
        "{tree}"
    );
    assert_eq!(ask("SELECT count(*) - count(dice) FROM scored"), "0");
}

#[test]
fn a_real_case_trained_on_itself_is_found_again_in_its_own_grid() {
    let Some(data) = std::env::var_os("TORCULA_REAL_DATA").map(PathBuf::from) else {
        println!("skipped: TORCULA_REAL_DATA is not set");
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let text = run(&[
        "run",
        &pipeline("isles22"),
        "--set",
        &format!("data={}", data.join("isles22").display()),
        "--set",
        &format!("work={}", work.path().display()),
        "--set",
        "overfit=true",
        "--progress",
        "none",
    ]);
    assert!(dice(&text) >= 0.9, "{text}");
    check_report(&work.path().join("report.html"));
    let page = std::fs::read_to_string(work.path().join("report.html")).unwrap();
    assert!(
        page.contains("overfit"),
        "the report must say that it was tested on its training case"
    );
}
