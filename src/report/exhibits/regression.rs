//! Scores as a straight line of a variable, such as the number of training cases.

use super::agreement::{interval, p_of};
use super::frame::{Frame, columns};
use super::table::{Cell, Table};
use super::{Draft, measure_label};
use crate::error::Result;
use crate::pipeline::report_spec::{RegressionSpec, query};
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::{Coefficient, Level, regress};

pub(super) async fn draft(source: &Source<'_>, spec: &RegressionSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let measures: Vec<&str> = spec.measures.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = measures.iter().copied().chain([spec.x.as_str()]).collect();
    columns(source, &from, &wanted).await?;
    let x = identifier(&spec.x);
    let x = if spec.log { format!("log10({x})") } else { x };
    let select: Vec<String> = measures.iter().map(|m| identifier(m)).collect();
    let values = format!("SELECT CAST({x} AS DOUBLE) AS x, {}\nFROM ({from})", select.join(", "));
    let numbers: Vec<&str> = measures.iter().copied().chain(["x"]).collect();
    let frame = Frame::load(source, &values, &numbers, &[]).await?;
    let name = if spec.log { format!("log₁₀ {}", spec.x) } else { spec.x.clone() };
    let mut table = Table::new(
        format!("Ordinary least squares of each score on {name}, a case and model a point."),
        ["Score", "n", "Missing", "Slope", "p of the slope", "Intercept", "r²"]
            .map(str::to_owned)
            .to_vec(),
    );
    let mut draft = Draft::default();
    let each = measures.iter().map(|m| {
        let (column, of) = (identifier(m), |what: &str| identifier(&format!("{m}_{what}")));
        format!(
            "regr_count({column}, x) AS {}, regr_slope({column}, x) AS {},\n  regr_intercept({column}, x) AS {}, regr_r2({column}, x) AS {}",
            of("n"),
            of("slope"),
            of("intercept"),
            of("r_squared")
        )
    });
    draft.query(
        "Lines",
        format!("SELECT {}\nFROM (\n{values}\n)", each.collect::<Vec<_>>().join(",\n  ")),
    );
    for measure in &measures {
        let mut pairs: Vec<(Option<f64>, Option<f64>)> = frame
            .numbers("x")
            .iter()
            .copied()
            .zip(frame.numbers(measure).iter().copied())
            .collect();
        let key = |v: Option<f64>| v.unwrap_or(f64::INFINITY);
        pairs.sort_by(|a, b| key(a.0).total_cmp(&key(b.0)).then(key(a.1).total_cmp(&key(b.1))));
        let (x, y): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let found = regress(&x, &y, Level::P95);
        let mut cells = vec![
            Cell::Text(measure_label(measure)),
            Cell::Count(found.n() as u64),
            Cell::Count(found.missing() as u64),
        ];
        match &found.result {
            Ok(line) => cells.extend([
                interval(line.slope.value, &line.slope.interval, slope_decimals(&line.slope)),
                p_of(&line.slope.p),
                interval(line.intercept.value, &line.intercept.interval, 3),
                Cell::Number(line.r_squared, 3),
            ]),
            Err(reason) => {
                cells.extend([Cell::none(reason), Cell::Blank, Cell::Blank, Cell::Blank]);
            }
        }
        table.push(cells);
    }
    draft.table("", table);
    Ok(draft)
}

/// Decimals that show three digits of a slope, or of its interval where that is wider.
fn slope_decimals(slope: &Coefficient) -> usize {
    let size = slope.value.abs().max(slope.interval.high - slope.interval.low);
    let magnitude = if size > 0.0 { size.log10().floor() } else { 0.0 };
    (2.0 - magnitude).clamp(2.0, 9.0) as usize
}
