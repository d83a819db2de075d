//! Folders, listed in order of names, and links followed only as long as they stay below one root.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::name::Name;
use crate::error::{Error, Result};
use crate::formats::files::io_error;

/// Deepest folder below the root that is looked into.
const MAX_DEPTH: usize = 12;

/// The folder that no link may lead out of.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

/// Something in a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    /// Neither, or a link that must not or cannot be followed; why.
    Unusable(String),
}

impl Tree {
    /// The tree below a folder.
    pub fn of(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(|e| io_error(root, "cannot be read", &e))?;
        Ok(Self { root })
    }

    /// What a folder holds, sorted by name. Names that are not Unicode and hidden ones are left out.
    pub fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        let failed = |e: &std::io::Error| io_error(folder, "cannot be listed", e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.') {
                let path = entry.path();
                let kind = self.kind(&path);
                entries.push(Entry { name, path, kind });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// What a path is, as far as it may be followed.
    pub fn kind(&self, path: &Path) -> Kind {
        let Ok(own) = fs::symlink_metadata(path) else {
            return Kind::Unusable("it cannot be read".into());
        };
        let real = if own.is_symlink() {
            match fs::canonicalize(path) {
                Ok(real) if real.starts_with(&self.root) => fs::metadata(&real),
                Ok(real) => {
                    return Kind::Unusable(format!(
                        "it is a link out of the folder, to {}",
                        real.display()
                    ));
                }
                Err(_) => {
                    let target = fs::read_link(path).unwrap_or_default();
                    return Kind::Unusable(format!(
                        "it is a link to {}, which does not exist",
                        target.display()
                    ));
                }
            }
        } else {
            Ok(own)
        };
        match real {
            Ok(m) if m.is_dir() => Kind::Folder,
            Ok(m) if m.is_file() => Kind::File,
            _ => Kind::Unusable("it is neither a file nor a folder".into()),
        }
    }

    /// All files below a folder, in order; folders that cannot be listed are passed over.
    pub fn files_below(&self, folder: &Path) -> Vec<Entry> {
        let mut files = Vec::new();
        self.walk(folder, MAX_DEPTH, &mut BTreeSet::new(), &mut files);
        files
    }

    fn walk(
        &self,
        folder: &Path,
        depth: usize,
        seen: &mut BTreeSet<PathBuf>,
        files: &mut Vec<Entry>,
    ) {
        // A linked folder may hold itself: each real folder is listed once.
        let new = fs::canonicalize(folder).is_ok_and(|real| seen.insert(real));
        if !new || depth == 0 {
            return;
        }
        for entry in self.list(folder).unwrap_or_default() {
            match entry.kind {
                Kind::Folder => self.walk(&entry.path, depth - 1, seen, files),
                _ => files.push(entry),
            }
        }
    }
}

/// A file with its name taken apart.
#[derive(Debug)]
pub(super) struct Named {
    pub name: Name,
    pub entry: Entry,
}

impl From<Entry> for Named {
    fn from(entry: Entry) -> Self {
        Self { name: Name::parse(&entry.name), entry }
    }
}

/// The error of a folder that is no folder.
pub(super) fn check_folder(root: &Path) -> Result<()> {
    let kind = fs::metadata(root).map_err(|e| io_error(root, "cannot be read", &e))?;
    if kind.is_dir() {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "{}: a file, where a BIDS folder is expected",
        root.display()
    ))
    .hint("for a table of cases, use a manifest instead"))
}
