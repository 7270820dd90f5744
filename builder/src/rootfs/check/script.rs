//! The first line of a script, as the kernel parses it (fs/binfmt_script.c).

/// Number of bytes from which the kernel detects the type of a file (BINPRM_BUF_SIZE).
pub const HEAD: usize = 256;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file is started, from its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstLine {
    /// No script.
    Other,
    /// `#!` and an interpreter; the rest of the line is one argument.
    Script {
        /// The path of the interpreter.
        interpreter: Vec<u8>,
        /// The argument without surrounding white space.
        argument: Option<Vec<u8>>,
    },
    /// The line ends with a carriage return, which the kernel treats as part of the name. Holds the
    /// name without it.
    CarriageReturn(Vec<u8>),
    /// A byte order mark precedes `#!`: the kernel does not detect a script.
    ByteOrderMark,
    /// `#!` and no interpreter.
    NoInterpreter,
    /// The path of the interpreter is longer than the bytes that the kernel reads.
    TooLong,
}

/// Parses the first bytes of a file, at most [`HEAD`]; `is_whole` says that the file has no more.
pub fn first_line(head: &[u8], is_whole: bool) -> FirstLine {
    if head
        .strip_prefix(BYTE_ORDER_MARK)
        .is_some_and(|rest| rest.starts_with(b"#!"))
    {
        return FirstLine::ByteOrderMark;
    }
    let Some(rest) = head.strip_prefix(b"#!") else {
        return FirstLine::Other;
    };
    let end = rest.iter().position(|b| *b == b'\n');
    let line = trim(&rest[..end.unwrap_or(rest.len())]);
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t' | 0);
    let split = line.iter().position(is_blank);
    if end.is_none() && !is_whole && split.is_none() {
        return FirstLine::TooLong;
    }
    let (interpreter, argument) = line.split_at(split.unwrap_or(line.len()));
    let argument = trim(argument.split(|b| *b == 0).next().unwrap_or_default());
    if let Some(line) = line.strip_suffix(b"\r") {
        let name = line.split(is_blank).next().unwrap_or_default();
        return if name.is_empty() {
            FirstLine::NoInterpreter
        } else {
            FirstLine::CarriageReturn(name.to_vec())
        };
    }
    match interpreter.is_empty() {
        true => FirstLine::NoInterpreter,
        false => FirstLine::Script {
            interpreter: interpreter.to_vec(),
            argument: (!argument.is_empty()).then(|| argument.to_vec()),
        },
    }
}

fn trim(text: &[u8]) -> &[u8] {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = text.iter().position(|b| !is_blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !is_blank(b))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(interpreter: &str, argument: Option<&str>) -> FirstLine {
        FirstLine::Script {
            interpreter: interpreter.into(),
            argument: argument.map(Into::into),
        }
    }

    #[test]
    fn reads_the_first_line_as_the_kernel_does() {
        let long = format!("#!/{}\n", "x".repeat(300));
        for (text, expected) in [
            ("#!/bin/sh\necho\n", script("/bin/sh", None)),
            (
                "#! \t/usr/bin/env  python3 -u \nx",
                script("/usr/bin/env", Some("python3 -u")),
            ),
            ("#!/bin/sh", script("/bin/sh", None)),
            (
                "#!/bin/sh -e\r\n",
                FirstLine::CarriageReturn("/bin/sh".into()),
            ),
            (
                "#!/bin/sh\r\necho\r\n",
                FirstLine::CarriageReturn("/bin/sh".into()),
            ),
            ("#!/bin/sh\necho\r\n", script("/bin/sh", None)),
            ("\u{feff}#!/bin/sh\n", FirstLine::ByteOrderMark),
            ("\u{feff}text", FirstLine::Other),
            ("#!\n", FirstLine::NoInterpreter),
            ("#! \r\n", FirstLine::NoInterpreter),
            ("# comment", FirstLine::Other),
            ("", FirstLine::Other),
            (&long[..HEAD], FirstLine::TooLong),
        ] {
            assert_eq!(
                first_line(text.as_bytes(), text.len() < HEAD),
                expected,
                "{text:?}"
            );
        }
    }
}
