//! The bytes of a file, decompressed on the way where it is a gzip file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::header::Container;
use super::inflate::Inflate;
use crate::error::{Error, Result};
use crate::formats::files::{io_error, open_regular};

/// A file read from front to back.
pub(super) struct Stream {
    path: PathBuf,
    source: Source,
    /// Bytes given out so far, which is the place in the decompressed file.
    position: u64,
    pub container: Container,
}

enum Source {
    Plain(BufReader<File>),
    Gzip(Box<Inflate<File>>),
}

impl Source {
    fn bytes(&mut self) -> &mut dyn BufRead {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(inflate) => inflate,
        }
    }
}

impl Stream {
    /// Opens a file, to read `block` bytes of it at a time; gzip is recognised by its first bytes, whatever the name.
    pub fn open(path: &Path, block: usize) -> Result<Self> {
        let (mut file, bytes) = open_regular(path)?;
        if bytes == 0 {
            return Err(Error::data(format!("{}: the file is empty (0 bytes)", path.display())));
        }
        let failed = |e: io::Error| io_error(path, "cannot be read", &e);
        let mut magic = Vec::new();
        file.by_ref().take(2).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let gzip = magic == [0x1f, 0x8b];
        let source = if gzip {
            Source::Gzip(Box::new(Inflate::new(file, block)))
        } else {
            Source::Plain(BufReader::with_capacity(block, file))
        };
        Ok(Self {
            path: path.to_owned(),
            source,
            position: 0,
            container: Container { bytes, gzip },
        })
    }

    /// Where the next byte lies in the decompressed file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads until `buffer` is full or the file ends; returns how many bytes were read.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut full = 0;
        while full < buffer.len() {
            match self.source.bytes().read(&mut buffer[full..]) {
                Ok(0) => break,
                Ok(n) => {
                    full += n;
                    self.position += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failure(&e)),
            }
        }
        Ok(full)
    }

    /// Fills the whole buffer.
    pub fn fill_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        if self.fill(buffer)? < buffer.len() {
            return Err(Error::data(format!(
                "{}: the file ends after {} bytes of content, before all the voxels that its header announces",
                self.path.display(),
                self.position
            ))
            .hint("the file is truncated: export or copy it again"));
        }
        Ok(())
    }

    /// Hands the next `bytes` bytes to `take`, in pieces of whole multiples of `unit` bytes, which is 16 at most.
    pub fn hand_out(&mut self, bytes: u64, unit: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let found = match self.source.bytes().fill_buf() {
                Ok(found) => found,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.failure(&e)),
            };
            let whole = found.len().min(usize::try_from(left).unwrap_or(usize::MAX)) / unit * unit;
            if whole > 0 {
                take(&found[..whole]);
                self.source.bytes().consume(whole);
                self.position += whole as u64;
                left -= whole as u64;
            } else {
                // The end of the file, or a unit that lies in two pieces.
                let mut one = [0; 16];
                self.fill_exact(&mut one[..unit])?;
                take(&one[..unit]);
                left -= unit as u64;
            }
        }
        Ok(())
    }

    /// Passes over bytes up to `position` in the decompressed file.
    pub fn skip_to(&mut self, position: u64) -> Result<()> {
        if let Source::Plain(file) = &mut self.source {
            file.seek(SeekFrom::Start(position))
                .map_err(|e| io_error(&self.path, "cannot be read", &e))?;
            self.position = position;
            return Ok(());
        }
        let left = position.saturating_sub(self.position);
        self.hand_out(left, 1, |_| ())
    }

    /// Reads a gzip file to its end, so that its checksum is verified, unless more than `most` bytes follow.
    ///
    /// Returns whether the end was reached.
    pub fn finish(&mut self, most: u64) -> Result<bool> {
        let Source::Gzip(inflate) = &mut self.source else { return Ok(true) };
        let end = io::copy(&mut inflate.take(most + 1), &mut io::sink());
        end.map(|rest| rest <= most).map_err(|e| self.failure(&e))
    }

    fn failure(&self, error: &io::Error) -> Error {
        let corrupt = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        );
        if !(self.container.gzip && corrupt) {
            return io_error(&self.path, "cannot be read", error);
        }
        let what = if error.kind() == io::ErrorKind::UnexpectedEof {
            "the compressed data end too early".to_owned()
        } else {
            format!("the compressed data are damaged ({error})")
        };
        Error::data(format!(
            "{}: {what}, after {} bytes of content",
            self.path.display(),
            self.position
        ))
        .hint("the file was cut or altered on its way: copy it again")
    }
}
