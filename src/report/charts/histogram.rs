//! How a score in [0, 1] is distributed: 20 bars, with mean and median marked.

use maud::{Markup, html};

use super::{Frame, Scale, WIDTH, figure, px, x_axis, y_axis};
use crate::report::stats::{mean, quantile};

const HEIGHT: f64 = 420.0;
const BARS: usize = 20;

/// Bars of the values, which are finite; those outside [0, 1] count with the ends.
pub fn draw(id: &str, label: &str, values: &[f64]) -> Markup {
    let frame = Frame { left: 46.0, right: WIDTH - 14.0, top: 52.0, bottom: HEIGHT - 46.0 };
    let mut bars = [0_usize; BARS];
    for value in values {
        // A value on an edge belongs to the bar above it; the nudge undoes 0.15 × 20 = 2.999….
        bars[((value * BARS as f64 + 1e-9).max(0.0) as usize).min(BARS - 1)] += 1;
    }
    let most = bars.iter().copied().max().unwrap_or(0).max(1);
    let x = Scale::linear((0.0, 1.0), (frame.left, frame.right), 5);
    let y = Scale::whole((0.0, most as f64), (frame.bottom, frame.top), 5);
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let marks = [("mean", mean(values), 32.0), ("median", quantile(&sorted, 0.5), 14.0)];
    let body = html! {
        (x_axis(frame, &x, label))
        (y_axis(frame, &y, "cases"))
        @for (i, bar) in bars.iter().enumerate().filter(|(_, bar)| **bar > 0) {
            @let (from, to) = (x.place(i as f64 / BARS as f64), x.place((i + 1) as f64 / BARS as f64));
            @let top = y.place(*bar as f64);
            rect.bar x=(px(from + 1.0)) y=(px(top)) width=(px(to - from - 2.0)) height=(px(frame.bottom - top)) {
                title { (format!("{:.2} to {:.2}: {bar}", i as f64 / BARS as f64, (i + 1) as f64 / BARS as f64)) }
            }
        }
        @for (name, value, height) in marks {
            @if let Some(value) = value {
                @let left = value > 0.5;
                @let at = x.place(value);
                line class=(format!("mark {name}")) x1=(px(at)) x2=(px(at)) y1=(px(height - 8.0)) y2=(px(frame.bottom)) {}
                text.strong.halo x=(px(at + if left { -6.0 } else { 6.0 })) y=(px(height))
                    text-anchor=(if left { "end" } else { "start" }) { (name) (format!(" {value:.3}")) }
            }
        }
    };
    let description = match (marks[0].1, marks[1].1) {
        (Some(mean), Some(median)) => {
            format!("{} cases, mean {mean:.3}, median {median:.3}.", values.len())
        }
        _ => "No cases.".to_owned(),
    };
    figure(id, (WIDTH, HEIGHT), &format!("Distribution of {label}"), &description, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_one_bar() {
        let svg = draw("h", "DSC", &[0.0, 0.15, 0.16, 1.0]).into_string();
        for bar in ["0.00 to 0.05: 1", "0.15 to 0.20: 2", "0.95 to 1.00: 1"] {
            assert!(svg.contains(bar), "{bar}");
        }
        assert!(svg.contains("mean 0.328") && svg.contains("median 0.155"));
    }

    #[test]
    fn no_values_draw_no_bar() {
        let svg = draw("h", "DSC", &[]).into_string();
        assert!(!svg.contains("<rect") && !svg.contains("NaN"));
    }
}
