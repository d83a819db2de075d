//! Running the program on small synthetic registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The lean binary.
pub const TORCULA: &str = env!("CARGO_BIN_EXE_torcula");

/// A folder with a registry and a place for its catalog.
pub struct Registry {
    pub folder: TempDir,
}

impl Registry {
    /// A synthetic registry of tiny cases.
    pub fn synth(cases: usize, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("internal");
        let cases = cases.to_string();
        let mut args =
            vec!["synth", root.to_str().unwrap(), "--cases", &cases, "--sites", "2", "--seed", "5"];
        args.extend(["--matrix", "24", "--slices", "8"]);
        args.extend(extra);
        succeed(&args);
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The image of a case, by its number.
    pub fn image(&self, number: usize) -> PathBuf {
        let mut images = files(&self.path().join("internal"));
        images.retain(|p| p.to_string_lossy().ends_with("_dwi.nii.gz"));
        images[number].clone()
    }

    /// The arguments that run the test pipeline on this registry.
    pub fn run_args(&self, extra: &[&str]) -> Vec<String> {
        let mut args = vec![
            "run".to_owned(),
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/prepare.yaml").to_owned(),
            "--set".to_owned(),
            format!("data={}", self.path().display()),
            "--progress".to_owned(),
            "none".to_owned(),
        ];
        args.extend(extra.iter().map(|s| (*s).to_owned()));
        args
    }

    /// Runs the test pipeline.
    pub fn run(&self, extra: &[&str]) -> Output {
        torcula(&self.run_args(extra))
    }

    /// The counts of the step table that a run prints: step → (done, unchanged, quarantined).
    pub fn counts(&self, extra: &[&str]) -> BTreeMap<String, [u64; 3]> {
        let output = self.run(extra);
        assert!(output.status.success(), "{}", text(&output));
        counts(&output)
    }

    /// The one value that a query gives.
    pub fn sql(&self, query: &str) -> String {
        let catalog = self.path().join("catalog");
        let out =
            succeed(&["sql", query, "--catalog", catalog.to_str().unwrap(), "--format", "csv"]);
        out.lines().skip(1).collect::<Vec<_>>().join("\n")
    }
}

/// The step table of a run's output.
pub fn counts(output: &Output) -> BTreeMap<String, [u64; 3]> {
    let mut steps = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let numbers: Vec<u64> =
            words.iter().skip(1).take(3).filter_map(|w| w.parse().ok()).collect();
        if let (Some(name), [a, b, c]) = (words.first(), numbers.as_slice()) {
            steps.insert((*name).to_owned(), [*a, *b, *c]);
        }
    }
    steps
}

/// Runs the program.
pub fn torcula<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    Command::new(TORCULA).args(args).output().unwrap()
}

/// Runs the program, which must succeed; its standard output.
pub fn succeed<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    let output = torcula(args);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that a run printed.
pub fn text(output: &Output) -> String {
    format!(
        "exit {:?}\n{}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Every file under a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every file under a folder: relative name → hash of its bytes.
pub fn tree(folder: &Path) -> BTreeMap<String, String> {
    files(folder)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            (name, blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string())
        })
        .collect()
}
