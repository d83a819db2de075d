//! p values of many tests.

use serde::Serialize;

/// p values corrected for their number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holm {
    /// One entry a test, in the order of the input; nothing where the test was not computed.
    pub adjusted: Vec<Option<f64>>,
    /// Tests that were computed, the number that is corrected for.
    pub tests: usize,
    /// Tests that were not.
    pub missing: usize,
}

/// Holm's step-down correction: the adjusted p of the i-th smallest of m is max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎).
///
/// A test is significant at a family-wise α where its adjusted p is at most α (Holm 1979, Scandinavian Journal of Statistics
/// 6:65). `None`, and what is no probability, is a test that was not computed: it is counted and not corrected for.
///
/// ```
/// # use torcula::study::statistics::holm;
/// let found = holm(&[Some(0.01), None, Some(0.04), Some(0.03)]);
/// assert_eq!(found.adjusted, [Some(0.03), None, Some(0.06), Some(0.06)]);
/// assert_eq!((found.tests, found.missing), (3, 1));
/// ```
pub fn holm(p: &[Option<f64>]) -> Holm {
    let mut known: Vec<(usize, f64)> = p
        .iter()
        .enumerate()
        .filter_map(|(i, p)| Some((i, (*p)?)))
        .filter(|(_, p)| (0.0..=1.0).contains(p))
        .collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut adjusted = vec![None; p.len()];
    let mut most = 0.0_f64;
    for (rank, (i, p)) in known.iter().enumerate() {
        most = most.max((known.len() - rank) as f64 * p).min(1.0);
        adjusted[*i] = Some(most);
    }
    Holm { adjusted, tests: known.len(), missing: p.len() - known.len() }
}
