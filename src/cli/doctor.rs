//! `torcula doctor`: what this machine has, and what to do about what it lacks.

use std::process::ExitCode;
use std::sync::Arc;

use super::{output, run};
use crate::engine::learner::Learner;
use crate::error::Result;

/// `torcula doctor`.
pub fn doctor(learner: Option<Arc<dyn Learner>>) -> Result<ExitCode> {
    let beside =
        std::env::current_exe().is_ok_and(|e| e.with_file_name("torcula-training").exists());
    if learner.is_none() && beside {
        return Err(run::exec_training());
    }
    let memory = super::memory();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    output::line(format!("torcula   {}", env!("CARGO_PKG_VERSION")));
    output::line(format!("cores     {cores}"));
    output::line(format!(
        "memory    {:.1} GiB free of {:.1} GiB",
        gib(memory.available),
        gib(memory.total)
    ));
    let Some(learner) = learner else {
        output::line("libtorch  missing: train and infer steps cannot run");
        output::line("  hint: build torcula-training beside torcula with `make build`");
        return Ok(ExitCode::FAILURE);
    };
    let info = learner.describe();
    output::line(format!("libtorch  {} ({} threads)", info.libtorch, info.threads));
    output::line(if info.cuda {
        format!("CUDA      {}", info.devices.join(", "))
    } else {
        "CUDA      none: training runs on the CPU (point LIBTORCH at a full libtorch to use a GPU)"
            .to_owned()
    });
    Ok(ExitCode::SUCCESS)
}
