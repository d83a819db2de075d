//! Connected components of a mask.
//!
//! Runs of voxels along x are joined with the overlapping runs of the rows before them by union–find, the earlier run
//! being the root: labels count from 1 in memory order of each component's first voxel, as `scipy.ndimage.label`'s do.

use ndarray::Array3;

use crate::volume::Mask;

/// Which voxels are neighbours.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Connectivity {
    /// Those that share a face.
    Six,
    /// Those that share a face or an edge.
    Eighteen,
    /// Those that share a face, an edge or a corner.
    #[default]
    TwentySix,
}

impl Connectivity {
    /// Earlier rows in reach, as steps back in z and steps in y, and how far a run may miss another along x.
    pub(crate) fn links(self) -> &'static [Link] {
        match self {
            Self::Six => Link::ALL_FACES,
            Self::Eighteen => &[Link(0, -1, 1), Link(1, 0, 1), Link(1, -1, 0), Link(1, 1, 0)],
            Self::TwentySix => &[Link(0, -1, 1), Link(1, 0, 1), Link(1, -1, 1), Link(1, 1, 1)],
        }
    }
}

/// A step back in z, a step in y, and the gap along x that still touches.
#[derive(Clone, Copy)]
pub(crate) struct Link(usize, isize, u32);

impl Link {
    /// Neighbours that share a face.
    pub(crate) const ALL_FACES: &'static [Self] = &[Self(0, -1, 0), Self(1, 0, 0)];
    /// Neighbours that share a face within a slice.
    pub(crate) const WITHIN_SLICE: &'static [Self] = &[Self(0, -1, 0)];
}

/// Every voxel's component.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// 0 outside the mask, else the component, from 1; indexed `[z, y, x]`.
    pub data: Array3<u32>,
    /// Number of components.
    pub count: usize,
    /// Voxels of each component: `sizes[label - 1]`.
    pub sizes: Vec<usize>,
}

/// Labels the components of the voxels that are not zero.
pub fn label(mask: &Mask, connectivity: Connectivity) -> Labels {
    let runs = Runs::find(mask, |v| v != 0);
    let components = runs.components(connectivity.links());
    let mut data = Array3::zeros(mask.data.dim());
    if let Some(labels) = data.as_slice_mut() {
        for (range, label) in runs.ranges().zip(&components.labels) {
            labels[range].fill(label + 1);
        }
    }
    Labels { data, count: components.sizes.len(), sizes: components.sizes }
}

/// The largest component; the first in memory order of several. An empty mask stays empty.
pub fn largest(mask: &Mask, connectivity: Connectivity) -> Mask {
    let runs = Runs::find(mask, |v| v != 0);
    let components = runs.components(connectivity.links());
    let most = components.sizes.iter().copied().max();
    let chosen = components.sizes.iter().position(|&s| Some(s) == most);
    let mut out = Mask::filled(&mask.grid(), 0);
    for (range, label) in runs.ranges().zip(&components.labels) {
        if Some(*label as usize) == chosen {
            out.voxels_mut()[range].fill(1);
        }
    }
    out
}

/// Neighbouring voxels of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// The runs of a mask, row by row.
pub(crate) struct Runs {
    /// Voxels along x, y, z.
    pub(crate) shape: [usize; 3],
    pub(crate) all: Vec<Run>,
    /// First run of each row; one more than there are rows.
    pub(crate) rows: Vec<usize>,
}

/// Component of each run, from 0, and the voxels of each component.
pub(crate) struct Components {
    pub(crate) labels: Vec<u32>,
    pub(crate) sizes: Vec<usize>,
}

impl Runs {
    /// The runs of voxels for which `inside` holds.
    pub(crate) fn find(mask: &Mask, inside: impl Fn(u8) -> bool) -> Self {
        let mut found = Self::none(mask.grid().shape);
        for row in mask.voxels().chunks_exact(found.shape[0].max(1)) {
            found.push_row(row, &inside);
        }
        found
    }

    /// A mask of this shape before its first row.
    pub(crate) fn none(shape: [usize; 3]) -> Self {
        let mut rows = Vec::with_capacity(shape[1] * shape[2] + 1);
        rows.push(0);
        Self { shape, all: Vec::new(), rows }
    }

