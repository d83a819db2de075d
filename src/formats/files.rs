//! Whole files: opened only when they are files, written so that they appear complete or not at all.
//!
//! A published file is written under a temporary name beside its place (`.NAME.PID-N.tmp`), flushed to the disk,
//! renamed, and its folder flushed, so that a reader or a crash never sees half a file. Its blake3 hash is taken on
//! the way.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::privacy;
use crate::error::{Error, Result};

/// How much is read or written at a time, in bytes.
const BLOCK: usize = 256 << 10;

/// What a file holds: how many bytes, and their hash.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Published {
    /// Size in bytes.
    pub bytes: u64,
    /// blake3 of the bytes, 64 hexadecimal digits.
    pub blake3: String,
}

/// Writes a file through `write` and puts it at `path`, whole; an existing file there is replaced.
///
/// Missing parent folders are made. What `write` writes is buffered, so small writes are cheap.
///
/// # Errors
/// Those of `write`, unchanged; an I/O or resource error naming the path. Nothing is left behind on an error.
pub fn publish(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Published> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return Err(Error::configuration(format!("{}: this path names no file", path.display())));
    };
    make_folder(folder).map_err(|e| io_error(folder, "cannot be made", &e))?;
    let temporary = Temporary::beside(folder, &name.to_string_lossy());
    let failed = |e: &io::Error| io_error(path, "cannot be written", e);
    let file = File::create_new(&temporary.0).map_err(|e| failed(&e))?;
    let hashing = Hashing { file, path, hasher: blake3::Hasher::new(), bytes: 0 };
    let mut writer = BufWriter::with_capacity(BLOCK, hashing);
    write(&mut writer)?;
    let Hashing { file, hasher, bytes, .. } =
        writer.into_inner().map_err(|e| Error::from(e.into_error()))?;
    file.sync_all().map_err(|e| failed(&e))?;
    drop(file);
    fs::rename(&temporary.0, path).map_err(|e| failed(&e))?;
    sync_folder(path).map_err(|e| failed(&e))?;
    Ok(Published { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

/// Makes a folder, and those above it, so that they outlast a power loss.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    fs::create_dir_all(folder)?;
    missing.iter().rev().try_for_each(|made| sync_folder(made))
}

/// Waits until the name of `path` is on the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Whether a file name is one of [`publish`]'s temporary names, left by a process that was killed.
pub fn is_temporary(name: &str) -> bool {
    let Some(stem) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".tmp")) else {
        return false;
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    stem.rsplit_once('.')
        .and_then(|(name, tail)| Some((name, tail.split_once('-')?)))
        .is_some_and(|(name, (pid, count))| !name.is_empty() && digits(pid) && digits(count))
}

/// Size and hash of a file.
///
/// # Errors
/// A data error where the path is no regular file, an I/O error where it cannot be read.
pub fn hash_file(path: &Path) -> Result<Published> {
    let (mut file, _) = open_regular(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&block[..n]);
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error(path, "cannot be read", &e)),
        }
    }
    Ok(Published { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

/// Copies a file whose hash must be `blake3`, whole or not at all.
///
/// # Errors
/// A data error where the path is no regular file or its bytes have another hash; an I/O error that names a path.
pub fn copy(from: &Path, to: &Path, blake3: &str) -> Result<Published> {
    let (mut file, _) = open_regular(from)?;
    publish(to, |out| {
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK];
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&block[..n]);
                    out.write_all(&block[..n])?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error(from, "cannot be read", &e)),
            }
        }
        if *blake3 == *hasher.finalize().to_hex() {
            return Ok(());
        }
        Err(Error::data(format!("{}: its bytes are not those of hash {blake3}", from.display()))
            .hint("the file was changed after it was recorded; make it again"))
    })
}

/// The whole of a small file.
///
/// # Errors
/// A data error where the path is no regular file or the file holds more than `max_bytes`; an I/O error where it
/// cannot be read.
pub fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let (file, length) = open_regular(path)?;
    let mut content = Vec::new();
    if length <= max_bytes {
        // The file may have grown since its length was asked for; one byte more than allowed shows that.
        file.take(max_bytes.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|e| io_error(path, "cannot be read", &e))?;
    }
    if length > max_bytes || content.len() as u64 > max_bytes {
        return Err(Error::data(format!(
            "{}: {} where at most {} are expected",
            path.display(),
            human_bytes(length),
            human_bytes(max_bytes)
        )));
    }
    Ok(content)
}

