//! Time travel in SQL. The query engine's grammar reads `VERSION AS OF` in no dialect that it acts on, so the clause is
//! found among the tokens and becomes part of the table's name: `cases VERSION AS OF 3` → `"cases@3" AS cases`.

use std::borrow::Cow;
use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use super::schema::Table;
use crate::error::{Error, Result};

/// Stands between a table's name and the version or moment, as [`rewrite`] puts them together.
pub const AT: &str = "@";

/// A query in which every `VERSION AS OF` and `TIMESTAMP AS OF` has become part of the table's name.
///
/// # Errors
/// The clause follows something else than a table of the catalog, or its moment cannot be read.
pub fn rewrite(query: &str) -> Result<Cow<'_, str>> {
    if !query.to_ascii_lowercase().contains(" of") {
        return Ok(Cow::Borrowed(query));
    }
    // What is not a token is reported by the parser, which says it better.
    let Ok(tokens) = Tokenizer::new(&GenericDialect, query).tokenize_with_location() else {
        return Ok(Cow::Borrowed(query));
    };
    let tokens: Vec<_> =
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let mut text = String::with_capacity(query.len());
    let mut copied = 0;
    for start in 0..tokens.len() {
        let Some((word, at)) = clause(&tokens[start..]) else { continue };
        let table = table(word, &at)?;
        let range = span(query, &tokens[start], &tokens[start + 4]);
        text.push_str(&query[copied..range.start]);
        text.extend(["\"", table.name(), AT, &at, "\""]);
        if !has_alias(tokens.get(start + 5)) {
            text.extend([" AS ", table.name()]);
        }
        copied = range.end;
    }
    text.push_str(&query[copied..]);
    Ok(Cow::Owned(text))
}

/// The table's name and the version or moment, where tokens begin with `name VERSION|TIMESTAMP AS OF value`.
fn clause(tokens: &[TokenWithSpan]) -> Option<(&Word, String)> {
    let keyword = |index: usize| match &tokens.get(index)?.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    };
    let Token::Word(name) = &tokens.first()?.token else { return None };
    if keyword(2)? != Keyword::AS || keyword(3)? != Keyword::OF {
        return None;
    }
    match (keyword(1)?, &tokens.get(4)?.token) {
        (Keyword::VERSION, Token::Number(version, _)) => Some((name, version.clone())),
        (Keyword::TIMESTAMP, Token::SingleQuotedString(moment)) => Some((name, moment.clone())),
        _ => None,
    }
}

fn table(word: &Word, at: &str) -> Result<Table> {
    let name = match word.quote_style {
        None => word.value.to_ascii_lowercase(),
        Some(_) => word.value.clone(),
    };
    let table = name.parse::<Table>().map_err(|error| {
        let names = Table::ALL.map(Table::name).join(", ");
        Error::configuration(format!("AS OF {at}: {}", error.reason()))
            .hint(format!("only the tables of the catalog have versions: {names}"))
    })?;
    if at.parse::<i64>().is_err() {
        at.parse::<super::Timestamp>()?;
    }
    Ok(table)
}

fn has_alias(next: Option<&TokenWithSpan>) -> bool {
    match next.map(|next| &next.token) {
        Some(Token::Word(word)) => {
            word.quote_style.is_some()
                || word.keyword == Keyword::AS
                || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
        }
        _ => false,
    }
}

fn span(query: &str, first: &TokenWithSpan, last: &TokenWithSpan) -> Range<usize> {
    offset(query, first.span.start)..offset(query, last.span.end)
}

/// The byte at a line and column, both counted from 1, columns in characters.
fn offset(query: &str, location: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, character) in query.char_indices() {
        if (line, column) == (location.line, location.column) {
            return offset;
        }
        if character == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    query.len()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn other_queries_are_left_alone() {
        for query in [
            "SELECT 'cases VERSION AS OF 3' FROM cases",
            "SELECT version AS of FROM models",
            "SELECT 'é of' AS of",
            "not SQL ' of",
        ] {
            assert_eq!(rewrite(query).unwrap(), query);
        }
    }

    #[test]
    fn clauses_become_names() {
        for (query, expected) in [
            (
                "SELECT cases.case_id FROM cases VERSION AS OF 3",
                "SELECT cases.case_id FROM \"cases@3\" AS cases",
            ),
            (
                "select 'é', a.* from Cases\n version as of 3 a\nJOIN cases version as OF 12 AS b USING (case_id)",
                "select 'é', a.* from \"cases@3\" a\nJOIN \"cases@12\" AS b USING (case_id)",
            ),
            (
                "SELECT * FROM catalog.scores TIMESTAMP AS OF '2026-01-31' WHERE dice > 0.5",
                "SELECT * FROM catalog.\"scores@2026-01-31\" AS scores WHERE dice > 0.5",
            ),
            (
                "SELECT count(*) FROM (SELECT * FROM runs VERSION AS OF 0) r",
                "SELECT count(*) FROM (SELECT * FROM \"runs@0\" AS runs) r",
            ),
        ] {
            assert_eq!(rewrite(query).unwrap(), expected);
        }
    }

    #[test]
    fn what_has_no_versions_is_named() {
        let error = rewrite("SELECT * FROM prepared VERSION AS OF 3").unwrap_err();
        assert!(error.to_string().contains("prepared"), "{error}");
        assert!(rewrite("SELECT * FROM cases TIMESTAMP AS OF 'soon'").is_err());
    }
}
