//! How many patients each part is to have.

use std::collections::BTreeMap;

use super::Layer;
use crate::error::{Error, Result};
use crate::pipeline::study_spec::{Division, PartSize, are_counts, fold};

/// The layers of a division of `n` patients.
///
/// Shares are cumulated and rounded to whole patients, half to even, so that they always add up.
pub(super) fn layers(division: Division<'_>, n: usize) -> Result<Vec<Layer>> {
    match division {
        Division::Parts(sizes) if are_counts(sizes) => counted(sizes, n),
        Division::Parts(sizes) => Ok(shared(sizes, n)),
        Division::Nested(sizes) => nested(sizes, n),
        Division::Folds(k) if k as usize > n => {
            let found = format!("{k} folds of {n} patients");
            Err(Error::configuration(found).hint("a fold has at least one patient: make fewer"))
        }
        Division::Folds(k) => {
            let ends: Vec<usize> = (1..=k).map(|i| share(f64::from(i) / f64::from(k), n)).collect();
            Ok(between((1..=k).map(fold), &ends))
        }
        Division::By(_) => Ok(Vec::new()),
    }
}

/// `share` of `n`, rounded to whole patients, half to even.
fn share(share: f64, n: usize) -> usize {
    // Ten decimals: 0.1 + 0.2 of 10 is 3, whatever binary fractions make of it.
    let exact = (share * n as f64 * 1e10).round() / 1e10;
    (exact.round_ties_even() as usize).min(n)
}

/// Layers that end at these places.
fn between(names: impl Iterator<Item = String>, ends: &[usize]) -> Vec<Layer> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let sizes = ends.iter().zip(starts).map(|(end, start)| end - start);
    names.zip(sizes).map(|(name, target)| Layer { name, target }).collect()
}

fn shared(sizes: &BTreeMap<String, PartSize>, n: usize) -> Vec<Layer> {
    let given: f64 = sizes.values().filter_map(|size| size.number()).sum();
    let mut sum = 0.0;
    let ends: Vec<usize> = sizes
        .values()
        .map(|size| {
            sum += size.number().unwrap_or(1.0 - given);
            share(sum, n)
        })
        .collect();
    let mut layers = between(sizes.keys().cloned(), &ends);
    // The last one ends with the last patient, however the shares were rounded.
    if let (Some(last), Some(end)) = (layers.last_mut(), ends.last()) {
        last.target += n - end;
    }
    layers
}

fn counted(sizes: &BTreeMap<String, PartSize>, n: usize) -> Result<Vec<Layer>> {
    let counts: Vec<Option<usize>> =
        sizes.values().map(|size| size.number().map(|n| n as usize)).collect();
    let sum = counts.iter().flatten().fold(0_usize, |sum, count| sum.saturating_add(*count));
    let terms: Vec<String> = counts.iter().flatten().map(usize::to_string).collect();
    if sum > n {
        let found =
            format!("the parts ask for {} = {sum} patients, and there are {n}", terms.join(" + "));
        return Err(Error::configuration(found)
            .hint("ask for fewer, or give shares, or look at what the cohort excludes"));
    }
    let layer = |(name, count): (&String, &Option<usize>)| Layer {
        name: name.clone(),
        target: count.unwrap_or(n - sum),
    };
    Ok(sizes.keys().zip(&counts).map(layer).collect())
}

fn nested(sizes: &BTreeMap<String, PartSize>, n: usize) -> Result<Vec<Layer>> {
    let mut all: Vec<(usize, &String)> = Vec::new();
    for (name, size) in sizes {
        let number = size.number().unwrap_or(1.0);
        let count = if number > 1.0 { number as usize } else { share(number, n) };
        let hint = "give another size, or a larger cohort";
        if count > n {
            let found = format!("`{name}` asks for {count} patients, and there are {n}");
            return Err(Error::configuration(found).hint(hint));
        }
        if count == 0 {
            let found = format!("`{name}` is {number} of {n} patients, which is none");
            return Err(Error::configuration(found).hint(hint));
        }
        all.push((count, name));
    }
    all.sort_unstable();
    let ends: Vec<usize> = all.iter().map(|(count, _)| *count).collect();
    Ok(between(all.iter().map(|(_, name)| (*name).clone()), &ends))
}

