//! The page: one file without scripts that asks for nothing outside itself, in light, dark and on paper.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::curve::{Curve, draw as draw_curve};
use super::charts::{self, boxes, flow, histogram, scatter};
use super::data::{Example, Outlier, Picture, Quality, ReportData, Scores, Training};
use super::exhibits::files::Written;
use super::exhibits::page::section as study;
use super::stats::regression;
use super::tables::{self, count, counted};

/// The rules of the page.
pub const STYLE: &str = include_str!("style.css");

/// The sections and their headings.
const SECTIONS: [(&str, &str); 6] = [
    ("flow", "Flow of cases"),
    ("failures", "Failures"),
    ("quality", "Image quality"),
    ("training", "Training"),
    ("scores", "Scores"),
    ("examples", "Best, median and worst case"),
];

/// The whole page; `written` are the files beside it.
pub fn page(data: &ReportData, written: &Written) -> String {
    html! {
        (DOCTYPE)
        html lang="en-GB" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // The browser itself refuses any request of a page that is to stand alone.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                meta name="generator" content=(format!("torcula {}", data.lineage.software_version));
                title { (data.title) " – report" }
                style { (PreEscaped(STYLE)) (PreEscaped(charts::STYLE)) }
            }
            body {
                a.skip href="#content" { "Skip to the report" }
                (header(data))
                main id="content" {
                    @for section in &data.study { (study(section, written)) }
                    @if data.shows_run { (run_sections(data)) }
                }
                (lineage(data))
            }
        }
    }
    .into_string()
}

/// What every run can tell of itself.
fn run_sections(data: &ReportData) -> Markup {
    html! {
        (section(0, &html! { (flow_section(data)) }))
        (section(1, &html! { (failures_section(data)) }))
        (section(2, &html! { (quality_section(&data.quality)) }))
        (section(3, &html! {
            @if let Some(training) = &data.training { (training_section(training)) }
            @else { p.faint { "This pipeline trained no model." } }
        }))
        (section(4, &html! {
            @if let Some(scores) = &data.scores { (scores_section(scores)) }
            @else { p.faint { "This pipeline scored no predictions." } }
        }))
        (section(5, &examples_section(data.scores.as_ref())))
    }
}

fn section(index: usize, body: &Markup) -> Markup {
    let (id, heading) = SECTIONS[index];
    let heading_id = format!("{id}-heading");
    html! { section id=(id) aria-labelledby=(heading_id) { h2 id=(heading_id) { (heading) } (body) } }
}

/// How a figure was made, folded away.
fn sql(query: &str) -> Markup {
    html! { @if !query.is_empty() { details { summary { "SQL" } pre tabindex="0" { code { (query) } } } } }
}

fn header(data: &ReportData) -> Markup {
    let cases = |station: Option<&super::data::Station>| station.map_or(0, |s| s.cases);
    let found = cases(data.flow.before.first());
    html! {
        header {
            p.brand { "Torcula report" }
            h1 { (data.title) }
            p.faint { "Pipeline " (data.lineage.pipeline)
                @if let Some(moment) = &data.lineage.started_at { ", started " time datetime=(moment) { (minute(moment)) } } }
            @for note in &data.notes { p.note role="note" { (note) } }
            @if !data.tiles.is_empty() { dl.tiles {
                @for of in &data.tiles { (tile(&of.name, &of.value, &of.detail)) }
            } }
            @if data.shows_run { dl.tiles {
                (tile("Cases found", &count(found), ""))
                (tile("Quarantined", &count(data.failures.cases), &share(data.failures.cases, found)))
                @if let Some(scores) = &data.scores { (score_tiles(scores)) }
            } }
            nav aria-label="Sections" { ul {
                @for section in &data.study { li { a href=(format!("#{}", section.id)) { (section.title) } } }
                @if data.shows_run { @for (id, heading) in SECTIONS {
                    li { a href=(format!("#{id}")) { (heading) } }
                } }
            } }
        }
    }
}

fn score_tiles(scores: &Scores) -> Markup {
    let overall = &scores.overall;
    html! {
        (tile("Scored", &count(overall.n), ""))
        @for (name, of) in [("DSC", overall.dice), ("Sensitivity", overall.sensitivity), ("Precision", overall.precision)] {
            @match (of.mean, of.sd) {
                (Some(mean), Some(sd)) => (tile(name, &format!("{mean:.3}"), &format!("± {sd:.3} (n = {})", of.n))),
                (Some(mean), None) => (tile(name, &format!("{mean:.3}"), "SD not computed: n = 1")),
                _ => (tile(name, "–", "not computed: n = 0")),
            }
        }
    }
}

fn tile(name: &str, value: &str, detail: &str) -> Markup {
    html! { div { dt { (name) } dd { strong { (value) } @if !detail.is_empty() { small { (detail) } } } } }
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        String::new()
    } else {
        format!("{:.1} % of those found", 100.0 * part as f64 / whole as f64)
    }
}

