//! Reading: from a path to checked headers and decoded voxels, in one pass over the file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use ndarray::Array3;

use super::datatype::decode;
use super::header::{self, Header};
use super::raw::{self, Raw};
use super::stream::Stream;
use crate::error::{Error, Fault, Result};
use crate::volume::{Image, Mask, Volume};

/// Bytes of a file read at a time: compressed ones, or voxels as they are stored.
const BLOCK: usize = 256 << 10;

/// Bytes read at a time where only a header is wanted.
const HEADER_BLOCK: usize = 4 << 10;

/// Bytes after the last voxel that are still read to reach the checksum of a gzip file.
const MAX_TRAILER: u64 = 1 << 20;

/// Values above this are inside a mask.
const INSIDE: f32 = 0.5;

/// Reads and checks a header. Of the voxels, only the size of their file is looked at.
///
/// `path` may be a `.nii`, or either half of a `.hdr` / `.img` pair, each also gzipped. Names decide only where the
/// other half of a pair is; the content decides everything else.
///
/// # Errors
/// A data error where the file is no NIfTI image of real numbers that can be whole; an I/O error where it cannot be
/// read. Both name the file.
pub fn read_header(path: &Path) -> Result<Header> {
    open(path, HEADER_BLOCK).map(|(header, _)| header)
}

/// Reads volume number `volume` (from 0) of a 3-D or 4-D image, scaled to its values.
///
/// Values that are not finite stay as they are. Of a gzip file, the checksum is verified when its last volume is read.
///
/// # Errors
/// Those of [`read_header`]; a data error where the image has no such volume or its bytes are truncated or damaged; a
/// resource error where memory is short.
pub fn read_image(path: &Path, volume: usize) -> Result<(Image, Header)> {
    let (header, stream) = open(path, BLOCK)?;
    if volume >= header.volumes() {
        return Err(Error::data(format!(
            "{}: volume {volume} (from 0) was asked for, but the image has {}",
            path.display(),
            header.volumes()
        ))
        .hint("choose a volume by its b-value or number that the image has"));
    }
    let mut values = reserve(path, &header)?;
    let notes = read_volume(&header, stream, volume, |raw| {
        decode(&header.coding(), raw, &mut values);
    })?;
    finish(path, values, header, notes)
}

/// Reads a mask: 1 where the image's value is above 0.5, else 0 (also where it is not a number).
///
/// # Errors
/// Those of [`read_image`]; a data error where the file holds several volumes.
pub fn read_mask(path: &Path) -> Result<(Mask, Header)> {
    let (header, stream) = open(path, BLOCK)?;
    if header.volumes() != 1 {
        return Err(Error::data(format!(
            "{}: a mask is one volume, this file has {}",
            path.display(),
            header.volumes()
        ))
        .hint("save the one volume that is the mask"));
    }
    let mut inside = reserve(path, &header)?;
    let mut values = Vec::new();
    let notes = read_volume(&header, stream, 0, |raw| {
        values.clear();
        decode(&header.coding(), raw, &mut values);
        inside.extend(values.iter().map(|&v| u8::from(v > INSIDE)));
    })?;
    finish(path, inside, header, notes)
}

fn finish<T>(
    path: &Path,
    voxels: Vec<T>,
    mut header: Header,
    notes: Option<String>,
) -> Result<(Volume<T>, Header)> {
    header.notes.extend(notes);
    let data = Array3::from_shape_vec(header.grid.dim(), voxels)
        .map_err(|e| Error::bug(format!("{}: {e}", path.display())))?;
    Ok((Volume { data, affine: header.grid.affine }, header))
}

/// Room for one volume. The header was checked against the size of the file.
fn reserve<T>(path: &Path, header: &Header) -> Result<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(header.voxels()).map_err(|_| {
        Error::resource(format!(
            "{}: no memory for a volume of {} voxels",
            path.display(),
            header.voxels()
        ))
    })?;
    Ok(room)
}

