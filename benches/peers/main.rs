//! Our side of the comparison with the field's reference tools: `peers KERNEL FOLDER REPEATS`.
//!
//! `run.py` writes a folder (`image.nii`, further inputs, `parameters.json`), calls this program on it, and compares what it
//! leaves there (`out*.nii`, `out.json`) with what the reference makes of the same files. A kernel runs once for its output and
//! then REPEATS times; the least CPU time of one thread goes to standard output, as one line of JSON.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may panic")]

mod augment;
mod common;
mod feed;
mod files;
mod geometry;
mod n4;
mod quality;
mod resample;
mod smoothing;
mod stats;

use std::path::Path;

use serde_json::Value;

/// Runs a kernel of a group on a folder; nothing where the group has no kernel of this name.
type Group = fn(kernel: &str, folder: &Path, repeats: usize) -> Option<Value>;

const GROUPS: &[Group] = &[
    common::run,
    n4::run,
    smoothing::run,
    resample::run,
    quality::run,
    geometry::run,
    augment::run,
    files::run,
    feed::run,
    stats::run,
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kernel, folder, repeats] = &arguments[..] else {
        println!("usage: peers KERNEL FOLDER REPEATS; benches/peers/run.py calls it");
        return;
    };
    let repeats = repeats.parse().unwrap();
    // The pool's only thread is the one whose time is taken, so what kernels share out among threads is counted too.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let found = pool.install(|| GROUPS.iter().find_map(|g| g(kernel, Path::new(folder), repeats)));
    println!("{}", found.unwrap_or_else(|| panic!("no group has a kernel {kernel}")));
}
