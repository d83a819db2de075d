//! A registry of a published study's size without any image: tables whose counts and marginals are the study's.
//!
//! Every count that the study gives is dealt out exactly, and every distribution is laid on its quantiles, so that the
//! marginals hold to rounding for any seed. The seed decides who has what. Beyond that nothing is modelled: the variables
//! of a case are independent of each other, except where a table says otherwise.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::error::{Error, Result};
use crate::imaging::random::{keyed, shuffle};

/// A study whose registry can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Study {
    /// Noh et al. 2023, medRxiv 2023.07.02.23292150: ten stroke centres, an external hospital, two ancillary data sets
    Noh2023,
}

/// A table of cases that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The file.
    pub file: &'static str,
    /// Its cases.
    pub cases: usize,
}

/// One of the study's sources of cases.
struct Source {
    file: &'static str,
    /// Begins the identifiers.
    prefix: &'static str,
    groups: &'static [Group],
    centres: &'static [(&'static str, usize)],
    /// Quantiles of the infarct volume: share of cases, mL.
    volumes_ml: &'static [(f64, f64)],
    /// Median of the time from last known well to imaging.
    median_onset_h: f64,
    /// Shares of the causes, in the order of [`CAUSES`].
    causes: [f64; 5],
}

/// Cases of a source with one fate.
struct Group {
    cases: usize,
    fate: Fate,
    /// Cases at 1.5 T and at 3 T; of the others it is not known.
    fields: [usize; 2],
    /// Cases whose last known well is not recorded.
    onset_missing: usize,
}

/// What becomes of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Included,
    Contraindicated,
    PoorImage,
    Misregistered,
}

const CAUSES: [&str; 5] = [
    "large_artery_atherosclerosis",
    "small_vessel_occlusion",
    "cardioembolism",
    "undetermined",
    "other_determined",
];

/// Places of the infarct and their shares.
const LOCATIONS: [(&str, f64); 9] = [
    ("cortex", 0.30),
    ("corona_radiata", 0.17),
    ("basal_ganglia_internal_capsule", 0.12),
    ("thalamus", 0.07),
    ("midbrain", 0.03),
    ("pons", 0.10),
    ("medulla", 0.03),
    ("cerebellum", 0.07),
    ("multiple", 0.11),
];

const INTERNAL_ML: &[(f64, f64)] =
    &[(0.0, 0.02), (0.48, 1.7), (0.5, 1.95), (0.78, 14.0), (1.0, 250.0)];
const EXTERNAL_ML: &[(f64, f64)] =
    &[(0.0, 0.02), (0.377, 1.7), (0.5, 3.7), (0.703, 14.0), (1.0, 250.0)];

/// The sources of Noh et al. 2023. Of the 10,820 included the study gives 6,360 at 1.5 T and 2,882 at 3 T; 2,832 without last known
/// well give the 565 of its internal test by their share.
const NOH2023: [Source; 4] = [
    Source {
        file: "internal.csv",
        prefix: "internal",
        groups: &[
            Group {
                cases: 10_820,
                fate: Fate::Included,
                fields: [6360, 2882],
                onset_missing: 2832,
            },
            Group { cases: 258, fate: Fate::Contraindicated, fields: [0, 0], onset_missing: 68 },
            Group { cases: 904, fate: Fate::PoorImage, fields: [440, 200], onset_missing: 237 },
            Group { cases: 31, fate: Fate::Misregistered, fields: [18, 8], onset_missing: 8 },
        ],
        centres: &[
            ("site-01", 2100),
            ("site-02", 1650),
            ("site-03", 1400),
            ("site-04", 476),
            ("site-05", 1250),
            ("site-06", 1100),
            ("site-07", 960),
            ("site-08", 784),
            ("site-09", 620),
            ("site-10", 480),
        ],
        volumes_ml: INTERNAL_ML,
        median_onset_h: 20.0,
        causes: [0.37, 0.20, 0.21, 0.19, 0.03],
    },
    Source {
        file: "external.csv",
        prefix: "external",
        groups: &[Group {
            cases: 2777,
            fate: Fate::Included,
            fields: [2735, 42],
            onset_missing: 1849,
        }],
        centres: &[("external-01", 2777)],
        volumes_ml: EXTERNAL_ML,
        median_onset_h: 9.0,
        causes: [0.30, 0.13, 0.34, 0.20, 0.03],
    },
    Source {
        file: "ancillary1.csv",
        prefix: "ancillary1",
        groups: &[Group { cases: 50, fate: Fate::Included, fields: [34, 16], onset_missing: 0 }],
        centres: &[("ancillary-01", 20), ("ancillary-02", 17), ("ancillary-03", 13)],
        volumes_ml: EXTERNAL_ML,
        median_onset_h: 12.0,
        causes: [0.0, 0.0, 1.0, 0.0, 0.0],
    },
    Source {
        file: "ancillary2.csv",
        prefix: "ancillary2",
        groups: &[Group { cases: 250, fate: Fate::Included, fields: [100, 150], onset_missing: 0 }],
        centres: &[("isles-01", 90), ("isles-02", 85), ("isles-03", 75)],
        volumes_ml: EXTERNAL_ML,
        median_onset_h: 24.0,
        causes: [0.30, 0.15, 0.30, 0.20, 0.05],
    },
];

