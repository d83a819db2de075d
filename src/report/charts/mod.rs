//! Figures as inline SVG: pure functions from numbers to markup. Colours come from the page's style sheet by class, so
//! that one figure serves light, dark and paper. Lengths are in units of the `viewBox`; 13 of them are one line of text.

pub mod agreement;
pub mod boxes;
pub mod curve;
pub mod flow;
pub mod histogram;
pub mod lines;
pub mod raster;
pub mod scatter;

use maud::{Markup, html};

/// The letters of figures in files of their own.
pub const FAMILY: &str = "DejaVu Sans";

/// Width of a figure that stands in a column of the page.
pub const WIDTH: f64 = 480.0;

/// A figure with a name and a description for those who do not see it. `id` is unique on the page.
pub fn figure(id: &str, size: (f64, f64), title: &str, description: &str, body: &Markup) -> Markup {
    let (title_id, description_id) = (format!("{id}-title"), format!("{id}-description"));
    html! {
        svg.chart viewBox=(format!("0 0 {} {}", px(size.0), px(size.1))) role="img"
            aria-labelledby=(format!("{title_id} {description_id}")) {
            title id=(title_id) { (title) }
            desc id=(description_id) { (description) }
            (body)
        }
    }
}

/// The rules of the figures, for the page and for figures in files of their own.
pub const STYLE: &str = include_str!("style.css");

/// A figure as a file of its own: with size, names, a white ground and the light colours of `page_style` written out.
/// None where the markup is no figure.
pub fn standalone(markup: &str, page_style: &str) -> Option<String> {
    let start = markup.find("<svg ")?;
    let end = start + markup[start..].find("</svg>")?;
    let open = start + markup[start..].find('>')?;
    let view = markup[start..open].split("viewBox=\"").nth(1)?.split('"').next()?;
    let mut sides = view.split(' ').skip(2);
    let (width, height) = (sides.next()?, sides.next()?);
    let tag = &markup[start + "<svg".len()..open];
    let mut style = STYLE.to_owned();
    for (name, value) in colours(page_style) {
        style = style.replace(&format!("var({name})"), value);
    }
    let family = format!("svg {{ font-family: \"{FAMILY}\", Arial, Helvetica, sans-serif; }}");
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\"{tag}>\n<style>\n{family}\n{style}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
        &markup[open + 1..end]
    ))
}

/// The first values of the variables of a style sheet: those of light pages.
fn colours(style: &str) -> Vec<(&str, &str)> {
    let block =
        style.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |b| b.0);
    let pairs = block.split(';').filter_map(|line| line.trim().split_once(':'));
    let mut pairs: Vec<(&str, &str)> =
        pairs.map(|(name, value)| (name.trim(), value.trim())).collect();
    pairs.retain(|(name, _)| name.starts_with("--"));
    pairs
}

/// A coordinate, to a tenth of a unit.
pub fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// A number with as many decimals as a step of this size needs, and a true minus sign.
pub fn number(value: f64, step: f64) -> String {
    let decimals = (-step.abs().max(1e-9).log10() - 1e-9).ceil().clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| matches!(c, '0' | '.')) => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// A straight axis: values to places.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    domain: (f64, f64),
    places: (f64, f64),
    step: f64,
    logarithmic: bool,
}

impl Scale {
    /// An axis over `domain`, widened to whole steps of 1, 2 or 5 × 10ᵏ, about `ticks` of them.
    pub fn linear(domain: (f64, f64), places: (f64, f64), ticks: usize) -> Self {
        let (mut low, mut high) =
            if domain.0.is_finite() && domain.1.is_finite() && domain.0 <= domain.1 {
                domain
            } else {
                (0.0, 1.0)
            };
        if high - low <= f64::EPSILON * high.abs().max(1e-6) {
            let half = (low.abs() * 0.1).max(0.5);
            (low, high) = (low - half, high + half);
        }
        let rough = (high - low) / ticks.max(1) as f64;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|m| m * magnitude)
            .find(|s| *s >= rough * 0.999)
            .unwrap_or(10.0 * magnitude);
        let domain = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        Self { domain, places, step, logarithmic: false }
    }

    /// As [`Scale::linear`], with whole numbers at the ticks.
    pub fn whole(domain: (f64, f64), places: (f64, f64), ticks: usize) -> Self {
        let range = (domain.1 - domain.0).max(1.0);
        let ticks = if range.is_finite() { ticks.min(range as usize) } else { ticks };
        Self::linear(domain, places, ticks)
    }

    /// A logarithmic axis in whole decades around `domain`, which must be positive.
    pub fn decades(domain: (f64, f64), places: (f64, f64)) -> Self {
        let low = domain.0.max(1e-9).log10().floor();
        let high = domain.1.max(1e-9).log10().ceil().max(low + 1.0);
        Self { domain: (low, high), places, step: 1.0, logarithmic: true }
    }

    /// Where a value lies; values outside the axis lie at its end.
    pub fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(1e-12).log10() } else { value };
        let share = (value - self.domain.0) / (self.domain.1 - self.domain.0);
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.places.0 + (self.places.1 - self.places.0) * share
    }

    /// The values with a tick, and their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let count = ((self.domain.1 - self.domain.0) / self.step).round().clamp(0.0, 50.0) as usize;
        (0..=count)
            .map(|i| {
                let at = self.domain.0 + i as f64 * self.step;
                if self.logarithmic {
                    let value = 10_f64.powf(at);
                    (value, number(value, value.min(1.0)))
                } else {
                    (at, number(at, self.step))
                }
            })
            .collect()
    }

    /// The smallest and the largest value on the axis.
    pub fn ends(&self) -> (f64, f64) {
        if self.logarithmic {
            (10_f64.powf(self.domain.0), 10_f64.powf(self.domain.1))
        } else {
            self.domain
        }
    }
}

