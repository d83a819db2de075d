//! Identifiers planted wherever a registry can hold some, a whole run over it, and a search of everything that the run left.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use torcula::formats::privacy::fields;

use super::support::{TORCULA, files, succeed, text};

const KEY: &str = "5d41402abc4b2a76b9719d911017c592-planted-key";

/// A registry, and what must not come out of it.
struct Planted {
    folder: TempDir,
    identifiers: Vec<String>,
}

impl Planted {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A name that no other text holds.
    fn name(&mut self) -> String {
        let n = self.identifiers.len();
        let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
        let name = format!("Qz{}{}vex", letter(n / 26), letter(n));
        self.keep(name)
    }

    /// A number as records have it.
    fn number(&mut self) -> String {
        let number = format!("47{:06}", 100_003 + 7919 * self.identifiers.len() % 900_000);
        self.keep(number)
    }

    fn date(&mut self) -> String {
        let n = self.identifiers.len();
        let date = format!("{}-{:02}-{:02}", 1931 + n % 60, 1 + n % 12, 1 + n % 28);
        self.keep(date)
    }

    fn keep(&mut self, identifier: String) -> String {
        assert!(!self.identifiers.contains(&identifier), "{identifier}");
        self.identifiers.push(identifier.clone());
        identifier
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn new() -> Self {
        let mut planted = Self { folder: tempfile::tempdir().unwrap(), identifiers: Vec::new() };
        let synth = tempfile::tempdir().unwrap();
        let from = synth.path().join("bids");
        let args =
            ["synth", from.to_str().unwrap(), "--cases", "18", "--sites", "2", "--seed", "5"];
        succeed(&[&args[..], &["--matrix", "24", "--slices", "8"]].concat());
        let names: Vec<String> = (0..18).map(|_| planted.name()).collect();
        planted.copy(&from, &names);
        planted.fill_sidecars();
        planted.fill_headers();
        planted.fill_table(&from, &names);
        planted.break_pieces(&names);
        planted.add_manifest();
        planted
    }

    /// The synthetic registry under people's names; two of them with sessions, a name and a date.
    fn copy(&mut self, from: &Path, names: &[String]) {
        let sessions = [self.name(), self.date().replace('-', "")];
        self.identifiers.push(sessions[1].clone());
        for path in files(from) {
            let mut to = path.strip_prefix(from).unwrap().to_string_lossy().into_owned();
            for (i, name) in names.iter().enumerate() {
                let old = format!("sub-{:04}", i + 1);
                if let Some(session) = sessions.get(i) {
                    let new = format!("sub-{name}/ses-{session}/dwi/sub-{name}_ses-{session}_");
                    to = to.replace(&format!("{old}/dwi/{old}_"), &new);
                }
                to = to.replace(&old, &format!("sub-{name}"));
            }
            self.put(&format!("internal/{to}"), std::fs::read(&path).unwrap());
        }
    }

    fn images(&self) -> Vec<PathBuf> {
        let mut images = files(&self.path().join("internal"));
        images.retain(|p| p.to_string_lossy().ends_with("_dwi.nii.gz"));
        images
    }

    /// Every field that is known to identify, with a value of its own.
    fn fill_sidecars(&mut self) {
        let known: Vec<&str> = fields::KNOWN.iter().copied().take(54).collect();
        let images = self.images();
        for (i, image) in images.iter().enumerate() {
            let path = image.with_extension("").with_extension("json");
            let mut sidecar: Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for field in known.iter().skip(i).step_by(images.len()) {
                sidecar[*field] = match field.ends_with("Date") {
                    true => json!(self.date()),
                    false => json!(self.name()),
                };
            }
            sidecar["AcquisitionDateTime"] = json!(format!("{}T10:11:12.5", self.date()));
            sidecar["Nested"] = json!({ "Deep": [self.number()] });
            std::fs::write(path, sidecar.to_string()).unwrap();
        }
    }

    /// Free text and an extension in the headers of images.
    fn fill_headers(&mut self) {
        for image in self.images().iter().take(8) {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(image).unwrap();
            flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).unwrap();
            for (at, length) in [(14, 18), (148, 80), (228, 24), (328, 16)] {
                let name = self.name();
                bytes[at..at + length].fill(0);
                bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            }
            let mut extension = vec![1, 0, 0, 0];
            extension.extend(32_i32.to_le_bytes());
            extension.extend(4_i32.to_le_bytes());
            extension.extend(self.name().as_bytes());
            extension.resize(4 + 32, 0);
            bytes[108..112].copy_from_slice(&384_f32.to_le_bytes());
            bytes.splice(348..352, extension);
            let file = std::fs::File::create(image).unwrap();
            let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            packed.write_all(&bytes).unwrap();
            packed.finish().unwrap();
        }
    }

