//! Models compared on the same cases.

use std::collections::BTreeMap;

use super::agreement::interval;
use super::frame::{Frame, columns};
use super::groups::told;
use super::table::{Cell, Row, Table};
use super::{Draft, decimals, measure_label};
use crate::error::{Error, Result};
use crate::pipeline::report_spec::{ComparisonSpec, query};
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::{Level, Outcome, Test, describe, holm, paired_t, wilcoxon};

pub(super) async fn draft(source: &Source<'_>, spec: &ComparisonSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let measures: Vec<&str> = spec.measures.iter().map(String::as_str).collect();
    let wanted: Vec<&str> =
        measures.iter().copied().chain([spec.by.as_str(), spec.pair.as_str()]).collect();
    columns(source, &from, &wanted).await?;
    let select: Vec<String> = measures.iter().map(|m| identifier(m)).collect();
    let values = format!(
        "SELECT {} AS model, {} AS pair, {}\nFROM ({from})",
        identifier(&spec.by),
        identifier(&spec.pair),
        select.join(", ")
    );
    let frame = Frame::load(source, &values, &measures, &["model", "pair"]).await?;
    let models = models(&frame, spec)?;
    let pairs = pairs(&models, spec)?;
    let mut draft = Draft::default();
    if pairs.is_empty() {
        let known: Vec<&str> = models.iter().map(|(model, _)| *model).collect();
        draft.note(format!(
            "Not computed: a comparison needs two values of {}, and there is {}.",
            spec.by,
            if known.is_empty() { "none".to_owned() } else { format!("only {}", known.join(", ")) }
        ));
        return Ok(draft);
    }
    let mut table = Table::new(
        "Differences are first − second, over the cases that both scored. p values are corrected by Holm within a score and test.",
        [
            "Models",
            "Cases",
            "First, mean",
            "Second, mean",
            "Difference",
            "Paired t: p",
            "Paired t: Holm",
            "Wilcoxon: p",
            "Wilcoxon: Holm",
        ]
        .map(str::to_owned)
        .to_vec(),
    );
    for measure in &measures {
        table.rows.push(Row::Heading(measure_label(measure)));
        for cells in rows(&frame, &models, &pairs, measure) {
            table.push(cells);
        }
        let column = identifier(measure);
        draft.query(
            measure_label(measure),
            format!(
                "WITH v AS (\n{values}\n)\nSELECT a.model AS first, b.model AS second, count(a.{column} - b.{column}) AS n,\n  \
                 avg(a.{column} - b.{column}) AS difference, stddev(a.{column} - b.{column}) AS sd_of_differences\n\
                 FROM v a JOIN v b ON a.pair = b.pair AND a.model <> b.model\nGROUP BY a.model, b.model ORDER BY a.model, b.model"
            ),
        );
    }
    draft.table("", table);
    Ok(draft)
}

/// The row of each case of each model.
type Models<'a> = Vec<(&'a str, BTreeMap<&'a str, usize>)>;

fn models<'a>(frame: &'a Frame, spec: &ComparisonSpec) -> Result<Models<'a>> {
    let mut models = Vec::new();
    for (model, rows) in frame.by_word("model") {
        let Some(model) = model else { continue };
        let mut cases = BTreeMap::new();
        for row in rows {
            let Some(case) = frame.word("pair", row) else { continue };
            if cases.insert(case, row).is_some() {
                return Err(Error::configuration(format!(
                    "{} `{case}` has several rows with {} `{model}`",
                    spec.pair, spec.by
                ))
                .hint("choose one row a case and model in the query"));
            }
        }
        models.push((model, cases));
    }
    Ok(models)
}

/// Which models are compared: each with each, or each with one.
fn pairs(models: &Models, spec: &ComparisonSpec) -> Result<Vec<(usize, usize)>> {
    let Some(against) = &spec.against else {
        let each = |i| (i + 1..models.len()).map(move |j| (i, j));
        return Ok((0..models.len()).flat_map(each).collect());
    };
    let Some(one) = models.iter().position(|(model, _)| model == against) else {
        let known: Vec<&str> = models.iter().map(|(model, _)| *model).collect();
        return Err(Error::configuration(format!("no row has {} `{against}`", spec.by))
            .hint(format!("there are: {}", known.join(", "))));
    };
    Ok((0..models.len()).filter(|i| *i != one).map(|i| (i, one)).collect())
}

fn rows(frame: &Frame, models: &Models, pairs: &[(usize, usize)], measure: &str) -> Vec<Vec<Cell>> {
    let values = frame.numbers(measure);
    let mut found = Vec::new();
    for (i, j) in pairs {
        let ((first, a), (second, b)) = (&models[*i], &models[*j]);
        let both: Vec<(Option<f64>, Option<f64>)> = a
            .iter()
            .filter_map(|(case, row)| Some((values[*row], values[*b.get(case)?])))
            .collect();
        let (x, y): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        found.push((format!("{first} − {second}"), x, y));
    }
    let t: Vec<Outcome<Test>> = found.iter().map(|(_, x, y)| paired_t(x, y, Level::P95)).collect();
    let w: Vec<Outcome<Test>> = found.iter().map(|(_, x, y)| wilcoxon(x, y)).collect();
    let holm_of =
        |tests: &[Outcome<Test>]| holm(&tests.iter().map(Outcome::p).collect::<Vec<_>>()).adjusted;
    let (holm_t, holm_w) = (holm_of(&t), holm_of(&w));
    let digits = decimals(measure);
    let mut rows = Vec::new();
    for (k, (name, x, y)) in found.into_iter().enumerate() {
        let difference = match &t[k].result {
            Ok(test) => match test.effects.first() {
                Some(effect) => effect.interval.map_or(Cell::Number(effect.value, digits), |i| {
                    interval(effect.value, &i, digits)
                }),
                None => Cell::Blank,
            },
            Err(reason) => Cell::none(reason),
        };
        let p = |test: &Outcome<Test>| match &test.result {
            Ok(test) => Cell::P(test.p, told(test)),
            Err(reason) => Cell::none(reason),
        };
        let adjusted = |p: Option<f64>| p.map_or(Cell::Blank, |p| Cell::P(p, String::new()));
        rows.push(vec![
            Cell::Text(name),
            Cell::Count(t[k].n() as u64),
            Cell::computed(&describe(&x).mean, digits),
            Cell::computed(&describe(&y).mean, digits),
            difference,
            p(&t[k]),
            adjusted(holm_t[k]),
            p(&w[k]),
            adjusted(holm_w[k]),
        ]);
    }
    rows
}
