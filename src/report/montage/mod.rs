//! Slices of a case as small PNG images, truth and prediction outlined.
//!
//! Slices are axial in the world (RAS+), whatever the order of the file: anterior up, the patient's right on the left.
//! Pixels are square in mm; intensities are interpolated linearly, masks are not. The outline of the truth runs just
//! outside its edge and that of the prediction just inside, so that both are seen where they agree. The colours,
//! orange and sky blue, are told apart by colour-blind readers (Okabe and Ito, *Color Universal Design*, 2008).

mod canvas;
mod view;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::data::Picture;
use crate::error::{Error, Result};
use crate::volume::{Image, Mask};
use canvas::{Canvas, PREDICTION, TRUTH};
pub use canvas::{PREDICTION_RGB, TRUTH_RGB};
use view::{Region, View, Window};

/// Longer side of a slice in a montage, in pixels.
const SLICE_PX: f64 = 300.0;
/// Longer side of a thumbnail, in pixels.
const THUMBNAIL_PX: f64 = 200.0;
/// Close views of a lesion beside the overview.
const CLOSE_VIEWS: usize = 4;

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
            png_base64: STANDARD.encode(canvas::encode(&pixels, width, height)?),
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
