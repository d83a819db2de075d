//! Figures as PNG, for slides and manuscripts that take no SVG. The letters are DejaVu Sans from within the program, so
//! that a machine without fonts draws the same pixels; fonts of the system are asked only for what it lacks.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use super::FAMILY;
use crate::error::{Error, Result};

/// Pixels a unit of the `viewBox`: a figure of 480 units is 1,440 pixels wide, 300 to the inch in a column of 12 cm.
const PIXELS_PER_UNIT: f32 = 3.0;

static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    for font in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_source(resvg::usvg::fontdb::Source::Binary(Arc::new(font)));
    }
    fonts.load_system_fonts();
    fonts.set_sans_serif_family(FAMILY);
    Arc::new(fonts)
});

/// The picture of a figure that stands alone ([`super::standalone`]), as the bytes of a PNG.
///
/// # Errors
/// The figure is no SVG, or larger than a picture can be.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let options = Options {
        font_family: FAMILY.to_owned(),
        fontdb: Arc::clone(&FONTS),
        ..Options::default()
    };
    let broken = |what: String| Error::bug(format!("a figure cannot be drawn: {what}"));
    let tree = Tree::from_str(svg, &options).map_err(|e| broken(e.to_string()))?;
    let size = tree.size().to_int_size().scale_by(PIXELS_PER_UNIT);
    let mut pixels = size
        .and_then(|size| Pixmap::new(size.width(), size.height()))
        .ok_or_else(|| broken(format!("{:?} is no size", tree.size())))?;
    let scale = Transform::from_scale(PIXELS_PER_UNIT, PIXELS_PER_UNIT);
    resvg::render(&tree, scale, &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| broken(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::report::charts::{figure, standalone};
    use crate::report::html::STYLE;
    use maud::html;

    fn pixels(svg: &str) -> (u32, u32, Vec<u8>) {
        let bytes = png(svg).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, pixels)
    }

    #[test]
    fn a_figure_is_drawn_with_its_colours_and_letters() {
        let draw = |text: &str| {
            let body = html! {
                g.colour-0 { path.series d="M0 10 L40 10" {} }
                text.axis x="2" y="30" { (text) }
            };
            let figure = figure("f", (40.0, 40.0), "a", "b", &body).into_string();
            pixels(&standalone(&figure, STYLE).unwrap())
        };
        let (width, height, with_text) = draw("DSC ±");
        assert_eq!((width, height), (120, 120));
        let at = |x: usize, y: usize| &with_text[(y * 120 + x) * 4..][..4];
        assert_eq!(at(60, 3), [255, 255, 255, 255], "the ground is white");
        assert_ne!(at(60, 30)[..3], [255, 255, 255], "the series has its colour");
        assert!(
            at(60, 30)[..3] != [0, 0, 0],
            "a class gives the colour, black is what is drawn without"
        );
        let (_, _, without) = draw("");
        assert_ne!(with_text, without, "letters are drawn");
        assert_eq!(draw("DSC ±").2, with_text);
    }

    #[test]
    fn what_is_no_svg_is_told() {
        assert!(png("no svg").unwrap_err().to_string().contains("cannot be drawn"));
    }
}
