//! The catalog as its users see it: tables written, read back, torn, raced, travelled and traced.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::curation::{EXCLUDED, REMOVED};
use super::*;
use crate::error::{Fault, Result};

async fn catalog() -> (TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::create_or_open(&folder.path().join("a catalog, 100%")).await.unwrap();
    (folder, catalog)
}

async fn query(catalog: &Catalog, query: &str) -> Result<Vec<Value>> {
    let session = catalog.session_with(SessionAt::Latest, 2).await?;
    json_rows(&sql(&session, query).await?)
}

async fn number(catalog: &Catalog, text: &str) -> i64 {
    query(catalog, text).await.unwrap()[0]["n"].as_i64().unwrap()
}

fn case(id: &str, source: &str) -> CaseRow {
    CaseRow {
        case_id: id.into(),
        source: source.into(),
        affine: vec![0.1 + 0.2; 12],
        findings: vec!["odd".into()],
        age_y: Some(70.1),
        fingerprint: format!("fp-{id}"),
        image_uri: Some(format!("{id}.nii.gz")),
        image_blake3: Some(format!("hash-{id}")),
        ..CaseRow::default()
    }
}

fn artifact(id: &str, case_id: &str) -> ArtifactRow {
    let lineage = Lineage { run_id: "run-1".into(), seed: 7, ..Lineage::default() };
    ArtifactRow {
        artifact_id: id.into(),
        case_id: Some(case_id.into()),
        lineage,
        ..ArtifactRow::default()
    }
}

/// A row in which every value differs from the default.
fn filled(table: Table) -> Value {
    let value = |column: &Column| match (column.name, column.kind) {
        ("status", _) => json!("over_limit"),
        ("verdict", _) => json!("warn"),
        ("role", _) => json!("shard"),
        ("fault", _) => json!("timeout"),
        (name, Kind::Text) => json!(format!("{name} \"é\"")),
        (_, Kind::Integer) => json!(i64::MAX - 1),
        (_, Kind::Real) => json!(0.1 + 0.2),
        (_, Kind::Boolean) => json!(true),
        (_, Kind::Moment) => json!("2026-01-31T12:00:00.250001Z"),
        (_, Kind::TextList) => json!(["a", "b, c"]),
        (_, Kind::RealList) => json!([1.5, -0.1]),
    };
    table.columns().iter().map(|column| (column.name.to_owned(), value(column))).collect()
}

#[tokio::test]
async fn every_table_gives_back_what_was_appended() {
    let (_folder, catalog) = catalog().await;
    for table in Table::ALL {
        let row = filled(table);
        let bare: Value = table
            .columns()
            .iter()
            .filter(|column| !column.nullable)
            .map(|column| (column.name.to_owned(), row[column.name].clone()))
            .collect();
        catalog.append_json(table, &[row.clone(), bare]).await.unwrap();
        let found = query(&catalog, &format!("SELECT * FROM {table}")).await.unwrap();
        assert_eq!(found.len(), 2, "{table}");
        let mut first = found[0].clone();
        if table == Table::Cases {
            // Readers of cases see one column more; the row says that its files are gone.
            let excluded = first.as_object_mut().unwrap().remove(EXCLUDED);
            assert_eq!(excluded, Some(Value::from(REMOVED)));
        }
        assert_eq!(first, row, "{table}");
        let nulls = table.columns().iter().filter(|column| found[1][column.name].is_null());
        assert!(nulls.eq(table.columns().iter().filter(|column| column.nullable)), "{table}");
    }
    assert!(catalog.versions().unwrap().into_values().all(|version| version == 1));
}

#[tokio::test]
async fn rows_come_back_as_their_structs() {
    let (_folder, catalog) = catalog().await;
    let quality = QualityRow { case_id: "c".into(), snr: Some(f64::NAN), ..QualityRow::default() };
    catalog.append(std::slice::from_ref(&quality)).await.unwrap();
    catalog.append(&[artifact("a", "c")]).await.unwrap();
    catalog.append::<ArtifactRow>(&[]).await.unwrap();
    let session = catalog.session(SessionAt::Latest).await.unwrap();
    let found: Vec<QualityRow> =
        rows(&sql(&session, "SELECT * FROM quality").await.unwrap()).unwrap();
    assert_eq!(found, [QualityRow { snr: None, ..quality }]);
    let found: Vec<ArtifactRow> =
        rows(&sql(&session, "SELECT * FROM artifacts").await.unwrap()).unwrap();
    assert_eq!(found, [artifact("a", "c")]);
    assert_eq!(catalog.versions().unwrap()[&Table::Artifacts], 1);
}

