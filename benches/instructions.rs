//! A kernel, run as often as asked: `instructions KERNEL TIMES`. `instructions.py` counts what it executes.
//!
//! Without arguments the names of the kernels are printed.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may panic")]

use std::hint::black_box;
use std::path::Path;

use torcula::formats::nifti::{self, WriteOptions};
use torcula::imaging::augment::{AffineSlices, BiasField, Flip, Gamma, Plan};
use torcula::imaging::components::{self, Connectivity};
use torcula::imaging::quality::{Options, measure};
use torcula::imaging::random::keyed;
use torcula::imaging::resample::{Interpolation, resample_image, target_grid};
use torcula::imaging::{metrics, n4, normalize};
use torcula::stages::skull_strip::SkullStrip;
use torcula::volume::{Affine, Grid, Image, Mask};

/// Wavy tissue in an ellipsoid in noise from an integer hash, and the ellipsoid.
fn head() -> (Image, Mask) {
    let shape = [128, 128, 30];
    let grid = Grid { shape, affine: Affine::from_spacing_mm([2.0, 2.0, 4.0]) };
    let (mut image, mut mask) = (Image::filled(&grid, 0.0), Mask::filled(&grid, 0));
    for ((z, y, x), v) in image.data.indexed_iter_mut() {
        let [x, y, z] = [(x, 0), (y, 1), (z, 2)]
            .map(|(i, a): (usize, usize)| 2.0 * i as f32 / (shape[a] as f32 - 1.0) - 1.0);
        *v = if (x / 0.7).powi(2) + (y / 0.85).powi(2) + (z / 1.2).powi(2) < 1.0 {
            300.0 + 60.0 * (9.0 * x).sin() * (7.0 * y).cos() + 40.0 * x
        } else {
            8.0
        };
    }
    for (i, (v, m)) in image.voxels_mut().iter_mut().zip(mask.voxels_mut()).enumerate() {
        let hash = (i as u64 * 2_654_435_761) as u32;
        *m = u8::from(*v > 100.0);
        *v = (*v + (hash >> 8) as f32 / 8e5).round();
    }
    (image, mask)
}

/// Balls on a lattice: some lesions.
fn lesions(grid: &Grid, shift: usize) -> Mask {
    let mut mask = Mask::filled(grid, 0);
    for ((z, y, x), v) in mask.data.indexed_iter_mut() {
        let d = [x + shift, y, 2 * z].map(|i| (i % 44) as f64 - 22.0);
        *v = u8::from(d.iter().map(|v| v * v).sum::<f64>() < 60.0);
    }
    mask
}

fn n4(image: &Image, mask: &Mask, iterations: &[usize], shrink: usize) {
    let iterations = iterations.to_vec();
    let parameters = n4::Parameters { iterations, shrink, convergence: 0.0, ..Default::default() };
    black_box(n4::correct(image, mask, None, &parameters, &|| false).unwrap());
}

fn augment(image: &Image, mask: &Mask) {
    let plan = Plan {
        affine_slices: Some(AffineSlices { probability: 1.0, ..Default::default() }),
        bias_field: Some(BiasField { probability: 1.0, ..Default::default() }),
        flip: Some(Flip { probability: 1.0, ..Default::default() }),
        gamma: Some(Gamma { probability: 1.0, ..Default::default() }),
    };
    let draw = plan.draw(&mut keyed(1, &["instructions"]), &image.grid());
    draw.apply(&mut image.clone(), Some(&mut mask.clone())).unwrap();
}

fn resample(image: &Image, interpolation: Interpolation) {
    let grid = target_grid(&image.grid(), Some([2.5, 2.5, 5.0]), Some([96, 96, 24])).unwrap();
    black_box(resample_image(image, &grid, interpolation, 0.0).unwrap());
}

/// A kernel: image, mask, the file of the image as `.nii.gz`, and a place for another.
type Kernel = fn(&Image, &Mask, &Path, &Path);

const KERNELS: &[(&str, Kernel)] = &[
    ("n4 [10], full resolution", |i, m, _, _| n4(i, m, &[10], 1)),
    ("n4 [10, 10, 10, 10], shrink 4", |i, m, _, _| n4(i, m, &[10; 4], 4)),
    ("skull strip, largest component, holes filled", |i, _, _, _| {
        let strip =
            SkullStrip { largest_component: true, fill_holes: true, ..SkullStrip::default() };
        black_box(strip.strip(&mut i.clone()).unwrap());
    }),
    ("normalise", |i, m, _, _| {
        let scope = normalize::Scope::Volume;
        normalize::normalize(&mut i.clone(), Some(m), 150.0, 255.0, scope).unwrap();
    }),
    ("resample, linear", |i, _, _, _| resample(i, Interpolation::Linear)),
    ("resample, cubic", |i, _, _, _| resample(i, Interpolation::Cubic)),
    ("connected components, 26", |i, _, _, _| {
        black_box(components::label(&lesions(&i.grid(), 0), Connectivity::TwentySix));
    }),
    ("score", |i, _, _, _| {
        let grid = i.grid();
        black_box(metrics::score(&lesions(&grid, 0), &lesions(&grid, 3)).unwrap());
    }),
    ("augment, all four", |i, m, _, _| augment(i, m)),
    ("quality", |i, _, _, _| {
        black_box(measure(i, None, &Options::default()).unwrap());
    }),
    ("read .nii.gz, int16", |_, _, packed, _| {
        black_box(nifti::read_image(packed, 0).unwrap());
    }),
    ("write .nii.gz, int16", |i, _, _, out| {
        nifti::write_image_i16(out, i, &WriteOptions::default()).unwrap();
    }),
    ("write .nii.gz, float32", |i, _, _, out| {
        nifti::write_image(out, i, &WriteOptions::default()).unwrap();
    }),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(kernel) = KERNELS.iter().find(|k| arguments.get(1).is_some_and(|a| a == k.0)) else {
        for kernel in KERNELS {
            println!("{}", kernel.0);
        }
        return;
    };
    let times: usize = arguments[2].parse().unwrap();
    let (image, mask) = head();
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("image.nii.gz");
    nifti::write_image_i16(&packed, &image, &WriteOptions::default()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for _ in 0..times {
            kernel.1(black_box(&image), &mask, &packed, &folder.path().join("out.nii.gz"));
        }
    });
}