/// Hands the stored bytes of a volume to `take`, whole voxels at a time; returns a note on what follows the last voxel.
fn read_volume(
    header: &Header,
    mut stream: Stream,
    volume: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<Option<String>> {
    let bytes = header.volume_bytes();
    stream.skip_to(header.data_offset + volume as u64 * bytes)?;
    stream.hand_out(bytes, header.datatype.bytes(), &mut take)?;
    if volume + 1 < header.volumes() {
        return Ok(None);
    }
    let complete = stream.finish(MAX_TRAILER)?;
    Ok((!complete).then(|| {
        "more than 1 MiB follows the last voxel; the checksum was not verified".to_owned()
    }))
}

/// Opens an image: its checked header, and the stream of the file that holds the voxels.
fn open(path: &Path, block: usize) -> Result<(Header, Stream)> {
    open_parts(path, block).map_err(|e| match (e.fault(), e.advice()) {
        (Fault::Data, None) => e.hint("export or copy the file again, or leave the case out"),
        _ => e,
    })
}

fn open_parts(path: &Path, block: usize) -> Result<(Header, Stream)> {
    let header_path = match half(path) {
        Some(Half::Image) => sibling(path, "hdr")?,
        _ => path.to_owned(),
    };
    let named = |e: Error| e.context(path.display());
    let mut stream = Stream::open(&header_path, block)?;
    let mut raw = read_raw(&mut stream).map_err(|e| name_once(e, &header_path))?;
    if is_extended(&raw, &mut stream)? {
        raw.texts.push(("extensions", b"present".to_vec()));
    }
    if !raw.single {
        let data_path = match half(path) {
            Some(Half::Image) => path.to_owned(),
            Some(Half::Header) => sibling(path, "img")?,
            None => {
                return Err(named(Error::data(
                    "the header says that the voxels are in a separate .img file",
                ))
                .hint("give the pair the names NAME.hdr and NAME.img"));
            }
        };
        stream = Stream::open(&data_path, block)?;
    }
    let header = header::check(&raw, stream.container).map_err(named)?;
    Ok((header, stream))
}

fn read_raw(stream: &mut Stream) -> Result<Raw> {
    let mut bytes = [0; raw::LENGTH_2];
    // As much as a NIfTI-1 header, at first: the file may be no longer than that.
    let mut found = stream.fill(&mut bytes[..raw::LENGTH_1])?;
    let kind = raw::kind(&bytes[..found])?;
    if found == raw::LENGTH_1 && kind.nifti2 {
        found += stream.fill(&mut bytes[raw::LENGTH_1..])?;
    }
    if found < kind.length() {
        return Err(Error::data(format!(
            "the file ends after {} bytes, within the header of {}",
            stream.position(),
            kind.length()
        )));
    }
    raw::parse(kind, &bytes[..kind.length()])
}

/// Whether the four bytes after the header say that extensions follow; without such bytes there are none.
fn is_extended(raw: &Raw, stream: &mut Stream) -> Result<bool> {
    let after = stream.position() + 4;
    if raw.single && raw.vox_offset > 0.0 && raw.vox_offset < after as f64 {
        return Ok(false);
    }
    let mut flag = [0; 4];
    Ok(stream.fill(&mut flag)? == flag.len() && flag[0] != 0)
}

/// Puts the file's name before a reason that does not begin with it.
fn name_once(error: Error, path: &Path) -> Error {
    let name = path.display().to_string();
    if error.reason().starts_with(&name) { error } else { error.context(name) }
}

/// The halves of a NIfTI pair.
enum Half {
    Header,
    Image,
}

fn half(path: &Path) -> Option<Half> {
    let ending = plain_name(path).extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "hdr" => Some(Half::Header),
        "img" => Some(Half::Image),
        _ => None,
    }
}

/// The other file that an image consists of, where its name says that it is one half of a `.hdr` / `.img` pair.
pub fn other_half(path: &Path) -> Option<PathBuf> {
    let ending = match half(path)? {
        Half::Header => "img",
        Half::Image => "hdr",
    };
    sibling(path, ending).ok()
}

/// The path without `.gz`.
fn plain_name(path: &Path) -> PathBuf {
    let packed = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    if packed { path.with_extension("") } else { path.to_owned() }
}

/// The other half of a pair: the same name with the other ending, gzipped or not.
fn sibling(path: &Path, ending: &str) -> Result<PathBuf> {
    let plain = plain_name(path).with_extension(ending);
    let mut packed = plain.clone().into_os_string();
    packed.push(OsStr::new(".gz"));
    let packed = PathBuf::from(packed);
    [&plain, &packed].into_iter().find(|p| p.exists()).cloned().ok_or_else(|| {
        Error::data(format!(
            "{}: the other half of the pair, {1} or {1}.gz, is not there",
            path.display(),
            plain.file_name().unwrap_or_default().to_string_lossy()
        ))
        .hint("keep the .hdr and the .img file of an image together")
    })
}
