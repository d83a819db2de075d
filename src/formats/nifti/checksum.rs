//! The end of a gzip member (RFC 1952): CRC-32 and length modulo 2³² of its bytes.

use crc32fast::Hasher;

/// Checksum and length of the bytes so far.
#[derive(Default)]
pub(super) struct Checksum {
    crc: Hasher,
    length: u32,
}

impl Checksum {
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.length = self.length.wrapping_add(bytes.len() as u32);
    }

    /// The CRC-32 of the bytes.
    pub fn sum(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// How many bytes, modulo 2³².
    pub fn length(&self) -> u32 {
        self.length
    }
}
