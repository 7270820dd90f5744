//! DER (X.690), as much of it as signed messages and certificates have: tags of one byte, lengths
//! in their only form.

use super::Refusal;

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
    /// With tag and length.
    pub whole: &'a [u8],
}

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value, whatever it is.
    pub fn any(&mut self) -> Result<Value<'a>, Refusal> {
        let cut = || "it ends in the middle of a value".to_owned();
        let bytes = self.0;
        let [tag, first, ..] = *bytes else {
            return Err(cut());
        };
        if tag & 0x1f == 0x1f {
            return Err("a tag of more than one byte".to_owned());
        }
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x83 => {
                let header = 2 + usize::from(first & 0x7f);
                let digits = bytes.get(2..header).ok_or_else(cut)?;
                let length = digits
                    .iter()
                    .fold(0, |length, &digit| length << 8 | usize::from(digit));
                // The only form is the shortest.
                if digits[0] == 0 || length < 0x80 {
                    return Err("a length that is not in its shortest form".to_owned());
                }
                (header, length)
            }
            _ => return Err("a length without an end, or of more than three bytes".to_owned()),
        };
        let (whole, rest) = bytes.split_at_checked(header + length).ok_or_else(cut)?;
        self.0 = rest;
        Ok(Value {
            tag,
            content: &whole[header..],
            whole,
        })
    }

    /// The next value, which must have this tag.
    pub fn take(&mut self, tag: u8, what: &str) -> Result<Value<'a>, Refusal> {
        let value = self.any().map_err(|why| format!("{what}: {why}"))?;
        if value.tag != tag {
            return Err(format!(
                "{what}: type {:#04x} where {tag:#04x} belongs",
                value.tag
            ));
        }
        Ok(value)
    }

    /// What is inside the next value, which must have this tag.
    pub fn enter(&mut self, tag: u8, what: &str) -> Result<Reader<'a>, Refusal> {
        self.take(tag, what).map(|value| Reader(value.content))
    }

    /// The next value if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Value<'a>>, Refusal> {
        if self.0.first() == Some(&tag) {
            self.any().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Nothing may follow.
    pub fn end(self, what: &str) -> Result<(), Refusal> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(format!("{what}: {} bytes too many", self.0.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_lengths_in_their_shortest_form_alone() {
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
