//! Where the head is: Otsu's threshold on a histogram that a few very bright voxels cannot spoil.
//!
//! Otsu (1979, doi:10.1109/TSMC.1979.4310076) picks the threshold that maximises w₀ w₁ (μ₁ − μ₀)², the variance between the
//! two classes. Here the histogram has 256 bins from the minimum to the 99.5th percentile; brighter voxels count in the last
//! bin. The head is every voxel above the threshold. Its dark parts (ventricles on DWI) are holes, which the
//! measures that need a filled head close by the spans of rows and columns.

use crate::volume::Image;

const BINS: usize = 256;
/// Voxels above this share of all count as the brightest.
const TOP_SHARE: f64 = 0.995;

/// A mask of the head and its extent in every row.
pub(super) struct Head {
    /// 1 in the head, in memory order.
    pub mask: Vec<u8>,
    /// (x, y, z).
    pub shape: [usize; 3],
    /// Voxels in each slice.
    pub slice_voxels: Vec<usize>,
    /// The intensities in the head, in memory order.
    pub values: Vec<f32>,
    /// First and last head voxel along x of each row (y fastest, then z); none in rows without one.
    pub row_spans: Vec<Option<(usize, usize)>>,
}

impl Head {
    /// The head of an image of finite voxels; empty where all of them are equal.
    pub fn find(image: &Image, low: f32, high: f32) -> Self {
        let shape @ [nx, ny, _] = image.grid().shape;
        let voxels = image.voxels();
        let mask: Vec<u8> = match split(voxels.iter().copied(), low, high) {
            Some(threshold) => voxels.iter().map(|&v| u8::from(v > threshold)).collect(),
            None => vec![0; voxels.len()],
        };
        let row_spans: Vec<_> = mask
            .chunks_exact(nx)
            .map(|row| {
                Some((row.iter().position(|&m| m != 0)?, row.iter().rposition(|&m| m != 0)?))
            })
            .collect();
        let slice_voxels: Vec<usize> = mask
            .chunks_exact(nx * ny)
            .map(|s| s.iter().map(|&m| usize::from(m != 0)).sum())
            .collect();
        let mut values = Vec::with_capacity(slice_voxels.iter().sum());
        for ((row, inside), span) in
            voxels.chunks_exact(nx).zip(mask.chunks_exact(nx)).zip(&row_spans)
        {
            let Some((first, last)) = *span else { continue };
            let pairs = row[first..=last].iter().zip(&inside[first..=last]);
            values.extend(pairs.filter(|(_, m)| **m != 0).map(|(v, _)| *v));
        }
        Self { mask, shape, slice_voxels, values, row_spans }
    }

    /// Number of voxels.
    pub fn voxels(&self) -> usize {
        self.slice_voxels.iter().sum()
    }

    /// Whether each voxel of slice `z` lies between head voxels along its row and along its column.
    pub fn filled_slice(&self, z: usize) -> Vec<bool> {
        let [nx, ny, _] = self.shape;
        let mask = &self.mask[z * nx * ny..][..nx * ny];
        let mut columns = vec![None; nx];
        for (index, _) in mask.iter().enumerate().filter(|(_, m)| **m != 0) {
            let (y, span) = (index / nx, &mut columns[index % nx]);
            *span = Some(span.map_or((y, y), |(first, _)| (first, y)));
        }
        let within = |span: Option<(usize, usize)>, i| span.is_some_and(|(a, b)| a <= i && i <= b);
        let rows = &self.row_spans[z * ny..][..ny];
        (0..nx * ny)
            .map(|i| within(rows[i / nx], i % nx) && within(columns[i % nx], i / nx))
            .collect()
    }
}

/// Otsu's threshold of values between `low` and `high`; none where they are not two different numbers.
pub(super) fn split(values: impl Iterator<Item = f32> + Clone, low: f32, high: f32) -> Option<f32> {
    if !(high > low && (high - low).is_finite()) {
        return None;
    }
    // A coarse pass finds the top of the histogram, the second one fills it.
    let top = quantile_edge(&histogram(values.clone(), low, high), low, high);
    otsu(&histogram(values, low, top), low, top)
}

fn histogram(values: impl Iterator<Item = f32>, low: f32, high: f32) -> Vec<u64> {
    let mut counts = vec![0_u64; BINS];
    let scale = BINS as f32 / (high - low);
    for v in values {
        // The cast saturates: below is the first bin, above the last.
        counts[(((v - low) * scale) as usize).min(BINS - 1)] += 1;
    }
    counts
}

/// Upper edge of the bin in which the top share begins.
fn quantile_edge(counts: &[u64], low: f32, high: f32) -> f32 {
    let wanted = TOP_SHARE * counts.iter().sum::<u64>() as f64;
    let mut seen = 0;
    let bin = counts.iter().position(|&n| {
        seen += n;
        seen as f64 >= wanted
    });
    low + (high - low) * ((bin.unwrap_or(BINS - 1) + 1) as f32 / BINS as f32)
}

fn otsu(counts: &[u64], low: f32, high: f32) -> Option<f32> {
    let total: f64 = counts.iter().map(|&n| n as f64).sum();
    let moment: f64 = counts.iter().enumerate().map(|(i, &n)| i as f64 * n as f64).sum();
    let (mut below, mut moment_below, mut best) = (0.0, 0.0, (0.0, None));
    for (i, &n) in counts.iter().enumerate().take(BINS - 1) {
        below += n as f64;
        moment_below += i as f64 * n as f64;
        let above = total - below;
        if below == 0.0 || above == 0.0 {
            continue;
        }
        let distance = moment_below / below - (moment - moment_below) / above;
        let between = below * above * distance * distance;
        if between > best.0 {
            best = (between, Some(i));
        }
    }
    best.1.map(|i| low + (high - low) * ((i + 1) as f32 / BINS as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_lies_between_two_classes_whatever_the_brightest_voxel() {
        let mut values: Vec<f32> = (0..3000).map(|i| (i % 7) as f32).collect();
        values.extend((0..1000).map(|i| 90.0 + (i % 21) as f32));
        for brightest in [111.0, 20_000.0] {
            values.push(brightest);
            let t = split(values.iter().copied(), 0.0, brightest);
            assert!(t.is_some_and(|t| t > 6.0 && t < 91.0), "{t:?}");
        }
    }

    #[test]
    fn equal_values_have_no_threshold() {
        assert_eq!(split([3.0; 9].into_iter(), 3.0, 3.0), None);
        assert_eq!(split([].into_iter(), f32::INFINITY, f32::NEG_INFINITY), None);
    }
}
