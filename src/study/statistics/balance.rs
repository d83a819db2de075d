//! How far apart two groups are, whatever their size: what a split is checked by, since p values grow with n.

use super::categorical::Table;
use super::descriptive::{centred, finite, mean, variance};
use super::groups::all_vary;
use super::outcome::{Categories, Clean, Computed, Group, NotComputed, Outcome};

/// Standardised mean difference of a continuous variable, first − second.
///
/// (x̄₁ − x̄₂) / √((s₁² + s₂²)/2), with variances that have n − 1 below (Austin 2009, doi:10.1002/sim.3697). Below 0.1 in magnitude is
/// the usual bound of balance. Needs 2 values a group, and variance in one of them.
pub fn difference(first: &Group, second: &Group) -> Outcome<f64> {
    let cleans = [Clean::of(first), Clean::of(second)];
    let result = (|| {
        let values = [cleans[0].at_least(2)?, cleans[1].at_least(2)?];
        all_vary(&values)?;
        let values = centred(&values);
        let spread = f64::midpoint(variance(&values[0]), variance(&values[1])).sqrt();
        finite((mean(&values[0]) - mean(&values[1])) / spread)
    })();
    Outcome { samples: cleans.map(|c| c.sample).to_vec(), result }
}

/// Standardised difference of a categorical variable, never below 0.
///
/// √(dᵀ S⁻¹ d), where d are the differences of the shares of all categories but one, and S is the mean of both groups'
/// multinomial covariances, pᵢ(1 − pᵢ) and −pᵢpⱼ (Yang & Dalton 2012, SAS Global Forum, paper 335). It does not depend on which category is left out;
/// with two it is |p₁ − p₂| / √((p₁q₁ + p₂q₂)/2). Needs 1 value a group. Groups that share no category are infinitely far
/// apart, and not computed.
pub fn difference_categorical(first: &Categories, second: &Categories) -> Outcome<f64> {
    let table = Table::of_groups(&[*first, *second]);
    let result = distance(&table);
    Outcome { samples: table.rows, result }
}

fn distance(table: &Table) -> Computed {
    for row in &table.rows {
        if row.n == 0 {
            return Err(NotComputed::TooFew { of: row.name.clone(), n: 0, needs: 1 });
        }
    }
    let shares = |i: usize| -> Vec<f64> {
        table.counts[i].iter().map(|&k| k as f64 / table.rows[i].n as f64).collect()
    };
    let (p, q) = (shares(0), shares(1));
    // Only then is the covariance singular: the categories of each group can be told apart by a constant.
    if p.iter().zip(&q).all(|(a, b)| a * b <= 0.0) {
        return Err(NotComputed::no_variance("the categories that each group has"));
    }
    let k = p.len() - 1;
    let covariance = |i: usize, j: usize| {
        let own = |p: &[f64]| if i == j { p[i] * (1.0 - p[i]) } else { -p[i] * p[j] };
        f64::midpoint(own(&p), own(&q))
    };
    // Cholesky: S = L Lᵀ, and the distance is the length of L⁻¹ d.
    let mut lower = vec![vec![0.0_f64; k]; k];
    let mut solved = vec![0.0_f64; k];
    for i in 0..k {
        for j in 0..=i {
            let done: f64 = (0..j).map(|m| lower[i][m] * lower[j][m]).sum();
            let rest = covariance(i, j) - done;
            lower[i][j] = if i == j { rest.max(0.0).sqrt() } else { rest / lower[j][j] };
        }
        let done: f64 = (0..i).map(|m| lower[i][m] * solved[m]).sum();
        solved[i] = (p[i] - q[i] - done) / lower[i][i];
    }
    finite(solved.iter().map(|v| v * v).sum::<f64>().sqrt())
}
