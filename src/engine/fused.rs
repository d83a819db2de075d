//! Stages fused into one pass over a case: what is loaded when, what is dropped when, and what it costs in memory.

use std::sync::Arc;

use serde_json::{Value, json};

use super::case::{Case, Slot};
use super::metrics::Metrics;
use super::sink::Sink;
use super::stage::{Context, Stage};
use super::work::timed;
use crate::error::Result;
use crate::formats::files;

/// Memory in bytes that a case needs whatever its size: buffers of decoders and encoders, rows, names.
const FIXED_BYTES: u64 = 2 << 20;

/// The stages of a step and the sink at their end.
#[derive(Debug)]
pub struct Fused {
    stages: Vec<Arc<dyn Stage>>,
    sink: Arc<dyn Sink>,
    /// Slots to read from files before stage `k`; the last entry is the sink's.
    loads: Vec<Vec<Slot>>,
    /// Slots to free after stage `k`.
    drops: Vec<Vec<Slot>>,
}

impl Fused {
    /// Plans the pass: a slot is loaded just before the first stage that reads or carries it for a later user, and freed
    /// just after its last user.
    pub fn new(stages: Vec<Arc<dyn Stage>>, sink: Arc<dyn Sink>) -> Self {
        let n = stages.len();
        let mut loads = vec![Vec::new(); n + 1];
        let mut drops = vec![Vec::new(); n + 1];
        let uses = |k: usize, slot: Slot| match stages.get(k) {
            Some(stage) => stage.reads().contains(&slot) || stage.optional().contains(&slot),
            None => sink.needs().contains(&slot),
        };
        for slot in Slot::ALL {
            let Some(last) = (0..=n).rev().find(|&k| uses(k, slot)) else {
                // Written and never used again: freed where it was written.
                for (k, stage) in stages.iter().enumerate() {
                    if stage.writes().contains(&slot) {
                        drops[k].push(slot);
                    }
                }
                continue;
            };
            let first = (0..=n).find(|&k| uses(k, slot)).unwrap_or(last);
            let written = stages.iter().position(|s| s.writes().contains(&slot));
            if written.is_none_or(|k| first <= k) {
                let carried = stages.iter().position(|s| s.carries().contains(&slot));
                loads[carried.map_or(first, |k| k.min(first))].push(slot);
            }
            drops[last].push(slot);
        }
        Self { stages, sink, loads, drops }
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[Arc<dyn Stage>] {
        &self.stages
    }

    /// Where the cases go in the end.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.sink
    }

    /// What decides the output beside the input's bytes: stages, versions, parameters, the output's form, and the
    /// seed where a stage draws.
    pub fn identity(&self, seed: u64) -> Value {
        let stages: Vec<Value> = self
            .stages
            .iter()
            .map(|s| json!({"stage": s.name(), "version": s.version(), "parameters": s.parameters()}))
            .collect();
        let seed = self.stages.iter().any(|s| s.is_random()).then_some(seed);
        json!({"stages": stages, "output": self.sink.parameters(), "seed": seed})
    }

    /// Hash of [`identity`](Self::identity): the salt of the step's fingerprints.
    pub fn salt(&self, seed: u64) -> String {
        blake3::hash(self.identity(seed).to_string().as_bytes()).to_hex().to_string()
    }

    /// Upper bound of the memory in bytes that a case of so many voxels needs at any moment of the pass.
    pub fn footprint(&self, voxels: u64) -> u64 {
        let mut live: Vec<Slot> = Vec::new();
        let mut peak = 0;
        for k in 0..=self.stages.len() {
            live.extend(&self.loads[k]);
            let working = match self.stages.get(k) {
                Some(stage) => {
                    live.extend(stage.writes());
                    stage.working_bytes(voxels)
                }
                None => self.sink.working_bytes(voxels),
            };
            live.sort_unstable();
            live.dedup();
            let held: u64 = live.iter().map(|s| s.bytes_per_voxel() * voxels).sum();
            peak = peak.max(held.saturating_add(working));
            live.retain(|s| !self.drops[k].contains(s));
        }
        peak.saturating_add(FIXED_BYTES)
    }

