//! Where a slice lies in a volume, which part of it is shown, and which intensities are black and white.

use super::canvas::GREYS;
use crate::report::stats::quantile;
use crate::volume::{Image, Mask, Volume};

/// What is shown around a lesion at least, in mm: beside it, and in all.
const MARGIN_MM: f64 = 25.0;
const SMALLEST_VIEW_MM: f64 = 90.0;

/// Which voxel axis runs along the world's right, anterior and superior, and whether backwards.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) axis: [usize; 3],
    pub(super) backwards: [bool; 3],
    /// Voxels along right, anterior, superior.
    pub(super) shape: [usize; 3],
    pub(super) spacing_mm: [f64; 3],
}

impl View {
    pub(super) fn of<T>(volume: &Volume<T>) -> Self {
        let affine = &volume.affine.0;
        let spacing = volume.spacing_mm();
        let mut free = vec![0, 1, 2];
        let mut axis = [0; 3];
        // Superior first: it decides what a slice is.
        for world in [2, 1, 0] {
            let share = |&a: &usize| {
                let v = affine[world][a].abs() / spacing[a];
                if v.is_finite() { v } else { 0.0 }
            };
            let best = (0..free.len())
                .max_by(|&i, &j| share(&free[i]).total_cmp(&share(&free[j])).then(j.cmp(&i)));
            axis[world] = free.remove(best.unwrap_or(0));
        }
        let shape = volume.grid().shape;
        let sound = |v: f64| if v.is_finite() && v > 0.0 { v } else { 1.0 };
        Self {
            axis,
            backwards: [0, 1, 2].map(|w| affine[w][axis[w]] < 0.0),
            shape: axis.map(|a| shape[a]),
            spacing_mm: axis.map(|a| sound(spacing[a])),
        }
    }

    /// Array index `[z, y, x]` of a voxel counted along right, anterior, superior.
    pub(super) fn index(&self, ras: [usize; 3]) -> [usize; 3] {
        let mut xyz = [0; 3];
        for world in 0..3 {
            let last = self.shape[world] - 1;
            let i = ras[world].min(last);
            xyz[self.axis[world]] = if self.backwards[world] { last - i } else { i };
        }
        [xyz[2], xyz[1], xyz[0]]
    }

    /// The voxels of an axial slice.
    pub(super) fn plane(&self, s: usize) -> impl Iterator<Item = [usize; 3]> + '_ {
        let (right, anterior) = (self.shape[0], self.shape[1]);
        (0..anterior).flat_map(move |a| (0..right).map(move |r| self.index([r, a, s])))
    }

    /// The slice with most voxels of the head; of equals, the one nearest to the middle.
    pub(super) fn fullest(&self, image: &Image, window: Window) -> usize {
        let middle = self.shape[2] / 2;
        let count = |s: usize| self.plane(s).filter(|&at| window.is_head(image.data[at])).count();
        (0..self.shape[2])
            .max_by_key(|&s| (count(s), std::cmp::Reverse(s.abs_diff(middle))))
            .unwrap_or(middle)
    }

    /// The head's bounds in a slice, over every slice, with a small margin.
    pub(super) fn head(&self, image: &Image, window: Window) -> Region {
        let inside = |at: [usize; 3]| window.is_head(image.data[at]);
        self.bounds(inside)
            .map_or(Region { right: (0, self.shape[0]), anterior: (0, self.shape[1]) }, |region| {
                region.grown(self, 6.0, 0.0)
            })
    }

    /// The bounds of both lesions with what is around them.
    pub(super) fn around(&self, truth: &Mask, prediction: &Mask, head: Region) -> Region {
        let inside = |at: [usize; 3]| truth.data[at] > 0 || prediction.data[at] > 0;
        self.bounds(inside)
            .map_or(head, |region| region.grown(self, MARGIN_MM, SMALLEST_VIEW_MM).squared(self))
    }

    pub(super) fn bounds(&self, inside: impl Fn([usize; 3]) -> bool) -> Option<Region> {
        let mut found: Option<Region> = None;
        for s in 0..self.shape[2] {
            for a in 0..self.shape[1] {
                for r in 0..self.shape[0] {
                    if inside(self.index([r, a, s])) {
                        let here = Region { right: (r, r + 1), anterior: (a, a + 1) };
                        found = Some(found.map_or(here, |region| region.with(here)));
                    }
                }
            }
        }
        found
    }
}

