//! Tests of reading and writing together: round trips, hostile headers, real odd files, and agreement with nibabel.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "says which test was skipped and why")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use flate2::{Compression, write::GzEncoder};
use ndarray::Array3;
use proptest::prelude::*;

use super::*;
use crate::error::{Error, Fault};
use crate::volume::{Affine, Image, Mask, Volume};

const OBLIQUE: Affine = Affine([
    [-1.9967, 0.1142, -0.0212, 105.85],
    [0.1161, 1.9527, -0.4166, -122.02],
    [0.0021, 0.4183, 4.8903, 67.04],
]);

fn ramp(affine: Affine) -> Image {
    let data = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| (100 * z + 10 * y + x) as f32 - 40.5);
    Volume { data, affine }
}

fn folder() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    (dir, move |name: &str| root.join(name))
}

fn described(text: &str) -> WriteOptions {
    WriteOptions { description: text.into() }
}

/// A valid 4 × 4 × 4 `int16` file of zeros.
fn small() -> Vec<u8> {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let (_dir, at) = folder();
        let image = Volume { data: Array3::zeros((4, 4, 4)), affine: OBLIQUE };
        write_image_i16(&at("a.nii"), &image, &described("")).unwrap();
        std::fs::read(at("a.nii")).unwrap()
    });
    BYTES.clone()
}