const COLUMNS: [&str; 24] = [
    "case_id",
    "subject_id",
    "synthetic",
    "centre",
    "age",
    "sex",
    "nihss",
    "stroke_subtype",
    "onset_h",
    "location",
    "chronic_infarct",
    "wmh_volume_ml",
    "vendor",
    "field_strength_t",
    "repetition_time_ms",
    "echo_time_ms",
    "b_value_s_per_mm2",
    "spacing_x_mm",
    "spacing_y_mm",
    "slice_thickness_mm",
    "slice_gap_mm",
    "truth_volume_ml",
    "mri_contraindicated",
    "dwi_quality",
];

const README: &str = "A synthetic registry without images: nobody's data.\n\n\
    The tables have the size, the counts and the marginals that Noh et al. published (medRxiv 2023.07.02.23292150):\n\
    who is excluded and why, age, sex, NIHSS, field strengths, missing times. Everything else about a case was drawn\n\
    independently. Cohorts, splits and tables can be tried on it; it says nothing about patients.\n\
    Every row says `synthetic: true`. Made by `torcula synth --metadata-only --study noh2023`.\n";

/// Writes the tables of a study into a folder, which must be absent, empty, or hold those of an earlier time.
///
/// # Errors
/// A configuration error where the folder holds something else; an I/O error where a file cannot be written.
pub fn write_metadata(root: &Path, study: Study, seed: u64) -> Result<Vec<Manifest>> {
    let Study::Noh2023 = study;
    std::fs::create_dir_all(root).map_err(|e| Error::from(e).context(root.display()))?;
    let known: Vec<&str> = NOH2023.iter().map(|s| s.file).chain(["README"]).collect();
    let other = std::fs::read_dir(root)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| !known.contains(&name.as_str()));
    if let Some(other) = other {
        let found = format!("{} holds something else: {other}", root.display());
        return Err(
            Error::configuration(found).hint("choose another folder, or delete this one first")
        );
    }
    std::fs::write(root.join("README"), README)?;
    NOH2023.iter().map(|source| write(root, source, seed)).collect()
}

fn write(root: &Path, source: &Source, seed: u64) -> Result<Manifest> {
    let path = root.join(source.file);
    let failed = |e: csv::Error| Error::io(format!("{}: {e}", path.display()));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (n, group) in source.groups.iter().enumerate() {
        rows.extend(cases(source, group, seed, n));
    }
    // Who is excluded lies anywhere among the others.
    shuffle(&mut keyed(seed, &["metadata", source.prefix, "order"]), &mut rows);
    let mut writer = csv::Writer::from_path(&path).map_err(failed)?;
    writer.write_record(COLUMNS.iter().chain(&["registration_error"])).map_err(failed)?;
    for (n, row) in rows.iter().enumerate() {
        let id = format!("{}-{:05}", source.prefix, n + 1);
        writer.write_record([id.clone(), id].iter().chain(row)).map_err(failed)?;
    }
    writer.flush()?;
    Ok(Manifest { file: source.file, cases: rows.len() })
}

