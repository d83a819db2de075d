//! Cohorts: a query with exclusions in order, and the flow of cases through them, as SQL.
//!
//! A case is excluded once, by the first rule that holds. A rule whose condition is unknown (NULL) for a case does not
//! exclude it: missing data alone takes nobody out. How many cases that concerns is counted, so that a rule that should
//! have been `… IS NULL OR …` is seen.

use serde::{Deserialize, Serialize};

use crate::pipeline::CohortParams;
use crate::pipeline::study_spec::Exclusion;

/// The column of the input that says why a case is kept out, by a curator or because its files are gone; null where it is not.
/// That comes before the rules.
pub const CURATED: &str = "__curated";

/// The order of the rows of a flow, in SQL.
pub const FLOW_ORDER: &str = "rule_index, remaining DESC";

/// One rule and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Place of the rule, from 1; 0 for what a curator excluded.
    pub rule_index: u64,
    /// Why it excludes.
    pub reason: String,
    /// Cases that it excluded.
    pub excluded: u64,
    /// Cases that are left after it.
    pub remaining: u64,
    /// Cases among those left for which its condition is unknown.
    pub unknown: u64,
}

/// The cases that are left, as a query over the relation `input`, which has the column [`CURATED`].
pub fn kept(input: &str, params: &CohortParams) -> String {
    let rule = rule(params);
    format!("SELECT * EXCEPT ({CURATED}) FROM {input} WHERE {CURATED} IS NULL AND {rule} = 0")
}

/// The cases that are excluded: `case_id`, `reason`, `rule_index`.
pub fn excluded(input: &str, params: &CohortParams) -> String {
    let reasons: String = params
        .exclude
        .iter()
        .enumerate()
        .map(|(n, rule)| format!(" WHEN {} THEN {}", n + 1, text(&rule.reason)))
        .collect();
    let by_rule = format!(
        " UNION ALL SELECT case_id, CASE __rule{reasons} END AS reason, __rule AS rule_index \
         FROM (SELECT case_id, {} AS __rule FROM {input} WHERE {CURATED} IS NULL) WHERE __rule > 0",
        rule(params)
    );
    format!(
        "SELECT case_id, {CURATED} AS reason, CAST(0 AS BIGINT) AS rule_index \
         FROM {input} WHERE {CURATED} IS NOT NULL{}",
        if params.exclude.is_empty() { "" } else { &by_rule }
    )
}

/// What each reason of a curator and then each rule did: [`FlowRow`]s, to be ordered by [`FLOW_ORDER`]. One pass over the
/// input a rule.
pub fn flow(input: &str, params: &CohortParams) -> String {
    // Aggregates of a constant: the optimizer would take a condition on a plain one below the count, and leave a row of zeros.
    let constant = |value: &str| format!("coalesce(max({value}), {value})");
    let one = |(n, exclusion): (usize, &Exclusion)| {
        let left = format!("(__rule = 0 OR __rule > {})", n + 1);
        format!(
            " UNION ALL SELECT {4} AS rule_index, {1} AS reason, \
             count(CASE WHEN __rule = {0} THEN 1 END) AS excluded, \
             count(CASE WHEN {left} THEN 1 END) AS remaining, \
             count(CASE WHEN {left} AND __holds IS NULL THEN 1 END) AS unknown \
             FROM (SELECT {2} AS __rule, ({3}\n) AS __holds FROM {input} WHERE {CURATED} IS NULL)",
            n + 1,
            constant(&text(&exclusion.reason)),
            rule(params),
            exclusion.when,
            constant(&format!("CAST({} AS BIGINT)", n + 1))
        )
    };
    let rules: String = params.exclude.iter().enumerate().map(one).collect();
    format!(
        "SELECT * FROM (SELECT CAST(0 AS BIGINT) AS rule_index, {CURATED} AS reason, cases AS excluded, \
         CAST(sum(cases) OVER (ORDER BY {CURATED} IS NOT NULL, cases, {CURATED} DESC) - cases AS BIGINT) AS remaining, \
         CAST(0 AS BIGINT) AS unknown \
         FROM (SELECT {CURATED}, count(*) AS cases FROM {input} GROUP BY {CURATED}){rules}) \
         WHERE reason IS NOT NULL"
    )
}