/// Where the stretches of an order of `n` end that fill the `open` places: as many as there are, in proportion where
/// there are too few to fill all.
pub(super) fn stretches(open: &[usize], n: usize) -> Vec<usize> {
    let total: usize = open.iter().sum();
    let mut sum = 0;
    let end = |open: &usize| {
        sum += open;
        if total <= n { sum } else { share(sum as f64 / total as f64, n) }
    };
    open.iter().map(end).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn sizes(of: &[(&str, f64)]) -> BTreeMap<String, PartSize> {
        of.iter().map(|(name, n)| ((*name).to_owned(), PartSize::Number(*n))).collect()
    }

    // from decimal import Decimal as D, ROUND_HALF_EVEN
    // [int((D(s) * 8661).quantize(D(1), ROUND_HALF_EVEN)) for s in ("0.025", "0.05", "0.1", "0.2", "0.5", "1")]
    const PYTHON: [usize; 6] = [217, 433, 866, 1732, 4330, 8661];

    #[test]
    fn nested_subsamples_have_the_sizes_of_the_study() {
        let shares = [("a", 0.025), ("b", 0.05), ("c", 0.1), ("d", 0.2), ("e", 0.5), ("f", 1.0)];
        let layers = layers(Division::Nested(&sizes(&shares)), 8661).unwrap();
        let mut sum = 0;
        let ends: Vec<usize> = layers
            .iter()
            .map(|layer| {
                sum += layer.target;
                sum
            })
            .collect();
        assert_eq!(ends, PYTHON);
    }

    #[test]
    fn shares_add_up_and_halves_go_to_the_even() {
        for n in 0..200 {
            let layers = shared(&sizes(&[("test", 0.2), ("train", 0.64), ("val", 0.16)]), n);
            assert_eq!(layers.iter().map(|l| l.target).sum::<usize>(), n);
        }
        assert_eq!([share(0.5, 5), share(0.5, 7), share(0.1 + 0.2, 10)], [2, 4, 3]);
    }

    #[test]
    fn counts_take_what_they_ask_for_and_the_rest_is_left() {
        let mut parts = sizes(&[("test", 2159.0)]);
        parts.insert("train".to_owned(), serde_json::from_str("\"rest\"").unwrap());
        let targets = |n| -> Vec<usize> {
            layers(Division::Parts(&parts), n).unwrap().iter().map(|l| l.target).collect()
        };
        assert_eq!(targets(10_820), [2159, 8661]);
        assert_eq!(targets(2159), [2159, 0]);
        let error = layers(Division::Parts(&sizes(&[("a", 4.0), ("b", 3.0)])), 6).unwrap_err();
        assert!(error.reason().contains("4 + 3 = 7 patients, and there are 6"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_said() {
        let small = layers(Division::Nested(&sizes(&[("a", 0.025)])), 12).unwrap_err();
        assert!(small.reason().contains("0.025 of 12 patients, which is none"), "{small}");
        assert!(layers(Division::Nested(&sizes(&[("a", 50.0)])), 49).is_err());
        assert!(layers(Division::Folds(5), 4).is_err());
        assert_eq!(layers(Division::Folds(3), 10).unwrap().len(), 3);
    }

    #[test]
    fn too_few_fill_in_proportion() {
        assert_eq!(stretches(&[10, 30], 40), [10, 40]);
        assert_eq!(stretches(&[10, 30], 50), [10, 40], "the others are left over");
        assert_eq!(stretches(&[10, 30], 8), [2, 8]);
        assert_eq!(stretches(&[0, 0], 3), [0, 0]);
    }
}
