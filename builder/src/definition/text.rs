//! The text of a definition, and errors with their position in it.

use std::ops::Range;
use std::path::Path;

use crate::error::Error;

/// The text with its path.
pub struct Text<'a> {
    /// The path as given, for messages.
    pub path: &'a Path,
    /// The content of the file.
    pub text: &'a str,
}

impl Text<'_> {
    /// `PATH:LINE:COLUMN`, both starting at 1, the column in characters.
    pub fn location(&self, span: Range<usize>) -> String {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        format!("{}:{line}:{column}", self.path.display())
    }

    /// An error at this position.
    pub fn error(&self, span: Range<usize>, what: impl std::fmt::Display) -> Error {
        Error::new(format!("{}: {what}", self.location(span)))
    }

    /// An error about an unknown key at this position.
    pub fn unknown_key(&self, span: Range<usize>, unknown: &str, known: &[&str]) -> Error {
        self.error(span, unknown_key(unknown, known))
    }

    /// An error of TOML or serde, with a clearer message.
    pub fn syntax(&self, error: &toml::de::Error) -> Error {
        let span = error.span().unwrap_or(0..0);
        self.error(
            span.clone(),
            clearer_message(error.message(), self.text.get(span).unwrap_or_default()),
        )
    }
}

fn unknown_key(unknown: &str, known: &[&str]) -> String {
    match nearest(unknown, known) {
        Some(key) => format!("unknown key `{unknown}` (did you mean `{key}`?)"),
        None if known.is_empty() => format!("unknown key `{unknown}` (leave it out)"),
        None => format!("unknown key `{unknown}` (known here: {})", known.join(", ")),
    }
}

/// Rewrites a message of serde in terms of keys and tables, with a remedy.
fn clearer_message(message: &str, found: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some((unknown, rest)) = rest.split_once('`')
    {
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        return unknown_key(unknown, &known);
    }
    if let Some(rest) = message.strip_prefix("unknown variant `")
        && let Some((unknown, rest)) = rest.split_once('`')
    {
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        return match nearest(unknown, &known) {
            Some(near) => format!("{unknown:?} is not known here (did you mean {near:?}?)"),
            None => format!("{unknown:?} is not known here (use {})", known.join(" or ")),
        };
    }
    // toml's own messages about an enumeration with a value of another type.
    if [
        "wanted ",
        "expected table",
        "expected empty ",
        "unexpected keys in table",
    ]
    .iter()
    .any(|start| message.starts_with(start))
    {
        return "wrong type: expected a string".to_owned();
    }
    if message.contains("number overflowed") || message.contains("any valid TOML value") {
        return "the number is too large".to_owned();
    }
    if message.starts_with("unexpected leading zero") {
        return "a number starts with 0 (write a mode in quotes, for example \"0640\")".to_owned();
    }
    if message.starts_with("string values must be quoted") {
        return "the value is missing or has no quotes (write strings as \"...\")".to_owned();
    }
    if message.starts_with("invalid basic string") {
        return "the string has no closing quote".to_owned();
    }
    // toml passes a date to serde as a table.
    if message.starts_with("invalid type: map") && found.starts_with(|c: char| c.is_ascii_digit()) {
        return "wrong type: a date, expected a string (write it in quotes)".to_owned();
    }
    let mut text = message.replace('\n', ", ");
    if text.starts_with("invalid type: map") && text.ends_with("expected a sequence") {
        return match found.trim_start().starts_with('[') {
            true => "this is a table, but a list of tables is expected (write its name in double brackets, for example [[source]])".to_owned(),
            false => "this is a table, but a list is expected (write for example [\"a\", \"b\"])".to_owned(),
        };
    }
    for (theirs, ours) in [
        ("invalid type: map", "wrong type: table"),
        ("invalid type: sequence", "wrong type: list"),
        ("invalid type: ", "wrong type: "),
        ("invalid value: ", "wrong value: "),
        ("` as i128", "`"),
        (", expected nothing", ""),
        ("` as u128", "`"),
        ("expected a sequence", "expected a list"),
        (
            "expected u32",
            "expected a whole number from 0 to 4294967295",
        ),
        ("expected u64", "expected a whole number"),
    ] {
        text = text.replacen(theirs, ours, 1);
    }
    text
}

/// The known name that a mistyped name most likely means: at most a third of the longer name's
/// letters differ. The result is `None` if no name is that similar.
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    /// Longest name that is compared. A key can be as long as the file, and the time grows with the
    /// square of the length.
    const LONGEST: usize = 64;
    // Case and `-` for `_` do not make another name.
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let letters = unknown.chars().count();
    if letters > LONGEST {
        return None;
    }
    let distance = |name: &str| strsim::damerau_levenshtein(&plain(unknown), &plain(name));
    let (distance, name) = known.iter().map(|name| (distance(name), *name)).min()?;
    (distance * 3 <= letters.max(name.chars().count())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_similar_names() {
        let known = [
            "id",
            "at",
            "tar",
            "dir",
            "mount",
            "name",
            "size",
            "weight",
            "on_damage",
            "compression",
            "cross_mounts",
        ];
        for (unknown, expected) in [
            ("mont", Some("mount")),
            ("Mount", Some("mount")),
            ("cross-mounts", Some("cross_mounts")),
            ("compresion", Some("compression")),
            ("on_damaged", Some("on_damage")),
            ("tra", Some("tar")),
            ("idd", Some("id")),
            ("wieght", Some("weight")),
            // One of two letters, two of four and three of five differ too much.
            ("it", None),
            ("a", None),
            ("path", None),
            ("files", None),
            ("hostname", None),
            ("", None),
        ] {
            assert_eq!(nearest(unknown, &known), expected, "{unknown}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), &known), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
