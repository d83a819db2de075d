//! Messages without what they quote: no word of a message stays that stands in the input it is about.
//!
//! Which part of a message comes from the input cannot be told from the message, and every place that quotes would have to
//! be known. So the input is asked instead: its words are gathered, and those of a message that are among them are hidden,
//! plain words of English and of this program excepted. Paths are hidden whole.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::error::Error;
use crate::formats::files;

/// What stands where something was hidden.
const HIDDEN: &str = "[hidden]";

/// Most bytes of one text whose words are gathered.
const MAX_BYTES: u64 = 256 << 20;

/// Deepest folder whose names are gathered.
const MAX_DEPTH: usize = 12;

/// Digits from which a number is a word like any other, and not a count.
const LONG_NUMBER: usize = 4;

/// Words that say nothing of anybody: they stay, whatever the input holds.
#[rustfmt::skip]
const PLAIN: &[&str] = &[
    // English
    "a", "after", "all", "allowed", "already", "although", "an", "and", "another", "are", "as", "asked", "at", "be", "been",
    "before", "begins", "beside", "between", "but", "by", "can", "cannot", "column", "columns", "correct", "could", "data",
    "did", "different", "differ", "does", "each", "else", "empty", "end", "ends", "equal", "every", "exist", "expected",
    "fetch", "few", "file", "files", "first", "folder", "folders", "for", "found", "from", "give", "given", "has", "have",
    "header", "holds", "image", "images", "in", "inside", "instead", "is", "it", "its", "keep", "largest", "least", "leave",
    "left", "letters", "line", "link", "mask", "mean", "means", "missing", "more", "most", "name", "named", "names", "neither",
    "no", "none", "nor", "not", "of", "off", "on", "one", "only", "or", "other", "others", "out", "path", "pipe", "read",
    "regular", "remove", "rename", "right", "root", "row", "rows", "same", "set", "several", "shape", "so", "some", "such",
    "table", "tables", "text", "than", "that", "the", "their", "them", "there", "they", "this", "to", "too", "twice", "two",
    "up", "use", "used", "value", "values", "very", "was", "were", "what", "where", "which", "who", "whole", "will", "with",
    "within", "without", "word", "words", "write", "year", "you",
    // This program and its formats
    "acq", "adc", "age", "anat", "b0", "bids", "blake3", "bval", "bvec", "bytes", "case", "cases", "centre", "csv", "curve",
    "derivatives", "desc", "diffusion", "dim", "directory", "dwi", "flair", "gradient", "gz", "gzip", "hdr", "id", "img",
    "infarct", "json", "key", "label", "lesion", "manifest", "masks", "mm", "msk", "nifti", "nii", "parquet", "participant",
    "participant_id", "participants", "quarantined", "rawdata", "rec", "run", "scan", "ses", "session", "sessions", "sex",
    "sform", "qform", "sidecar", "site", "slice", "slices", "source", "space", "spacing", "sub", "subject", "trace", "truth",
    "tsv", "utf", "variable", "visit", "volume", "volumes", "voxel", "voxels", "weighted",
];

static IS_PLAIN: LazyLock<HashSet<&str>> = LazyLock::new(|| PLAIN.iter().copied().collect());

/// Words that messages must not show.
#[derive(Debug, Default)]
pub struct Scrubber {
    words: HashSet<String>,
    /// What stands for parts of paths: the part, its name in a message.
    called: Vec<(String, &'static str)>,
    /// Whether paths and names of files may be shown.
    names_shown: bool,
}

impl Scrubber {
    /// Hides nothing yet; with `names_shown` paths stay as they are.
    pub fn new(names_shown: bool) -> Self {
        Self { names_shown, ..Self::default() }
    }

    /// Calls a path, or the beginning of paths, by a name that says nothing of anybody.
    pub fn call(&mut self, path: String, name: &'static str) {
        if !self.names_shown {
            self.called.push((path, name));
        }
    }

    /// Adds the words of a text.
    pub fn add(&mut self, text: &str) {
        self.words.extend(tokens(text).filter(|t| t.1).map(|(word, _)| word.to_lowercase()));
    }

