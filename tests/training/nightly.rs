//! The nightly job: each kind of change makes exactly the work that depends on it, and the difference report tells of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{TORCULA, pipeline, run};

/// Trains on the same registry into the same catalog.
const TRAINER: &str = r#"
torcula: 1
name: trainer
vars: { data: null, seed: 1 }
seed: ${seed}
catalog: ${data}/catalog
artifacts: ${data}/derivatives
steps:
  registry: { ingest: { bids: "${data}/external", source: external } }
  learned: { from: registry, stages: [skull_strip, { normalize: { peak: 150 } }], keep: [image] }
  parts: { from: learned, split: { parts: { train: 0.6, val: 0.4 } } }
  shards: { from: parts, stages: [{ resample: { shape: [16, 16, 8] } }], to: shards }
  unet: { from: shards, train: { levels: 2, filters: 4, epochs: 3, batch: 2, learning_rate: 0.01, augment: [], device: cpu } }
"#;

struct Nights {
    folder: tempfile::TempDir,
}

/// The steps of a night: done, unchanged and quarantined cases.
type Counts = BTreeMap<String, [u64; 3]>;

impl Nights {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run of the shipped pipeline: exit code, counts, everything that it printed.
    fn night(&self, more: &[&str]) -> (i32, Counts, String) {
        let data = format!("data={}", self.folder.path().display());
        let tiny = [
            "steps.prepared.stages.qc.min_shape=[8, 8, 4]",
            "steps.prepared.stages.qc.max_spacing_mm=[20, 20, 40]",
            "steps.predicted.infer.device=cpu",
            "steps.difference.difference.resamples=200",
        ];
        let mut command = Command::new(TORCULA);
        command.args(["run", &pipeline("nightly-rescore"), "--progress", "none", "--set", &data]);
        for set in tiny.iter().chain(more) {
            command.args(["--set", *set]);
        }
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
        let mut counts = Counts::new();
        for line in stdout.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let numbers: Vec<u64> =
                words.iter().skip(1).take(3).filter_map(|w| w.parse().ok()).collect();
            if let (Some(name), [a, b, c]) = (words.first(), numbers.as_slice()) {
                counts.insert((*name).to_owned(), [*a, *b, *c]);
            }
        }
        (output.status.code().unwrap(), counts, text)
    }

    /// Done cases of external, prepared, predicted and scored; the run must end well.
    fn done(&self, more: &[&str]) -> [u64; 4] {
        let (code, counts, text) = self.night(more);
        assert!(code == 0 || code == 4, "{text}");
        ["external", "prepared", "predicted", "scored"].map(|step| counts[step][0])
    }

    fn difference(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.at("nightly/difference.json")).unwrap()).unwrap()
    }

    /// The cases of a list of the difference, with what happened to them.
    fn listed(&self, list: &str) -> Vec<(String, String)> {
        let found = self.difference();
        let rows = found[list].as_array().unwrap().iter();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.map(|row| (text(row, "case_id"), text(row, "what"))).collect()
    }

    fn sql(&self, query: &str) -> String {
        let catalog = self.at("catalog");
        let out = run(&["sql", query, "--catalog", catalog.to_str().unwrap(), "--format", "csv"]);
        out.trim().lines().skip(1).collect::<Vec<_>>().join("\n")
    }

    fn image(&self, subject: &str) -> PathBuf {
        self.at(&format!("external/{subject}/dwi/{subject}_dwi.nii.gz"))
    }

    fn mask(&self, subject: &str) -> PathBuf {
        let name = format!(
            "external/derivatives/lesions/{subject}/dwi/{subject}_label-lesion_mask.nii.gz"
        );
        self.at(&name)
    }

    fn train(&self, seed: u64) {
        let data = format!("data={}", self.folder.path().display());
        let seed = format!("seed={seed}");
        let file = self.at("trainer.yaml");
        std::fs::write(&file, TRAINER).unwrap();
        run(&["run", file.to_str().unwrap(), "--progress", "none", "--set", &data, "--set", &seed]);
    }
}

/// Flips the lowest bit of the middle byte of a gzip file's content.
fn flip(path: &Path) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let at = 352 + (bytes.len() - 352) / 2;
    bytes[at] ^= 1;
    let file = std::fs::File::create(path).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    zipped.write_all(&bytes).unwrap();
    zipped.finish().unwrap();
}

/// Moves a folder and all names in it from one subject to another.
fn renamed(folder: &Path, from: &str, to: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().replace(from, to);
        let new = path.with_file_name(name);
        std::fs::rename(&path, &new).unwrap();
        if new.is_dir() {
            renamed(&new, from, to);
        }
    }
}

