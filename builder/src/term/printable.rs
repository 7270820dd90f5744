//! Text that may be written to a terminal.
//!
//! Names in archives, file systems, manifests and disks are chosen by others. A terminal executes
//! the escape sequences in them: it hides lines, changes its title, or types into the shell. Both
//! outputs of this program take only a [`Printable`], so no message can be written without the
//! escaping here.

use std::fmt::Write;

/// Text in which each control character, except line feed and tab, is an escape sequence that
/// people can read. So are characters that reverse the order of text (Unicode's bidirectional
/// controls).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printable(String);

impl Printable {
    /// Escapes a text: `\x1b` for ESC.
    pub fn text(text: &str) -> Printable {
        Printable::escaped(text, |out, c| match c {
            '\n' | '\t' => out.push(c),
            c if c.is_ascii() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
        })
    }

    /// Escapes a JSON document, which stays the same document. serde_json escapes the control
    /// characters of ASCII except DEL itself; line feeds are only between values.
    pub fn json(document: &str) -> Printable {
        Printable::escaped(document, |out, c| match c {
            '\n' => out.push(c),
            c => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
        })
    }

    fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> Printable {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if is_unsafe(c) {
                escape(&mut out, c);
            } else {
                out.push(c);
            }
        }
        Printable(out)
    }

    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_but_line_feed_and_tab_reaches_the_terminal() {
        let text = Printable::text("a\x1b[31m\r\x07\x7f\u{9b}2J\u{202e}\n\tä\u{1f600}");
        assert_eq!(
            text.0,
            "a\\x1b[31m\\x0d\\x07\\x7f\\u{9b}2J\\u{202e}\n\tä\u{1f600}"
        );
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let out = Printable::text(&c.to_string());
            assert!(
                !out.0
                    .chars()
                    .any(|c| c.is_control() && c != '\n' && c != '\t'),
                "{c:?}"
            );
        }
    }

    #[test]
    fn a_json_document_keeps_its_meaning() {
        let value = serde_json::json!({ "a\u{9b}\x7f": "\x1b]0;\u{202e}ä\n\t" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let out = Printable::json(&text);
        assert!(!out.0.contains(['\u{9b}', '\x7f', '\x1b', '\u{202e}']));
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(out.as_bytes()).unwrap(),
            value
        );
    }
}
