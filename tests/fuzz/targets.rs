//! What is done with bytes of unknown origin, one function a parser. The fuzzers call it with bytes that they make up, and
//! `tests/suite/hostile.rs` with those of `tests/corpus` and with damaged real files: it must not panic, and what it says must hold.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use torcula::formats::bids::{self, ScanOptions};
use torcula::formats::cases::{Scan, is_id};
use torcula::formats::manifest::{self, ColumnMap};
use torcula::formats::shards::ShardReader;
use torcula::formats::{gradients, nifti, sidecar};

/// A folder of this thread, in memory where there is such a place.
fn folder() -> PathBuf {
    thread_local! { static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) }; }
    let place = Path::new("/dev/shm");
    FOLDER.with_borrow_mut(|folder| {
        let new = || if place.is_dir() { tempfile::tempdir_in(place) } else { tempfile::tempdir() };
        folder.get_or_insert_with(|| new().unwrap()).path().to_owned()
    })
}

fn put(name: &str, data: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, data).unwrap();
    path
}

/// Header and voxels of a file without compression.
pub fn nifti(data: &[u8]) {
    read(&put("a.nii", data));
}

fn read(path: &Path) {
    let Ok(header) = nifti::read_header(path) else {
        assert!(nifti::read_image(path, 0).is_err() && nifti::read_mask(path).is_err());
        return;
    };
    assert!(header.texts.iter().all(|(_, text)| !text.contains(char::is_control)));
    let last = header.volumes() - 1;
    for volume in [0, last, last.saturating_add(1)] {
        if let Ok((image, _)) = nifti::read_image(path, volume) {
            assert!(volume <= last && image.voxels().len() == header.voxels());
        }
    }
    if let Ok((mask, _)) = nifti::read_mask(path) {
        assert!(last == 0 && mask.voxels().iter().all(|v| *v < 2));
    }
}

/// Voxels of the image that `gzip` reads.
const SIDE: usize = 16;

/// A NIfTI header of 16 × 16 × 4 voxels of one byte, and nothing behind it.
fn small_header() -> Vec<u8> {
    let mut header = vec![0_u8; 352];
    header[..4].copy_from_slice(&348_i32.to_le_bytes());
    for (i, n) in [3, SIDE as i16, SIDE as i16, 4, 1, 1, 1, 1].into_iter().enumerate() {
        header[40 + 2 * i..42 + 2 * i].copy_from_slice(&n.to_le_bytes());
        header[76 + 4 * i..80 + 4 * i].copy_from_slice(&1_f32.to_le_bytes());
    }
    header[70..72].copy_from_slice(&2_i16.to_le_bytes());
    header[72..74].copy_from_slice(&8_i16.to_le_bytes());
    header[108..112].copy_from_slice(&352_f32.to_le_bytes());
    header[344..348].copy_from_slice(b"n+1\0");
    header
}

/// A DEFLATE stream, in the place of the voxels of a small image: what another decoder makes of it, ours does.
///
/// The stream stands in a gzip member of its own. Its checksum is put right, so that what is decoded is looked at; bytes that
/// are a gzip file already are taken as they are.
pub fn gzip(data: &[u8]) {
    let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    file.write_all(&small_header()).unwrap();
    let mut file = file.finish().unwrap();
    if data.starts_with(&[0x1f, 0x8b]) {
        file.extend(data);
    } else {
        let mut voxels = Vec::new();
        let mut inflate = flate2::bufread::DeflateDecoder::new(data);
        let whole = inflate.by_ref().take(1 << 20).read_to_end(&mut voxels).is_ok();
        let used = if whole { inflate.total_in() as usize } else { data.len() };
        file.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        file.extend(&data[..used.min(data.len())]);
        file.extend(crc32fast::hash(&voxels).to_le_bytes());
        file.extend((voxels.len() as u32).to_le_bytes());
    }
    let path = put("a.nii.gz", &file);
    let mut expected = Vec::new();
    let decoded =
        flate2::bufread::MultiGzDecoder::new(&file[..]).take(1 << 20).read_to_end(&mut expected);
    let found = nifti::read_image(&path, 0);
    let wanted = 352 + SIDE * SIDE * 4;
    match (&decoded, &found) {
        (Ok(_), Ok((image, _))) if expected.len() < 1 << 20 => {
            let voxels: Vec<u8> = image.voxels().iter().map(|v| *v as u8).collect();
            assert_eq!(voxels, expected[352..wanted]);
        }
        (Ok(_), Err(error)) if expected.len() < 1 << 20 => {
            let short = expected.len() < wanted;
            let ratio = error.reason().contains("compressed data hold");
            assert!(short || ratio, "{error}");
        }
        _ => {}
    }
}

