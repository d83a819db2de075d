//! Other people's readers read what we write: nibabel, pyarrow, deltalake. `make test` installs them.

use std::process::Command;

use super::support::{Registry, files};

/// Runs Python; none where `TORCULA_PYTHON` names none.
fn python(script: &str, args: &[&str]) -> Option<String> {
    let Some(python) = std::env::var_os("TORCULA_PYTHON") else {
        println!("skipped: TORCULA_PYTHON is not set");
        return None;
    };
    let output = Command::new(python).arg("-c").arg(script).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn deltalake_finds_the_same_rows() {
    let registry = Registry::synth(6, &["--broken", "0.2"]);
    registry.run(&[]);
    let catalog = registry.path().join("catalog");
    let script = "import sys, deltalake\n\
        for t in sys.argv[2:]:\n    \
            d = deltalake.DeltaTable(f'{sys.argv[1]}/{t}').to_pyarrow_table()\n    \
            print(t, d.num_rows, *sorted({c for c in d.column('case_id').to_pylist() if c}))\n\
        import os\n\
        sys.stdout.flush()\n\
        os._exit(0)";
    let tables = ["cases", "quality", "artifacts", "failures", "splits"];
    let mut args = vec![catalog.to_str().unwrap()];
    args.extend(tables);
    let Some(found) = python(script, &args) else { return };
    for line in found.lines() {
        let mut words = line.split(' ');
        let (table, rows) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(registry.sql(&format!("SELECT count(*) FROM {table}")), rows, "{table}");
        let ids = registry.sql(&format!("SELECT DISTINCT case_id FROM {table} ORDER BY case_id"));
        let ids: Vec<&str> = ids.lines().filter(|l| !l.is_empty() && *l != "\"\"").collect();
        assert_eq!(words.filter(|w| !w.is_empty()).collect::<Vec<_>>(), ids, "{table}");
    }
}

#[test]
fn nibabel_reads_artifacts_on_the_grid_of_their_image() {
    let registry = Registry::synth(2, &[]);
    registry.counts(&[]);
    let prepared = registry.sql("SELECT image_uri FROM prepared ORDER BY case_id LIMIT 1");
    let script = "import sys, nibabel as n, numpy as np\n\
        a, b = n.load(sys.argv[1]), n.load(sys.argv[2])\n\
        assert a.shape == b.shape[:3], (a.shape, b.shape)\n\
        assert np.allclose(a.affine, b.affine, atol=1e-4), (a.affine, b.affine)\n\
        assert a.header.get_xyzt_units()[0] == 'mm'\n\
        assert a.get_data_dtype() == np.float32\n\
        d = np.asarray(a.dataobj); assert d.max() <= 255 and d.min() >= 0 and d.std() > 1\n\
        print(bytes(a.header['descrip']).decode().rstrip(chr(0)))";
    let image = registry.image(0);
    let Some(description) = python(script, &[&prepared, image.to_str().unwrap()]) else { return };
    assert!(description.contains("torcula"), "{description}");
}

#[test]
fn pyarrow_maps_a_shard() {
    let registry = Registry::synth(9, &[]);
    registry.counts(&[]);
    let shards: Vec<_> = files(&registry.path().join("derivatives/shards"));
    let script = "import sys, pyarrow as pa, pyarrow.ipc as ipc\n\
        n = 0\n\
        for f in sys.argv[1:]:\n    \
            before = pa.total_allocated_bytes()\n    \
            t = ipc.open_file(pa.memory_map(f)).read_all()\n    \
            assert pa.total_allocated_bytes() - before < t.nbytes / 2, 'it was copied'\n    \
            x = t.column('image').combine_chunks().to_numpy_ndarray()\n    \
            y = t.column('truth').combine_chunks().to_numpy_ndarray()\n    \
            assert x.shape[1:] == (1, 8, 16, 16) and y.shape[1:] == (8, 16, 16), (x.shape, y.shape)\n    \
            n += len(t)\n\
        print(n)";
    let args: Vec<&str> = shards.iter().map(|p| p.to_str().unwrap()).collect();
    let Some(samples) = python(script, &args) else { return };
    assert_eq!(samples, "9");
}