#[test]
fn each_change_makes_exactly_the_work_that_depends_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let nights = Nights { folder };
    let shape = ["--sites", "2", "--matrix", "24", "--slices", "8", "--broken", "0"];
    let external = nights.at("external");
    run(&[&["synth", external.to_str().unwrap(), "--cases", "12", "--seed", "5"], &shape[..]]
        .concat());
    // A case that comes later, out of another registry.
    let later = nights.at("later");
    run(&[&["synth", later.to_str().unwrap(), "--cases", "1", "--seed", "99"], &shape[..]].concat());

    // No model yet: told with what to do, and the cases are prepared all the same.
    let (code, counts, text) = nights.night(&[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("no model of a step `unet`") && counts["prepared"][0] == 12, "{text}");
    nights.train(1);
    let (code, counts, text) = nights.night(&[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(counts["prepared"], [0, 12, 0], "prepared before: {text}");
    assert_eq!((counts["predicted"], counts["scored"]), ([12, 0, 0], [12, 0, 0]), "{text}");
    assert!(text.contains("nothing to compare with"), "{text}");
    assert!(text.contains("warning: unet-"), "trained after other stages: {text}");
    assert!(nights.difference()["against"].is_null());

    // Unchanged. No image is opened: other bytes of the same size and time of change are not seen, but where all is hashed again.
    let image = nights.image("sub-0006");
    let whole = std::fs::read(&image).unwrap();
    let modified = std::fs::metadata(&image).unwrap().modified().unwrap();
    let torn = [&whole[..whole.len() / 2], &vec![0; whole.len() - whole.len() / 2]].concat();
    let write = |bytes: &[u8]| {
        std::fs::write(&image, bytes).unwrap();
        std::fs::File::options().write(true).open(&image).unwrap().set_modified(modified).unwrap();
    };
    write(&torn);
    assert_eq!(nights.done(&[]), [0; 4]);
    let found = nights.difference();
    assert_eq!(
        (&found["counts"]["rescored"], &found["alarms"]),
        (&0.into(), &Value::Array(vec![]))
    );
    assert!(found["against"]["run_id"].is_string());
    let (_, counts, text) = nights.night(&["rehash=true"]);
    assert_eq!((counts["external"], counts["prepared"]), ([1, 11, 0], [0, 11, 1]), "{text}");

    // An image; a mask, which the quality control of the prepared image reads too; a sidecar, which no stage reads; and the image
    // of before, whose outputs are there still.
    write(&whole);
    flip(&nights.image("sub-0001"));
    flip(&nights.mask("sub-0002"));
    let sidecar = nights.image("sub-0003").with_file_name("sub-0003_dwi.json");
    let text = std::fs::read_to_string(&sidecar).unwrap().replacen('{', "{\"Note\": 1, ", 1);
    std::fs::write(&sidecar, text).unwrap();
    assert_eq!(nights.done(&["rehash=true"]), [4, 2, 2, 2]);
    let what = [("1", "image"), ("2", "mask"), ("3", "sidecar or variables"), ("6", "image")];
    let what = what.map(|(n, what)| (format!("sub-000{n}"), what.to_owned()));
    assert_eq!(nights.listed("changed"), what);

    // A parameter of a stage; of the inference.
    assert_eq!(nights.done(&["steps.prepared.stages.normalize.peak=140"]), [0, 12, 12, 12]);
    assert_eq!(nights.done(&["steps.predicted.infer.threshold=0.3"]), [0, 0, 12, 12]);
    assert_eq!(nights.difference()["counts"]["rescored"], 12);

    // Another model: everything is inferred anew, nothing is prepared again. The same model as a file is the same model.
    let file = nights.at("first.safetensors").display().to_string();
    let catalog = nights.at("catalog").display().to_string();
    run(&["models", "export", "unet", &file, "--catalog", &catalog]);
    nights.train(2);
    assert_eq!(nights.done(&[]), [0, 0, 12, 12]);
    let models = nights.difference()["models"].clone();
    assert_ne!(models[0], models[1]);
    assert_eq!(nights.done(&[&format!("model={file}")]), [0; 4]);
    assert_eq!(nights.difference()["counts"]["rescored"], 12, "against the second model");

    // Deleted: marked, not forgotten, and left out.
    let gone = external.join("sub-0004");
    std::fs::rename(&gone, nights.at("kept")).unwrap();
    let (_, counts, text) = nights.night(&[]);
    assert!(text.contains("1 removed"), "{text}");
    assert_eq!((counts["external"], counts["scored"]), ([0, 11, 0], [0, 11, 0]), "{text}");
    let reason = "its files are gone".to_owned();
    assert_eq!(nights.listed("removed"), [("sub-0004".to_owned(), reason.clone())]);
    assert_eq!(nights.sql("SELECT excluded FROM cases WHERE case_id = 'sub-0004'"), reason);
    assert_eq!(nights.sql("SELECT count(*) FROM cases WHERE removed_at IS NOT NULL"), "1");
    assert_eq!(nights.sql("SELECT count(*) FROM scored"), "11");

    // There again, with its outputs; and a new case.
    std::fs::rename(nights.at("kept"), &gone).unwrap();
    renamed(&later, "sub-0001", "sub-0099");
    std::fs::rename(later.join("sub-0099"), external.join("sub-0099")).unwrap();
    let masks = "derivatives/lesions/sub-0099";
    std::fs::rename(later.join(masks), external.join(masks)).unwrap();
    assert_eq!(nights.done(&[]), [2, 1, 1, 1]);
    let new = [("sub-0004", format!("back: {reason} then")), ("sub-0099", "new".to_owned())];
    assert_eq!(nights.listed("new"), new.map(|(id, what)| (id.to_owned(), what)));
    assert!(nights.listed("removed").is_empty(), "told once");

    // A broken one: a failure with its reason, and an alarm that the exit code tells.
    let image = nights.image("sub-0005");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let (code, counts, text) = nights.night(&[]);
    assert_eq!(code, 4, "{text}");
    assert_eq!(counts["scored"], [0, 12, 0], "{text}");
    let failed = nights.listed("failed");
    assert!(failed.len() == 1 && failed[0].0 == "sub-0005", "{failed:?}");
    assert!(nights.listed("removed").is_empty(), "it is not removed, it is broken");
    assert_eq!(nights.sql("SELECT max(exit_code) FROM runs WHERE status = 'done'"), "4");
    let page = std::fs::read_to_string(nights.at("nightly/difference.html")).unwrap();
    assert!(page.contains("Alarm (failed)") && page.contains("sub-0005"), "the page tells");
}
