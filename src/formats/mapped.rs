//! Files mapped into memory: the one place that needs `unsafe`.
#![expect(unsafe_code, reason = "memory mapping, reviewed here")]

use std::path::Path;

use arrow::buffer::Buffer;
use bytes::Bytes;
use memmap2::Mmap;

use super::files::{io_error, open_regular};
use crate::error::{Error, Result};

/// The bytes of a file that does not change, without a copy; pages are read when they are touched.
///
/// # Errors
/// A data error where the path is no regular file or the file is empty; an I/O error where it cannot be mapped.
pub(super) fn map(path: &Path) -> Result<Buffer> {
    let (file, bytes) = open_regular(path)?;
    if bytes == 0 {
        return Err(Error::data(format!("{}: the file is empty (0 bytes)", path.display())));
    }
    // SAFETY: The map is read-only, and the bytes must not change while it lives. The files that are mapped, shards,
    // are published by a rename and never written again: a new shard of the same name is another file, and the map
    // keeps the old one alive. Whoever alters a published file in place breaks the promise of `files::publish`.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| io_error(path, "cannot be mapped", &e))?;
    Ok(Buffer::from(Bytes::from_owner(map)))
}
