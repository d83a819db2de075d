//! Skull strip and normalisation: `blur`, `otsu`, `skull_strip`, `normalize`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use torcula::imaging::gaussian;
use torcula::imaging::normalize::{self, Scope};
use torcula::stages::skull_strip::SkullStrip;

use crate::common;

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

fn skull_strip(folder: &Path, repeats: usize) -> Value {
    let p: SkullStrip = common::parameters(folder);
    let image = common::image(folder, "image");
    let ((threshold, brain, stripped), time) = common::measure_from(
        repeats,
        || image.clone(),
        |mut image| {
            let (threshold, brain) = p.strip(&mut image).unwrap();
            (threshold, brain, image)
        },
    );
    common::write_image(folder, "out", &stripped);
    common::write_mask(folder, "out_mask", &brain);
    common::write_numbers(folder, &json!({ "threshold": threshold }));
    time
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