fn read_bytes(bytes: &[u8]) -> Result<(Image, Header), Error> {
    let (_dir, at) = folder();
    std::fs::write(at("a.nii"), bytes).unwrap();
    read_image(&at("a.nii"), 0)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_image_comes_back_as_it_was() {
    let (_dir, at) = folder();
    let image = ramp(OBLIQUE);
    for name in ["a.nii", "a.nii.gz"] {
        write_image(&at(name), &image, &described("ADC, 10⁻⁶ mm²/s")).unwrap();
        let (back, header) = read_image(&at(name), 0).unwrap();
        assert_eq!(back.data, image.data);
        assert!(back.grid().matches(&image.grid(), 1e-4));
        assert_eq!(header.description(), "ADC, 10⁻⁶ mm²/s");
        assert_eq!((header.affine_source, header.volumes()), (AffineSource::Sform, 1));
        // The oblique affine has a slight shear; what the qform can say of it is within 0.01 mm or not said.
        assert!(header.sform_qform_distance_mm.is_none_or(|d| d < 0.02));
    }
}

#[test]
fn equal_images_give_equal_bytes_without_a_time() {
    let (_dir, at) = folder();
    let put =
        ["a.nii.gz", "b.nii.gz"].map(|n| write_image(&at(n), &ramp(OBLIQUE), &described("x")));
    let [a, b] = put.map(Result::unwrap);
    assert_eq!(a, b);
    assert_eq!(std::fs::read(at("a.nii.gz")).unwrap()[4..8], [0; 4]);
}

#[test]
fn masks_and_series_come_back() {
    let (_dir, at) = folder();
    let mask: Mask =
        Volume { data: ramp(OBLIQUE).data.mapv(|v| u8::from(v > 99.0)), affine: OBLIQUE };
    write_mask(&at("m.nii.gz"), &mask, &described("")).unwrap();
    assert_eq!(read_mask(&at("m.nii.gz")).unwrap().0.data, mask.data);
    let mut second = ramp(OBLIQUE);
    second.data += 1.0;
    write_series(&at("s.nii.gz"), &[ramp(OBLIQUE), second.clone()], &described("")).unwrap();
    assert_eq!(read_header(&at("s.nii.gz")).unwrap().shape, [6, 5, 4, 2]);
    assert_eq!(read_image(&at("s.nii.gz"), 1).unwrap().0.data, second.data);
    assert!(read_image(&at("s.nii.gz"), 2).unwrap_err().reason().contains("has 2"));
    assert!(read_mask(&at("s.nii.gz")).unwrap_err().reason().contains("one volume"));
}

#[test]
fn int16_is_exact_for_whole_numbers_and_scaled_for_others() {
    let (_dir, at) = folder();
    let path = at("i.nii.gz");
    let mut image = ramp(OBLIQUE);
    write_image_i16(&path, &image, &described("")).unwrap();
    let (back, header) = read_image(&path, 0).unwrap();
    let worst = back.data.iter().zip(&image.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 0.51 * 345.0 / 65_534.0, "{worst}");
    assert!(header.slope < 0.01 && header.datatype == DataType::Int16);
    image.data += 0.5;
    write_image_i16(&path, &image, &described("")).unwrap();
    assert_eq!(read_image(&path, 0).unwrap().0.data, image.data);
    image.data.fill(0.25);
    write_image_i16(&path, &image, &described("")).unwrap();
    assert_eq!(read_image(&path, 0).unwrap().0.data, image.data);
    image.data[[0, 0, 0]] = f32::NAN;
    assert!(write_image_i16(&path, &image, &described("")).is_err());
}

#[test]
fn other_endings_are_refused() {
    for name in ["a.png", "a.gz", "nii", "a.nii.bz2"] {
        let error = write_image(Path::new(name), &ramp(OBLIQUE), &described("")).unwrap_err();
        assert_eq!(error.fault(), Fault::Configuration);
    }
}

#[test]
fn not_finite_voxels_are_kept() {
    let (_dir, at) = folder();
    let mut image = ramp(OBLIQUE);
    image.data[[0, 0, 0]] = f32::NAN;
    image.data[[0, 0, 1]] = f32::INFINITY;
    write_image(&at("n.nii.gz"), &image, &described("")).unwrap();
    let back = read_image(&at("n.nii.gz"), 0).unwrap().0.data;
    assert!(back[[0, 0, 0]].is_nan() && back[[0, 0, 1]] == f32::INFINITY);
    assert_eq!(read_mask(&at("n.nii.gz")).unwrap().0.data[[0, 0, 0]], 0);
}

/// Puts bytes into a small file's header; the read must fail and its reason hold `expected`.
fn refuses(at: usize, bytes: &[u8], expected: &str) {
    let mut file = small();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    for content in [gz(&file), file] {
        let error = read_bytes(&content).unwrap_err();
        assert_eq!(error.fault(), Fault::Data);
        assert!(error.reason().contains(expected), "{error}");
    }
}

#[test]
fn hostile_headers_are_refused_with_the_field_named() {
    let huge = [3i16, 32767, 32767, 32767].map(i16::to_le_bytes).concat();
    refuses(40, &huge, "70.4 TB");
    let overflow =
        [7i16; 1].iter().chain(&[32767; 7]).flat_map(|d| d.to_le_bytes()).collect::<Vec<_>>();
    refuses(40, &overflow, "more than 18 EB");
    refuses(42, &(-4i16).to_le_bytes(), "dim[1] is -4");
    refuses(44, &0i16.to_le_bytes(), "dim[2] is 0");
    refuses(40, &0i16.to_le_bytes(), "dim[0] is 0");
    refuses(40, &300i16.to_le_bytes(), "dim[0] is 300");
    refuses(108, &1e30f32.to_le_bytes(), "vox_offset");
    refuses(108, &f32::NAN.to_le_bytes(), "vox_offset is NaN");
    refuses(108, &(-352f32).to_le_bytes(), "vox_offset is -352");
    refuses(108, &1e9f32.to_le_bytes(), "from byte 1000000000");
    refuses(70, &128i16.to_le_bytes(), "RGB");
    refuses(70, &32i16.to_le_bytes(), "complex");
    refuses(70, &1536i16.to_le_bytes(), "128-bit");
    refuses(70, &7i16.to_le_bytes(), "datatype 7");
    refuses(344, b"n+9\0", "magic");
    refuses(344, &[0; 4], "Analyze");
    refuses(280, &[0; 48], "sform");
    refuses(280, &f32::NAN.to_le_bytes(), "not finite");
    refuses(112, &[1f32, f32::NAN].map(f32::to_le_bytes).concat(), "scl_inter");
    refuses(0, b"BZh9", "bzip2");
    refuses(0, &[1, 2, 3, 4], "01 02 03 04");
}

#[test]
fn truncated_and_damaged_files_are_refused() {
    let file = small();
    for cut in [0, 1, 3, 10, 347, 352, 400, file.len() - 1] {
        let error = read_bytes(&file[..cut]).unwrap_err();
        assert_eq!(error.fault(), Fault::Data, "{error}");
        assert!(read_bytes(&gz(&file[..cut])).is_err());
    }
    let packed = gz(&file);
    for cut in 1..packed.len() {
        assert!(read_bytes(&packed[..cut]).is_err(), "cut at {cut}");
    }
    let mut rotten = packed.clone();
    let crc = rotten.len() - 8;
    rotten[crc] ^= 1;
    assert!(read_bytes(&rotten).unwrap_err().reason().contains("damaged"));
}

#[test]
fn what_follows_the_voxels_does_no_harm() {
    let mut file = small();
    file.extend([7; 3000]);
    assert!(read_bytes(&file).is_ok());
    assert!(read_bytes(&gz(&file)).is_ok());
    let mut packed = gz(&small());
    packed.extend(b"rubbish");
    assert!(read_bytes(&packed).is_ok());
    file.extend(vec![0; 3 << 20]);
    let (_, header) = read_bytes(&gz(&file)).unwrap();
    assert!(header.notes[0].contains("1 MiB"), "{:?}", header.notes);
}

#[test]
fn a_gzip_file_of_several_members_is_one_file() {
    let file = small();
    let members = [&file[..200], &file[200..390], &file[390..]].map(gz).concat();
    assert_eq!(read_bytes(&members).unwrap().0, read_bytes(&file).unwrap().0);
}

#[test]
fn units_and_forms_place_the_image() {
    let mut file = small();
    file[123] = 1; // metres
    let spacing = read_bytes(&file).unwrap().0.spacing_mm();
    assert!((spacing[0] - 2000.0).abs() < 1.0, "{spacing:?}");
    file[123] = 2;
    file[254..256].copy_from_slice(&[0, 0]); // sform_code
    file[252..254].copy_from_slice(&[0, 0]); // qform_code
    let (image, header) = read_bytes(&file).unwrap();
    assert_eq!(header.affine_source, AffineSource::Spacing);
    let middle = image.affine.apply([1.5; 3]);
    assert!(middle.iter().all(|v| v.abs() < 1e-9) && image.affine.0[0][0] < 0.0);
}

#[test]
fn a_qform_says_the_same_as_the_affine_it_was_made_of() {
    let (sin, cos) = 0.3f64.sin_cos();
    for flip in [1.0, -1.0] {
        let turned = Affine([
            [cos * 2.0, -sin * 2.0, 0.0, 7.0],
            [sin * 2.0, cos * 2.0, 0.0, -8.0],
            [0.0, 0.0, 5.0 * flip, 9.0],
        ]);
        let (_dir, at) = folder();
        for affine in [turned, Affine::from_spacing_mm([-1.0, -1.0, 3.0 * flip])] {
            write_image(&at("q.nii"), &ramp(affine), &described("")).unwrap();
            let mut bytes = std::fs::read(at("q.nii")).unwrap();
            bytes[254..256].copy_from_slice(&[0, 0]);
            let (image, header) = read_bytes(&bytes).unwrap();
            assert_eq!(header.affine_source, AffineSource::Qform);
            assert!(image.grid().matches(&ramp(affine).grid(), 0.01), "{affine:?}");
        }
    }
}

#[test]
fn big_endian_pairs_are_read_by_either_half() {
    let (_dir, at) = folder();
    let mut header = [0u8; 348];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_be_bytes());
    put(40, &[3i16, 2, 1, 1].map(i16::to_be_bytes).concat());
    put(70, &[4i16, 16].map(i16::to_be_bytes).concat());
    put(76, &[1f32, 2.0, 2.0, 5.0].map(f32::to_be_bytes).concat());
    put(112, &[0.5f32, 1.0].map(f32::to_be_bytes).concat());
    put(344, b"ni1\0");
    std::fs::write(at("a.hdr"), header).unwrap();
    assert!(read_header(&at("a.hdr")).unwrap_err().reason().contains("a.img"));
    std::fs::write(at("a.img.gz"), gz(&[300i16, -2].map(i16::to_be_bytes).concat())).unwrap();
    for name in ["a.hdr", "a.img.gz"] {
        let (image, h) = read_image(&at(name), 0).unwrap();
        assert_eq!(image.voxels(), [151.0, 0.0]);
        assert!(h.big_endian && h.gzip && !h.nifti2);
    }
}