/// `2026-01-31 12:00 UTC` of an RFC 3339 moment; another text stays as it is.
fn minute(moment: &str) -> String {
    match (moment.get(..10), moment.get(10..11), moment.get(11..16)) {
        (Some(date), Some("T"), Some(time)) => format!("{date} {time} UTC"),
        _ => moment.to_owned(),
    }
}

fn flow_section(data: &ReportData) -> Markup {
    html! {
        figure.wide-figure {
            (flow::draw("flow-chart", &data.flow))
            figcaption { "From the cases found to the cases scored, with the reasons for every exclusion. … stands where the cases of a reason differ." }
            (sql(&data.flow.sql))
        }
    }
}

fn failures_section(data: &ReportData) -> Markup {
    html! {
        @if data.failures.total == 0 {
            p { "No case was quarantined." }
        } @else {
            (tables::failures(&data.failures))
        }
        (sql(&data.failures.sql))
    }
}

fn quality_section(quality: &Quality) -> Markup {
    html! {
        @if quality.cases == 0 {
            p.faint { "This pipeline measured no image quality." }
        } @else {
            p { (counted(quality.cases, "case", "cases")) " measured: "
                @for (i, verdict) in quality.verdicts.iter().enumerate() {
                    @if i > 0 { ", " } strong { (count(verdict.cases)) } " " (verdict.reason)
                } "." }
            div.columns { @for (i, metric) in quality.metrics.iter().enumerate() {
                figure {
                    (boxes::draw(&format!("quality-{i}"), &metric.label, &metric.centres))
                    figcaption { strong { (metric.label) " by centre." } " Box: quartiles and median; whiskers: last values within 1.5 interquartile ranges; dots: cases"
                        @if metric.centres.len() > boxes::MOST_GROUPS { ". The first " (boxes::MOST_GROUPS) " of " (metric.centres.len()) " centres" } "." }
                    (sql(&quality.sql))
                }
            } }
        }
        @if !quality.outliers.is_empty() {
            h3 { "Outliers" }
            ul.outliers { @for outlier in &quality.outliers { li { (outlier_card(outlier)) } } }
            @if quality.more_outliers > 0 { p { "And " (counted(quality.more_outliers, "other case.", "other cases.")) } }
        } @else if quality.cases > 0 { p { "No case stands out." } }
    }
}

fn outlier_card(outlier: &Outlier) -> Markup {
    html! {
        (picture_or_reason(&outlier.picture))
        div {
            p { strong { (outlier.case_id) } " " span class=(format!("verdict {}", outlier.verdict)) { (outlier.verdict) } }
            @if let Some(centre) = &outlier.centre { p.faint { (centre) } }
            @for reason in &outlier.reasons { p { (reason) } }
        }
    }
}

fn picture(picture: &Picture) -> Markup {
    html! {
        img src=(format!("data:image/png;base64,{}", picture.png_base64)) alt=(picture.alt)
            width=(picture.width) height=(picture.height) loading="lazy";
    }
}

fn picture_or_reason(result: &Result<Picture, String>) -> Markup {
    match result {
        Ok(found) => picture(found),
        Err(reason) => html! { p.no-picture { "no picture: " (reason) } },
    }
}

