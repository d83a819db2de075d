//! Slices of a case as small PNG images, truth and prediction outlined.
//!
//! Slices are axial in the world (RAS+), whatever the order of the file: anterior up, the patient's right on the left.
//! Pixels are square in mm; intensities are interpolated linearly, masks are not. The outline of the truth runs just
//! outside its edge and that of the prediction just inside, so that both are seen where they agree. The colours,
//! orange and sky blue, are told apart by colour-blind readers (Okabe and Ito, *Color Universal Design*, 2008).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::data::Picture;
use super::stats::quantile;
use crate::error::{Error, Result};
use crate::volume::{Image, Mask, Volume};

/// Colour of the truth's outline.
pub const TRUTH_RGB: [u8; 3] = [0xE6, 0x9F, 0x00];
/// Colour of the prediction's outline.
pub const PREDICTION_RGB: [u8; 3] = [0x56, 0xB4, 0xE9];

/// Longer side of a slice in a montage, in pixels.
const SLICE_PX: f64 = 300.0;
/// Longer side of a thumbnail, in pixels.
const THUMBNAIL_PX: f64 = 200.0;
/// Close views of a lesion beside the overview.
const CLOSE_VIEWS: usize = 4;
/// What is shown around a lesion at least, in mm: beside it, and in all.
const MARGIN_MM: f64 = 25.0;
const SMALLEST_VIEW_MM: f64 = 90.0;
/// Width of an outline, in pixels.
const OUTLINE: usize = 2;

/// Places in the palette after the grey levels 0 to 252.
const GREYS: f64 = 252.0;
const TRUTH: u8 = 253;
const PREDICTION: u8 = 254;
const FRAME: u8 = 255;

/// An overview of the slice with the largest lesion, then close views of up to four slices from foot to head.
///
/// Without any lesion, the slice with most of the head is shown.
///
/// # Errors
/// A data error where the three do not have one shape, or no voxels.
pub fn montage(image: &Image, truth: &Mask, prediction: &Mask) -> Result<Vec<Picture>> {
    not_empty(image)?;
    let shape = image.data.dim();
    if truth.data.dim() != shape || prediction.data.dim() != shape {
        let (t, p) = (truth.data.dim(), prediction.data.dim());
        return Err(Error::data(format!(
            "image, truth and prediction have the shapes {shape:?}, {t:?} and {p:?} (z, y, x)"
        ))
        .hint("bring the prediction back to the grid of the case"));
    }
    let view = View::of(image);
    let window = Window::of(image);
    let areas: Vec<usize> = (0..view.shape[2])
        .map(|s| view.plane(s).filter(|&at| truth.data[at] > 0 || prediction.data[at] > 0).count())
        .collect();
    let lesion: Vec<usize> = (0..areas.len()).filter(|&s| areas[s] > 0).collect();
    let head = view.head(image, window);
    let painter = Painter { view: &view, image, window, masks: Some((truth, prediction)) };
    let Some(&largest) = lesion.iter().max_by_key(|&&s| (areas[s], std::cmp::Reverse(s))) else {
        return Ok(vec![painter.picture(view.fullest(image, window), head, None, SLICE_PX)?]);
    };
    let close = view.around(truth, prediction, head);
    let is_closer = close.extent_mm(&view) < 0.75 * head.extent_mm(&view);
    let region = if is_closer { close } else { head };
    let mut pictures =
        vec![painter.picture(largest, head, is_closer.then_some(close), SLICE_PX)?];
    for slice in spaced(&lesion, CLOSE_VIEWS) {
        if is_closer || slice != largest {
            pictures.push(painter.picture(slice, region, None, SLICE_PX)?);
        }
    }
    Ok(pictures)
}

/// The slice with most of the head, small.
///
/// # Errors
/// A data error for an image without voxels.
pub fn thumbnail(image: &Image) -> Result<Picture> {
    not_empty(image)?;
    let (view, window) = (View::of(image), Window::of(image));
    let painter = Painter { view: &view, image, window, masks: None };
    let whole = Region { right: (0, view.shape[0]), anterior: (0, view.shape[1]) };
    painter.picture(view.fullest(image, window), whole, None, THUMBNAIL_PX)
}

