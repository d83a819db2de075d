//! A training that is killed, and trainings that go on from another: what comes out, as files and rows.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{TORCULA, run};

/// Steps are few and small; the state is saved after each.
const PIPELINE: &str = r#"
torcula: 1
name: small
seed: 5
vars: { data: null }
catalog: ${data}/catalog
artifacts: ${data}/derivatives
steps:
  registry: { ingest: { bids: "${data}/registry", require_truth: true } }
  split: { from: SELECT * FROM cases, split: { parts: { train: 0.6, val: 0.2, test: 0.2 } } }
  shards: { from: split, stages: [{ resample: { shape: [32, 32, 8] } }], to: shards }
  base:
    from: shards
    train:
      levels: 2
      filters: 4
      epochs: 3
      batch: 2
      draws: 3
      accumulate: 2
      ema: 0.9
      clip_norm: 1.0
      optimizer: sgd
      augment: [flip, gamma]
      patch: [24, 24, 8]
      device: cpu
      checkpoint_s: 0
  adapted:
    from: shards
    train: { fine_tune: base, freeze: [stem, down0], epochs: 2, batch: 2, augment: [flip], device: cpu }
"#;

/// A folder with a registry and the pipeline; the same bytes each time.
fn work() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let registry = folder.path().join("registry");
    let shape = ["--cases", "12", "--sites", "2", "--seed", "3", "--matrix", "32", "--slices", "8"];
    run(&[&["synth", registry.to_str().unwrap()], &shape[..], &["--broken", "0"]].concat());
    std::fs::write(folder.path().join("small.yaml"), PIPELINE).unwrap();
    folder
}

fn arguments(folder: &Path) -> Vec<String> {
    let file = folder.join("small.yaml").display().to_string();
    let data = format!("data={}", folder.display());
    ["run", &file, "--set", &data, "--progress", "none"].map(str::to_owned).to_vec()
}

fn finish(folder: &Path, more: &[&str]) -> String {
    let arguments = arguments(folder);
    run(&[&arguments.iter().map(String::as_str).collect::<Vec<_>>(), more].concat())
}

/// The folder of the only model of a step.
fn model(folder: &Path, step: &str) -> Option<std::path::PathBuf> {
    let models = std::fs::read_dir(folder.join("derivatives/models")).ok()?;
    let of_step = |name: &str| name.starts_with(&format!("{step}-"));
    models.flatten().find(|e| of_step(&e.file_name().to_string_lossy())).map(|e| e.path())
}

/// The metadata of a safetensors file, and a tensor's bytes by name.
fn read(path: &Path) -> Option<(Value, impl Fn(&str) -> Vec<u8> + use<>)> {
    let bytes = std::fs::read(path).ok()?;
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).ok()?);
    let (header, data) = (serde_json::from_slice::<Value>(header).ok()?, data.to_vec());
    let metadata = header["__metadata__"].clone();
    let tensor = move |name: &str| {
        let place = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        data[place(0)..place(1)].to_vec()
    };
    Some((metadata, tensor))
}

/// Whole epochs and batches of the next one that a state holds.
fn progress(folder: &Path) -> Option<(u64, u64)> {
    let (metadata, _) = read(&model(folder, "base")?.join("last.safetensors"))?;
    let partial: Value = serde_json::from_str(metadata["torcula.partial_epoch"].as_str()?).ok()?;
    Some((metadata["torcula.epoch"].as_str()?.parse().ok()?, partial["batches"].as_u64()?))
}

