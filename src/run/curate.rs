//! Corrections of the registry by people: checked against the catalog all at once, and taken back.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use datafusion::prelude::SessionContext;
use serde_json::{Map, Value, json};

use crate::catalog::curation::{self, EXCLUDED};
use crate::catalog::{self, Catalog, CurationRow, EditAction, Timestamp};
use crate::error::{Error, Result};

use super::relations;

/// One wish of a person: a column of a case gets a value, or the case is excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where it stands, for messages: a line of a file, or nothing.
    pub place: String,
    /// The case.
    pub case_id: String,
    /// The column, or `excluded`.
    pub column: String,
    /// The value as the person wrote it; unused for an exclusion.
    pub value: String,
    /// Why.
    pub reason: String,
}

/// Turns wishes into edits. Those that would change nothing are left out.
///
/// # Errors
/// Every wish that cannot be: unknown case or column, a value of another type, no reason, the same column twice. Then
/// there are no edits.
pub async fn edits(catalog: &Catalog, wishes: &[Wish], author: &str) -> Result<Vec<CurationRow>> {
    let ctx = catalog.session_if(&[]).await?;
    let cases = present(&ctx, &wishes.iter().map(|w| w.case_id.as_str()).collect()).await?;
    let (version, now) = (catalog.cases_version()?, Timestamp::now());
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let mut edits = Vec::new();
    for wish in wishes {
        let at = if wish.place.is_empty() { String::new() } else { format!("{}: ", wish.place) };
        let mut found: Vec<Error> = Vec::new();
        let case = cases.get(&wish.case_id);
        if case.is_none() {
            let reason = format!("the catalog has no case '{}'", wish.case_id);
            found.push(
                Error::configuration(reason)
                    .hint("`torcula sql \"SELECT case_id FROM cases\"` lists them"),
            );
        }
        if wish.reason.trim().is_empty() {
            found.push(
                Error::configuration("the reason is empty")
                    .hint("say why: --reason \"…\", or the column `reason` of the file"),
            );
        }
        if !seen.insert((&wish.case_id, &wish.column)) {
            found.push(Error::configuration(format!(
                "{} of {} is set twice",
                wish.column, wish.case_id
            )));
        }
        let exclude = wish.column == EXCLUDED;
        let new = if exclude {
            Ok(json!(wish.reason.trim()))
        } else {
            curation::parse(&wish.column, &wish.value)
        };
        match (new, case) {
            (Ok(new), Some(case)) if found.is_empty() => {
                let old = curation::value_of(case, &wish.column);
                if old != new {
                    let action = if exclude { EditAction::Exclude } else { EditAction::Set };
                    edits.push(CurationRow {
                        old_value: old.to_string(),
                        new_value: new.to_string(),
                        reason: wish.reason.trim().to_owned(),
                        author: author.to_owned(),
                        catalog_version: version,
                        edited_at: now,
                        ..curation::edit(action, &wish.case_id, &wish.column)
                    });
                }
            }
            (Err(error), _) => found.push(error),
            _ => {}
        }
        problems.extend(found.into_iter().map(|e| match e.advice() {
            Some(hint) => format!("{at}{} ({hint})", e.reason()),
            None => format!("{at}{}", e.reason()),
        }));
    }
    refuse(problems)?;
    Ok(edits)
}

fn refuse(problems: Vec<String>) -> Result<()> {
    match problems.len() {
        0 => Ok(()),
        1 => Err(Error::configuration(problems.join("")).hint("nothing was changed")),
        n => Err(Error::configuration(format!("{n} problems:\n  {}", problems.join("\n  ")))
            .hint("nothing was changed; mend them and give the command again")),
    }
}

/// These cases with what can be edited of them, as readers of the session see them.
async fn present(
    ctx: &SessionContext,
    wanted: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Map<String, Value>>> {
    let columns: Vec<String> = curation::seen().map(relations::quoted).collect();
    let mut found = BTreeMap::new();
    for ids in wanted.iter().collect::<Vec<_>>().chunks(1000) {
        let ids: Vec<String> =
            ids.iter().map(|id| format!("'{}'", id.replace('\'', "''"))).collect();
        let query = format!(
            "SELECT {} FROM cases WHERE case_id IN ({})",
            columns.join(", "),
            ids.join(", ")
        );
        let rows: Vec<Map<String, Value>> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
        for row in rows {
            let id = row.get("case_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            found.insert(id, row);
        }
    }
    Ok(found)
}

/// The edits that take back one edit, or all that stand of the last command.
///
/// # Errors
/// There is no such edit, it is itself taken back, or there is nothing to take back.
pub async fn undo(
    catalog: &Catalog,
    edit: Option<&str>,
    reason: &str,
    author: &str,
) -> Result<Vec<CurationRow>> {
    let all = catalog.edits().await?;
    let found = standing(&all, edit)?;
    let (version, now) = (catalog.cases_version()?, Timestamp::now());
    let take_back = |found: &&CurationRow| CurationRow {
        undoes: Some(found.edit_id.clone()),
        old_value: found.new_value.clone(),
        reason: reason.trim().to_owned(),
        author: author.to_owned(),
        catalog_version: version,
        edited_at: now,
        ..curation::edit(EditAction::Undo, &found.case_id, &found.column_name)
    };
    let mut rows: Vec<CurationRow> = found.iter().map(take_back).collect();
    // What the cases will have then: earlier edits, or what was ingested.
    let ctx = catalog.session_if(&rows).await?;
    let cases = present(&ctx, &found.iter().map(|f| f.case_id.as_str()).collect()).await?;
    for row in &mut rows {
        let value = cases.get(&row.case_id).map(|case| curation::value_of(case, &row.column_name));
        row.new_value = value.unwrap_or_default().to_string();
    }
    Ok(rows)
}

/// The edit whose identifier begins so, or those of the last command, where they stand.
fn standing<'a>(all: &'a [CurationRow], edit: Option<&str>) -> Result<Vec<&'a CurationRow>> {
    let undone: HashSet<&str> = all.iter().filter_map(|e| e.undoes.as_deref()).collect();
    let stands =
        |e: &&CurationRow| e.action != EditAction::Undo && !undone.contains(e.edit_id.as_str());
    let hint = "`torcula curate log` lists the edits";
    let Some(start) = edit else {
        let none = || Error::configuration("there is no edit to take back").hint(hint);
        let last = all.iter().rev().find(stands).ok_or_else(none)?;
        let together = |e: &&CurationRow| e.edited_at == last.edited_at;
        return Ok(all.iter().filter(stands).filter(together).collect());
    };
    let mut begins = all.iter().filter(|e| e.edit_id.starts_with(start));
    let none = || Error::configuration(format!("there is no edit '{start}'")).hint(hint);
    let found = begins.next().ok_or_else(none)?;
    if begins.next().is_some() {
        let reason = format!("several edits begin with '{start}'");
        return Err(Error::configuration(reason).hint("give more of it"));
    }
    let id = &found.edit_id;
    match stands(&found) {
        true => Ok(vec![found]),
        false if found.action == EditAction::Undo => {
            let reason = format!("the edit {id} takes another back; make that edit again instead");
            Err(Error::configuration(reason).hint(hint))
        }
        false => {
            Err(Error::configuration(format!("the edit {id} is taken back already")).hint(hint))
        }
    }
}
