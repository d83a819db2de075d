//! Errors of the libraries underneath, sorted by whose fault they are.

use std::error::Error as _;
use std::io;
use std::path::Path;

use datafusion::common::{Column, DataFusionError, SchemaError};
use deltalake_core::DeltaTableError;

use super::Table;
use crate::error::{Error, Fault};

/// How far a name may be from the one meant.
const NEAR: f64 = 0.7;

/// The candidate most like `name`, where one is like it.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// `did you mean 'x'? the columns are a, b, c`.
pub(super) fn did_you_mean(name: &str, what: &str, candidates: &[&str]) -> String {
    let all = format!("the {what} are {}", candidates.join(", "));
    match nearest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? {all}"),
        None => all,
    }
}

/// A failure of the table store while doing something (`append to`) with a table.
pub(super) fn delta(doing: &str, table: Table, error: &DeltaTableError) -> Error {
    let error = stored(error, &error.to_string());
    error.context(format!("could not {doing} the table '{table}'"))
}

/// A failure of the file system at a path.
pub(super) fn file(doing: &str, path: &Path, error: &io::Error) -> Error {
    let failure = stored(error, &error.to_string());
    failure.context(format!("could not {doing} {}", path.display()))
}

fn stored(error: &(dyn std::error::Error + 'static), reason: &str) -> Error {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    return Error::disk_full(reason);
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    return Error::io(reason).hint("give yourself access to the catalog's folder");
                }
                _ => {}
            }
        }
        cause = inner.source();
    }
    Error::io(reason)
}

/// A failure of a query.
pub(super) fn query(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => error.clone(),
            None => match inner.downcast_ref::<DeltaTableError>() {
                Some(error) => stored(error, &error.to_string()),
                None => Error::io(inner.to_string()),
            },
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => query(inner),
        DataFusionError::Shared(inner) => query(inner),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => query(first),
            None => Error::bug(error.to_string()),
        },
        DataFusionError::SchemaError(inner, _) => schema(inner),
        DataFusionError::SQL(inner, _) => Error::configuration(inner.to_string()),
        DataFusionError::IoError(inner) => stored(inner, &inner.to_string()),
        DataFusionError::ObjectStore(inner) => stored(inner.as_ref(), &inner.to_string()),
        DataFusionError::ParquetError(inner) => Error::io(inner.to_string())
            .hint("a file of the catalog is damaged or gone; restore the folder from a copy"),
        DataFusionError::ResourcesExhausted(reason) => Error::resource(reason.clone()),
        DataFusionError::Internal(reason) => Error::bug(reason.clone()),
        DataFusionError::Plan(reason)
        | DataFusionError::Execution(reason)
        | DataFusionError::NotImplemented(reason)
        | DataFusionError::Configuration(reason) => Error::configuration(reason.clone()),
        DataFusionError::ArrowError(inner, _) => Error::configuration(inner.to_string()),
        other => match other.source().and_then(|source| source.downcast_ref::<Error>()) {
            Some(error) => error.clone(),
            None => Error::new(Fault::Bug, other.to_string()),
        },
    }
}

fn schema(error: &SchemaError) -> Error {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return Error::configuration(error.to_string());
    };
    let failure = Error::configuration(format!("there is no column '{}'", field.flat_name()));
    if valid_fields.is_empty() {
        return failure;
    }
    let mut names: Vec<&str> = valid_fields.iter().map(Column::name).collect();
    names.dedup();
    failure.hint(did_you_mean(field.name(), "columns", &names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_or_not() {
        let tables = Table::ALL.map(Table::name);
        assert_eq!(nearest("case", tables), Some("cases"));
        assert_eq!(nearest("artefacts", tables), Some("artifacts"));
        assert_eq!(nearest("xyz", tables), None);
    }

    #[test]
    fn full_disk_is_a_resource_fault() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = file("write", Path::new("x"), &full);
        assert_eq!(error.fault(), Fault::Resource);
    }
}
