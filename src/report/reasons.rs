//! Groups failures whose reasons differ only in numbers, paths and identifiers, so that a flow chart can say
//! `SNR … is below 4` for twelve cases. What all cases of a group share is kept word for word.

use std::collections::BTreeMap;

use super::data::Reason;

/// Reasons of one stage, grouped.
#[derive(Debug, Clone, Default)]
pub struct Reasons(BTreeMap<Vec<Kind>, (Vec<String>, u64)>);

/// What decides whether two words may be merged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Word(String),
    Number,
    Name,
}

impl Reasons {
    /// Counts the reason of one case.
    pub fn add(&mut self, case_id: &str, reason: &str) {
        let words: Vec<String> = reason.split_whitespace().map(without_folder).collect();
        let kinds = words.iter().map(|word| kind(word, case_id)).collect();
        let (common, cases) = self.0.entry(kinds).or_insert_with(|| (words.clone(), 0));
        for (kept, word) in common.iter_mut().zip(&words) {
            if kept != word {
                *kept = merged(kept, word);
            }
        }
        *cases += 1;
    }

    /// The groups, largest first; beyond `most` they are summed up as one.
    pub fn list(&self, most: usize) -> Vec<Reason> {
        let mut all: Vec<Reason> = self
            .0
            .values()
            .map(|(words, cases)| Reason { reason: words.join(" "), cases: *cases })
            .collect();
        all.sort_by(|a, b| b.cases.cmp(&a.cases).then_with(|| a.reason.cmp(&b.reason)));
        if all.len() > most.max(1) {
            let rest = all.split_off(most.max(1) - 1);
            let reason = format!("{} other reasons, in the table of failures", rest.len());
            all.push(Reason { reason, cases: rest.iter().map(|r| r.cases).sum() });
        }
        all
    }
}

fn kind(word: &str, case_id: &str) -> Kind {
    let has_digit = word.contains(|c: char| c.is_ascii_digit());
    let is_file =
        word.trim_end_matches([':', ',', ';']).contains(".nii") || word.contains(['/', '\\']);
    if is_file || (!case_id.is_empty() && word.contains(case_id)) {
        Kind::Name
    } else if has_digit && word.chars().all(|c| !c.is_alphabetic() || "eExX×".contains(c)) {
        Kind::Number
    } else {
        Kind::Word(word.to_owned())
    }
}

/// The name of a file without its folders; any other word as it is.
pub fn without_folder(word: &str) -> String {
    let is_path = word.starts_with('/') || word.matches('/').count() > 1;
    let name = word.rsplit('/').next().filter(|name| is_path && !name.is_empty());
    name.unwrap_or(word).to_owned()
}

/// `…`, with the punctuation after the word that both share.
fn merged(a: &str, b: &str) -> String {
    let tail = |word: &str| word.chars().last().filter(|c| matches!(c, ',' | ';' | ':' | '%'));
    match (tail(a), tail(b)) {
        (Some(x), Some(y)) if x == y => format!("…{x}"),
        _ => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_differ_become_an_ellipsis_and_the_rest_stays() {
        let mut reasons = Reasons::default();
        reasons.add("sub-1", "SNR 3.2 is below 4");
        reasons.add("sub-2", "SNR 2.9 is below 4");
        reasons.add("sub-3", "/data/sub-3_dwi.nii.gz: the file is empty");
        let list = reasons.list(5);
        assert_eq!(list[0], Reason { reason: "SNR … is below 4".to_owned(), cases: 2 });
        assert_eq!(list[1].reason, "sub-3_dwi.nii.gz: the file is empty");
        reasons.add("sub-4", "/data/sub-4_dwi.nii.gz: the file is empty");
        assert!(
            reasons
                .list(5)
                .contains(&Reason { reason: "…: the file is empty".to_owned(), cases: 2 })
        );
    }

    #[test]
    fn every_case_is_counted_however_few_reasons_are_listed() {
        let mut reasons = Reasons::default();
        for (i, word) in ["a", "b", "c", "d", "e", "a"].iter().enumerate() {
            reasons.add(&format!("sub-{i}"), word);
        }
        for most in 0..7 {
            let list = reasons.list(most);
            assert!(list.len() <= most.max(1));
            assert_eq!(list.iter().map(|r| r.cases).sum::<u64>(), 6);
        }
    }
}
