//! What stands around the DEFLATE stream of a member (RFC 1952).

use std::io::{self, Read};

use super::super::checksum::Checksum;
use super::{HEAD, Inflate, Place, damaged, too_short};

impl<R: Read> Inflate<R> {
    /// The header of a member; where there is none, the end, if there was one before.
    pub(super) fn member(&mut self) -> io::Result<()> {
        self.supply(2 + HEAD)?;
        let waiting = self.count / 8;
        let found = (0..2).map(|i| {
            if i < waiting {
                self.bits >> (8 * i) & 0xff
            } else {
                u64::from(self.input[self.at + (i - waiting) as usize])
            }
        });
        let is_member = self.left()? >= 2 && found.eq([0x1f, 0x8b]);
        if !is_member {
            if self.members == 0 {
                return Err(if self.left()? < 2 {
                    too_short()
                } else {
                    damaged("this is no gzip file")
                });
            }
            self.place = Place::End;
            return Ok(());
        }
        let mut checksum = Checksum::default();
        let mut next = |this: &mut Self| {
            let byte = this.take(8)? as u8;
            checksum.update(&[byte]);
            io::Result::Ok(byte)
        };
        let mut fixed = [0; 10];
        for byte in &mut fixed {
            *byte = next(self)?;
        }
        if fixed[2] != 8 || fixed[3] & 0xe0 != 0 {
            return Err(damaged("its header names an unknown method"));
        }
        if fixed[3] & 4 != 0 {
            let length = u16::from_le_bytes([next(self)?, next(self)?]);
            for _ in 0..length {
                next(self)?;
            }
        }
        // A name and a comment, each with a zero at its end.
        for flag in [8, 16] {
            while fixed[3] & flag != 0 && next(self)? != 0 {}
        }
        if fixed[3] & 2 != 0 && self.take(16)? != checksum.sum() & 0xffff {
            return Err(damaged("the checksum of its header differs"));
        }
        self.checksum = Checksum::default();
        self.floor = self.to;
        self.members += 1;
        self.place = Place::Block;
        self.last = false;
        Ok(())
    }

    pub(super) fn end_of_member(&mut self) -> io::Result<()> {
        self.align();
        let (sum, length) = (self.take(32)?, self.take(32)?);
        if sum != self.checksum.sum() {
            return Err(damaged("the checksum differs"));
        }
        if length != self.checksum.length() {
            return Err(damaged("the length differs"));
        }
        self.place = Place::Member;
        Ok(())
    }
}
