//! Every stage on images that hold next to nothing: a reason, or numbers, never what is no number.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};

use super::StageSpec;
use super::score::Score;
use crate::engine::{Case, CaseInput, CaseStop, Context, Slot, Stage};
use crate::volume::{Affine, Grid, Image, Mask};

fn wave(shape: [usize; 3]) -> Image {
    let grid = Grid { shape, affine: Affine::from_spacing_mm([2.0, 2.0, 5.0]) };
    let mut image = Image::filled(&grid, 0.0);
    for ((z, y, x), v) in image.data.indexed_iter_mut() {
        *v = 100.0 + ((x * 7 + y * 13 + z * 29) % 31) as f32;
    }
    image
}

fn spaced(spacing_mm: [f64; 3]) -> Image {
    Image { affine: Affine::from_spacing_mm(spacing_mm), ..wave([12, 10, 4]) }
}

fn images() -> Vec<(&'static str, Image)> {
    let usual = wave([12, 10, 4]);
    let with = |value: f32| Image { data: usual.data.mapv(|_| value), affine: usual.affine };
    let mut spike = with(0.0);
    spike.data[[2, 5, 6]] = 1000.0;
    let mut negative = usual.clone();
    negative.data.mapv_inplace(|v| -v);
    vec![
        ("all zero", with(0.0)),
        ("constant", with(7.0)),
        ("huge numbers", with(1e30)),
        ("a single bright voxel", spike),
        ("negative", negative),
        ("one slice", wave([12, 10, 1])),
        ("two slices", wave([12, 10, 2])),
        ("one row", wave([12, 1, 1])),
        ("one voxel", wave([1, 1, 1])),
        ("a column along z", wave([1, 1, 9])),
        ("spacing 0", spaced([0.0, 2.0, 5.0])),
        ("spacing NaN", spaced([2.0, f64::NAN, 5.0])),
        ("spacing infinite", spaced([2.0, 2.0, f64::INFINITY])),
        ("tiny spacing", spaced([1e-30, 1e-30, 1e-30])),
    ]
}

fn masks(image: &Image) -> Vec<(&'static str, Mask)> {
    let empty = Mask::filled(&image.grid(), 0);
    let mut one = empty.clone();
    one.voxels_mut()[0] = 1;
    let mut middle = empty.clone();
    let voxels = middle.voxels().len();
    middle.voxels_mut()[voxels / 2] = 1;
    vec![
        ("an empty mask", empty),
        ("a mask of the first voxel", one),
        ("a mask of one voxel", middle),
        ("a full mask", Mask::filled(&image.grid(), 1)),
    ]
}

fn stages() -> Vec<(&'static str, Value)> {
    vec![
        ("qc", Value::Null),
        ("skull_strip", Value::Null),
        ("skull_strip", json!({"blur_mm": 50.0, "largest_component": true, "fill_holes": true})),
        ("n4", Value::Null),
        ("n4", json!({"iterations": [10], "shrink": 1})),
        ("n4", json!({"iterations": [3, 3], "shrink": 16})),
        ("n4", json!({"iterations": [2], "spline_distance_mm": 10.0})),
        ("normalize", Value::Null),
        ("normalize", json!({"scope": "slice"})),
        ("resample", json!({"shape": [5, 5, 5]})),
        (
            "resample",
            json!({"spacing_mm": [1.5, 1.5, 4.0], "shape": [9, 9, 3], "interpolation": "cubic"}),
        ),
        (
            "augment",
            json!({
                "affine_slices": {"probability": 1.0, "translation_mm": 5.0}, "bias_field": {"probability": 1.0},
                "flip": {"probability": 1.0}, "gamma": {"probability": 1.0},
            }),
        ),
    ]
}

/// Runs a stage; what it leaves is finite, what it says has a reason.
fn judge(what: &str, stage: &dyn Stage, image: &Image, mask: &Mask) {
    let mut case = Case::new(CaseInput { case_id: "a".to_owned(), ..CaseInput::default() });
    case.image = Some(image.clone());
    case.brain = Some(mask.clone());
    case.truth = Some(mask.clone());
    case.prediction = Some(mask.clone());
    match stage.run(&mut case, &Context::new(1, CaseStop::default())) {
        Err(error) => assert!(error.to_string().len() > 10, "{what}: {error}"),
        Ok(()) => {
            let volumes = [&case.image, &case.field].into_iter().flatten();
            for volume in volumes {
                let odd = volume.voxels().iter().find(|v| !v.is_finite());
                assert!(odd.is_none(), "{what}: {odd:?} in the output");
            }
            for slot in [Slot::Brain, Slot::Truth] {
                assert!(case.mask(slot).unwrap().voxels().iter().all(|v| *v < 2), "{what}");
            }
        }
    }
}

#[test]
fn next_to_nothing_gives_a_reason_or_numbers() {
    for (name, image) in images() {
        for (mask_name, mask) in masks(&image) {
            for (stage_name, parameters) in stages() {
                let what = format!("{stage_name} {parameters} of {name} with {mask_name}");
                let stage = StageSpec::from_parts(stage_name, parameters).unwrap().stage();
                judge(&what, stage.as_ref(), &image, &mask);
            }
            judge(&format!("score of {name} with {mask_name}"), &Score, &image, &mask);
        }
    }
}
