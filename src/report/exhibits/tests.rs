#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use datafusion::prelude::SessionContext;
use serde_json::Value;

use super::*;
use crate::catalog::{Catalog, SessionAt, json_rows, sql};
use crate::report::{ReportJob, html, load as load_report, write};

/// A study in small: scores of six models on two cohorts, of adapted models, and of two architectures.
const VIEWS: [(&str, &str); 6] = [
    (
        "scored",
        "SELECT concat('sub-', lpad(CAST(c.value AS VARCHAR), 4, '0')) AS case_id, n.n, k.cohort, \
           CASE WHEN c.value % 3 = 0 THEN 'GE' WHEN c.value % 3 = 1 THEN 'Siemens' ELSE 'Philips' END AS vendor, \
           CASE WHEN c.value % 7 > 0 THEN c.value % 30 + 0.5 END AS onset_h, c.value % 4 = 0 AS chronic_infarct, \
           c.value * 0.37 % 23 AS wmh_volume_ml, CASE WHEN c.value % 5 = 0 THEN 'pons' ELSE 'cortex' END AS location, \
           CASE WHEN c.value % 97 > 0 THEN least(1.0, greatest(0.0, 0.35 + 0.08 * ln(n.n) / ln(10) + k.shift + 0.2 * sin(c.value * 12.9898 + n.n))) END AS dice, \
           0.6 + 0.3 * cos(c.value * 4.1) AS sensitivity, 0.7 + 0.2 * sin(c.value * 7.7) AS precision, \
           0.2 + c.value % 60 * 0.9 AS volume_truth_ml, (0.2 + c.value % 60 * 0.9) * (0.95 + 0.1 * sin(c.value * 3.3)) AS volume_predicted_ml \
         FROM generate_series(1, 120) AS c(value) CROSS JOIN (VALUES (217), (866), (8661)) AS n(n) \
         CROSS JOIN (VALUES ('internal', 0.0), ('external', -0.12)) AS k(cohort, shift)",
    ),
    (
        "adapted",
        "SELECT s.case_id, s.n, a.adapted, least(1.0, s.dice + a.gain) AS dice FROM scored s \
         CROSS JOIN (VALUES (CAST(NULL AS BIGINT), 0.0), (50, 0.05), (200, 0.09)) AS a(adapted, gain) WHERE s.cohort = 'external'",
    ),
    (
        "architectures",
        "SELECT case_id, 'unet3d' AS model, dice, precision FROM scored WHERE n = 8661 AND cohort = 'internal' UNION ALL \
         SELECT case_id, 'swin_unetr', dice - 0.01 - 0.02 * sin(volume_truth_ml), precision FROM scored WHERE n = 8661 AND cohort = 'internal'",
    ),
    (
        "internal_flow",
        "SELECT * FROM (VALUES (1, 'MRI contraindicated', 258, 11755), (2, 'DWI poor or unavailable', 904, 10851), \
         (3, 'registration error', 31, 10820)) AS f(rule_index, reason, excluded, remaining)",
    ),
    (
        "divided",
        "SELECT CASE WHEN value <= 8661 THEN 'training and validation' ELSE 'internal test' END AS part FROM generate_series(1, 10820) AS g(value)",
    ),
    (
        "measured",
        "SELECT concat('centre ', CAST(value % 5 AS VARCHAR)) AS centre, 8 + value % 5 + sin(value * 1.7) AS noise_sigma, \
         20 - value % 5 + cos(value * 2.9) AS snr FROM generate_series(1, 200) AS g(value)",
    ),
];