    /// Columns that identify, and rows that cannot be used.
    fn fill_table(&mut self, from: &Path, names: &[String]) {
        let table = std::fs::read_to_string(from.join("participants.tsv")).unwrap();
        let mut lines = table.lines();
        let columns = lines.next().unwrap();
        let mut table = format!("{columns}\tname\tMRN\tdob\tnotes\tkin\tscan_date\tward\n");
        for (line, name) in lines.zip(names) {
            let id = line.split('\t').next().unwrap();
            let line = line.replace(id, &format!("sub-{name}"));
            let (mrn, other) = (self.number(), self.number());
            table += &format!(
                "{line}\t{}\t{mrn}\t{}\tseen by Dr {} , see {other}\t{}\t{}\tW3\n",
                self.name(),
                self.date(),
                self.name(),
                self.name(),
                self.date(),
            );
        }
        let nothing = "\t".repeat(columns.matches('\t').count() + 7);
        table += &format!("../{} {}{nothing}\n", self.name(), self.name());
        table += &format!("sub-{}{nothing}\n", self.name());
        table += &format!("sub-{}\tragged\n", self.name());
        table += &format!("sub-{}{nothing}{}\n", names[17], self.name());
        self.put("internal/participants.tsv", table);
    }

    /// Files whose errors quote what is in them or what they are called.
    fn break_pieces(&mut self, names: &[String]) {
        let dwi = |name: &str, end: &str| format!("internal/sub-{name}/dwi/sub-{name}_{end}");
        let text = format!("\"{} {}\"", self.name(), self.number());
        self.put(&dwi(&names[2], "dwi.json"), text);
        let text = format!("{{\"PatientName\": \"{}\", \"{}\"", self.name(), self.name());
        self.put(&dwi(&names[3], "dwi.json"), text);
        let text = format!("0 {}", self.name());
        self.put(&dwi(&names[4], "dwi.bval"), text);
        let image = self.path().join(dwi(&names[5], "dwi.nii.gz"));
        let bytes = std::fs::read(&image).unwrap();
        std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
        let text = format!("{} was here", self.name());
        self.put(&dwi(&names[6], "dwi.nii.gz"), text);
        // A link out of the folder, to a file that is called after somebody.
        let outside = self.name();
        let outside = self.put(&format!("elsewhere/{outside}.nii.gz"), b"x");
        let image = self.path().join(dwi(&names[7], "dwi.nii.gz"));
        std::fs::remove_file(&image).unwrap();
        std::os::unix::fs::symlink(outside, image).unwrap();
        // Another's file, and two that could be the image.
        let other = format!("internal/sub-{}/dwi/sub-{}_dwi.nii.gz", names[8], self.name());
        self.put(&other, b"x");
        let second = dwi(&names[9], &format!("acq-{}_dwi.nii.gz", self.name()));
        let first = self.path().join(dwi(&names[9], "dwi.nii.gz"));
        self.put(&second, std::fs::read(first).unwrap());
        let text = format!("{}\t{}\n1\t2\n", self.name(), self.name());
        self.put(&format!("internal/sub-{0}/sub-{0}_sessions.tsv", names[10]), text);
        // A mask on another grid, the image of somebody else, a folder that cannot be named so.
        let image = |i: usize| self.path().join(dwi(&names[i], "dwi.nii.gz"));
        std::fs::copy(image(12), image(13)).unwrap();
        let mask = format!(
            "internal/derivatives/lesions/sub-{0}/dwi/sub-{0}_label-lesion_mask.nii.gz",
            names[14]
        );
        self.put(&mask, std::fs::read(synth_of(32)).unwrap());
        let folder = format!("internal/sub-{} {}/dwi/x_dwi.nii.gz", self.name(), self.name());
        self.put(&folder, b"x");
    }

    /// A manifest beside images of its own.
    fn add_manifest(&mut self) {
        let image = std::fs::read(synth_of(24)).unwrap();
        let (good, bad, out) = (self.name(), self.name(), self.name());
        self.put(&format!("table/{good}.nii.gz"), &image);
        let words =
            [self.name(), self.number(), self.name(), self.name(), self.name(), self.date()];
        let [id, mrn, missing, odd, dirty, date] = words;
        let table = format!(
            "case_id,subject_id,session_id,image,truth,site,mrn,remark,seen\n\
             {id}_1,{id},1,{good}.nii.gz,{missing}.nii.gz,north,{mrn},ask {dirty},{date}\n\
             \"{odd} x\",p2,1,{good}.nii.gz,,north,,,\n\
             p3,p3,1,{bad}.nii.gz,,north,,,\n\
             p4,p4,1,../elsewhere/{out}.nii.gz,,north,,,\n\
             p5,p5\n"
        );
        self.put(&format!("elsewhere/{out}.nii.gz"), b"x");
        self.put("table/cases.csv", table);
    }

