//! The 512-byte header block: POSIX.1-1988 "ustar", its Unix V7 predecessor, and the variants of
//! GNU and star.

use crate::error::{Error, Result};

/// Size of a tar block, bytes.
pub const BLOCK: usize = 512;
/// Maximum path length of the image's kernel (PATH_MAX without the NUL).
pub const PATH_MAX: usize = 4095;

/// A block.
pub type TarBlock = [u8; BLOCK];

/// A header with a valid checksum.
pub struct Header(TarBlock);

/// The variant of a header; it decides where a long name continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HeaderFormat {
    V7,
    Ustar,
    Gnu,
    Star,
}

impl Header {
    /// Checks the checksum. Old archivers summed signed bytes; that sum is accepted too.
    pub fn new(block: TarBlock) -> Result<Header> {
        let sum = |value: fn(u8) -> i64| -> i64 {
            let blank = 8 * i64::from(b' ');
            let outside = block[..148].iter().chain(&block[156..]);
            outside.map(|&byte| value(byte)).sum::<i64>() + blank
        };
        let said = number(&block[148..156])
            .map_err(|why| Error::new(format!("the header's checksum {why}")).hint(DAMAGED))?;
        if said != i128::from(sum(i64::from))
            && said != i128::from(sum(|byte| i64::from(byte.cast_signed())))
        {
            return Err(Error::new("the header's checksum is wrong").hint(DAMAGED));
        }
        Ok(Header(block))
    }

    fn format(&self) -> HeaderFormat {
        match &self.0[257..265] {
            b"ustar  \0" => HeaderFormat::Gnu,
            magic if magic.starts_with(b"ustar\0") && &self.0[508..512] == b"tar\0" => {
                HeaderFormat::Star
            }
            magic if magic.starts_with(b"ustar") => HeaderFormat::Ustar,
            _ => HeaderFormat::V7,
        }
    }

    /// Whether the header has GNU's own fields (sparse maps).
    pub fn is_gnu(&self) -> bool {
        self.format() == HeaderFormat::Gnu
    }

    /// The type flag.
    pub fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix if the variant has one.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.format() {
            HeaderFormat::Ustar => text(&self.0[345..500]),
            HeaderFormat::Star => text(&self.0[345..476]),
            HeaderFormat::V7 | HeaderFormat::Gnu => &[],
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, name].join(&b'/')
        }
    }

    /// The target of a link.
    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    /// Length of the content that follows, bytes.
    pub fn size(&self) -> Result<u64> {
        self.field("size", 124..136)
    }

    /// Permission bits. Old archivers also stored the type here; the type flag has it too.
    pub fn mode(&self) -> Result<u16> {
        let mode: u64 = self.field("mode", 100..108)?;
        Ok((mode & 0o7777) as u16)
    }

    /// Owner.
    pub fn uid(&self) -> Result<u32> {
        self.field("owner", 108..116)
    }

    /// Group.
    pub fn gid(&self) -> Result<u32> {
        self.field("group", 116..124)
    }

    /// Modification time, seconds since 1970.
    pub fn mtime(&self) -> Result<i64> {
        self.field("modification time", 136..148)
    }

    /// Name of the owner on the machine that created the archive.
    pub fn owner(&self) -> &[u8] {
        if self.format() == HeaderFormat::V7 {
            &[]
        } else {
            text(&self.0[265..297])
        }
    }

    /// Name of the group on the machine that created the archive.
    pub fn group(&self) -> &[u8] {
        if self.format() == HeaderFormat::V7 {
            &[]
        } else {
            text(&self.0[297..329])
        }
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Result<(u32, u32)> {
        let (major, minor): (u32, u32) = (
            self.field("device's major number", 329..337)?,
            self.field("device's minor number", 337..345)?,
        );
        if major > 0xfff || minor > 0xf_ffff {
            return Err(Error::new(format!(
                "device {major}:{minor} is beyond the largest of Linux, 4095:1048575"
            )));
        }
        Ok((major, minor))
    }

    /// GNU's old sparse format: the first four pieces, whether a block with more pieces follows,
    /// and the length of the file with holes.
    pub fn sparse(&self) -> Result<(&[u8], bool, u64)> {
        Ok((
            &self.0[386..482],
            self.0[482] != 0,
            self.field("real size", 483..495)?,
        ))
    }

    fn field<T: TryFrom<i128>>(&self, what: &str, range: std::ops::Range<usize>) -> Result<T> {
        let value =
            number(&self.0[range]).map_err(|why| Error::new(format!("the {what} {why}")))?;
        T::try_from(value).map_err(|_| Error::new(format!("the {what}, {value}, is out of range")))
    }
}

const DAMAGED: &str = "the archive is damaged or not a tar archive: make or fetch it again";

/// A text field ends at its first NUL or at its last byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Parses a number: octal digits between blanks, or, with the first bit set, two's complement in
/// base 256. A blank field is 0.
pub fn number(field: &[u8]) -> Result<i128, String> {
    let Some((&first, rest)) = field.split_first() else {
        return Ok(0);
    };
    if first & 0x80 != 0 {
        // Bit 6 is the sign.
        let start = if first & 0x40 != 0 {
            i128::from(first) - 0x100
        } else {
            i128::from(first & 0x3f)
        };
        return Ok(rest
            .iter()
            .fold(start, |value, &byte| (value << 8) | i128::from(byte)));
    }
    let text = text(field).trim_ascii();
    let mut value = 0i128;
    for &digit in text {
        match digit {
            b'0'..=b'7' => value = (value << 3) | i128::from(digit - b'0'),
            _ => return Err(format!("is not a number: \"{}\"", text.escape_ascii())),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_octal_and_signed_base_256_numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"77777777", 0o77_777_777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"\x80\0\0\0\xff\xff\xff\xff", 0xffff_ffff),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", -256),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", 2 << 32),
        ] {
            assert_eq!(number(field), Ok(value), "{}", field.escape_ascii());
        }
        assert!(number(b"0000648\0").is_err());
        assert!(number(b"-000001\0").is_err());
    }
}
