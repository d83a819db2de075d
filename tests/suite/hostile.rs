//! Files made to do harm: what the fuzzers found or began with, damaged ones, and paths that lead out.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use torcula::formats::manifest::{ColumnMap, scan};

use super::support::{Registry, TORCULA, files, text};

#[path = "../fuzz/targets.rs"]
mod targets;

type Target = fn(&[u8]);

/// Each parser, with the names of the folders that its seeds are in.
const TARGETS: [(&str, Target, &[&str]); 8] = [
    ("nifti", targets::nifti, &["tests/corpus/nifti"]),
    ("gzip", targets::gzip, &["tests/corpus/gzip"]),
    ("sidecar", targets::sidecar, &["tests/corpus/sidecar"]),
    ("participants", targets::participants, &["tests/corpus/participants"]),
    ("manifest", targets::manifest, &["tests/corpus/manifest"]),
    ("parquet", targets::parquet, &["tests/corpus/parquet"]),
    (
        "pipeline",
        targets::pipeline,
        &["tests/corpus/pipeline", "tests/golden/pipeline", "pipelines"],
    ),
    ("shard", targets::shard, &["tests/corpus/shard"]),
];

fn seeds(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = folders.iter().flat_map(|folder| files(&root.join(folder)));
    paths.map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn what_the_fuzzers_know_is_read_or_refused() {
    for (name, target, folders) in TARGETS {
        let seeds = seeds(folders);
        assert!(seeds.len() > 1, "{name}");
        for seed in &seeds {
            target(seed);
        }
    }
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Cut(usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        4 => (at(), prop_oneof![Just(0), Just(0xff), Just(0x7f), any::<u8>()]).prop_map(|(i, b)| Damage::Set(i, b)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), 1_usize..200).prop_map(|(i, n)| Damage::Repeat(i, n)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(i, b)| Damage::Insert(i, b)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len().max(1);
        match damage {
            Damage::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at % length) {
                    *place = *byte;
                }
            }
            Damage::Cut(at) => bytes.truncate(at % length),
            Damage::Repeat(at, count) => {
                let start = (at % length).min(bytes.len());
                let part = bytes[start..bytes.len().min(start + count)].to_vec();
                bytes.splice(start..start, part);
            }
            Damage::Insert(at, more) => {
                let start = (at % length).min(bytes.len());
                bytes.splice(start..start, more.iter().copied());
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_read_or_refused(
        which in 0..TARGETS.len(),
        seed in any::<usize>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let (_, target, folders) = TARGETS[which];
        let seeds = seeds(folders);
        target(&damaged(seeds[seed % seeds.len()].clone(), &damages));
    }

    #[test]
    fn noise_is_read_or_refused(which in 0..TARGETS.len(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        TARGETS[which].1(&bytes);
    }
}

/// A folder with a manifest and an image, and files outside of it.
struct Table {
    folder: tempfile::TempDir,
}

impl Table {
    fn new(cell: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("in")).unwrap();
        std::fs::create_dir_all(at("out")).unwrap();
        for name in ["in/a.nii", "in/pair.hdr", "out/secret.nii", "out/pair.img"] {
            std::fs::write(at(name), "x").unwrap();
        }
        symlink("../out/secret.nii", at("in/link.nii")).unwrap();
        symlink("../out", at("in/folder")).unwrap();
        symlink("../out/pair.img", at("in/pair.img")).unwrap();
        symlink("a.nii", at("in/alias.nii")).unwrap();
        let cell = cell.replace("ROOT", &folder.path().to_string_lossy());
        std::fs::write(at("in/m.csv"), format!("case_id,image\ns1,{cell}\n")).unwrap();
        Self { folder }
    }

    fn cases(&self, root: Option<&Path>) -> (usize, String) {
        let manifest = self.folder.path().join("in/m.csv");
        let found = scan(&manifest, &ColumnMap::default(), false, root).unwrap();
        let reasons = found.findings.into_iter().map(|f| f.reason).collect::<Vec<_>>();
        (found.cases.len(), reasons.join("\n"))
    }
}

#[test]
fn no_path_of_a_manifest_leads_out_of_its_root() {
    for inside in
        ["a.nii", "./a.nii", "../in/a.nii", "ROOT/in/a.nii", "file://ROOT/in/a.nii", "alias.nii"]
    {
        assert_eq!(Table::new(inside).cases(None), (1, String::new()), "{inside}");
    }
    for outside in [
        "../out/secret.nii",
        "ROOT/out/secret.nii",
        "file://ROOT/out/secret.nii",
        "link.nii",
        "folder/secret.nii",
        "/etc/hostname",
        "pair.hdr",
    ] {
        let table = Table::new(outside);
        let (cases, reason) = table.cases(None);
        assert!(cases == 0 && reason.contains("leads out of"), "{outside}: {reason}");
        if outside != "/etc/hostname" {
            assert_eq!(table.cases(Some(table.folder.path())).0, 1, "{outside}");
        }
    }
}

fn apply(image: &Path, variable: &str, value: &str) -> String {
    let out = image.with_file_name("out.nii.gz");
    let args = ["apply", "normalize", image.to_str().unwrap(), out.to_str().unwrap()];
    text(&Command::new(TORCULA).args(args).env(variable, value).output().unwrap())
}

#[test]
fn limits_hold_and_name_the_variable_that_moves_them() {
    let registry = Registry::synth(1, &[]);
    let image: PathBuf = registry.image(0);
    for (variable, value) in [("TORCULA_MAX_DECODED_BYTES", "1000"), ("TORCULA_MAX_VOXELS", "1000")]
    {
        let said = apply(&image, variable, value);
        assert!(said.contains("exit Some(1)") && said.contains(variable), "{said}");
    }
    let said = apply(&image, "TORCULA_MAX_VOXELS", "many");
    assert!(said.contains("exit Some(2)") && said.contains("TORCULA_MAX_VOXELS"), "{said}");
    let said = apply(&image, "TORCULA_MAX_VOXELS", "100000");
    assert!(said.contains("exit Some(0)"), "{said}");
}
