//! Predicted against true volume on logarithmic axes, with the line where both are equal.

use maud::{Markup, html};

use super::{Frame, Scale, WIDTH, figure, px, x_axis, y_axis};

const HEIGHT: f64 = 420.0;
/// Smaller volumes, and none at all, are drawn at this one.
pub const FLOOR_ML: f64 = 0.01;
/// Most points in the figure.
pub const MOST_POINTS: usize = 4000;

/// A dot a case, `(true, predicted)` in mL. Of more than [`MOST_POINTS`] cases, every k-th is drawn.
pub fn draw(id: &str, points: &[(f64, f64)]) -> Markup {
    let frame = Frame { left: 52.0, right: WIDTH - 20.0, top: 28.0, bottom: HEIGHT - 46.0 };
    let drawn = thinned(points);
    let values = || drawn.iter().flat_map(|p| [p.0, p.1]).filter(|v| *v >= FLOOR_ML);
    let low = if drawn.iter().any(|p| p.0 < FLOOR_ML || p.1 < FLOOR_ML) {
        FLOOR_ML
    } else {
        values().fold(1.0, f64::min)
    };
    let domain = (low, values().fold(1.0, f64::max));
    let x = Scale::decades(domain, (frame.left, frame.right));
    let y = Scale::decades(domain, (frame.bottom, frame.top));
    let (start, end) = x.ends();
    let body = html! {
        (x_axis(frame, &x, "reference volume (mL)"))
        (y_axis(frame, &y, "predicted volume (mL)"))
        line.identity x1=(px(x.place(start))) y1=(px(y.place(start))) x2=(px(x.place(end))) y2=(px(y.place(end))) {}
        @for (truth, predicted) in &drawn {
            circle.dot cx=(px(x.place(*truth))) cy=(px(y.place(*predicted))) r="3" {}
        }
    };
    let description = format!(
        "{} cases; {} of them predicted smaller than the reference, {} larger.",
        points.len(),
        points.iter().filter(|p| p.1 < p.0).count(),
        points.iter().filter(|p| p.1 > p.0).count()
    );
    figure(id, (WIDTH, HEIGHT), "Predicted against reference lesion volume", &description, &body)
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(MOST_POINTS).max(1);
    points.iter().copied().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_volumes_lie_on_the_line() {
        let svg = draw("s", &[(1.0, 1.0), (100.0, 100.0)]).into_string();
        assert!(
            svg.contains("cx=\"52\" cy=\"374\"") && svg.contains("cx=\"460\" cy=\"28\""),
            "{svg}"
        );
    }

    #[test]
    fn nothing_predicted_is_drawn_at_the_floor() {
        let svg = draw("s", &[(5.0, 0.0)]).into_string();
        assert!(svg.contains("cy=\"374\"") && !svg.contains("NaN") && !svg.contains("inf"));
        assert!(svg.contains("1 of them predicted smaller"));
    }

    #[test]
    fn there_are_never_too_many_points() {
        assert_eq!(thinned(&vec![(1.0, 1.0); 3 * MOST_POINTS + 1]).len(), 3001);
        assert!(draw("s", &[]).into_string().contains("0 cases"));
    }
}