/// The rows of a group, without their identifiers.
fn cases(source: &Source, group: &Group, seed: u64, number: usize) -> Vec<Vec<String>> {
    let n = group.cases;
    let number = number.to_string();
    let rng = |column: &str| keyed(seed, &["metadata", source.prefix, &number, column]);
    let share = |column: &str, shares: &[(&str, f64)]| deal(&mut rng(column), &quotas(shares, n));
    let real = |column: &str, digits: usize, of: &dyn Fn(f64) -> f64| {
        let values = spread(&mut rng(column), n, of);
        values.into_iter().map(|v| format!("{v:.digits$}")).collect::<Vec<_>>()
    };
    let centres: Vec<(&str, f64)> = source.centres.iter().map(|(c, n)| (*c, *n as f64)).collect();
    let causes: Vec<(&str, f64)> = CAUSES.into_iter().zip(source.causes).collect();
    let onset = |p: f64| (source.median_onset_h * (1.25 * z(p)).exp()).clamp(0.5, 168.0);
    let mut onsets = real("onset", 1, &onset);
    onsets.iter_mut().take(group.onset_missing).for_each(String::clear);
    shuffle(&mut rng("onset missing"), &mut onsets);
    let known = group.fields[0] + group.fields[1];
    let fields = [("1.5", group.fields[0]), ("3.0", group.fields[1]), ("", n - known)];
    let (contraindicated, quality, misregistered) = match group.fate {
        Fate::Included => ("false", vec![("good", 1.0)], vec![("false", 1.0)]),
        // Whoever cannot be scanned has no image either, and nobody registered it.
        Fate::Contraindicated => ("true", vec![("unavailable", 1.0)], vec![("", 1.0)]),
        // Some poor images could not be registered either: they are excluded as poor.
        Fate::PoorImage => (
            "false",
            vec![("poor", 0.6), ("unavailable", 0.4)],
            vec![("false", 0.97), ("true", 0.03)],
        ),
        Fate::Misregistered => ("false", vec![("good", 1.0)], vec![("true", 1.0)]),
    };
    let columns: Vec<Vec<String>> = vec![
        vec!["true".to_owned(); n],
        share("centre", &centres),
        real("age", 0, &|p| (67.9 + 12.9 * z(p)).clamp(18.0, 103.0)),
        share("sex", &[("M", 0.589), ("F", 0.411)]),
        real("nihss", 0, &|p| along(NIHSS, p)),
        share("cause", &causes),
        onsets,
        share("location", &LOCATIONS),
        share("chronic", &[("true", 0.25), ("false", 0.75)]),
        real("wmh", 2, &|p| (5.0 * (1.1 * z(p)).exp()).min(60.0)),
        share("vendor", &[("Siemens", 0.38), ("Philips", 0.36), ("GE", 0.26)]),
        deal(&mut rng("field"), &fields),
        real("repetition", 0, &|p| 2400.0 + (66.0 * p).round() * 100.0),
        real("echo", 0, &|p| 50.0 + 49.0 * p),
        vec!["1000".to_owned(); n],
        vec!["1.0".to_owned(); n],
        vec!["1.0".to_owned(); n],
        share(
            "thickness",
            &[("3.0", 0.15), ("4.0", 0.2), ("5.0", 0.5), ("6.0", 0.1), ("7.0", 0.05)],
        ),
        share("gap", &[("0.0", 0.3), ("1.0", 0.4), ("1.5", 0.15), ("2.0", 0.15)]),
        real("volume", 3, &|p| along_log(source.volumes_ml, p)),
        vec![contraindicated.to_owned(); n],
        share("quality", &quality),
        share("registration", &misregistered),
    ];
    (0..n).map(|i| columns.iter().map(|column| column[i].clone()).collect()).collect()
}

