//! The bytes of a file, decompressed on the way where it is a gzip file.
//!
//! A gzip file may consist of several members (as block compressors write it). Each member's checksum is verified
//! when its end is reached; what follows the last member and is no member is ignored, as gzip does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::header::Container;
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
    Plain(File),
    Gzip(Box<GzDecoder<BufReader<File>>>),
    /// All members of the gzip file were read and their checksums hold.
    Done,
}

impl Stream {
    /// Opens a file, to read `block` compressed bytes at a time; gzip is recognised by its first bytes, whatever the
    /// name.
    pub fn open(path: &Path, block: usize) -> Result<Self> {
        let (file, bytes) = open_regular(path)?;
        if bytes == 0 {
            return Err(Error::data(format!("{}: the file is empty (0 bytes)", path.display())));
        }
        let mut stream = Self {
            path: path.to_owned(),
            source: Source::Plain(file),
            position: 0,
            container: Container { bytes, gzip: false },
        };
        let mut magic = [0; 2];
        let found = stream.fill(&mut magic)?;
        stream.position = 0;
        if let Source::Plain(mut file) = std::mem::replace(&mut stream.source, Source::Done) {
            file.rewind().map_err(|e| io_error(path, "cannot be read", &e))?;
            stream.source = if magic[..found] == [0x1f, 0x8b] {
                stream.container.gzip = true;
                Source::Gzip(Box::new(GzDecoder::new(BufReader::with_capacity(block, file))))
            } else {
                Source::Plain(file)
            };
        }
        Ok(stream)
    }

    /// Where the next byte lies in the decompressed file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads until `buffer` is full or the file ends; returns how many bytes were read.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut full = 0;
        while full < buffer.len() {
            match self.read(&mut buffer[full..]) {
                Ok(0) => break,
                Ok(n) => full += n,
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

    /// Passes over bytes up to `position` in the decompressed file.
    pub fn skip_to(&mut self, position: u64, scratch: &mut [u8]) -> Result<()> {
        if let Source::Plain(file) = &mut self.source {
            file.seek(SeekFrom::Start(position))
                .map_err(|e| io_error(&self.path, "cannot be read", &e))?;
            self.position = position;
            return Ok(());
        }
        while self.position < position {
            let n = (position - self.position).min(scratch.len() as u64) as usize;
            self.fill_exact(&mut scratch[..n])?;
        }
        Ok(())
    }

    /// Reads a gzip file to its end, so that its checksum is verified, unless more than `most` bytes follow.
    ///
    /// Returns whether the end was reached.
    pub fn finish(&mut self, most: u64, scratch: &mut [u8]) -> Result<bool> {
        let last = self.position.saturating_add(most);
        while !matches!(self.source, Source::Plain(_)) {
            if self.position > last {
                return Ok(false);
            }
            if self.fill(scratch)? == 0 {
                break;
            }
        }
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = match &mut self.source {
                Source::Plain(file) => file.read(buffer)?,
                Source::Gzip(decoder) => decoder.read(buffer)?,
                Source::Done => return Ok(0),
            };
            self.position += n as u64;
            if n > 0 || matches!(self.source, Source::Plain(_)) {
                return Ok(n);
            }
            if let Source::Gzip(decoder) = std::mem::replace(&mut self.source, Source::Done) {
                let mut rest = decoder.into_inner();
                if rest.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
                    self.source = Source::Gzip(Box::new(GzDecoder::new(rest)));
                }
            }
        }
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
