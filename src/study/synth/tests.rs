//! The registry as a whole: replay, what is in it, and that every broken case is broken for certain.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::formats::nifti;

fn small(cases: usize, broken_share: f64) -> Options {
    Options {
        cases,
        sites: 3,
        broken_share,
        matrix: Some(24),
        slices: Some(8),
        ..Options::default()
    }
}

fn made(options: &Options) -> (tempfile::TempDir, Summary) {
    let folder = tempfile::tempdir().unwrap();
    let summary = write(folder.path(), options, &|_| ()).unwrap();
    (folder, summary)
}

/// Every file under a folder with its bytes; links with their targets, folders with nothing.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let bytes = if meta.is_symlink() {
                std::fs::read_link(&path).unwrap().to_string_lossy().into_owned().into_bytes()
            } else if meta.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                std::fs::read(&path).unwrap()
            };
            all.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
        }
    }
    all
}

fn image(root: &Path, id: &str) -> PathBuf {
    root.join(id).join("dwi").join(format!("{id}_dwi.nii.gz"))
}

fn mask(root: &Path, id: &str) -> PathBuf {
    root.join("derivatives/lesions").join(id).join(format!("dwi/{id}_label-lesion_mask.nii.gz"))
}

#[test]
fn threads_do_not_change_a_byte() {
    let options = small(26, 0.5);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (folder, summary) = pool.install(|| made(&options));
        (contents(folder.path()), summary)
    };
    let (one, two) = (with(1), with(2));
    assert_eq!(one.1, two.1);
    assert_eq!(one.0.keys().collect::<Vec<_>>(), two.0.keys().collect::<Vec<_>>());
    for (path, bytes) in &one.0 {
        assert!(*bytes == two.0[path], "{}", path.display());
    }
    let other = made(&Options { seed: 1, ..options });
    assert!(contents(other.0.path()) != one.0);
}