    /// Takes the next row.
    pub(crate) fn push_row(&mut self, row: &[u8], inside: impl Fn(u8) -> bool) {
        let mut open = None;
        for (first, voxels) in (0_u32..).step_by(64).zip(row.chunks(64)) {
            let bits = pack(voxels, &inside);
            let mut edges = bits ^ (bits << 1 | u64::from(open.is_some()));
            while edges != 0 {
                let at = first + edges.trailing_zeros();
                edges &= edges - 1;
                open = match open {
                    None => Some(at),
                    Some(start) => {
                        self.all.push(Run { start, end: at });
                        None
                    }
                };
            }
        }
        self.all.extend(open.map(|start| Run { start, end: row.len() as u32 }));
        self.rows.push(self.all.len());
    }

    /// The runs of row `y` of slice `z`.
    pub(crate) fn row(&self, y: usize, z: usize) -> &[Run] {
        let row = z * self.shape[1] + y;
        &self.all[self.rows[row]..self.rows[row + 1]]
    }

    /// Where each run lies in the mask's voxels.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let rows = self.rows.windows(2).enumerate();
        rows.flat_map(move |(row, runs)| {
            let first = row * self.shape[0];
            let shifted = move |r: &Run| first + r.start as usize..first + r.end as usize;
            self.all[runs[0]..runs[1]].iter().map(shifted)
        })
    }

    /// Joins the runs that touch by these links.
    pub(crate) fn components(&self, links: &[Link]) -> Components {
        let mut parents: Vec<u32> = (0..self.all.len() as u32).collect();
        let ny = self.shape[1];
        for row in 0..self.rows.len() - 1 {
            let (z, y) = (row / ny.max(1), row % ny.max(1));
            for &Link(back, step, gap) in links {
                let Some(other) = y.checked_add_signed(step).filter(|y| *y < ny) else { continue };
                if let Some(z) = z.checked_sub(back) {
                    self.join_rows(row, z * ny + other, gap, &mut parents);
                }
            }
        }
        let mut labels = vec![0; self.all.len()];
        let mut sizes = Vec::new();
        for i in 0..self.all.len() {
            // A root comes before all others of its component, so its label is known.
            let root = find(&mut parents, i as u32) as usize;
            if root == i {
                labels[i] = sizes.len() as u32;
                sizes.push(0);
            } else {
                labels[i] = labels[root];
            }
            sizes[labels[i] as usize] += (self.all[i].end - self.all[i].start) as usize;
        }
        Components { labels, sizes }
    }

    fn join_rows(&self, row: usize, other: usize, gap: u32, parents: &mut [u32]) {
        let (mut i, mut j) = (self.rows[row], self.rows[other]);
        let (i_end, j_end) = (self.rows[row + 1], self.rows[other + 1]);
        while i < i_end && j < j_end {
            let (a, b) = (self.all[i], self.all[j]);
            if a.start < b.end + gap && b.start < a.end + gap {
                let (p, q) = (find(parents, i as u32), find(parents, j as u32));
                parents[p.max(q) as usize] = p.min(q);
            }
            if a.end < b.end {
                i += 1;
            } else {
                j += 1;
            }
        }
    }
}

/// For up to 64 voxels one bit each, the first lowest.
fn pack(voxels: &[u8], inside: impl Fn(u8) -> bool) -> u64 {
    // Moves the low bits of eight bytes side by side into the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    // Most masks are mostly empty.
    if voxels.iter().fold(0, |all, v| all | v) == 0 {
        return if inside(0) { u64::MAX >> (64 - voxels.len()) } else { 0 };
    }
    let mut flags = [0_u8; 64];
    flags.iter_mut().zip(voxels).for_each(|(flag, v)| *flag = u8::from(inside(*v)));
    let (words, _) = flags.as_chunks::<8>();
    let bits = |word: &[u8; 8]| u64::from_le_bytes(*word).wrapping_mul(GATHER) >> 56;
    words.iter().rev().fold(0, |all, word| all << 8 | bits(word))
}

