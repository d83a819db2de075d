//! Lesions of two masks, and how many of each meet the other mask.

use super::overlap::Bounds;
use super::{ratio, same_grid};
use crate::error::Result;
use crate::imaging::components::{Connectivity, Runs};
use crate::volume::Mask;

/// Lesions of the two masks: components that touch by a face, an edge or a corner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lesions {
    /// Lesions of the truth.
    pub truth: u64,
    /// Lesions of the prediction.
    pub predicted: u64,
    /// Voxels of the truth.
    pub truth_voxels: u64,
    /// Voxels of the prediction.
    pub predicted_voxels: u64,
    /// Lesions of the truth that share a voxel with the prediction.
    pub truth_found: u64,
    /// Lesions of the prediction that share a voxel with the truth.
    pub predicted_true: u64,
}

/// Counts the lesions of both masks, and those that meet the other mask.
///
/// # Errors
/// As [`score`](super::score).
pub fn lesions(truth: &Mask, predicted: &Mask) -> Result<Lesions> {
    same_grid(truth, predicted)?;
    Ok(Lesions::count(truth, predicted, Bounds::of(truth, predicted).as_ref()))
}

impl Lesions {
    pub(super) fn count(truth: &Mask, predicted: &Mask, bounds: Option<&Bounds>) -> Self {
        let Some(bounds) = bounds else { return Self::default() };
        let [truth_count, truth_found, truth_voxels] = label_and_meet(truth, predicted, bounds);
        let [predicted_count, predicted_true, predicted_voxels] =
            label_and_meet(predicted, truth, bounds);
        Self {
            truth: truth_count,
            predicted: predicted_count,
            truth_voxels,
            predicted_voxels,
            truth_found,
            predicted_true,
        }
    }

    /// 2 tp / (2 tp + fn + fp), with tp the found and fn the missed lesions of the truth, fp the false ones of the
    /// prediction; 1 where there are none at all.
    pub fn f1(&self) -> f64 {
        let wrong = (self.truth - self.truth_found) + (self.predicted - self.predicted_true);
        ratio(2 * self.truth_found, 2 * self.truth_found + wrong)
    }

    /// Distance between the two counts.
    pub fn count_difference(&self) -> u64 {
        self.truth.abs_diff(self.predicted)
    }
}

/// Number of components of `mask`, of those that share a voxel with `other`, and of its voxels.
fn label_and_meet(mask: &Mask, other: &Mask, bounds: &Bounds) -> [u64; 3] {
    let mut runs = Runs::none(bounds.shape());
    bounds.rows(mask).for_each(|row| runs.push_row(row, |v| v != 0));
    let components = runs.components(Connectivity::TwentySix.links());
    let mut meets = vec![false; components.sizes.len()];
    for (other, range) in bounds.rows(other).zip(runs.rows.windows(2)) {
        let labels = &components.labels[range[0]..range[1]];
        for (run, label) in runs.all[range[0]..range[1]].iter().zip(labels) {
            let met = &mut meets[*label as usize];
            *met = *met || other[run.start as usize..run.end as usize].iter().any(|v| *v != 0);
        }
    }
    let met = meets.iter().filter(|m| **m).count();
    [meets.len(), met, components.sizes.iter().sum()].map(|n| n as u64)
}
