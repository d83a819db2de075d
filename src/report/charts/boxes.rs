//! One metric by group: a box from the lower to the upper quartile with the median in it, whiskers to the last values
//! within 1.5 interquartile ranges (Tukey 1977), and the values themselves as dots where they are few.

use maud::{Markup, html};

use super::{Frame, Scale, WIDTH, figure, px, x_axis};
use crate::report::stats::quantile;

const ROW: f64 = 34.0;
/// Fewest values for which quartiles are drawn.
const FEWEST: usize = 5;
/// Most values of a group that are all drawn as dots.
const MOST_DOTS: usize = 80;
/// Most groups in a figure.
pub const MOST_GROUPS: usize = 40;

/// A box or a strip of dots for each group; values are sorted and finite. Groups beyond [`MOST_GROUPS`] are left out.
pub fn draw(id: &str, label: &str, groups: &[(String, Vec<f64>)]) -> Markup {
    let groups = &groups[..groups.len().min(MOST_GROUPS)];
    let longest = groups.iter().map(|g| g.0.chars().count().min(18)).max().unwrap_or(0);
    let left = (longest as f64 * 7.0 + 58.0).max(90.0);
    let frame =
        Frame { left, right: WIDTH - 14.0, top: 6.0, bottom: 10.0 + ROW * groups.len() as f64 };
    let all = || groups.iter().flat_map(|g| g.1.iter().copied());
    let domain = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let scale = Scale::linear(domain, (frame.left, frame.right), 5);
    let body = html! {
        (x_axis(frame, &scale, label))
        @for (i, (name, values)) in groups.iter().enumerate() {
            @let y = frame.top + 2.0 + ROW * (i as f64 + 0.5);
            text.tick x="2" y=(px(y + 4.0)) { (shortened(name)) }
            text.faint x=(px(frame.left - 10.0)) y=(px(y + 4.0)) text-anchor="end" { "n = " (values.len()) }
            (row(values, &scale, y))
        }
    };
    let description = groups.iter().map(|(name, values)| match quantile(values, 0.5) {
        Some(median) => format!("{name}: median {median:.2}, n = {}.", values.len()),
        None => format!("{name}: no values."),
    });
    let description = description.collect::<Vec<_>>().join(" ");
    figure(id, (WIDTH, frame.bottom + 44.0), &format!("{label} by centre"), &description, &body)
}

fn row(values: &[f64], scale: &Scale, y: f64) -> Markup {
    let quartile = |q| quantile(values, q).unwrap_or_default();
    let (lower, median, upper) = (quartile(0.25), quartile(0.5), quartile(0.75));
    let reach = 1.5 * (upper - lower);
    let inside = |v: &&f64| (lower - reach..=upper + reach).contains(*v);
    let low = values.iter().find(inside).copied().unwrap_or(lower);
    let high = values.iter().rev().find(inside).copied().unwrap_or(upper);
    let x = |v: f64| px(scale.place(v));
    let dots = values.iter().enumerate().filter(|(_, v)| values.len() <= MOST_DOTS || !inside(v));
    html! {
        @if values.len() >= FEWEST {
            line.whisker x1=(x(low)) x2=(x(high)) y1=(px(y)) y2=(px(y)) {}
            rect.quartiles x=(x(lower)) y=(px(y - 9.0)) height="18"
                width=(px((scale.place(upper) - scale.place(lower)).max(1.0))) rx="2" {}
        }
        @for (i, value) in dots {
            circle.dot cx=(x(*value)) cy=(px(y + jitter(i) * 6.0)) r="2.4" {}
        }
        @if values.len() >= FEWEST {
            line.median x1=(x(median)) x2=(x(median)) y1=(px(y - 9.0)) y2=(px(y + 9.0)) {}
        }
    }
}

/// A spread in [−1, 1] that neighbours do not share: multiples of the golden ratio.
fn jitter(i: usize) -> f64 {
    2.0 * (i as f64 * 0.618_033_988_749_895).fract() - 1.0
}

fn shortened(name: &str) -> String {
    match name.chars().count() {
        0..=18 => name.to_owned(),
        _ => format!("{}…", name.chars().take(17).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_dots_and_more_are_a_box() {
        let few = draw("a", "SNR", &[("A".to_owned(), vec![4.0, 5.0])]).into_string();
        assert_eq!((few.matches("<circle").count(), few.matches("quartiles").count()), (2, 0));
        let values: Vec<f64> = (0..200).map(f64::from).chain([900.0]).collect();
        let many = draw("b", "SNR", &[("B".to_owned(), values)]).into_string();
        assert_eq!((many.matches("<circle").count(), many.matches("quartiles").count()), (1, 1));
        assert!(many.contains("B: median 100.00, n = 201."));
    }

    #[test]
    fn no_groups_and_constant_values_draw() {
        for groups in [vec![], vec![("A".to_owned(), vec![])], vec![("A".to_owned(), vec![3.0; 9])]]
        {
            let svg = draw("c", "SNR", &groups).into_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
