//! Tail probabilities and quantiles of the distributions that tests refer to.
//!
//! The normal quantile and the incomplete gamma function behind chi-square and the normal distribution are statrs's.
//! Student's t and Fisher's F rest on the regularised incomplete beta function; statrs's takes 1 − x from a rounded x, ends its continued fraction after 140 terms, and its quantile of t stops at 6
//! digits at 100,000 degrees of freedom. The one here takes x and 1 − x apart, and its prefactor by Loader's saddle point, which
//! has no differences of large logarithms (C. Loader 2000, "Fast and accurate computation of binomial
//! probabilities"). It keeps 12 digits up to a million degrees of freedom.

use std::f64::consts::PI;

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::gamma::{gamma_ur, ln_gamma};

use super::outcome::Level;

/// P(|T| ≥ |t|) for Student's t with ν degrees of freedom: I(ν/(ν + t²); ν/2, 1/2).
pub(super) fn student_two_sided(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    let (x, y) = student_shares(t, freedom);
    beta(freedom / 2.0, 0.5, x, y)
}

fn student_shares(t: f64, freedom: f64) -> (f64, f64) {
    // Divided through, since t² may overflow.
    let ratio = t / freedom.sqrt();
    let square = ratio * ratio;
    if square > 1.0 {
        let inverse = 1.0 / square;
        (inverse / (1.0 + inverse), 1.0 / (1.0 + inverse))
    } else {
        (1.0 / (1.0 + square), square / (1.0 + square))
    }
}

/// The t > 0 with P(|T| < t) = level.
///
/// Newton's steps from the normal quantile, which lies below: the tail is convex, so they rise to the solution.
pub(super) fn student_quantile(level: Level, freedom: f64) -> f64 {
    let tail = 1.0 - level.share();
    let mut t = normal_quantile(1.0 - tail / 2.0).max(f64::MIN_POSITIVE);
    for _ in 0..200 {
        let (x, y) = student_shares(t, freedom);
        // Twice the density is 2 · power / t.
        let density = 2.0 * power(freedom / 2.0, 0.5, x, y) / t;
        let step = (beta(freedom / 2.0, 0.5, x, y) - tail) / density;
        t += step;
        if step.abs() <= 1e-15 * t {
            break;
        }
    }
    t
}

/// P(F ≥ f) for Fisher's F: I(ν₂/(ν₂ + ν₁f); ν₂/2, ν₁/2).
pub(super) fn fisher_upper(f: f64, above: f64, below: f64) -> f64 {
    if f.is_infinite() {
        return 0.0;
    }
    let ratio = f * (above / below);
    let (x, y) = if ratio > 1.0 {
        let inverse = 1.0 / ratio;
        (inverse / (1.0 + inverse), 1.0 / (1.0 + inverse))
    } else {
        (1.0 / (1.0 + ratio), ratio / (1.0 + ratio))
    };
    beta(below / 2.0, above / 2.0, x, y)
}

/// P(χ² ≥ x): the regularised upper incomplete gamma function Q(ν/2, x/2).
pub(super) fn chi_square_upper(x: f64, freedom: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    gamma_ur(freedom / 2.0, x / 2.0)
}

/// P(Z ≤ z).
pub(super) fn normal_cdf(z: f64) -> f64 {
    let outside = normal_two_sided(z) / 2.0;
    if z <= 0.0 { outside } else { 1.0 - outside }
}

/// P(|Z| ≥ |z|), as P(χ² ≥ z²): statrs's error function keeps 10 digits, its incomplete gamma function 12.
pub(super) fn normal_two_sided(z: f64) -> f64 {
    chi_square_upper(z * z, 1.0)
}

/// The z with P(Z ≤ z) = p, for p above 0 and below 1.
pub(super) fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// I(x; a, b), the regularised incomplete beta function, with y = 1 − x.
fn beta(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if y <= 0.0 {
        return 1.0;
    }
    if x <= (a + 1.0) / (a + b + 2.0) {
        (power(a, b, x, y) * fraction(a, b, x) / a).min(1.0)
    } else {
        (1.0 - power(a, b, x, y) * fraction(b, a, y) / b).max(0.0)
    }
}

/// The continued fraction of I(x; a, b), Lentz's method (Press et al., Numerical Recipes, 6.4). It takes some √max(a, b)
/// terms for x ≤ (a + 1)/(a + b + 2).
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        h *= d * c;
        if (d * c - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    h
}

/// xᵃ yᵇ / B(a, b) with y = 1 − x: ab/(a + b) times the binomial density of a in a + b, by Loader's saddle point.
fn power(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let n = a + b;
    let logarithm = stirling_error(n)
        - stirling_error(a)
        - stirling_error(b)
        - deviance(a, n * x)
        - deviance(b, n * y);
    a * b / n * logarithm.exp() * (n / (2.0 * PI * a * b)).sqrt()
}