const REPORT: &str = r#"{
  "html": "report.html",
  "strata": ["volume_ml", "onset_h", "location"],
  "sections": [
    {"title": "Cohorts", "show": [
      {"flow": {"from": "internal_flow", "start": "Enrolled", "end": "Internal dataset", "parts": "divided", "title": "Fig 1"}},
      {"baseline": {"cohorts": [
          {"name": "Internal", "from": "SELECT * FROM scored WHERE cohort = 'internal' AND n = 217"},
          {"name": "External", "from": "SELECT * FROM scored WHERE cohort = 'external' AND n = 217 AND volume_truth_ml > 5"}],
        "rows": ["volume_truth_ml", {"column": "onset_h", "show": "median"}, "vendor", "chronic_infarct"],
        "published": [{"cohort": "Internal", "onset_h": "12 (3–24)", "vendor: GE": "33 %"}]}}]},
    {"title": "Sample size", "text": "How many cases are enough?", "show": [
      {"curve": {"from": "scored", "x": "n", "by": "cohort", "x_label": "Training cases",
        "published": [{"n": 217, "cohort": "internal", "dice": 0.58}, {"n": 8661, "cohort": "internal", "dice": 0.7}]}},
      {"regression": {"from": "scored", "x": "n", "log": true}}]},
    {"title": "Groups", "show": [
      {"groups": {"from": "SELECT * FROM scored WHERE n = 8661 AND cohort = 'internal'",
        "strata": ["vendor", "chronic_infarct", "wmh_volume_ml", {"column": "onset_h", "cuts": [6], "unit": "h", "label": "Early"}],
        "published": [{"vendor": "GE", "dice": 0.69}]}},
      {"boxes": {"from": "measured", "values": ["noise_sigma", "snr"], "by": "centre"}},
      {"agreement": {"from": "SELECT * FROM scored WHERE n = 8661", "by": "cohort", "published": [{"cohort": "internal", "r_squared": 0.96}]}}]},
    {"title": "Adaptation and architectures", "show": [
      {"grid": {"from": "adapted", "rows": "n", "columns": "adapted", "rows_label": "n =", "columns_label": "external cases",
        "published": [{"n": 217, "adapted": 50, "dice": 0.67}]}},
      {"comparison": {"from": "architectures", "by": "model", "measures": ["dice", "precision"]}}]},
    {"title": "Cases", "show": [
      {"worst": {"from": "SELECT * FROM scored WHERE n = 8661 AND cohort = 'internal'", "cases": 3}},
      {"table": {"from": "SELECT vendor, count(*) AS cases FROM scored GROUP BY vendor ORDER BY vendor", "title": "Vendors"}}]},
    {"title": "Not there", "show": [
      {"curve": {"from": "scored", "x": "training_cases"}},
      {"groups": {"from": "nothing"}},
      {"agreement": {"from": "SELECT 1.0 AS volume_truth_ml, 2.0 AS volume_predicted_ml", "title": "One case"}},
      {"comparison": {"from": "SELECT * FROM architectures WHERE model = 'unet3d'", "by": "model", "measures": ["dice"], "title": "One network"}}]}
  ]
}"#;

/// A catalog with the views.
pub async fn study(folder: &Path) -> SessionContext {
    let catalog = Catalog::create_or_open(&folder.join("catalog")).await.unwrap();
    let ctx = catalog.session(SessionAt::Latest).await.unwrap();
    for (name, query) in VIEWS {
        let view = ctx.sql(query).await.unwrap().into_view();
        ctx.register_table(name, view).unwrap();
    }
    ctx
}

fn job(folder: &Path) -> ReportJob {
    let params: ReportParams = serde_json::from_str(REPORT).unwrap();
    let html = folder.join("report.html");
    ReportJob { title: "Study".to_owned(), html, params, ..ReportJob::default() }
}

fn exhibit<'a>(sections: &'a [Section], title: &str) -> &'a Exhibit {
    let mut all = sections.iter().flat_map(|s| &s.exhibits);
    all.find(|e| e.title.starts_with(title)).unwrap_or_else(|| panic!("no exhibit {title}"))
}

fn tables(exhibit: &Exhibit) -> Vec<&Table> {
    let parts = exhibit.parts.as_ref().unwrap().iter();
    parts
        .filter_map(|p| if let Part::Table { table, .. } = p { Some(table) } else { None })
        .collect()
}

fn plots(exhibit: &Exhibit) -> Vec<&Plot> {
    let parts = exhibit.parts.as_ref().unwrap().iter();
    parts
        .filter_map(|p| if let Part::Figure { plot, .. } = p { Some(plot) } else { None })
        .collect()
}

/// The rows of a table's CSV, by column name.
fn csv(table: &Table) -> Vec<BTreeMap<String, String>> {
    let text = table.csv();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers().unwrap().clone();
    let row = |r: csv::Result<csv::StringRecord>| {
        head.iter().map(str::to_owned).zip(r.unwrap().iter().map(str::to_owned)).collect()
    };
    reader.records().map(row).collect()
}

async fn ask(ctx: &SessionContext, query: &str) -> Vec<Value> {
    json_rows(&sql(ctx, query).await.unwrap()).unwrap()
}

fn close(found: &str, expected: &Value, what: &str) {
    let (a, b) = (found.parse::<f64>().unwrap(), expected.as_f64().unwrap());
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{what}: {a} and {b}");
}

