//! A manifest: a CSV, TSV or Parquet table with one row a case and columns that name its files.
//!
//! Relative paths start at the manifest's folder, and no path may lead out of it unless a wider root is given. Columns that name no file and no identifier become variables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::cases::is_id;
pub use super::cases::{CaseFiles, Finding, Scan};
use super::table::{Row, Separator, Table, is_missing, value};
use super::{files, nifti, parquet};
use crate::error::{Error, Result};

/// Which column holds what. A column that is not named here is looked for under its own name (`image`, `truth`, …)
/// and may be missing, except `image`; a column that is named must be there.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnMap {
    /// Identifier of the case; without it, subject and session make one.
    pub case_id: Option<String>,
    /// Who was scanned; without it, the case's identifier.
    pub subject_id: Option<String>,
    /// Which visit.
    pub session_id: Option<String>,
    /// The diffusion-weighted image.
    pub image: Option<String>,
    /// The lesion mask.
    pub truth: Option<String>,
    /// The image without diffusion weighting.
    pub b0: Option<String>,
    /// Apparent diffusion coefficients.
    pub adc: Option<String>,
    /// FLAIR image.
    pub flair: Option<String>,
    /// b-values of a 4-D image.
    pub bval: Option<String>,
    /// Gradient directions of a 4-D image.
    pub bvec: Option<String>,
    /// JSON sidecar of the image.
    pub sidecar: Option<String>,
    /// The hospital, as variable `centre`.
    pub centre: Option<String>,
    /// Further variables: name in the catalog → column.
    pub variables: BTreeMap<String, String>,
}

/// Reads a manifest (`.csv`, `.tsv`, `.parquet`).
///
/// A row whose image is missing, whose identifier cannot name a file or is there twice becomes an excluding finding;
/// another file that is named but missing becomes a note. The other rows go on. With `metadata_only` no file but the
/// manifest is opened, and the column `image` may be missing. Files must lie in `root`, links followed; where it is none, in
/// the manifest's folder.
///
/// # Errors
/// A configuration error where a column is missing or the ending is another; a data or I/O error where the table
/// cannot be read.
pub fn scan(
    path: &Path,
    columns: &ColumnMap,
    metadata_only: bool,
    root: Option<&Path>,
) -> Result<Scan> {
    let table = read(path)?;
    let places = Places::of(&table, columns, metadata_only)?;
    let reach = &Reach::of(path, root)?;
    let mut scan = Scan::default();
    let mut seen = BTreeMap::new();
    for row in &table.rows {
        let line = format!("{}: line {}", path.display(), row.line);
        let (id, subject, session) = identifiers(&places, row);
        let mut refuse = |reason: String, hint: &str| {
            let id = if id.is_empty() { format!("line-{}", row.line) } else { id.clone() };
            scan.findings.push(Finding::excludes(&id, reason, hint));
        };
        if let Some(reason) = table.ragged(row) {
            refuse(reason, "give every row as many cells as there are columns");
            continue;
        }
        if !is_id(&id) || !is_id(&subject) {
            refuse(
                format!("{line}: `{}` cannot name a case", id.escape_debug()),
                "use letters, digits, '-', '_' and '+' in identifiers",
            );
            continue;
        }
        if let Some(first) = seen.insert(id.clone(), row.line) {
            let reason = format!("{line}: the case {id} was already in line {first}");
            refuse(reason, "give every case one row and its own identifier");
            continue;
        }
        let image = match file(reach, places.image.and_then(|at| row.cells.get(at))) {
            _ if metadata_only => None,
            Ok(Some(image)) => Some(image),
            Ok(None) => {
                refuse(format!("{line}: no image is named"), "name the image's file in this row");
                continue;
            }
            Err(e) => {
                refuse(format!("{line}: {}", e.reason()), "correct the path, or fetch the file");
                continue;
            }
        };
        let mut case = CaseFiles::new(&id, subject, image);
        case.session_id = session;
        places.name_variables(&mut case, row);
        if !metadata_only {
            places.name_files(&mut case, row, reach, &line, &mut scan.findings);
        }
        scan.cases.push(case);
    }
    Ok(scan.finish())
}

/// Identifiers of case, subject and session; empty where there is none.
fn identifiers(places: &Places, row: &Row) -> (String, String, Option<String>) {
    let cell = |at: Option<usize>| {
        at.and_then(|at| row.cells.get(at)).filter(|c| !is_missing(c)).map(str::to_owned)
    };
    let (case, subject) = (cell(places.case_id), cell(places.subject_id));
    let session = cell(places.session_id);
    let joined = match (&subject, &session) {
        (Some(subject), Some(session)) => Some(format!("{subject}_{session}")),
        (subject, _) => subject.clone(),
    };
    let case = case.or(joined).unwrap_or_default();
    let subject = subject.unwrap_or_else(|| case.clone());
    (case, subject, session)
}

/// Where the files of a manifest may be.
struct Reach {
    /// Where relative paths start.
    folder: PathBuf,
    /// What no path leads out of, without links.
    root: PathBuf,
}

