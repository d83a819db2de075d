//! The shipped pipelines are good, and each bad file under `tests/golden/pipeline` gives the text beside it. `TORCULA_BLESS=1`
//! rewrites the texts, `TORCULA_WRITE_SCHEMAS=1` the schema.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use super::*;
use crate::engine::Slot;
use crate::stages::StageSpec;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    found.sort();
    found
}

fn good(text: &str, sets: &[(&str, &str)]) -> Pipeline {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load_text("test.yaml", text, &sets).map_err(|d| d.to_string()).unwrap()
}

fn demo(sets: &[(&str, &str)]) -> Pipeline {
    good(&std::fs::read_to_string(root("pipelines/demo.yaml")).unwrap(), sets)
}

#[test]
fn shipped_pipelines_are_good_and_mean_the_same_when_resolved() {
    for path in files("pipelines") {
        let pipeline = load(&path, &[]).map_err(|d| d.to_string()).unwrap();
        let again = good(&pipeline.resolved.to_string(), &[]);
        assert_eq!(again.hash, pipeline.hash, "{}", path.display());
        assert_eq!(again.steps, pipeline.steps);
        assert!(!explain::outline(&pipeline).is_empty());
    }
}

#[test]
fn bad_files_give_the_golden_texts() {
    for path in files("tests/golden/pipeline") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let found = load_text(&name, &text, &[]).map(|p| p.name).unwrap_err();
        let found_text = found.render(false);
        let golden = path.with_extension("txt");
        if std::env::var_os("TORCULA_BLESS").is_some() {
            std::fs::write(&golden, &found_text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(found_text == expected, "{name} gives\n{found_text}");
        assert_eq!(found.to_json().as_array().map(Vec::len), Some(found.count()));
    }
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = root(schema::SCHEMA_FILE);
    if std::env::var_os("TORCULA_WRITE_SCHEMAS").is_some() {
        std::fs::write(&path, schema::schema_text()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "run the tests once with TORCULA_WRITE_SCHEMAS=1";
    assert!(written == schema::schema_text(), "{} is not up to date: {hint}", path.display());
}

#[test]
fn defaults_are_filled_in() {
    let text = "torcula: 1\nname: n\ncatalog: d/catalog\nsteps:\n  r: { ingest: { bids: raw } }\n  \
                p: { from: r, stages: [qc, skull_strip, n4] }\n  q: { from: p, stages: [qc] }";
    let pipeline = good(text, &[]);
    assert_eq!(pipeline.artifacts, Path::new("d/derivatives/torcula"));
    assert_eq!(pipeline.on_failure.max_share, Some(0.25));
    assert_eq!(pipeline.timeout_s.to_bits(), 1800.0_f64.to_bits());
    let Action::Ingest(ingest) = &pipeline.steps[0].action else { panic!() };
    assert_eq!(ingest.source, "r");
    let keep = |n: usize| match &pipeline.steps[n].action {
        Action::Stages(stages) => stages.keep.clone(),
        _ => Vec::new(),
    };
    assert_eq!(keep(1), [Slot::Image, Slot::Brain], "the bias field is kept on request only");
    assert_eq!(keep(2), [], "a step that changes nothing writes nothing");
}

#[test]
fn steps_are_ordered_by_what_they_need() {
    let text = "torcula: 1\nname: n\ncatalog: c\nsteps:\n  b: { from: a, stages: [qc] }\n  \
                a: { from: 'SELECT * FROM cases', stages: [qc] }\n  \
                good: { from: \"SELECT b.* FROM b JOIN quality USING (case_id)\", stages: [qc] }\n  \
                r: { ingest: { bids: raw } }\n";
    let pipeline = good(text, &[]);
    let names: Vec<_> = pipeline.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["r", "a", "b", "good"]);
    let upstream = |name: &str| pipeline.step(name).unwrap().upstream.clone();
    assert_eq!(upstream("a"), ["r"]);
    assert_eq!(upstream("good"), ["b", "a"], "it reads what they wrote to `quality`");
    let Source::Sql { steps, .. } = &pipeline.step("good").unwrap().from else { panic!() };
    assert_eq!(steps, &["b"]);
}

#[test]
fn an_overfitting_split_is_one_part_that_stands_for_all() {
    let text = std::fs::read_to_string(root("pipelines/isles22.yaml")).unwrap();
    let pipeline = good(&text, &[("overfit", "true")]);
    let Action::Split(split) = &pipeline.step("split").unwrap().action else { panic!() };
    assert_eq!((split.parts.len(), split.parts["all"].number()), (1, Some(1.0)));
    let Action::Train(train) = &pipeline.step("unet").unwrap().action else { panic!() };
    assert_eq!((train.train_part.as_str(), train.val_part.as_str()), ("all", "all"));
    let part = Source::Step { name: "split".to_owned(), part: Some("all".to_owned()) };
    assert_eq!(pipeline.step("predicted").unwrap().from, part);
    assert_ne!(pipeline.hash, good(&text, &[("overfit", "false")]).hash);
}

#[test]
fn what_images_went_through_is_told_where_they_came_one_way() {
    let stages = |from: &str| {
        let text = format!(
            "torcula: 1\nname: n\ncatalog: c\nsteps:\n  registry: {{ ingest: {{ bids: raw }} }}\n  \
             stripped: {{ from: registry, stages: [skull_strip] }}\n  \
             prepared: {{ from: stripped, stages: [normalize], keep: [image] }}\n  \
             split: {{ from: prepared, split: {{ parts: {{ a: 0.5, b: 0.5 }} }} }}\n  \
             shards: {{ from: \"{from}\", stages: [resample], to: shards }}\n"
        );
        let pipeline = good(&text, &[]);
        let stages = pipeline.stages_of(pipeline.step("shards").unwrap());
        stages.map(|stages| stages.iter().map(StageSpec::name).collect::<Vec<_>>())
    };
    let both = Some(vec!["skull_strip", "normalize"]);
    assert_eq!(stages("split"), both);
    assert_eq!(stages("SELECT p.*, s.part FROM prepared p JOIN split s USING (case_id)"), both);
    assert_eq!(stages("SELECT * FROM stripped"), Some(vec!["skull_strip"]));
    assert_eq!(stages("SELECT c.* FROM cases c JOIN quality q USING (case_id)"), Some(vec![]));
    // Raw images or stripped ones: only the query knows.
    assert_eq!(stages("SELECT c.* FROM cases c JOIN stripped s USING (case_id)"), None);
    assert_eq!(stages("SELECT c.* FROM cases c JOIN artifacts a USING (case_id)"), None);
}

const GRID: &str = "torcula: 1\nname: n\ncatalog: c\nseed: 7\nvars: { seeds: [1, 2] }\nsteps:\n  \
    registry: { ingest: { bids: raw } }\n  \
    subsample: { from: registry, split: { nested: { n50: 50, n100: 100 } } }\n  \
    learn: { matrix: { set: [n50, n100] }, from: { subsample: '${set}' }, split: { parts: { train: 0.8, val: 0.2 } } }\n  \
    learn_own: { part_of: { learn: { set: own } }, from: registry, split: { parts: { train: 0.5, val: 0.5 } } }\n  \
    shards: { from: registry, stages: [resample], to: shards }\n  \
    unet:\n    matrix: { set: { n50: { draws: 8 }, n100: { draws: 4 }, own: { draws: 1 } }, seed: '${seeds}' }\n    \
    seed: ${seed}\n    from: SELECT shards.*, p.part FROM shards JOIN learn_${set} p USING (case_id)\n    \
    train: { draws: '${set.draws}' }\n  \
    predicted: { matrix: { set: [n50, n100, own], seed: '${seeds}' }, from: learn, infer: { model: unet } }\n  \
    all: { from: SELECT * FROM predicted, cohort: }\n";

#[test]
fn a_matrix_becomes_steps_that_find_each_other() {
    let pipeline = good(GRID, &[]);
    let step = |name: &str| pipeline.step(name).unwrap();
    let train = |name: &str| match &step(name).action {
        Action::Train(train) => train.params.draws,
        _ => panic!("{name}"),
    };
    assert_eq!([train("unet_n50_seed1"), train("unet_own_seed2")], [8, 1]);
    assert_eq!(
        [step("unet_n50_seed1").seed, step("unet_n50_seed2").seed, step("shards").seed],
        [1, 2, 7]
    );
    let Action::Infer(infer) = &step("predicted_n100_seed2").action else { panic!() };
    assert_eq!(infer.model, "unet_n100_seed2", "the network of the same values");
    let from = |name: &str| Source::Step { name: name.to_owned(), part: None };
    assert_eq!(step("predicted_n100_seed2").from, from("learn_n100"), "of fewer parameters");
    assert_eq!(
        step("predicted_own_seed1").from,
        from("learn_own"),
        "of a step that says where it belongs"
    );
    let part = Source::Step { name: "subsample".to_owned(), part: Some("n50".to_owned()) };
    assert_eq!(step("learn_n50").from, part);
    assert_eq!(step("all").upstream.len(), 6, "a query reads all of them");
    let upstream = &step("unet_n50_seed1").upstream;
    assert_eq!(upstream, &["learn_n50", "shards"], "and one that names one of them reads that");
}

#[test]
fn the_steps_of_a_matrix_are_one_relation_and_resume_alone() {
    let pipeline = good(GRID, &[]);
    let unions: Vec<(&str, usize, Vec<&str>)> =
        pipeline.unions().iter().map(|u| (u.name, u.steps.len(), u.parameters())).collect();
    let expected = [
        ("learn", 3, vec!["set"]),
        ("unet", 6, vec!["set", "seed"]),
        ("predicted", 6, vec!["set", "seed"]),
    ];
    assert_eq!(unions, expected);
    let names = |of: &[&str]| -> Vec<String> {
        pipeline.closure(of).iter().map(|step| step.name.clone()).collect()
    };
    let one = ["registry", "subsample", "learn_n50", "shards", "unet_n50_seed1"];
    assert_eq!(names(&["unet_n50_seed1"]), one, "what is shared is there once");
    assert_eq!(
        names(&["learn"]),
        ["registry", "subsample", "learn_n50", "learn_n100", "learn_own"]
    );
    let again = good(&pipeline.resolved.to_string(), &[]);
    assert_eq!((again.steps == pipeline.steps, again.hash), (true, pipeline.hash.clone()));
    let changed = good(GRID, &[("steps.unet.train.epochs", "3")]);
    assert_ne!(changed.hash, pipeline.hash, "a set names the step of the file");
}

#[test]
fn the_study_is_declared_whole() {
    let pipeline = load(&root("pipelines/noh2023.yaml"), &[]).map_err(|d| d.to_string()).unwrap();
    let count = |name: &str| pipeline.steps.iter().filter(|s| s.is_called(name)).count();
    let names = [
        "learn",
        "tuning",
        "unet",
        "tuned",
        "predicted",
        "scored",
        "tuned_predicted",
        "tuned_scored",
    ];
    assert_eq!(names.map(count), [7, 5, 7, 30, 7, 7, 30, 30]);
    let small =
        load(&root("pipelines/noh2023-small.yaml"), &[]).map_err(|d| d.to_string()).unwrap();
    let more = [("seeds", "[1, 2, 3]")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let seeds = load(&root("pipelines/noh2023.yaml"), &more).map_err(|d| d.to_string()).unwrap();
    assert_eq!((small.steps.len(), seeds.steps.len() > 300), (pipeline.steps.len(), true));
}

#[test]
fn a_fine_tuning_has_the_network_of_its_parent() {
    let text = "torcula: 1\nname: n\ncatalog: c\nsteps:\n  \
                split: { from: SELECT * FROM cases, split: { parts: { train: 0.5, val: 0.5 } } }\n  \
                adapted: { from: shards, train: { fine_tune: base, freeze: [stem], epochs: 2 } }\n  \
                known: { from: shards, train: { fine_tune: unet-0123456789, levels: 2 } }\n  \
                shards: { from: split, stages: [], to: shards }\n  \
                base: { from: shards, train: { levels: 3, filters: 8, learning_rate: 0.01 } }\n";
    let pipeline = good(text, &[]);
    let names: Vec<_> = pipeline.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["split", "shards", "known", "base", "adapted"]);
    let train = |name: &str| match &pipeline.step(name).unwrap().action {
        Action::Train(train) => train.clone(),
        _ => panic!("{name} trains nothing"),
    };
    let adapted = train("adapted");
    assert_eq!(pipeline.step("adapted").unwrap().upstream, ["shards", "base"]);
    assert_eq!((adapted.params.levels, adapted.params.filters, adapted.params.epochs), (3, 8, 2));
    assert!((adapted.params.learning_rate - 0.001).abs() < 1e-15, "a tenth of the parent's");
    assert_eq!((adapted.parent_step(), train("known").parent_step()), (Some("base"), None));
    assert_eq!(train("known").params.levels, 2);
    assert_eq!(good(&pipeline.resolved.to_string(), &[]).hash, pipeline.hash);
}

#[test]
fn the_hash_follows_meaning_and_not_form() {
    let hash = demo(&[]).hash;
    assert_eq!(hash, demo(&[("data", "demo-data")]).hash);
    assert_eq!(hash, demo(&[("steps.prepared.stages.n4.bins", "200")]).hash, "the default, said");
    assert_ne!(hash, demo(&[("steps.prepared.stages.n4.shrink", "3")]).hash);
    assert_ne!(hash, demo(&[("seed", "1")]).hash);
}

#[test]
fn problems_of_a_set_are_shown_in_it() {
    let text = std::fs::read_to_string(root("pipelines/demo.yaml")).unwrap();
    let sets = [("steps.unet.train.epohcs", "2"), ("seed", "many")];
    let sets = sets.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let found = load_text("demo.yaml", &text, &sets).unwrap_err();
    let shown: Vec<_> =
        found.items().iter().map(|i| (i.span.unwrap().source, i.message.as_str())).collect();
    let seed = "expected an integer of at least 0, found the string `many`";
    assert_eq!(shown, [(1, "unknown key `epohcs`"), (2, seed)]);
}

#[test]
fn unreadable_files_are_one_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.yaml");
    assert!(load(&path, &[]).is_err_and(|d| d.count() == 1));
    assert!(load(folder.path(), &[]).is_err_and(|d| d.count() == 1));
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(load(&path, &[]).is_err_and(|d| d.to_string().contains("UTF-8")));
    std::fs::write(&path, "#".repeat(2 << 20)).unwrap();
    assert!(load(&path, &[]).is_err_and(|d| d.to_string().contains("1 MiB")));
}

#[test]
fn torn_files_are_problems_and_not_crashes() {
    let text = std::fs::read_to_string(root("pipelines/demo.yaml")).unwrap();
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    for at in places.iter().skip(500).step_by(61) {
        let torn = load_text("torn", &text[..*at], &[]);
        let without = load_text(
            "torn",
            &format!("{}{}", &text[..*at], text.get(at + 7..).unwrap_or_default()),
            &[],
        );
        for found in [torn, without].into_iter().filter_map(Result::err) {
            assert!(found.count() > 0 && !found.render(true).is_empty());
        }
    }
}

#[test]
fn failure_limits_count_cases_shares_and_centres() {
    let centres = [("a".to_owned(), (100, 1)), ("b".to_owned(), (10, 4))].into();
    let limit = |text| serde_json::from_str::<FailureLimit>(text).unwrap().exceeded(&centres);
    assert_eq!(FailureLimit::default().or_default().exceeded(&centres), None);
    assert_eq!(limit(r#"{"max_cases": 5, "max_share": 0.05, "max_share_per_centre": 0.4}"#), None);
    assert!(limit(r#"{"max_cases": 4}"#).unwrap().contains("5 cases"));
    assert!(limit(r#"{"max_share": 0.04}"#).unwrap().contains("5 of 110"));
    assert!(limit(r#"{"max_share_per_centre": 0.3}"#).unwrap().contains("centre `b`"));
}

#[test]
fn arguments_are_split_and_read_as_yaml() {
    assert_eq!(parse_set("a.b=[1, 2]").unwrap(), ("a.b".to_owned(), "[1, 2]".to_owned()));
    assert_eq!(parse_set("a=b=c").unwrap().1, "b=c");
    assert!(parse_set("a").is_err() && parse_set("=3").is_err());
    assert_eq!(parse_value("[50, 2.5, x]").unwrap(), serde_json::json!([50, 2.5, "x"]));
    assert!(parse_value("[1").is_err());
}