fn not_empty(image: &Image) -> Result<()> {
    if image.data.is_empty() {
        return Err(Error::data(format!(
            "the image has no voxels, its shape is {:?}",
            image.data.dim()
        )));
    }
    Ok(())
}

/// Up to `most` of the items, evenly spaced.
fn spaced(items: &[usize], most: usize) -> Vec<usize> {
    if items.len() <= most {
        return items.to_vec();
    }
    (0..most).map(|i| items[(2 * i + 1) * items.len() / (2 * most)]).collect()
}

/// Which voxel axis runs along the world's right, anterior and superior, and whether backwards.
#[derive(Debug, Clone)]
struct View {
    axis: [usize; 3],
    backwards: [bool; 3],
    /// Voxels along right, anterior, superior.
    shape: [usize; 3],
    spacing_mm: [f64; 3],
}

impl View {
    fn of<T>(volume: &Volume<T>) -> Self {
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
    fn index(&self, ras: [usize; 3]) -> [usize; 3] {
        let mut xyz = [0; 3];
        for world in 0..3 {
            let last = self.shape[world] - 1;
            let i = ras[world].min(last);
            xyz[self.axis[world]] = if self.backwards[world] { last - i } else { i };
        }
        [xyz[2], xyz[1], xyz[0]]
    }

    /// The voxels of an axial slice.
    fn plane(&self, s: usize) -> impl Iterator<Item = [usize; 3]> + '_ {
        let (right, anterior) = (self.shape[0], self.shape[1]);
        (0..anterior).flat_map(move |a| (0..right).map(move |r| self.index([r, a, s])))
    }

    /// The slice with most voxels of the head; of equals, the one nearest to the middle.
    fn fullest(&self, image: &Image, window: Window) -> usize {
        let middle = self.shape[2] / 2;
        let count = |s: usize| self.plane(s).filter(|&at| window.is_head(image.data[at])).count();
        (0..self.shape[2])
            .max_by_key(|&s| (count(s), std::cmp::Reverse(s.abs_diff(middle))))
            .unwrap_or(middle)
    }

    /// The head's bounds in a slice, over every slice, with a small margin.
    fn head(&self, image: &Image, window: Window) -> Region {
        let inside = |at: [usize; 3]| window.is_head(image.data[at]);
        self.bounds(inside)
            .map_or(Region { right: (0, self.shape[0]), anterior: (0, self.shape[1]) }, |region| {
                region.grown(self, 6.0, 0.0)
            })
    }

    /// The bounds of both lesions with what is around them.
    fn around(&self, truth: &Mask, prediction: &Mask, head: Region) -> Region {
        let inside = |at: [usize; 3]| truth.data[at] > 0 || prediction.data[at] > 0;
        self.bounds(inside)
            .map_or(head, |region| region.grown(self, MARGIN_MM, SMALLEST_VIEW_MM).squared(self))
    }

