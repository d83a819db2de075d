//! Memory hardly grows with the number of cases. The cases are tiny, so that what does grow stands out: plans over catalog rows and
//! files (107 MB for 200 and 120 MB for 2,000 cases; with cases of the default size 151 and 161 MB), never voxels.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::{Registry, TORCULA};

/// Peak resident memory of a run in KiB, and whether it succeeded.
fn peak_kib(registry: &Registry) -> u64 {
    let mut child = Command::new(TORCULA)
        .args(registry.run_args(&["--jobs", "2", "--memory", "64MiB"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with("VmHWM:"));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(code.success());
    peak
}

#[test]
fn two_thousand_cases_need_no_more_than_two_hundred() {
    let (small, large) = (Registry::synth(200, &[]), Registry::synth(2000, &[]));
    let (few, many) = (peak_kib(&small), peak_kib(&large));
    println!("peak RSS: {few} KiB for 200 cases, {many} KiB for 2000");
    assert!(many as f64 <= few as f64 * 1.1, "{few} KiB for 200 cases, {many} KiB for 2000");
}
