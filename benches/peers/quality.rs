//! Quality metrics: `quality`, all of them on one image.

use std::path::Path;

use serde_json::{Value, json};
use torcula::imaging::quality;

use crate::common;

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    if kernel != "quality" {
        return None;
    }
    let (image, mask) = (common::image(folder, "image"), common::mask_if_any(folder, "mask"));
    let options = common::parameters(folder);
    let (found, time) =
        common::measure(repeats, || quality::measure(&image, mask.as_ref(), &options).unwrap());
    common::write_numbers(folder, &json!(found));
    Some(time)
}
