//! A definition's text, and where in it something stands.

use std::ops::Range;
use std::path::Path;

use crate::error::Error;

/// The text with the name that messages call it by.
pub struct Text<'a> {
    /// As it was given: messages name it like this.
    pub path: &'a Path,
    /// The whole file.
    pub text: &'a str,
}

impl Text<'_> {
    /// `PATH:LINE:COLUMN`, both from 1 on, the column in characters.
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

    /// An error at this place.
    pub fn error(&self, span: Range<usize>, what: impl std::fmt::Display) -> Error {
        Error::new(format!("{}: {what}", self.location(span)))
    }

    /// A key at this place that is none of those known there.
    pub fn unknown_key(&self, span: Range<usize>, unknown: &str, known: &[&str]) -> Error {
        self.error(span, unknown_key(unknown, known))
    }

    /// What TOML or serde found wrong, in our words.
    pub fn syntax(&self, error: &toml::de::Error) -> Error {
        let span = error.span().unwrap_or(0..0);
        self.error(
            span.clone(),
            in_our_words(error.message(), self.text.get(span).unwrap_or_default()),
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

/// Rewrites a message of serde so that it speaks of keys and tables and says what to write.
fn in_our_words(message: &str, found: &str) -> String {
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
            Some(word) => format!("{unknown:?} is not known here (did you mean {word:?}?)"),
            None => format!("{unknown:?} is not known here (use {})", known.join(" or ")),
        };
    }
    let mut words = message.replace('\n', ", ");
    if words.starts_with("invalid type: map") && words.ends_with("expected a sequence") {
        return match found.trim_start().starts_with('[') {
            true => "this is a table, a list of tables is expected (write its name in double brackets, for example [[source]])".to_owned(),
            false => "this is a table, a list is expected (write for example [\"a\", \"b\"])".to_owned(),
        };
    }
    for (theirs, ours) in [
        ("invalid type: map", "wrong type: table"),
        ("invalid type: sequence", "wrong type: list"),
        ("invalid type: ", "wrong type: "),
        ("invalid value: ", "wrong value: "),
        ("expected a sequence", "expected a list"),
        (
            "expected u32",
            "expected a whole number from 0 to 4294967295",
        ),
        ("expected u64", "expected a whole number"),
    ] {
        words = words.replacen(theirs, ours, 1);
    }
    words
}

/// The known word that a mistyped one most likely meant: at most a third of the longer word's
/// letters differ. `None` where none is near.
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    /// A key can be as long as the file, and comparing takes the square of that; no known word is
    /// longer.
    const LONGEST: usize = 64;
    // Nobody means another word by letters of another case, or by `-` for `_`.
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    let letters = unknown.chars().count();
    if letters > LONGEST {
        return None;
    }
    let distance = |word: &str| strsim::damerau_levenshtein(&plain(unknown), &plain(word));
    let (distance, word) = known.iter().map(|word| (distance(word), *word)).min()?;
    (distance * 3 <= letters.max(word.chars().count())).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_near_is_suggested() {
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
            // One of two letters, two of four and three of five are other words.
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
