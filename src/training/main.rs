//! The program with a learner: the lean `torcula` execs it for pipelines that train or infer.

use std::process::ExitCode;
use std::sync::Arc;

use torcula_training::TorchLearner;

fn main() -> ExitCode {
    #[cfg(unix)]
    torcula_training::device::wait_passively();
    torcula::cli::main(Some(Arc::new(TorchLearner::new())))
}
