//! Patients: the study's variables, drawn with the study's marginals.
//!
//! Age 67.9 ± 12.9 years, 58.9 % male, NIHSS with median 4 and quartiles 2 and 9, infarct volume log-normal with
//! median 1.95 mL and the spread that gives 22 % above 14 mL. For an external source: median 3.7 mL, more
//! cardioembolism, imaged earlier, onset missing in two of three. The variables depend on each other as in life:
//! larger infarcts score more on the NIHSS, small deep ones come from small vessels, brainstem infarcts are small.

use rand_chacha::ChaCha8Rng;

use super::Options;
use crate::imaging::phantom::Location;
use crate::imaging::random::{chance, normal, uniform};

/// What is known about a patient beside the images.
#[derive(Debug, Clone)]
pub(super) struct Patient {
    pub(super) age_y: f64,
    pub(super) male: bool,
    pub(super) nihss: u32,
    pub(super) subtype: &'static str,
    /// Last known well to imaging in hours, whether recorded or not.
    pub(super) onset_h: f64,
    pub(super) onset_recorded: bool,
    pub(super) location: Location,
    /// Volume of the infarcts that is asked for in mL.
    pub(super) volume_ml: f64,
    /// Volume of an old infarct in mL; 0 for none.
    pub(super) chronic_ml: f64,
    pub(super) hyperintensity_ml: f64,
}

/// Sigma of the logarithm of the infarct volume: P(> 14 mL) = 22 % at a median of 1.95 mL.
const VOLUME_SIGMA: f64 = 2.5;

/// The largest voxels in mL at which volumes are the study's.
const FINE_VOXEL_ML: f64 = 0.008;

/// Voxels that nine of ten infarcts have at least where voxels are coarser.
const ENOUGH_VOXELS: f64 = 20.0;

impl Patient {
    /// A patient to be scanned with voxels of `voxel_ml`.
    pub(super) fn draw(rng: &mut ChaCha8Rng, options: &Options, voxel_ml: f64) -> Self {
        let external = options.is_external();
        let size = normal(rng).clamp(-2.6, 1.9);
        let volume_ml = volume_ml(size, if external { 3.7 } else { 1.95 }, voxel_ml);
        let location = location(rng, volume_ml, voxel_ml);
        let severity = 0.6 * size + 0.8 * normal(rng);
        let age_y = (67.9 + 12.9 * normal(rng)).clamp(20.0, 99.0).round();
        let (median_h, missing) = if external { (9.0_f64, 0.666) } else { (20.0, 0.262) };
        let onset_h = (median_h * (1.25 * normal(rng)).exp()).clamp(0.5, 168.0);
        let older = (0.03 * (age_y - 68.0)).exp();
        let hyperintensity_ml = (5.0 * older * (1.1 * normal(rng)).exp()).min(60.0);
        let chronic = chance(rng, 0.25);
        let chronic_ml = (2.0 * normal(rng).exp()).clamp(0.2, 20.0).max(4.0 * voxel_ml);
        Self {
            age_y,
            male: chance(rng, 0.589),
            nihss: (4.0 * (1.15 * severity).exp()).round().clamp(0.0, 38.0) as u32,
            subtype: subtype(rng, external, location, volume_ml),
            onset_h: (onset_h * 10.0).round() / 10.0,
            onset_recorded: !chance(rng, missing),
            location,
            volume_ml,
            chronic_ml: if chronic { chronic_ml } else { 0.0 },
            hyperintensity_ml,
        }
    }
}

/// Infarct volume in mL at a standard score, for a median that voxels of `voxel_ml` may raise.
///
/// Voxels as fine as the study's (up to 8 mm³) leave volumes as they are. Where with coarser ones the tenth
/// percentile would be smaller than twenty voxels, the logarithm is compressed linearly: the tenth percentile
/// becomes twenty voxels and the 95th stays where it is (or, where it too is smaller, three times that).
fn volume_ml(score: f64, median_ml: f64, voxel_ml: f64) -> f64 {
    const TENTH: f64 = -1.2816;
    const NINETY_FIFTH: f64 = 1.6449;
    let at = |z: f64| median_ml.ln() + VOLUME_SIGMA * z;
    let least = (ENOUGH_VOXELS * voxel_ml).ln();
    let log = if voxel_ml <= FINE_VOXEL_ML || at(TENTH) >= least {
        at(score)
    } else {
        let most = at(NINETY_FIFTH).min(120_f64.ln()).max(least + 3_f64.ln());
        least + (score - TENTH) / (NINETY_FIFTH - TENTH) * (most - least)
    };
    log.exp().clamp(0.02, 250.0)
}

