//! The pixels of one slice: outlines, the frame of a close view, and the PNG file with its palette.

use super::view::Region;
use crate::error::{Error, Result};

/// Colour of the truth's outline.
pub const TRUTH_RGB: [u8; 3] = [0xE6, 0x9F, 0x00];
/// Colour of the prediction's outline.
pub const PREDICTION_RGB: [u8; 3] = [0x56, 0xB4, 0xE9];

/// Width of an outline, in pixels.
const OUTLINE: usize = 2;

/// The lightest grey of the palette, after which come the colours.
pub(super) const GREYS: f64 = 252.0;
/// The truth's place in the palette.
pub(super) const TRUTH: u8 = 253;
/// The prediction's place in the palette.
pub(super) const PREDICTION: u8 = 254;
const FRAME: u8 = 255;

/// Where the pixels of a picture lie in the slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) region: Region,
}

impl Canvas {
    /// Voxel coordinates along right and anterior of a pixel's centre: right falls from left to right, anterior
    /// falls from top to bottom.
    pub(super) fn place(self, x: usize, y: usize) -> (f64, f64) {
        let along = |(from, to): (usize, usize), pixel: usize, pixels: usize| {
            to as f64 - 0.5 - (pixel as f64 + 0.5) / pixels as f64 * (to - from) as f64
        };
        (along(self.region.right, x, self.width), along(self.region.anterior, y, self.height))
    }

    /// A line along the edge of what is covered, on its inner or outer side.
    pub(super) fn draw_outline(
        self,
        pixels: &mut [u8],
        covered: &[bool],
        inside: bool,
        colour: u8,
    ) {
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
    pub(super) fn draw_frame(self, pixels: &mut [u8], frame: Region) {
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
pub(super) fn encode(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
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
