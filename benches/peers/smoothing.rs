//! Skull strip and normalisation: `blur`, `otsu`, `skull_strip`, `normalize`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use torcula::imaging::components::{self, Connectivity};
use torcula::imaging::normalize::{self, Scope};
use torcula::imaging::otsu::{self, Convention};
use torcula::imaging::{gaussian, morphology};
use torcula::volume::{Image, Mask};

use crate::common;

#[derive(Deserialize)]
struct SkullStrip {
    blur_mm: f64,
    bins: usize,
    convention: Convention,
    largest_component: bool,
    fill_holes: bool,
}

#[derive(Deserialize)]
struct Normalize {
    peak: f32,
    clip: f32,
    scope: Scope,
}

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    match kernel {
        "blur" => Some(blur(folder, repeats)),
        "skull_strip" => Some(skull_strip(folder, repeats)),
        "normalize" => Some(normalize(folder, repeats)),
        _ => None,
    }
}

fn blur(folder: &Path, repeats: usize) -> Value {
    let p: SkullStrip = common::parameters(folder);
    let image = common::image(folder, "image");
    let (blurred, time) = common::measure(repeats, || gaussian::blur(&image, p.blur_mm));
    common::write_image(folder, "out", &blurred);
    time
}

/// What the stage of this name does.
fn skull_strip(folder: &Path, repeats: usize) -> Value {
    let p: SkullStrip = common::parameters(folder);
    let image = common::image(folder, "image");
    let ((threshold, brain, stripped), time) =
        common::measure_from(repeats, || image.clone(), |image| strip(image, &p));
    common::write_image(folder, "out", &stripped);
    common::write_mask(folder, "out_mask", &brain);
    common::write_numbers(folder, &json!({ "threshold": threshold }));
    time
}

fn strip(mut image: Image, p: &SkullStrip) -> (f32, Mask, Image) {
    let blurred = gaussian::blur(&image, p.blur_mm);
    let threshold = otsu::threshold(blurred.voxels(), p.bins, p.convention).unwrap();
    let mut brain =
        Mask { data: blurred.data.mapv(|v| u8::from(v > threshold)), affine: image.affine };
    drop(blurred);
    if p.largest_component {
        brain = components::largest(&brain, Connectivity::TwentySix);
    }
    if p.fill_holes {
        brain = morphology::fill_holes(&brain);
    }
    for (v, m) in image.voxels_mut().iter_mut().zip(brain.voxels()) {
        *v = if *m == 0 { 0.0 } else { *v };
    }
    (threshold, brain, image)
}

fn normalize(folder: &Path, repeats: usize) -> Value {
    let p: Normalize = common::parameters(folder);
    let (image, mask) = (common::image(folder, "image"), common::mask_if_any(folder, "mask"));
    let ((normalized, found), time) = common::measure_from(
        repeats,
        || image.clone(),
        |mut image| {
            let found =
                normalize::normalize(&mut image, mask.as_ref(), p.peak, p.clip, p.scope).unwrap();
            (image, found)
        },
    );
    common::write_image(folder, "out", &normalized);
    common::write_numbers(folder, &json!(found));
    time
}
