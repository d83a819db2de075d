//! What stands behind the pseudonyms of a privacy policy, for those who hold its key.

use std::path::PathBuf;

use super::ingest;
use crate::error::Result;
use crate::formats::privacy::Privacy;
use crate::pipeline::{Action, Pipeline};

/// A case of a registry under its own name.
#[derive(Debug, Clone)]
pub struct Revealed {
    /// Its pseudonym.
    pub case_id: String,
    /// Its name in the registry.
    pub own_id: String,
    /// Its image, where it has one that can be used.
    pub image: Option<PathBuf>,
    /// Why the scan left it out, in full, where it did.
    pub reason: Option<String>,
}

/// Scans the registries that a pipeline ingests under a policy, for the cases of these pseudonyms; all where there are none.
///
/// # Errors
/// Where a key or a registry cannot be read.
pub fn reveal(pipeline: &Pipeline, case_ids: &[String]) -> Result<Vec<Revealed>> {
    let mut found = Vec::new();
    for step in &pipeline.steps {
        let Action::Ingest(params) = &step.action else { continue };
        let Some(policy) = &params.privacy else { continue };
        let privacy = Privacy::open(policy)?;
        let scan = ingest::files(params)?;
        let left_out = scan.findings.into_iter().filter(|f| f.excluded);
        let left_out = left_out.map(|f| (f.case_id, None, Some(f.reason)));
        let cases = scan.cases.into_iter().map(|c| (c.case_id, c.image, None)).chain(left_out);
        found.extend(cases.map(|(own_id, image, reason)| Revealed {
            case_id: privacy.id(&own_id),
            own_id,
            image,
            reason,
        }));
    }
    found.retain(|case| case_ids.is_empty() || case_ids.contains(&case.case_id));
    Ok(found)
}