    /// Runs the program with the key in its environment.
    fn torcula(args: &[&str]) -> Output {
        Command::new("sh")
            .args(["-c", "umask 077; exec \"$@\"", "sh", TORCULA])
            .args(args)
            .env("PLANTED_KEY", KEY)
            .output()
            .unwrap()
    }

    fn pipeline(&self, privacy: &str) -> String {
        let yaml = format!(
            "torcula: 1\nname: private\nseed: 3\ncatalog: {0}/catalog\nartifacts: {0}/derivatives\n\
             on_failure: {{ max_share: 1.0 }}\nsteps:\n  \
             registry: {{ ingest: {{ bids: {0}/internal, source: internal{privacy} }} }}\n  \
             listed: {{ ingest: {{ manifest: {0}/table/cases.csv, source: listed{privacy} }} }}\n  \
             adults: {{ from: SELECT * FROM cases, cohort: {{ exclude: [{{ reason: child, when: age_y < 18 }}] }} }}\n  \
             prepared:\n    from: adults\n    stages: [{{ qc: {{ min_shape: [8, 8, 4], max_spacing_mm: [20, 20, 40] }} }}, skull_strip, normalize]\n    keep: [image, brain]\n  \
             split: {{ from: prepared, split: {{ by: subject_id, parts: {{ train: 0.6, test: 0.4 }} }} }}\n  \
             shards: {{ from: SELECT * FROM split WHERE truth_uri IS NOT NULL, stages: [{{ resample: {{ shape: [16, 16, 8] }} }}], to: {{ shards: {{ samples_per_shard: 4 }} }} }}\n  \
             report:\n    from: split\n    report:\n      html: {0}/report.html\n      run: true\n      strata: [vendor, centre]\n      sections:\n        - title: Cohorts\n          show:\n            - flow: {{ from: adults_flow, start: All, end: Adults, parts: split }}\n            - table: {{ from: \"SELECT case_id, subject_id, session_id, variables, findings FROM cases\" }}\n            - table: {{ from: \"SELECT * FROM failures\" }}\n",
            self.path().display()
        );
        let path = self.put("pipeline.yaml", yaml);
        path.to_string_lossy().into_owned()
    }

    /// Runs everything, and gathers all that it said and left: name of the place, text.
    fn run(&self, privacy: &str) -> Vec<(String, Vec<u8>)> {
        let file = self.pipeline(privacy);
        let catalog = self.path().join("catalog").to_string_lossy().into_owned();
        let mut said = Vec::new();
        let mut ask = |args: &[&str], must: bool| {
            let output = Self::torcula(args);
            assert!(!must || output.status.success(), "{args:?}: {}", text(&output));
            said.push((format!("{args:?}"), [&output.stdout[..], &output.stderr[..]].concat()));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        ask(&["run", &file], true);
        if !privacy.is_empty() {
            let again = ["--set", "steps.registry.ingest.rehash=true", "--to", "registry,listed"];
            ask(&[&["run", file.as_str()][..], &again].concat(), true);
        }
        ask(&["explain", &file, "--verbose"], true);
        ask(&["check", &file], true);
        ask(&["cohort", &file], true);
        ask(&["failures", "--catalog", &catalog], true);
        ask(&["status", "--catalog", &catalog], true);
        for relation in [
            "cases",
            "quality",
            "splits",
            "artifacts",
            "runs",
            "failures",
            "models",
            "scores",
            "curation",
            "prepared",
            "split",
            "shards",
            "adults_excluded",
        ] {
            let query = format!("SELECT * FROM {relation}");
            ask(&["sql", &query, "--pipeline", &file, "--format", "json"], true);
        }
        let ids = ask(
            &["sql", "SELECT case_id FROM cases", "--pipeline", &file, "--format", "csv"],
            true,
        );
        for id in ids.lines().skip(1).take(3) {
            ask(&["lineage", id, "--catalog", &catalog], true);
        }
        // A table that cannot be read at all ends the run, with a message.
        let table = self.path().join("internal/participants.tsv");
        let good = std::fs::read(&table).unwrap();
        let without_head = good.splitn(2, |b| *b == b'\n').nth(1).unwrap();
        std::fs::write(&table, without_head).unwrap();
        ask(&["run", &file], false);
        std::fs::write(&table, good).unwrap();
        for place in ["catalog", "derivatives", "report.html", "report-files"] {
            let place = self.path().join(place);
            let found = if place.is_file() { vec![place] } else { files(&place) };
            assert!(!found.is_empty());
            for path in found {
                said.push((
                    path.to_string_lossy().into_owned(),
                    path.to_string_lossy().as_bytes().to_vec(),
                ));
                let bytes = std::fs::read(&path).unwrap();
                let mut plain = Vec::new();
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
                }
                said.push((path.to_string_lossy().into_owned(), bytes));
                said.push((format!("{} decompressed", path.display()), plain));
            }
        }
        said
    }