/// The number of the first rule that holds, from 1, or 0. The line breaks end comments in the conditions.
fn rule(params: &CohortParams) -> String {
    let whens: String = params
        .exclude
        .iter()
        .enumerate()
        .map(|(n, rule)| format!(" WHEN ({}\n) THEN {}", rule.when, n + 1))
        .collect();
    if whens.is_empty() { "0".to_owned() } else { format!("CASE{whens} ELSE 0 END") }
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::catalog::{rows, sql};

    async fn session() -> SessionContext {
        let ctx = SessionContext::new();
        let cases = "CREATE TABLE cases AS SELECT *, CAST(NULL AS VARCHAR) AS __curated FROM (VALUES \
            ('a', 70, true), ('b', 12, true), ('c', 12, false), ('d', NULL, false), ('e', 40, NULL)) \
            AS t (case_id, age_y, dwi)";
        ctx.sql(cases).await.unwrap().collect().await.unwrap();
        ctx
    }

    fn params(rules: &[(&str, &str)]) -> CohortParams {
        let rules: Vec<_> = rules
            .iter()
            .map(|(reason, when)| serde_json::json!({"reason": reason, "when": when}))
            .collect();
        serde_json::from_value(serde_json::json!({ "exclude": rules })).unwrap()
    }

    #[tokio::test]
    async fn a_case_is_excluded_once_by_the_first_rule_that_holds() {
        let ctx = session().await;
        let rules = params(&[("a child's scan", "age_y < 18 -- years"), ("no DWI", "NOT dwi")]);
        let query = format!("SELECT * FROM ({}) ORDER BY {FLOW_ORDER}", flow("cases", &rules));
        let found: Vec<FlowRow> = rows(&sql(&ctx, &query).await.unwrap()).unwrap();
        let row = |rule_index, reason: &str, excluded, remaining, unknown| FlowRow {
            rule_index,
            reason: reason.to_owned(),
            excluded,
            remaining,
            unknown,
        };
        assert_eq!(found, [row(1, "a child's scan", 2, 3, 1), row(2, "no DWI", 1, 2, 1)]);
        let query = format!("SELECT * FROM ({}) ORDER BY case_id", excluded("cases", &rules));
        let out: Vec<(String, String, u64)> =
            rows::<serde_json::Value>(&sql(&ctx, &query).await.unwrap())
                .unwrap()
                .into_iter()
                .map(|row| {
                    serde_json::from_value(serde_json::json!([
                        row["case_id"],
                        row["reason"],
                        row["rule_index"]
                    ]))
                    .unwrap()
                })
                .collect();
        let expected = [("b", "a child's scan", 1), ("c", "a child's scan", 1), ("d", "no DWI", 2)];
        assert_eq!(out, expected.map(|(c, r, n)| (c.to_owned(), r.to_owned(), n)));
        let query = format!("SELECT case_id FROM ({}) ORDER BY case_id", kept("cases", &rules));
        let left = crate::catalog::json_rows(&sql(&ctx, &query).await.unwrap()).unwrap();
        assert_eq!(
            left,
            [serde_json::json!({"case_id": "a"}), serde_json::json!({"case_id": "e"})]
        );
    }

    #[tokio::test]
    async fn what_a_curator_excluded_comes_before_the_rules() {
        let ctx = session().await;
        let curated = "CREATE TABLE curated AS SELECT * EXCEPT (__curated), CASE \
            WHEN case_id IN ('a', 'c') THEN 'moved' WHEN case_id = 'e' THEN 'consent withdrawn' END AS __curated \
            FROM cases";
        ctx.sql(curated).await.unwrap().collect().await.unwrap();
        let rules = params(&[("a child's scan", "age_y < 18"), ("no DWI", "NOT dwi")]);
        let query = format!("SELECT * FROM ({}) ORDER BY {FLOW_ORDER}", flow("curated", &rules));
        let found: Vec<FlowRow> = rows(&sql(&ctx, &query).await.unwrap()).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|r| (r.rule_index, r.reason.as_str(), r.excluded, r.remaining, r.unknown))
            .collect();
        let expected = [
            (0, "moved", 2, 3, 0),
            (0, "consent withdrawn", 1, 2, 0),
            (1, "a child's scan", 1, 1, 1),
            (2, "no DWI", 1, 0, 0),
        ];
        assert_eq!(told, expected);
        for (condition, rows) in
            [("rule_index = 0", 2), ("rule_index = 2", 1), ("reason = 'no DWI'", 1)]
        {
            let query = format!("SELECT * FROM ({}) WHERE {condition}", flow("curated", &rules));
            assert_eq!(ctx.sql(&query).await.unwrap().count().await.unwrap(), rows, "{condition}");
        }
        let query = excluded("curated", &rules);
        let out = ctx.sql(&query).await.unwrap().count().await.unwrap();
        assert_eq!(out, 5);
        let none = CohortParams::default();
        let query = format!("SELECT * FROM ({}) ORDER BY {FLOW_ORDER}", flow("curated", &none));
        let found: Vec<FlowRow> = rows(&sql(&ctx, &query).await.unwrap()).unwrap();
        assert_eq!(found.iter().map(|r| r.remaining).collect::<Vec<_>>(), [3, 2]);
        let left = ctx.sql(&kept("curated", &none)).await.unwrap();
        assert!(left.schema().field_with_unqualified_name(CURATED).is_err());
        assert_eq!(left.count().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn without_rules_every_case_is_left() {
        let ctx = session().await;
        let none = CohortParams::default();
        for (query, n) in
            [(kept("cases", &none), 5), (flow("cases", &none), 0), (excluded("cases", &none), 0)]
        {
            assert_eq!(ctx.sql(&query).await.unwrap().count().await.unwrap(), n, "{query}");
        }
    }
}