/// A rectangle of a slice in voxels, half-open, along right and anterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) right: (usize, usize),
    pub(super) anterior: (usize, usize),
}

impl Region {
    pub(super) fn with(self, other: Self) -> Self {
        let both = |a: (usize, usize), b: (usize, usize)| (a.0.min(b.0), a.1.max(b.1));
        Self { right: both(self.right, other.right), anterior: both(self.anterior, other.anterior) }
    }

    /// Larger by `margin_mm` on every side and no smaller than `least_mm`, within the slice.
    pub(super) fn grown(self, view: &View, margin_mm: f64, least_mm: f64) -> Self {
        let grow = |(from, to): (usize, usize), axis: usize| {
            let voxel = view.spacing_mm[axis];
            let least = ((least_mm / voxel - (to - from) as f64) / 2.0).max(0.0);
            let margin = (margin_mm / voxel).max(least).ceil() as usize;
            (from.saturating_sub(margin), to.saturating_add(margin).min(view.shape[axis]))
        };
        Self { right: grow(self.right, 0), anterior: grow(self.anterior, 1) }
    }

    /// As wide as high in mm where the slice is large enough.
    pub(super) fn squared(self, view: &View) -> Self {
        let side_mm = self.extent_mm(view);
        let stretch = |(from, to): (usize, usize), axis: usize| {
            let wanted = (side_mm / view.spacing_mm[axis]).round().max(1.0) as usize;
            let more = wanted.saturating_sub(to - from);
            let end = (from.saturating_sub(more / 2) + wanted.max(to - from)).min(view.shape[axis]);
            (end.saturating_sub(wanted).min(from), end.max(to))
        };
        Self { right: stretch(self.right, 0), anterior: stretch(self.anterior, 1) }
    }

    /// Width and height in mm.
    pub(super) fn size_mm(self, view: &View) -> (f64, f64) {
        let side =
            |(from, to): (usize, usize), axis: usize| (to - from) as f64 * view.spacing_mm[axis];
        (side(self.right, 0), side(self.anterior, 1))
    }

    /// The longer side in mm.
    pub(super) fn extent_mm(self, view: &View) -> f64 {
        let (width, height) = self.size_mm(view);
        width.max(height)
    }
}

/// The intensities drawn as black and as white, and the least intensity of the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    black: f64,
    white: f64,
    head: f64,
}

impl Window {
    /// From a sample of the voxels: the 1st percentile is black, the 99.8th of what lies above is white.
    pub(super) fn of(image: &Image) -> Self {
        const SAMPLE: usize = 100_000;
        let voxels = image.voxels();
        let step = voxels.len().div_ceil(SAMPLE).max(1);
        let finite = voxels.iter().step_by(step).filter(|v| v.is_finite());
        let mut sample: Vec<f64> = finite.map(|v| f64::from(*v)).collect();
        sample.sort_by(f64::total_cmp);
        let black = quantile(&sample, 0.01).unwrap_or(0.0);
        let above = sample.partition_point(|v| *v <= black);
        let white = quantile(&sample[above..], 0.998).unwrap_or(black + 1.0);
        Self { black, white, head: black + 0.1 * (white - black) }
    }

    pub(super) fn is_head(self, value: f32) -> bool {
        f64::from(value) > self.head
    }

    pub(super) fn grey(self, value: f64) -> u8 {
        let share = (value - self.black) / (self.white - self.black);
        if share.is_nan() { 0 } else { (share.clamp(0.0, 1.0) * GREYS).round() as u8 }
    }
}
