//! Windows over an image, as MONAI's `sliding_window_inference` lays and weighs them: they overlap by a share, the last one
//! ends with the axis, and Gaussian weights (σ = an eighth of the window) trust the middle of a window more than its rim.

/// How an image is divided, along the three axes in the image's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Voxels of a window.
    pub window: [usize; 3],
    /// Voxels of background before and after each axis, where the image is smaller than a window.
    pub padding: [[usize; 2]; 3],
    /// Where windows begin in the padded image.
    pub starts: [Vec<usize>; 3],
}

impl Windows {
    /// Divides an image of `size`. A window is no longer than the axis, rounded up to what the network needs (`multiple`).
    pub fn new(size: [usize; 3], window: [usize; 3], multiple: [usize; 3], overlap: f64) -> Self {
        let whole = |a: usize| size[a].next_multiple_of(multiple[a]);
        let window: [usize; 3] = std::array::from_fn(|a| match window[a] {
            0 => whole(a),
            wanted => wanted.min(whole(a)),
        });
        let padding = std::array::from_fn(|a| {
            let missing = window[a].saturating_sub(size[a]);
            [missing / 2, missing - missing / 2]
        });
        let starts = std::array::from_fn(|a| starts(size[a].max(window[a]), window[a], overlap));
        Self { window, padding, starts }
    }

    /// Where every window begins.
    pub fn corners(&self) -> impl Iterator<Item = [usize; 3]> {
        let [z, y, x] = &self.starts;
        z.iter().flat_map(move |&z| y.iter().flat_map(move |&y| x.iter().map(move |&x| [z, y, x])))
    }

    /// Whether one window is the whole image.
    pub fn is_one(&self) -> bool {
        self.starts.iter().all(|s| s.len() == 1)
    }

    /// The weight of every voxel of a window, in memory order: at least a thousandth of the middle's.
    pub fn weights(&self) -> Vec<f32> {
        const LEAST: f32 = 1e-3;
        let [d, h, w] = self.window.map(gaussian);
        let plane = d.iter().flat_map(|z| h.iter().map(move |y| z * y));
        plane.flat_map(|zy| w.iter().map(move |x| (zy * x).max(LEAST))).collect()
    }
}

fn starts(size: usize, window: usize, overlap: f64) -> Vec<usize> {
    let last = size - window;
    let stride = ((window as f64 * (1.0 - overlap)) as usize).max(1);
    (0..=last.div_ceil(stride)).map(|i| (i * stride).min(last)).collect()
}

/// Weights along an axis of a window, 1 in the middle.
fn gaussian(window: usize) -> Vec<f32> {
    let (middle, sigma) = ((window as f64 - 1.0) / 2.0, window as f64 / 8.0);
    (0..window).map(|i| (-0.5 * ((i as f64 - middle) / sigma).powi(2)).exp() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // from monai.data.utils import dense_patch_slices
    // from monai.inferers.utils import _get_scan_interval
    // [s[0].start for s in dense_patch_slices((n,), (w,), _get_scan_interval((n,), (w,), 1, (o,)))]
    #[test]
    fn windows_lie_where_monai_lays_them() {
        for (size, window, overlap, expected) in [
            (16, 16, 0.5, vec![0]),
            (17, 16, 0.5, vec![0, 1]),
            (40, 16, 0.5, vec![0, 8, 16, 24]),
            (33, 8, 0.25, vec![0, 6, 12, 18, 24, 25]),
            (100, 33, 0.6, vec![0, 13, 26, 39, 52, 65, 67]),
            (9, 1, 0.5, (0..9).collect()),
        ] {
            assert_eq!(starts(size, window, overlap), expected, "{size} {window} {overlap}");
        }
    }

    #[test]
    fn a_short_axis_clips_the_window_and_is_padded_on_both_sides() {
        let windows = Windows::new([25, 40, 8], [96, 32, 0], [32, 16, 4], 0.5);
        assert_eq!(windows.window, [32, 32, 8]);
        assert_eq!(windows.padding, [[3, 4], [0, 0], [0, 0]]);
        assert_eq!(windows.starts, [vec![0], vec![0, 8], vec![0]]);
        assert!(!windows.is_one());
        assert_eq!(windows.corners().collect::<Vec<_>>(), [[0, 0, 0], [0, 8, 0]]);
        // The grid of the training, although no multiple: the network pads it as it did then.
        assert_eq!(Windows::new([25; 3], [25; 3], [4; 3], 0.5).padding, [[0, 0]; 3]);
    }

    // from monai.data.utils import compute_importance_map
    // m = compute_importance_map((16, 8, 4), mode="gaussian", sigma_scale=0.125)
    // m[0, 0, 0], m[4, 3, 1], m[7, 3, 2]
    #[test]
    fn weights_are_those_of_monai() {
        let windows = Windows::new([16, 8, 4], [16, 8, 4], [1; 3], 0.5);
        let weights = windows.weights();
        for ([z, y, x], expected) in
            [([0, 0, 0], 0.001), ([4, 3, 1], 0.115_758_404), ([7, 3, 2], 0.518_793_17)]
        {
            let found = weights[(z * 8 + y) * 4 + x];
            assert!((found - expected).abs() < 1e-6, "{z} {y} {x}: {found}");
        }
    }
}
