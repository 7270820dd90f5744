//! JSON on one line, safe to print on a terminal.

use serde::Serialize;

/// Serializes a value. Control characters that JSON allows unescaped (DEL and C1) are escaped too,
/// because terminals interpret them; such characters occur within strings only.
pub fn to_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    escape_controls(&json)
}

/// Escapes text for a terminal: control characters become `\u00XX`, backslashes are doubled.
pub fn printable(text: &str) -> String {
    escape_controls(&text.replace('\\', "\\\\"))
}

fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let digit = |shift: u32| char::from_digit(c as u32 >> shift & 15, 16).unwrap_or('0');
            out.extend(['\\', 'u', '0', '0', digit(4), digit(0)]);
        } else {
            out.push(c);
        }
    }
    out
}

/// Reads a value; `None` if the text is not its JSON.
///
/// The agent reads JSON from bytes everywhere. A second kind of reader would double the code of a
/// type: about 70 KB for the boot report.
pub fn from_text<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_read_back_and_has_no_control_character() {
        let text = "a\"b\\c\nd\u{1b}[31m\u{7f}\u{85}ä";
        let line = to_line(&text);
        assert!(!line.chars().any(char::is_control), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        assert_eq!(
            printable(text),
            "a\"b\\\\c\\u000ad\\u001b[31m\\u007f\\u0085ä"
        );
    }
}
