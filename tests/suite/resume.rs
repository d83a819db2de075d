//! The same command again continues where it stopped and does nothing twice.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::{Registry, TORCULA, text, tree};

fn steps(expected: &[(&str, [u64; 3])]) -> BTreeMap<String, [u64; 3]> {
    expected.iter().map(|(name, counts)| ((*name).to_owned(), *counts)).collect()
}

#[test]
fn an_unchanged_pipeline_does_nothing_and_a_change_only_what_depends_on_it() {
    let registry = Registry::synth(10, &[]);
    let first = registry.counts(&[]);
    let all = |n| steps(&[("registry", n), ("prepared", n), ("split", n), ("shards", n)]);
    assert_eq!(first, all([10, 0, 0]));
    assert_eq!(registry.counts(&[]), all([0, 10, 0]), "nothing changed");

    // A touched file is the same file.
    let image = registry.image(0);
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes).unwrap();
    assert_eq!(registry.counts(&[]), all([0, 10, 0]), "only a time of change moved");

    // Another parameter: its stage and those after it, for all cases.
    let changed = registry.counts(&["--set", "blur_mm=3"]);
    assert_eq!(changed["registry"], [0, 10, 0]);
    assert_eq!(changed["prepared"], [10, 0, 0]);
    assert_eq!(changed["shards"], [10, 0, 0]);
    // And back: it is all there still.
    assert_eq!(registry.counts(&[])["prepared"], [0, 10, 0]);

    // Other bytes of one case: that case.
    let mut voxels = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut voxels).unwrap();
    let last = voxels.len() - 1;
    voxels[last] ^= 1;
    let file = std::fs::File::create(&image).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    zipped.write_all(&voxels).unwrap();
    zipped.finish().unwrap();
    let changed = registry.counts(&[]);
    assert_eq!(changed["registry"], [1, 9, 0]);
    assert_eq!(changed["prepared"], [1, 9, 0]);
}

#[test]
fn killed_five_times_the_result_is_the_same() {
    let undisturbed = Registry::synth(60, &["--broken", "0.1"]);
    undisturbed.run(&[]);
    let killed = Registry::synth(60, &["--broken", "0.1"]);
    let mut kills = 0;
    for wait_ms in [250, 450, 700, 900, 1200, 1500, 2000] {
        let mut child = Command::new(TORCULA)
            .args(killed.run_args(&[]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        if child.try_wait().unwrap().is_none() {
            kills += 1;
        }
        drop(child.kill());
        child.wait().unwrap();
    }
    assert!(kills > 0, "the run was never caught at work");
    let output = killed.run(&[]);
    assert!(output.status.success(), "{}", text(&output));
    let finished = |r: &Registry| {
        let mut files = tree(&r.path().join("derivatives"));
        files.retain(|name, _| !name.contains(".tmp"));
        files
    };
    assert_eq!(finished(&killed), finished(&undisturbed));
    for table in ["cases", "quality", "splits", "artifacts", "failures"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(killed.sql(&count), undisturbed.sql(&count), "rows of {table}");
    }
    let rows = "SELECT case_id, step, stage, reason FROM failures ORDER BY case_id";
    let neutral = |r: &Registry| r.sql(rows).replace(&*r.path().to_string_lossy(), "");
    assert_eq!(neutral(&killed), neutral(&undisturbed));
}

#[test]
fn stopped_politely_it_commits_and_says_how_to_go_on() {
    let registry = Registry::synth(150, &[]);
    let child = Command::new(TORCULA)
        .args(registry.run_args(&["--jobs", "1"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return; // It was done before the signal came.
    }
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("the same command again"), "{}", text(&output));
    let [done, unchanged, _] = registry.counts(&[])["shards"];
    assert_eq!(done + unchanged, 150);
    assert_eq!(registry.sql("SELECT count(*) FROM runs WHERE status = 'stopped'"), "1");
}

#[test]
fn two_runs_do_not_share_a_catalog() {
    let registry = Registry::synth(300, &[]);
    let mut first = Command::new(TORCULA)
        .args(registry.run_args(&["--jobs", "1"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = first.id().to_string();
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status().unwrap().success();
    let lock = registry.path().join("catalog/.torcula.lock");
    // The holder's note is written once the lock is held. Stopped, the first run keeps it for as long as the second waits.
    while std::fs::metadata(&lock).map_or(0, |found| found.len()) == 0 {
        assert!(first.try_wait().unwrap().is_none(), "the first run ended before it took the lock");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(signal("-STOP"));
    let second = registry.run(&[]);
    assert!(signal("-CONT"));
    assert!(first.wait().unwrap().success());
    let refused = text(&second);
    assert_eq!(second.status.code(), Some(1), "{refused}");
    assert!(refused.contains("is being written by"), "{refused}");
    assert!(refused.contains(&format!("process {pid}")), "{refused}");
}
