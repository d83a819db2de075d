//! The layers point down only: a module names no module above it.

use std::path::Path;

use super::support::files;

/// From the bottom up.
const LAYERS: &[&[&str]] = &[
    &["error", "units"],
    &["volume"],
    &["imaging"],
    &["formats"],
    &["catalog"],
    &["engine"],
    &["watch"],
    &["stages"],
    &["pipeline"],
    &["study"],
    &["report"],
    &["run"],
    &["cli"],
];

fn level(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The names that follow `marker` in a text.
fn named<'a>(text: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(marker).map(move |(at, _)| {
        let rest = &text[at + marker.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn no_module_uses_a_layer_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    let mut seen = 0;
    for path in files(&src) {
        let relative = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        if !relative.ends_with(".rs") || relative.starts_with("training/") {
            continue;
        }
        let module = relative.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = level(module) else {
            assert!(module == "lib" || module == "main", "{relative}: its module is in no layer");
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests may look anywhere.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for used in named(code, "crate::") {
            let Some(used_level) = level(used) else { continue };
            seen += 1;
            if used_level > own {
                upward.push(format!("{relative} uses crate::{used}"));
            }
        }
    }
    assert!(seen > 100, "only {seen} uses found: the test reads nothing");
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn only_the_engine_implements_datafusion_operators() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let operators: Vec<String> = files(&src)
        .into_iter()
        .filter(|p| std::fs::read_to_string(p).is_ok_and(|t| t.contains("impl ExecutionPlan for")))
        .map(|p| p.strip_prefix(&src).unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(operators, ["engine/exec.rs"]);
}

#[test]
fn only_the_training_crate_names_libtorch() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in files(&src) {
        let relative = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let names = text.contains("use tch") || text.contains(" tch::");
        assert!(relative.starts_with("training/") || !names, "{relative}");
    }
}
