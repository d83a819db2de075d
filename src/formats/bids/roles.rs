//! Which of a visit's files is the image, and which belong to it.
//!
//! | role | names |
//! |---|---|
//! | image | `_dwi`, `_trace`; of several, `rec-TRACE`, `b1000` and the like come first |
//! | adc | `_adc`, or `_dwi` with `rec-`, `acq-` or `desc-ADC` |
//! | b0 | `_b0`, `_dwi` with `b0`, or else `_sbref` |
//! | flair | `_flair` |

use std::path::PathBuf;

use super::name::Name;
use super::tree::{Kind, Named};
use crate::formats::cases::{CaseFiles, Finding};

/// Puts a visit's files into a case; an excluding finding where there is no image to read.
pub(super) fn assign(
    case_id: &str,
    subject_id: &str,
    files: &[Named],
    findings: &mut Vec<Finding>,
) -> Option<CaseFiles> {
    let nifti: Vec<&Named> = files.iter().filter(|f| f.name.is_nifti()).collect();
    let mut pick = |rank: fn(&Name) -> Option<u8>, what: &str| -> Option<PathBuf> {
        best(&nifti, rank, case_id, what, findings)
    };
    let image = pick(image_rank, "diffusion-weighted image");
    let [adc, b0, flair] = [
        pick(|n| is_adc(n).then_some(0), "ADC image"),
        pick(b0_rank, "b = 0 image"),
        pick(|n| (n.suffix == "flair").then_some(0), "FLAIR image"),
    ];
    let Some(image) = image else {
        let broken = nifti.iter().find_map(|f| match &f.entry.kind {
            Kind::Unusable(why) if image_rank(&f.name).is_some() => Some((f, why)),
            _ => None,
        });
        let reason = match broken {
            Some((f, why)) => format!("{} cannot be used: {why}", f.entry.path.display()),
            None => "there is no diffusion-weighted image (…_dwi.nii.gz)".to_owned(),
        };
        findings.push(Finding::excludes(
            case_id,
            reason,
            "add the image, or remove the empty folder",
        ));
        return None;
    };
    let mut case = CaseFiles::new(case_id, subject_id, Some(image));
    (case.adc, case.b0, case.flair) = (adc, b0, flair);
    Some(case)
}

/// The usable file of the lowest rank; of equals, the first by name, with a note.
pub(super) fn best(
    files: &[&Named],
    rank: fn(&Name) -> Option<u8>,
    case_id: &str,
    what: &str,
    findings: &mut Vec<Finding>,
) -> Option<PathBuf> {
    let mut ranked: Vec<(u8, &Named)> =
        files.iter().filter_map(|f| Some((rank(&f.name)?, *f))).collect();
    for (_, f) in &ranked {
        if let Kind::Unusable(why) = &f.entry.kind {
            let reason = format!("{} is passed over: {why}", f.entry.path.display());
            findings.push(Finding::notes(case_id, reason, ""));
        }
    }
    ranked.retain(|(_, f)| f.entry.kind == Kind::File);
    ranked.sort_by(|(a, f), (b, g)| a.cmp(b).then_with(|| f.entry.path.cmp(&g.entry.path)));
    let (rank, first) = *ranked.first()?;
    let equals = ranked.iter().filter(|(r, _)| *r == rank).count();
    if equals > 1 {
        let reason = format!("{equals} files could be the {what}: {} is used", first.entry.name);
        findings.push(Finding::notes(case_id, reason, "use a manifest to choose another"));
    }
    Some(first.entry.path.clone())
}

fn image_rank(name: &Name) -> Option<u8> {
    let weighted = matches!(name.suffix.as_str(), "dwi" | "trace");
    if !weighted || is_adc(name) || b0_rank(name).is_some() || name.entity("part") == Some("phase")
    {
        return None;
    }
    if ["fa", "colfa", "exp", "eadc", "md"].iter().any(|map| name.describes(map)) {
        return None;
    }
    let trace = ["trace", "tracew", "iso", "b1000", "b800"].iter().any(|t| name.describes(t));
    Some(u8::from(!trace && name.suffix != "trace"))
}

fn is_adc(name: &Name) -> bool {
    name.suffix == "adc" || (name.suffix == "dwi" && name.describes("adc"))
}

fn b0_rank(name: &Name) -> Option<u8> {
    match name.suffix.as_str() {
        "b0" => Some(0),
        "dwi" if name.describes("b0") => Some(0),
        "sbref" => Some(1),
        _ => None,
    }
}
