//! Two measurements of one quantity: scatter with regression, Bland–Altman, and a table of both.

use super::frame::{Frame, columns};
use super::published;
use super::table::{Cell, Table, number};
use super::{Draft, Plot};
use crate::error::Result;
use crate::pipeline::report_spec::{AgreementSpec, query};
use crate::report::charts::agreement::BlandAltman;
use crate::report::charts::scatter::Scatter;
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::{
    BlandAltman as Agreement, Computed, Interval, Level, Line, NotComputed, Outcome, bland_altman,
    regress,
};

const ALL: &str = "all cases";
/// What may be published.
const PUBLISHED: [&str; 3] = ["r_squared", "slope", "bias"];

/// One comparison: cases that have both values, regression and agreement.
struct Found {
    name: String,
    points: Vec<(f64, f64)>,
    line: Outcome<Line>,
    agreement: Outcome<Agreement>,
}

pub(super) async fn draft(source: &Source<'_>, spec: &AgreementSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let wanted: Vec<&str> =
        [&spec.reference, &spec.measured].into_iter().chain(&spec.by).map(String::as_str).collect();
    columns(source, &from, &wanted).await?;
    let by = spec.by.as_ref().map_or_else(|| format!("'{ALL}'"), |by| identifier(by));
    let (x, y) = (identifier(&spec.reference), identifier(&spec.measured));
    let values = format!("SELECT {by} AS \"by\", {x} AS x, {y} AS y FROM ({from})");
    let frame = Frame::load(source, &values, &["x", "y"], &["by"]).await?;
    let mut draft = Draft::default();
    draft.query(
        "Regression and agreement",
        format!(
            "SELECT \"by\", count(*) AS cases, regr_count(y, x) AS n, regr_slope(y, x) AS slope,\n  \
             regr_intercept(y, x) AS intercept, regr_r2(y, x) AS r_squared,\n  \
             avg(y - x) AS bias, stddev(y - x) AS sd_of_differences\nFROM (\n{values}\n)\nGROUP BY \"by\" ORDER BY \"by\""
        ),
    );
    let mut all = Vec::new();
    for (name, rows) in frame.by_word("by") {
        all.push(compare(name.unwrap_or("not known"), &frame, &rows));
    }
    for found in &all {
        figures(spec, found, all.len() > 1, &mut draft);
    }
    draft.table("", table(spec, &all));
    draft.note("Differences are measured − reference. Limits of agreement: bias ± 1.96 SD of the differences.");
    Ok(draft)
}

fn compare(name: &str, frame: &Frame, rows: &[usize]) -> Found {
    let mut pairs: Vec<(Option<f64>, Option<f64>)> =
        rows.iter().map(|&row| (frame.numbers("x")[row], frame.numbers("y")[row])).collect();
    let key = |v: Option<f64>| v.unwrap_or(f64::INFINITY);
    pairs.sort_by(|a, b| key(a.0).total_cmp(&key(b.0)).then(key(a.1).total_cmp(&key(b.1))));
    let (x, y): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    let finite = |p: &(Option<f64>, Option<f64>)| p.0.zip(p.1).filter(|p| (p.0 + p.1).is_finite());
    Found {
        name: name.to_owned(),
        points: pairs.iter().filter_map(finite).collect(),
        line: regress(&x, &y, Level::P95),
        agreement: bland_altman(&y, &x, Level::P95, Level::P95),
    }
}

