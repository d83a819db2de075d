//! Predicted against true volume on logarithmic axes, with the line where both are equal and, where one was fitted, the
//! regression line, which is a curve on these axes.

use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{Frame, Scale, WIDTH, figure, px, x_axis, y_axis};

const HEIGHT: f64 = 420.0;
/// Smaller volumes, and none at all, are drawn at this one.
pub const FLOOR_ML: f64 = 0.01;
/// Most points in the figure.
pub const MOST_POINTS: usize = 4000;

/// Places along the regression line that are joined.
const STEPS: usize = 64;

/// Predicted against true volumes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    /// `(true, predicted)` of each case in mL.
    pub points: Vec<(f64, f64)>,
    /// Slope and intercept (mL) of the regression line.
    pub line: Option<(f64, f64)>,
}

/// A dot a case. Of more than [`MOST_POINTS`] cases, every k-th is drawn.
pub fn draw(id: &str, scatter: &Scatter) -> Markup {
    let points = &scatter.points;
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
        @if let Some(line) = scatter.line {
            path.fitted d=(fitted(line, (start, end), &x, &y)) {}
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

/// The regression line between two volumes, where it is on the axes.
fn fitted(
    (slope, intercept): (f64, f64),
    (start, end): (f64, f64),
    x: &Scale,
    y: &Scale,
) -> String {
    let mut path = String::new();
    for i in 0..=STEPS {
        let at = start * (end / start).powf(i as f64 / STEPS as f64);
        let value = intercept + slope * at;
        if (start..=end).contains(&value) {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            path += &format!("{verb}{} {}", px(x.place(at)), px(y.place(value)));
        }
    }
    path
}

/// The points that are drawn.
pub fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(MOST_POINTS).max(1);
    points.iter().copied().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(points: &[(f64, f64)]) -> Scatter {
        Scatter { points: points.to_vec(), line: None }
    }

    #[test]
    fn the_line_of_equal_volumes_is_straight() {
        let scatter = Scatter { line: Some((1.0, 0.0)), ..of(&[(1.0, 1.0), (100.0, 100.0)]) };
        let svg = draw("s", &scatter).into_string();
        assert!(svg.contains("d=\"M52 374L") && svg.contains("L460 28\""), "{svg}");
        let below = Scatter { line: Some((0.0, -5.0)), ..of(&[(1.0, 1.0)]) };
        assert!(draw("s", &below).into_string().contains("fitted\" d=\"\""));
    }

    #[test]
    fn equal_volumes_lie_on_the_line() {
        let svg = draw("s", &of(&[(1.0, 1.0), (100.0, 100.0)])).into_string();
        assert!(
            svg.contains("cx=\"52\" cy=\"374\"") && svg.contains("cx=\"460\" cy=\"28\""),
            "{svg}"
        );
    }

    #[test]
    fn nothing_predicted_is_drawn_at_the_floor() {
        let svg = draw("s", &of(&[(5.0, 0.0)])).into_string();
        assert!(svg.contains("cy=\"374\"") && !svg.contains("NaN") && !svg.contains("inf"));
        assert!(svg.contains("1 of them predicted smaller"));
    }

    #[test]
    fn there_are_never_too_many_points() {
        assert_eq!(thinned(&vec![(1.0, 1.0); 3 * MOST_POINTS + 1]).len(), 3001);
        assert!(draw("s", &of(&[])).into_string().contains("0 cases"));
    }
}
