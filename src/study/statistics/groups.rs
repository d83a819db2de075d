//! Do groups differ? Tests of two or more independent groups.

use super::descriptive::{centred, finite, mean, squares, sum, variance};
use super::distributions::{
    chi_square_upper, fisher_upper, normal_two_sided, student_quantile, student_two_sided,
};
use super::outcome::{
    Clean, Computed, Effect, Group, Interval, Level, NotComputed, Outcome, Test, constant, largest,
};
use super::ranks::Ranks;

/// The largest group for which Mann–Whitney's exact distribution is counted out.
const LARGEST_EXACT: usize = 50;

/// One-way analysis of variance: do the means of k groups differ, at equal variances?
///
/// F = (SSB/(k − 1)) / (SSW/(N − k)), where SSB = Σ nᵢ(x̄ᵢ − x̄)² and SSW = Σᵢ Σⱼ (xᵢⱼ − x̄ᵢ)², against Fisher's F with k − 1 and
/// N − k degrees of freedom (Fisher 1925). The effect is η² = SSB/(SSB + SSW). Needs 2 groups of 2 values, and variance in
/// one of them.
pub fn anova(groups: &[Group]) -> Outcome<Test> {
    let cleans: Vec<Clean> = groups.iter().map(Clean::of).collect();
    outcome(&cleans, |values| {
        all_vary(values)?;
        let values = centred(values);
        let n: usize = values.iter().map(Vec::len).sum();
        let grand = sum(values.iter().flatten().copied()) / n as f64;
        let off = |v: &[f64]| v.len() as f64 * (mean(v) - grand) * (mean(v) - grand);
        let between = sum(values.iter().map(|v| off(v)));
        let within = sum(values.iter().map(|v| squares(v)));
        let freedom = [(values.len() - 1) as f64, (n - values.len()) as f64];
        let f = finite((between / freedom[0]) / (within / freedom[1]))?;
        Test {
            name: "one-way ANOVA",
            symbol: "F",
            statistic: Some(f),
            freedom: freedom.to_vec(),
            p: fisher_upper(f, freedom[0], freedom[1]),
            method: "F distribution, equal variances",
            effects: vec![plain("eta squared", between / (between + within))],
            notes: Vec::new(),
        }
        .checked()
    })
}

/// Kruskal–Wallis: do k groups come from one distribution, by their ranks?
///
/// H = (12/(N(N + 1)) Σ Rᵢ²/nᵢ − 3(N + 1)) / (1 − Σ(t³ − t)/(N³ − N)), with rank sums Rᵢ of midranks and runs of t tied values,
/// against chi-square with k − 1 degrees of freedom (Kruskal & Wallis 1952, doi:10.1080/01621459.1952.10483441). The
/// effect is ε² = H/(N − 1). Needs 2 groups of 2 values that are not all the same; with fewer than 5 in a group a note
/// says that p is rough.
pub fn kruskal_wallis(groups: &[Group]) -> Outcome<Test> {
    let cleans: Vec<Clean> = groups.iter().map(Clean::of).collect();
    outcome(&cleans, |values| {
        let all = values.concat();
        let n = all.len() as f64;
        let ranks = Ranks::new(&all);
        if ranks.all_tied() {
            return Err(NotComputed::no_variance("the groups"));
        }
        let mut rest = &ranks.of[..];
        let spread = sum(values.iter().map(|v| {
            let (own, others) = rest.split_at(v.len());
            rest = others;
            // From the mean rank, which leaves nothing to cancel.
            let off = mean(own) - f64::midpoint(n, 1.0);
            v.len() as f64 * off * off
        }));
        let h = 12.0 / (n * (n + 1.0)) * spread / (1.0 - ranks.ties() / (n * n * n - n));
        let freedom = (values.len() - 1) as f64;
        let least = values.iter().map(|v| v.len()).min().unwrap_or_default();
        Test {
            name: "Kruskal–Wallis",
            symbol: "H",
            statistic: Some(h),
            freedom: vec![freedom],
            p: chi_square_upper(h, freedom),
            method: "chi-square approximation with tie correction",
            effects: vec![plain("epsilon squared", h / (n - 1.0))],
            notes: (least < 5)
                .then(|| format!("the smallest group has n = {least}, below 5: p is rough"))
                .into_iter()
                .collect(),
        }
        .checked()
    })
}

/// Student's t: do the means of two groups differ, at equal variances?
///
/// t = (x̄₁ − x̄₂) / (s√(1/n₁ + 1/n₂)), with the pooled s² = (SS₁ + SS₂)/(n₁ + n₂ − 2) and as many degrees of freedom (Student
/// 1908, Fisher 1925). The effect is x̄₁ − x̄₂ with its interval. Needs 2 values a group, and variance in one of them.
pub fn student_t(first: &Group, second: &Group, level: Level) -> Outcome<Test> {
    two_means(first, second, |a, b| {
        let freedom = (a.len() + b.len() - 2) as f64;
        let pooled = (squares(a) + squares(b)) / freedom;
        let error = (pooled * (1.0 / a.len() as f64 + 1.0 / b.len() as f64)).sqrt();
        let names = ("Student's t", "t distribution, equal variances");
        t_test(names, "mean difference", mean(a) - mean(b), error, freedom, level)
    })
}

