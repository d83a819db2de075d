//! N4: `n4`, with the parameters of `torcula::imaging::n4`.

use std::path::Path;

use serde_json::{Value, json};
use torcula::imaging::n4;

use crate::common;

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    if kernel != "n4" {
        return None;
    }
    let parameters: n4::Parameters = common::parameters(folder);
    let (image, mask) = (common::image(folder, "image"), common::mask(folder, "mask"));
    let weights = common::image_if_any(folder, "weights");
    let (found, time) = common::measure(repeats, || {
        n4::correct(&image, &mask, weights.as_ref(), &parameters, &|| false).unwrap()
    });
    common::write_image(folder, "out", &found.image);
    common::write_image(folder, "out_field", &found.log_field);
    common::write_numbers(
        folder,
        &json!({ "iterations": found.iterations, "warnings": found.warnings }),
    );
    Some(time)
}
