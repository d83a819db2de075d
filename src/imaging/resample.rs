//! Taking a volume from its own grid to another one.
//!
//! Every output voxel is looked up where it lies in the world: output index → world → input index, so grids may be
//! oblique, flipped, permuted or shifted against each other in any way. With c the input index of an output voxel and n
//! the input's size along an axis, the borders follow `SimpleITK`'s `Resample`: inside means −½ ≤ c ≤ n − ½ on all three
//! axes; an inside point in the outer half voxel takes the value at the nearest voxel centre along that axis; any other
//! point takes the fill value.
//!
//! - linear: trilinear between the eight surrounding voxel centres;
//! - nearest: the voxel whose centre is closest, ⌊c + ½⌋ on each axis;
//! - cubic: the cubic B-spline through the voxels, mirrored at the borders, so in the outer half voxel too (see `cubic`).
//!
//! There is no smoothing before going to a coarser grid. Grids that differ by less than a ten-thousandth of a voxel are
//! taken as the same grid, and then the voxels are copied. Where the axes of the two grids are parallel the
//! interpolation separates: whole rows are blended and only the last axis is gathered voxel by voxel.

mod cubic;
mod oblique;
mod target;

use std::ops::Range;

use ndarray::parallel::prelude::*;
use ndarray::{Array3, ArrayView3, ArrayViewMut2, Axis};

pub use target::target_grid;

use crate::error::Result;
use crate::volume::{Affine, Grid, Image, Mask, Volume};

/// Positions closer than this, in voxels, are the same position.
const SAME_VOXELS: f64 = 1e-4;

/// Rounding of positions, in voxels: ties between two voxels and points on the outer faces are decided as if they were
/// this much further on or in.
const ROUNDING_VOXELS: f64 = 1e-6;

/// How a value between voxel centres is found.
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
pub enum Interpolation {
    /// Trilinear: for intensities and probabilities.
    #[default]
    Linear,
    /// The value of the closest voxel: for labels.
    Nearest,
    /// Cubic B-spline: sharper than linear, but may overshoot at edges.
    Cubic,
}

/// Brings an image to another grid; voxels outside its field of view become `fill`.
///
/// # Errors
/// A data error where an affine cannot be inverted, a configuration error where `to` is empty or larger than 2³⁰
/// voxels.
pub fn resample_image(
    image: &Image,
    to: &Grid,
    interpolation: Interpolation,
    fill: f32,
) -> Result<Image> {
    let data = match (Lookup::new(&image.grid(), to)?, interpolation) {
        (Lookup::Same, _) => image.data.clone(),
        (Lookup::Aligned(aligned), Interpolation::Linear) => aligned.linear(&image.data, to, fill),
        (Lookup::Aligned(aligned), Interpolation::Nearest) => {
            aligned.nearest(&image.data, to, fill)
        }
        (Lookup::Aligned(aligned), Interpolation::Cubic) => aligned.cubic(&image.data, to, fill),
        (Lookup::Oblique(pull), Interpolation::Linear) => {
            oblique::resample(&pull, image, to, fill, oblique::linear)
        }
        (Lookup::Oblique(pull), Interpolation::Nearest) => {
            oblique::resample(&pull, image, to, fill, oblique::nearest)
        }
        (Lookup::Oblique(pull), Interpolation::Cubic) => {
            let data = cubic::coefficients(image.data.view().into());
            let splines = Volume { data, affine: image.affine };
            oblique::resample(&pull, &splines, to, fill, oblique::spline)
        }
    };
    Ok(Volume { data, affine: to.affine })
}

/// Brings a mask to another grid by the nearest voxel; outside its field of view it is 0.
///
/// # Errors
/// As [`resample_image`].
pub fn resample_mask(mask: &Mask, to: &Grid) -> Result<Mask> {
    let data = match Lookup::new(&mask.grid(), to)? {
        Lookup::Same => mask.data.clone(),
        Lookup::Aligned(aligned) => aligned.nearest(&mask.data, to, 0),
        Lookup::Oblique(pull) => oblique::resample(&pull, mask, to, 0, oblique::nearest),
    };
    Ok(Volume { data, affine: to.affine })
}

/// How output voxels find their place in the input.
enum Lookup {
    /// The two grids are one.
    Same,
    /// Each output axis runs along one input axis.
    Aligned(Box<Aligned>),
    /// Output index → input index.
    Oblique(Affine),
}

