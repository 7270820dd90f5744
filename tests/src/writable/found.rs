//! What `poke writable` found on a server.

use std::fmt;

/// A kind of file, with the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The answer to an opening for writing.
    pub answer: Answer,
    /// Number of files.
    pub count: usize,
    /// The path, with N for numbers.
    pub path: String,
    /// The line of the list.
    pub line: String,
}

/// The kernel's answer to an opening for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It opened the file.
    Opened,
    /// EPERM or EACCES.
    Refused,
    /// The driver answered with an error of its own, such as ENODEV.
    OtherError,
    /// Opening has an effect, so it was not tried.
    Untried,
}

/// A line that is not in the list's form.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no line of `poke writable`")]
pub struct Malformed(String);

impl Found {
    fn parse(line: &str) -> Result<Found, Malformed> {
        let malformed = || Malformed(line.to_owned());
        let mut fields = line.split('\t');
        let mut field = || fields.next().ok_or_else(malformed);
        let (answer, _kind, count, path) = (field()?, field()?, field()?, field()?);
        Ok(Found {
            answer: match answer {
                "open" => Answer::Opened,
                "EPERM" | "EACCES" => Answer::Refused,
                "untried" => Answer::Untried,
                _ => Answer::OtherError,
            },
            count: count.parse().map_err(|_| malformed())?,
            path: path.to_owned(),
            line: line.to_owned(),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.line.replace('\t', " "))
    }
}

/// Reads the list. Its last line counts the entries of the walk: without it, the list is not
/// complete.
pub fn parse(list: &str) -> Result<Vec<Found>, Malformed> {
    let (list, _) = (list.trim_end().rsplit_once('\n'))
        .filter(|(_, last)| last.starts_with("entries\t"))
        .ok_or_else(|| Malformed(list.lines().last().unwrap_or_default().to_owned()))?;
    list.lines().map(Found::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_complete_list() {
        let found = parse("open\tf\t2\t/sys/a b\nEACCES\tc\t1\t/dev/c\nentries\t9\n").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].answer, Answer::Opened);
        assert_eq!((found[0].count, found[0].path.as_str()), (2, "/sys/a b"));
        assert_eq!(found[1].answer, Answer::Refused);
    }

    #[test]
    fn refuses_a_list_that_is_cut_off() {
        for list in [
            "",
            "open\tf\t2\t/a\n",
            "entries\t1\n",
            "open\tf\nentries\t1\n",
        ] {
            assert!(parse(list).is_err(), "{list:?}");
        }
    }
}
