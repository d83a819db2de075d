//! The study's sections as markup: figures side by side, tables that scroll by themselves, the SQL folded away, and links
//! to the files beside the page.

use maud::{Markup, html};

use super::files::{CSV, LATEX, PNG, SVG, Written};
use super::table::{Cell, Row, Table};
use super::{Exhibit, Part, Plot, Section};
use crate::report::charts::{agreement, boxes, flow, lines, scatter};
use crate::report::html::{examples_legend, slices};

/// One section; `written` are the files beside the page.
pub fn section(section: &Section, written: &Written) -> Markup {
    let heading = format!("{}-heading", section.id);
    html! {
        section id=(section.id) aria-labelledby=(heading) {
            h2 id=(heading) { (section.title) }
            @if !section.text.is_empty() { p { (section.text) } }
            @for exhibit in &section.exhibits { (self::exhibit(exhibit, written)) }
        }
    }
}

fn exhibit(exhibit: &Exhibit, written: &Written) -> Markup {
    html! {
        div.exhibit id=(exhibit.id) {
            h3 { (exhibit.title) }
            @match &exhibit.parts {
                Ok(parts) => (self::parts(parts, written)),
                Err(reason) => p.not-computed { "Not computed: " (reason) },
            }
            @for note in &exhibit.notes { p.faint { (note) } }
            @if !exhibit.queries.is_empty() { details {
                summary { "SQL" }
                @for query in &exhibit.queries { p { (query.label) } pre tabindex="0" { code { (query.sql) } } }
            } }
        }
    }
}

/// Figures side by side, then cases, then tables.
fn parts(parts: &[Part], written: &Written) -> Markup {
    let is_wide = |part: &&Part| matches!(part, Part::Figure { plot: Plot::Flow(_), .. });
    let is_figure = |part: &&Part| matches!(part, Part::Figure { .. });
    let is_case = |part: &&Part| matches!(part, Part::Case { .. });
    html! {
        @for part in parts.iter().filter(is_wide) { (self::part(part, written)) }
        @if parts.iter().any(|p| is_figure(&p) && !is_wide(&p)) { div.columns {
            @for part in parts.iter().filter(|p| is_figure(p) && !is_wide(p)) { (self::part(part, written)) }
        } }
        @if parts.iter().any(|p| is_case(&p)) { (examples_legend()) }
        @for part in parts.iter().filter(is_case) { (self::part(part, written)) }
        @for part in parts.iter().filter(|p| !is_figure(p) && !is_case(p)) { (self::part(part, written)) }
    }
}

fn part(part: &Part, written: &Written) -> Markup {
    match part {
        Part::Figure { id, caption, plot } => html! {
            figure {
                (draw(id, plot))
                figcaption { (caption) " " (files(id, &[SVG, PNG], written)) }
            }
        },
        Part::Table { id, table } => html! {
            (self::table(id, table))
            @let links = files(id, &[CSV, LATEX], written);
            @if !links.0.is_empty() { p.files { (links) } }
        },
        Part::Case { example, lineage } => html! {
            figure.example {
                figcaption {
                    strong { (example.rank) ": " (example.case_id) }
                    (format!(" score {:.3}, reference {:.2} mL, prediction {:.2} mL. ", example.dice, example.volume_truth_ml, example.volume_predicted_ml))
                    "Lineage: " code { "torcula lineage " (lineage) }
                }
                (slices(&example.slices))
            }
        },
    }
}

/// The figure as markup. `id` is unique on the page.
pub fn draw(id: &str, plot: &Plot) -> Markup {
    match plot {
        Plot::Lines(found) => lines::draw(id, found),
        Plot::Scatter(found) => scatter::draw(id, found),
        Plot::BlandAltman(found) => agreement::draw(id, found),
        Plot::Boxes { label, groups } => boxes::draw(id, label, groups),
        Plot::Flow(found) => flow::draw(id, found),
    }
}

/// Links to those of the files that are there.
fn files(id: &str, kinds: &[&str], written: &Written) -> Markup {
    let there: Vec<(&str, String)> =
        kinds.iter().filter_map(|kind| Some((*kind, written.link(id, kind)?))).collect();
    html! { @for (kind, link) in there { a.file href=(link) { (kind.to_uppercase()) } " " } }
}

fn table(id: &str, table: &Table) -> Markup {
    html! {
        div.scroll role="region" aria-label=(table.caption_or(id)) tabindex="0" {
            table.study id=(id) {
                @if !table.caption.is_empty() { caption { (table.caption) } }
                thead { tr { @for head in &table.head { th scope="col" { (head) } } } }
                tbody { @for row in &table.rows {
                    @match row {
                        Row::Heading(text) => tr.heading { th colspan=(table.head.len()) scope="colgroup" { (text) } },
                        Row::Cells(cells) => tr { @for (i, cell) in cells.iter().enumerate() { (self::cell(i, cell)) } },
                    }
                } }
            }
        }
    }
}

fn cell(column: usize, cell: &Cell) -> Markup {
    let (text, small) = cell.words();
    let body = html! { (text) @if !small.is_empty() { small { (small) } } };
    match cell {
        _ if column == 0 => html! { th scope="row" { (body) } },
        Cell::NotComputed(_) => html! { td { span.faint { (body) } } },
        _ => html! { td { (body) } },
    }
}