fn figures(spec: &AgreementSpec, found: &Found, several: bool, draft: &mut Draft) {
    let of = if several { format!(", {}", found.name) } else { String::new() };
    let told = |name: &str, of: &NotComputed| format!("{name} not computed: {of}.");
    let line = found.line.result.as_ref();
    let fitted = match line {
        Ok(line) => format!(
            "Line: y = {} + {} x, r² = {:.3}, n = {}. Dashed: equal values.",
            number(line.intercept.value, 2),
            number(line.slope.value, 3),
            line.r_squared,
            found.line.n()
        ),
        Err(reason) => told("Regression", reason),
    };
    let scatter = Scatter {
        points: found.points.clone(),
        line: line.ok().map(|l| (l.slope.value, l.intercept.value)),
    };
    let caption = format!("Predicted against reference{of}. {fitted}");
    draft.figure(&format!("scatter{of}"), caption, Plot::Scatter(scatter));
    let mut plot =
        BlandAltman { label: spec.unit.clone(), points: found.points.clone(), lines: Vec::new() };
    let limits = match &found.agreement.result {
        Ok(a) => {
            let line = |name: &str, value, interval: &Interval| {
                (name.to_owned(), value, interval.low, interval.high)
            };
            plot.lines = vec![
                line("bias", a.bias, &a.bias_interval),
                line("upper", a.upper, &a.upper_interval),
                line("lower", a.lower, &a.lower_interval),
            ];
            "Lines: bias and 95 % limits of agreement; bands: their 95 % confidence intervals."
                .to_owned()
        }
        Err(reason) => told("Bias and limits", reason),
    };
    let caption = format!("Bland–Altman plot{of}. {limits}");
    draft.figure(&format!("bland-altman{of}"), caption, Plot::BlandAltman(plot));
}

fn table(spec: &AgreementSpec, all: &[Found]) -> Table {
    let given = !spec.published.is_empty();
    let mut head = vec!["Quantity".to_owned()];
    for found in all {
        head.push(found.name.clone());
        head.extend(given.then(|| format!("{}, published", found.name)));
    }
    let unit = &spec.unit;
    let mut table = Table::new(
        format!("Regression of {} on {}, and agreement of the two.", spec.measured, spec.reference),
        head,
    );
    let mut push = |label: String, key: &str, cell: &dyn Fn(&Found) -> Cell| {
        let mut row = vec![Cell::Text(label)];
        for found in all {
            row.push(cell(found));
            if given {
                let keys: Vec<(&str, &str)> =
                    spec.by.as_deref().map(|by| (by, found.name.as_str())).into_iter().collect();
                let value = published::find(&spec.published, &keys, &PUBLISHED, key);
                row.push(Cell::published(value.as_ref(), key));
            }
        }
        table.push(row);
    };
    push("Cases with both".to_owned(), "", &|f| Cell::Count(f.agreement.n() as u64));
    push("Missing".to_owned(), "", &|f| Cell::Count(f.agreement.missing() as u64));
    push("r²".to_owned(), "r_squared", &|f| of_line(f, |l| Cell::Number(l.r_squared, 3)));
    push("Slope".to_owned(), "slope", &|f| {
        of_line(f, |l| interval(l.slope.value, &l.slope.interval, 3))
    });
    push(format!("Intercept ({unit})"), "", &|f| {
        of_line(f, |l| interval(l.intercept.value, &l.intercept.interval, 2))
    });
    push("p of the slope".to_owned(), "", &|f| of_line(f, |l| p_of(&l.slope.p)));
    push(format!("Bias ({unit})"), "bias", &|f| {
        of_agreement(f, |a| interval(a.bias, &a.bias_interval, 2))
    });
    push(format!("Lower limit ({unit})"), "", &|f| {
        of_agreement(f, |a| interval(a.lower, &a.lower_interval, 2))
    });
    push(format!("Upper limit ({unit})"), "", &|f| {
        of_agreement(f, |a| interval(a.upper, &a.upper_interval, 2))
    });
    table
}

fn of_line(found: &Found, cell: impl Fn(&Line) -> Cell) -> Cell {
    found.line.result.as_ref().map_or_else(Cell::none, cell)
}

fn of_agreement(found: &Found, cell: impl Fn(&Agreement) -> Cell) -> Cell {
    found.agreement.result.as_ref().map_or_else(Cell::none, cell)
}

/// A number with its confidence interval.
pub(super) fn interval(value: f64, interval: &Interval, decimals: usize) -> Cell {
    Cell::Interval { value, low: interval.low, high: interval.high, decimals }
}

/// A p value, or why there is none.
pub(super) fn p_of(p: &Computed) -> Cell {
    p.as_ref().map_or_else(Cell::none, |p| Cell::P(*p, String::new()))
}