/// ln Γ(x + 1) less Stirling's (x + ½) ln x − x + ½ ln 2π.
fn stirling_error(x: f64) -> f64 {
    if x <= 15.0 {
        return ln_gamma(x + 1.0) - (x + 0.5) * x.ln() + x - 0.5 * (2.0 * PI).ln();
    }
    let square = 1.0 / (x * x);
    let series = [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0];
    series.iter().rev().fold(0.0, |sum, term| sum * square + term) / x
}

/// x ln(x/m) + m − x, without cancellation where x is near m.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * (x / m).ln() + m - x;
    }
    let v = (x - m) / (x + m);
    let mut sum = (x - m) * v;
    let mut term = 2.0 * x * v;
    for j in 1..1000 {
        term *= v * v;
        let next = sum + term / f64::from(2 * j + 1);
        if next.to_bits() == sum.to_bits() {
            break;
        }
        sum = next;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unreadable_literal, reason = "the numbers stand as they are printed")]

    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-11 * wanted, "{found}, not {wanted}");
    }

    // `python benches/peers/stats.py` prints these numbers, SciPy's.
    #[test]
    fn tails_keep_their_digits() {
        near(student_two_sided(1e-06, 2158.0), 0.9999992022078672);
        near(student_two_sided(2.5, 7.3), 0.03965023466560043);
        near(student_two_sided(1.5, 1000000.0), 0.1336147182367928);
        near(student_two_sided(30.0, 1000000.0), 1.2020094233664118e-197);
        near(student_two_sided(100000.0, 3.0), 2.2053155808932545e-15);
        near(fisher_upper(0.0001, 1.0, 1000000.0), 0.9920212893655476);
        near(fisher_upper(1.5, 3.0, 12013.0), 0.21234875292635116);
        near(fisher_upper(50.0, 3.0, 1000000.0), 2.6495788343831157e-32);
        near(fisher_upper(1000000.0, 2.0, 10.0), 3.1249218761718617e-27);
        near(fisher_upper(2.0, 30.0, 1.0), 0.5150430313169617);
        near(chi_square_upper(0.0001, 1.0), 0.9920212873707368);
        near(chi_square_upper(9.0, 3.0), 0.02929088653488826);
        near(chi_square_upper(300.0, 50.0), 2.3141364165140704e-37);
        near(chi_square_upper(1200.0, 2.0), 2.6503965530042593e-261);
        near(normal_two_sided(0.1), 0.920344325445942);
        near(normal_two_sided(1.96), 0.04999579029644087);
        near(normal_two_sided(8.0), 1.244192114854348e-15);
        near(normal_two_sided(-30.0), 9.813427854295816e-198);
        near(normal_cdf(-8.0), 6.22096057427174e-16);
        near(normal_cdf(-0.3), 0.3820885778110474);
        near(normal_cdf(0.3), 0.6179114221889526);
        near(normal_cdf(2.0), 0.9772498680518208);
    }

    #[test]
    fn quantiles_of_t_keep_their_digits() {
        let quantile =
            |level: f64, freedom| student_quantile(Level::new(level).unwrap_or_default(), freedom);
        near(quantile(0.95, 1.0), 12.706204736174694);
        near(quantile(0.95, 2158.0), 1.961063882456014);
        near(quantile(0.95, 1000000.0), 1.959966356814107);
        near(quantile(0.8, 1000000.0), 1.281552412129939);
        near(quantile(0.999, 3.0), 12.923978636687476);
        near(quantile(0.01, 5.0), 0.013171984672646872);
        // The tail of its quantile is the tail that was asked for.
        for freedom in [1.0, 2.5, 10.0, 1e3, 1e5, 1e7] {
            for share in [1e-6, 0.3, 0.95, 0.9999] {
                near(student_two_sided(quantile(share, freedom), freedom), 1.0 - share);
            }
        }
    }

    #[test]
    fn ends_are_exact() {
        let found = [
            student_two_sided(0.0, 5.0) - 1.0,
            student_two_sided(f64::INFINITY, 5.0),
            student_two_sided(1e200, 2.0),
            fisher_upper(0.0, 2.0, 5.0) - 1.0,
            fisher_upper(f64::INFINITY, 2.0, 5.0),
            chi_square_upper(0.0, 3.0) - 1.0,
            normal_two_sided(f64::INFINITY),
            normal_two_sided(0.0) - 1.0,
        ];
        assert!(found.iter().all(|v| v.abs() < 1e-300), "{found:?}");
    }
}
