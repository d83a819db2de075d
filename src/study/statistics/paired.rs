//! Do two measurements of the same cases differ?

use super::descriptive::{mean, sum, variance};
use super::distributions::normal_two_sided;
use super::groups::{plain, t_test};
use super::outcome::{Computed, Level, NotComputed, Outcome, Pairs, Test};
use super::ranks::Ranks;

/// The most differences for which Wilcoxon's exact distribution is counted out.
const LARGEST_EXACT: usize = 50;

/// Paired t: is the mean of the differences first − second zero?
///
/// t = d̄ / (s/√n) with n − 1 degrees of freedom, where s is the SD of the differences (Student 1908). The effect is d̄ with its
/// interval. Pairs with a missing value are left out and counted. Needs 2 pairs whose differences vary.
pub fn paired_t(first: &[Option<f64>], second: &[Option<f64>], level: Level) -> Outcome<Test> {
    let pairs = Pairs::of(first, second);
    let result = pairs.varying_differences(2).and_then(|differences| {
        let n = differences.len() as f64;
        let error = (variance(&differences) / n).sqrt();
        let names = ("paired t", "t distribution");
        t_test(names, "mean difference", mean(&differences), error, n - 1.0, level)
    });
    Outcome { samples: vec![pairs.sample], result }
}

/// Wilcoxon's signed ranks: are the differences first − second symmetric about zero?
///
/// The |differences| are ranked without those that are 0 (Wilcoxon 1945, doi:10.2307/3001968; a note says how many); W is
/// the smaller of the rank sums W₊ of positive and W₋ of negative ones. p is exact for at most 50 differences without
/// ties. Otherwise it is that of z = (|W₊ − n(n + 1)/4| − ½)/σ with σ² = n(n + 1)(2n + 1)/24 − Σ(t³ − t)/48. The effect is the
/// rank-biserial correlation (W₊ − W₋)/(W₊ + W₋) (Kerby 2014, doi:10.2466/11.IT.3.1). Differences are taken as they are: 0.4 − 0.3 and
/// 0.2 − 0.1 round differently and are no tie. Pairs with a missing value are left out and counted. Needs 1 difference that is not 0.
pub fn wilcoxon(first: &[Option<f64>], second: &[Option<f64>]) -> Outcome<Test> {
    let pairs = Pairs::of(first, second);
    let result = pairs.at_least(1).and_then(|()| signed_ranks(&pairs.differences()));
    Outcome { samples: vec![pairs.sample], result }
}

fn signed_ranks(differences: &[f64]) -> Computed<Test> {
    let signed: Vec<f64> = differences.iter().copied().filter(|d| d.abs() > 0.0).collect();
    if signed.is_empty() {
        return Err(NotComputed::no_variance("the differences"));
    }
    let zeros = differences.len() - signed.len();
    let ranks = Ranks::new(&signed.iter().map(|d| d.abs()).collect::<Vec<_>>());
    let n = signed.len() as f64;
    let total = n * (n + 1.0) / 2.0;
    let above = sum(ranks.of.iter().zip(&signed).filter(|(_, d)| **d > 0.0).map(|(r, _)| *r));
    let smaller = above.min(total - above);
    let (p, method) = if !ranks.has_ties() && signed.len() <= LARGEST_EXACT {
        ((2.0 * w_lower(smaller as usize, signed.len())).min(1.0), "exact distribution")
    } else {
        let sigma = (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ranks.ties() / 48.0).sqrt();
        let z = ((above - total / 2.0).abs() - 0.5).max(0.0) / sigma;
        (normal_two_sided(z), "normal approximation with tie correction and continuity correction")
    };
    Test {
        name: "Wilcoxon signed-rank",
        symbol: "W",
        statistic: Some(smaller),
        freedom: Vec::new(),
        p,
        method,
        effects: vec![plain("rank-biserial correlation", (2.0 * above - total) / total)],
        notes: (zeros > 0)
            .then(|| format!("differences of 0 left out: {zeros} of {}", differences.len()))
            .into_iter()
            .collect(),
    }
    .checked()
}

/// P(W₊ ≤ w) for n differences without ties: the subsets of 1…n that sum to at most w, of 2ⁿ.
fn w_lower(w: usize, n: usize) -> f64 {
    let mut counts = vec![0_u64; n * (n + 1) / 2 + 1];
    counts[0] = 1;
    for rank in 1..=n {
        for sum in (rank..counts.len()).rev() {
            counts[sum] += counts[sum - rank];
        }
    }
    counts[..=w].iter().sum::<u64>() as f64 / (n as f64).exp2()
}
