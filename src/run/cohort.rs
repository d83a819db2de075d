//! A cohort step: its relation, the flow of cases through its rules, and that no case comes twice.

use datafusion::arrow::datatypes::DataType;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};

use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::pipeline::{CohortParams, Pipeline, Step};
use crate::study::cohort::{self, FLOW_ORDER, FlowRow};

use super::memo::Memo;
use super::{Runner, StepReport, relations, session};

/// Name under which the input of a cohort stands in a session.
fn input_name(step: &Step) -> String {
    relations::quoted(&format!("__cohort_{}", step.name))
}

/// Puts the cases that a cohort is made from into the session, with [`cohort::CURATED`]; gives their name in SQL.
async fn register_input(ctx: &SessionContext, step: &Step) -> Result<String> {
    let asked = relations::with_curated(ctx, step, cohort::CURATED).await?;
    relations::replace(ctx, &format!("__cohort_{}", step.name), asked)?;
    Ok(input_name(step))
}

/// The cohort's cases. Beside it in the session stand `NAME_flow` and `NAME_excluded`.
pub async fn relation(
    ctx: &SessionContext,
    step: &Step,
    params: &CohortParams,
) -> Result<DataFrame> {
    let input = register_input(ctx, step).await?;
    let named = |error: Error| error.context(format!("steps.{}.cohort", step.name));
    let beside =
        [("flow", cohort::flow(&input, params)), ("excluded", cohort::excluded(&input, params))];
    for (ending, query) in beside {
        let frame = catalog::plan(ctx, &query).await.map_err(named)?;
        relations::replace(ctx, &format!("{}_{ending}", step.name), frame)?;
    }
    catalog::plan(ctx, &cohort::kept(&input, params)).await.map_err(named)
}

/// Plans every condition for itself, so that an error names the rule.
async fn check(ctx: &SessionContext, step: &Step, params: &CohortParams) -> Result<()> {
    let input = register_input(ctx, step).await?;
    for (n, rule) in params.exclude.iter().enumerate() {
        let place = || format!("steps.{}.cohort.exclude.{n} ({})", step.name, rule.reason);
        let query = format!("SELECT ({}\n) FROM {}", rule.when, input);
        let frame = catalog::plan(ctx, &query).await.map_err(|error| error.context(place()))?;
        let found = frame.schema().field(0).data_type();
        if !matches!(found, DataType::Boolean | DataType::Null) {
            let found = format!("`{}` is {found}, and a condition is true or false", rule.when);
            return Err(Error::configuration(found)
                .context(place())
                .hint("compare it with something, as in `age_y < 18`"));
        }
    }
    Ok(())
}

/// The flow of a cohort that stands in the session.
async fn flow(ctx: &SessionContext, step: &Step) -> Result<Vec<FlowRow>> {
    let query = format!(
        "SELECT * FROM {} ORDER BY {FLOW_ORDER}",
        relations::quoted(&format!("{}_flow", step.name))
    );
    catalog::rows(&catalog::sql(ctx, &query).await?)
}

/// Cases that a cohort step reads, and those that it keeps.
async fn sizes(ctx: &SessionContext, step: &Step) -> Result<(u64, u64)> {
    let (all, kept) = (input_name(step), relations::quoted(&step.name));
    Ok((
        relations::count(ctx, &format!("SELECT count(*) FROM {all}")).await?,
        relations::count(ctx, &format!("SELECT count(*) FROM {kept}")).await?,
    ))
}

/// A cohort as people ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CohortView {
    /// The step.
    pub cohort: String,
    /// Where its cases come from.
    pub query: String,
    /// The version of the table `cases`.
    pub catalog_version: i64,
    /// Cases before the rules.
    pub cases: u64,
    /// What each rule did.
    pub flow: Vec<FlowRow>,
    /// Cases that are left.
    pub kept: u64,
    /// Patients that are left.
    pub patients: u64,
}

/// Cohorts of a pipeline, as the catalog is at present.
pub async fn views(
    catalog: &Catalog,
    pipeline: &Pipeline,
    steps: &[&Step],
) -> Result<Vec<CohortView>> {
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let ctx = session::of_steps(catalog, pipeline, &pipeline.closure(&names), &Memo::of_a_reader())
        .await?;
    let mut views = Vec::new();
    for step in steps {
        let (cases, kept) = sizes(&ctx, step).await?;
        let name = relations::quoted(&step.name);
        let patients = match relations::has(&ctx, &step.name, "subject_id").await? {
            true => format!("SELECT count(DISTINCT subject_id) FROM {name}"),
            false => format!("SELECT count(*) FROM {name}"),
        };
        views.push(CohortView {
            cohort: step.name.clone(),
            query: relations::source(step),
            catalog_version: catalog.cases_version()?,
            cases,
            flow: flow(&ctx, step).await?,
            kept,
            patients: relations::count(&ctx, &patients).await?,
        });
    }
    Ok(views)
}

/// Runs a cohort step: nothing is stored, but the query must answer, and no case may come twice.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    params: &CohortParams,
) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    check(&ctx, step, params).await?;
    let relation = relation(&ctx, step, params).await?;
    relations::replace(&ctx, &step.name, relation)?;
    refuse_doubles(&ctx, step).await?;
    let (all, kept) = sizes(&ctx, step).await?;
    let mut report = StepReport::new(&step.name, all);
    report.unchanged = kept;
    let flow = flow(&ctx, step).await?;
    if !flow.is_empty() {
        let rules: Vec<String> =
            flow.iter().map(|rule| format!("{} {}", rule.excluded, rule.reason)).collect();
        report.note = Some(format!("{all} cases less {}", rules.join(", ")));
    }
    Ok(report)
}

async fn refuse_doubles(ctx: &SessionContext, step: &Step) -> Result<()> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        n: u64,
    }
    let query = format!(
        "SELECT case_id, count(*) AS n FROM {} GROUP BY case_id HAVING count(*) > 1 ORDER BY case_id LIMIT 4",
        relations::quoted(&step.name)
    );
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    if rows.is_empty() {
        return Ok(());
    }
    let named: Vec<String> =
        rows.iter().take(3).map(|row| format!("{} ({} times)", row.case_id, row.n)).collect();
    let more = if rows.len() > 3 { ", …" } else { "" };
    let found = format!(
        "steps.{}.from: the query gives cases more than once: {}{more}",
        step.name,
        named.join(", ")
    );
    Err(Error::configuration(found)
        .hint("a cohort has each case once: check its joins, or select DISTINCT"))
}
