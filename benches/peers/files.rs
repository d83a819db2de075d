//! Files: `read_gz` decodes `packed.nii.gz`; `write_gz` and `write_gz_i16` write `image.nii` to `written.nii.gz`.

use std::path::Path;

use serde_json::{Value, json};
use torcula::formats::nifti::{self, WriteOptions};

use crate::common;

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    let (packed, written) = (folder.join("packed.nii.gz"), folder.join("written.nii.gz"));
    let options = WriteOptions::default();
    match kernel {
        "read_gz" => {
            let (found, time) =
                common::measure(repeats, || nifti::read_image(&packed, 0).unwrap().0);
            common::write_image(folder, "out", &found);
            Some(time)
        }
        "write_gz" | "write_gz_i16" => {
            let image = common::image(folder, "image");
            let (found, mut time) = common::measure(repeats, || {
                let write =
                    if kernel == "write_gz" { nifti::write_image } else { nifti::write_image_i16 };
                write(&written, &image, &options).unwrap()
            });
            time["bytes"] = json!(found.bytes);
            Some(time)
        }
        _ => None,
    }
}