/// A JSON sidecar, and, since it is short, a file of b-values.
pub fn sidecar(data: &[u8]) {
    let path = put("a.json", data);
    if let Ok(facts) = sidecar::read(&[&path]) {
        let numbers = [
            facts.field_strength_t,
            facts.repetition_time_ms,
            facts.echo_time_ms,
            facts.b_value_s_per_mm2,
            facts.slice_thickness_mm,
            facts.slice_gap_mm,
            facts.age_y,
        ];
        assert!(numbers.iter().flatten().all(|v| v.is_finite() && *v >= 0.0));
    }
    let path = put("a.bval", data);
    let count = String::from_utf8_lossy(data).split_whitespace().count();
    if let Ok(selection) = gradients::read_bvals(&path, count).and_then(|b| gradients::select(&b)) {
        assert!(selection.dwi < count && selection.b_value_s_per_mm2.is_finite());
    }
}

fn check(scan: &Scan, root: &Path) {
    let root = root.canonicalize().unwrap();
    for case in &scan.cases {
        assert!(is_id(&case.case_id) && is_id(&case.subject_id));
        for path in case.paths() {
            assert!(path.canonicalize().unwrap().starts_with(&root), "{}", path.display());
        }
    }
    assert!(scan.findings.iter().all(|f| is_id(&f.case_id)));
    assert!(scan.cases.windows(2).all(|pair| pair[0].case_id < pair[1].case_id));
}

/// `participants.tsv` and `sub-1_sessions.tsv` of a BIDS folder.
pub fn participants(data: &[u8]) {
    let image = put("bids/sub-1/dwi/sub-1_dwi.nii.gz", b"x");
    put("bids/participants.tsv", data);
    put("bids/sub-1/sub-1_sessions.tsv", data);
    let root = image.ancestors().nth(3).unwrap();
    let mut options = ScanOptions::default();
    for _ in 0..2 {
        if let Ok(scan) = bids::scan(root, &options) {
            check(&scan, root);
        }
        options.participants.insert("nihss".to_owned(), "NIHSS".to_owned());
    }
}

fn table(name: &str, data: &[u8]) {
    put("table/a.nii.gz", b"x");
    let link = folder().join("table/out.nii.gz");
    if !link.is_symlink() {
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    }
    let path = put(name, data);
    for metadata_only in [false, true] {
        if let Ok(scan) = manifest::scan(&path, &ColumnMap::default(), metadata_only, None) {
            check(&scan, path.parent().unwrap());
        }
    }
}

/// A manifest of text, beside an image and a link that leads out.
pub fn manifest(data: &[u8]) {
    table("table/m.csv", data);
    table("table/m.tsv", data);
}

/// A manifest in Parquet.
pub fn parquet(data: &[u8]) {
    table("table/m.parquet", data);
}

/// A pipeline file, and how its problems are shown.
pub fn pipeline(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.len() > 1 << 16 {
        return;
    }
    let sets = [("data".to_owned(), "x".to_owned()), ("steps.a.seed".to_owned(), "[1]".to_owned())];
    for sets in [&[][..], &sets] {
        if let Err(problems) = torcula::pipeline::load_text("fuzz.yaml", text, sets) {
            assert!(problems.count() > 0);
            assert!(!problems.render(false).is_empty() && problems.to_json().is_array());
        }
    }
}

/// A shard, every sample of it.
pub fn shard(data: &[u8]) {
    // Mapped files must not change while they are mapped: a new file each time.
    let path = folder().join("a.arrow");
    let _ = std::fs::remove_file(&path);
    put("a.arrow", data);
    let Ok(shard) = ShardReader::open(&path) else { return };
    let size: usize = shard.shape().iter().product();
    let mut image = vec![0.0; size];
    for i in 0..shard.len().min(64) {
        shard.image_f32(i, &mut image);
        assert_eq!(shard.truth(i).len() * shard.shape()[0], size);
        assert!(shard.case_id(i).len() <= data.len() && shard.fingerprint(i).len() <= data.len());
    }
}
