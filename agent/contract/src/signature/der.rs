//! A reader for the subset of DER (X.690) in signed messages and certificates: tags of one byte,
//! lengths in their shortest form.

use thiserror::Error;

/// Why DER is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DerError {
    /// The bytes end within a value.
    #[error("it ends in the middle of a value")]
    Truncated,
    /// A tag has more than one byte.
    #[error("a tag of more than one byte")]
    LongTag,
    /// A length could be shorter.
    #[error("a length that is not in its shortest form")]
    LongLength,
    /// A length is indefinite or too large.
    #[error("a length without an end, or of more than three bytes")]
    Length,
    /// A field is malformed.
    #[error("{0}: {1}")]
    Field(&'static str, Box<DerError>),
    /// A field has another type.
    #[error("{field}: type {found:#04x} where {expected:#04x} belongs")]
    Tag {
        /// The field.
        field: &'static str,
        /// Its tag.
        found: u8,
        /// The expected tag.
        expected: u8,
    },
    /// A structure has more bytes than its fields.
    #[error("{0}: {1} bytes too many")]
    Trailing(&'static str, usize),
    /// A field has another value than in a root hash's signature.
    #[error("another {0} than a root hash's signature has")]
    OtherValue(&'static str),
}

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const NULL: u8 = 0x05;
pub const OID: u8 = 0x06;
pub const UTC_TIME: u8 = 0x17;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;
/// `[0]`, constructed.
pub const CONTEXT_0: u8 = 0xa0;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// The complete encoding with tag and length.
    pub whole: &'a [u8],
}

/// Reads a sequence of values.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the next value of any type.
    pub fn any(&mut self) -> Result<Value<'a>, DerError> {
        let bytes = self.0;
        let [tag, first, ..] = *bytes else {
            return Err(DerError::Truncated);
        };
        if tag & 0x1f == 0x1f {
            return Err(DerError::LongTag);
        }
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x83 => {
                let header = 2 + usize::from(first & 0x7f);
                let digits = bytes.get(2..header).ok_or(DerError::Truncated)?;
                let length = digits
                    .iter()
                    .fold(0, |length, &digit| length << 8 | usize::from(digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(DerError::LongLength);
                }
                (header, length)
            }
            _ => return Err(DerError::Length),
        };
        let (whole, rest) = bytes
            .split_at_checked(header + length)
            .ok_or(DerError::Truncated)?;
        self.0 = rest;
        Ok(Value {
            tag,
            content: &whole[header..],
            whole,
        })
    }

    /// Reads the next value, which must have this tag.
    pub fn take(&mut self, tag: u8, field: &'static str) -> Result<Value<'a>, DerError> {
        let value = self
            .any()
            .map_err(|error| DerError::Field(field, Box::new(error)))?;
        if value.tag != tag {
            return Err(DerError::Tag {
                field,
                found: value.tag,
                expected: tag,
            });
        }
        Ok(value)
    }

    /// Returns a reader for the content of the next value, which must have this tag.
    pub fn enter(&mut self, tag: u8, field: &'static str) -> Result<Reader<'a>, DerError> {
        self.take(tag, field).map(|value| Reader(value.content))
    }

    /// Reads the next value if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Value<'a>>, DerError> {
        if self.0.first() == Some(&tag) {
            self.any().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Refuses further values.
    pub fn end(self, field: &'static str) -> Result<(), DerError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DerError::Trailing(field, self.0.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_lengths_only_in_their_shortest_form() {
        let long = [&[OCTET_STRING, 0x81, 0x80][..], &[7; 0x80]].concat();
        let mut reader = Reader(&long);
        assert_eq!(
            reader
                .any()
                .map(|value| (value.tag, value.content.len(), value.whole.len())),
            Ok((OCTET_STRING, 0x80, 0x83))
        );
        assert_eq!(reader.end("it"), Ok(()));
        for wrong in [
            &[0x04][..],
            &[4, 2, 0],
            &[4, 0x80, 0, 0],
            &[4, 0x81, 1, 0],
            &[4, 0x82, 0, 1, 0],
            &[4, 0x84, 0, 0, 0, 1, 0],
            &[0x1f, 1, 0],
            &[4, 0x83, 0xff],
        ] {
            assert!(Reader(wrong).any().is_err(), "{wrong:?}");
        }
    }
}