    /// Adds the words of a path and, where it is a link, of what it leads to.
    pub fn add_path(&mut self, path: &Path) {
        if self.names_shown {
            return;
        }
        self.add(&path.to_string_lossy());
        if let Ok(target) = fs::read_link(path) {
            self.add(&target.to_string_lossy());
        }
    }

    /// Adds the words of a file's text, as far as it can be read.
    pub fn add_text_of(&mut self, path: &Path) {
        if let Ok(bytes) = files::read_bounded(path, MAX_BYTES) {
            self.add(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Adds all names under a folder, and the words of the tables in it.
    pub fn add_tree(&mut self, folder: &Path) {
        self.add_path(folder);
        let mut open = vec![(folder.to_owned(), 0)];
        while let Some((folder, depth)) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                self.add(&entry.file_name().to_string_lossy());
                self.add_path(&path);
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => open.push((path, depth + 1)),
                    Ok(_) if path.extension().is_some_and(|e| e == "tsv" || e == "csv") => {
                        self.add_text_of(&path);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The text without what must not be shown.
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (path, name) in &self.called {
            text = text.replace(path, name);
        }
        let words: Vec<String> = text.split(' ').map(|word| self.clean_word(word)).collect();
        let mut clean = words.join(" ");
        let twice = format!("{HIDDEN} {HIDDEN}");
        while clean.contains(&twice) {
            clean = clean.replace(&twice, HIDDEN);
        }
        clean
    }

    /// The error with a clean reason and hint.
    pub fn clean_error(&self, error: Error) -> Error {
        error.rewritten(|text| self.clean(text))
    }

    fn clean_word(&self, word: &str) -> String {
        let slashed = word.len() > 1 && word.contains(['/', '\\']);
        if slashed && !self.names_shown && !["n/a", "s/mm²", "n/a,"].contains(&word) {
            let end = word.trim_end_matches([':', ',', ';', '.', '`', '"', ')']);
            return format!("{HIDDEN}{}", &word[end.len()..]);
        }
        tokens(word)
            .map(|(part, is_word)| {
                let part_is_private = is_word && self.words.contains(&part.to_lowercase());
                if part_is_private { HIDDEN } else { part }
            })
            .collect()
    }
}

/// The text in pieces, each with whether it is a word that can name somebody: not of one letter, no short number, not plain.
fn tokens(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let inside = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != inside).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        let number = piece.bytes().all(|b| b.is_ascii_digit());
        let long = if number { piece.len() >= LONG_NUMBER } else { piece.chars().count() > 1 };
        let names = inside && long && !IS_PLAIN.contains(piece.to_lowercase().as_str());
        Some((piece, names))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_input_are_hidden_and_the_rest_is_told() {
        let mut scrub = Scrubber::new(false);
        scrub.add("{\"PatientName\": \"Muster^Anna-Li\", \"PatientID\": 4711081, \"Rows\": 64, \"the\": 1}");
        scrub.add_path(Path::new("/data/site b/sub-Muster/dwi/sub-Muster_dwi.nii.gz"));
        for (message, clean) in [
            (
                "/data/site b/sub-Muster/dwi/sub-Muster_dwi.nii.gz: the file is empty (0 bytes)",
                "[hidden]: the file is empty (0 bytes)",
            ),
            ("`ANNA` and 4711081 in 64 voxels", "`[hidden]` and [hidden] in 64 voxels"),
            (
                "2 files could be the image: sub-Muster_dwi.nii.gz is used",
                "2 files could be the image: sub-[hidden]_dwi.nii.gz is used",
            ),
            ("expected 3 / 4 s/mm², found n/a", "expected 3 / 4 s/mm², found n/a"),
        ] {
            assert_eq!(
                scrub.clean(message).replace("[hidden] b/", "[hidden]/"),
                clean.to_owned(),
                "{message}"
            );
        }
    }

    #[test]
    fn names_may_be_shown_where_they_are_pseudonyms_already() {
        let mut scrub = Scrubber::new(true);
        scrub.add_path(Path::new("/data/sub-01/x.nii"));
        scrub.add("Anna");
        assert_eq!(scrub.clean("/data/sub-01/x.nii: `Anna`"), "/data/sub-01/x.nii: `[hidden]`");
    }
}