/// The place of a figure's data between its axes, in units of the `viewBox`.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Left edge.
    pub left: f64,
    /// Right edge.
    pub right: f64,
    /// Upper edge.
    pub top: f64,
    /// Lower edge.
    pub bottom: f64,
}

/// The lower axis: grid lines, labels and a title.
pub fn x_axis(frame: Frame, scale: &Scale, title: &str) -> Markup {
    html! {
        @for (value, label) in scale.ticks() {
            @let x = px(scale.place(value));
            line.grid x1=(x) x2=(x) y1=(px(frame.top)) y2=(px(frame.bottom)) {}
            text.tick x=(x) y=(px(frame.bottom + 17.0)) text-anchor="middle" { (label) }
        }
        text.axis x=(px(f64::midpoint(frame.left, frame.right))) y=(px(frame.bottom + 37.0))
            text-anchor="middle" { (title) }
    }
}

/// The left axis: grid lines, labels, and a title above its upper end.
pub fn y_axis(frame: Frame, scale: &Scale, title: &str) -> Markup {
    html! {
        @for (value, label) in scale.ticks() {
            @let y = scale.place(value);
            line.grid x1=(px(frame.left)) x2=(px(frame.right)) y1=(px(y)) y2=(px(y)) {}
            text.tick x=(px(frame.left - 7.0)) y=(px(y + 4.0)) text-anchor="end" { (label) }
        }
        text.axis x="2" y="14" { (title) }
    }
}

/// Breaks text into lines of at most `most` characters, at spaces where it can.
pub fn wrap(text: &str, most: usize) -> Vec<String> {
    let most = most.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let Some(line) = lines.last_mut() else { break };
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + rest.len() <= most {
                if gap == 1 {
                    line.push(' ');
                }
                line.extend(rest.drain(..));
            } else if used == 0 {
                line.extend(rest.drain(..most));
                lines.push(String::new());
            } else {
                lines.push(String::new());
            }
        }
    }
    if lines.len() > 1 && lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_whole_steps() {
        let scale = Scale::linear((0.03, 0.92), (0.0, 100.0), 5);
        let labels: Vec<String> = scale.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert!((scale.place(0.5) - 50.0).abs() < 1e-9);
        let scale = Scale::linear((0.0, 10.0), (0.0, 1.0), 5);
        assert_eq!(scale.ends(), (0.0, 10.0));
    }

    #[test]
    fn whole_axes_have_whole_ticks() {
        let labels = |low, high| -> Vec<String> {
            Scale::whole((low, high), (0.0, 100.0), 8).ticks().into_iter().map(|t| t.1).collect()
        };
        assert_eq!(labels(1.0, 4.0), ["1", "2", "3", "4"]);
        assert_eq!(labels(0.0, 39.0), ["0", "5", "10", "15", "20", "25", "30", "35", "40"]);
    }

    #[test]
    fn axes_stand_any_number() {
        for (low, high) in
            [(5.0, 5.0), (0.0, 0.0), (f64::NAN, 1.0), (f64::INFINITY, 1.0), (1e300, 1e301)]
        {
            let scale = Scale::linear((low, high), (0.0, 100.0), 4);
            assert!(scale.ticks().len() < 20);
            for value in [low, high, f64::NAN, -1e308] {
                assert!((0.0..=100.0).contains(&scale.place(value)), "{low} {high} {value}");
            }
        }
    }

    #[test]
    fn decades_have_a_tick_each() {
        let scale = Scale::decades((0.02, 130.0), (0.0, 100.0));
        let labels: Vec<String> = scale.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0.01", "0.1", "1", "10", "100", "1000"]);
        assert!((scale.place(0.0) - 0.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_written_as_their_step_needs() {
        assert_eq!(number(-0.25, 0.05), "−0.25");
        assert_eq!(number(-0.001, 0.1), "0.0");
        assert_eq!(number(1500.0, 500.0), "1500");
    }

    #[test]
    fn text_is_wrapped_and_nothing_is_lost() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("abcdefgh", 4), ["abcd", "efgh"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn a_figure_stands_alone() {
        let markup =
            figure("f", (10.0, 20.0), "a", "b", &html! { text.tick { "1" } }).into_string();
        let page = ":root {\n  color-scheme: light;\n  --text: #111;\n  --faint: #222;\n}\n:root { --text: #eee; }";
        let svg = standalone(&markup, page).unwrap_or_default();
        assert!(svg.starts_with(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"10\" height=\"20\" class=\"chart\""
        ));
        assert!(svg.contains("svg text { fill: #111; }") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), 1);
        assert_eq!(standalone("<p>no figure</p>", page), None);
    }

    #[test]
    fn a_figure_has_a_name_and_escapes_it() {
        let markup = figure("f", (10.0, 20.5), "a < b", "what", &html! {}).into_string();
        assert!(markup.contains("viewBox=\"0 0 10 20.5\"") && markup.contains("a &lt; b"));
    }
}