#[test]
fn whole_cases_can_be_read_and_masks_lie_on_their_grid() {
    let (folder, summary) = made(&small(12, 0.0));
    assert_eq!((summary.cases, summary.broken.len()), (12, 0));
    let mut bytes = 0;
    let mut sizes = Vec::new();
    for i in 1..=12 {
        let id = format!("sub-{i:04}");
        let (b0, header) = nifti::read_image(&image(folder.path(), &id), 0).unwrap();
        let (dwi, _) = nifti::read_image(&image(folder.path(), &id), 1).unwrap();
        let (truth, _) = nifti::read_mask(&mask(folder.path(), &id)).unwrap();
        assert_eq!(header.shape, [24, 24, 8, 2]);
        assert!(b0.grid().matches(&truth.grid(), 1e-3) && dwi.grid() == b0.grid());
        assert!(b0.data.sum() > dwi.data.sum() && dwi.data.sum() > 0.0);
        sizes.push(truth.voxels().iter().map(|v| usize::from(*v)).sum::<usize>());
        bytes += std::fs::metadata(image(folder.path(), &id)).unwrap().len();
        bytes += std::fs::metadata(mask(folder.path(), &id)).unwrap().len();
    }
    assert_eq!(bytes, summary.bytes);
    assert!(sizes.iter().filter(|n| **n >= 20).count() >= 9, "{sizes:?}");
    let table = std::fs::read_to_string(folder.path().join("participants.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split('\t').collect()).collect();
    assert!(rows.len() == 13 && rows.iter().all(|r| r.len() == rows[0].len()));
    let centres: BTreeSet<&str> = rows[1..].iter().map(|r| r[1]).collect();
    assert_eq!(centres.len(), 3);
}

#[test]
fn exactly_the_listed_cases_are_broken() {
    let (folder, summary) = made(&small(48, 0.5));
    let root = folder.path();
    assert_eq!(summary.broken.len(), 24);
    let kinds: BTreeSet<&str> = summary.broken.iter().map(|(_, k)| k.name()).collect();
    assert_eq!(kinds.len(), Broken::ALL.len());
    let lines: Vec<String> = std::iter::once("case_id\tkind".to_owned())
        .chain(summary.broken.iter().map(|(id, kind)| format!("{id}\t{}", kind.name())))
        .collect();
    let list = std::fs::read_to_string(root.join("sourcedata/broken.tsv")).unwrap();
    assert_eq!(list.lines().collect::<Vec<_>>(), lines);
    let broken: BTreeMap<&str, Broken> =
        summary.broken.iter().map(|(id, kind)| (id.as_str(), *kind)).collect();
    let mut seen = BTreeSet::new();
    for i in 1..=48 {
        let id = format!("sub-{i:04}");
        let found = diagnose(root, &id, &mut seen);
        assert_eq!(found, broken.get(id.as_str()).copied(), "{id}");
    }
}

/// How a case is broken, by looking at its files; `seen` holds the images of the cases before it.
fn diagnose(root: &Path, id: &str, seen: &mut BTreeSet<Vec<u8>>) -> Option<Broken> {
    let path = image(root, id);
    let Ok(meta) = path.symlink_metadata() else { return Some(Broken::MissingImage) };
    if meta.is_dir() {
        return Some(Broken::Directory);
    }
    if !path.exists() {
        return Some(Broken::DanglingLink);
    }
    if meta.len() == 0 {
        return Some(Broken::ZeroBytes);
    }
    let reason = match nifti::read_header(&path) {
        Err(e) if e.reason().contains("magic") || e.reason().contains("NIfTI") => {
            return Some(Broken::WrongMagic);
        }
        Err(_) => return Some(Broken::HugeDimensions),
        Ok(header) if header.voxels() as u64 > 1 << 36 => return Some(Broken::HugeDimensions),
        Ok(_) => nifti::read_image(&path, 1),
    };
    let Ok((dwi, _)) = reason else { return Some(Broken::TruncatedGzip) };
    let values = dwi.voxels();
    if values.iter().any(|v| !v.is_finite()) {
        return Some(Broken::NotFinite);
    }
    if values.iter().all(|v| v.to_bits() == values[0].to_bits()) {
        return Some(if values[0] == 0.0 { Broken::EmptyImage } else { Broken::ConstantImage });
    }
    let (truth, _) = nifti::read_mask(&mask(root, id)).unwrap();
    if truth.grid().shape != dwi.grid().shape {
        return Some(Broken::MaskOnAnotherGrid);
    }
    (!seen.insert(std::fs::read(&path).unwrap())).then_some(Broken::Duplicate)
}

#[test]
fn the_share_of_broken_cases_is_met() {
    for (cases, share, wanted) in [(500, 0.04, 20), (10, 0.25, 3), (3, 1.0, 3), (7, 0.0, 0)] {
        let plan = broken::plan(cases, share, 3);
        assert_eq!(plan.len(), wanted);
        for (case, (kind, original)) in &plan {
            assert_eq!(*kind == Broken::Duplicate, original.is_some());
            assert!(original.is_none_or(|i| i < *case && !plan.contains_key(&i)));
        }
    }
}

#[test]
fn the_same_command_again_makes_the_same_and_a_strange_folder_is_refused() {
    let options = small(14, 1.0);
    let (folder, summary) = made(&options);
    let first = contents(folder.path());
    assert_eq!(write(folder.path(), &options, &|_| ()).unwrap(), summary);
    assert!(contents(folder.path()) == first);
    let error = write(folder.path(), &small(15, 1.0), &|_| ()).unwrap_err();
    assert!(error.reason().contains("not empty"), "{error}");
    assert!(contents(folder.path()) == first);
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new");
    let whole = small(2, 0.0);
    for (wrong, word) in [
        (Options { cases: 0, ..whole.clone() }, "cases"),
        (Options { sites: 0, ..whole.clone() }, "sites"),
        (Options { matrix: Some(5000), ..whole.clone() }, "matrix"),
        (Options { slices: Some(1), ..whole.clone() }, "slices"),
        (Options { broken_share: f64::NAN, ..whole.clone() }, "share"),
        (Options { source: "../x".to_owned(), ..whole.clone() }, "source"),
        (Options { lesions: Some(folder.path().join("none")), ..whole.clone() }, "lesions"),
        (Options { lesions: Some(folder.path().to_owned()), ..whole.clone() }, "lesions"),
    ] {
        let error = write(&root, &wrong, &|_| ()).unwrap_err();
        assert_eq!(error.fault(), crate::error::Fault::Configuration);
        assert!(error.reason().contains(word), "{error}");
        assert!(!root.exists());
    }
}

#[test]
fn an_external_source_has_ids_and_centres_of_its_own() {
    let (folder, _) = made(&Options { source: "external".to_owned(), ..small(3, 0.0) });
    assert!(image(folder.path(), "sub-external0002").is_file());
    let (inside, _) = made(&small(3, 0.0));
    let sidecar = |root: &Path, id: &str| {
        std::fs::read_to_string(root.join(format!("{id}/dwi/{id}_dwi.json"))).unwrap()
    };
    assert_ne!(
        sidecar(folder.path(), "sub-external0001"),
        sidecar(inside.path(), "sub-0001"),
        "centres are keyed by source"
    );
}

#[test]
fn real_outlines_are_planted() {
    let library = tempfile::tempdir().unwrap();
    let grid = crate::volume::Grid {
        shape: [30, 30, 20],
        affine: crate::volume::Affine([
            [-1.0, 0.0, 0.0, 50.0],
            [0.0, 1.0, 0.0, -20.0],
            [0.0, 0.0, 1.0, 10.0],
        ]),
    };
    let mut lesion = crate::volume::Mask::filled(&grid, 0);
    lesion.data.slice_mut(ndarray::s![4..16, 4..25, 4..28]).fill(1);
    let path = library.path().join("one.nii.gz");
    std::fs::write(&path, encode::gzip(&encode::uint8(&lesion)).unwrap()).unwrap();
    let options = Options { lesions: Some(library.path().to_owned()), ..small(4, 0.0) };
    let (folder, _) = made(&options);
    for id in ["sub-0001", "sub-0004"] {
        let (truth, _) = nifti::read_mask(&mask(folder.path(), id)).unwrap();
        let n = truth.voxels().iter().map(|v| usize::from(*v)).sum::<usize>();
        assert!(n >= 15, "{n}");
    }
}
