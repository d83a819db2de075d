//! Speed of the image kernels on a 256 × 256 × 25 head, one thread.
//!
//! `benches/peers/run.py speed` times such operations beside those of `SimpleITK`, `SciPy` and others.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use torcula::imaging::components::{self, Connectivity};
use torcula::imaging::{gaussian, morphology, n4, normalize, otsu};
use torcula::volume::{Affine, Grid, Image, Mask};

const SHAPE: [usize; 3] = [256, 256, 25];

/// Wavy tissue in an ellipsoid under a smooth field, with noise from an integer hash.
fn head() -> (Image, Mask) {
    let grid = Grid { shape: SHAPE, affine: Affine::from_spacing_mm([1.0, 1.0, 5.0]) };
    let (mut image, mut mask) = (Image::filled(&grid, 0.0), Mask::filled(&grid, 0));
    let axis = |i: usize, n: usize| -1.0 + 2.0 * i as f64 / (n as f64 - 1.0);
    let [nx, ny, nz] = SHAPE;
    for i in 0..grid.voxels() {
        let (x, y, z) = (axis(i % nx, nx), axis(i / nx % ny, ny), axis(i / nx / ny, nz));
        let inside = (x / 0.7).powi(2) + (y / 0.85).powi(2) + (z / 1.2).powi(2) < 1.0;
        let hash = (i as u64 * 2_654_435_761) as u32;
        let hash = (u64::from(hash ^ hash >> 15) * 2_246_822_519) as u32;
        let noise = f64::from(hash ^ hash >> 13) / 2.0_f64.powi(32) - 0.5;
        let tissue = if inside { 300.0 + 60.0 * (9.0 * x).sin() * (7.0 * y).cos() } else { 8.0 };
        let value = tissue * (0.3 * x - 0.2 * y * y).exp() + 20.0 * noise;
        image.voxels_mut()[i] = value.abs() as f32;
        mask.voxels_mut()[i] = u8::from(inside);
    }
    (image, mask)
}

fn bias_field(c: &mut Criterion) {
    let (image, mask) = head();
    let mut group = c.benchmark_group("n4");
    group.sample_size(10);
    let whole = n4::Parameters { shrink: 1, convergence: 0.0, ..n4::Parameters::default() };
    let cases = [
        ("whole_10", n4::Parameters { iterations: vec![10], ..whole.clone() }),
        ("whole_10_10_10_10", whole),
        ("default_shrink_4", n4::Parameters::default()),
    ];
    for (name, parameters) in cases {
        group.bench_function(name, |b| {
            b.iter(|| n4::correct(black_box(&image), &mask, None, &parameters, &|| false).unwrap());
        });
    }
    group.finish();
}

fn masks(c: &mut Criterion) {
    let (image, mask) = head();
    let mut bright = mask.clone();
    for (m, v) in bright.voxels_mut().iter_mut().zip(image.voxels()) {
        *m = u8::from(*v > 250.0);
    }
    let mut group = c.benchmark_group("masks");
    group.sample_size(20);
    group.bench_function("otsu_128", |b| {
        b.iter(|| {
            otsu::threshold(black_box(image.voxels()), 128, otsu::Convention::RightEdge).unwrap()
        });
    });
    group.bench_function("label_26", |b| {
        b.iter(|| components::label(black_box(&bright), Connectivity::TwentySix));
    });
    group.bench_function("largest_26", |b| {
        b.iter(|| components::largest(black_box(&bright), Connectivity::TwentySix));
    });
    group.bench_function("fill_holes", |b| b.iter(|| morphology::fill_holes(black_box(&bright))));
    group.bench_function("fill_holes_in_slices", |b| {
        b.iter(|| morphology::fill_holes_in_slices(black_box(&bright)));
    });
    group.finish();
}

fn intensities(c: &mut Criterion) {
    let (image, mask) = head();
    let mut group = c.benchmark_group("intensities");
    group.sample_size(20);
    group.bench_function("blur_2mm", |b| b.iter(|| gaussian::blur(black_box(&image), 2.0)));
    group.bench_function("blur_5mm", |b| b.iter(|| gaussian::blur(black_box(&image), 5.0)));
    group.bench_function("normalize_volume", |b| {
        b.iter_batched_ref(
            || image.clone(),
            |image| {
                let scope = normalize::Scope::Volume;
                normalize::normalize(image, Some(&mask), 150.0, 255.0, scope).unwrap()
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, bias_field, masks, intensities);
criterion_main!(benches);
