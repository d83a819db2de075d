//! What the groups share: a folder's inputs and outputs, CPU time, and the machine's own limits.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use cpu_time::ThreadTime;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use torcula::formats::nifti::{self, WriteOptions};
use torcula::volume::{Image, Mask};

/// `parameters.json`, or a part of it.
pub fn parameters<T: DeserializeOwned>(folder: &Path) -> T {
    serde_json::from_slice(&std::fs::read(folder.join("parameters.json")).unwrap()).unwrap()
}

/// `NAME.nii` as an image.
pub fn image(folder: &Path, name: &str) -> Image {
    nifti::read_image(&path(folder, name), 0).unwrap().0
}

/// `NAME.nii` as a mask.
pub fn mask(folder: &Path, name: &str) -> Mask {
    nifti::read_mask(&path(folder, name)).unwrap().0
}

/// `NAME.nii` as a mask, where there is one.
pub fn mask_if_any(folder: &Path, name: &str) -> Option<Mask> {
    path(folder, name).exists().then(|| mask(folder, name))
}

/// `NAME.nii` as an image, where there is one.
pub fn image_if_any(folder: &Path, name: &str) -> Option<Image> {
    path(folder, name).exists().then(|| image(folder, name))
}

pub fn write_image(folder: &Path, name: &str, image: &Image) {
    nifti::write_image(&path(folder, name), image, &WriteOptions::default()).unwrap();
}

pub fn write_mask(folder: &Path, name: &str, mask: &Mask) {
    nifti::write_mask(&path(folder, name), mask, &WriteOptions::default()).unwrap();
}

/// `out.json`.
pub fn write_numbers(folder: &Path, numbers: &Value) {
    std::fs::write(folder.join("out.json"), numbers.to_string()).unwrap();
}

fn path(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.nii"))
}

/// Runs `work` once for what it gives, then `repeats` times: the least CPU time of this thread in ms.
pub fn measure<T>(repeats: usize, mut work: impl FnMut() -> T) -> (T, Value) {
    measure_from(repeats, || (), |()| work())
}

/// [`measure`] of work that uses up what `prepare` makes, whose time does not count.
pub fn measure_from<S, T>(
    repeats: usize,
    mut prepare: impl FnMut() -> S,
    mut work: impl FnMut(S) -> T,
) -> (T, Value) {
    let output = work(prepare());
    let mut least = None::<Duration>;
    for _ in 0..repeats {
        let input = prepare();
        let start = ThreadTime::now();
        let found = black_box(work(black_box(input)));
        let took = start.elapsed();
        drop(found);
        least = Some(least.map_or(took, |l| l.min(took)));
    }
    (output, json!({ "cpu_ms": least.map(|l| l.as_secs_f64() * 1e3) }))
}

/// The kernel `machine`: what one core of this machine can do, which no kernel can beat.
pub fn run(kernel: &str, _: &Path, repeats: usize) -> Option<Value> {
    const FLOATS: usize = 16 << 20;
    if kernel != "machine" {
        return None;
    }
    let from = vec![1.0_f32; FLOATS];
    let mut to = vec![0.0_f32; FLOATS];
    let copy = measure(repeats, || black_box(&mut to).copy_from_slice(black_box(&from))).1;
    let rounds = 1 << 22;
    let sums = measure(repeats, || multiply_add(black_box(rounds))).1;
    let ms = |v: &Value| v["cpu_ms"].as_f64().unwrap();
    Some(json!({
        // Read and written, without the line that a plain store reads first.
        "bytes_per_ms": 8.0 * FLOATS as f64 / ms(&copy),
        "operations_per_ms": (2 * LANES * rounds) as f64 / ms(&sums),
    }))
}

/// Independent sums, as many as hide the latency of eight vector registers.
const LANES: usize = 128;

#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn multiply_add(rounds: usize) -> f32 {
    let mut sums = [1.0_f32; LANES];
    let factor = black_box(0.999_f32);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * factor + 0.5;
        }
    }
    sums.iter().sum()
}