#[test]
fn a_nifti_2_header_is_read() {
    let (_dir, at) = folder();
    let mut h = vec![0u8; 544];
    let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &540i32.to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &[64i16, 64].map(i16::to_le_bytes).concat());
    put(16, &[3i64, 1, 2, 1].map(i64::to_le_bytes).concat());
    put(104, &[1f64, 1.0, 2.0, 3.0].map(f64::to_le_bytes).concat());
    put(168, &544i64.to_le_bytes());
    put(240, b"made by hand");
    put(348, &1i32.to_le_bytes());
    let rows = [[1f64, 0.0, 0.0, 4.0], [0.0, 2.0, 0.0, 5.0], [0.0, 0.0, 3.0, 6.0]];
    put(400, &rows.concat().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    put(500, &2i32.to_le_bytes());
    h.extend([0.25f64, -8.0].iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(at("two.nii"), &h).unwrap();
    let (image, header) = read_image(&at("two.nii"), 0).unwrap();
    assert_eq!(image.voxels(), [0.25, -8.0]);
    assert_eq!(image.affine.0, rows);
    assert!(header.nifti2 && header.description() == "made by hand");
}

#[test]
fn names_that_are_no_files_are_refused() {
    let (dir, at) = folder();
    std::os::unix::fs::symlink("nowhere", at("link.nii")).unwrap();
    assert!(read_header(&at("link.nii")).unwrap_err().reason().contains("nowhere"));
    assert!(read_header(dir.path()).unwrap_err().reason().contains("folder"));
    assert!(read_header(&at("absent.nii")).unwrap_err().reason().contains("no such file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a header says, reading ends with an image that the file could hold, or a reason.
    #[test]
    fn arbitrary_headers_never_panic(
        changes in prop::collection::vec((0usize..352, any::<u8>()), 1..24),
        packed in any::<bool>(),
    ) {
        let mut file = small();
        for (at, byte) in changes {
            file[at] = byte;
        }
        let content = if packed { gz(&file) } else { file };
        match read_bytes(&content) {
            Ok((image, header)) => {
                prop_assert_eq!(image.voxels().len(), header.voxels());
                prop_assert!(header.voxels() <= 1032 * content.len());
            }
            Err(e) => prop_assert!(!e.reason().is_empty()),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), two in any::<bool>()) {
        let mut bytes = bytes;
        let start = if two { 540i32 } else { 348 }.to_le_bytes();
        let n = bytes.len().min(4);
        bytes[..n].copy_from_slice(&start[..n]);
        prop_assert!(read_bytes(&bytes).is_err());
    }
}

/// Every file below the folder that the environment names, with what came of reading it.
fn real_files(sub: &str) -> Option<Vec<PathBuf>> {
    let Some(root) = std::env::var_os("TORCULA_REAL_DATA") else {
        eprintln!("skipped: TORCULA_REAL_DATA names no folder of real images");
        return None;
    };
    let mut folders = vec![PathBuf::from(root).join(sub)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Some(files)
}

#[test]
fn every_odd_real_file_is_read_or_refused_with_a_reason() {
    for path in real_files("nifti-odd").unwrap_or_default() {
        match read_image(&path, 0) {
            Ok((image, header)) => assert_eq!(image.voxels().len(), header.voxels()),
            Err(e) => assert!(e.reason().contains(&path.display().to_string()), "{e}"),
        }
    }
}

/// Loads files with nibabel, prints for each its affine and the sum and sum of squares of volume 0 as float32.
const NIBABEL: &str = r"
import sys, warnings, logging, numpy as np, nibabel as nib
warnings.simplefilter('ignore'); nib.imageglobals.logger.setLevel(logging.CRITICAL)
for path in sys.stdin.read().splitlines():
    try:
        i = nib.load(path)
        if not isinstance(i, (nib.Nifti1Pair, nib.Nifti2Pair)): raise ValueError('not nifti')
        d = np.asarray(i.dataobj)
        if d.dtype.kind not in 'iuf': raise ValueError(d.dtype)
        d = i.get_fdata(dtype='f8')
        d = d.reshape(d.shape[:3] + (-1,), order='F')[..., 0].astype('f4').astype('f8')
        scale = {1: 1000, 3: .001}.get(int(i.header['xyzt_units']) & 7, 1)
        row = list((i.affine[:3] * scale).ravel()) + [d.sum(), (d * np.arange(d.size).reshape(d.shape, order='F')).sum()]
        print(' '.join(repr(float(v)) for v in row))
    except Exception as e:
        print('error', type(e).__name__, e)
";

fn nibabel(files: &[PathBuf]) -> Option<Vec<String>> {
    let Some(python) = std::env::var_os("TORCULA_PYTHON") else {
        eprintln!("skipped: TORCULA_PYTHON names no Python with nibabel");
        return None;
    };
    let mut child = Command::new(python)
        .args(["-c", NIBABEL])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let list: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    child.stdin.take().unwrap().write_all(list.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

fn agrees(image: &Image, line: &str, path: &Path) {
    let numbers: Vec<f64> = line.split(' ').map(|v| v.parse().unwrap()).collect();
    for (ours, theirs) in image.affine.0.iter().flatten().zip(&numbers) {
        assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0), "{path:?}: {ours} {theirs}");
    }
    let sum: f64 = image.voxels().iter().map(|&v| f64::from(v)).sum();
    let moment: f64 =
        image.voxels().iter().zip(0..).map(|(&v, i)| f64::from(v) * f64::from(i)).sum();
    for (ours, theirs) in [sum, moment].iter().zip(&numbers[12..]) {
        let same = (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0);
        assert!(same || (ours.is_nan() && theirs.is_nan()), "{path:?}: {ours} {theirs}");
    }
}

#[test]
fn nibabel_reads_the_same_from_real_files() {
    let mut files = Vec::new();
    for sub in ["nifti-odd", "isles22", "dwi4d", "anatomy"] {
        files.extend(real_files(sub).unwrap_or_default());
    }
    files.retain(|f| !f.to_string_lossy().ends_with(".md"));
    let Some(lines) = nibabel(&files).filter(|_| !files.is_empty()) else { return };
    let mut compared = 0;
    for (path, line) in files.iter().zip(&lines) {
        match (read_image(path, 0), line.strip_prefix("error ")) {
            (Ok((image, _)), None) => {
                agrees(&image, line, path);
                compared += 1;
            }
            (Err(ours), None) => eprintln!("only nibabel reads {path:?}: {ours}"),
            (Ok(_), Some(theirs)) => eprintln!("nibabel does not read {path:?}: {theirs}"),
            (Err(ours), Some(theirs)) => eprintln!("nobody reads {path:?}: {ours} | {theirs}"),
        }
    }
    assert!(compared >= 20, "only {compared} files compared");
}

#[test]
fn nibabel_reads_back_what_is_written() {
    let (_dir, at) = folder();
    let turned = Affine([[0.0, -2.0, 0.0, 7.0], [2.0, 0.0, 0.0, -8.0], [0.0, 0.0, -5.0, 9.0]]);
    let mut files = Vec::new();
    for (n, affine) in [OBLIQUE, turned].into_iter().enumerate() {
        let image = ramp(affine);
        let mask = Volume { data: image.data.mapv(|v| u8::from(v > 9.0)), affine };
        for ending in ["nii", "nii.gz"] {
            let name = |kind: &str| at(&format!("{kind}{n}.{ending}"));
            write_image(&name("f"), &image, &described("x")).unwrap();
            write_image_i16(&name("i"), &image, &described("x")).unwrap();
            write_mask(&name("m"), &mask, &described("x")).unwrap();
            write_series(&name("s"), &[image.clone(), image.clone()], &described("x")).unwrap();
            files.extend(["f", "i", "m", "s"].map(name));
        }
    }
    let Some(lines) = nibabel(&files) else { return };
    assert_eq!(lines.len(), files.len());
    for (path, line) in files.iter().zip(&lines) {
        agrees(&read_image(path, 0).unwrap().0, line, path);
    }
}
