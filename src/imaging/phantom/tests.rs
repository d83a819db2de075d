//! The phantom as a whole: replay, contrast, volumes and places of lesions.

use super::*;

fn subject(name: &str) -> Anatomy {
    Anatomy::draw(&mut keyed(5, &[name]), 68.0, [0.0; 3])
}

fn clean(shape: [usize; 3], spacing_mm: [f64; 3]) -> Acquisition {
    let mut acquisition = Acquisition::typical(centred(shape, spacing_mm));
    (acquisition.snr, acquisition.ghost_share, acquisition.susceptibility) = (1e6, 0.0, 0.0);
    acquisition.white_level = 2000.0;
    acquisition
}

fn infarct(location: Location, volume_ml: f64, name: &str) -> Vec<Lesion> {
    Lesion::acute(&mut keyed(6, &[name]), location, volume_ml, Some(12.0))
}

fn in_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        Err(e) => panic!("{e}"),
    }
}

/// ADC in mm²/s in a voxel, from the two volumes.
fn adc(made: &Phantom, i: usize) -> f64 {
    f64::from(made.b0.voxels()[i] / made.dwi.voxels()[i]).ln() / 1000.0
}

#[test]
fn threads_do_not_change_a_voxel() {
    let made = |threads| in_threads(threads, || simple([40, 40, 12], [5.6, 5.6, 12.0], 9));
    let (one, two) = (made(1), made(2));
    assert!(one == two);
    assert!(one != simple([40, 40, 12], [5.6, 5.6, 12.0], 10));
}

#[test]
fn a_simple_case_has_a_brain_and_an_infarct_within() {
    for seed in 0..4 {
        let (dwi, truth, brain) = simple([64, 64, 16], [3.5, 3.5, 9.0], seed);
        let voxel_ml = dwi.grid().voxel_volume_mm3() / 1000.0;
        let count = |m: &Mask| m.voxels().iter().map(|v| usize::from(*v)).sum::<usize>();
        let brain_ml = count(&brain) as f64 * voxel_ml;
        assert!((1100.0..2100.0).contains(&brain_ml), "{brain_ml}");
        assert!(count(&truth) >= 20, "{}", count(&truth));
        let outside = truth.voxels().iter().zip(brain.voxels()).any(|(t, b)| t > b);
        assert!(!outside, "the infarct lies within the brain");
        assert!(dwi.voxels().iter().all(|v| v.fract() == 0.0 && (0.0..=32_767.0).contains(v)));
    }
}