/// The root of a run; halves the path to it.
fn find(parents: &mut [u32], mut i: u32) -> u32 {
    while parents[i as usize] != i {
        let up = parents[parents[i as usize] as usize];
        parents[i as usize] = up;
        i = up;
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Grid};
    use proptest::prelude::*;

    fn mask(shape: [usize; 3], inside: impl Fn(usize) -> bool) -> Mask {
        let grid = Grid { shape, affine: Affine::from_spacing_mm([1.0; 3]) };
        let mut mask = Mask::filled(&grid, 0);
        for (i, v) in mask.voxels_mut().iter_mut().enumerate() {
            *v = u8::from(inside(i));
        }
        mask
    }

    const ALL: [Connectivity; 3] =
        [Connectivity::Six, Connectivity::Eighteen, Connectivity::TwentySix];
    /// Components, voxels of the largest, and Σ label·(index mod 97).
    const SCIPY: [(usize, usize, usize); 3] =
        [(59, 23, 190_395), (6, 144, 15_039), (3, 148, 14_386)];

    /// The numbers are those of `benches/peers/smoothing.py`.
    #[test]
    fn labels_are_those_of_scipy() {
        let mask = mask([11, 9, 6], |i| (i * i * 7 + i * 104_729) % 1009 < 260);
        for (connectivity, expected) in ALL.into_iter().zip(SCIPY) {
            let labels = label(&mask, connectivity);
            let check: usize =
                labels.data.iter().enumerate().map(|(i, l)| *l as usize * (i % 97)).sum();
            let most = labels.sizes.iter().copied().max().unwrap_or_default();
            assert_eq!((labels.count, most, check), expected, "{connectivity:?}");
        }
    }

    #[test]
    fn an_edge_and_a_corner_connect_as_they_should() {
        let edge = mask([2, 2, 2], |i| i == 0 || i == 3);
        let corner = mask([2, 2, 2], |i| i == 0 || i == 7);
        assert_eq!(ALL.map(|c| label(&edge, c).count), [2, 1, 1]);
        assert_eq!(ALL.map(|c| label(&corner, c).count), [2, 2, 1]);
    }

    #[test]
    fn the_largest_is_kept_and_an_empty_mask_stays_empty() {
        let two = mask([9, 1, 1], |i| i < 2 || (4..8).contains(&i));
        assert_eq!(largest(&two, Connectivity::Six).voxels(), [0, 0, 0, 0, 1, 1, 1, 1, 0]);
        let tie = mask([5, 1, 1], |i| i != 2);
        assert_eq!(largest(&tie, Connectivity::Six).voxels(), [1, 1, 0, 0, 0]);
        let empty = mask([3, 3, 3], |_| false);
        assert_eq!(largest(&empty, Connectivity::TwentySix), empty);
        assert_eq!(label(&empty, Connectivity::TwentySix).count, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn components_are_what_a_flood_finds(
            shape in [1_usize..140, 1_usize..6, 1_usize..5],
            bits in prop::collection::vec(any::<u8>(), 140 * 6 * 5),
            threshold in 1_u8..=255,
            which in 0_usize..3,
        ) {
            let mask = mask(shape, |i| bits[i] >= threshold);
            let labels = label(&mask, ALL[which]);
            prop_assert_eq!(flood(&mask, which), labels.data.iter().copied().collect::<Vec<_>>());
            let sizes: Vec<_> = (1..=labels.count)
                .map(|l| labels.data.iter().filter(|v| **v as usize == l).count())
                .collect();
            prop_assert_eq!(sizes, labels.sizes);
        }
    }

    fn flood(mask: &Mask, which: usize) -> Vec<u32> {
        let [nx, ny, nz] = mask.grid().shape;
        let mut labels = vec![0_u32; nx * ny * nz];
        let mut count = 0;
        for start in 0..labels.len() {
            if mask.voxels()[start] == 0 || labels[start] != 0 {
                continue;
            }
            count += 1;
            labels[start] = count;
            let mut queue = vec![start];
            while let Some(i) = queue.pop() {
                let at = [i % nx, i / nx % ny, i / nx / ny];
                for step in 0..27_usize {
                    let step = [step % 3, step / 3 % 3, step / 9];
                    let axes = step.iter().filter(|s| **s != 1).count();
                    let to = [0, 1, 2].map(|a| (at[a] + step[a]).wrapping_sub(1));
                    if axes > which + 1 || to[0] >= nx || to[1] >= ny || to[2] >= nz {
                        continue;
                    }
                    let j = (to[2] * ny + to[1]) * nx + to[0];
                    if mask.voxels()[j] != 0 && labels[j] == 0 {
                        labels[j] = count;
                        queue.push(j);
                    }
                }
            }
        }
        labels
    }
}
