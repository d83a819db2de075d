//! A split step: divides subjects, never images, into named parts, by a seeded order, stratum by stratum.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::catalog::{self, Table};
use crate::engine::Record;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, SplitParams, Step};

use super::{Runner, StepReport, plan, relations};

/// Identifies the split: its parameters, the seed, and who is divided.
pub async fn fingerprint(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
    action: &SplitParams,
) -> Result<String> {
    let salt = json!({
        "by": action.by, "parts": action.parts, "stratify": action.stratify,
        "seed": pipeline.seed, "step": step.name, "version": 1,
    });
    plan::hash_rows(ctx, &members(ctx, step, action).await?, &salt.to_string()).await
}

/// The query that gives case, subject and strata, in order.
async fn members(ctx: &SessionContext, step: &Step, action: &SplitParams) -> Result<String> {
    let name = format!("__split_{}", step.name);
    let input = relations::input(ctx, step).await?;
    let columns: BTreeSet<String> =
        input.schema().fields().iter().map(|f| f.name().clone()).collect();
    for (key, column) in
        std::iter::once(("by", &action.by)).chain(action.stratify.iter().map(|c| ("stratify", c)))
    {
        if !columns.contains(column) {
            return Err(Error::configuration(format!(
                "steps.{}.split.{key}: the input has no column `{column}`",
                step.name
            ))
            .hint(format!("it has: {}", columns.into_iter().collect::<Vec<_>>().join(", "))));
        }
    }
    drop(ctx.deregister_table(&*name));
    ctx.register_table(&*name, input.into_view()).map_err(relations::planning)?;
    let strata: String =
        action.stratify.iter().map(|c| format!(", {}", relations::quoted(c))).collect();
    Ok(format!(
        "SELECT case_id, coalesce(CAST({} AS VARCHAR), case_id) AS __by{strata} FROM {} ORDER BY case_id",
        relations::quoted(&action.by),
        relations::quoted(&name)
    ))
}

/// Divides the groups of one stratum. `order` decides who goes where; shares are cumulated and rounded to the nearest
/// group, half to even, so that the parts always add up.
fn divide<'a>(
    groups: &BTreeSet<&'a str>,
    parts: &[(String, f64)],
    seed: u64,
) -> BTreeMap<&'a str, usize> {
    let key = |group: &str| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(group.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut order: Vec<&str> = groups.iter().copied().collect();
    order.sort_by_cached_key(|g| key(g));
    let mut assigned = BTreeMap::new();
    let (mut from, mut share) = (0, 0.0);
    for (index, (_, part)) in parts.iter().enumerate() {
        share += part;
        let last = index + 1 == parts.len();
        let exact = share * order.len() as f64;
        let to = if last { order.len() } else { exact.round_ties_even() as usize };
        for group in &order[from.min(order.len())..to.min(order.len()).max(from)] {
            assigned.insert(*group, index);
        }
        from = to.max(from);
    }
    assigned
}

/// Runs a split step: nothing to do where exactly this split is in the catalog.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    action: &SplitParams,
) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    let print = fingerprint(&ctx, runner.pipeline, step, action).await?;
    let count = format!(
        "SELECT count(*) FROM splits WHERE split = '{}' AND fingerprint = '{print}'",
        step.name
    );
    let known =
        relations::one_text(&ctx, &count).await?.and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    let query = members(&ctx, step, action).await?;
    let rows: Vec<Value> = catalog::rows(&catalog::sql(&ctx, &query).await?)?;
    let mut report = StepReport::new(&step.name, rows.len() as u64);
    if known >= rows.len() as u64 {
        report.unchanged = known;
        return Ok(report);
    }
    let text = |row: &Value, key: &str| {
        row.get(key).map_or(String::new(), |v| match v {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        })
    };
    let members: Vec<(String, String, String)> = rows
        .iter()
        .map(|row| {
            let stratum: Vec<String> = action.stratify.iter().map(|c| text(row, c)).collect();
            (text(row, "case_id"), text(row, "__by"), stratum.join("\u{1f}"))
        })
        .collect();
    let parts: Vec<(String, f64)> = action.parts.iter().map(|(n, s)| (n.clone(), *s)).collect();
    // A group with cases in several strata belongs to the first one, so that it is never torn apart.
    let mut stratum_of: BTreeMap<&str, &str> = BTreeMap::new();
    for (_, group, stratum) in &members {
        stratum_of.entry(group).or_insert(stratum);
    }
    let mut strata: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (group, stratum) in &stratum_of {
        strata.entry(stratum).or_default().insert(group);
    }
    let mut assigned = BTreeMap::new();
    for groups in strata.values() {
        assigned.extend(divide(groups, &parts, runner.pipeline.seed));
    }
    let mut records = Vec::with_capacity(members.len());
    for (case_id, group, _) in &members {
        let part = assigned.get(group.as_str()).map_or("", |i| parts[*i].0.as_str());
        *report.parts.entry(part.to_owned()).or_default() += 1;
        let row = json!({
            "split": step.name, "case_id": case_id, "subject_id": group, "part": part,
            "query": query,
        });
        let mut record = Record { table: Table::Splits, row };
        runner.lineage.complete(&mut record, &step.name, case_id, &print);
        records.push(record.row);
    }
    runner.catalog.append_json(Table::Splits, &records).await?;
    report.done = records.len() as u64;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_nobody_is_in_two_parts() {
        let names: Vec<String> = (0..50).map(|i| format!("s{i}")).collect();
        let groups: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let parts = [("train", 0.64), ("val", 0.16), ("test", 0.2)].map(|(n, s)| (n.to_owned(), s));
        let assigned = divide(&groups, &parts, 1);
        let count = |i| assigned.values().filter(|v| **v == i).count();
        assert_eq!([count(0), count(1), count(2)], [32, 8, 10]);
        assert_eq!(assigned, divide(&groups, &parts, 1));
        assert_ne!(assigned, divide(&groups, &parts, 2));
    }
}