    /// Takes a case through every stage. `at` follows where it is, for messages.
    pub(super) fn run(
        &self,
        case: &mut Case,
        context: &Context,
        metrics: &Metrics,
        at: &mut dyn FnMut(&'static str),
    ) -> Result<()> {
        for k in 0..=self.stages.len() {
            context.check()?;
            if !self.loads[k].is_empty() {
                at("decode");
                let _span = tracing::debug_span!("stage", stage = "decode").entered();
                timed(metrics, Metrics::DECODE, || self.load(k, case, metrics))?;
            }
            if let Some(stage) = self.stages.get(k) {
                at(stage.name());
                let _span = tracing::debug_span!("stage", stage = stage.name()).entered();
                timed(metrics, k + 1, || stage.run(case, context))?;
                for slot in &self.drops[k] {
                    case.clear(*slot);
                }
            }
        }
        Ok(())
    }

    /// Whether a case without this slot's file cannot be done.
    fn requires(&self, slot: Slot) -> bool {
        self.sink.needs().contains(&slot) || self.stages.iter().any(|s| s.reads().contains(&slot))
    }

    fn load(&self, k: usize, case: &mut Case, metrics: &Metrics) -> Result<()> {
        for slot in &self.loads[k] {
            if case.input.uri(*slot).is_none() && !self.requires(*slot) {
                continue;
            }
            case.load(*slot)?;
            let path = case.input.uri(*slot).and_then(|uri| files::resolve(uri).ok());
            metrics.read(path.and_then(|p| p.metadata().ok()).map_or(0, |m| m.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RecordSink;
    use crate::engine::sink::tests::KeepSink;

    #[derive(Debug)]
    struct Fake {
        reads: &'static [Slot],
        writes: &'static [Slot],
        carries: &'static [Slot],
        working: u64,
    }

    impl Stage for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn version(&self) -> u32 {
            1
        }
        fn parameters(&self) -> Value {
            json!({})
        }
        fn reads(&self) -> &'static [Slot] {
            self.reads
        }
        fn writes(&self) -> &'static [Slot] {
            self.writes
        }
        fn carries(&self) -> &'static [Slot] {
            self.carries
        }
        fn working_bytes(&self, voxels: u64) -> u64 {
            self.working * voxels
        }
        fn run(&self, _: &mut Case, _: &Context) -> Result<()> {
            Ok(())
        }
    }

    fn fake(reads: &'static [Slot], writes: &'static [Slot], working: u64) -> Fake {
        Fake { reads, writes, carries: &[], working }
    }

    #[test]
    fn volumes_are_loaded_once_and_dropped_after_their_last_user() {
        use Slot::{Brain, Image, Truth};
        let stages: Vec<Arc<dyn Stage>> = vec![
            Arc::new(fake(&[Image, Truth], &[], 0)),
            Arc::new(fake(&[Image], &[Image, Brain], 0)),
            Arc::new(fake(&[Image, Brain], &[Image], 8)),
        ];
        let fused = Fused::new(stages, Arc::new(KeepSink(vec![Image])));
        assert_eq!(fused.loads, [vec![Image, Truth], vec![], vec![], vec![]]);
        assert_eq!(fused.drops, [vec![Truth], vec![], vec![Brain], vec![Image]]);
        // Image and brain, and eight bytes a voxel of the last stage's own.
        assert_eq!(fused.footprint(1000), 13_000 + FIXED_BYTES);
    }

    #[test]
    fn what_a_stage_carries_for_a_later_user_is_loaded_before_it() {
        use Slot::{Image, Truth};
        let resample = Fake { carries: &[Image, Truth], ..fake(&[Image], &[Image], 0) };
        let fused = Fused::new(vec![Arc::new(resample)], Arc::new(KeepSink(vec![Image, Truth])));
        assert_eq!(fused.loads[0], [Image, Truth]);
    }

    #[test]
    fn parameters_and_seed_enter_the_salt_only_where_they_matter() {
        let plain = Fused::new(vec![Arc::new(fake(&[], &[], 0))], Arc::new(RecordSink));
        assert_eq!(plain.salt(1), plain.salt(2));
    }
}
