//! Resampling, distances, scores, augmentation and quality measures at the sizes of real cases.
//!
//! `cargo bench --bench geometry`; beside the reference tools: `benches/peers/run.py speed`. On a busy machine set
//! `RAYON_NUM_THREADS=1`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use torcula::imaging::augment::{AffineSlices, BiasField, Draw, Flip, FlipDraw, Gamma, Plan};
use torcula::imaging::distance::squared_edt_mm;
use torcula::imaging::metrics::score;
use torcula::imaging::quality::{Options, measure};
use torcula::imaging::random::keyed;
use torcula::imaging::resample::{Interpolation, resample_image, resample_mask, target_grid};
use torcula::volume::{Affine, Grid, Image, Mask, Volume};

/// Waves on a ball of radius 0.8 of the volume, so that there is a head and air.
fn image(grid: &Grid) -> Image {
    let mut image = Volume::filled(grid, 0.0_f32);
    let half = grid.shape.map(|n| 0.5 * n as f64);
    for ((z, y, x), v) in image.data.indexed_iter_mut() {
        let r = [(x, half[0]), (y, half[1]), (z, half[2])].map(|(i, h)| (i as f64 - h) / h);
        let wave = (x as f64 * 0.7).sin() * (y as f64 * 0.4).cos() * (z as f64 * 0.9).sin();
        let inside = r.iter().map(|v| v * v).sum::<f64>() < 0.64;
        *v = (if inside { 500.0 + 100.0 * wave } else { 10.0 + 5.0 * wave }) as f32;
    }
    image
}

/// Balls of 3 to 9 voxels on a lattice: about 40 lesions.
fn lesions(grid: &Grid, shift: usize) -> Mask {
    let mut mask = Volume::filled(grid, 0_u8);
    for ((z, y, x), v) in mask.data.indexed_iter_mut() {
        let d = [x + shift, y, z].map(|i| (i % 44) as f64 - 22.0);
        let radius = 3.0 + ((x + shift) / 44 + y / 44 + z / 44) as f64 % 7.0;
        *v = u8::from(d.iter().map(|v| v * v).sum::<f64>() <= radius * radius);
    }
    mask
}

fn clinical() -> Grid {
    Grid { shape: [256, 256, 30], affine: Affine::from_spacing_mm([0.9, 0.9, 5.0]) }
}

fn template() -> Grid {
    Grid { shape: [157, 189, 136], affine: Affine::from_spacing_mm([1.0; 3]) }
}

fn resampling(c: &mut Criterion) {
    let source = image(&clinical());
    let spacing = Some([2.0, 2.0, 5.0]);
    let Ok(aligned) = target_grid(&clinical(), spacing, Some([96, 96, 24])) else { return };
    let (sin, cos) = 0.2_f64.sin_cos();
    let turn = Affine([[cos, -sin, 0.0, 3.0], [sin, cos, 0.0, -9.0], [0.0, 0.0, 1.0, 1.0]]);
    let oblique = Grid { affine: turn.compose(&aligned.affine), ..aligned };
    let mask = lesions(&clinical(), 0);
    let mut group = c.benchmark_group("resample 256x256x30 to 96x96x24");
    group.bench_function("linear, aligned", |b| {
        b.iter(|| resample_image(black_box(&source), &aligned, Interpolation::Linear, 0.0));
    });
    group.bench_function("linear, oblique", |b| {
        b.iter(|| resample_image(black_box(&source), &oblique, Interpolation::Linear, 0.0));
    });
    group.bench_function("mask, aligned", |b| {
        b.iter(|| resample_mask(black_box(&mask), &aligned));
    });
    group.finish();
}

fn scoring(c: &mut Criterion) {
    let (truth, predicted) = (lesions(&template(), 0), lesions(&template(), 3));
    let mut group = c.benchmark_group("157x189x136");
    group.bench_function("squared_edt_mm", |b| b.iter(|| squared_edt_mm(black_box(&truth))));
    group.bench_function("score", |b| b.iter(|| score(black_box(&truth), &predicted)));
    group.finish();
}

fn augmentation(c: &mut Criterion) {
    let grid = Grid { shape: [96, 96, 24], affine: Affine::from_spacing_mm([2.0, 2.0, 5.0]) };
    let (sample, mask) = (image(&grid), lesions(&grid, 0));
    let mut rng = keyed(1, &["bench"]);
    let draws = [
        Draw {
            affine_slices: Some(AffineSlices::default().draw(&mut rng, &grid)),
            ..Draw::default()
        },
        Draw { bias_field: Some(BiasField::default().draw(&mut rng)), ..Draw::default() },
        Draw { flip: Some(FlipDraw { voxel_axes: [true, false, false] }), ..Draw::default() },
        Draw { gamma: Some(Gamma::default().draw(&mut rng)), ..Draw::default() },
    ];
    let always = Plan {
        affine_slices: Some(AffineSlices { probability: 1.0, ..Default::default() }),
        bias_field: Some(BiasField { probability: 1.0, ..Default::default() }),
        flip: Some(Flip { probability: 1.0, ..Default::default() }),
        gamma: Some(Gamma { probability: 1.0, ..Default::default() }),
    };
    let all = always.draw(&mut rng, &grid);
    let mut group = c.benchmark_group("augment 96x96x24");
    let names = ["affine_slices", "bias_field", "flip", "gamma", "all"];
    for (name, draw) in names.into_iter().zip(draws.iter().chain([&all])) {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (sample.clone(), mask.clone()),
                |(sample, mask)| draw.apply(sample, Some(mask)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn quality(c: &mut Criterion) {
    let grid = Grid { shape: [128, 128, 30], affine: Affine::from_spacing_mm([1.8, 1.8, 5.0]) };
    let image = image(&grid);
    c.bench_function("quality 128x128x30", |b| {
        b.iter(|| measure(black_box(&image), None, &Options::default()));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = resampling, scoring, augmentation, quality
}
criterion_main!(benches);