#[tokio::test]
async fn journal_rows_are_checked() {
    let (_folder, catalog) = catalog().await;
    let good = filled(Table::Failures);
    let mut unknown = good.clone();
    unknown["resaon"] = json!("x");
    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("reason");
    let mut wrong = good.clone();
    wrong["transient"] = json!("maybe");
    for (row, said) in [
        (
            unknown,
            "row 1: the table 'failures' has no column 'resaon'\n  hint: did you mean 'reason'?",
        ),
        (missing, "row 1: the table 'failures' needs the column 'reason'"),
        (wrong, "row 1"),
        (json!(3), "must be a JSON object"),
    ] {
        let error = catalog.append_json(Table::Failures, &[good.clone(), row]).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Bug);
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(catalog.versions().unwrap()[&Table::Failures], 0);
}

#[tokio::test]
async fn what_a_crash_leaves_is_not_seen() {
    let (_folder, catalog) = catalog().await;
    catalog.append(&[artifact("a", "c")]).await.unwrap();
    let folder = catalog.table_folder(Table::Artifacts);
    let log = folder.join("_delta_log");
    // A data file whose commit never came, a staged commit, and a newest commit that a power loss emptied.
    fs::write(folder.join("part-00000-lost-c000.snappy.parquet"), "PAR1 half a file").unwrap();
    fs::write(folder.join("part-00001-lost.snappy.parquet#1"), "half").unwrap();
    fs::write(log.join("00000000000000000002.json#1"), "{\"add\":").unwrap();
    fs::write(log.join("_commit_1f.json.tmp"), "{\"add\":").unwrap();
    fs::write(log.join("00000000000000000002.json"), "").unwrap();

    let error = Catalog::open(catalog.folder()).await.unwrap_err();
    assert!(error.reason().contains("00000000000000000002.json"), "{error}");
    let catalog = Catalog::create_or_open(catalog.folder()).await.unwrap();
    assert_eq!(number(&catalog, "SELECT count(*) AS n FROM artifacts").await, 1);
    catalog.append(&[artifact("b", "c")]).await.unwrap();
    assert_eq!(number(&catalog, "SELECT count(*) AS n FROM artifacts").await, 2);

    assert_eq!(catalog.sweep(Table::Artifacts, Duration::from_hours(1)).unwrap(), 0);
    assert_eq!(catalog.sweep(Table::Artifacts, Duration::ZERO).unwrap(), 4);
    assert_eq!(number(&catalog, "SELECT count(*) AS n FROM artifacts").await, 2);
    Catalog::open(catalog.folder()).await.unwrap();
}

#[tokio::test]
async fn torn_checkpoint_is_set_aside_with_the_note_that_names_it() {
    let (_folder, catalog) = catalog().await;
    catalog.append(&[artifact("a", "c")]).await.unwrap();
    catalog.checkpoint(Table::Artifacts).await.unwrap();
    catalog.append(&[artifact("b", "c")]).await.unwrap();
    let checkpoint = catalog.checkpoint_file(Table::Artifacts, 1);
    let bytes = fs::read(&checkpoint).unwrap();
    assert!(catalog.log(Table::Artifacts).join("_last_checkpoint").exists());
    fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();

    let error = Catalog::open(catalog.folder()).await.unwrap_err();
    assert!(error.reason().contains("is not a whole checkpoint"), "{error}");
    let catalog = Catalog::create_or_open(catalog.folder()).await.unwrap();
    assert!(catalog.repairs().iter().any(|repair| repair.contains("set aside")));
    catalog.append(&[artifact("d", "c")]).await.unwrap();
    assert_eq!(number(&catalog, "SELECT count(*) AS n FROM artifacts").await, 3);
}

