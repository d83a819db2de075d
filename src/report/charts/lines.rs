//! Means along an axis, a line a series, with bars of one standard error. Series differ in colour, in the shape of their
//! points, and in the dashes of published ones.

use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{Frame, Scale, WIDTH, figure, px, y_axis};

const PLOT: f64 = 250.0;
/// Height of a line of the legend.
const LEGEND: f64 = 19.0;
/// Places nearer than this do not both get a label.
const APART: f64 = 34.0;
/// How far series stand beside each other, so that equal values do not hide one another.
const BESIDE: f64 = 2.5;
/// Colours that there are; series beyond begin again with another shape.
const COLOURS: usize = 7;

/// Lines over one axis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lines {
    /// What the lines show.
    pub y_label: String,
    /// What the axis is.
    pub x_label: String,
    /// Places on the axis that have a label, increasing.
    pub ticks: Vec<(f64, String)>,
    /// The lines.
    pub series: Vec<Series>,
    /// Whether the values lie between 0 and 1.
    pub share: bool,
}

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is called.
    pub label: String,
    /// Its points by place.
    pub points: Vec<Point>,
    /// Whether the values were published elsewhere.
    pub published: bool,
    /// Its colour, from 0; published values have that of the series that they stand beside.
    pub colour: usize,
}

/// A mean with its standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Place on the axis.
    pub x: f64,
    /// Mean.
    pub y: f64,
    /// Standard error of the mean, where there is one.
    pub se: Option<f64>,
}

/// The lines, and a legend under them where there are several.
pub fn draw(id: &str, lines: &Lines) -> Markup {
    let shown: Vec<&Series> = lines.series.iter().filter(|s| !s.points.is_empty()).collect();
    let columns = legend_columns(&shown);
    let legend =
        if shown.len() < 2 { 0.0 } else { shown.len().div_ceil(columns) as f64 * LEGEND + 8.0 };
    let frame = Frame { left: 46.0, right: WIDTH - 18.0, top: 28.0, bottom: PLOT };
    let x = place_x(lines, frame);
    let y = scale_y(lines, frame);
    let body = html! {
        (y_axis(frame, &y, &lines.y_label))
        (ticks(lines, frame, &x))
        @for (i, series) in shown.iter().enumerate() {
            @let beside = BESIDE * (i as f64 - (shown.len() - 1) as f64 / 2.0);
            (line(series, &|at| x(at) + beside, &y))
        }
        @if legend > 0.0 { (legend_of(&shown, columns, PLOT + 52.0)) }
    };
    let height = PLOT + 46.0 + legend;
    figure(id, (WIDTH, height), &title(lines), &describe(lines, &shown), &body)
}

fn title(lines: &Lines) -> String {
    format!("{} by {}", lines.y_label, lines.x_label)
}