/// Quantiles of the NIHSS: median 4, quartiles 2 and 9.
const NIHSS: &[(f64, f64)] =
    &[(0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (0.75, 9.0), (0.95, 19.0), (1.0, 36.0)];

/// The standard normal distribution's quantile.
fn z(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// The value at `p` on straight lines between quantiles.
fn along(quantiles: &[(f64, f64)], p: f64) -> f64 {
    let at = quantiles.windows(2).find(|pair| p <= pair[1].0);
    at.map_or(0.0, |pair| {
        let [(p0, v0), (p1, v1)] = [pair[0], pair[1]];
        v0 + (v1 - v0) * (p - p0) / (p1 - p0)
    })
}

/// As [`along`], straight for the logarithms.
fn along_log(quantiles: &[(f64, f64)], p: f64) -> f64 {
    let logs: Vec<(f64, f64)> = quantiles.iter().map(|(p, v)| (*p, v.ln())).collect();
    along(&logs, p).exp()
}

/// How many of `n` each share is: by largest remainder.
fn quotas<'a>(shares: &[(&'a str, f64)], n: usize) -> Vec<(&'a str, usize)> {
    let total: f64 = shares.iter().map(|(_, share)| share).sum();
    let exact: Vec<f64> = shares.iter().map(|(_, share)| share / total * n as f64).collect();
    let mut counts: Vec<usize> = exact.iter().map(|v| v.floor() as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| (exact[*b].fract()).total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    let left = n - counts.iter().sum::<usize>();
    order.into_iter().cycle().take(left).for_each(|i| counts[i] += 1);
    shares.iter().zip(counts).map(|((name, _), count)| (*name, count)).collect()
}

/// Words in their counts, in a random order.
fn deal(rng: &mut ChaCha8Rng, counts: &[(&str, usize)]) -> Vec<String> {
    let mut all: Vec<String> =
        counts.iter().flat_map(|(word, n)| std::iter::repeat_n((*word).to_owned(), *n)).collect();
    shuffle(rng, &mut all);
    all
}

/// The quantiles of a distribution at the middle of `n` equal shares, in a random order.
fn spread(rng: &mut ChaCha8Rng, n: usize, quantile: &dyn Fn(f64) -> f64) -> Vec<f64> {
    let mut all: Vec<f64> = (0..n).map(|i| quantile((i as f64 + 0.5) / n as f64)).collect();
    shuffle(rng, &mut all);
    all
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::study::statistics::describe;

    fn table(seed: u64, file: &str) -> Vec<std::collections::HashMap<String, String>> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("noh");
        write_metadata(&root, Study::Noh2023, seed).unwrap();
        let mut reader = csv::Reader::from_path(root.join(file)).unwrap();
        reader.deserialize().map(Result::unwrap).collect()
    }

    #[test]
    fn the_registry_has_the_published_counts_for_any_seed() {
        for seed in [1, 20_230_702] {
            let internal = table(seed, "internal.csv");
            assert_eq!(internal.len(), 12_013);
            let count = |column: &str, value: &str| {
                internal.iter().filter(|row| row[column] == value).count()
            };
            assert_eq!(count("mri_contraindicated", "true"), 258);
            assert_eq!(
                count("dwi_quality", "poor") + count("dwi_quality", "unavailable"),
                258 + 904
            );
            let included: Vec<_> = internal
                .iter()
                .filter(|r| r["dwi_quality"] == "good" && r["registration_error"] == "false")
                .collect();
            assert_eq!(included.len(), 10_820);
            let of = |column: &str, value: &str| {
                included.iter().filter(|row| row[column] == value).count()
            };
            assert_eq!(
                [of("field_strength_t", "1.5"), of("field_strength_t", "3.0")],
                [6360, 2882]
            );
            assert_eq!((of("onset_h", ""), of("centre", "site-04")), (2832, 476));
            assert_eq!((of("sex", "M") * 1000 + 5_410) / 10_820, 589);
            let numbers = |column: &str| {
                describe(&included.iter().map(|r| r[column].parse().ok()).collect::<Vec<_>>())
            };
            let age = numbers("age");
            assert!((age.mean.unwrap() - 67.9).abs() < 0.1 && (age.sd.unwrap() - 12.9).abs() < 0.1);
            let nihss = numbers("nihss");
            assert_eq!([nihss.q1, nihss.median, nihss.q3], [Ok(2.0), Ok(4.0), Ok(9.0)]);
            assert!((numbers("truth_volume_ml").median.unwrap() - 1.95).abs() < 0.01);
        }
        let external = table(1, "external.csv");
        let missing = external.iter().filter(|r| r["onset_h"].is_empty()).count();
        let low = external.iter().filter(|r| r["field_strength_t"] == "1.5").count();
        assert_eq!((external.len(), missing), (2777, 1849));
        assert_eq!((low * 1000 + 1_388) / 2777, 985);
        assert_eq!((table(1, "ancillary1.csv").len(), table(1, "ancillary2.csv").len()), (50, 250));
    }

    #[test]
    fn the_seed_decides_and_other_folders_are_left_alone() {
        assert_eq!(table(1, "external.csv"), table(1, "external.csv"));
        assert_ne!(table(1, "external.csv"), table(2, "external.csv"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine.csv"), "x").unwrap();
        let error = write_metadata(dir.path(), Study::Noh2023, 1).unwrap_err();
        assert!(error.reason().contains("mine.csv"), "{error}");
    }

    #[test]
    fn quotas_add_up() {
        assert_eq!(
            quotas(&[("a", 1.0), ("b", 1.0), ("c", 1.0)], 10),
            [("a", 4), ("b", 3), ("c", 3)]
        );
        assert_eq!(quotas(&[("a", 0.0), ("b", 1.0)], 3), [("a", 0), ("b", 3)]);
    }
}
