//! Patterns of paths. `*` matches a part of a name, `**` also slashes, and `{a,b}` one of several
//! texts.

/// A pattern without braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The patterns that a text with braces stands for; `None` if a brace has no counterpart.
    pub fn parse(text: &str) -> Option<Vec<Pattern>> {
        let Some((before, rest)) = text.split_once('{') else {
            return (!text.contains('}')).then(|| vec![Pattern(text.to_owned())]);
        };
        let (choices, after) = rest.split_once('}')?;
        if before.contains('}') || choices.contains('{') {
            return None;
        }
        let after = Pattern::parse(after)?;
        let mut patterns = Vec::new();
        for choice in choices.split(',') {
            for Pattern(end) in &after {
                patterns.push(Pattern(format!("{before}{choice}{end}")));
            }
        }
        Some(patterns)
    }

    /// Whether the pattern matches all of a path.
    pub fn matches(&self, path: &str) -> bool {
        matches(self.0.as_bytes(), path.as_bytes())
    }

    /// Whether the last name of the pattern is given in full, so that it does not match a file with
    /// a new name.
    pub fn names_the_file(&self) -> bool {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        !name.is_empty() && !name.contains('*')
    }
}

fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return path.is_empty();
    };
    if first != b'*' {
        return path
            .split_first()
            .is_some_and(|(&byte, path)| byte == first && matches(rest, path));
    }
    let (rest, slashes) = match rest.split_first() {
        Some((b'*', rest)) => (rest, true),
        _ => (rest, false),
    };
    let end = match slashes {
        true => path.len(),
        false => path
            .iter()
            .position(|&byte| byte == b'/')
            .unwrap_or(path.len()),
    };
    (0..=end).any(|at| matches(rest, &path[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<Vec<String>> {
        let patterns = Pattern::parse(text)?;
        Some(patterns.into_iter().map(|Pattern(text)| text).collect())
    }

    #[test]
    fn braces_stand_for_several_patterns() {
        assert_eq!(texts("/a").unwrap(), ["/a"]);
        assert_eq!(texts("/{a,b}/c").unwrap(), ["/a/c", "/b/c"]);
        assert_eq!(
            texts("/{a,b}/{c,d}").unwrap(),
            ["/a/c", "/a/d", "/b/c", "/b/d"]
        );
        for text in ["{", "}", "a}b{", "{a{b}", "{a}}"] {
            assert_eq!(texts(text), None, "{text}");
        }
    }

    #[test]
    fn one_star_stays_in_a_directory_and_two_do_not() {
        for (pattern, path, expected) in [
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/**/c", "/a/b/b/c", true),
            ("/a/**", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/b*", "/a/b", true),
            ("/a/b", "/a/bc", false),
            ("/a/b", "/a", false),
        ] {
            let pattern = Pattern(pattern.to_owned());
            assert_eq!(pattern.matches(path), expected, "{pattern:?} {path}");
        }
    }

    #[test]
    fn a_star_in_the_last_name_is_no_name() {
        let named = |text: &str| Pattern(text.to_owned()).names_the_file();
        assert!(named("/a/**/b"));
        assert!(!named("/a/b*"));
        assert!(!named("/a/"));
    }
}
