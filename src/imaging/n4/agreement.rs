//! Agreement with `SimpleITK`'s N4: iterations at each level and the log field, on phantoms.
//!
//! `python benches/peers/n4.py` prints the numbers (`SimpleITK` 2.5.7, ITK 5.4; 8 threads, for the reason given there).
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::volume::{Affine, Grid};

/// Largest difference of two log fields.
const TOLERANCE: f32 = 2e-5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phantom {
    Plain,
    /// Zeros and negative intensities in the mask.
    Odd,
    /// The first masked voxel is the darkest.
    FirstLeast,
}

#[derive(Debug)]
struct Case {
    phantom: Phantom,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    iterations: &'static [usize],
    shrink: usize,
    convergence: f64,
    /// With other control points, bins, noise and width than the default ones.
    other: bool,
    /// Iterations that ITK did.
    done: &'static [usize],
    /// Voxel and ITK's log field there.
    field: [(usize, f32); 8],
}

const CASES: &[Case] = &[
    Case {
        phantom: Phantom::Plain,
        shape: [40, 31, 20],
        spacing_mm: [1.0, 1.0, 3.0],
        iterations: &[20],
        shrink: 1,
        convergence: 0.0,
        other: false,
        done: &[20],
        field: [
            (3255, -0.051_956_6),
            (6688, -0.100_484_8),
            (9149, 0.045_703_7),
            (11_424, 0.009_097_3),
            (13_375, -0.055_937_6),
            (15_650, -0.090_008_3),
            (18_111, 0.057_893_8),
            (21_544, 0.010_225_7),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [40, 31, 20],
        spacing_mm: [1.0, 1.0, 3.0],
        iterations: &[50, 50, 50, 50],
        shrink: 1,
        convergence: 0.001,
        other: false,
        done: &[48, 16, 13, 20],
        field: [
            (3255, -0.232_603_4),
            (6688, -0.343_218_5),
            (9149, -0.007_071_5),
            (11_424, -0.290_570_9),
            (13_375, -0.250_027_1),
            (15_650, -0.414_330_9),
            (18_111, -0.048_576_7),
            (21_544, -0.186_874),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [144, 136, 20],
        spacing_mm: [1.0, 1.0, 5.0],
        iterations: &[50, 50],
        shrink: 1,
        convergence: 0.001,
        other: false,
        done: &[48, 16],
        field: [
            (51_448, -0.228_282_6),
            (105_529, 0.112_401_9),
            (144_466, -0.280_440_2),
            (180_251, 0.024_769_5),
            (211_428, -0.314_627_1),
            (247_213, 0.064_114_3),
            (286_150, -0.307_777_5),
            (340_231, 0.030_287_8),
        ],
    },
    Case {
        phantom: Phantom::Odd,
        shape: [48, 40, 20],
        spacing_mm: [1.0, 1.0, 3.0],
        iterations: &[20, 20],
        shrink: 1,
        convergence: 0.0,
        other: false,
        done: &[20, 20],
        field: [
            (5027, 0.101_614_5),
            (10_341, -0.080_678_6),
            (14_152, 0.179_368_2),
            (17_684, -0.146_551_3),
            (20_716, -0.024_798_6),
            (24_248, -0.247_818_8),
            (28_059, 0.002_907_5),
            (33_373, -0.157_329_9),
        ],
    },
    Case {
        phantom: Phantom::FirstLeast,
        shape: [40, 31, 20],
        spacing_mm: [1.0, 1.0, 3.0],
        iterations: &[20, 5],
        shrink: 1,
        convergence: 0.0,
        other: false,
        done: &[20, 5],
        field: [
            (3255, -0.088_556_3),
            (6688, -0.168_524_8),
            (9149, 0.077_884_3),
            (11_424, -0.000_585),
            (13_375, -0.110_981_3),
            (15_650, -0.152_417_1),
            (18_111, 0.100_922_2),
            (21_544, 0.017_326_4),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [160, 150, 2],
        spacing_mm: [1.0, 1.0, 3.0],
        iterations: &[20, 20],
        shrink: 1,
        convergence: 0.0,
        other: false,
        done: &[20, 20],
        field: [
            (9034, -0.098_197_2),
            (11_103, -0.133_992_1),
            (12_896, -0.028_532),
            (14_965, -0.063_967_6),
            (33_034, -0.099_058_7),
            (35_103, -0.134_739),
            (36_896, -0.028_822_5),
            (38_965, -0.064_433_7),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [128, 120, 1],
        spacing_mm: [1.0; 3],
        iterations: &[30, 20],
        shrink: 1,
        convergence: 0.0,
        other: false,
        done: &[30, 20],
        field: [
            (2101, -0.174_793_3),
            (3945, 0.147_241),
            (5527, -0.252_270_3),
            (6971, -0.064_523_3),
            (8389, -0.007_877_8),
            (9833, 0.172_297_3),
            (11_415, -0.273_849_7),
            (13_259, -0.052_215_6),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [128, 120, 12],
        spacing_mm: [1.0, 1.0, 5.0],
        iterations: &[10, 10, 10, 10],
        shrink: 4,
        convergence: 0.001,
        other: false,
        done: &[10, 10, 10, 10],
        field: [
            (24_918, 0.015_312),
            (51_413, -0.013_466_6),
            (68_455, 0.013_100_1),
            (84_379, -0.097_787_7),
            (99_941, -0.042_530_9),
            (115_865, -0.154_094),
            (132_907, -0.151_387_5),
            (159_402, -0.184_805_2),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [96, 90, 40],
        spacing_mm: [2.0; 3],
        iterations: &[20, 20],
        shrink: 2,
        convergence: 0.0,
        other: false,
        done: &[20, 20],
        field: [
            (46_221, -0.070_921_5),
            (90_670, -0.056_102_8),
            (125_597, -0.175_828_1),
            (157_976, -0.016_476_8),
            (187_624, -0.139_164_6),
            (220_003, 0.092_855),
            (254_930, -0.027_409_9),
            (299_379, -0.032_394_1),
        ],
    },
    Case {
        phantom: Phantom::Plain,
        shape: [64, 60, 16],
        spacing_mm: [1.0, 1.0, 4.0],
        iterations: &[15, 10],
        shrink: 1,
        convergence: 0.0,
        other: true,
        done: &[15, 10],
        field: [
            (9054, -0.188_964_4),
            (16_791, -0.248_134_1),
            (22_286, -0.481_285_3),
            (28_263, -0.122_364_4),
            (33_177, -0.228_046_9),
            (39_181, -0.491_184_6),
            (44_649, -0.095_402),
            (52_386, -0.159_847),
        ],
    },
];

/// Voxel and ITK's log field there after `[50]` on the plain phantom of 48 × 40 × 20 voxels with [`confidence`].
const WEIGHTED: [(usize, f32); 8] = [
    (5027, -0.018_179_3),
    (10_341, -0.190_740_9),
    (14_152, 0.034_847_8),
    (17_684, -0.208_460_9),
    (20_716, -0.106_508_9),
    (24_248, -0.328_234_4),
    (28_059, -0.116_509_4),
    (33_373, -0.267_436_2),
];

/// An ellipsoid of wavy tissue under a smooth field, with noise from an integer hash.
fn phantom(what: Phantom, shape: [usize; 3], spacing_mm: [f64; 3]) -> (Image, Mask) {
    let grid = Grid { shape, affine: Affine::from_spacing_mm(spacing_mm) };
    let (mut image, mut mask) = (Image::filled(&grid, 0.0), Mask::filled(&grid, 0));
    let axis =
        |i: usize, n: usize| if n > 1 { -1.0 + 2.0 * i as f64 / (n as f64 - 1.0) } else { 0.0 };
    let [nx, ny, nz] = shape;
    for i in 0..grid.voxels() {
        let (x, y, z) = (axis(i % nx, nx), axis(i / nx % ny, ny), axis(i / nx / ny, nz));
        let inside = (x / 0.85).powi(2) + (y / 0.95).powi(2) + (z / 1.1).powi(2) < 1.0;
        let h = (i as u64 * 2_654_435_761) as u32;
        let h = (u64::from(h ^ h >> 15) * 2_246_822_519) as u32;
        let noise = f64::from(h ^ h >> 13) / 2.0_f64.powi(32) - 0.5;
        let tissue = if inside { 300.0 + 60.0 * (9.0 * x).sin() * (7.0 * y).cos() } else { 8.0 };
        let mut v = (tissue * (0.3 * x - 0.2 * y * y).exp() + 20.0 * noise) as f32;
        if what == Phantom::Odd && i % 501 == 0 {
            v = 0.0;
        } else if what == Phantom::Odd && i % 501 == 250 {
            v = -3.0;
        }
        image.voxels_mut()[i] = v;
        mask.voxels_mut()[i] = u8::from(inside);
    }
    let first = mask.voxels().iter().position(|m| *m == 1);
    if let Some(first) = first.filter(|_| what == Phantom::FirstLeast) {
        image.voxels_mut()[first] = 20.0;
    }
    (image, mask)
}

fn parameters(iterations: &[usize], shrink: usize, convergence: f64) -> Parameters {
    Parameters { iterations: iterations.into(), shrink, convergence, ..Parameters::default() }
}

fn run(image: &Image, mask: &Mask, p: &Parameters) -> Corrected {
    correct(image, mask, None, p, &|| false).unwrap()
}

#[test]
fn iterations_and_field_are_those_of_itk() {
    for case in CASES {
        let (image, mask) = phantom(case.phantom, case.shape, case.spacing_mm);
        let mut p = parameters(case.iterations, case.shrink, case.convergence);
        if case.other {
            (p.control_points, p.bins, p.wiener_noise, p.fwhm) = ([6, 5, 4], 120, 0.05, 0.25);
        }
        let found = run(&image, &mask, &p);
        assert_eq!(found.iterations, case.done, "{case:?}");
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        for (voxel, expected) in case.field {
            let log_field = found.log_field.voxels()[voxel];
            let difference = (log_field - expected).abs();
            assert!(difference < TOLERANCE, "voxel {voxel}: {log_field}, ITK {expected}; {case:?}");
            let expected = image.voxels()[voxel] / log_field.exp();
            let corrected = found.image.voxels()[voxel];
            assert!(
                (corrected - expected).abs() <= 1e-5 * expected.abs(),
                "{corrected}, {expected}"
            );
        }
    }
}

/// Weights that fall towards the far corner; zero in some places, below zero in others.
fn confidence(grid: &Grid) -> Image {
    let mut weights = Image::filled(grid, 0.0);
    for ((z, y, x), w) in weights.data.indexed_iter_mut() {
        *w = if (x + 2 * y + 3 * z) % 11 == 0 {
            0.0
        } else if (x + y) % 13 == 0 {
            -1.0
        } else {
            (1.0 / (1.0 + 0.02 * (x + y + z) as f64)) as f32
        };
    }
    weights
}

#[test]
fn confidence_weights_count_as_in_itk() {
    let (image, mask) = phantom(Phantom::Plain, [48, 40, 20], [1.0, 1.0, 3.0]);
    let weights = confidence(&image.grid());
    let p = parameters(&[50], 1, 0.0);
    let found = correct(&image, &mask, Some(&weights), &p, &|| false).unwrap();
    for (voxel, expected) in WEIGHTED {
        let log_field = found.log_field.voxels()[voxel];
        assert!((log_field - expected).abs() < TOLERANCE, "{voxel}: {log_field}, ITK {expected}");
    }
}

fn small() -> (Image, Mask) {
    phantom(Phantom::Plain, [40, 31, 20], [1.0, 1.0, 3.0])
}

#[test]
fn no_iterations_are_the_identity() {
    let (image, mask) = small();
    let found = run(&image, &mask, &parameters(&[0], 1, 0.0));
    assert_eq!(found.image, image);
    assert!(found.log_field.voxels().iter().all(|f| *f == 0.0));
}

#[test]
fn the_fields_gain_is_lost_again() {
    // A brighter image has the same field: the logarithm only moves. (Not the same bytes: rounding moves too.)
    let (image, mask) = small();
    let mut bright = image.clone();
    bright.voxels_mut().iter_mut().for_each(|v| *v *= 3.0);
    let p = parameters(&[10, 5], 1, 0.0);
    let (one, two) = (run(&image, &mask, &p), run(&bright, &mask, &p));
    for (a, b) in one.log_field.voxels().iter().zip(two.log_field.voxels()) {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
}

#[test]
fn replay_gives_equal_bytes() {
    let (image, mask) = small();
    let bits = |c: &Corrected| c.image.voxels().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let p = parameters(&[10, 10], 2, 0.0);
    assert_eq!(bits(&run(&image, &mask, &p)), bits(&run(&image, &mask, &p)));
}

#[test]
fn equal_weights_change_nothing_and_zero_leaves_the_mask() {
    let (image, mask) = small();
    let p = parameters(&[8], 1, 0.0);
    let ones = Image::filled(&image.grid(), 1.0);
    let plain = run(&image, &mask, &p);
    assert_eq!(correct(&image, &mask, Some(&ones), &p, &|| false).unwrap(), plain);
    let mut half = ones.clone();
    half.voxels_mut()[..12_400].fill(0.0);
    let mut upper = mask.clone();
    upper.voxels_mut()[..12_400].fill(0);
    let weighted = correct(&image, &mask, Some(&half), &p, &|| false).unwrap();
    assert_eq!(weighted, run(&image, &upper, &p));
    assert_ne!(weighted, plain);
}

#[test]
fn any_value_but_zero_is_in_the_mask() {
    let (image, mask) = small();
    let mut other = mask.clone();
    other.voxels_mut().iter_mut().for_each(|v| *v *= 255);
    let p = parameters(&[3], 1, 0.0);
    assert_eq!(run(&image, &mask, &p), run(&image, &other, &p));
}

#[test]
fn empty_masks_and_constant_images_get_a_zero_field_and_a_warning() {
    let (image, mask) = small();
    let empty = Mask::filled(&image.grid(), 0);
    let flat = Image::filled(&image.grid(), 7.0);
    for (image, mask) in [(&image, &empty), (&flat, &mask)] {
        let found = run(image, mask, &Parameters::default());
        assert_eq!(&found.image, image);
        assert_eq!(
            (found.warnings.len(), found.iterations),
            (1, vec![0; 4]),
            "{:?}",
            found.warnings
        );
    }
    let mut one = empty;
    one.voxels_mut()[900] = 1;
    assert_eq!(run(&image, &one, &parameters(&[5], 1, 0.0)).image, image);
}

#[test]
fn what_is_not_finite_matters_in_the_mask_only() {
    let (mut image, mask) = small();
    let outside = mask.voxels().iter().position(|m| *m == 0).unwrap();
    let inside = mask.voxels().iter().position(|m| *m == 1).unwrap();
    image.voxels_mut()[outside] = f32::NAN;
    let found = run(&image, &mask, &parameters(&[3], 1, 0.0));
    assert_eq!(found.image.voxels().iter().filter(|v| v.is_nan()).count(), 1);
    image.voxels_mut()[inside] = f32::NAN;
    let error = correct(&image, &mask, None, &parameters(&[3], 1, 0.0), &|| false).unwrap_err();
    assert_eq!(error.fault(), crate::error::Fault::Data);
}

#[test]
fn a_stop_ends_it() {
    let (image, mask) = small();
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let error = correct(&image, &mask, None, &parameters(&[50], 1, 0.0), &stop).unwrap_err();
    assert_eq!((error.fault(), asked.get()), (crate::error::Fault::Cancelled, 4));
}

#[test]
fn shapes_that_do_not_fit_are_data_errors() {
    let (image, mask) = small();
    let p = Parameters::default();
    let (line, line_mask) = phantom(Phantom::Plain, [1, 31, 20], [1.0; 3]);
    assert!(correct(&line, &line_mask, None, &p, &|| false).is_err());
    let error = correct(&image, &line_mask, None, &p, &|| false).unwrap_err();
    assert!(
        error.reason().contains("[1, 31, 20]") && error.reason().contains("[40, 31, 20]"),
        "{error}"
    );
    assert!(correct(&image, &mask, Some(&line), &p, &|| false).is_err());
}

#[test]
fn a_spline_distance_sets_the_control_points() {
    let p = Parameters { spline_distance_mm: Some(20.0), ..Parameters::default() };
    // 39, 30 and 57 mm from the first voxel to the last.
    assert_eq!(p.lattice_size([40, 31, 20], [1.0, 1.0, 3.0]).unwrap(), [5, 5, 6]);
    let p = Parameters { spline_distance_mm: Some(1e-9), ..p };
    let error = p.lattice_size([40, 31, 20], [1.0, 1.0, 3.0]).unwrap_err();
    assert_eq!(error.fault(), crate::error::Fault::Configuration);
    let (image, mask) = small();
    let p = Parameters { spline_distance_mm: Some(1e3), ..parameters(&[5], 1, 0.0) };
    assert_eq!(run(&image, &mask, &p), run(&image, &mask, &parameters(&[5], 1, 0.0)));
}

#[test]
fn parameters_out_of_range_are_named() {
    let wrong = [
        ("iterations", Parameters { iterations: vec![], ..Parameters::default() }),
        ("shrink", Parameters { shrink: 0, ..Parameters::default() }),
        ("convergence", Parameters { convergence: f64::NAN, ..Parameters::default() }),
        ("control_points", Parameters { control_points: [4, 3, 4], ..Parameters::default() }),
        ("bins", Parameters { bins: 1, ..Parameters::default() }),
        ("wiener_noise", Parameters { wiener_noise: -1.0, ..Parameters::default() }),
        ("fwhm", Parameters { fwhm: 0.0, ..Parameters::default() }),
        (
            "spline_distance_mm",
            Parameters { spline_distance_mm: Some(0.0), ..Parameters::default() },
        ),
    ];
    for (key, parameters) in wrong {
        let error = parameters.check().unwrap_err();
        assert!(error.reason().starts_with(&format!("n4.{key} ")), "{error}");
    }
    assert!(Parameters::default().check().is_ok());
}

#[test]
fn parameters_read_back_and_refuse_unknown_keys() {
    let text = serde_json::to_string(&Parameters::default()).unwrap();
    assert_eq!(serde_json::from_str::<Parameters>(&text).unwrap(), Parameters::default());
    let some: Parameters =
        serde_json::from_str(r#"{"iterations": [20, 20], "shrink": 1}"#).unwrap();
    assert_eq!(some, parameters(&[20, 20], 1, 1e-3));
    assert!(serde_json::from_str::<Parameters>(r#"{"iteration": [20]}"#).is_err());
}

#[test]
fn the_footprint_grows_with_voxels_and_control_points() {
    let few = Parameters::default();
    let many = Parameters { spline_distance_mm: Some(5.0), ..Parameters::default() };
    assert!(footprint_bytes(1000, &few) < footprint_bytes(2000, &few));
    assert!(footprint_bytes(1000, &few) < footprint_bytes(1000, &many));
    assert!(footprint_bytes(u64::MAX, &few) >= u64::MAX / 2);
}

#[test]
fn spacings_that_are_no_distances_and_coarse_shrinks_are_harmless() {
    for spacing_mm in [[0.0; 3], [f64::NAN; 3], [1.0, 1.0, f64::INFINITY]] {
        let (image, mask) = phantom(Phantom::Plain, [24, 20, 3], spacing_mm);
        for (shrink, distance) in [(1, None), (64, None), (2, Some(50.0))] {
            let p = Parameters { spline_distance_mm: distance, ..parameters(&[3, 3], shrink, 0.0) };
            let Ok(found) = correct(&image, &mask, None, &p, &|| false) else { continue };
            assert!(found.image.voxels().iter().all(|v| v.is_finite()), "{spacing_mm:?}, {p:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn where_there_is_no_field_little_changes(
        shape in [24_usize..40, 24_usize..40, 6_usize..12],
        contrast in 1.3_f64..3.0,
        phase in 0.0_f64..6.0,
    ) {
        let grid = Grid { shape, affine: Affine::from_spacing_mm([2.0, 2.0, 5.0]) };
        let mut image = Image::filled(&grid, 0.0);
        for ((z, y, x), v) in image.data.indexed_iter_mut() {
            // Two tissues in fine stripes, so that no smooth field can pass for one of them.
            let wave = (1.9 * x as f64 + phase).sin() + (2.3 * y as f64).cos() + (1.1 * z as f64).sin();
            let grain = ((x * 7919 + y * 104_729 + z * 1009) % 101) as f64 / 101.0 - 0.5;
            *v = (100.0 * if wave > 0.0 { contrast } else { 1.0 } + 4.0 * grain) as f32;
        }
        let mask = Mask::filled(&grid, 1);
        let found = run(&image, &mask, &parameters(&[20], 1, 0.001));
        let mean = found.log_field.voxels().iter().sum::<f32>() / grid.voxels() as f32;
        for f in found.log_field.voxels() {
            prop_assert!((f - mean).abs() < 0.1, "{f}, mean {mean}");
        }
    }
}
