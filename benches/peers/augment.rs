//! Augmentation: `augment`, with the record of what was drawn as parameters, of `image.nii` and, where there is one, `mask.nii`.

use std::path::Path;

use serde_json::Value;
use torcula::imaging::augment::Draw;

use crate::common;

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    if kernel != "augment" {
        return None;
    }
    let draw: Draw = common::parameters(folder);
    let (image, mask) = (common::image(folder, "image"), common::mask_if_any(folder, "mask"));
    let ((image, mask), time) = common::measure_from(
        repeats,
        || (image.clone(), mask.clone()),
        |(mut image, mut mask)| {
            draw.apply(&mut image, mask.as_mut()).unwrap();
            (image, mask)
        },
    );
    common::write_image(folder, "out", &image);
    if let Some(mask) = mask {
        common::write_mask(folder, "out_mask", &mask);
    }
    Some(time)
}
