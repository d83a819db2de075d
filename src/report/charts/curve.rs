//! A quantity against the epoch, with the kept epoch marked.

use maud::{Markup, html};

use super::{Frame, Scale, WIDTH, figure, px, x_axis, y_axis};

const HEIGHT: f64 = 270.0;

/// What one line shows.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    /// Identifier on the page.
    pub id: &'a str,
    /// Quantity, with its unit.
    pub label: &'a str,
    /// Epoch and value, by epoch; all finite.
    pub points: &'a [(f64, f64)],
    /// The epoch to mark.
    pub kept: Option<f64>,
    /// The axis starts at 0 and ends at 1.
    pub unit_interval: bool,
}

/// A line through the points.
pub fn draw(curve: &Curve<'_>) -> Markup {
    let frame = Frame { left: 46.0, right: WIDTH - 14.0, top: 28.0, bottom: HEIGHT - 46.0 };
    let ends = |of: fn(&(f64, f64)) -> f64| {
        let values = curve.points.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let (first, last) = ends(|p| p.0);
    let x = if first < last {
        Scale::whole((first, last), (frame.left, frame.right), 8)
    } else {
        Scale::whole((first - 1.0, last + 1.0), (frame.left, frame.right), 2)
    };
    let (low, high) = ends(|p| p.1);
    let domain = if curve.unit_interval { (0.0, 1.0) } else { (low.min(0.0), high) };
    let y = Scale::linear(domain, (frame.bottom, frame.top), 5);
    let path = curve.points.iter().enumerate().map(|(i, p)| {
        let verb = if i == 0 { 'M' } else { 'L' };
        format!("{verb}{} {}", px(x.place(p.0)), px(y.place(p.1)))
    });
    let kept = curve.points.iter().find(|p| Some(p.0) == curve.kept);
    let body = html! {
        (x_axis(frame, &x, "epoch"))
        (y_axis(frame, &y, curve.label))
        path.curve d=(path.collect::<String>()) {}
        @for p in curve.points.iter().filter(|_| curve.points.len() <= 60) {
            circle.dot cx=(px(x.place(p.0))) cy=(px(y.place(p.1))) r="2.6" {}
        }
        @if let Some(p) = kept {
            @let near_end = x.place(p.0) > frame.right - 90.0;
            circle.kept cx=(px(x.place(p.0))) cy=(px(y.place(p.1))) r="6" {}
            text.strong.halo x=(px(x.place(p.0) + if near_end { -10.0 } else { 10.0 }))
                y=(px(if y.place(p.1) < frame.top + 24.0 { y.place(p.1) + 22.0 } else { y.place(p.1) - 10.0 }))
                text-anchor=(if near_end { "end" } else { "start" }) { "kept: " (format!("{:.3}", p.1)) }
        }
    };
    let description = match (curve.points.first(), curve.points.last()) {
        (Some(a), Some(b)) => format!(
            "From {:.3} at epoch {} to {:.3} at epoch {}.{}",
            a.1,
            a.0,
            b.1,
            b.0,
            kept.map(|k| format!(" Kept: epoch {} with {:.3}.", k.0, k.1)).unwrap_or_default()
        ),
        _ => "No epochs.".to_owned(),
    };
    figure(curve.id, (WIDTH, HEIGHT), curve.label, &description, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_epoch_is_marked() {
        let points = [(0.0, 0.2), (1.0, 0.5), (2.0, 0.45)];
        let curve = Curve {
            id: "a",
            label: "validation DSC",
            points: &points,
            kept: Some(1.0),
            unit_interval: true,
        };
        let svg = draw(&curve).into_string();
        assert!(svg.contains("kept: 0.500") && svg.contains("M46 "), "{svg}");
    }

    #[test]
    fn one_or_no_epoch_draws() {
        for points in [&[][..], &[(0.0, 1.5)][..]] {
            let curve = Curve { id: "a", label: "loss", points, kept: None, unit_interval: false };
            let svg = draw(&curve).into_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