fn describe(lines: &Lines, shown: &[&Series]) -> String {
    let name = |x: f64| {
        let tick = lines.ticks.iter().find(|(at, _)| (at - x).abs() < 1e-9);
        tick.map_or_else(|| format!("{x}"), |(_, label)| label.clone())
    };
    let one = |s: &&Series| {
        let points = s.points.iter().map(|p| format!("{:.3} at {}", p.y, name(p.x)));
        format!("{}: {}.", s.label, points.collect::<Vec<_>>().join(", "))
    };
    match shown {
        [] => "No values.".to_owned(),
        shown => shown.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}

/// Where a place of the axis lies.
fn place_x(lines: &Lines, frame: Frame) -> impl Fn(f64) -> f64 {
    let places = lines.ticks.iter().map(|t| t.0);
    let (low, high) =
        places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let (from, to) = (frame.left + 16.0, frame.right - 16.0);
    move |x| {
        if high > low {
            from + (to - from) * ((x - low) / (high - low))
        } else {
            f64::midpoint(from, to)
        }
    }
}

fn scale_y(lines: &Lines, frame: Frame) -> Scale {
    let points = lines.series.iter().flat_map(|s| &s.points);
    let ends = points.flat_map(|p| [p.y - p.se.unwrap_or(0.0), p.y + p.se.unwrap_or(0.0)]);
    let (mut low, mut high) =
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if lines.share {
        // A zoomed axis makes small differences look large: at least 0.4 of the range is shown.
        let spare = (0.4 - (high - low)).max(0.0) / 2.0;
        (low, high) = ((low - spare).max(0.0), (high + spare).min(1.0));
    }
    Scale::linear((low, high), (frame.bottom, frame.top), 5)
}

fn ticks(lines: &Lines, frame: Frame, x: &impl Fn(f64) -> f64) -> Markup {
    let mut last = f64::NEG_INFINITY;
    let shown: Vec<(f64, Option<&str>)> = lines
        .ticks
        .iter()
        .map(|(value, label)| {
            let at = x(*value);
            let fits = at - last >= APART.max(label.chars().count() as f64 * 7.5);
            if fits {
                last = at;
            }
            (at, fits.then_some(label.as_str()))
        })
        .collect();
    html! {
        line.axis-line x1=(px(frame.left)) x2=(px(frame.right)) y1=(px(frame.bottom)) y2=(px(frame.bottom)) {}
        @for (at, label) in shown {
            line.axis-line x1=(px(at)) x2=(px(at)) y1=(px(frame.bottom)) y2=(px(frame.bottom + 4.0)) {}
            @if let Some(label) = label {
                text.tick x=(px(at)) y=(px(frame.bottom + 18.0)) text-anchor="middle" { (label) }
            }
        }
        text.axis x=(px(f64::midpoint(frame.left, frame.right))) y=(px(frame.bottom + 37.0)) text-anchor="middle" { (lines.x_label) }
    }
}

fn line(series: &Series, x: &impl Fn(f64) -> f64, y: &Scale) -> Markup {
    let class = class(series);
    let path = series.points.iter().enumerate().map(|(i, p)| {
        format!("{}{} {}", if i == 0 { 'M' } else { 'L' }, px(x(p.x)), px(y.place(p.y)))
    });
    html! {
        g class=(class) {
            path.series d=(path.collect::<String>()) {}
            @for p in &series.points {
                @if let Some(se) = p.se {
                    @let at = px(x(p.x));
                    line.error x1=(at) x2=(at) y1=(px(y.place(p.y - se))) y2=(px(y.place(p.y + se))) {}
                    @for end in [p.y - se, p.y + se] {
                        line.error x1=(px(x(p.x) - 3.0)) x2=(px(x(p.x) + 3.0)) y1=(px(y.place(end))) y2=(px(y.place(end))) {}
                    }
                }
                (point(series.colour, x(p.x), y.place(p.y)))
            }
        }
    }
}

fn class(series: &Series) -> String {
    let published = if series.published { " published" } else { "" };
    format!("colour-{}{published}", series.colour % COLOURS)
}

/// A point; its shape is another for each series.
fn point(index: usize, x: f64, y: f64) -> Markup {
    let path = match index % 5 {
        0 => return html! { circle.point cx=(px(x)) cy=(px(y)) r="3.6" {} },
        1 => format!("M{} {}h7v7h-7z", px(x - 3.5), px(y - 3.5)),
        2 => format!("M{} {}l4.4 7.6h-8.8z", px(x), px(y - 4.8)),
        3 => format!("M{} {}l4.8 4.8l-4.8 4.8l-4.8 -4.8z", px(x), px(y - 4.8)),
        _ => format!("M{} {}l-4.4 -7.6h8.8z", px(x), px(y + 4.8)),
    };
    html! { path.point d=(path) {} }
}

/// How many columns of the legend fit the longest name.
fn legend_columns(shown: &[&Series]) -> usize {
    let longest = shown.iter().map(|s| s.label.chars().count()).max().unwrap_or(0) as f64;
    let width = longest * 7.2 + 46.0;
    ((WIDTH - 20.0) / width).floor().clamp(1.0, 4.0) as usize
}

fn legend_of(shown: &[&Series], columns: usize, top: f64) -> Markup {
    let each = (WIDTH - 20.0) / columns as f64;
    html! {
        @for (i, series) in shown.iter().enumerate() {
            @let (left, y) = (10.0 + each * (i % columns) as f64, top + LEGEND * (i / columns) as f64);
            g class=(class(series)) {
                path.series d=(format!("M{} {}h24", px(left), px(y))) {}
                (point(series.colour, left + 12.0, y))
            }
            text.faint x=(px(left + 32.0)) y=(px(y + 4.5)) { (series.label) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        let point = |x: f64, y| Point { x, y, se: Some(0.01) };
        let series = |label: &str, colour, published| Series {
            label: label.to_owned(),
            points: vec![point(2.0, 0.5), point(3.0, 0.7)],
            published,
            colour,
        };
        Lines {
            y_label: "DSC".to_owned(),
            x_label: "training cases".to_owned(),
            ticks: vec![(2.0, "100".to_owned()), (3.0, "1,000".to_owned())],
            series: vec![series("internal", 0, false), series("published", 0, true)],
            share: true,
        }
    }

    #[test]
    fn every_point_has_a_bar_and_every_series_a_name() {
        let svg = draw("l", &lines()).into_string();
        assert_eq!(svg.matches("class=\"error\"").count(), 4 * 3);
        assert_eq!(svg.matches("<circle").count(), 4 + 2);
        assert!(svg.contains("colour-0 published") && svg.contains(">published</text>"));
        assert!(svg.contains("internal: 0.500 at 100, 0.700 at 1,000."), "{svg}");
    }

    #[test]
    fn nothing_and_a_lone_point_draw() {
        let mut lone = lines();
        lone.ticks.truncate(1);
        for series in &mut lone.series {
            series.points.truncate(1);
        }
        for lines in [Lines::default(), lone] {
            let svg = draw("l", &lines).into_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_share_is_not_zoomed_into() {
        let scale = scale_y(&lines(), Frame { left: 0.0, right: 1.0, top: 0.0, bottom: 1.0 });
        let (low, high) = scale.ends();
        assert!(high - low >= 0.4 - 1e-9 && low >= 0.0 && high <= 1.0);
    }
}