#[tokio::test]
async fn the_sql_under_an_exhibit_gives_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = study(folder.path()).await;
    let study = load_report(&ctx, &job(folder.path())).await.unwrap().study;

    let curve = exhibit(&study, "Scores by training cases");
    let rows = csv(tables(curve)[0]);
    let answer = ask(&ctx, &curve.queries[0].sql).await;
    assert_eq!((rows.len(), answer.len()), (6, 6));
    for wanted in &answer {
        let place = wanted["x"].to_string();
        let row = rows.iter().find(|r| {
            r["group"] == wanted["series"].as_str().unwrap() && r["Training cases"] == place
        });
        let row = row.unwrap();
        for (head, column) in
            [("DSC", "dice"), ("Sensitivity", "sensitivity"), ("Precision", "precision")]
        {
            for what in ["mean", "sd", "se", "n"] {
                close(&row[&format!("{head} {what}")], &wanted[&format!("{column}_{what}")], head);
            }
        }
        assert_eq!(row["DSC missing"], "1", "case 97 has no score");
    }

    let groups = exhibit(&study, "Scores in groups");
    let rows = csv(tables(groups)[0]);
    let mut compared = 0;
    for query in &groups.queries {
        for wanted in ask(&ctx, &query.sql).await {
            let Some(group) = wanted["group"].as_str() else { continue };
            let row = rows
                .iter()
                .find(|r| r["group"] == query.label && r["Group"].split(':').next() == Some(group));
            close(&row.unwrap()["DSC mean"], &wanted["dice_mean"], group);
            close(&row.unwrap()["Cases"], &wanted["n"], group);
            compared += 1;
        }
    }
    assert_eq!(compared, 3 + 2 + 10 + 2);

    let agreement = exhibit(&study, "Agreement of volume_predicted_ml");
    let rows = csv(tables(agreement)[0]);
    for wanted in ask(&ctx, &agreement.queries[0].sql).await {
        let cohort = wanted["by"].as_str().unwrap();
        for (label, column) in [
            ("r²", "r_squared"),
            ("Slope", "slope"),
            ("Intercept (mL)", "intercept"),
            ("Bias (mL)", "bias"),
        ] {
            let row = rows.iter().find(|r| r["Quantity"] == label).unwrap();
            close(&row[cohort], &wanted[column], label);
        }
    }

    let grid = exhibit(&study, "DSC by n and adapted");
    let rows = csv(tables(grid)[0]);
    for wanted in ask(&ctx, &grid.queries[0].sql).await {
        let name = wanted["row"].to_string();
        let row = rows.iter().find(|r| r["n = \\ external cases"] == name).unwrap();
        let column = wanted["column"].as_i64().map_or("none".to_owned(), |c| c.to_string());
        close(&row[&format!("{column} mean")], &wanted["dice_mean"], "grid");
    }

    let comparison = exhibit(&study, "Comparison by model");
    let rows = csv(tables(comparison)[0]);
    let wanted = &ask(&ctx, &comparison.queries[0].sql).await[0];
    let row = rows.iter().find(|r| r["Models"] == "swin_unetr − unet3d").unwrap();
    assert_eq!(wanted["first"], "swin_unetr");
    close(&row["Difference"], &wanted["difference"], "difference");
    close(&row["Cases"], &wanted["n"], "pairs");

    let regression = exhibit(&study, "Regression on n");
    let wanted = &ask(&ctx, &regression.queries[0].sql).await[0];
    close(&csv(tables(regression)[0])[0]["Slope"], &wanted["dice_slope"], "slope");

    // All the others can be asked too.
    for query in study.iter().flat_map(|s| &s.exhibits).flat_map(|e| &e.queries) {
        assert!(!ask(&ctx, &query.sql).await.is_empty(), "{}", query.sql);
    }
}