/// Starts the run and kills it once its training is past this place.
fn kill_after(folder: &Path, place: (u64, u64)) {
    let mut child = Command::new(TORCULA)
        .args(arguments(folder))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while progress(folder).is_none_or(|found| found < place) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was killed");
        assert!(began.elapsed() < Duration::from_secs(300), "no training after 300 s");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_in_mid_epoch_a_training_ends_with_the_same_bytes() {
    let (whole, killed) = (work(), work());
    finish(whole.path(), &[]);
    let mut in_mid_epoch = 0;
    for place in [(0, 2), (0, 6), (1, 4)] {
        kill_after(killed.path(), place);
        in_mid_epoch += u64::from(progress(killed.path()).unwrap().1 > 0);
    }
    assert!(in_mid_epoch > 0, "no kill hit the middle of an epoch");
    finish(killed.path(), &[]);
    for step in ["base", "adapted"] {
        let bytes = |folder: &Path| {
            std::fs::read(model(folder, step).unwrap().join("model.safetensors")).unwrap()
        };
        assert!(bytes(whole.path()) == bytes(killed.path()), "{step} has other bytes");
    }
}

#[test]
fn a_fine_tuning_starts_from_its_parent_and_says_so() {
    let work = work();
    let folder = work.path();
    finish(folder, &[]);
    let [base, adapted] = ["base", "adapted"].map(|step| model(folder, step).unwrap());
    let tensors = |model: &Path| read(&model.join("model.safetensors")).unwrap().1;
    let (of_base, of_adapted) = (tensors(&base), tensors(&adapted));
    for frozen in ["stem.weight", "down0.0.conv.weight", "down0.1.norm.scale"] {
        assert!(of_base(frozen) == of_adapted(frozen), "{frozen} has moved");
    }
    for trained in ["down1.0.conv.weight", "head.conv.weight", "down0.0.norm.mean"] {
        assert!(of_base(trained) != of_adapted(trained), "{trained} has not moved");
    }
    let catalog = folder.join("catalog");
    let ask = |query: &str| {
        let arguments = ["sql", query, "--catalog", catalog.to_str().unwrap(), "--format", "csv"];
        run(&arguments).lines().nth(1).unwrap_or_default().to_owned()
    };
    let name = |model: &Path| model.file_name().unwrap().to_string_lossy().into_owned();
    let parent = ask("SELECT parent FROM models WHERE name = 'adapted'");
    assert_eq!(parent, name(&base));
    let tree = run(&["lineage", &name(&adapted), "--catalog", catalog.to_str().unwrap()]);
    assert!(tree.contains(&parent), "{tree}");

    // The parent's parameters are the child's too: both are trained anew. Three seeds are three models.
    let change = ["--set", "steps.base.train.epochs=1", "--set", "steps.base.train.seeds=3"];
    let text = finish(folder, &change);
    assert!(text.contains("over 3 seeds") && text.contains('±'), "{text}");
    let counts = "SELECT sum(CASE WHEN name = 'base' THEN 1 ELSE 0 END), \
                  sum(CASE WHEN name = 'adapted' THEN 1 ELSE 0 END), \
                  count(DISTINCT blake3), count(DISTINCT seed) FROM models";
    assert_eq!(ask(counts), "4,2,6,3");
    let again = finish(folder, &change);
    assert!(again.contains("over 3 seeds") && !again.contains("best validation DSC"), "{again}");
    assert_eq!(ask(counts), "4,2,6,3");
}

#[test]
fn trainings_side_by_side_end_with_the_bytes_of_each_alone() {
    const SIDE_BY_SIDE: &str = r#"
torcula: 1
name: pair
seed: 5
vars: { data: null }
catalog: ${data}/catalog
artifacts: ${data}/derivatives
steps:
  registry: { ingest: { bids: "${data}/registry", require_truth: true } }
  split: { from: SELECT * FROM cases, split: { parts: { train: 0.6, val: 0.2, test: 0.2 } } }
  shards: { from: split, stages: [{ resample: { shape: [32, 32, 8] } }], to: shards }
  net:
    matrix: { rate: [0.003, 0.01] }
    from: shards
    train: { levels: 2, filters: 4, epochs: 4, batch: 2, draws: 4, dropout: 0.2, learning_rate: "${rate}", device: cpu, threads: 1 }
"#;
    let (alone, together) = (work(), work());
    let train = |folder: &Path, jobs: &str| {
        std::fs::write(folder.join("small.yaml"), SIDE_BY_SIDE).unwrap();
        let arguments = arguments(folder);
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        *arguments.last_mut().unwrap() = "json";
        run(&[&arguments[..], &["--jobs", jobs]].concat())
    };
    // Where one began and ended, among the lines that the run told.
    let overlap = |text: &str| {
        let at = |event: &str, step: &str| {
            let told = |line: &str| {
                let line: Value = serde_json::from_str(line).unwrap_or_default();
                line["event"] == event && line["step"] == step
            };
            text.lines().position(told).unwrap_or_else(|| panic!("no {event} of {step}: {text}"))
        };
        at("begin", "net_rate0_01") < at("end", "net_rate0_003")
    };
    assert!(!overlap(&train(alone.path(), "1")), "one after the other on one core");
    assert!(overlap(&train(together.path(), "2")), "at once on two");
    for step in ["net_rate0_003", "net_rate0_01"] {
        let bytes = |folder: &Path| {
            std::fs::read(model(folder, step).unwrap().join("model.safetensors")).unwrap()
        };
        assert!(bytes(alone.path()) == bytes(together.path()), "{step} has other bytes");
    }
}
