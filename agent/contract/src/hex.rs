//! Hexadecimal text, as hashes and identifiers are written.

use std::fmt::Write;

/// Lowercase hexadecimal digits of `bytes`, two for each byte.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
