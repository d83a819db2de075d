//! Writes the folder of libtorch into the binary, so that it runs with nothing exported, and its version, for `doctor`.
//!
//! `LIBTORCH` comes from `.cargo/config.toml` (the link `.libtorch` that `.ci/libtorch` makes) or from the user. Both the
//! link and the folder behind it are written: the link lets the binary follow to another libtorch, such as one with
//! CUDA, and the folder serves when the project has moved.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("LIBTORCH").unwrap_or_default());
    println!("cargo::rustc-env=TORCULA_LIBTORCH_VERSION={}", version(&folder).unwrap_or_default());
    let lib = folder.join("lib");
    println!("cargo::rerun-if-changed={}", lib.display());
    let mut folders = vec![lib.clone()];
    folders.extend(lib.canonicalize().ok().filter(|behind| *behind != lib));
    for folder in folders {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}

/// From `build-version` of a libtorch, or `version.py` of a Python package.
fn version(folder: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("__version__ = "))?;
    Some(line.trim_matches(['\'', '"']).to_owned())
}
