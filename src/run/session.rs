//! Sessions: the catalog's tables, and steps of a pipeline as relations beside them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{self, LogicalPlan, lit};
use datafusion::prelude::SessionContext;
use serde_json::Value;

use crate::catalog::{Catalog, SessionAt};
use crate::error::Result;
use crate::pipeline::{Action, Pipeline, Step, Union};

use super::memo::{Memo, trained};
use super::relations::{planning, relation, replace, without};

/// A session in which the tables and what the step `until` needs (all steps, where it is none) can be queried by name.
pub async fn until(
    catalog: &Catalog,
    pipeline: &Pipeline,
    until: Option<&str>,
    memo: &Arc<Memo>,
) -> Result<SessionContext> {
    match until.and_then(|name| pipeline.step(name)) {
        Some(step) => {
            let needed: Vec<&str> = step.upstream.iter().map(String::as_str).collect();
            // A model whose fingerprint is known is found without the samples that it is of.
            let settled = |step: &Step| memo.knows(&trained(&step.name));
            of_steps(catalog, pipeline, &pipeline.closure_to(&needed, settled), memo).await
        }
        None => of_steps(catalog, pipeline, &pipeline.steps.iter().collect::<Vec<_>>(), memo).await,
    }
}

/// A session for readers of anything, in which nothing runs.
pub async fn of_all(catalog: &Catalog, pipeline: &Pipeline) -> Result<SessionContext> {
    until(catalog, pipeline, None, &Memo::of_a_reader()).await
}

/// A session for one query: the tables, and the steps that it names with what they need.
pub async fn for_query(
    catalog: &Catalog,
    pipeline: &Pipeline,
    query: &str,
) -> Result<SessionContext> {
    let lower = query.to_lowercase();
    // A name within another name does no harm but the time to plan it.
    let names = pipeline.steps.iter().flat_map(|step| {
        std::iter::once(step.name.as_str()).chain(step.part_of.as_ref().map(|p| p.name.as_str()))
    });
    let named: BTreeSet<&str> = names.filter(|name| lower.contains(name)).collect();
    let named: Vec<&str> = named.into_iter().collect();
    of_steps(catalog, pipeline, &pipeline.closure(&named), &Memo::of_a_reader()).await
}

/// A session with the tables and these steps, each after what it needs.
pub async fn of_steps(
    catalog: &Catalog,
    pipeline: &Pipeline,
    steps: &[&Step],
    memo: &Arc<Memo>,
) -> Result<SessionContext> {
    over(catalog.session(SessionAt::Latest).await?, pipeline, steps, memo).await
}

/// As [`of_steps`], with the catalog as it was. Steps are read as this pipeline, of that time, makes them.
pub async fn of_the_past(
    catalog: &Catalog,
    at: SessionAt,
    pipeline: &Pipeline,
    steps: &[&Step],
) -> Result<SessionContext> {
    over(catalog.session(at).await?, pipeline, steps, &Memo::of_the_past()).await
}

async fn over(
    tables: SessionContext,
    pipeline: &Pipeline,
    steps: &[&Step],
    memo: &Arc<Memo>,
) -> Result<SessionContext> {
    let mut session = Growing::new(tables, pipeline, Arc::clone(memo));
    session.add(steps).await?;
    Ok(session.ctx)
}

/// A session to which steps are added as they are needed.
pub struct Growing<'p> {
    /// The session.
    pub ctx: SessionContext,
    pipeline: &'p Pipeline,
    memo: Arc<Memo>,
    unions: Vec<Union<'p>>,
    there: HashSet<String>,
}

impl<'p> Growing<'p> {
    /// Over the tables of a session.
    pub fn new(ctx: SessionContext, pipeline: &'p Pipeline, memo: Arc<Memo>) -> Self {
        ctx.state_ref().write().config_mut().set_extension(Arc::clone(&memo));
        Self { ctx, pipeline, memo, unions: pipeline.unions(), there: HashSet::new() }
    }

    /// Adds the relations of these steps, each after what it needs, and of the matrices that are complete with them.
    pub async fn add(&mut self, steps: &[&Step]) -> Result<()> {
        for step in steps {
            if self.there.contains(&step.name) {
                continue;
            }
            if let Some(found) = self.relation(step).await? {
                replace(&self.ctx, &step.name, found)?;
                self.there.insert(step.name.clone());
            }
            let Some(part_of) = &step.part_of else { continue };
            let complete = |u: &&Union<'_>| {
                u.name == part_of.name && u.steps.iter().all(|s| self.there.contains(&s.name))
            };
            if let Some(union) = self.unions.iter().find(complete) {
                replace(&self.ctx, union.name, united(&self.ctx, union).await?)?;
            }
        }
        Ok(())
    }

    async fn relation(&self, step: &Step) -> Result<Option<DataFrame>> {
        // A cohort's relation brings others along, its flow and whom it left out.
        let alone = !matches!(step.action, Action::Cohort(_));
        if alone && let Some(rows) = self.memo.rows(&self.ctx, &step.name).await? {
            return Ok(Some(rows));
        }
        let Some(found) = relation(&self.ctx, self.pipeline, step).await? else { return Ok(None) };
        match self.memo.rows(&self.ctx, &step.name).await? {
            Some(rows) => Ok(Some(rows)),
            None => self.memo.settled(&self.ctx, &step.name, found).await.map(Some),
        }
    }
}

/// The relation of all steps of a matrix, with a column a parameter. What one of them lacks is null.
async fn united(ctx: &SessionContext, union: &Union<'_>) -> Result<DataFrame> {
    let mut inputs = Vec::new();
    let parameters = union.parameters();
    let values = |name: &str| {
        let of =
            |step: &&Step| step.part_of.iter().flat_map(|p| p.values.clone()).collect::<Vec<_>>();
        let all = union.steps.iter().flat_map(of);
        all.filter(|(n, _)| n == name).map(|(_, value)| value).collect::<Vec<Value>>()
    };
    let kinds: HashMap<&str, bool> = parameters
        .iter()
        .map(|name| (*name, values(name).iter().all(|v| whole(v).is_some())))
        .collect();
    for step in &union.steps {
        let frame = ctx.table(TableReference::bare(step.name.as_str())).await.map_err(planning)?;
        let mut frame = without(frame, &parameters)?;
        for (name, value) in step.part_of.iter().flat_map(|p| &p.values) {
            let value = match (value, kinds.get(name.as_str())) {
                (value, Some(true)) => lit(whole(value).unwrap_or_default()),
                (Value::Number(number), _) if values(name).iter().all(Value::is_number) => {
                    lit(number.as_f64().unwrap_or_default())
                }
                (Value::String(text), _) => lit(text.as_str()),
                (other, _) => lit(other.to_string()),
            };
            frame = frame.with_column(name, value).map_err(planning)?;
        }
        inputs.push(Arc::new(frame.into_unoptimized_plan()));
    }
    let plan = LogicalPlan::Union(logical_expr::Union::try_new_by_name(inputs).map_err(planning)?);
    Ok(DataFrame::new(ctx.state(), plan))
}

/// A whole number.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}