impl Lookup {
    fn new(from: &Grid, to: &Grid) -> Result<Self> {
        target::check_shape(to.shape)?;
        target::check_shape(from.shape)?;
        to.affine.inverse()?;
        let pull = from.affine.inverse()?.compose(&to.affine);
        let Some(source) = source_axes(&pull, to.shape) else { return Ok(Self::Oblique(pull)) };
        let axes = [0, 1, 2].map(|a| {
            let s = source[a];
            Taps::new(pull.0[s][a], pull.0[s][3], from.shape[s], to.shape[a])
        });
        let same =
            source == [0, 1, 2] && from.shape == to.shape && axes.iter().all(Taps::is_identity);
        Ok(if same { Self::Same } else { Self::Aligned(Box::new(Aligned { source, axes })) })
    }
}

/// For each output axis the one input axis that it runs along; none where the grids are oblique to each other.
fn source_axes(pull: &Affine, shape: [usize; 3]) -> Option<[usize; 3]> {
    let mut source = [0; 3];
    for (a, source) in source.iter_mut().enumerate() {
        let drift = |s: usize| pull.0[s][a].abs() * (shape[a] as f64 - 1.0).max(1.0);
        *source = (0..3).max_by(|&s, &t| drift(s).total_cmp(&drift(t)))?;
        if (0..3).any(|s| s != *source && drift(s) > SAME_VOXELS) {
            return None;
        }
    }
    let mut seen = [false; 3];
    for s in source {
        seen[s] = true;
    }
    seen.iter().all(|&s| s).then_some(source)
}

/// The outputs `x` for which `start + step x` lies within the input's field of view of `n` voxels.
pub(super) fn inside(start: f64, step: f64, n: usize, outputs: usize) -> Range<usize> {
    let (low, high) = (-0.5 - ROUNDING_VOXELS - start, n as f64 - 0.5 + ROUNDING_VOXELS - start);
    if step.abs() < 1e-12 {
        return if low <= 0.0 && high >= 0.0 { 0..outputs } else { 0..0 };
    }
    let (first, last) =
        if step > 0.0 { (low / step, high / step) } else { (high / step, low / step) };
    // Casts saturate: before the first output is 0, beyond the last one is cut.
    let (first, end) = (first.ceil().max(0.0) as usize, (last.floor() + 1.0).max(0.0) as usize);
    let end = end.min(outputs);
    first.min(end)..end
}

/// The two neighbours of an index along an axis and the weight of the second, for an axis that ends at `last`.
pub(super) fn neighbours(c: f64, last: usize) -> (usize, usize, f32) {
    let c = c.clamp(0.0, last as f64);
    // Through 32 bits, which grids never exceed along an axis and which convert several times faster.
    let low = c as i32;
    (low as usize, (low as usize + 1).min(last), (c - f64::from(low)) as f32)
}

/// The voxel nearest to an index along an axis that ends at `last`; halves go up.
pub(super) fn nearest(c: f64, last: usize) -> usize {
    ((c + 0.5 + ROUNDING_VOXELS).max(0.0) as i32 as usize).min(last)
}

/// Where the outputs along one axis look in the input.
struct Taps {
    /// The outputs that lie in the input's field of view; the vectors hold one entry for each of them.
    inside: Range<usize>,
    /// Index in the input.
    places: Vec<f64>,
    low: Vec<usize>,
    high: Vec<usize>,
    weight: Vec<f32>,
    nearest: Vec<usize>,
}

impl Taps {
    fn new(step: f64, start: f64, inputs: usize, outputs: usize) -> Self {
        let inside = inside(start, step, inputs, outputs);
        let mut taps = Self {
            inside: inside.clone(),
            places: vec![],
            low: vec![],
            high: vec![],
            weight: vec![],
            nearest: vec![],
        };
        for x in inside {
            let c = start + step * x as f64;
            let c = if (c - c.round()).abs() < SAME_VOXELS { c.round() } else { c };
            let (low, high, weight) = neighbours(c, inputs - 1);
            taps.places.push(c);
            taps.low.push(low);
            taps.high.push(if weight > 0.0 { high } else { low });
            taps.weight.push(weight);
            taps.nearest.push(nearest(c, inputs - 1));
        }
        taps
    }