#[tokio::test]
async fn commit_that_names_half_a_file_is_set_aside_with_its_checkpoint() {
    let (_folder, catalog) = catalog().await;
    catalog.append(&[artifact("a", "c")]).await.unwrap();
    catalog.append(&[artifact("b", "c")]).await.unwrap();
    catalog.checkpoint(Table::Artifacts).await.unwrap();
    let commit = fs::read_to_string(catalog.commit(Table::Artifacts, 2)).unwrap();
    let file = write::added_files(&commit).next().unwrap();
    let file = catalog.table_folder(Table::Artifacts).join(file);
    fs::write(&file, &fs::read(&file).unwrap()[..100]).unwrap();

    let error = Catalog::open(catalog.folder()).await.unwrap_err();
    assert!(error.reason().contains("is not the whole file"), "{error}");
    let catalog = Catalog::create_or_open(catalog.folder()).await.unwrap();
    assert_eq!(number(&catalog, "SELECT count(*) AS n FROM artifacts").await, 1);
    catalog.append(&[artifact("b", "c")]).await.unwrap();
    assert_eq!(number(&catalog, "SELECT count(*) AS n FROM artifacts").await, 2);
    assert_eq!(catalog.damaged_files().await.unwrap(), []);
}

#[tokio::test]
async fn half_made_catalog_is_completed() {
    let (_folder, catalog) = catalog().await;
    fs::remove_dir_all(catalog.table_folder(Table::Cases)).unwrap();
    fs::remove_file(
        catalog.table_folder(Table::Models).join("_delta_log/00000000000000000000.json"),
    )
    .unwrap();
    let torn = catalog.table_folder(Table::Quality).join("_delta_log/00000000000000000000.json");
    fs::write(torn, "").unwrap();
    let error = Catalog::open(catalog.folder()).await.unwrap_err();
    assert!(error.reason().contains("has no table 'cases'"), "{error}");
    let catalog = Catalog::create_or_open(catalog.folder()).await.unwrap();
    catalog.upsert_cases(&[case("a", "s")]).await.unwrap();
    catalog.append(&[QualityRow::default()]).await.unwrap();
}

#[tokio::test]
async fn folder_without_catalog_says_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("none")] {
        let error = Catalog::open(&path).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Configuration);
        assert!(error.advice().unwrap().contains("torcula run"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_the_same_time_lose_nothing() {
    let (_folder, first) = catalog().await;
    let second = Catalog::open(first.folder()).await.unwrap();
    let write = |catalog: Catalog, name: &'static str| async move {
        for index in 0..5 {
            catalog.append(&[artifact(&format!("{name}-{index}"), "c")]).await.unwrap();
        }
    };
    let (one, two) =
        tokio::join!(tokio::spawn(write(first.clone(), "one")), tokio::spawn(write(second, "two")));
    one.unwrap();
    two.unwrap();
    let n = number(&first, "SELECT count(DISTINCT artifact_id) AS n FROM artifacts").await;
    assert_eq!((n, first.versions().unwrap()[&Table::Artifacts]), (10, 10));
}

#[tokio::test]
async fn same_cases_again_make_no_version() {
    let (_folder, catalog) = catalog().await;
    let mut cases = vec![case("a", "x"), case("b", "x")];
    assert_eq!(catalog.upsert_cases(&cases).await.unwrap(), 2);
    for case in &mut cases {
        case.run_id = "another run".into();
        case.ingested_at = Timestamp::now();
    }
    assert_eq!(catalog.upsert_cases(&cases).await.unwrap(), 0);
    assert_eq!(catalog.cases_version().unwrap(), 1);

    cases[1].fingerprint = "changed".into();
    cases.push(case("c", "x"));
    assert_eq!(catalog.upsert_cases(&cases).await.unwrap(), 2);
    assert_eq!(catalog.cases_version().unwrap(), 2);
    let found = query(&catalog, "SELECT case_id, fingerprint, run_id FROM cases ORDER BY 1").await;
    assert_eq!(
        json!(found.unwrap()),
        json!([
            {"case_id": "a", "fingerprint": "fp-a", "run_id": ""},
            {"case_id": "b", "fingerprint": "changed", "run_id": "another run"},
            {"case_id": "c", "fingerprint": "fp-c", "run_id": ""},
        ])
    );
    let error = catalog.upsert_cases(&[case("d", "x"), case("d", "y")]).await.unwrap_err();
    assert!(error.reason().contains("same case_id"), "{error}");
}

#[tokio::test]
async fn a_run_is_one_row_that_changes() {
    let (_folder, catalog) = catalog().await;
    let mut run = RunRow { run_id: "r1".into(), ..RunRow::default() };
    catalog.upsert_run(&run).await.unwrap();
    catalog.upsert_run(&RunRow { run_id: "r2".into(), ..RunRow::default() }).await.unwrap();
    run.status = RunStatus::Done;
    run.ended_at = Some(Timestamp(5));
    catalog.upsert_run(&run).await.unwrap();
    catalog.upsert_run(&run).await.unwrap();
    let session = catalog.session(SessionAt::Latest).await.unwrap();
    let found: Vec<RunRow> =
        rows(&sql(&session, "SELECT * FROM runs ORDER BY run_id").await.unwrap()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], run);
    assert_eq!(catalog.versions().unwrap()[&Table::Runs], 3);
}

