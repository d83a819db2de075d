//! Broken input: a clear reason, no panic, and the other cases go on.

use std::path::{Path, PathBuf};

use super::support::{Registry, files, text, torcula};

fn refused(file: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.nii.gz");
    let output = torcula(&["apply", "normalize", file.to_str().unwrap(), out.to_str().unwrap()]);
    let said = text(&output);
    assert!(!said.contains("panicked"), "{}: {said}", file.display());
    assert!(matches!(output.status.code(), Some(0..=2)), "{}: {said}", file.display());
    if output.status.success() {
        return String::new();
    }
    assert!(!output.stderr.is_empty() && !out.exists(), "{}: {said}", file.display());
    said
}

#[test]
fn odd_real_files_are_read_or_refused_with_a_reason() {
    let Some(data) = std::env::var_os("TORCULA_REAL_DATA").map(PathBuf::from) else {
        println!("skipped: TORCULA_REAL_DATA is not set");
        return;
    };
    let odd = files(&data.join("nifti-odd"));
    assert!(odd.len() > 20);
    for file in odd {
        refused(&file);
    }
}

#[test]
fn made_up_broken_files_are_refused_with_a_reason() {
    let registry = Registry::synth(2, &[]);
    let good = std::fs::read(registry.image(0)).unwrap();
    let folder = registry.path().join("made");
    std::fs::create_dir(&folder).unwrap();
    let make = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    std::fs::create_dir(folder.join("folder.nii")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("link.nii.gz")).unwrap();
    let mut files = vec![
        make("cut.nii.gz", &good[..good.len() / 2]),
        make("empty.nii.gz", b""),
        make("text.nii", b"this is no image"),
        folder.join("folder.nii"),
        folder.join("link.nii.gz"),
        folder.join("missing.nii.gz"),
    ];
    // A 3-D file is read to its end, so its checksum counts. Of a 4-D file only the volume that is asked for is read.
    let masks = super::support::files(&registry.path().join("internal/derivatives"));
    let mask = masks.iter().find(|p| p.to_string_lossy().ends_with("mask.nii.gz")).unwrap();
    let mut flipped = std::fs::read(mask).unwrap();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 0xff;
    files.push(make("flipped.nii.gz", &flipped));
    for file in files {
        let said = refused(&file);
        assert!(!said.is_empty(), "{} was accepted", file.display());
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(said.contains(&*name), "the message does not name {name}: {said}");
        let damaged = ["cut", "empty", "text", "flipped"].iter().any(|n| name.starts_with(n));
        assert!(!damaged || said.contains("hint:"), "{name}: no word on what to do: {said}");
    }
}

#[test]
fn a_broken_participants_table_says_what_is_wrong() {
    let registry = Registry::synth(4, &[]);
    let table = registry.path().join("internal/participants.tsv");
    let good = std::fs::read_to_string(&table).unwrap();
    std::fs::write(&table, good.replacen("participant_id", "name", 1)).unwrap();
    let output = registry.run(&[]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("participants.tsv") && said.contains("participant_id"), "{said}");
    // Ids that leave the folder, and one twice: those cases, and no others.
    let twice = good.lines().nth(1).unwrap();
    std::fs::write(&table, format!("{good}{twice}\n../../etc\t\n")).unwrap();
    let output = registry.run(&[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(registry.sql("SELECT count(*) FROM prepared").parse::<u32>().unwrap() >= 3);
    assert!(registry.sql("SELECT count(*) FROM failures").parse::<u32>().unwrap() >= 1);
}
