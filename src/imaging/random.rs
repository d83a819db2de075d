//! Keyed randomness: what is drawn depends on the seed and on what it is drawn for, never on when or where.
//!
//! A generator is asked for by name, such as `keyed(seed, &["augment", case_id, "epoch 3"])`. The name is hashed with
//! BLAKE3 (every label preceded by its length, so that `["ab", "c"]` and `["a", "bc"]` differ) and the 32 bytes of the
//! hash seed a `ChaCha8` stream. Two names give unrelated streams; one name always gives the same one, on any machine and
//! at any number of threads.
//!
//! The draws below are written out here rather than taken from a distribution library, so that an upgrade cannot
//! change the numbers of a recorded run.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The generator of one named purpose under one seed.
pub fn keyed(seed: u64, labels: &[&str]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for label in labels {
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label.as_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A number in [0, 1), uniform on the multiples of 2⁻⁵³.
pub fn unit(rng: &mut ChaCha8Rng) -> f64 {
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    (rng.next_u64() >> 11) as f64 * STEP
}

/// A number in `[range.start, range.end)`; `range.start` where the range is empty.
pub fn uniform(rng: &mut ChaCha8Rng, range: Range<f64>) -> f64 {
    let u = unit(rng);
    if range.end <= range.start {
        return range.start;
    }
    let value = range.start + u * (range.end - range.start);
    if value < range.end { value } else { range.start }
}

/// An integer below `bound`, without bias; 0 where `bound` is 0 (Lemire 2019, doi:10.1145/3230636).
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    if bound == 0 {
        return 0;
    }
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(bound);
        if wide as u64 >= threshold {
            return (wide >> 64) as u64;
        }
    }
}

/// True with the given probability; values outside [0, 1] count as the nearer end.
pub fn chance(rng: &mut ChaCha8Rng, probability: f64) -> bool {
    unit(rng) < probability
}

/// A number from the standard normal distribution (Marsaglia & Bray 1964, the polar method).
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    loop {
        let (a, b) = (2.0 * unit(rng) - 1.0, 2.0 * unit(rng) - 1.0);
        let s = a * a + b * b;
        if s > 0.0 && s < 1.0 {
            return a * (-2.0 * s.ln() / s).sqrt();
        }
    }
}

/// Puts the items into a random order (Fisher & Yates).
pub fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_stream() {
        let draw = |seed, labels: &[&str]| keyed(seed, labels).next_u64();
        assert_eq!(draw(7, &["case", "sub-1"]), draw(7, &["case", "sub-1"]));
        let others = [
            draw(8, &["case", "sub-1"]),
            draw(7, &["case", "sub-2"]),
            draw(7, &["cases", "ub-1"]),
            draw(7, &["case", "sub-1", ""]),
        ];
        assert!(others.iter().all(|&v| v != draw(7, &["case", "sub-1"])), "{others:?}");
    }

    // Recorded once; a change here would change every recorded run.
    #[test]
    fn the_stream_never_changes() {
        assert_eq!(keyed(42, &["case"]).next_u64(), 600_646_231_236_803_838);
    }

    #[test]
    fn draws_have_their_moments() {
        let mut rng = keyed(1, &["moments"]);
        let n = 200_000;
        let normals: Vec<f64> = (0..n).map(|_| normal(&mut rng)).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|v| v * v).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let uniforms: Vec<f64> = (0..n).map(|_| uniform(&mut rng, -2.0..4.0)).collect();
        let mean = uniforms.iter().sum::<f64>() / f64::from(n);
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!(uniforms.iter().all(|v| (-2.0..4.0).contains(v)));
        let hits = (0..n).filter(|_| chance(&mut rng, 0.25)).count();
        assert!((hits as f64 / f64::from(n) - 0.25).abs() < 0.01, "{hits}");
    }

    #[test]
    fn empty_ranges_give_their_start() {
        let mut rng = keyed(1, &[]);
        assert!((uniform(&mut rng, 3.0..3.0) - 3.0).abs() < 1e-15);
        assert_eq!(below(&mut rng, 0), 0);
        assert_eq!(below(&mut rng, 1), 0);
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        shuffle(&mut keyed(3, &["shuffle"]), &mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