#[tokio::test]
async fn earlier_versions_stay_readable() {
    let (_folder, catalog) = catalog().await;
    catalog.upsert_cases(&[case("a", "one")]).await.unwrap();
    catalog.append(&[artifact("early", "a")]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let between = Timestamp::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    catalog.upsert_cases(&[case("a", "two"), case("b", "two")]).await.unwrap();
    catalog.append(&[artifact("late", "b")]).await.unwrap();
    catalog.upsert_cases(&[case("c", "three")]).await.unwrap();
    for table in Table::ALL {
        catalog.put_files_together(table, 2).await.unwrap();
        catalog.checkpoint(table).await.unwrap();
    }
    catalog.compact().await.unwrap();
    assert_eq!(catalog.versions().unwrap()[&Table::Artifacts], 3);

    let session = catalog.session_with(SessionAt::Latest, 2).await.unwrap();
    let text = "SELECT now.case_id, cases.source AS then FROM cases AS now \
                LEFT JOIN cases VERSION AS OF 1 ON cases.case_id = now.case_id ORDER BY 1";
    let found = json_rows(&sql(&session, text).await.unwrap()).unwrap();
    assert_eq!(
        json!(found),
        json!([{"case_id": "a", "then": "one"}, {"case_id": "b", "then": null}, {"case_id": "c", "then": null}])
    );
    let text = format!("SELECT count(*) AS n FROM cases TIMESTAMP AS OF '{between}'");
    assert_eq!(number(&catalog, &text).await, 1);

    for (at, cases, artifacts) in [
        (SessionAt::Version(2), "a,b", "early"),
        (SessionAt::Timestamp(between), "a", "early"),
        (SessionAt::Latest, "a,b,c", "early,late"),
    ] {
        let session = catalog.session(at).await.unwrap();
        for (column, table, expected) in
            [("case_id", "cases", cases), ("artifact_id", "artifacts", artifacts)]
        {
            let text = format!("SELECT {column} AS id FROM {table}");
            let found = json_rows(&sql(&session, &text).await.unwrap()).unwrap();
            let found: BTreeSet<_> =
                found.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(found.into_iter().collect::<Vec<_>>().join(","), expected, "{at:?} {table}");
        }
    }
    let error = catalog.session(SessionAt::Version(99)).await.err().unwrap();
    assert!(error.to_string().contains("versions 0 to"), "{error}");
    let error = query(&catalog, "SELECT * FROM scores VERSION AS OF 5").await.unwrap_err();
    assert!(error.to_string().contains("it has the versions 0 to 0"), "{error}");
}

#[tokio::test]
async fn queries_that_cannot_be_answered_say_why() {
    let (folder, catalog) = catalog().await;
    for (text, said) in [
        (
            "SELECT * FROM artefacts",
            "there is no table 'artefacts'\n  hint: did you mean 'artifacts'?",
        ),
        ("SELECT speling_mm FROM cases", "there is no column"),
        ("SELECT spacing_mm FROM cases", "did you mean 'spacing_"),
        ("SELEC 1", "Expected"),
        ("DELETE FROM cases", "queries only read"),
        ("DROP TABLE cases", "queries only read"),
        ("CREATE TABLE x AS SELECT 1", "queries only read"),
        ("SELECT torcula_fingerprint('a')", "torcula_fingerprint"),
    ] {
        let error = query(&catalog, text).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Configuration, "{text}: {error}");
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
    let copy = format!("COPY (SELECT 1) TO '{}'", folder.path().join("x.csv").display());
    assert!(query(&catalog, &copy).await.unwrap_err().to_string().contains("queries only read"));
    assert!(!folder.path().join("x.csv").exists());
}

#[tokio::test]
async fn sessions_hold_views_and_the_fingerprint() {
    let (_folder, catalog) = catalog().await;
    catalog.append(&[artifact("a", "sub-1"), artifact("b", "sub-2")]).await.unwrap();
    let session = catalog.session(SessionAt::Latest).await.unwrap();
    let view = plan(&session, "SELECT artifact_id FROM artifacts WHERE case_id = 'sub-1'").await;
    session.register_table("prepared", view.unwrap().into_view()).unwrap();
    let text = "SELECT artifact_id, torcula_fingerprint(artifact_id, '7') AS fp, \
                torcula_fingerprint(NULL, 'x') AS none FROM prepared";
    let found = json_rows(&sql(&session, text).await.unwrap()).unwrap();
    assert_eq!(found, [json!({"artifact_id": "a", "fp": fingerprint(["a", "7"]), "none": null})]);
    let view = plan(&session, "SELECT 1").await.unwrap().into_view();
    assert!(session.register_table("cases", view).is_err());
    let names = json_rows(&sql(&session, "SHOW TABLES").await.unwrap()).unwrap();
    assert!(names.iter().any(|row| row["table_name"] == "prepared"));
    assert!(names.iter().any(|row| row["table_name"] == "scores"));
}

#[tokio::test]
async fn lineage_reaches_the_input_files() {
    let (_folder, catalog) = catalog().await;
    catalog.upsert_run(&RunRow { run_id: "run-1".into(), ..RunRow::default() }).await.unwrap();
    let mut cases = [case("sub-1", "x"), case("sub-2", "x")];
    cases[0].files = r#"[{"uri":"in.nii","blake3":"feed"}]"#.into();
    catalog.upsert_cases(&cases).await.unwrap();
    let mut shard = artifact("shard-1", "sub-1");
    shard.case_id = None;
    shard.role = Role::Shard;
    shard.parents = vec!["image-1".into(), "image-2".into(), "image-1".into()];
    let images = [artifact("image-1", "sub-1"), artifact("image-2", "sub-2")];
    catalog.append(&[images[0].clone(), images[1].clone(), shard]).await.unwrap();
    let model = ModelRow {
        model_id: "model-unet-1".into(),
        parents: vec!["shard-1".into()],
        lineage: images[0].lineage.clone(),
        ..ModelRow::default()
    };
    catalog.append(&[model]).await.unwrap();

    let tree = trace(&catalog, "model-u").await.unwrap();
    assert_eq!((tree.kind, tree.id.as_str()), ("model", "model-unet-1"));
    let text = tree.to_string();
    for part in [
        "├─ artifact image-1",
        "└─ case sub-1",
        "in.nii blake3 feed",
        "seed: 7",
        "sub-2.nii.gz blake3 hash-sub-2",
        "see: above",
        "run-1 (, running)",
    ] {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
    assert_eq!(trace(&catalog, "run-1").await.unwrap().kind, "run");
    assert!(trace(&catalog, "image-").await.unwrap_err().reason().contains("2 identifiers"));
    assert!(trace(&catalog, "nothing").await.unwrap_err().advice().is_some());
}

#[tokio::test]
async fn lineage_that_turns_in_circles_ends() {
    let (_folder, catalog) = catalog().await;
    let mut a = artifact("a", "c");
    a.parents = vec!["b".into(), "gone".into()];
    let mut b = artifact("b", "c");
    b.parents = vec!["a".into()];
    catalog.append(&[a, b]).await.unwrap();
    let text = trace(&catalog, "a").await.unwrap().to_string();
    assert!(text.contains("unknown gone"), "{text}");
}
