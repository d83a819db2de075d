//! What the engine itself costs a case: admission, scheduling, outcome, commit, with a stage that only records a row; and how fast
//! samples come out of a shard.

#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};
use torcula::catalog::{Catalog, Table};
use torcula::engine::{
    Budget, Case, CaseExec, Context, Fused, Lineage, Metrics, RecordSink, Silent, Slot, Stage,
    Stop, Work, Workers, journal,
};
use torcula::error::Result;
use torcula::formats::shards::{self, Sample, ShardReader};
use torcula::imaging::phantom;

const CASES: usize = 1_000;

/// Records that the case was there.
#[derive(Debug)]
struct Present;

impl Stage for Present {
    fn name(&self) -> &'static str {
        "present"
    }
    fn version(&self) -> u32 {
        1
    }
    fn parameters(&self) -> Value {
        Value::Null
    }
    fn reads(&self) -> &'static [Slot] {
        &[]
    }
    fn table(&self) -> Option<Table> {
        Some(Table::Splits)
    }
    fn working_bytes(&self, _: u64) -> u64 {
        0
    }
    fn run(&self, case: &mut Case, context: &Context) -> Result<()> {
        let id = &case.input.case_id;
        context.record(
            Table::Splits,
            &json!({"split": "bench", "case_id": id, "subject_id": id, "part": "all", "query": ""}),
        )
    }
}

async fn run(catalog: &Catalog) -> u64 {
    let ids: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..CASES).map(|i| format!("sub-{i:06}"))));
    let batch = RecordBatch::try_from_iter([("case_id", Arc::clone(&ids)), ("fingerprint", ids)]);
    let ctx = SessionContext::new();
    let frame = ctx.read_batch(batch.expect("two columns")).expect("a batch");
    let plan = frame.create_physical_plan().await.expect("a plan");
    let work = Work {
        step: "bench".to_owned(),
        fused: Fused::new(vec![Arc::new(Present)], Arc::new(RecordSink)),
        budget: Budget::new(1 << 30, 1 << 30),
        workers: Arc::new(Workers::new(2).expect("threads")),
        timeout: Duration::from_secs(60),
        lineage: Lineage::default(),
        stop: Stop::default(),
        metrics: Arc::new(Metrics::new(["present"])),
        observer: Arc::new(Silent),
    };
    let exec = CaseExec::new(plan, Arc::new(work));
    let stream = exec.execute(0, ctx.task_ctx()).expect("a stream");
    let counts = journal::drain(stream, catalog, Table::Splits, journal::Committed::new()).await;
    counts.expect("commits").done
}

fn overhead(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = runtime.block_on(Catalog::create_or_open(folder.path())).expect("a catalog");
    let mut group = c.benchmark_group("engine");
    group.sample_size(10).throughput(Throughput::Elements(CASES as u64));
    group.bench_function("1000 cases of a stage that does nothing, committed", |b| {
        b.iter(|| assert_eq!(runtime.block_on(run(&catalog)), CASES as u64));
    });
    group.finish();
}

fn shard_reading(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("samples.arrow");
    let samples: Vec<Sample> = (0..32)
        .map(|i| {
            let (image, truth, _) = phantom::simple([64, 64, 16], [3.5, 3.5, 8.0], i);
            Sample { case_id: format!("sub-{i}"), fingerprint: String::new(), image, truth }
        })
        .collect();
    shards::write(&path, &samples, &std::collections::BTreeMap::new()).expect("a shard");
    let reader = ShardReader::open(&path).expect("a shard");
    let mut out = vec![0.0; 64 * 64 * 16];
    let mut group = c.benchmark_group("shards");
    group.throughput(Throughput::Elements(32));
    group.bench_function("32 samples of 64×64×16, float16 to float32", |b| {
        b.iter(|| {
            for i in 0..reader.len() {
                reader.image_f32(i, &mut out);
                black_box(out[0] + f32::from(reader.truth(i)[0]));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, overhead, shard_reading);
criterion_main!(benches);
