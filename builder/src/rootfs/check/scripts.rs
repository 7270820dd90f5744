//! Executable scripts that the kernel cannot start: files with Windows line ends or a byte order
//! mark.

use super::program::head;
use super::script::{self, FirstLine};
use super::{Finding, Image, listed};
use crate::tree::{Kind, show};

/// Examples and documentation are not run in these directories.
const EXAMPLES: [&str; 2] = ["/usr/share/doc/", "/usr/share/man/"];

pub fn check(image: &Image) -> Vec<Finding> {
    let (mut returns, mut marks) = (Vec::new(), Vec::new());
    image.tree.visit(&mut |path, id| {
        let node = image.tree.node(id);
        let Kind::File(content) = &node.kind else {
            return;
        };
        if node.meta.mode & 0o111 == 0
            || EXAMPLES
                .iter()
                .any(|folder| path.starts_with(folder.as_bytes()))
        {
            return;
        }
        let Ok(head) = head(content) else { return };
        match script::first_line(&head, content.len() < script::HEAD as u64) {
            FirstLine::CarriageReturn(_) => returns.push(show(path)),
            FirstLine::ByteOrderMark => marks.push(show(path)),
            _ => {}
        }
    });
    let finding = |rule, paths: Vec<String>, what: &str, hint: &str| {
        (!paths.is_empty()).then(|| Finding {
            is_error: false,
            rule,
            message: format!("{what}: {}", listed(&paths)),
            hint: hint.to_owned(),
        })
    };
    [
        finding(
            "script-line-ends",
            returns,
            "executable scripts whose lines end with CR LF, so the kernel does not find their interpreter",
            "save them with LF line ends (dos2unix, or a .gitattributes line with eol=lf)",
        ),
        finding(
            "script-byte-order-mark",
            marks,
            "executable scripts that start with a UTF-8 byte order mark, so the kernel does not see #!",
            "save them as UTF-8 without a byte order mark",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
