//! Detects private keys in text form: PEM (RFC 7468), OpenSSH, PuTTY, OpenPGP, OpenVPN, age; in
//! UTF-8 and UTF-16, in files of any size.

use std::borrow::Cow;
use std::io;

use memchr::memmem;

use crate::tree::Content;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Number of bytes from the start of a key that identify it.
const ENOUGH: usize = 4 << 10;
/// The first bytes of each text form.
const STARTS: [&str; 3] = ["-----BEGIN ", "AGE-SECRET-KEY-1", "\nPrivate-Lines:"];

/// Whether the text has a PEM block with a body, a PuTTY key or an age identity. A header line
/// alone is documentation.
pub fn holds_private_key(text: &str) -> bool {
    if text.starts_with("PuTTY-User-Key-File-") || text.contains("\nPrivate-Lines:") {
        return true;
    }
    if text.match_indices("AGE-SECRET-KEY-1").any(|(at, _)| {
        text[at + 16..]
            .bytes()
            .take_while(u8::is_ascii_alphanumeric)
            .count()
            >= 58
    }) {
        return true;
    }
    text.match_indices("-----BEGIN ").any(|(at, begin)| {
        let rest = &text[at + begin.len()..];
        let Some((label, body)) = rest.split_once("-----") else {
            return false;
        };
        let is_private = label.len() <= 40
            && (label == "PGP PRIVATE KEY BLOCK"
                || label.ends_with("PRIVATE KEY")
                || label.starts_with("OpenVPN "));
        is_private && has_body(body)
    })
}

/// Whether base64 follows: at least one line of 32 digits, after optional headers (`Proc-Type:`).
/// JSON and shell strings write newlines as `\n`.
fn has_body(body: &str) -> bool {
    let body = body.get(..body.len().min(2048)).unwrap_or(body);
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    let body = body.replace("\\n", "\n");
    body.lines()
        .take(12)
        .take_while(|line| !line.contains("-----END"))
        .any(|line| {
            let line = line.trim();
            line.len() >= 32 && line.bytes().all(base64)
        })
}

/// Searches a file that is too large to be read as one text. Programs are skipped: cryptographic
/// libraries contain keys for their self-tests.
pub fn large_file_holds_private_key(content: &Content) -> io::Result<bool> {
    let mut magic = [0; 4];
    content.read_exact_at(0, &mut magic)?;
    if magic == *b"\x7fELF" {
        return Ok(false);
    }
    let finders = STARTS.map(|start| memmem::Finder::new(start.as_bytes()));
    let mut buffer = vec![0; CHUNK];
    // Only data is read, because holes can be arbitrarily long. Adjacent pieces are read as one.
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for extent in content.extents() {
        match ranges.last_mut() {
            Some(last) if last.1 == extent.at => last.1 += extent.len,
            _ => ranges.push((extent.at, extent.at + extent.len)),
        }
    }
    for (mut at, end) in ranges {
        loop {
            let window = &mut buffer[..(end - at).min(CHUNK as u64) as usize];
            content.read_exact_at(at, window)?;
            for finder in &finders {
                for found in finder.find_iter(window) {
                    let words = &window[found..window.len().min(found + ENOUGH)];
                    if holds_private_key(&String::from_utf8_lossy(words)) {
                        return Ok(true);
                    }
                }
            }
            if at + window.len() as u64 == end {
                break;
            }
            // A key that starts in the last bytes is complete in the next round.
            at += (window.len() - ENOUGH) as u64;
        }
    }
    Ok(false)
}

/// The text of a file. A binary file is reduced to its ASCII characters, since all rules search for
/// ASCII text.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let read = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
        char::decode_utf16(bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    // UTF-16 text in Latin script has a zero in most pairs of bytes, with or without a byte order
    // mark.
    let zeros = |odd: usize| {
        bytes
            .iter()
            .take(256)
            .skip(odd)
            .step_by(2)
            .filter(|byte| **byte == 0)
            .count()
            * 10
            >= bytes.len().min(256) / 2 * 9
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(read(u16::from_le_bytes, rest)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(read(u16::from_be_bytes, rest)),
        [first, 0, ..] if *first != 0 && zeros(1) => Cow::Owned(read(u16::from_le_bytes, bytes)),
        [0, second, ..] if *second != 0 && zeros(0) => Cow::Owned(read(u16::from_be_bytes, bytes)),
        // Replacing byte by byte is many times faster than searching for well-formed UTF-8 in files
        // that are partly binary.
        _ if !bytes.is_ascii() => {
            let ascii = bytes
                .iter()
                .map(|byte| if byte.is_ascii() { *byte } else { b'?' })
                .collect();
            Cow::Owned(String::from_utf8(ascii).unwrap_or_default())
        }
        _ => String::from_utf8_lossy(bytes),
    }
}
