//! Resampling: `resample`, with the grid to go to as `to.nii`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use torcula::imaging::resample::{Interpolation, resample_image, resample_mask};

use crate::common;

#[derive(Deserialize)]
struct Resample {
    interpolation: Interpolation,
    #[serde(default)]
    fill: f32,
}

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    if kernel != "resample" {
        return None;
    }
    let p: Resample = common::parameters(folder);
    let image = common::image(folder, "image");
    let to = common::image(folder, "to").grid();
    let (found, time) =
        common::measure(repeats, || resample_image(&image, &to, p.interpolation, p.fill).unwrap());
    common::write_image(folder, "out", &found);
    if let Some(mask) = common::mask_if_any(folder, "mask") {
        common::write_mask(folder, "out_mask", &resample_mask(&mask, &to).unwrap());
    }
    Some(time)
}
