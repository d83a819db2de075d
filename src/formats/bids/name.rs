//! File names of BIDS: `key-value` entities joined by `_`, a suffix, an ending:
//! `sub-01_ses-2_acq-b1000_dwi.nii.gz`.
//!
//! Source: BIDS specification, "Common principles", file name structure.

/// A file name taken apart. Suffix and ending are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub entities: Vec<(String, String)>,
    pub suffix: String,
    /// From the first dot on: `.nii.gz`.
    pub ending: String,
}

impl Name {
    /// Every name can be taken apart; one that is not BIDS has few entities and an odd suffix.
    pub fn parse(name: &str) -> Self {
        let (stem, ending) = name.find('.').map_or((name, ""), |dot| name.split_at(dot));
        let mut parts: Vec<&str> = stem.split('_').collect();
        let suffix = match parts.last() {
            Some(last) if !last.contains('-') => parts.pop().unwrap_or_default(),
            _ => "",
        };
        let entities = parts
            .into_iter()
            .map(|part| part.split_once('-').unwrap_or((part, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self { entities, suffix: suffix.to_lowercase(), ending: ending.to_lowercase() }
    }

    /// The value of an entity.
    pub fn entity(&self, key: &str) -> Option<&str> {
        self.entities.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether one of the entities that describe a contrast has this value, in any case of letters.
    pub fn describes(&self, value: &str) -> bool {
        ["rec", "acq", "desc", "label"]
            .iter()
            .filter_map(|key| self.entity(key))
            .any(|v| v.eq_ignore_ascii_case(value))
    }

    pub fn is_nifti(&self) -> bool {
        matches!(self.ending.as_str(), ".nii" | ".nii.gz")
    }

    /// Whether a file of this name in a folder above also counts for `other`: the inheritance principle.
    pub fn applies_to(&self, other: &Self) -> bool {
        self.suffix == other.suffix && self.entities.iter().all(|e| other.entities.contains(e))
    }

    /// Whether it is a lesion mask: `_msk`, or a mask whose `desc` or `label` says lesion.
    pub fn is_truth(&self) -> bool {
        let lesion = |key| self.entity(key).is_some_and(|v| v.to_lowercase().contains("lesion"));
        let mask = matches!(self.suffix.as_str(), "mask" | "roi" | "dseg");
        // A prediction is no truth, wherever it was put.
        let predicted = self.entity("desc").is_some_and(|v| v.to_lowercase().contains("pred"));
        let known = self.suffix == "msk" || (mask && (lesion("desc") || lesion("label")));
        self.is_nifti() && known && !predicted
    }

    /// How far a mask's space is from the image's: 0 where it is the image's own, 1 for another.
    pub fn space_rank(&self) -> u8 {
        let own = ["trace", "dwi", "orig", "native", "individual"];
        match self.entity("space") {
            Some(space) if !own.iter().any(|o| space.eq_ignore_ascii_case(o)) => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let n = Name::parse("sub-01_ses-2_acq-b1000-x_DWI.nii.gz");
        assert_eq!((n.suffix.as_str(), n.ending.as_str()), ("dwi", ".nii.gz"));
        assert_eq!((n.entity("sub"), n.entity("acq")), (Some("01"), Some("b1000-x")));
        assert!(Name::parse("dwi.json").applies_to(&n));
        assert!(Name::parse("acq-b1000-x_dwi.json").applies_to(&n));
        assert!(!Name::parse("acq-b0_dwi.json").applies_to(&n));
        for odd in ["", ".", "_", "-", "a", "sub-", "sub-01"] {
            Name::parse(odd);
        }
    }

    #[test]
    fn masks_of_lesions_are_known() {
        for yes in [
            "sub-1_ses-1_msk.nii.gz",
            "sub-1_space-TRACE_desc-lesion_mask.nii.gz",
            "sub-1_label-L_desc-T1lesion_mask.nii",
            "sub-1_label-lesion_mask.nii.gz",
        ] {
            assert!(Name::parse(yes).is_truth(), "{yes}");
        }
        for no in [
            "sub-1_desc-brain_mask.nii.gz",
            "sub-1_msk.json",
            "sub-1_desc-prediction_label-lesion_mask.nii",
        ] {
            assert!(!Name::parse(no).is_truth(), "{no}");
        }
    }
}
