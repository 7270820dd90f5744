//! Lists of paths in messages. The first paths are named and the others counted, so the length of a
//! message is bounded.

use std::fmt;

/// Number of paths that are named.
const NAMED: usize = 20;

/// A list of paths for a message.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    named: Vec<String>,
    more: usize,
}

impl Paths {
    /// Adds a path.
    pub fn push(&mut self, path: impl Into<String>) {
        if self.named.len() < NAMED {
            self.named.push(path.into());
        } else {
            self.more += 1;
        }
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The paths that are named.
    pub fn named(&self) -> &[String] {
        &self.named
    }
}

impl<S: Into<String>> FromIterator<S> for Paths {
    fn from_iter<I: IntoIterator<Item = S>>(all: I) -> Paths {
        let mut paths = Paths::default();
        all.into_iter().for_each(|path| paths.push(path));
        paths
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join(", "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_paths_and_counts_the_others() {
        assert_eq!(
            ["/a", "/b"].into_iter().collect::<Paths>().to_string(),
            "/a, /b"
        );
        let many: Paths = (0..25).map(|n| format!("/{n}")).collect();
        assert!(many.to_string().ends_with("/18, /19 and 5 more") && many.named().len() == 20);
    }
}
