//! The files beside the page: each figure as SVG and PNG, each table as CSV and LaTeX, and a list of them with the SQL behind
//! each. They stand in a folder of the report's own, `report-files` beside `report.html`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};

use super::page::draw;
use super::{Exhibit, Part, Section};
use crate::error::{Error, Result};
use crate::formats::files;
use crate::report::charts;
use crate::report::html::STYLE;

/// Ending of a figure's file.
pub const SVG: &str = "svg";
/// Ending of a figure's file.
pub const PNG: &str = "png";
/// Ending of a table's file.
pub const CSV: &str = "csv";
/// Ending of a table's file.
pub const LATEX: &str = "tex";
/// The list of the files.
const CONTENTS: &str = "contents.json";
/// A list larger than this is none of ours.
const MAX_CONTENTS_BYTES: u64 = 64 << 20;

/// What was written beside a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Name of the folder; the page links to it.
    pub folder: String,
    /// Name of each file and the hash of its bytes.
    pub files: BTreeMap<String, String>,
}

impl Written {
    /// The link to a file, where it was written.
    pub fn link(&self, id: &str, kind: &str) -> Option<String> {
        let name = format!("{id}.{kind}");
        self.files.contains_key(&name).then(|| format!("{}/{name}", self.folder))
    }
}

/// The folder of a page's files.
pub fn folder(html: &Path) -> PathBuf {
    let stem = html.file_stem().unwrap_or_default().to_string_lossy();
    html.with_file_name(format!("{stem}-files"))
}

/// Writes the files of all sections, and removes those that the last report wrote and this one does not. Nothing is written
/// where there are no sections.
///
/// # Errors
/// A file cannot be written.
pub fn write(html: &Path, sections: &[Section]) -> Result<Written> {
    let folder = folder(html);
    let earlier = earlier(&folder);
    if sections.is_empty() && earlier.is_empty() {
        return Ok(Written::default());
    }
    let exhibits: Vec<&Exhibit> = sections.iter().flat_map(|s| &s.exhibits).collect();
    let made: Vec<Vec<(String, Vec<u8>)>> = exhibits
        .par_iter()
        .flat_map_iter(|exhibit| exhibit.parts.iter().flatten())
        .map(contents)
        .collect::<Result<_>>()?;
    let mut written = Written {
        folder: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        ..Written::default()
    };
    for (name, bytes) in made.into_iter().flatten() {
        let published = files::publish(&folder.join(&name), |out| Ok(out.write_all(&bytes)?))?;
        written.files.insert(name, published.blake3);
    }
    for name in earlier.iter().filter(|name| !written.files.contains_key(*name)) {
        // Gone already is as good.
        drop(std::fs::remove_file(folder.join(name)));
    }
    let list = list(&exhibits, &written);
    let text = serde_json::to_string_pretty(&list).map_err(|e| Error::bug(e.to_string()))?;
    files::publish(&folder.join(CONTENTS), |out| Ok(out.write_all(text.as_bytes())?))?;
    Ok(written)
}

/// The files of one part: name and bytes.
fn contents(part: &Part) -> Result<Vec<(String, Vec<u8>)>> {
    Ok(match part {
        Part::Figure { id, plot, .. } => {
            let markup = draw(id, plot).into_string();
            let svg = charts::standalone(&markup, STYLE)
                .ok_or_else(|| Error::bug(format!("the figure {id} is no SVG")))?;
            let png = charts::raster::png(&svg)?;
            vec![(format!("{id}.{SVG}"), svg.into_bytes()), (format!("{id}.{PNG}"), png)]
        }
        Part::Table { id, table } => vec![
            (format!("{id}.{CSV}"), table.csv().into_bytes()),
            (format!("{id}.{LATEX}"), table.latex().into_bytes()),
        ],
        Part::Case { .. } => Vec::new(),
    })
}

/// What the folder's list says: each file with its exhibit, hash and SQL.
fn list(exhibits: &[&Exhibit], written: &Written) -> Value {
    let mut files = Vec::new();
    for exhibit in exhibits {
        for part in exhibit.parts.iter().flatten() {
            let (id, kinds) = match part {
                Part::Figure { id, .. } => (id, &[SVG, PNG][..]),
                Part::Table { id, .. } => (id, &[CSV, LATEX][..]),
                Part::Case { .. } => continue,
            };
            for name in kinds.iter().map(|kind| format!("{id}.{kind}")) {
                if let Some(hash) = written.files.get(&name) {
                    let sql: Vec<&str> = exhibit.queries.iter().map(|q| q.sql.as_str()).collect();
                    files.push(json!({
                        "file": name, "title": exhibit.title, "blake3": hash, "sql": sql,
                    }));
                }
            }
        }
    }
    json!({ "files": files })
}

/// The files that the last report wrote. Other files in the folder are not ours to touch.
fn earlier(folder: &Path) -> Vec<String> {
    let text = files::read_text(&folder.join(CONTENTS), MAX_CONTENTS_BYTES).unwrap_or_default();
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let names = list["files"].as_array().into_iter().flatten();
    let name = |entry: &Value| entry["file"].as_str().map(str::to_owned);
    names.filter_map(name).filter(|name| !name.contains(['/', '\\'])).collect()
}