    /// Whether output `x` is input `x`, for all of them.
    fn is_identity(&self) -> bool {
        self.weight.iter().all(|w| *w == 0.0)
            && self.low.iter().enumerate().all(|(x, &low)| x == low)
    }

    /// The inputs that output `x` mixes, with their shares; none outside.
    fn shares(&self, x: usize) -> Option<[(usize, f32); 2]> {
        let i = x.checked_sub(self.inside.start).filter(|_| self.inside.contains(&x))?;
        Some([(self.low[i], 1.0 - self.weight[i]), (self.high[i], self.weight[i])])
    }
}

/// Two grids with parallel axes.
struct Aligned {
    /// For each output axis the input axis that it runs along.
    source: [usize; 3],
    /// The look-up along output x, y and z.
    axes: [Taps; 3],
}

impl Aligned {
    /// The input with its axes in the output's order, copied only where the order changes.
    fn ordered<'a, T: Copy>(&self, input: &'a Array3<T>) -> ndarray::CowArray<'a, T, ndarray::Ix3> {
        let [x, y, z] = self.source.map(|s| 2 - s);
        let view = input.view().permuted_axes([z, y, x]);
        if view.is_standard_layout() {
            view.into()
        } else {
            view.as_standard_layout().into_owned().into()
        }
    }

    fn linear(&self, input: &Array3<f32>, to: &Grid, fill: f32) -> Array3<f32> {
        let input = self.ordered(input);
        let [tx, ty, tz] = &self.axes;
        fill_slices(to, fill, |z, mut slice| {
            let Some(in_z) = tz.shares(z) else { return };
            let mut blended = vec![0.0; input.len_of(Axis(2))];
            for y in ty.inside.clone() {
                let Some(in_y) = ty.shares(y) else { continue };
                blend_rows(&input.view(), &in_z, &in_y, &mut blended);
                let mut row = slice.row_mut(y);
                let outputs = row.iter_mut().skip(tx.inside.start);
                let taps = tx.low.iter().zip(&tx.high).zip(&tx.weight);
                for (output, ((&low, &high), &weight)) in outputs.zip(taps) {
                    *output = (1.0 - weight) * blended[low] + weight * blended[high];
                }
            }
        })
    }

    fn cubic(&self, input: &Array3<f32>, to: &Grid, fill: f32) -> Array3<f32> {
        let spline = cubic::coefficients(self.ordered(input));
        let (nz, ny, nx) = spline.dim();
        let [tx, ty, tz] = &self.axes;
        let shares = |taps: &Taps, n| -> Vec<cubic::Shares> {
            taps.places.iter().map(|c| cubic::shares(*c, n)).collect()
        };
        let (along_x, along_y, along_z) = (shares(tx, nx), shares(ty, ny), shares(tz, nz));
        fill_slices(to, fill, |z, mut slice| {
            let Some(in_z) = z.checked_sub(tz.inside.start).and_then(|z| along_z.get(z)) else {
                return;
            };
            let mut blended = vec![0.0; nx];
            for (y, in_y) in ty.inside.clone().zip(&along_y) {
                blend_rows(&spline.view(), in_z, in_y, &mut blended);
                let mut row = slice.row_mut(y);
                for (output, four) in row.iter_mut().skip(tx.inside.start).zip(&along_x) {
                    *output = four.iter().map(|(x, w)| w * blended[*x]).sum();
                }
            }
        })
    }

    fn nearest<T: Copy + Send + Sync>(&self, input: &Array3<T>, to: &Grid, fill: T) -> Array3<T> {
        let input = self.ordered(input);
        let [tx, ty, tz] = &self.axes;
        fill_slices(to, fill, |z, mut slice| {
            if !tz.inside.contains(&z) {
                return;
            }
            let plane = input.index_axis(Axis(0), tz.nearest[z - tz.inside.start]);
            for (y, &from) in ty.inside.clone().zip(&ty.nearest) {
                let (from, mut row) = (plane.row(from), slice.row_mut(y));
                for (output, &x) in row.iter_mut().skip(tx.inside.start).zip(&tx.nearest) {
                    *output = from[x];
                }
            }
        })
    }
}

