//! The tables and steps that a query names, without running it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::catalog::with_versions;
use crate::pipeline::diagnostics::Span;

/// Why a text is no query.
#[derive(Debug, PartialEq, Eq)]
pub struct BadQuery {
    /// What is wrong.
    pub message: String,
    /// Line and column in the query, from 1, where known.
    pub place: Option<(usize, usize)>,
}

/// Whether a source is meant as SQL rather than as the name of a step.
pub fn looks_like_sql(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    words.next().is_some() || matches!(first.as_str(), "select" | "with") || text.contains('(')
}

/// The relations that a query reads, in order and once each; names of its own `WITH` clauses are left out. Names without
/// quotes are taken as lower case, as they are when the query runs.
/// A table that is read at a version (`cases VERSION AS OF 3`) is called `cases@3`.
pub fn relations(query: &str) -> Result<Vec<String>, BadQuery> {
    let query = with_versions(query)
        .map_err(|error| BadQuery { message: error.reason().to_owned(), place: None })?;
    let statements = Parser::parse_sql(&GenericDialect {}, &query).map_err(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
        let (message, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
        let place = place.split_once(", Column: ");
        let place = place.and_then(|(l, c)| Some((l.parse().ok()?, c.trim().parse().ok()?)));
        BadQuery { message: format!("this is not valid SQL: {message}"), place }
    })?;
    let bad = |message: &str| BadQuery { message: message.to_owned(), place: None };
    match statements.as_slice() {
        [Statement::Query(query)] => {
            let mut names = Names::default();
            // A visitor that never breaks always continues.
            let _: ControlFlow<()> = query.visit(&mut names);
            Ok(names.found)
        }
        [] => Err(bad("there is no query here")),
        [_] => {
            Err(bad("a step's source is a query that reads; this statement does something else"))
        }
        _ => Err(bad("a step's source is one query; here are several")),
    }
}

#[derive(Default)]
struct Names {
    found: Vec<String>,
    in_scope: Vec<String>,
}

fn name_of(name: &ObjectName) -> String {
    let part = |p: &datafusion::sql::sqlparser::ast::ObjectNamePart| match p.as_ident() {
        Some(ident) if ident.quote_style.is_some() => ident.value.clone(),
        Some(ident) => ident.value.to_lowercase(),
        None => p.to_string(),
    };
    name.0.iter().map(part).collect::<Vec<_>>().join(".")
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = name_of(relation);
        if !self.found.contains(&name) && !self.in_scope.contains(&name) {
            self.found.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            // The name of a clause that is not recursive is not known inside of it.
            if query.with.as_ref().is_some_and(|with| !with.recursive) {
                cte.visit(self)?;
            }
            self.in_scope.push(name_of(&ObjectName::from(vec![cte.alias.name.clone()])));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let clauses = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        self.in_scope.truncate(self.in_scope.len().saturating_sub(clauses));
        ControlFlow::Continue(())
    }
}

/// The place of a line and column of `query` in the file, where `raw` is how it stands there at `span`.
pub fn place(query: &str, raw: &str, span: Span, line: usize, column: usize) -> Span {
    let find = || {
        let wanted = query.lines().nth(line.checked_sub(1)?)?;
        let from: usize = raw.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let start = from + raw.get(from..)?.lines().next()?.find(wanted)?;
        let skipped: usize =
            wanted.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
        let word = wanted.get(skipped..)?;
        let len = word.find(|c: char| c.is_whitespace()).unwrap_or(word.len());
        Some(span.part(&(start + skipped..start + skipped + len)))
    };
    find().unwrap_or(span)
}

/// The place of a name in a query as it stands in the file.
pub fn place_of_name(name: &str, raw: &str, span: Span) -> Span {
    let lower = raw.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: &usize| {
        !lower[..*at].ends_with(is_word) && !lower[*at + name.len()..].starts_with(is_word)
    };
    let after_from = |at: &usize| {
        let before = lower[..*at].trim_end_matches(['"', ' ', '\n', '\t', '\r']);
        ["from", "join", ","].iter().any(|k| before.ends_with(k))
    };
    let all: Vec<usize> = lower.match_indices(&name).map(|(at, _)| at).filter(alone).collect();
    let best = all.iter().find(|at| after_from(at)).or_else(|| all.first());
    best.map_or(span, |at| span.part(&(*at..*at + name.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<String> {
        relations(query).unwrap_or_else(|bad| vec![format!("{bad:?}")])
    }

    #[test]
    fn relations_are_found_wherever_they_are_read() {
        let query = "SELECT c.* FROM Cases c JOIN quality USING (case_id) \
                     WHERE c.case_id NOT IN (SELECT case_id FROM \"failures\")";
        assert_eq!(names(query), ["cases", "quality", "failures"]);
        assert_eq!(names("SELECT * FROM a UNION ALL SELECT * FROM b"), ["a", "b"]);
        assert_eq!(names("SELECT * FROM x.cases"), ["x.cases"]);
        assert_eq!(names("SELECT 1"), Vec::<String>::new());
    }

    #[test]
    fn names_of_with_clauses_are_not_relations() {
        assert_eq!(names("WITH t AS (SELECT * FROM cases) SELECT * FROM t"), ["cases"]);
        assert_eq!(names("WITH t AS (SELECT * FROM t) SELECT * FROM t"), ["t"]);
        let recursive = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT * FROM n) SELECT * FROM n";
        assert_eq!(names(recursive), Vec::<String>::new());
    }

    #[test]
    fn only_one_query_that_reads_will_do() {
        for bad in ["SELECT * FORM cases WHERE", "DROP TABLE cases", "SELECT 1; SELECT 2", ";"] {
            assert!(relations(bad).is_err(), "{bad}");
        }
        let place = relations("SELECT *\nFROM cases WHERE )").err().and_then(|bad| bad.place);
        assert_eq!(place, Some((2, 18)));
    }

    #[test]
    fn places_are_found_in_blocks_of_text() {
        let raw = "SELECT *\n      FROM kases\n";
        let query = "SELECT *\nFROM kases\n";
        let span = Span { source: 0, start: 100, end: 100 + raw.len() };
        let at = place(query, raw, span, 2, 6);
        assert_eq!(&raw[at.start - 100..at.end - 100], "kases");
        assert_eq!(place_of_name("kases", raw, span), at);
        assert_eq!(place("other", raw, span, 1, 1), span);
    }
}
