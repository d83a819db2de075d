//! Mean scores against a number, such as the number of training cases: overall, and by strata.

use super::frame::{Division, Frame, aggregates, columns};
use super::published;
use super::table::{Cell, Row, Table};
use super::{Draft, Plot, decimals, is_share, measure_label};
use crate::error::Result;
use crate::pipeline::report_spec::{CurveSpec, StratumSpec, query};
use crate::report::charts::lines::{Lines, Point, Series};
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::describe;

/// What the one series is called where nothing tells series apart.
const ALL: &str = "all cases";

pub(super) async fn draft(
    source: &Source<'_>,
    spec: &CurveSpec,
    strata: &[StratumSpec],
) -> Result<Draft> {
    let from = query(&spec.from);
    let mut wanted = vec![spec.x.as_str()];
    wanted.extend(spec.by.iter().map(String::as_str));
    wanted.extend(spec.measures.iter().map(String::as_str));
    let known = columns(source, &from, &wanted).await?;
    let mut draft = Draft::default();
    let curve = Curve { spec, from: &from };
    curve.overall(source, &mut draft).await?;
    for stratum in spec.strata.as_deref().unwrap_or(strata) {
        match Division::find(stratum, &known) {
            Ok(division) => curve.stratum(source, &division, &mut draft).await?,
            Err(error) => draft.note(format!("Not computed: {}.", error.reason())),
        }
    }
    Ok(draft)
}

struct Curve<'a> {
    spec: &'a CurveSpec,
    from: &'a str,
}

/// Rows of one line: its name, and the rows at each place.
type Line = (String, Vec<(f64, Vec<usize>)>);