    fn bounds(&self, inside: impl Fn([usize; 3]) -> bool) -> Option<Region> {
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
struct Region {
    right: (usize, usize),
    anterior: (usize, usize),
}

impl Region {
    fn with(self, other: Self) -> Self {
        let both = |a: (usize, usize), b: (usize, usize)| (a.0.min(b.0), a.1.max(b.1));
        Self { right: both(self.right, other.right), anterior: both(self.anterior, other.anterior) }
    }

    /// Larger by `margin_mm` on every side and no smaller than `least_mm`, within the slice.
    fn grown(self, view: &View, margin_mm: f64, least_mm: f64) -> Self {
        let grow = |(from, to): (usize, usize), axis: usize| {
            let voxel = view.spacing_mm[axis];
            let least = ((least_mm / voxel - (to - from) as f64) / 2.0).max(0.0);
            let margin = (margin_mm / voxel).max(least).ceil() as usize;
            (from.saturating_sub(margin), to.saturating_add(margin).min(view.shape[axis]))
        };
        Self { right: grow(self.right, 0), anterior: grow(self.anterior, 1) }
    }

    /// As wide as high in mm where the slice is large enough.
    fn squared(self, view: &View) -> Self {
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
    fn size_mm(self, view: &View) -> (f64, f64) {
        let side =
            |(from, to): (usize, usize), axis: usize| (to - from) as f64 * view.spacing_mm[axis];
        (side(self.right, 0), side(self.anterior, 1))
    }

    /// The longer side in mm.
    fn extent_mm(self, view: &View) -> f64 {
        let (width, height) = self.size_mm(view);
        width.max(height)
    }
}

/// The intensities drawn as black and as white, and the least intensity of the head.
#[derive(Debug, Clone, Copy)]
struct Window {
    black: f64,
    white: f64,
    head: f64,
}

impl Window {
    /// From a sample of the voxels: the 1st percentile is black, the 99.8th of what lies above is white.
    fn of(image: &Image) -> Self {
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

    fn is_head(self, value: f32) -> bool {
        f64::from(value) > self.head
    }

    fn grey(self, value: f64) -> u8 {
        let share = (value - self.black) / (self.white - self.black);
        if share.is_nan() { 0 } else { (share.clamp(0.0, 1.0) * GREYS).round() as u8 }
    }
}

/// Draws slices of one case.
struct Painter<'a> {
    view: &'a View,
    image: &'a Image,
    window: Window,
    masks: Option<(&'a Mask, &'a Mask)>,
}

impl Painter<'_> {
    fn picture(
        &self,
        slice: usize,
        region: Region,
        frame: Option<Region>,
        side: f64,
    ) -> Result<Picture> {
        let (width_mm, height_mm) = region.size_mm(self.view);
        let scale = side / width_mm.max(height_mm).max(1e-6);
        let size = |mm: f64| ((mm * scale).round() as usize).clamp(1, side as usize);
        let (width, height) = (size(width_mm), size(height_mm));
        let canvas = Canvas { width, height, region };
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                pixels.push(self.window.grey(self.interpolated(canvas.place(x, y), slice)));
            }
        }
        if let Some(frame) = frame {
            canvas.draw_frame(&mut pixels, frame);
        }
        let mut alt = format!("Axial slice {} of {}", slice + 1, self.view.shape[2]);
        if let Some((truth, prediction)) = self.masks {
            let covered = |mask: &Mask| -> Vec<bool> {
                let at = |i: usize| self.nearest(canvas.place(i % width, i / width), slice);
                (0..width * height).map(|i| mask.data[at(i)] > 0).collect()
            };
            canvas.draw_outline(&mut pixels, &covered(prediction), true, PREDICTION);
            canvas.draw_outline(&mut pixels, &covered(truth), false, TRUTH);
            let [right, anterior, _] = self.view.spacing_mm;
            let area = |mask: &Mask| {
                let voxels = self.view.plane(slice).filter(|&at| mask.data[at] > 0).count();
                voxels as f64 * right * anterior / 100.0
            };
            alt +=
                &format!(", truth {:.2} cm², prediction {:.2} cm²", area(truth), area(prediction));
        }
        Ok(Picture {
            png_base64: STANDARD.encode(encode(&pixels, width, height)?),
            width,
            height,
            alt,
        })
    }

    fn nearest(&self, (r, a): (f64, f64), slice: usize) -> [usize; 3] {
        self.view.index([r.round().max(0.0) as usize, a.round().max(0.0) as usize, slice])
    }

