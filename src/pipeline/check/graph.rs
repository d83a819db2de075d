//! Which step needs which: names are resolved, circles are found, and an order is chosen.

use std::collections::BTreeMap;

use super::steps::Draft;
use crate::catalog::AT;
use crate::engine::parameters::suggest;
use crate::pipeline::diagnostics::{Problems, Span};
use crate::pipeline::plan::{Action, Source};
use crate::pipeline::spec::{ModelSource, TABLES};

/// For each step the positions of the steps it needs, in their order and once each. Names that mean nothing are
/// problems. `off` are the steps that are switched off.
pub fn connect(
    drafts: &mut [Draft<'_>],
    known: &Known,
    off: &[&str],
    problems: &mut Problems,
) -> Vec<Vec<usize>> {
    let names: Vec<&str> = known.steps.iter().map(String::as_str).collect();
    let fills: Vec<&[&str]> = drafts.iter().map(fills).collect();
    let trains = |n: &usize| fills[*n] == ["models"];
    let trained: Vec<&str> = (0..names.len()).filter(trains).map(|n| names[n]).collect();
    // A report or a difference tells of the whole run: it comes after everything else.
    let is_report =
        |d: &Draft<'_>| d.verb.is_some_and(|v| matches!(v.key.as_str(), "report" | "difference"));
    let others: Vec<usize> = (0..names.len()).filter(|n| !is_report(&drafts[*n])).collect();
    let mut needs = Vec::new();
    for (n, draft) in drafts.iter_mut().enumerate() {
        let mut found = Vec::new();
        if !resolve_source(draft, known, off, &mut found, problems) {
            draft.from = None;
        }
        if !resolve_reads(draft, known, off, &mut found, problems) {
            draft.action = None;
        }
        let sources = draft.from.iter().flat_map(|f| &f.names).chain(&draft.reads);
        let tables = sources.map(|(name, _)| table_of(name));
        for table in tables.filter(|t| TABLES.contains(t)) {
            // Whatever is ingested comes first; other tables are read as the steps above left them.
            let earlier = |m: &usize| fills[*m].contains(&table) && (*m < n || table == "cases");
            found.extend((0..names.len()).filter(earlier).filter(|m| *m != n));
        }
        let model = match &draft.action {
            Some(Action::Infer(params)) => match params.source() {
                ModelSource::Step(name) => Some(("model", name.to_owned())),
                // Those that this file trains come first.
                ModelSource::Newest(name) => {
                    found.extend(names.iter().position(|known| *known == name));
                    None
                }
                _ => None,
            },
            Some(Action::Train(train)) => train.parent_step().map(|p| ("fine_tune", p.to_owned())),
            _ => None,
        };
        if let Some((key, model)) = model {
            if let Some(at) = names.iter().position(|name| *name == model) {
                found.push(at);
            } else {
                let hint = match trained.as_slice() {
                    [] if !off.contains(&model.as_str()) => "make a step with `train`".to_owned(),
                    trained => missing(&model, trained, off),
                };
                let message = match known.unions.get(&model) {
                    Some(all) => format!("`{model}` is {} steps, not one", all.len()),
                    None => format!("there is no step `{model}`"),
                };
                problems.add(draft.place(key), message, hint);
                draft.action = None;
            }
        }
        if is_report(draft) {
            found.extend(&others);
        }
        found.sort_unstable();
        found.dedup();
        needs.push(found);
    }
    needs
}

/// The relations that can be named.
pub struct Known {
    steps: Vec<String>,
    /// Relations made of several steps.
    unions: BTreeMap<String, Vec<usize>>,
    /// What stands beside cohorts.
    beside: BTreeMap<String, usize>,
}

impl Known {
    /// All of them; a name that means two things is a problem.
    pub fn of(drafts: &[Draft<'_>], problems: &mut Problems) -> Self {
        let steps: Vec<String> = drafts.iter().map(|d| d.name.to_owned()).collect();
        let (mut unions, mut beside) = (BTreeMap::<String, Vec<usize>>::new(), BTreeMap::new());
        for (n, draft) in drafts.iter().enumerate() {
            if let Some(part_of) = &draft.part_of {
                unions.entry(part_of.name.clone()).or_default().push(n);
            }
            if draft.verb.is_some_and(|verb| verb.key == "cohort") {
                beside.extend(BESIDE.map(|ending| (format!("{}{ending}", draft.name), n)));
            }
        }
        for (n, draft) in drafts.iter().enumerate() {
            if unions.contains_key(draft.name) || beside.contains_key(draft.name) {
                let message = format!("`{}` is the name of a relation already", draft.name);
                let hint = "a matrix gives its name to all its steps, and a cohort has NAME_flow and NAME_excluded";
                problems.add(drafts[n].key_span, message, hint);
            }
        }
        Self { steps, unions, beside }
    }

    /// The steps behind a name.
    pub fn steps(&self, name: &str) -> Option<Vec<usize>> {
        let one = self.steps.iter().position(|known| known == name);
        let one = one.or_else(|| self.beside.get(name).copied());
        one.map(|n| vec![n]).or_else(|| self.unions.get(name).cloned())
    }

    fn names(&self) -> Vec<&str> {
        let more = self.unions.keys().chain(self.beside.keys());
        self.steps.iter().chain(more).map(String::as_str).collect()
    }
}

/// Ends of the names of the relations beside a cohort.
const BESIDE: [&str; 2] = ["_flow", "_excluded"];

/// The table behind a name, without the version that it is read at.
pub fn table_of(name: &str) -> &str {
    name.split_once(AT).map_or(name, |(table, _)| table)
}

/// The tables that a step adds rows to.
fn fills(draft: &Draft<'_>) -> &'static [&'static str] {
    match draft.verb.map(|v| v.key.as_str()) {
        Some("ingest") => &["cases", "failures"],
        Some("stages" | "infer") => &["quality", "artifacts", "failures"],
        Some("split") => &["splits"],
        Some("train") => &["models"],
        Some("score") => &["scores", "failures"],
        _ => &[],
    }
}

/// Checks what a source names and adds the steps among it; false where a name means nothing.
fn resolve_source(
    draft: &mut Draft<'_>,
    known: &Known,
    off: &[&str],
    found: &mut Vec<usize>,
    problems: &mut Problems,
) -> bool {
    let Some(from) = &mut draft.from else { return true };
    let mut fine = true;
    for (name, span) in &from.names {
        let is_table = TABLES.contains(&table_of(name));
        match (&mut from.source, known.steps(name)) {
            (Source::Sql { .. }, _) if is_table => {}
            (_, _) if is_table => {
                let message = format!("`{name}` is a table of the catalog, not a step");
                problems.add(*span, message, format!("write `SELECT * FROM {name}`"));
                fine = false;
            }
            (source, Some(all)) => {
                found.extend(all);
                if let Source::Sql { steps, .. } = source {
                    steps.push(name.clone());
                }
            }
            (source, None) => {
                let sql = matches!(source, Source::Sql { .. });
                unknown(name, *span, sql, known, off, problems);
                fine = false;
            }
        }
    }
    fine
}

/// Checks what the conditions of a cohort read besides its source.
fn resolve_reads(
    draft: &Draft<'_>,
    known: &Known,
    off: &[&str],
    found: &mut Vec<usize>,
    problems: &mut Problems,
) -> bool {
    let mut fine = true;
    for (name, span) in &draft.reads {
        if TABLES.contains(&table_of(name)) {
            continue;
        }
        match known.steps(name) {
            Some(all) => found.extend(all),
            None => {
                unknown(name, *span, true, known, off, problems);
                fine = false;
            }
        }
    }
    fine
}

/// Says that nothing is called so, and what may be meant.
pub fn unknown(
    name: &str,
    span: Span,
    sql: bool,
    known: &Known,
    off: &[&str],
    problems: &mut Problems,
) {
    let or_table = if sql { " and no table" } else { "" };
    let message = format!("there is no step{or_table} `{name}`");
    let names = known.names();
    let names: Vec<&str> = if sql { [&names, &TABLES[..]].concat() } else { names };
    problems.add(span, message, missing(name, &names, off));
}

fn missing(name: &str, known: &[&str], off: &[&str]) -> String {
    if off.contains(&name) {
        format!("the step `{name}` is switched off by its `when`")
    } else {
        suggest(name, known)
    }
}

/// An order in which each step stands after those that it needs, otherwise that of the file. Steps in a circle, and those
/// that need them, are left out; each circle is a problem.
pub fn order(drafts: &[Draft<'_>], needs: &[Vec<usize>], problems: &mut Problems) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    let mut done = vec![false; needs.len()];
    while let Some(next) =
        (0..needs.len()).find(|n| !done[*n] && needs[*n].iter().all(|needed| done[*needed]))
    {
        order.push(next);
        done[next] = true;
    }
    let mut seen = order.clone();
    for start in 0..needs.len() {
        if seen.contains(&start) {
            continue;
        }
        // Every step that is left needs another that is left: following them ends in a circle.
        let mut path = vec![start];
        let circle = loop {
            let last = path[path.len() - 1];
            let Some(next) = needs[last].iter().copied().find(|n| !order.contains(n)) else {
                break None;
            };
            if let Some(at) = path.iter().position(|n| *n == next) {
                break Some(path[at..].to_vec());
            }
            path.push(next);
        };
        if let Some(circle) = circle.filter(|c| c.iter().all(|n| !seen.contains(n))) {
            let first = circle.iter().copied().min().unwrap_or(start);
            let turn = circle.iter().position(|n| *n == first).unwrap_or(0);
            let names = (0..=circle.len()).map(|i| drafts[circle[(turn + i) % circle.len()]].name);
            let path = names.collect::<Vec<_>>().join(" → ");
            let message = format!("the steps need each other in a circle: {path}");
            problems.add(drafts[first].key_span, message, "take one of them from another source");
        }
        seen.extend(path);
    }
    order
}