    /// What was made under a umask of 077 is for its owner alone.
    fn is_private(&self) {
        use std::os::unix::fs::PermissionsExt;
        for place in ["catalog", "derivatives", "report-files"] {
            for path in files(&self.path().join(place)) {
                for part in path.ancestors().take_while(|p| p.starts_with(self.path().join(place)))
                {
                    let mode = part.metadata().unwrap().permissions().mode() & 0o777;
                    assert!(mode.trailing_zeros() >= 6, "{mode:o} {}", part.display());
                }
            }
        }
    }

    /// Whoever has the key finds the case behind a failure, and nobody else.
    fn is_revealed_with_the_key(&self) {
        let file = self.path().join("pipeline.yaml").to_string_lossy().into_owned();
        let catalog = self.path().join("catalog").to_string_lossy().into_owned();
        let query = "SELECT case_id FROM failures WHERE reason LIKE '%b-value'";
        let id = succeed(&["sql", query, "--catalog", &catalog, "--format", "csv"]);
        let id = id.lines().nth(1).unwrap();
        let told = Self::torcula(&["reveal", &file, id]);
        assert!(text(&told).contains(&format!("sub-{}", self.identifiers[4])), "{}", text(&told));
        let without = Command::new(TORCULA).args(["reveal", &file, id]).output().unwrap();
        assert!(without.status.code() == Some(2) && text(&without).contains("PLANTED_KEY"));
        assert!(!text(&without).contains(&self.identifiers[4]));
    }

    /// Which identifiers stand where.
    fn found(&self, said: &[(String, Vec<u8>)]) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for (place, bytes) in said {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            for identifier in &self.identifiers {
                if let Some(at) = text.find(&identifier.to_lowercase()) {
                    let start = (0..=at.saturating_sub(60))
                        .rev()
                        .find(|i| text.is_char_boundary(*i))
                        .unwrap();
                    let context: String = text[start..].chars().take(120).collect();
                    found.insert((identifier.clone(), format!("{place}: …{context}…")));
                }
            }
        }
        found
    }
}

/// A mask of a synthetic registry, with so many voxels along a side.
fn synth_of(matrix: usize) -> PathBuf {
    let folder = tempfile::tempdir().unwrap().keep();
    let matrix = matrix.to_string();
    let args = ["synth", folder.to_str().unwrap(), "--cases", "1", "--sites", "1", "--seed", "9"];
    succeed(&[&args[..], &["--matrix", &matrix, "--slices", "8"]].concat());
    let found =
        files(&folder).into_iter().find(|p| p.to_string_lossy().ends_with("lesion_mask.nii.gz"));
    found.unwrap()
}

#[test]
fn planted_identifiers_are_nowhere_and_without_a_policy_everywhere() {
    let planted = Planted::new();
    assert!(planted.identifiers.len() >= 200, "{}", planted.identifiers.len());
    let policy = ", privacy: { key: { env: PLANTED_KEY }, shift_dates: true, hash: [AccessionNumber, MRN], keep: [ward] }";
    let said = planted.run(policy);
    if std::env::var_os("DUMP").is_some() {
        for (place, b) in &said {
            if place.starts_with('[') {
                println!("== {place}\n{}", String::from_utf8_lossy(b));
            }
        }
        panic!()
    }
    let found = planted.found(&said);
    assert!(found.is_empty(), "{} found: {found:#?}", found.len());
    planted.is_private();
    planted.is_revealed_with_the_key();
    let everything: String = said.iter().map(|(_, b)| String::from_utf8_lossy(b)).collect();
    assert!(!everything.contains(KEY), "the key was told");
    // What is to be kept is kept: hashes, shifted dates, the ward, and reasons that can be understood.
    for kept in [
        "\\\"MRN\\\":\\\"",
        "\\\"ward\\\":\\\"W3\\\"",
        "scan_date",
        "not a JSON object",
        "is not a b-value",
        "leads out of",
    ] {
        assert!(everything.contains(kept), "{kept} is gone");
    }
    for place in ["catalog", "derivatives", "report.html", "report-files"] {
        let place = planted.path().join(place);
        let removed = if place.is_dir() {
            std::fs::remove_dir_all(&place)
        } else {
            std::fs::remove_file(&place)
        };
        removed.unwrap();
    }
    let without: BTreeSet<String> =
        planted.found(&planted.run("")).into_iter().map(|f| f.0).collect();
    println!(
        "without a policy {} of {} identifiers are found",
        without.len(),
        planted.identifiers.len()
    );
    assert!(without.len() > 80, "{}", without.len());
}
