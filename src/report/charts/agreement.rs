//! Two measurements of one quantity: differences against means, with bias and limits of agreement and their confidence
//! intervals as bands (Bland & Altman 1999, doi:10.1177/096228029900800204).

use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::scatter::{MOST_POINTS, thinned};
use super::{Frame, Scale, WIDTH, figure, number, px, x_axis, y_axis};

const HEIGHT: f64 = 340.0;

/// Differences against means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BlandAltman {
    /// What is measured, with its unit.
    pub label: String,
    /// Reference and measurement of each case.
    pub points: Vec<(f64, f64)>,
    /// Name, value, lower and upper end of the interval of each line.
    pub lines: Vec<(String, f64, f64, f64)>,
}

/// A dot a case: its mean to the right, measured − reference upwards.
pub fn draw(id: &str, found: &BlandAltman) -> Markup {
    let frame = Frame { left: 56.0, right: WIDTH - 96.0, top: 28.0, bottom: HEIGHT - 46.0 };
    let dots: Vec<(f64, f64)> = thinned(&found.points)
        .iter()
        .map(|(reference, measured)| (f64::midpoint(*reference, *measured), measured - reference))
        .collect();
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let bounds = found.lines.iter().flat_map(|l| [l.2, l.3]);
    let x = Scale::linear(ends(&mut dots.iter().map(|d| d.0)), (frame.left, frame.right), 5);
    let y = Scale::linear(
        ends(&mut dots.iter().map(|d| d.1).chain(bounds)),
        (frame.bottom, frame.top),
        6,
    );
    let labels = apart(found.lines.iter().map(|l| y.place(l.1)).collect(), 15.0);
    let body = html! {
        (x_axis(frame, &x, &format!("mean of both ({})", found.label)))
        (y_axis(frame, &y, &format!("predicted − reference ({})", found.label)))
        @for (_, _, low, high) in &found.lines {
            rect.band x=(px(frame.left)) width=(px(frame.right - frame.left)) y=(px(y.place(*high)))
                height=(px((y.place(*low) - y.place(*high)).max(0.5))) {}
        }
        @for (mean, difference) in &dots {
            circle.dot cx=(px(x.place(*mean))) cy=(px(y.place(*difference))) r="2.6" {}
        }
        @for ((i, (name, value, ..)), at) in found.lines.iter().enumerate().zip(&labels) {
            line class=(if i == 0 { "bias" } else { "limit" }) x1=(px(frame.left)) x2=(px(frame.right))
                y1=(px(y.place(*value))) y2=(px(y.place(*value))) {}
            text.tick x=(px(frame.right + 5.0)) y=(px(at + 4.0)) { (name) " " (number(*value, 0.01)) }
        }
    };
    let described = found
        .lines
        .iter()
        .map(|(name, v, low, high)| format!("{name} {v:.2} ({low:.2} to {high:.2})."));
    let thin = if found.points.len() > MOST_POINTS { " Not every case is drawn." } else { "" };
    let description =
        format!("{} cases. {}{thin}", found.points.len(), described.collect::<Vec<_>>().join(" "));
    figure(id, (WIDTH, HEIGHT), "Bland–Altman plot", &description, &body)
}

/// Places pushed apart, in their order, so that labels at them do not overlap.
fn apart(places: Vec<f64>, least: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let mut moved = places;
    // From the middle outwards, so that the middle label stays at its line.
    let middle = order.len() / 2;
    for i in middle + 1..order.len() {
        moved[order[i]] = moved[order[i]].max(moved[order[i - 1]] + least);
    }
    for i in (0..middle).rev() {
        moved[order[i]] = moved[order[i]].min(moved[order[i + 1]] - least);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_and_limits_are_drawn_and_told() {
        let found = BlandAltman {
            label: "mL".to_owned(),
            points: vec![(1.0, 0.5), (10.0, 12.0), (3.0, 3.0)],
            lines: vec![
                ("bias".to_owned(), 0.5, -2.0, 3.0),
                ("upper".to_owned(), 3.0, 1.0, 5.0),
                ("lower".to_owned(), -2.0, -4.0, 0.0),
            ],
        };
        let svg = draw("b", &found).into_string();
        assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"band\"").count()), (3, 3));
        assert!(svg.contains("bias 0.50 (-2.00 to 3.00)."), "{svg}");
        let empty = draw("b", &BlandAltman::default()).into_string();
        assert!(!empty.contains("NaN") && !empty.contains("inf"));
    }

    #[test]
    fn labels_do_not_overlap() {
        assert_eq!(apart(vec![100.0, 98.0, 101.0], 15.0), [100.0, 85.0, 115.0]);
        assert_eq!(apart(vec![0.0, 50.0], 15.0), [0.0, 50.0]);
    }
}
