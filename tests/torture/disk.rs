//! A disk that is too small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fault::{Injection, calm, says_full};
use super::random::Random;
use super::world::{World, files, text};

/// The world on a file system that is too small, then on one that is not.
pub fn small_file_system(
    world: &World<'_>,
    bytes: u64,
    random: &mut Random,
) -> Result<Injection, String> {
    let place = world.derivatives();
    let catalog = world.catalog();
    let there = disk_bytes(&catalog) + disk_bytes(&place);
    let more = (bytes.saturating_sub(there) / 1024).max(64) as usize;
    let kilobytes = there / 1024 + 32 + random.below(more) as u64;
    // Both folders on one small disk: what is there moves in, and out again.
    let mount = world.path().join("small");
    fs::create_dir_all(&mount).unwrap();
    let options = format!("size={kilobytes}k");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "torture"])
        .arg(&mount)
        .output()
        .unwrap();
    if !mounted.status.success() {
        let mut injection = Injection::new("no file system could be mounted", false, &mounted);
        injection.skipped = Some(String::from_utf8_lossy(&mounted.stderr).trim().to_owned());
        return Ok(injection);
    }
    let move_to = |from: &Path, to: &Path| -> bool {
        !from.exists() || Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success()
    };
    let fits =
        move_to(&catalog, &mount.join("catalog")) && move_to(&place, &mount.join("derivatives"));
    let unmount = || {
        let done = Command::new("umount").arg(&mount).status().unwrap();
        assert!(done.success(), "{} cannot be unmounted", mount.display());
        fs::remove_dir(&mount).unwrap();
    };
    if !fits {
        unmount();
        let output = world.run(&[]);
        return Ok(Injection::new("a disk too small for what is there", false, &output));
    }
    let bind = |folder: &Path, name: &str| {
        fs::create_dir_all(folder).unwrap();
        fs::create_dir_all(mount.join(name)).unwrap();
        let done = Command::new("mount").arg("--bind").arg(mount.join(name)).arg(folder).status();
        assert!(done.unwrap().success());
    };
    bind(&catalog, "catalog");
    bind(&place, "derivatives");
    let output = world.run(&[]);
    for folder in [&catalog, &place] {
        assert!(Command::new("umount").arg(folder).status().unwrap().success());
        fs::remove_dir_all(folder).unwrap();
    }
    assert!(move_to(&mount.join("catalog"), &catalog));
    assert!(move_to(&mount.join("derivatives"), &place));
    unmount();
    let what = format!("a disk of {kilobytes} kB, exit {:?}", output.status.code());
    calm(&what, &output)?;
    match output.status.code() {
        Some(0) => {}
        Some(1) if says_full(&output) => {}
        _ => return Err(format!("{what}: nothing says that the disk is full: {}", text(&output))),
    }
    Ok(Injection::new(what, !output.status.success(), &output))
}

/// What files take on a disk, in pages.
pub fn disk_bytes(folder: &Path) -> u64 {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    files(folder).iter().map(|path| size(path).next_multiple_of(4096)).sum()
}
