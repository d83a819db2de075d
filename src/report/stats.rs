//! The few statistics that figures compute themselves: quantiles (linear interpolation, as `numpy.quantile`), mean, and
//! the least-squares line.

/// The quantile `q` in [0, 1] of sorted values; none without values.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

/// The arithmetic mean; none without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Distance of a value from the median of its sorted group, in robust standard deviations (1.4826 × median absolute
/// deviation); none where the group has under 8 values or no spread.
///
/// Source: Iglewicz and Hoaglin, *How to Detect and Handle Outliers*, 1993.
pub fn robust_z(value: f64, sorted: &[f64]) -> Option<f64> {
    const FEWEST: usize = 8;
    let centre = quantile(sorted, 0.5).filter(|_| sorted.len() >= FEWEST)?;
    let mut deviations: Vec<f64> = sorted.iter().map(|v| (v - centre).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let spread = 1.4826 * quantile(&deviations, 0.5)?;
    (spread > 0.0).then(|| (value - centre) / spread)
}

/// A least-squares line and how well it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Change of y a unit of x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// Share of the variance of y that the line explains.
    pub r_squared: f64,
}

/// The least-squares line through the points; none below three points or where x or y does not vary.
pub fn regression(points: &[(f64, f64)]) -> Option<Line> {
    if points.len() < 3 {
        return None;
    }
    let n = points.len() as f64;
    let mx = points.iter().map(|p| p.0).sum::<f64>() / n;
    let my = points.iter().map(|p| p.1).sum::<f64>() / n;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mx).powi(2);
        xy += (x - mx) * (y - my);
        yy += (y - my).powi(2);
    }
    let slope = xy / xx;
    let line = Line { slope, intercept: my - slope * mx, r_squared: xy * xy / (xx * yy) };
    (line.slope.is_finite() && line.r_squared.is_finite()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    // np.quantile([1, 2, 4, 8], [0.25, 0.5, 0.9]) -> [1.75, 3.0, 6.8]
    #[test]
    fn quantiles_are_those_of_numpy() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (q, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            assert!((quantile(&sorted, q).unwrap_or(f64::NAN) - expected).abs() < 1e-12);
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    // scipy.stats.linregress([1, 2, 3, 4], [1.1, 1.9, 3.2, 3.8]) -> slope 0.94, intercept 0.15, rvalue**2 0.982...
    #[test]
    fn the_line_is_that_of_least_squares() {
        let points = [(1.0, 1.1), (2.0, 1.9), (3.0, 3.2), (4.0, 3.8)];
        let line =
            regression(&points).unwrap_or(Line { slope: 0.0, intercept: 0.0, r_squared: 0.0 });
        assert!((line.slope - 0.94).abs() < 1e-9 && (line.intercept - 0.15).abs() < 1e-9);
        assert!((line.r_squared - 0.981_777_777_777_777_8).abs() < 1e-9, "{}", line.r_squared);
        assert_eq!(regression(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(regression(&points[..2]), None);
    }

    #[test]
    fn a_far_value_stands_out_from_its_group() {
        let sorted: Vec<f64> = (0..20).map(f64::from).collect();
        assert!(robust_z(60.0, &sorted).is_some_and(|z| z > 3.5));
        assert!(robust_z(10.0, &sorted).is_some_and(|z| z.abs() < 0.2));
        assert_eq!(robust_z(9.0, &sorted[..7]), None);
        assert_eq!(robust_z(9.0, &[1.0; 12]), None);
    }
}
