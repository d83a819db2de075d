//! b-values: which volume of a 4-D diffusion series is the diffusion-weighted image, and which are without weighting.
//!
//! A `.bval` file holds one number in s/mm² a volume, separated by white space (BIDS, FSL). Scanners write values such
//! as 0.001, 4 or 15 for "none" and 929 for 1,000, so b < 50 counts as 0 and the b nearest to 1,000 is chosen.

use std::path::Path;

use super::files::read_text;
use crate::error::{Error, Result};

/// Below this, in s/mm², an image counts as not diffusion-weighted.
pub const B0_BELOW_S_PER_MM2: f64 = 50.0;

/// The weighting at which infarcts are read, in s/mm².
pub const TARGET_B_S_PER_MM2: f64 = 1000.0;

/// Most bytes of a `.bval` file.
const MAX_BYTES: u64 = 1 << 20;

/// Which volumes to use.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The volumes without diffusion weighting, in order; may be empty.
    pub b0: Vec<usize>,
    /// The volume whose b-value is nearest to 1,000 s/mm²; of equals the first.
    pub dwi: usize,
    /// b-value of that volume, in s/mm².
    pub b_value_s_per_mm2: f64,
}

/// Chooses among the volumes of a series by their b-values in s/mm².
///
/// # Errors
/// A data error where a value is negative or not finite, or none is 50 or more.
pub fn select(bvals: &[f64]) -> Result<Selection> {
    if let Some((i, b)) = bvals.iter().enumerate().find(|(_, b)| !b.is_finite() || **b < 0.0) {
        return Err(Error::data(format!(
            "the b-value of volume {i} is {b}, where 0 or more is expected"
        )));
    }
    let is_b0 = |i: &usize| bvals[*i] < B0_BELOW_S_PER_MM2;
    let off = |i: &usize| (bvals[*i] - TARGET_B_S_PER_MM2).abs();
    let dwi = (0..bvals.len()).filter(|i| !is_b0(i)).min_by(|a, b| off(a).total_cmp(&off(b)));
    let Some(dwi) = dwi else {
        return Err(Error::data(format!(
            "none of the {} b-values is {B0_BELOW_S_PER_MM2} s/mm² or more: no volume is diffusion-weighted",
            bvals.len()
        )));
    };
    let b0 = (0..bvals.len()).filter(is_b0).collect();
    Ok(Selection { b0, dwi, b_value_s_per_mm2: bvals[dwi] })
}

/// The b-values in a `.bval` file, in s/mm².
///
/// # Errors
/// A data error where the file holds something else, or not one value for each of the `volumes`.
pub fn read_bvals(path: &Path, volumes: usize) -> Result<Vec<f64>> {
    let text = read_text(path, MAX_BYTES)?;
    let place = path.display();
    let values: Vec<f64> = text
        .split_whitespace()
        .map(|word| {
            word.parse().map_err(|_| {
                let word: String = word.chars().take(20).collect();
                Error::data(format!("{place}: `{word}` is not a b-value"))
            })
        })
        .collect::<Result<_>>()?;
    if values.len() != volumes {
        return Err(Error::data(format!(
            "{place}: {} b-values for {volumes} volumes",
            values.len()
        ))
        .hint("a .bval file holds one b-value for each volume of its image"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_volume_nearest_to_1000_is_chosen() {
        let s = select(&[0.001, 2000.0, 929.0, 4.0, 1071.0, 500.0]).unwrap();
        assert_eq!(s, Selection { b0: vec![0, 3], dwi: 2, b_value_s_per_mm2: 929.0 });
        assert_eq!(select(&[800.0]).unwrap().b0, Vec::<usize>::new());
        assert_eq!(select(&[0.0, 1000.0, 1000.0]).unwrap().dwi, 1);
    }

    #[test]
    fn series_without_weighting_are_refused() {
        for bad in [&[][..], &[0.0, 49.0], &[0.0, f64::NAN], &[-1000.0]] {
            assert!(select(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_of_b_values_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bval");
        std::fs::write(&path, "0 9.928e+02\n1000\t5 \n").unwrap();
        assert_eq!(read_bvals(&path, 4).unwrap(), [0.0, 992.8, 1000.0, 5.0]);
        assert!(read_bvals(&path, 3).unwrap_err().reason().contains("4 b-values for 3"));
        std::fs::write(&path, "0 b1000").unwrap();
        assert!(read_bvals(&path, 2).unwrap_err().reason().contains("b1000"));
    }
}