/// A place with room for the infarct.
fn location(rng: &mut ChaCha8Rng, volume_ml: f64, voxel_ml: f64) -> Location {
    const WEIGHTS: [f64; 9] = [0.30, 0.17, 0.12, 0.07, 0.03, 0.10, 0.03, 0.07, 0.16];
    // On coarse voxels every place takes infarcts of thirty voxels, or hardly any would lie in the brainstem.
    let fits = |l: Location| volume_ml <= l.capacity_ml().max(1.5 * ENOUGH_VOXELS * voxel_ml);
    let open = || Location::ALL.into_iter().zip(WEIGHTS).filter(|(l, _)| fits(*l));
    let mut rest = uniform(rng, 0.0..open().map(|(_, w)| w).sum());
    open()
        .find(|(_, w)| {
            rest -= w;
            rest < 0.0
        })
        .map_or(Location::Cortex, |(l, _)| l)
}

/// Cause after the TOAST classification (Adams et al. 1993, Stroke 24:35).
fn subtype(
    rng: &mut ChaCha8Rng,
    external: bool,
    location: Location,
    volume_ml: f64,
) -> &'static str {
    const CAUSES: [&str; 4] =
        ["large_artery_atherosclerosis", "cardioembolism", "undetermined", "other_determined"];
    let deep = !matches!(location, Location::Cortex | Location::Cerebellum | Location::Multiple);
    if deep && volume_ml < 3.0 && chance(rng, 0.6) {
        return "small_vessel_occlusion";
    }
    let limits = if external { [0.36, 0.78, 0.96] } else { [0.47, 0.73, 0.96] };
    let u = uniform(rng, 0.0..1.0);
    CAUSES[limits.iter().filter(|l| u >= **l).count()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::random::keyed;

    fn patients(options: &Options, voxel_ml: f64) -> Vec<Patient> {
        let mut rng = keyed(11, &["patients"]);
        (0..4000).map(|_| Patient::draw(&mut rng, options, voxel_ml)).collect()
    }

    fn quantile(values: impl Iterator<Item = f64>, q: f64) -> f64 {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        sorted[(q * (sorted.len() - 1) as f64).round() as usize]
    }

    fn share(patients: &[Patient], what: impl Fn(&Patient) -> bool) -> f64 {
        patients.iter().filter(|p| what(p)).count() as f64 / patients.len() as f64
    }

    #[test]
    fn marginals_are_those_of_the_study() {
        let all = patients(&Options::default(), 0.005);
        let mean = all.iter().map(|p| p.age_y).sum::<f64>() / all.len() as f64;
        assert!((mean - 67.9).abs() < 0.8, "{mean}");
        let spread = all.iter().map(|p| (p.age_y - mean).powi(2)).sum::<f64>() / all.len() as f64;
        assert!((spread.sqrt() - 12.9).abs() < 0.6, "{spread}");
        assert!((share(&all, |p| p.male) - 0.589).abs() < 0.03);
        let nihss = |q| quantile(all.iter().map(|p| f64::from(p.nihss)), q);
        assert!((nihss(0.5) - 4.0).abs() < 0.1 && (nihss(0.25) - 2.0).abs() < 0.1);
        assert!((nihss(0.75) - 9.0).abs() <= 1.0);
        let volume = quantile(all.iter().map(|p| p.volume_ml), 0.5);
        assert!((1.65..2.25).contains(&volume), "{volume}");
        assert!((share(&all, |p| p.volume_ml > 14.0) - 0.22).abs() < 0.03);
        assert!((share(&all, |p| !p.onset_recorded) - 0.262).abs() < 0.03);
        for l in Location::ALL {
            assert!(share(&all, |p| p.location == l) > 0.005, "{l:?}");
        }
    }

    #[test]
    fn an_external_source_is_larger_earlier_and_more_cardioembolic() {
        let inside = patients(&Options::default(), 0.005);
        let outside =
            patients(&Options { source: "external".to_owned(), ..Options::default() }, 0.005);
        let volume = |v: &[Patient]| quantile(v.iter().map(|p| p.volume_ml), 0.5);
        let onset = |v: &[Patient]| quantile(v.iter().map(|p| p.onset_h), 0.5);
        let embolic = |v: &[Patient]| share(v, |p| p.subtype == "cardioembolism");
        assert!((volume(&outside) / volume(&inside) - 1.9).abs() < 0.2);
        assert!(onset(&outside) < onset(&inside));
        assert!(embolic(&outside) > embolic(&inside) + 0.1);
    }

    #[test]
    fn coarse_voxels_raise_small_volumes_only() {
        for voxel_ml in [0.03, 0.1, 1.5] {
            let all = patients(&Options::default(), voxel_ml);
            let tenth = quantile(all.iter().map(|p| p.volume_ml), 0.1);
            assert!((tenth / voxel_ml / ENOUGH_VOXELS - 1.0).abs() < 0.25, "{tenth} {voxel_ml}");
            assert!(all.iter().all(|p| p.volume_ml <= 250.0));
        }
        let (fine, coarse) = (volume_ml(1.6449, 1.95, 0.001), volume_ml(1.6449, 1.95, 0.1));
        assert!(fine > 100.0 && (coarse - fine.min(120.0)).abs() < 1.0, "{fine} {coarse}");
    }
}
