//! What a report shows, before anything runs: relations that the file knows, queries that can be read, cuts that increase.
//! Which columns a relation has is known only when it is asked; the report then says what is not there.

use super::graph::{self, Known, table_of};
use super::sql;
use super::steps::Draft;
use crate::pipeline::diagnostics::{Problems, Span};
use crate::pipeline::plan::Action;
use crate::pipeline::report_spec::{ExhibitSpec, ReportParams, StratumSpec};
use crate::pipeline::spec::TABLES;

/// Checks the reports among the steps. `off` are the steps that are switched off: what is shown of them is not there.
pub fn check(drafts: &[Draft<'_>], known: &Known, off: &[&str], problems: &mut Problems) {
    for draft in drafts {
        if let Some(Action::Report(params)) = &draft.action {
            Check { draft, known, off }.report(params, problems);
        }
        if let Some(Action::Difference(params)) = &draft.action {
            Check { draft, known, off }.strata("strata", &params.strata, problems);
        }
    }
}

struct Check<'a, 'n> {
    draft: &'a Draft<'n>,
    known: &'a Known,
    off: &'a [&'a str],
}

impl Check<'_, '_> {
    fn report(&self, params: &ReportParams, problems: &mut Problems) {
        self.strata("strata", &params.strata, problems);
        for (i, section) in params.sections.iter().enumerate() {
            if section.show.is_empty() {
                let span = self.draft.place(&format!("sections.{i}.show"));
                let message = format!("the section `{}` shows nothing", section.title);
                problems.add(span, message, "give it a figure or table, or remove it");
            }
            for (k, exhibit) in section.show.iter().enumerate() {
                let at = format!("sections.{i}.show.{k}.{}", exhibit.name());
                self.exhibit(&at, exhibit, problems);
            }
        }
    }

    fn exhibit(&self, at: &str, exhibit: &ExhibitSpec, problems: &mut Problems) {
        for (key, from) in exhibit.sources() {
            self.source(self.draft.place(&format!("{at}.{key}")), from, problems);
        }
        let strata = match exhibit {
            ExhibitSpec::Curve(spec) => spec.strata.as_deref(),
            ExhibitSpec::Groups(spec) => spec.strata.as_deref(),
            _ => None,
        };
        self.strata(&format!("{at}.strata"), strata.unwrap_or_default(), problems);
    }

    fn source(&self, span: Span, from: &str, problems: &mut Problems) {
        if from.trim().is_empty() {
            problems.add(span, "`from` is empty", "name a step or a table, or write a query");
            return;
        }
        if !sql::looks_like_sql(from) {
            self.relation(span, from.trim(), problems);
            return;
        }
        match sql::relations(from) {
            Ok(names) => {
                let raw = problems.text(span).to_owned();
                for name in names {
                    self.relation(sql::place_of_name(&name, &raw, span), &name, problems);
                }
            }
            Err(bad) => {
                let raw = problems.text(span);
                let at = bad.place.map(|(line, column)| sql::place(from, raw, span, line, column));
                problems.add(at.unwrap_or(span), bad.message, "try it with `torcula sql`");
            }
        }
    }

    fn relation(&self, span: Span, name: &str, problems: &mut Problems) {
        let there = TABLES.contains(&table_of(name)) || self.known.steps(name).is_some();
        if !there && !self.off.contains(&name) {
            graph::unknown(name, span, true, self.known, self.off, problems);
        }
    }

    fn strata(&self, at: &str, strata: &[StratumSpec], problems: &mut Problems) {
        for (i, stratum) in strata.iter().enumerate() {
            let StratumSpec::Cut(cut) = stratum else { continue };
            let span = |key: &str| self.draft.place(&format!("{at}.{i}.{key}"));
            let increasing = cut.cuts.windows(2).all(|pair| pair[0] < pair[1]);
            if !increasing || cut.cuts.iter().any(|c| !c.is_finite()) {
                let message = format!("the cuts of `{}` do not increase", cut.column);
                problems.add(span("cuts"), message, "write each cut once, from small to large");
            }
            if !cut.cuts.is_empty() && cut.quantiles.is_some() {
                let message = format!("`{}` has both `cuts` and `quantiles`", cut.column);
                problems.add(span("quantiles"), message, "keep one of them");
            }
        }
    }
}
