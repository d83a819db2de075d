//! Worlds: a registry, its catalog and its artifacts, and the program that runs on them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const CASES: usize = 12;

/// The states of a registry, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// As it is first seen; a case has the image of another one.
    First,
    /// One image changed, one cut short, a case new.
    Second,
}

impl Phase {
    pub const ALL: [Self; 2] = [Self::First, Self::Second];
}

/// What the worlds are made from: the registry in both states, the program, the library of faults.
pub struct Bench {
    folder: TempDir,
    pub library: PathBuf,
    /// The step to run to; all where it is empty.
    to: String,
}

impl Bench {
    pub fn new(to: String) -> Self {
        let folder = tempfile::Builder::new().prefix("torture").tempdir().unwrap();
        let library = folder.path().join("preload.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/preload.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(source)
            .output()
            .expect("a C compiler, cc");
        assert!(built.status.success(), "{}", text(&built));
        let bench = Self { folder, library, to };
        bench.synth();
        bench
    }

    fn registry(&self, phase: Phase) -> PathBuf {
        self.folder.path().join(format!("{phase:?}"))
    }

    fn synth(&self) {
        let first = self.registry(Phase::First);
        let cases = CASES.to_string();
        let made = Command::new(program())
            .arg("synth")
            .arg(&first)
            .args([
                "--cases", &cases, "--sites", "2", "--seed", "5", "--matrix", "24", "--slices", "8",
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let second = self.registry(Phase::Second);
        copy_tree(&first, &second);
        let mut images = files(&first);
        images.retain(|path| path.to_string_lossy().ends_with("_dwi.nii.gz"));
        let there = |path: &Path| second.join(path.strip_prefix(&first).unwrap());
        // The first state: a case too few, and one that repeats the image of another.
        let case = images[2].parent().unwrap().parent().unwrap();
        fs::remove_dir_all(case).unwrap();
        fs::copy(&images[4], &images[5]).unwrap();
        // The second: other voxels in one image, half of another.
        change_voxels(&there(&images[0]));
        let half = fs::read(there(&images[1])).unwrap();
        fs::write(there(&images[1]), &half[..half.len() / 2]).unwrap();
        fs::copy(&images[4], there(&images[5])).unwrap();
    }
}

fn change_voxels(image: &Path) {
    let mut voxels = Vec::new();
    flate2::read::GzDecoder::new(File::open(image).unwrap()).read_to_end(&mut voxels).unwrap();
    let middle = 400 + (voxels.len() - 400) / 2;
    voxels[middle] ^= 3;
    let mut packed =
        flate2::write::GzEncoder::new(File::create(image).unwrap(), flate2::Compression::fast());
    packed.write_all(&voxels).unwrap();
    packed.finish().unwrap();
}

/// The binary under test; `TORCULA_TORTURE_BINARY` names another one.
pub fn program() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_torcula");
    std::env::var_os("TORCULA_TORTURE_BINARY").map_or_else(|| PathBuf::from(built), PathBuf::from)
}

/// One registry with its catalog.
pub struct World<'b> {
    bench: &'b Bench,
    folder: TempDir,
}

impl<'b> World<'b> {
    pub fn new(bench: &'b Bench) -> Self {
        let folder = tempfile::Builder::new().prefix("world").tempdir_in(bench.folder.path());
        Self { bench, folder: folder.unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn catalog(&self) -> PathBuf {
        self.path().join("catalog")
    }

    pub fn derivatives(&self) -> PathBuf {
        self.path().join("derivatives")
    }

    pub fn library(&self) -> &Path {
        &self.bench.library
    }

    /// Leaves the folder behind, outside of what the harness removes.
    pub fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        let kept = std::env::temp_dir().join(format!(
            "kept-{}-{}",
            std::process::id(),
            self.path().file_name().unwrap().to_string_lossy()
        ));
        drop(Command::new("cp").arg("-a").arg(self.path()).arg(&kept).status());
        kept
    }

    /// Puts the registry into a state. Times of change are those of the template, so that only what changed is new.
    pub fn advance(&self, phase: Phase) {
        let registry = self.path().join("registry");
        drop(fs::remove_dir_all(&registry));
        copy_tree(&self.bench.registry(phase), &registry);
    }

    /// The command that runs the pipeline.
    pub fn command(&self, extra: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/pipeline.yaml")])
            .args(["--set", &format!("data={}", self.path().display())])
            .args(["--progress", "none", "--jobs", "2"])
            .args(extra)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.bench.to.is_empty() {
            command.args(["--to", &self.bench.to]);
        }
        command
    }

    /// Runs the pipeline to its end.
    pub fn run(&self, extra: &[&str]) -> Output {
        wait(self.command(extra).spawn().unwrap())
    }

    /// Runs a command on the catalog.
    pub fn torcula(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(words).arg("--catalog").arg(self.catalog());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        wait(command.spawn().unwrap())
    }

    /// What the program says of a completed world: nothing is damaged.
    pub fn sound(&self) -> Result<(), String> {
        let output = self.torcula(&["verify"]);
        if output.status.success() { Ok(()) } else { Err(format!("verify: {}", text(&output))) }
    }

    /// Takes out all that crashes left and nothing needs; what is left is what the present registry leads to.
    pub fn clean(&self) -> Result<(), String> {
        let before = files(self.path());
        let all = ["clean", "--keep-days", "0", "--keep-versions", "0", "--grace-hours", "0"];
        let dry = self.torcula(&[&all[..], &["--dry-run"]].concat());
        if !dry.status.success() || files(self.path()) != before {
            return Err(format!("a dry run of clean: {}", text(&dry)));
        }
        let output = self.torcula(&all);
        if !output.status.success() {
            return Err(format!("clean: {}", text(&output)));
        }
        let left = files(&self.derivatives()).into_iter().chain(files(&self.catalog()));
        for path in left {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".tmp") || name.contains('#') || name.ends_with(".torn") {
                return Err(format!("{name} is left after clean: {}", text(&output)));
            }
        }
        self.sound()
    }
}

/// Waits for a run; one that hangs is killed, which the exit status shows as a failure of its own.
pub fn wait(mut child: Child) -> Output {
    let began = Instant::now();
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                drop(pipe.read_to_end(&mut bytes));
            }
            bytes
        })
    };
    let out = drain(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let err = drain(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let status: ExitStatus = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            drop(child.kill());
            child.wait().unwrap();
            panic!("a run hung for {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// Everything that a run printed.
pub fn text(output: &Output) -> String {
    format!(
        "{:?}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Every file under a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Copies a folder with its times of change.
fn copy_tree(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&path, &target).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        File::options().write(true).open(&target).unwrap().set_modified(modified).unwrap();
    }
}
