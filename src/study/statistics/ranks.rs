//! Ranks of values, with ties sharing the mean of their ranks.

/// Midranks, and how many values each run of equal ones has.
pub(super) struct Ranks {
    /// The rank of each value, from 1; equal values share the mean.
    pub of: Vec<f64>,
    runs: Vec<usize>,
}

impl Ranks {
    pub(super) fn new(values: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut of = vec![0.0; values.len()];
        let mut runs = Vec::new();
        let mut from = 0;
        // Equality, not the total order: 0 and −0 are a tie.
        for run in order.chunk_by(|&a, &b| values[a] >= values[b]) {
            let rank = (2 * from + run.len() + 1) as f64 / 2.0;
            for &i in run {
                of[i] = rank;
            }
            from += run.len();
            runs.push(run.len());
        }
        Self { of, runs }
    }

    pub(super) fn has_ties(&self) -> bool {
        self.runs.iter().any(|&t| t > 1)
    }

    /// Whether there is one value only.
    pub(super) fn all_tied(&self) -> bool {
        self.runs.len() < 2
    }

    /// Σ (t³ − t) over the runs of equal values.
    pub(super) fn ties(&self) -> f64 {
        self.runs.iter().map(|&t| (t as f64).powi(3) - t as f64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_the_mean_of_their_ranks() {
        let ranks = Ranks::new(&[3.0, 0.0, 2.0, -0.0, 3.0, 3.0]);
        assert_eq!(ranks.of, [5.0, 1.5, 3.0, 1.5, 5.0, 5.0]);
        assert!((ranks.ties() - 30.0).abs() < 1e-12 && ranks.has_ties());
        let ranks = Ranks::new(&[3.0, 1.0, 2.0]);
        assert_eq!(ranks.of, [3.0, 1.0, 2.0]);
        assert!(ranks.ties().abs() < 1e-12 && !ranks.has_ties());
    }
}