/// Welch's t: do the means of two groups differ, whatever their variances?
///
/// t = (x̄₁ − x̄₂) / √(s₁²/n₁ + s₂²/n₂), with Satterthwaite's degrees of freedom
/// (s₁²/n₁ + s₂²/n₂)² / ((s₁²/n₁)²/(n₁ − 1) + (s₂²/n₂)²/(n₂ − 1)) (Welch 1947, doi:10.1093/biomet/34.1-2.28). The effect is x̄₁ − x̄₂
/// with its interval. Needs 2 values a group, and variance in one of them.
pub fn welch_t(first: &Group, second: &Group, level: Level) -> Outcome<Test> {
    two_means(first, second, |a, b| {
        let share = |v: &[f64]| variance(v) / v.len() as f64;
        let (own, other) = (share(a), share(b));
        let total = own + other;
        // Shares of the whole, since squares of small variances vanish.
        let part = |v: f64, n: usize| (v / total).powi(2) / (n as f64 - 1.0);
        let freedom = 1.0 / (part(own, a.len()) + part(other, b.len()));
        let names = ("Welch's t", "t distribution, unequal variances");
        t_test(names, "mean difference", mean(a) - mean(b), total.sqrt(), freedom, level)
    })
}

/// Mann–Whitney U: is a value of the first group as often above one of the second as below?
///
/// U = R₁ − n₁(n₁ + 1)/2, the pairs in which the first group's value is the greater one, with ties as halves (Mann & Whitney 1947,
/// doi:10.1214/aoms/1177730491). p is exact without ties in groups of at most 50 values. Otherwise it is that of
/// z = (|U − n₁n₂/2| − ½)/σ with σ² = n₁n₂/12 · (N + 1 − Σ(t³ − t)/(N(N − 1))). The effect is U/(n₁n₂), the probability of superiority.
/// Needs 2 values a group that are not all the same.
pub fn mann_whitney(first: &Group, second: &Group) -> Outcome<Test> {
    let cleans = [Clean::of(first), Clean::of(second)];
    outcome(&cleans, |values| {
        let all = values.concat();
        let (n1, n2) = (values[0].len(), values[1].len());
        let ranks = Ranks::new(&all);
        if ranks.all_tied() {
            return Err(NotComputed::no_variance("the groups"));
        }
        let pairs = n1 as f64 * n2 as f64;
        let u = sum(ranks.of[..n1].iter().copied()) - n1 as f64 * (n1 as f64 + 1.0) / 2.0;
        let greater = u.max(pairs - u);
        let exact = !ranks.has_ties() && n1.max(n2) <= LARGEST_EXACT;
        let (p, method) = if exact {
            ((2.0 * u_upper(greater as usize, n1, n2)).min(1.0), "exact distribution")
        } else {
            let n = (n1 + n2) as f64;
            let sigma = (pairs / 12.0 * (n + 1.0 - ranks.ties() / (n * (n - 1.0)))).sqrt();
            let z = (greater - pairs / 2.0 - 0.5).max(0.0) / sigma;
            (
                normal_two_sided(z),
                "normal approximation with tie correction and continuity correction",
            )
        };
        Test {
            name: "Mann–Whitney U",
            symbol: "U",
            statistic: Some(u),
            freedom: Vec::new(),
            p,
            method,
            effects: vec![plain("probability of superiority", u / pairs)],
            notes: Vec::new(),
        }
        .checked()
    })
}

/// P(U ≥ u) for groups of n₁ and n₂ values without ties.
///
/// The number of orders with U = u is the coefficient of q^u in the Gaussian binomial
/// Π (1 − q^(n₂+i))/(1 − qⁱ), i = 1…n₁, counted in integers: C(100, 50) fits.
fn u_upper(u: usize, n1: usize, n2: usize) -> f64 {
    let mut counts = vec![0_i128; n1 * n2 + 1];
    counts[0] = 1;
    for i in 1..=n1 {
        for k in (n2 + i..counts.len()).rev() {
            counts[k] -= counts[k - n2 - i];
        }
        for k in i..counts.len() {
            counts[k] += counts[k - i];
        }
    }
    let upper: i128 = counts[u..].iter().sum();
    upper as f64 / counts.iter().sum::<i128>() as f64
}

fn outcome(cleans: &[Clean], test: impl FnOnce(&[&[f64]]) -> Computed<Test>) -> Outcome<Test> {
    let result = (|| {
        if cleans.len() < 2 {
            return Err(NotComputed::TooFewGroups { of: "groups", n: cleans.len(), needs: 2 });
        }
        let values = cleans.iter().map(|c| c.at_least(2)).collect::<Computed<Vec<_>>>()?;
        test(&values)
    })();
    Outcome { samples: cleans.iter().map(|c| c.sample.clone()).collect(), result }
}

fn two_means(
    first: &Group,
    second: &Group,
    test: impl FnOnce(&[f64], &[f64]) -> Computed<Test>,
) -> Outcome<Test> {
    outcome(&[Clean::of(first), Clean::of(second)], |values| {
        all_vary(values)?;
        let values = centred(values);
        test(&values[0], &values[1])
    })
}

/// Refuses groups none of which varies.
pub(super) fn all_vary(groups: &[&[f64]]) -> Computed<()> {
    if groups.iter().all(|v| constant(v, largest(v))) {
        return Err(NotComputed::no_variance("any group"));
    }
    Ok(())
}

/// The test of a difference by its standard error.
pub(super) fn t_test(
    (name, method): (&'static str, &'static str),
    effect: &'static str,
    difference: f64,
    error: f64,
    freedom: f64,
    level: Level,
) -> Computed<Test> {
    let t = finite(difference / error)?;
    let half = student_quantile(level, freedom) * error;
    let interval = Some(Interval::around(difference, half, level));
    Test {
        name,
        symbol: "t",
        statistic: Some(t),
        freedom: vec![freedom],
        p: student_two_sided(t, freedom),
        method,
        effects: vec![Effect { name: effect, value: difference, interval }],
        notes: Vec::new(),
    }
    .checked()
}

/// An effect without an interval.
pub(super) fn plain(name: &'static str, value: f64) -> Effect {
    Effect { name, value, interval: None }
}