impl Curve<'_> {
    /// The query of the values: place, series, group, scores.
    fn values_sql(&self, division: Option<&Division>) -> String {
        let spec = self.spec;
        let by = spec.by.as_ref().map(|by| format!("s.{}", identifier(by)));
        let within: Vec<String> =
            std::iter::once(format!("s.{}", identifier(&spec.x))).chain(by.clone()).collect();
        let mut select = vec![
            format!("s.{} AS x", identifier(&spec.x)),
            format!("{} AS series", by.unwrap_or_else(|| format!("'{ALL}'"))),
        ];
        select.extend(division.map(|d| d.select(&within)));
        select.extend(spec.measures.iter().map(|m| format!("s.{}", identifier(m))));
        format!("SELECT {}\nFROM ({}) s", select.join(", "), self.from)
    }

    fn aggregate_sql(&self, values: &str, keys: &str) -> String {
        format!(
            "SELECT {keys}, {}\nFROM (\n{values}\n)\nGROUP BY {keys} ORDER BY {keys}",
            aggregates(&self.spec.measures)
        )
    }

    async fn frame(&self, source: &Source<'_>, sql: &str, grouped: bool) -> Result<Frame> {
        let mut numbers: Vec<&str> = vec!["x"];
        numbers.extend(self.spec.measures.iter().map(String::as_str));
        let mut words = vec!["series"];
        if grouped {
            numbers.push("level");
            words.push("group");
        }
        Frame::load(source, sql, &numbers, &words).await
    }

    /// The rows at each place of the axis; rows without a place are left out and counted.
    fn places(&self, frame: &Frame, rows: &[usize], draft: &mut Draft) -> Vec<(f64, Vec<usize>)> {
        let x = frame.numbers("x");
        let mut known: Vec<(f64, usize)> =
            rows.iter().filter_map(|&row| Some((x[row].filter(|x| x.is_finite())?, row))).collect();
        if known.len() < rows.len() {
            let lost = rows.len() - known.len();
            draft.note(format!("{lost} rows without {} are left out.", self.spec.x));
        }
        known.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut places: Vec<(f64, Vec<usize>)> = Vec::new();
        for (x, row) in known {
            match places.last_mut() {
                Some((at, rows)) if (*at - x).abs() < 1e-12 => rows.push(row),
                _ => places.push((x, vec![row])),
            }
        }
        places
    }

    async fn overall(&self, source: &Source<'_>, draft: &mut Draft) -> Result<()> {
        let spec = self.spec;
        let values = self.values_sql(None);
        let frame = self.frame(source, &values, false).await?;
        let lines: Vec<Line> = frame
            .by_word("series")
            .into_iter()
            .map(|(name, rows)| {
                (name.unwrap_or("not known").to_owned(), self.places(&frame, &rows, draft))
            })
            .collect();
        draft.query("Means", self.aggregate_sql(&values, "series, x"));
        for measure in &spec.measures {
            let mut plot = self.plot(&frame, measure, &lines);
            self.add_published(&mut plot, measure, &lines);
            let caption = format!(
                "Mean {} by {}; bars are one standard error.",
                measure_label(measure),
                self.x_label()
            );
            draft.figure(measure, caption, Plot::Lines(plot));
        }
        draft.table("", self.table(&frame, &lines));
        Ok(())
    }

    fn x_label(&self) -> &str {
        self.spec.x_label.as_deref().unwrap_or(&self.spec.x)
    }

    fn plot(&self, frame: &Frame, measure: &str, lines: &[Line]) -> Lines {
        let mut places: Vec<f64> =
            lines.iter().flat_map(|(_, places)| places.iter().map(|p| p.0)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let log = self.spec.log && places.iter().all(|x| *x > 0.0);
        let place = |x: f64| if log { x.log10() } else { x };
        let series = lines.iter().enumerate().map(|(colour, (label, at))| {
            let points = at.iter().filter_map(|(x, rows)| {
                let found = describe(&frame.values(measure, rows));
                Some(Point { x: place(*x), y: found.mean.ok()?, se: found.se.ok() })
            });
            Series { label: label.clone(), points: points.collect(), published: false, colour }
        });
        Lines {
            y_label: measure_label(measure),
            x_label: self.x_label().to_owned(),
            ticks: places.iter().map(|x| (place(*x), place_label(*x))).collect(),
            series: series.collect(),
            share: is_share(measure),
        }
    }

    fn add_published(&self, plot: &mut Lines, measure: &str, lines: &[Line]) {
        let mut found = Vec::new();
        for (colour, (label, places)) in lines.iter().enumerate() {
            let points: Vec<Point> = places
                .iter()
                .filter_map(|(x, _)| {
                    let y = published::number(
                        &self.spec.published,
                        &self.keys(label, &x.to_string()),
                        &self.measures(),
                        measure,
                    )?;
                    let x = plot.ticks.iter().find(|t| t.1 == place_label(*x))?.0;
                    Some(Point { x, y, se: None })
                })
                .collect();
            let name = if lines.len() == 1 { String::new() } else { format!("{label}, ") };
            found.push(Series {
                label: format!("{name}published"),
                points,
                published: true,
                colour,
            });
        }
        plot.series.extend(found.into_iter().filter(|s| !s.points.is_empty()));
    }

    fn keys<'k>(&'k self, series: &'k str, x: &'k str) -> Vec<(&'k str, &'k str)> {
        let by = self.spec.by.as_deref().map(|by| (by, series));
        std::iter::once((self.spec.x.as_str(), x)).chain(by).collect()
    }

    fn measures(&self) -> Vec<&str> {
        self.spec.measures.iter().map(String::as_str).collect()
    }

    /// A row a series and place: cases, and each score with what was published.
    fn table(&self, frame: &Frame, lines: &[Line]) -> Table {
        let spec = self.spec;
        let measures = self.measures();
        let given: Vec<bool> = measures
            .iter()
            .map(|m| spec.published.iter().any(|entry| entry.contains_key(*m)))
            .collect();
        let mut head = vec![self.x_label().to_owned(), "Cases scored".to_owned()];
        for (measure, given) in measures.iter().zip(&given) {
            head.push(measure_label(measure));
            head.extend(given.then(|| format!("{}, published", measure_label(measure))));
        }
        let mut table = Table::new("Mean ± SD over cases, and the standard error (SE).", head);
        for (label, places) in lines {
            if lines.len() > 1 {
                table.rows.push(Row::Heading(label.clone()));
            }
            for (x, rows) in places {
                let mut cells = vec![place_cell(*x), Cell::Count(rows.len() as u64)];
                for (measure, given) in measures.iter().zip(&given) {
                    let found = describe(&frame.values(measure, rows));
                    cells.push(Cell::mean(&found, decimals(measure)));
                    if *given {
                        let x = x.to_string();
                        let value = published::find(
                            &spec.published,
                            &self.keys(label, &x),
                            &measures,
                            measure,
                        );
                        cells.push(Cell::published(value.as_ref(), measure));
                    }
                }
                table.push(cells);
            }
        }
        table
    }

    async fn stratum(
        &self,
        source: &Source<'_>,
        division: &Division,
        draft: &mut Draft,
    ) -> Result<()> {
        let values = self.values_sql(Some(division));
        let frame = self.frame(source, &values, true).await?;
        let label = &division.variable.label;
        draft.query(label.as_str(), self.aggregate_sql(&values, "series, \"group\", x"));
        let all = frame.by_word("series");
        for (series, members) in &all {
            let mut lines: Vec<Line> = Vec::new();
            for (group, rows) in division.groups(&frame) {
                let rows: Vec<usize> =
                    rows.into_iter().filter(|row| members.binary_search(row).is_ok()).collect();
                lines.push((group, self.places(&frame, &rows, draft)));
            }
            let of = match series {
                Some(name) if all.len() > 1 => format!(", {name}"),
                _ => String::new(),
            };
            for measure in &self.spec.measures {
                let caption = format!(
                    "Mean {} by {} and {}{of}; bars are one standard error.",
                    measure_label(measure),
                    self.x_label(),
                    label.to_lowercase()
                );
                let name = format!("{measure} by {}{of}", division.column);
                let mut plot = self.plot(&frame, measure, &lines);
                plot.y_label += &of;
                draft.figure(&name, caption, Plot::Lines(plot));
            }
            let name = format!("by {}{of}", division.column);
            draft.table(&name, self.wide_table(&frame, &format!("{label}{of}"), &lines));
        }
        Ok(())
    }

    /// A row a group and score, a column a place.
    fn wide_table(&self, frame: &Frame, label: &str, lines: &[Line]) -> Table {
        let mut places: Vec<f64> =
            lines.iter().flat_map(|(_, places)| places.iter().map(|p| p.0)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let head = std::iter::once(label.to_owned()).chain(places.iter().map(|x| place_label(*x)));
        let caption = format!(
            "Mean ± SD over cases, and the standard error (SE); a column for each number of {}.",
            self.x_label()
        );
        let mut table = Table::new(caption, head.collect());
        for measure in &self.spec.measures {
            table.rows.push(Row::Heading(measure_label(measure)));
            for (group, at) in lines {
                let mut cells = vec![Cell::Text(group.clone())];
                for x in &places {
                    let rows = at.iter().find(|(p, _)| (p - x).abs() < 1e-12);
                    let found = rows.map(|(_, rows)| describe(&frame.values(measure, rows)));
                    cells.push(found.map_or(Cell::NotComputed("n = 0".to_owned()), |found| {
                        Cell::mean(&found, decimals(measure))
                    }));
                }
                table.push(cells);
            }
        }
        table
    }
}

/// A place of the axis in a table; its CSV can be computed with.
fn place_cell(x: f64) -> Cell {
    if is_whole(x) { Cell::Count(x as u64) } else { Cell::Number(x, 3) }
}

fn is_whole(x: f64) -> bool {
    x.fract().abs() < 1e-9 && (0.0..1e15).contains(&x)
}

/// A place of the axis in words: `8,661`, `2.5`.
fn place_label(x: f64) -> String {
    if is_whole(x) { crate::report::tables::count(x as u64) } else { x.to_string() }
}
