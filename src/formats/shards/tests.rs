//! Tests of shards: round trips, damaged files, and agreement with pyarrow.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "says which test was skipped and why")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use ndarray::Array3;
use proptest::prelude::*;

use super::*;
use crate::volume::{Affine, Volume};

fn samples(count: usize) -> Vec<Sample> {
    let affine = Affine::from_spacing_mm([1.0; 3]);
    (0..count)
        .map(|n| {
            let value =
                |(z, y, x): (usize, usize, usize)| (n * 60 + z * 20 + y * 5 + x) as f32 / 4.0;
            let image = Volume { data: Array3::from_shape_fn((3, 4, 5), value), affine };
            let truth = Volume { data: image.data.mapv(|v| u8::from(v % 2.0 < 1.0)), affine };
            Sample { case_id: format!("sub-{n}"), fingerprint: format!("f{n}"), image, truth }
        })
        .collect()
}

fn lineage() -> BTreeMap<String, String> {
    ["run_id", "pipeline_hash", "seed"].map(|k| (k.to_owned(), format!("of {k}"))).into()
}

fn same(path: &Path, expected: &[Sample]) {
    let reader = ShardReader::open(path).unwrap();
    assert_eq!((reader.len(), reader.shape()), (expected.len(), [1, 3, 4, 5]));
    let mut image = vec![0.0; 60];
    for (i, sample) in expected.iter().enumerate() {
        assert_eq!(reader.case_id(i), sample.case_id);
        assert_eq!(reader.fingerprint(i), sample.fingerprint);
        reader.image_f32(i, &mut image);
        assert_eq!(image, sample.image.voxels());
        assert_eq!(reader.truth(i), sample.truth.voxels());
    }
}

#[test]
fn samples_come_back_in_both_precisions() {
    let dir = tempfile::tempdir().unwrap();
    for precision in [Precision::Float16, Precision::Float32] {
        let path = dir.path().join("a.arrow");
        write_as(&path, &samples(7), &lineage(), precision).unwrap();
        same(&path, &samples(7));
        let reader = ShardReader::open(&path).unwrap();
        assert_eq!(reader.precision(), precision);
        assert_eq!(reader.lineage(), &lineage());
    }
}

#[test]
fn columns_are_views_of_the_file_and_aligned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.arrow");
    write(&path, &samples(7), &lineage()).unwrap();
    let file = crate::formats::mapped::map(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(file.as_slice(), bytes);
    let reader = ShardReader::open(&path).unwrap();
    // The truth of the last sample must be found in the file at a multiple of 64 from where the first one starts.
    let all: Vec<u8> = (0..7).flat_map(|i| reader.truth(i)).copied().collect();
    let at = bytes.windows(all.len()).position(|w| w == all).unwrap();
    assert_eq!(at % 64, 0);
    assert_eq!(reader.truth(0).as_ptr().addr() % 64, 0);
}

#[test]
fn equal_samples_give_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let put = ["a", "b"].map(|n| write(&dir.path().join(n), &samples(3), &lineage()).unwrap());
    assert_eq!(put[0], put[1]);
}

#[test]
fn what_makes_no_shard_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut two = samples(2);
    two[1].image.data = Array3::zeros((3, 4, 6));
    assert!(write(&path, &two, &lineage()).unwrap_err().reason().contains("sub-1"));
    let mut loud = samples(1);
    loud[0].image.data[[0, 0, 0]] = 70_000.0;
    assert!(write(&path, &loud, &lineage()).unwrap_err().reason().contains("70000"));
    assert!(write_as(&path, &loud, &lineage(), Precision::Float32).is_ok());
    assert!(write(&path, &[], &lineage()).is_err());
}

#[test]
fn a_truncated_shard_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    write(&path, &samples(2), &lineage()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for cut in (0..bytes.len()).step_by(37).chain([bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(ShardReader::open(&path).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_shard_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            write(&path, &samples(1), &lineage()).unwrap();
            std::fs::read(&path).unwrap()
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut bytes = WHOLE.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(reader) = ShardReader::open(&path) {
            let mut image = vec![0.0; reader.shape().iter().product()];
            for i in 0..reader.len() {
                reader.image_f32(i, &mut image);
                prop_assert!(reader.truth(i).len() + reader.case_id(i).len() > 0);
            }
        }
    }
}

/// Opens a shard as a memory map, checks shape, type and values, and writes the same table as a new file.
const PYARROW: &str = r"
import sys, numpy as np, pyarrow as pa
with pa.memory_map(sys.argv[1]) as source:
    before = pa.total_allocated_bytes()
    table = pa.ipc.open_file(source).read_all()
    assert pa.total_allocated_bytes() - before < 1000, 'copied'
    assert table.schema.metadata[b'run_id'] == b'of run_id'
    image, truth = table['image'].chunk(0), table['truth'].chunk(0)
    assert isinstance(image.type, pa.FixedShapeTensorType) and image.type.shape == [1, 3, 4, 5], image.type
    x, t = image.to_numpy_ndarray(), truth.to_numpy_ndarray()
    assert x.dtype == np.dtype(sys.argv[3]) and t.dtype == np.uint8 and t.shape == (7, 3, 4, 5)
    n, z, y, v = np.meshgrid(*map(np.arange, t.shape), indexing='ij')
    assert (x[:, 0] == (n * 60 + z * 20 + y * 5 + v) / 4).all() and (t == (x[:, 0] % 2 < 1)).all()
    assert table['case_id'].to_pylist() == [f'sub-{i}' for i in range(7)]
    with pa.OSFile(sys.argv[2], 'wb') as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
";

#[test]
fn pyarrow_maps_the_shard_and_its_own_is_read() {
    let Some(python) = std::env::var_os("TORCULA_PYTHON") else {
        eprintln!("skipped: TORCULA_PYTHON names no Python with pyarrow");
        return;
    };
    if !Command::new(&python).args(["-c", "import pyarrow"]).output().unwrap().status.success() {
        eprintln!("skipped: the Python of TORCULA_PYTHON has no pyarrow");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (precision, name) in [(Precision::Float16, "float16"), (Precision::Float32, "float32")] {
        let [ours, theirs] = ["ours", "theirs"].map(|n| dir.path().join(n));
        write_as(&ours, &samples(7), &lineage(), precision).unwrap();
        let run = Command::new(&python)
            .args(["-c", PYARROW])
            .args([&ours, &theirs])
            .arg(name)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        same(&theirs, &samples(7));
    }
}