    /// Bilinear; NaN where a neighbour is not finite.
    fn interpolated(&self, (r, a): (f64, f64), slice: usize) -> f64 {
        let (r, a) = (r.max(0.0), a.max(0.0));
        let (r0, a0) = (r.floor(), a.floor());
        let at = |dr: usize, da: usize| {
            f64::from(self.image.data[self.view.index([r0 as usize + dr, a0 as usize + da, slice])])
        };
        let (u, v) = (r - r0, a - a0);
        (at(0, 0) * (1.0 - u) + at(1, 0) * u) * (1.0 - v)
            + (at(0, 1) * (1.0 - u) + at(1, 1) * u) * v
    }
}

/// Where the pixels of a picture lie in the slice.
#[derive(Debug, Clone, Copy)]
struct Canvas {
    width: usize,
    height: usize,
    region: Region,
}

impl Canvas {
    /// Voxel coordinates along right and anterior of a pixel's centre: right falls from left to right, anterior
    /// falls from top to bottom.
    fn place(self, x: usize, y: usize) -> (f64, f64) {
        let along = |(from, to): (usize, usize), pixel: usize, pixels: usize| {
            to as f64 - 0.5 - (pixel as f64 + 0.5) / pixels as f64 * (to - from) as f64
        };
        (along(self.region.right, x, self.width), along(self.region.anterior, y, self.height))
    }

    /// A line along the edge of what is covered, on its inner or outer side.
    fn draw_outline(self, pixels: &mut [u8], covered: &[bool], inside: bool, colour: u8) {
        let reach = OUTLINE as isize;
        for y in 0..self.height as isize {
            for x in 0..self.width as isize {
                let is_covered = |x: isize, y: isize| {
                    let within = (0..self.width as isize).contains(&x)
                        && (0..self.height as isize).contains(&y);
                    within && covered[(y * self.width as isize + x) as usize]
                };
                let at_edge = || {
                    let mut near =
                        (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)));
                    near.any(|(dx, dy)| is_covered(x + dx, y + dy) != inside)
                };
                if is_covered(x, y) == inside && at_edge() {
                    pixels[(y * self.width as isize + x) as usize] = colour;
                }
            }
        }
    }

    /// A dotted rectangle around another region of the same slice.
    fn draw_frame(self, pixels: &mut [u8], frame: Region) {
        let is_inside = |x: usize, y: usize| {
            let (r, a) = self.place(x, y);
            let within =
                |v: f64, (from, to): (usize, usize)| v >= from as f64 - 0.5 && v < to as f64 - 0.5;
            within(r, frame.right) && within(a, frame.anterior)
        };
        for y in 0..self.height {
            for x in 0..self.width {
                let edge = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
                let outside = |&(u, v): &(usize, usize)| {
                    u >= self.width || v >= self.height || !is_inside(u, v)
                };
                if is_inside(x, y) && (x + y) % 6 < 4 && edge.iter().any(outside) {
                    pixels[y * self.width + x] = FRAME;
                }
            }
        }
    }
}