/// Mixes rows of the input into one; rows of share 0 are not read.
fn blend_rows(
    input: &ArrayView3<f32>,
    in_z: &[(usize, f32)],
    in_y: &[(usize, f32)],
    blended: &mut [f32],
) {
    let mut first = true;
    for (&(z, wz), &(y, wy)) in in_z.iter().flat_map(|z| in_y.iter().map(move |y| (z, y))) {
        let weight = wz * wy;
        if weight == 0.0 {
            continue;
        }
        let row = input.slice(ndarray::s![z, y, ..]);
        let pairs = blended.iter_mut().zip(row.to_slice().unwrap_or_default());
        if first {
            pairs.for_each(|(b, v)| *b = weight * v);
        } else {
            pairs.for_each(|(b, v)| *b += weight * v);
        }
        first = false;
    }
}

/// An array of `fill` on a grid, every slice then written by `write(z, slice)`.
fn fill_slices<T: Copy + Send + Sync>(
    to: &Grid,
    fill: T,
    write: impl Fn(usize, ArrayViewMut2<T>) + Sync,
) -> Array3<T> {
    let mut output = Array3::from_elem(to.dim(), fill);
    output.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, s)| write(z, s));
    output
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "copied and filled voxels keep their exact value")]

    use ndarray::s;
    use proptest::prelude::*;

    use super::*;

    fn diagonal([x, y, z]: [f64; 3], [ox, oy, oz]: [f64; 3]) -> Affine {
        Affine([[x, 0.0, 0.0, ox], [0.0, y, 0.0, oy], [0.0, 0.0, z, oz]])
    }

    /// `ramp` of benches/peers/geometry.py.
    fn ramp(affine: Affine) -> Image {
        let data = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| {
            ((x * 7 + y * 13 + z * 29) % 31) as f32 + 0.5 * x as f32 - 0.25 * (y * z) as f32
        });
        Volume { data, affine }
    }

    fn source() -> Affine {
        diagonal([2.0, 2.0, 4.0], [-5.0, 3.0, 1.0])
    }

    /// rotation(0, 20) @ rotation(2, -35) @ diag(-1.7, 1.9, 2.2), origin (4, -1, 2).
    fn oblique_affine() -> Affine {
        let ((s0, c0), (s2, c2)) =
            (20_f64.to_radians().sin_cos(), (-35_f64).to_radians().sin_cos());
        let a = Affine([[1.0, 0.0, 0.0, 4.0], [0.0, c0, -s0, -1.0], [0.0, s0, c0, 2.0]]);
        let b = Affine([[c2, -s2, 0.0, 0.0], [s2, c2, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        a.compose(&b).compose(&diagonal([-1.7, 1.9, 2.2], [0.0; 3]))
    }

    fn close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{got:?} is not {want:?}");
        }
    }

    fn row(image: &Image, z: usize, y: usize) -> Vec<f32> {
        image.data.slice(s![z, y, ..]).to_vec()
    }

    fn sum(image: &Image) -> f64 {
        image.data.iter().map(|&v| f64::from(v)).sum()
    }

    // The numbers of the next four tests: benches/peers/geometry.py, `resample_numbers`, SimpleITK 2.5.7.
    #[test]
    fn aligned_grids_agree_with_simpleitk() -> Result<()> {
        let to = Grid { shape: [8, 5, 6], affine: diagonal([1.5, 2.5, 3.0], [-6.1, 2.3, 0.2]) };
        let image = ramp(source());
        let out = resample_image(&image, &to, Interpolation::Linear, -1.0)?;
        close(&row(&out, 0, 0), &[-1.0, 1.5, 7.125, 12.75, 18.375, 24.0, 29.625, 13.55]);
        let want = [
            -1.0, 19.598_125, 25.223_125, 12.403_125, 10.123_125, 14.864_625, 17.176_5, 22.417_875,
        ];
        close(&row(&out, 3, 2), &want);
        close(&row(&out, 5, 4), &[-1.0; 8]);
        assert!((sum(&out) - 2_092.763_869_8).abs() < 1e-3, "{}", sum(&out));
        let out = resample_image(&image, &to, Interpolation::Nearest, -1.0)?;
        close(&row(&out, 3, 2), &[-1.0, 21.0, 28.5, 5.0, 5.0, 12.5, 20.0, 27.5]);
        assert!((sum(&out) - 2_079.5).abs() < 1e-6, "{}", sum(&out));
        Ok(())
    }

    #[test]
    fn oblique_grids_agree_with_simpleitk() -> Result<()> {
        let to = Grid { shape: [7, 6, 5], affine: oblique_affine() };
        let out = resample_image(&ramp(source()), &to, Interpolation::Linear, -1.0)?;
        let want = [-1.0, 6.769_647_6, 22.934_017, 17.268_11, 15.412_642, 17.476_542, 12.904_3];
        close(&row(&out, 1, 2), &want);
        let want = [-1.0, -1.0, 14.769_951, 12.729_17, 14.180_19, 13.050_47, 13.383_354];
        close(&row(&out, 3, 4), &want);
        assert!((sum(&out) - 1_807.931_074).abs() < 1e-3, "{}", sum(&out));
        let to = Grid { shape: [6, 5, 4], affine: source() };
        let out = resample_image(&ramp(oblique_affine()), &to, Interpolation::Linear, -1.0)?;
        close(&row(&out, 1, 2), &[-1.0, -1.0, 29.271_887, 13.359_601, 19.271_093, 8.157_071]);
        assert!((sum(&out) - 349.199_254).abs() < 1e-3, "{}", sum(&out));
        Ok(())
    }

    #[test]
    fn swapped_and_flipped_axes_agree_with_simpleitk() -> Result<()> {
        let affine = Affine([[0.0, 0.0, -3.0, 5.9], [2.2, 0.0, 0.0, 2.5], [0.0, 1.7, 0.0, 0.4]]);
        let to = Grid { shape: [5, 7, 4], affine };
        assert!(matches!(Lookup::new(&ramp(source()).grid(), &to)?, Lookup::Aligned(_)));
        let out = resample_image(&ramp(source()), &to, Interpolation::Linear, -1.0)?;
        close(&row(&out, 1, 2), &[28.225, 12.776_25, 22.233_75, 6.813_75, 17.525]);
        close(&row(&out, 2, 3), &[16.125, 16.560_625, 10.866_25, 22.367_188, 5.0]);
        assert!((sum(&out) - 2_215.946_559).abs() < 1e-3, "{}", sum(&out));
        Ok(())
    }

    // The numbers: benches/peers/resample.py, SimpleITK 2.5.7.
    #[test]
    fn cubic_splines_agree_with_simpleitk() -> Result<()> {
        let to = Grid { shape: [8, 5, 6], affine: diagonal([1.5, 2.5, 3.0], [-6.1, 2.3, 0.2]) };
        let out = resample_image(&ramp(source()), &to, Interpolation::Cubic, -7.0)?;
        let want = [
            -7.0,
            21.194_607,
            -0.670_967_1,
            3.367_061_1,
            16.345_238,
            20.868_155,
            22.549_902,
            28.403_313,
        ];
        close(&row(&out, 1, 2), &want);
        assert!((sum(&out) - 1_484.889_873).abs() < 1e-3, "{}", sum(&out));
        let to = Grid { shape: [7, 6, 5], affine: oblique_affine() };
        let out = resample_image(&ramp(source()), &to, Interpolation::Cubic, -7.0)?;
        let want = [-7.0, 7.133_318, 22.956_9, 19.199_86, 15.328_372, 17.980_713, 12.313_28];
        close(&row(&out, 1, 2), &want);
        let want = [-7.0, -7.0, 12.775_339, 10.543_213, 10.479_352, 12.846_985, 8.988_148];
        close(&row(&out, 3, 4), &want);
        assert!((sum(&out) - 1_282.559_657).abs() < 1e-3, "{}", sum(&out));
        Ok(())
    }

    #[test]
    fn a_broken_target_is_refused() {
        let broken = Grid { shape: [2, 2, 2], affine: diagonal([1.0, f64::NAN, 1.0], [0.0; 3]) };
        assert!(resample_image(&ramp(source()), &broken, Interpolation::Linear, 0.0).is_err());
        let empty = Grid { shape: [2, 0, 2], affine: source() };
        assert!(resample_image(&ramp(source()), &empty, Interpolation::Linear, 0.0).is_err());
    }

    #[test]
    fn the_same_grid_gives_the_same_bytes() -> Result<()> {
        let mut image = ramp(oblique_affine());
        image.data[[1, 2, 3]] = f32::NAN;
        let out = resample_image(&image, &image.grid(), Interpolation::Linear, 0.0)?;
        assert!(image.data.iter().zip(&out.data).all(|(a, b)| a.to_bits() == b.to_bits()));
        let grid = target_grid(&image.grid(), Some(image.spacing_mm()), Some(image.grid().shape))?;
        assert_eq!(grid, image.grid());
        Ok(())
    }

    #[test]
    fn a_crop_or_a_pad_copies_voxels() -> Result<()> {
        let image = ramp(oblique_affine());
        let small = target_grid(&image.grid(), Some(image.spacing_mm()), Some([4, 4, 3]))?;
        let out = resample_image(&image, &small, Interpolation::Linear, 0.0)?;
        assert_eq!(out.data, image.data.slice(s![0..3, 0..4, 1..5]));
        let large = target_grid(&image.grid(), Some(image.spacing_mm()), Some([8, 7, 7]))?;
        let out = resample_image(&image, &large, Interpolation::Linear, -2.0)?;
        assert_eq!(out.data.slice(s![2..6, 1..6, 1..7]), image.data);
        assert_eq!(out.data.iter().filter(|v| **v == -2.0).count(), 8 * 7 * 7 - 120);
        Ok(())
    }

    #[test]
    fn a_fine_mask_comes_back_from_a_finer_grid() -> Result<()> {
        let mut mask = Volume::filled(&ramp(oblique_affine()).grid(), 0_u8);
        mask.data.slice_mut(s![1..3, 1..4, 2..5]).fill(1);
        mask.data[[0, 0, 0]] = 1;
        let fine = target_grid(&mask.grid(), Some([0.85, 0.95, 1.1]), None)?;
        let there = resample_mask(&mask, &fine)?;
        assert_eq!(there.data.iter().filter(|v| **v == 1).count(), 8 * 19);
        assert_eq!(resample_mask(&there, &mask.grid())?, mask);
        Ok(())
    }

    fn drawn(l: [f64; 9], o: [f64; 3]) -> Affine {
        Affine([[l[0], l[1], l[2], o[0]], [l[3], l[4], l[5], o[1]], [l[6], l[7], l[8], o[2]]])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn onto_its_own_grid_an_image_stays_as_it_is(
            shape in prop::array::uniform3(1_usize..9),
            linear in prop::array::uniform9(-1.5_f64..1.5),
            origin in prop::array::uniform3(-300.0_f64..300.0),
        ) {
            let grid = Grid { shape, affine: drawn(linear, origin) };
            prop_assume!(grid.voxel_volume_mm3() > 0.05);
            let mut image = Image::filled(&grid, 0.0);
            for (i, v) in image.voxels_mut().iter_mut().enumerate() {
                *v = (i * 7919 % 101) as f32;
            }
            for how in [Interpolation::Linear, Interpolation::Nearest, Interpolation::Cubic] {
                prop_assert_eq!(&resample_image(&image, &grid, how, -1.0)?, &image);
            }
        }

        #[test]
        fn a_linear_image_stays_linear_on_any_grid(
            shape in prop::array::uniform3(1_usize..9),
            linear in prop::array::uniform9(-1.5_f64..1.5),
            origin in prop::array::uniform3(-3.0_f64..3.0),
        ) {
            let to = Grid { shape, affine: drawn(linear, origin) };
            prop_assume!(to.voxel_volume_mm3() > 0.05);
            let affine = diagonal([1.5, 1.0, 2.0], [-4.0, -2.0, -3.0]);
            let value = |p: [f64; 3]| 2.0 * p[0] - p[1] + 0.5 * p[2] + 40.0;
            let data = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| {
                value(affine.apply([x as f64, y as f64, z as f64])) as f32
            });
            let image = Volume { data, affine };
            let out = resample_image(&image, &to, Interpolation::Linear, -1.0)?;
            let back = affine.inverse()?.compose(&to.affine);
            for ((z, y, x), &got) in out.data.indexed_iter() {
                let p = [x as f64, y as f64, z as f64];
                let c = back.apply(p);
                let centred = c.iter().zip([6.0, 5.0, 4.0]).all(|(c, n)| *c >= 0.0 && *c <= n - 1.0);
                let beyond = c.iter().zip([6.0, 5.0, 4.0]).any(|(c, n)| *c < -0.501 || *c > n - 0.499);
                if centred {
                    prop_assert!((f64::from(got) - value(to.affine.apply(p))).abs() < 2e-3);
                }
                prop_assert!(!beyond || got == -1.0);
            }
        }
    }
}