impl Reach {
    fn of(manifest: &Path, root: Option<&Path>) -> Result<Self> {
        let folder = match manifest.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let root = root.unwrap_or(folder);
        let real =
            fs::canonicalize(root).map_err(|e| files::io_error(root, "cannot be read", &e))?;
        Ok(Self { folder: folder.to_owned(), root: real })
    }

    /// Refuses a file that lies, links followed, outside of the root.
    fn check(&self, path: &Path) -> Result<()> {
        let real =
            fs::canonicalize(path).map_err(|e| files::io_error(path, "cannot be read", &e))?;
        if real.starts_with(&self.root) {
            return Ok(());
        }
        Err(Error::data(format!(
            "{}: it leads out of {}, to {}",
            path.display(),
            self.root.display(),
            real.display()
        ))
        .hint("keep the files beside the manifest, or set `root` of the ingest to a folder that holds them"))
    }
}

/// The file that a cell names; none where it is empty.
fn file(reach: &Reach, cell: Option<&str>) -> Result<Option<PathBuf>> {
    let Some(cell) = cell.filter(|c| !is_missing(c)) else {
        return Ok(None);
    };
    let path = reach.folder.join(files::resolve(cell)?);
    reach.check(&path)?;
    files::open_regular(&path)?;
    if let Some(other) = nifti::other_half(&path) {
        reach.check(&other)?;
    }
    Ok(Some(path))
}

type Slot = fn(&mut CaseFiles) -> &mut Option<PathBuf>;

