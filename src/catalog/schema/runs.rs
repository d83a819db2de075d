//! The tables `runs` and `failures`: what was executed and what went wrong.

use super::{Timestamp, row, words};
use crate::error::Fault;

words! {
    /// How a run stands.
    RunStatus {
        /// It is at work, or its process died.
        Running = "running",
        /// It ended well.
        Done = "done",
        /// It ended with an error.
        Failed = "failed",
        /// It was told to stop.
        Stopped = "stopped",
        /// It ended, with more quarantined cases than its pipeline allows.
        OverLimit = "over_limit",
        /// Its process died; a later run found out.
        Killed = "killed",
    }
}

row! {
    /// One execution of a pipeline.
    #[derive(Default)]
    RunRow of Runs {
        /// The run's identifier; later runs sort after earlier ones.
        run_id: String, None;
        /// The pipeline file.
        pipeline: String, None;
        /// blake3 of the resolved pipeline.
        pipeline_hash: String, None;
        /// The resolved pipeline, as JSON.
        resolved: String, None;
        /// The command line.
        command: String, None;
        /// `running`, `done`, `failed`, `stopped`, `over_limit` or `killed`.
        status: RunStatus, None;
        /// When the run started.
        started_at: Timestamp, MicrosecondUtc;
        /// When the run ended.
        ended_at: Option<Timestamp>, MicrosecondUtc;
        /// Cases that went through.
        cases_done: i64, One;
        /// Cases that were quarantined.
        cases_failed: i64, One;
        /// Cases whose results were there already.
        cases_unchanged: i64, One;
        /// The version of Torcula.
        software_version: String, None;
        /// Processor cores of the machine.
        host_cores: i64, One;
        /// The exit code of the process.
        exit_code: Option<i64>, None;
    }
}

row! {
    /// A case that a run quarantined.
    FailureRow of Failures {
        /// The run.
        run_id: String, None;
        /// The step of the pipeline.
        step: String, None;
        /// The stage that failed.
        stage: String, None;
        /// The case.
        case_id: String, None;
        /// Whose fault it was: `configuration`, `data`, `io`, `resource`, `timeout`, `cancelled` or `bug`.
        fault: Fault, None;
        /// What was found and what was expected.
        reason: String, None;
        /// What to do about it.
        hint: Option<String>, None;
        /// blake3 over the input bytes, the stage versions and the parameters of the attempt.
        fingerprint: String, None;
        /// Whether the same input may succeed another time.
        transient: bool, None;
        /// When it happened.
        created_at: Timestamp, MicrosecondUtc;
    }
}