/// The text of a small file, without a byte-order mark.
///
/// # Errors
/// As [`read_bounded`]; a data error where the bytes are not UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    let text = String::from_utf8(read_bounded(path, max_bytes)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].split(|&b| b == b'\n').count();
        Error::data(format!("{}: line {line} is not UTF-8 text", path.display()))
            .hint("save the file with the encoding UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The local path that `uri` means: a plain path as it stands, the path of a `file://` URI, or what a privacy policy sealed.
///
/// # Errors
/// A configuration error for every other scheme, for a malformed `file://` URI and for a seal that no key at hand opens.
pub fn resolve(uri: &str) -> Result<PathBuf> {
    if privacy::is_sealed(uri) {
        return privacy::unseal(uri);
    }
    let scheme = uri.split_once("://").map(|(scheme, _)| scheme).filter(|s| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    match scheme {
        None if uri.trim().is_empty() => Err(Error::configuration("an empty path names no file")),
        None => Ok(PathBuf::from(uri)),
        Some(scheme) if scheme.eq_ignore_ascii_case("file") => {
            url::Url::parse(uri).ok().and_then(|u| u.to_file_path().ok()).ok_or_else(|| {
                Error::configuration(format!(
                    "`{}` is not the address of a local file",
                    without_secrets(uri)
                ))
                .hint("write file:///absolute/path, or the plain path")
            })
        }
        Some(scheme) => Err(Error::configuration(format!(
            "`{}`: addresses of the scheme {scheme}:// cannot be read, only paths and file://",
            without_secrets(uri)
        ))
        .hint("copy or mount the data locally and name the local path")),
    }
}

/// An address as a message may show it: without a user, a password and what follows `?` or `#`, where tokens stand.
pub fn without_secrets(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{}", path.map(|p| format!("/{p}")).unwrap_or_default())
}

/// Opens a regular file for reading and tells its length in bytes.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    let failed = |e: &io::Error| io_error(path, "cannot be read", e);
    // Asked before opening: opening a named pipe would wait for its writer.
    let kind = fs::metadata(path).map_err(|e| failed(&e))?;
    if kind.is_dir() {
        return Err(Error::data(format!("{}: a folder, not a file", path.display())));
    }
    if !kind.is_file() {
        return Err(Error::data(format!(
            "{}: a device or pipe, not a regular file",
            path.display()
        )));
    }
    let file = File::open(path).map_err(|e| failed(&e))?;
    let length = file.metadata().map_err(|e| failed(&e))?.len();
    Ok((file, length))
}

/// What an operating system's error on `path` means here; `failed` says what could not be done.
pub(crate) fn io_error(path: &Path, failed: &str, error: &io::Error) -> Error {
    let place = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => Error::io(format!(
                "{place} {failed}: it is a link to {}, which does not exist",
                target.display()
            ))
            .hint("fetch the link's target or remove the link"),
            Err(_) => Error::io(format!("{place} {failed}: there is no such file")),
        },
        io::ErrorKind::PermissionDenied => {
            Error::io(format!("{place} {failed}: permission denied"))
                .hint("give the user who runs this the right to the file and its folders")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::disk_full(format!("{place} {failed}: the disk is full"))
        }
        _ => Error::io(format!("{place} {failed}: {error}")),
    }
}

/// A size for people: `512 B`, `1.5 kB`, `140.7 TB` (decimal prefixes).
pub(crate) fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        prefix = next;
    }
    let mut text = String::new();
    let decimals = usize::from(!prefix.is_empty());
    // Writing to a string cannot fail.
    let _ = write!(text, "{value:.decimals$} {prefix}B");
    text
}

/// A temporary file that is removed unless it was renamed away.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(folder: &Path, name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(folder.join(format!(".{name}.{}-{count}.tmp", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing by this name; before it, a failed removal has nobody to tell.
        let _ = fs::remove_file(&self.0);
    }
}

/// A file that hashes and counts what passes into it.
struct Hashing<'p> {
    file: File,
    /// The name that it will have.
    path: &'p Path,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        let n = self.file.write(block).map_err(|e| {
            io::Error::new(e.kind(), format!("{} cannot be written: {e}", self.path.display()))
        })?;
        self.hasher.update(&block[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::error::Fault;

    #[test]
    fn a_published_file_is_whole_and_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/text.txt");
        let put = publish(&path, |w| Ok(w.write_all(b"ischaemia")?)).unwrap();
        assert_eq!(put, hash_file(&path).unwrap());
        assert_eq!(put.bytes, 9);
        assert_eq!(put.blake3, blake3::hash(b"ischaemia").to_hex().to_string());
    }

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        publish(&path, |w| Ok(w.write_all(b"old")?)).unwrap();
        let error = publish(&path, |w| {
            w.write_all(b"new")?;
            Err(Error::data("no"))
        });
        assert_eq!(error.unwrap_err().reason(), "no");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_names_are_recognised() {
        let t = Temporary::beside(Path::new("x"), "a.nii.gz");
        assert!(is_temporary(&t.0.file_name().unwrap().to_string_lossy()));
        for name in ["a.tmp", ".a.tmp", ".a.12.tmp", ".a.1-x.tmp", "..1-2.tmp"] {
            assert!(!is_temporary(name), "{name}");
        }
    }

    #[test]
    fn only_local_addresses_resolve() {
        assert_eq!(resolve("a b/c.nii").unwrap(), PathBuf::from("a b/c.nii"));
        assert_eq!(resolve("file:///a%20b/c").unwrap(), PathBuf::from("/a b/c"));
        assert_eq!(resolve("s3://b/k").unwrap_err().fault(), Fault::Configuration);
        assert_eq!(resolve("file://host/k").unwrap_err().fault(), Fault::Configuration);
        assert!(resolve(" ").is_err());
        let error = resolve("s3://me:secret@host/b?token=secret#secret").unwrap_err().to_string();
        assert!(error.contains("s3://host/b") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let folder = hash_file(dir.path()).unwrap_err();
        assert!(folder.reason().contains("folder"), "{folder}");
        assert!(hash_file(Path::new("/dev/zero")).unwrap_err().reason().contains("device"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(hash_file(&link).unwrap_err().reason().contains("nowhere"));
        let long = dir.path().join("long");
        fs::write(&long, [0; 100]).unwrap();
        assert!(read_bounded(&long, 99).is_err());
        assert_eq!(read_bounded(&long, 100).unwrap().len(), 100);
    }

    #[test]
    fn text_must_be_utf8_and_loses_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        fs::write(&path, b"\xef\xbb\xbfa\nb").unwrap();
        assert_eq!(read_text(&path, 99).unwrap(), "a\nb");
        fs::write(&path, b"a\nM\xfcller").unwrap();
        assert!(read_text(&path, 99).unwrap_err().reason().contains("line 2"));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1_500), "1.5 kB");
        assert_eq!(human_bytes(140_737_488_355_328), "140.7 TB");
    }
}