#[test]
fn restriction_can_be_measured_and_distractors_are_not_restricted() {
    let mut lesions = Lesion::hyperintensities(&mut keyed(1, &["wmh"]), 20.0);
    lesions.push(Lesion::chronic(&mut keyed(2, &["old"]), 15.0));
    lesions.extend(infarct(Location::Cerebellum, 25.0, "cerebellar"));
    let acquisition = clean([72, 72, 20], [3.2, 3.2, 7.2]);
    let made = make(&subject("one"), &acquisition, &lesions, 1, "one");
    let mean = |keep: &dyn Fn(usize) -> bool| {
        let values: Vec<f64> =
            (0..made.dwi.voxels().len()).filter(|i| keep(*i)).map(|i| adc(&made, i)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let truth = made.truth.voxels();
    let inside = mean(&|i| truth[i] == 1);
    assert!((0.40e-3..0.62e-3).contains(&inside), "{inside}");
    let brain = made.brain.voxels();
    let restricted = (0..brain.len())
        .filter(|&i| brain[i] == 1 && truth[i] == 0 && made.b0.voxels()[i] > 500.0)
        .filter(|&i| adc(&made, i) < 0.52e-3)
        .count();
    let planted = truth.iter().map(|v| usize::from(*v)).sum::<usize>();
    assert!(restricted * 10 < planted, "{restricted} beside {planted}");
    assert!(made.chronic_ml > 10.0 && made.hyperintensity_ml > 10.0);
    // Infarcts are brighter than the rest of the brain on the diffusion-weighted image.
    let bright = |want: u8| {
        let v: Vec<f32> = (0..truth.len())
            .filter(|&i| brain[i] == 1 && truth[i] == want)
            .map(|i| made.dwi.voxels()[i])
            .collect();
        v.iter().sum::<f32>() / v.len() as f32
    };
    assert!(bright(1) > 1.4 * bright(0), "{} {}", bright(1), bright(0));
}

#[test]
fn volumes_are_those_asked_for() {
    let acquisition = clean([72, 72, 24], [3.2, 3.2, 6.0]);
    let voxel_ml = acquisition.grid.voxel_volume_mm3() / 1000.0;
    for (location, wanted) in
        [(Location::Cortex, 60.0), (Location::BasalGanglia, 9.0), (Location::Thalamus, 2.5)]
    {
        let made =
            make(&subject("two"), &acquisition, &infarct(location, wanted, "v"), 1, "volumes");
        let n = made.truth.voxels().iter().map(|v| f64::from(*v)).sum::<f64>();
        assert!((n * voxel_ml - wanted).abs() <= voxel_ml, "{location:?}: {} mL", n * voxel_ml);
    }
}

#[test]
fn infarcts_lie_where_they_should() {
    let acquisition = clean([64, 64, 20], [3.5, 3.5, 7.2]);
    for location in Location::ALL.into_iter().filter(|l| *l != Location::Multiple) {
        let subject = subject(location.name());
        let lesions = infarct(location, 0.7 * location.capacity_ml().min(6.0), location.name());
        let made = make(&subject, &acquisition, &lesions, 1, location.name());
        let locator = Locator::new(&subject, &acquisition.grid);
        let mut sum = [0.0; 3];
        let mut n = 0.0;
        for ((z, y, x), _) in made.truth.data.indexed_iter().filter(|(_, v)| **v == 1) {
            let p = locator.at(locator.row(y as f64, z as f64), x);
            (0..3).for_each(|a| sum[a] += f64::from(p[a]));
            n += 1.0;
        }
        assert!(n > 0.0, "{location:?} is empty");
        assert_eq!(Location::nearest(sum.map(|s| s / n)), location, "{:?}", sum.map(|s| s / n));
    }
}

#[test]
fn a_stored_mask_keeps_its_place_and_volume() {
    let grid = Grid {
        shape: [20, 24, 16],
        affine: Affine([[-1.0, 0.0, 0.0, 48.0], [0.0, 1.0, 0.0, -70.0], [0.0, 0.0, 1.0, -46.0]]),
    };
    let mut mask = Mask::filled(&grid, 0);
    mask.data.slice_mut(ndarray::s![3..12, 5..20, 4..16]).fill(1);
    let own_ml = mask.voxels().iter().map(|v| f64::from(*v)).sum::<f64>() / 1000.0;
    let rng = &mut keyed(3, &["stored"]);
    let stored = Lesion::stored(rng, std::sync::Arc::new(mask), 0.0, None);
    let Some(lesion) = stored else { panic!("the mask holds voxels") };
    assert!((lesion.volume_ml - own_ml).abs() < 1e-9);
    let acquisition = clean([72, 72, 36], [3.2, 3.2, 4.0]);
    let made = make(&subject("three"), &acquisition, &[lesion], 1, "stored");
    let voxel_ml = acquisition.grid.voxel_volume_mm3() / 1000.0;
    let n = made.truth.voxels().iter().map(|v| f64::from(*v)).sum::<f64>();
    assert!((n * voxel_ml - own_ml).abs() < 0.15 * own_ml, "{} {own_ml}", n * voxel_ml);
    let empty = Mask::filled(&grid, 0);
    assert!(Lesion::stored(rng, std::sync::Arc::new(empty), 0.0, None).is_none());
}

#[test]
fn a_tilted_grid_sees_the_same_head() {
    let tilt = [0.3, -0.1, 0.2];
    let (shape, spacing) = ([48, 48, 14], [4.8, 4.8, 10.0]);
    let straight = clean(shape, spacing);
    let grid = axial(shape, spacing, tilt, true);
    assert!(grid.affine.determinant() < 0.0);
    let tilted = Acquisition { grid, ..straight.clone() };
    let draw = |tilt| Anatomy::draw(&mut keyed(8, &["tilt"]), 70.0, tilt);
    let a = make(&draw([0.0; 3]), &straight, &[], 1, "a");
    let b = make(&draw(tilt), &tilted, &[], 1, "a");
    let mut worst = 0.0_f32;
    for ((z, y, x), v) in a.b0.data.indexed_iter() {
        worst = worst.max((v - b.b0.data[(z, y, 47 - x)]).abs());
    }
    assert!(worst < 30.0, "{worst} of about 2000");
}

#[test]
fn empty_and_singular_grids_do_no_harm() {
    let (dwi, truth, _) = simple([0, 0, 0], [1.0; 3], 1);
    assert!(dwi.voxels().is_empty() && truth.voxels().is_empty());
    let (dwi, ..) = simple([4, 4, 2], [0.0, 1.0, f64::NAN], 1);
    assert_eq!(dwi.voxels().len(), 32);
    let (dwi, ..) = simple([1, 1, 1], [1.0; 3], 1);
    assert_eq!(dwi.voxels().len(), 1);
}