/// Where in a row each thing is.
struct Places {
    case_id: Option<usize>,
    subject_id: Option<usize>,
    session_id: Option<usize>,
    image: Option<usize>,
    files: Vec<(&'static str, usize, Slot)>,
    /// Name and place of each variable.
    variables: Vec<(String, usize)>,
}

impl Places {
    fn of(table: &Table, map: &ColumnMap, metadata_only: bool) -> Result<Self> {
        let find = |named: &Option<String>, own: &str| match named {
            Some(name) => table.column(name).map(Some),
            None => Ok(table.find(own)),
        };
        let slots: [(&'static str, &Option<String>, Slot); 7] = [
            ("truth", &map.truth, |c| &mut c.truth),
            ("b0", &map.b0, |c| &mut c.b0),
            ("adc", &map.adc, |c| &mut c.adc),
            ("flair", &map.flair, |c| &mut c.flair),
            ("bval", &map.bval, |c| &mut c.bval),
            ("bvec", &map.bvec, |c| &mut c.bvec),
            ("sidecar", &map.sidecar, |c| &mut c.sidecar),
        ];
        let mut files = Vec::new();
        for (own, named, slot) in slots {
            files.extend(find(named, own)?.map(|at| (own, at, slot)));
        }
        let mut places = Self {
            case_id: find(&map.case_id, "case_id")?,
            subject_id: find(&map.subject_id, "subject_id")?,
            session_id: find(&map.session_id, "session_id")?,
            image: if metadata_only {
                table.find(map.image.as_deref().unwrap_or("image"))
            } else {
                Some(table.column(map.image.as_deref().unwrap_or("image"))?)
            },
            files,
            variables: Vec::new(),
        };
        if places.case_id.is_none() && places.subject_id.is_none() {
            // Says which columns there are, and the nearest.
            table.column("case_id")?;
        }
        places.variables = places.variables_of(table, map)?;
        Ok(places)
    }

    fn variables_of(&self, table: &Table, map: &ColumnMap) -> Result<Vec<(String, usize)>> {
        let mut variables = Vec::new();
        let centre = map.centre.as_ref().map(|column| ("centre", column));
        let named = map.variables.iter().map(|(name, column)| (name.as_str(), column));
        for (name, column) in centre.into_iter().chain(named) {
            variables.push((name.to_owned(), table.column(column)?));
        }
        let used: BTreeSet<usize> = [self.case_id, self.subject_id, self.session_id, self.image]
            .into_iter()
            .flatten()
            .chain(self.files.iter().map(|(_, at, _)| *at))
            .chain(variables.iter().map(|(_, at)| *at))
            .collect();
        for (at, column) in table.columns.iter().enumerate() {
            let free = !used.contains(&at) && !variables.iter().any(|(name, _)| name == column);
            if free && !column.is_empty() {
                variables.push((column.clone(), at));
            }
        }
        Ok(variables)
    }

    fn name_variables(&self, case: &mut CaseFiles, row: &Row) {
        let cell = |at: usize| value(row.cells.get(at).unwrap_or_default());
        case.variables =
            self.variables.iter().map(|(name, at)| (name.clone(), cell(*at))).collect();
    }

    fn name_files(
        &self,
        case: &mut CaseFiles,
        row: &Row,
        reach: &Reach,
        line: &str,
        findings: &mut Vec<Finding>,
    ) {
        for (what, at, slot) in &self.files {
            match file(reach, row.cells.get(*at)) {
                Ok(found) => *slot(case) = found,
                Err(e) => findings.push(Finding::notes(
                    &case.case_id,
                    format!("{line}: {what}: {}", e.reason()),
                    "correct the path, or leave the cell empty",
                )),
            }
        }
    }
}

fn read(path: &Path) -> Result<Table> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "csv" => Table::read(path, Separator::Comma),
        "tsv" => Table::read(path, Separator::Tab),
        "parquet" => parquet::read(path),
        _ => Err(Error::configuration(format!(
            "{}: a manifest ends with .csv, .tsv or .parquet",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::error::Fault;
    use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
    use datafusion::parquet::arrow::ArrowWriter;
    use serde_json::json;
    use std::sync::Arc;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.nii.gz", "b.nii.gz", "m.nii.gz"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        dir
    }

    #[test]
    fn rows_become_cases_and_bad_rows_findings() {
        let dir = folder();
        let path = dir.path().join("m.csv");
        fs::write(
            &path,
            "case,dwi,mask,hospital,NIHSS\n\
             s1,a.nii.gz,m.nii.gz,A,7\n\
             s2,b.nii.gz,absent.nii.gz,B,\n\
             s3,absent.nii.gz,,B,1\n\
             ../s4,a.nii.gz,,B,1\n\
             s1,b.nii.gz,,B,1\n\
             s5,s3://x/y,,B,1\n\
             s6,a.nii.gz\n\
             s7,,,B,1\n",
        )
        .unwrap();
        let name = |n: &str| Some(n.to_owned());
        let map = ColumnMap {
            case_id: name("case"),
            image: name("dwi"),
            truth: name("mask"),
            centre: name("hospital"),
            variables: BTreeMap::from([("nihss".into(), "NIHSS".into())]),
            ..ColumnMap::default()
        };
        let found = scan(&path, &map, false, None).unwrap();
        // The identifier that is there twice is left out altogether: nobody knows which row is right.
        let ids: Vec<&str> = found.cases.iter().map(|c| c.case_id.as_str()).collect();
        assert_eq!(ids, ["s2"]);
        assert_eq!(
            found.cases[0].variables.to_map(),
            *json!({"centre": "B", "nihss": null}).as_object().unwrap()
        );
        let excluded: Vec<&str> =
            found.findings.iter().filter(|f| f.excluded).map(|f| f.case_id.as_str()).collect();
        assert_eq!(excluded, ["___s4", "s1", "s3", "s5", "s6", "s7"]);
        assert!(found.findings.iter().any(|f| f.case_id == "s2" && !f.excluded));
    }

    #[test]
    fn a_missing_column_is_named_with_the_nearest() {
        let dir = folder();
        let path = dir.path().join("m.tsv");
        fs::write(&path, "case_id\timages\nx\ta.nii.gz\n").unwrap();
        let error = scan(&path, &ColumnMap::default(), false, None).unwrap_err();
        assert_eq!(error.fault(), Fault::Configuration);
        assert!(error.reason().contains("`image`") && error.advice().unwrap().contains("`images`"));
    }

    #[test]
    fn metadata_alone_opens_no_file() {
        let dir = folder();
        let path = dir.path().join("m.csv");
        fs::write(&path, "case_id,truth,age\ns1,absent.nii.gz,71\ns1,,72\ns2,,\n").unwrap();
        assert!(
            scan(&path, &ColumnMap::default(), false, None).is_err(),
            "there is no column `image`"
        );
        let found = scan(&path, &ColumnMap::default(), true, None).unwrap();
        assert_eq!(found.cases.len(), 1, "s1 is there twice");
        assert_eq!((&found.cases[0].image, &found.cases[0].truth), (&None, &None));
        assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
    }

    #[test]
    fn parquet_says_the_same_as_csv() {
        let dir = folder();
        let [csv, parquet] = ["m.csv", "m.parquet"].map(|n| dir.path().join(n));
        fs::write(&csv, "subject_id,session_id,image,age\np1,1,a.nii.gz,70.5\np2,2,b.nii.gz,\n")
            .unwrap();
        let text = |v: [&str; 2]| -> ArrayRef { Arc::new(StringArray::from_iter_values(v)) };
        let batch = RecordBatch::try_from_iter([
            ("subject_id", text(["p1", "p2"])),
            ("session_id", text(["1", "2"])),
            ("image", text(["a.nii.gz", "b.nii.gz"])),
            ("age", Arc::new(Float64Array::from(vec![Some(70.5), None]))),
        ])
        .unwrap();
        let mut writer =
            ArrowWriter::try_new(fs::File::create(&parquet).unwrap(), batch.schema(), None)
                .unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let [a, b] = [csv, parquet].map(|p| scan(&p, &ColumnMap::default(), false, None).unwrap());
        assert_eq!(a, b);
        assert_eq!((a.cases[0].case_id.as_str(), a.cases.len()), ("p1_1", 2));
        fs::write(dir.path().join("m.parquet"), "PAR1 no").unwrap();
        assert!(scan(&dir.path().join("m.parquet"), &ColumnMap::default(), false, None).is_err());
    }
}
