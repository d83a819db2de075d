//! The lean binary: everything but training and inference, which it hands to `torcula-training` beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    torcula::cli::main(None)
}