/// A PNG file with one byte a pixel, an index into the palette.
fn encode(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let failed =
        |e: png::EncodingError| Error::bug(format!("a slice of {width} × {height} pixels: {e}"));
    let mut palette: Vec<u8> = (0..=252_u32).flat_map(|i| [(i * 255 / 252) as u8; 3]).collect();
    palette.extend([TRUTH_RGB, PREDICTION_RGB, [255; 3]].concat());
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use ndarray::Array3;

    use super::*;
    use crate::volume::Affine;

    const LAS: Affine = Affine([[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]]);

    fn decode(picture: &Picture) -> Vec<u8> {
        let bytes = STANDARD.decode(&picture.png_base64).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    }

    fn cube(from: usize, to: usize) -> Mask {
        let inside = |i: usize| (from..to).contains(&i);
        let at = |(z, y, x): (usize, usize, usize)| u8::from(inside(x) && inside(y) && z == 2);
        Mask { data: Array3::from_shape_fn((5, 40, 40), at), affine: LAS }
    }

    fn head() -> Image {
        let data = Array3::from_shape_fn((5, 40, 40), |(z, y, x)| (x + y + 10 * z) as f32);
        Image { data, affine: LAS }
    }

    #[test]
    fn the_patients_right_is_on_the_left_and_anterior_is_up() {
        // x grows to the left in this file and y to the front: the corner x = 0, y = 39 is right anterior.
        let image = head();
        let view = View::of(&image);
        assert_eq!((view.axis, view.backwards), ([0, 1, 2], [true, false, false]));
        let whole = Region { right: (0, 40), anterior: (0, 40) };
        let canvas = Canvas { width: 40, height: 40, region: whole };
        let (r, a) = canvas.place(0, 0);
        assert_eq!(view.index([r as usize, a as usize, 1]), [1, 39, 0]);
    }

    #[test]
    fn axes_of_a_sagittal_file_are_put_in_order() {
        // x runs down the body, y to the right, z to the front.
        let affine = Affine([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]);
        let view = View::of(&Image { data: Array3::zeros((6, 5, 4)), affine });
        assert_eq!((view.axis, view.backwards), ([1, 2, 0], [false, false, true]));
        assert_eq!((view.shape, view.spacing_mm), ([5, 6, 4], [2.0, 3.0, 1.0]));
        assert_eq!(view.index([4, 0, 0]), [0, 4, 3]);
    }

    #[test]
    fn equal_masks_show_both_outlines() {
        let pictures = montage(&head(), &cube(10, 20), &cube(10, 20)).unwrap();
        let pixels = decode(&pictures[0]);
        for colour in [TRUTH, PREDICTION] {
            assert!(pixels.iter().filter(|p| **p == colour).count() > 200, "{colour}");
        }
        assert!(pictures[0].alt.contains("slice 3 of 5, truth 1.00 cm², prediction 1.00 cm²"));
    }

    #[test]
    fn masks_without_a_lesion_show_one_slice_without_outlines() {
        let pictures = montage(&head(), &cube(0, 0), &cube(0, 0)).unwrap();
        assert_eq!(pictures.len(), 1);
        assert!(decode(&pictures[0]).iter().all(|p| *p <= 252));
    }

    #[test]
    fn images_that_cannot_be_windowed_still_draw() {
        for value in [0.0, 7.0, f32::NAN, f32::INFINITY, f32::MAX] {
            let image = Image { data: Array3::from_elem((3, 4, 5), value), affine: LAS };
            let picture = thumbnail(&image).unwrap();
            assert_eq!(decode(&picture).len(), picture.width * picture.height);
        }
        let thin = Image { data: Array3::zeros((1, 1, 1000)), affine: LAS };
        assert_eq!((thumbnail(&thin).unwrap().width, thumbnail(&thin).unwrap().height), (200, 1));
    }

    #[test]
    fn shapes_that_differ_are_an_error() {
        let small = Mask { data: Array3::zeros((5, 40, 39)), affine: LAS };
        let error = montage(&head(), &small, &cube(1, 2)).unwrap_err();
        assert!(error.reason().contains("(5, 40, 39)"), "{error}");
    }

    #[test]
    fn close_views_are_square_where_the_slice_allows() {
        let view = View::of(&head());
        let near_the_edge = Region { right: (36, 40), anterior: (5, 25) };
        let square = near_the_edge.squared(&view);
        assert_eq!(square, Region { right: (20, 40), anterior: (5, 25) });
        let whole = Region { right: (3, 9), anterior: (0, 40) };
        assert_eq!(whole.squared(&view), Region { right: (0, 40), anterior: (0, 40) });
    }

    #[test]
    fn equal_cases_give_equal_bytes() {
        let make = || montage(&head(), &cube(10, 20), &cube(12, 22)).unwrap();
        assert_eq!(make(), make());
    }

    #[test]
    fn slices_are_evenly_spaced() {
        assert_eq!(spaced(&[3, 4, 5], 4), [3, 4, 5]);
        assert_eq!(spaced(&(0..16).collect::<Vec<_>>(), 4), [2, 6, 10, 14]);
    }
}