fn training_section(training: &Training) -> Markup {
    let of = |value: fn(&super::data::CurvePoint) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = training.curve.iter().filter_map(|p| Some((p.epoch as f64, value(p)?)));
        points.filter(|p| p.1.is_finite()).collect()
    };
    let (loss, dice) = (of(|p| p.train_loss), of(|p| p.val_dice));
    let kept = Some(training.best_epoch as f64);
    let seconds: f64 =
        training.curve.iter().filter_map(|p| p.seconds).filter(|s| s.is_finite()).sum();
    let whole = |n: i64| counted(n.max(0) as u64, "case", "cases");
    html! {
        p { strong { (training.name) } " (" (training.architecture) ") was trained on " (whole(training.train_cases))
            " and validated on " (whole(training.val_cases))
            @if !training.curve.is_empty() { " for " (counted(training.curve.len() as u64, "epoch", "epochs")) }
            @if seconds > 0.0 { ", " (duration(seconds)) }
            ". Kept: epoch " (training.best_epoch)
            @if let Some(best) = training.best_val_dice { ", validation DSC " (format!("{best:.3}")) } "."
            @if let Some(parent) = &training.parent { " It started from the weights of " (parent) "." } }
        @if training.curve.is_empty() {
            p.faint { "The model has no training curve." }
        } @else {
            div.columns {
                @for (id, label, points, unit, kept) in [("loss", "Training loss", &loss, false, None), ("validation", "Validation DSC", &dice, true, kept)] {
                    @if points.is_empty() { p.faint { (label) " was not recorded." } } @else { figure {
                        (draw_curve(&Curve { id, label, points, kept, unit_interval: unit }))
                        figcaption { strong { (label) } " by epoch" @if kept.is_some() { "; the ring marks the weights that were kept" } "." }
                        (sql(&training.sql))
                    } }
                }
            }
        }
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn scores_section(scores: &Scores) -> Markup {
    let dice: Vec<f64> =
        scores.cases.iter().filter_map(|c| c.dice).filter(|d| d.is_finite()).collect();
    let volumes: Vec<(f64, f64)> =
        scores.cases.iter().map(|c| (c.volume_truth_ml, c.volume_predicted_ml)).collect();
    html! {
        (tables::scores(scores))
        @if let Some(policy) = &scores.empty_policy { p.faint { "Empty masks: " (policy) "." } }
        (score_queries(scores))
        @if !scores.cases.is_empty() {
            div.columns {
                figure {
                    (histogram::draw("dice", "DSC", &dice))
                    figcaption { strong { "Distribution of the DSC" } " over " (counted(dice.len() as u64, "case", "cases")) "." }
                    (sql(&scores.cases_sql))
                }
                figure {
                    (scatter::draw("volumes", &scatter::Scatter { points: volumes.clone(), line: None }))
                    figcaption { strong { "Predicted against reference volume." } " Dashed: equal volumes. "
                        @if volumes.iter().any(|v| v.0.min(v.1) < scatter::FLOOR_ML) { "Volumes below " (scatter::FLOOR_ML) " mL are drawn there. " }
                        (agreement(&volumes))
                        @if volumes.len() > scatter::MOST_POINTS { " Every " (volumes.len().div_ceil(scatter::MOST_POINTS)) "th case is drawn." } }
                    (sql(&scores.cases_sql))
                }
            }
        }
    }
}

/// The SQL of every part of the table, folded away together.
fn score_queries(scores: &Scores) -> Markup {
    let strata = scores.strata.iter().map(|s| (s.label.as_str(), s.sql.as_str()));
    let queries: Vec<(&str, &str)> = [(scores.overall.label.as_str(), scores.sql.as_str())]
        .into_iter()
        .chain(strata)
        .filter(|(_, query)| !query.is_empty())
        .collect();
    html! { @if !queries.is_empty() { details {
        summary { "SQL" }
        @for (label, query) in queries { p { (label) } pre tabindex="0" { code { (query) } } }
    } } }
}

fn agreement(volumes: &[(f64, f64)]) -> String {
    match regression(volumes) {
        Some(line) => {
            let difference = volumes.iter().map(|v| v.1 - v.0).sum::<f64>() / volumes.len() as f64;
            let sign = if difference < 0.0 { "−" } else { "+" };
            format!(
                "Least squares: slope {:.2}, r² {:.2}; mean difference {sign}{:.2} mL.",
                line.slope,
                line.r_squared,
                difference.abs()
            )
        }
        None => format!("Regression not computed: n = {}.", volumes.len()),
    }
}

fn examples_section(scores: Option<&Scores>) -> Markup {
    let examples = scores.map_or(&[][..], |s| &s.examples);
    html! {
        @if examples.is_empty() { p.faint { "There is no scored case to show." } } @else {
            (examples_legend())
            @for example in examples { (example_figure(example)) }
            (sql(scores.map_or("", |s| s.cases_sql.as_str())))
        }
    }
}

/// What the outlines on the pictures of a case are.
pub fn examples_legend() -> Markup {
    html! {
        p.legend {
            span.truth { "truth (reference mask)" } span.prediction { "prediction" }
            span.faint { "Axial slices; anterior is up, the patient’s right on the left. The first picture is the slice with the largest lesion, its dotted frame the field of the close views, which run from foot to head." }
        }
    }
}

/// The pictures of a case, or why there are none.
pub fn slices(slices: &Result<Vec<Picture>, String>) -> Markup {
    html! {
        @match slices {
            Ok(slices) => div.slices { @for slice in slices { (picture(slice)) } },
            Err(reason) => p.no-picture { "no picture: " (reason) },
        }
    }
}

fn example_figure(example: &Example) -> Markup {
    html! {
        figure.example {
            figcaption { strong { (example.rank) ": " (example.case_id) }
                (format!(" DSC {:.3}, truth {:.2} mL, prediction {:.2} mL", example.dice, example.volume_truth_ml, example.volume_predicted_ml)) }
            (slices(&example.slices))
        }
    }
}

fn lineage(data: &ReportData) -> Markup {
    let facts = &data.lineage;
    let version = facts.catalog_version.map(|v| v.to_string());
    let seed = facts.seed.to_string();
    let model = data.training.as_ref().map(|t| t.model_id.as_str());
    let rows = [
        ("Run", Some(facts.run_id.as_str())),
        ("Pipeline", Some(facts.pipeline.as_str())),
        ("Pipeline hash", Some(facts.pipeline_hash.as_str())),
        ("Seed", Some(seed.as_str())),
        ("Torcula", Some(facts.software_version.as_str())),
        ("Catalog version", version.as_deref()),
        ("Model", model),
        ("Started", facts.started_at.as_deref()),
        ("Command", facts.command.as_deref()),
    ];
    html! {
        footer {
            h2 { "Lineage" }
            dl { @for (name, value) in rows { @if let Some(value) = value.filter(|v| !v.is_empty()) {
                div { dt { (name) } dd { code { (value) } } }
            } } }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::report::data::Failures;
    use crate::report::example;

    /// The elements that have no end tag.
    const VOID: [&str; 4] = ["meta", "img", "br", "link"];

    /// Panics where tags are not closed in the order in which they were opened, or an id is used twice.
    fn assert_well_formed(page: &str) {
        let (mut open, mut ids, mut rest) = (Vec::new(), Vec::new(), page);
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').unwrap();
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            let name = tag.split_whitespace().next().unwrap();
            if name == "style" {
                rest = &rest[rest.find("</style>").unwrap() + "</style>".len()..];
            } else if let Some(closed) = name.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed));
            } else if !name.starts_with('!') && !VOID.contains(&name) {
                open.push(name);
            }
            if let Some(id) = tag.split(" id=\"").nth(1) {
                ids.push(id.split('"').next().unwrap());
            }
        }
        assert!(open.is_empty(), "never closed: {open:?}");
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "an id is used twice");
    }

    /// The page without its pictures, whose base64 can spell anything.
    fn without_pictures(page: &str) -> String {
        page.split("data:image/png;base64,")
            .map(|s| s.split_once('"').map_or(s, |(_, rest)| rest))
            .collect()
    }

    #[test]
    fn the_page_is_whole_and_stands_alone() {
        let page = page(&example::report(), &Written::default());
        assert_well_formed(&page);
        let text = without_pictures(&page);
        for outside in ["http:", "https:", "url(", "@import", "<script", "<link", "NaN", "inf<"] {
            assert!(!text.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_numbers_are_on_the_page() {
        let page = page(&example::report(), &Written::default());
        for text in [
            "<strong>0.712</strong><small>± 0.139 (n = 197)</small>",
            "0.604<span class=\"sd\"> ± 0.150</span><small>SE 0.016</small>",
            "SD not computed: n = 1",
            "not computed: n = 0",
            "Found: 1,209",
            "7 × SNR … is below 4",
            "And 17 more",
            "SNR 2.71 is below 4; &lt;b&gt; &amp; such is escaped",
            "no picture: the gzip stream ends",
            "Best: sub-1552",
            "20230702",
            "0198c7a2-5b1e-7c43-9f0e-3a1d5f0c7b21",
            "2026-03-14 09:26 UTC",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert_eq!(page.matches("<img").count(), page.matches(" alt=\"Axial slice ").count());
    }

    #[test]
    fn a_page_without_anything_says_so() {
        let page =
            page(&ReportData { shows_run: true, ..ReportData::default() }, &Written::default());
        assert_well_formed(&page);
        for text in [
            "No case was quarantined",
            "trained no model",
            "scored no predictions",
            "measured no image quality",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn scores_without_cases_and_a_model_without_a_curve_draw() {
        let mut data = example::report();
        data.scores = Some(Scores::default());
        data.training = Some(Training::default());
        data.quality = Quality { cases: 1, ..Quality::default() };
        data.failures = Failures::default();
        let page = page(&data, &Written::default());
        assert_well_formed(&page);
        assert!(page.contains("The model has no training curve") && !page.contains("NaN"));
    }

    #[test]
    fn notes_stand_at_the_top() {
        let notes = vec!["Trained and tested on the same case.".to_owned()];
        let page = page(&ReportData { notes, ..ReportData::default() }, &Written::default());
        assert!(
            page.find("Trained and tested on the same case.").unwrap()
                < page.find("<main").unwrap()
        );
    }

    #[test]
    fn the_data_survive_json() {
        let data = example::report();
        let read: ReportData =
            serde_json::from_str(&serde_json::to_string(&data).unwrap()).unwrap();
        assert!(read.flow == data.flow && read.failures == data.failures);
        assert!(read.scores.unwrap().examples[0].slices == data.scores.unwrap().examples[0].slices);
    }

    #[test]
    fn moments_and_durations_are_short() {
        assert_eq!(minute("2026-01-31T12:00:05.1Z"), "2026-01-31 12:00 UTC");
        assert_eq!(minute("soon"), "soon");
        assert_eq!([5.0, 228.0, 7200.0].map(duration), ["5 s", "3.8 min", "2.0 h"]);
    }
}
