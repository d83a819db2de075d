//! What a pipeline file declares about privacy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields;
use super::key::KeySource;

/// What becomes of the ids of cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// Keyed hashes; paths are sealed, names of files appear nowhere.
    #[default]
    Hash,
    /// As they are: names of files and folders are pseudonyms already.
    Keep,
}

/// What of the identifying parts of a registry is let into the catalog. `privacy: {}` is the policy with its defaults: ids are
/// hashed, known identifying fields and free text dropped, dates dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Where the key of hashes, shifts and sealed paths is.
    pub key: KeySource,
    /// What becomes of the ids that names of files and folders give.
    pub ids: Ids,
    /// Whether dates are shifted by whole days, the same for all dates of a patient, instead of dropped.
    pub shift_dates: bool,
    /// Fields that are dropped beside the known ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// Fields (of the table, of sidecars, or `descrip`, `aux_file`, `intent_name`, `db_name`) whose keyed hash is kept among
    /// the variables: enough to join with another table that was hashed with the same key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hash: Vec<String>,
    /// Fields that no case may have: one with a value for it is quarantined. Beside those of `hash`, `extensions` means
    /// extensions of the NIfTI header.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refuse: Vec<String>,
    /// Fields that are harmless, although they are known to identify elsewhere or hold text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
}

impl Policy {
    /// What is wrong with it: keys below `privacy`, and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems: Vec<(String, String)> = self
            .key
            .problem()
            .map(|(key, why)| (key.to_owned(), why.to_owned()))
            .into_iter()
            .collect();
        let lists = [
            ("drop", &self.drop),
            ("hash", &self.hash),
            ("refuse", &self.refuse),
            ("keep", &self.keep),
        ];
        for (i, (name, list)) in lists.iter().enumerate() {
            for (other, later) in &lists[i + 1..] {
                if let Some(field) = later.iter().find(|field| fields::is_in(list, field)) {
                    let why = format!("`{field}` is in `{name}` too: one field, one rule");
                    problems.push(((*other).to_owned(), why));
                }
            }
        }
        problems
    }

    /// Whether anything of it needs a key.
    pub fn needs_key(&self) -> bool {
        self.ids == Ids::Hash || self.shift_dates || !self.hash.is_empty()
    }
}
