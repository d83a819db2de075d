//! The table `curation`: what people corrected.

use super::{Timestamp, row, words};

words! {
    /// What an edit does.
    EditAction {
        /// Gives a case another value.
        Set = "set",
        /// Keeps a case out of every step.
        Exclude = "exclude",
        /// Takes an earlier edit back.
        Undo = "undo",
    }
}

row! {
    /// One edit of one case by a person. Rows are never changed: an edit is taken back by another one. Wherever `cases` is
    /// read by SQL or by a step, the edits are applied.
    #[derive(Default)]
    CurationRow of Curation {
        /// The edit's identifier; later edits sort after earlier ones.
        edit_id: String, None;
        /// `set`, `exclude` or `undo`.
        action: EditAction, None;
        /// The case.
        case_id: String, None;
        /// The column of `cases` that the edit is about; `excluded` for an exclusion.
        column_name: String, None;
        /// The value before the edit, as JSON.
        old_value: String, None;
        /// The value after it, as JSON.
        new_value: String, None;
        /// Why, in the words of the person.
        reason: String, None;
        /// The edit that this one takes back.
        undoes: Option<String>, None;
        /// Who made the edit.
        author: String, None;
        /// The version of the table cases that the person saw.
        catalog_version: i64, None;
        /// When the edit was made; the edits of one command have the same moment.
        edited_at: Timestamp, MicrosecondUtc;
    }
}