#[tokio::test]
async fn flow_baseline_and_published_values_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = study(folder.path()).await;
    let study = load_report(&ctx, &job(folder.path())).await.unwrap().study;
    let Plot::Flow(flow) = plots(exhibit(&study, "Fig 1"))[0] else { panic!("no flow") };
    let stations: Vec<(&str, u64)> =
        flow.before.iter().map(|s| (s.label.as_str(), s.cases)).collect();
    assert_eq!(stations, [("Enrolled", 12_013), ("Internal dataset", 10_820)]);
    let excluded: Vec<u64> = flow.before[1].exclusions[0].reasons.iter().map(|r| r.cases).collect();
    assert_eq!((flow.before[1].exclusions[0].cases, excluded), (1193, vec![258, 904, 31]));
    let parts: Vec<(&str, u64)> = flow.parts.iter().map(|p| (p.part.as_str(), p.cases)).collect();
    assert_eq!(parts, [("training and validation", 8661), ("internal test", 2159)]);

    let baseline = tables(exhibit(&study, "Baseline"))[0];
    assert_eq!(baseline.head, ["Variable", "Internal", "Internal, published", "External", "p"]);
    let text = baseline.csv();
    for part in ["Cases,120", "33 %", "12 (3–24)", "one-way ANOVA", "Kruskal–Wallis"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let rows = csv(baseline);
    let row = |start: &str| rows.iter().find(|r| r["Variable"].starts_with(start)).unwrap();
    let siemens = row("\u{2003}Siemens");
    assert_eq!((siemens["Internal cases"].as_str(), siemens["Internal n"].as_str()), ("40", "120"));
    let onset = row("Onset to imaging");
    assert_eq!((onset["Internal n"].as_str(), onset["Internal missing"].as_str()), ("103", "17"));

    let curve = exhibit(&study, "Scores by training cases");
    let Plot::Lines(lines) = plots(curve)[0] else { panic!("no lines") };
    let published: Vec<&str> =
        lines.series.iter().filter(|s| s.published).map(|s| s.label.as_str()).collect();
    assert_eq!(published, ["internal, published"]);
    assert_eq!(
        lines.ticks.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(),
        ["217", "866", "8,661"]
    );
    // Three scores over all, and by three strata in two cohorts.
    assert_eq!(plots(curve).len(), 3 + 3 * 3 * 2);
    let by_onset = plots(curve).into_iter().find_map(|p| match p {
        Plot::Lines(l) if l.series.iter().any(|s| s.label == "3–24 h") => Some(l),
        _ => None,
    });
    let labels: Vec<&str> = by_onset.unwrap().series.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(labels, ["< 3 h", "3–24 h", "> 24 h", "not known"]);
    let grid = tables(exhibit(&study, "DSC by n and adapted"))[0];
    assert_eq!(grid.head, ["n = \\ external cases", "none", "50", "50, published", "200"]);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = study(folder.path()).await;
    let data = load_report(&ctx, &job(folder.path())).await.unwrap();
    let reasons: Vec<String> =
        data.study[5].exhibits.iter().filter_map(|e| e.parts.clone().err()).collect();
    assert!(reasons[0].contains("there is no column `training_cases`"), "{reasons:?}");
    assert!(reasons[1].contains("there is no table 'nothing'"), "{reasons:?}");
    let one = tables(exhibit(&data.study, "One case"))[0].csv();
    assert!(one.contains("not computed: n = 1, needs 3"), "{one}");
    let alone = exhibit(&data.study, "One network");
    assert!(alone.notes[0].contains("needs two values of model, and there is only unet3d"));
    assert!(alone.parts.as_ref().is_ok_and(Vec::is_empty), "headings without rows");
    let page = html::page(&data, &files::Written::default());
    assert!(page.contains("Not computed: there is no column `training_cases`"));
    for bad in ["NaN", "inf<", "null"] {
        assert!(!page.contains(bad), "{bad}");
    }
    let worst = exhibit(&data.study, "Worst cases");
    let cases = worst.parts.as_ref().unwrap().iter().filter(|p| matches!(p, Part::Case { .. }));
    assert_eq!(cases.count(), 3);
}

#[tokio::test]
async fn tables_and_figures_are_files_beside_the_page_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = study(folder.path()).await;
    let mut job = job(folder.path());
    write(&ctx, &job).await.unwrap();
    let beside = folder.path().join("report-files");
    let read = |name: &str| std::fs::read_to_string(beside.join(name)).unwrap();
    assert!(read("fig-1-figure.svg").contains("xmlns=\"http://www.w3.org/2000/svg\""));
    assert!(read("fig-1-table.csv").starts_with("Reason,Excluded,Remaining\r\n"));
    assert!(read("baseline-characteristics-table.tex").contains("\\begin{tabular}"));
    let page = std::fs::read_to_string(&job.html).unwrap();
    for kind in ["svg", "png"] {
        assert!(page.contains(&format!("href=\"report-files/fig-1-figure.{kind}\"")), "{kind}");
    }
    let png = std::fs::read(beside.join("fig-1-figure.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    for link in page.split("href=\"report-files/").skip(1) {
        let name = link.split('"').next().unwrap();
        assert!(beside.join(name).is_file(), "{name} is linked and not there");
    }
    let list: Value = serde_json::from_str(&read("contents.json")).unwrap();
    let listed = list["files"].as_array().unwrap().len();
    assert_eq!(std::fs::read_dir(&beside).unwrap().count(), listed + 1);
    // The same again gives the same bytes; fewer sections leave fewer files, and a stranger's file stays.
    let before = read("contents.json");
    std::fs::write(beside.join("notes.txt"), "mine").unwrap();
    write(&ctx, &job).await.unwrap();
    assert_eq!(read("contents.json"), before);
    job.params.sections.truncate(1);
    write(&ctx, &job).await.unwrap();
    assert!(beside.join("notes.txt").is_file() && beside.join("fig-1-figure.svg").is_file());
    assert!(!beside.join("vendors-table.csv").exists());
}
