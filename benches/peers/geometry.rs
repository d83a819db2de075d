//! Masks: `label`, `distance`, `overlap`, `hausdorff`, `lesions` and `score`, of `mask.nii` and `predicted.nii`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use torcula::imaging::components::{self, Connectivity};
use torcula::imaging::{distance, metrics};
use torcula::volume::Volume;

use crate::common;

#[derive(Deserialize)]
struct Labelling {
    connectivity: Connectivity,
}

pub fn run(kernel: &str, folder: &Path, repeats: usize) -> Option<Value> {
    if !["label", "distance", "overlap", "hausdorff", "lesions", "score"].contains(&kernel) {
        return None;
    }
    let truth = common::mask(folder, "mask");
    if kernel == "label" {
        let Labelling { connectivity } = common::parameters(folder);
        let (found, time) = common::measure(repeats, || components::label(&truth, connectivity));
        let labels = Volume { data: found.data.mapv(|v| v as f32), affine: truth.affine };
        common::write_image(folder, "out", &labels);
        common::write_numbers(folder, &json!({ "count": found.count, "sizes": found.sizes }));
        return Some(time);
    }
    if kernel == "distance" {
        let (squared, time) = common::measure(repeats, || distance::squared_edt_mm(&truth));
        let mm = Volume { data: squared.mapv(f32::sqrt), affine: truth.affine };
        common::write_image(folder, "out", &mm);
        return Some(time);
    }
    let predicted = common::mask(folder, "predicted");
    let (numbers, time) = match kernel {
        "overlap" => {
            let (found, time) =
                common::measure(repeats, || metrics::overlap(&truth, &predicted).unwrap());
            let (sensitivity, precision) = (found.sensitivity(), found.precision());
            (
                json!({ "dice": found.dice(), "sensitivity": sensitivity, "precision": precision }),
                time,
            )
        }
        "hausdorff" => {
            let (found, time) = common::measure(repeats, || {
                metrics::surface_distances(&truth, &predicted).unwrap()
            });
            let (hd95, assd) = (found.map(|d| d.hd95_mm), found.map(|d| d.assd_mm));
            (json!({ "hd95_mm": hd95, "assd_mm": assd }), time)
        }
        "lesions" => {
            let ml = truth.grid().voxel_volume_mm3() / 1000.0;
            common::measure(repeats, || {
                let lesions = metrics::lesions(&truth, &predicted).unwrap();
                let voxels = lesions.truth_voxels.abs_diff(lesions.predicted_voxels);
                json!({
                    "lesion_f1": lesions.f1(),
                    "lesion_count_difference": lesions.count_difference(),
                    "absolute_volume_difference_ml": voxels as f64 * ml,
                })
            })
        }
        _ => {
            let (found, time) =
                common::measure(repeats, || metrics::score(&truth, &predicted).unwrap());
            (json!(found), time)
        }
    };
    common::write_numbers(folder, &numbers);
    Some(time)
}
