//! Checks of single entries: the end of the archive, names, link targets, types.

use std::collections::BTreeMap;

use super::header::{Header, PATH_MAX};
use super::input::Input;
use super::pax;
use crate::error::{Error, Result};
use crate::io::zeros::is_zero;
use crate::tree::{Kind, TARGET_MAX, parts, show};

pub(super) const TRUNCATED: &str = "it is truncated: make or fetch it again";

/// The archive ends with two blocks of zeroes.
pub(super) fn end(input: &mut Input, extensions: u32) -> Result<bool> {
    match input.block()? {
        Some(block) if is_zero(&block) => {}
        Some(_) => {
            return Err(
                Error::new("a single block of zeroes in the middle of the archive")
                    .hint("the archive is damaged: make or fetch it again"),
            );
        }
        None => {
            return Err(Error::new(
                "the archive ends after the first of the two blocks of zeroes that mark its end",
            )
            .hint(TRUNCATED));
        }
    }
    if extensions > 0 {
        return Err(Error::new("an extended header without an entry")
            .hint("the archive is damaged: make or fetch it again"));
    }
    Ok(false)
}

pub(super) fn extension(header: &Header, input: &mut Input) -> Result<Vec<u8>> {
    let size = header.size()?;
    if size > pax::LENGTH_MAX {
        return Err(Error::new(format!(
            "an extended header of {size} bytes, more than the limit of {}",
            pax::LENGTH_MAX
        )));
    }
    input.bytes(size as usize)
}

/// A name in GNU's form, which ends with a NUL.
pub(super) fn long(bytes: &[u8]) -> Result<Vec<u8>> {
    let end = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if bytes[..end].contains(&0) {
        return Err(Error::new("a name contains a NUL"));
    }
    Ok(bytes[..end].to_vec())
}

/// Checks a name of the archive and returns it as a relative path.
pub(super) fn relative(name: &[u8], what: &str) -> Result<Vec<u8>> {
    let refuse = |why: &str| Error::new(format!("the {what} \"{}\" {why}", show(name)));
    if name.is_empty() {
        return Err(refuse("is empty"));
    }
    if name.starts_with(b"/") {
        return Err(refuse("is absolute")
            .hint("make the archive with names below its root: `tar -C ROOT -c .`"));
    }
    if name.len() > PATH_MAX {
        return Err(Error::new(format!(
            "the {what} has {} bytes, more than the {PATH_MAX} of a path in Linux",
            name.len()
        )));
    }
    if parts(name).any(|part| part == b"..") {
        return Err(refuse("holds `..`")
            .hint("make the archive with names below its root: `tar -C ROOT -c .`"));
    }
    let kept: Vec<&[u8]> = parts(name).filter(|part| part != b".").collect();
    Ok(kept.join(&b'/'))
}

pub(super) fn no_content(size: u64, what: &str) -> Result<()> {
    match size {
        0 => Ok(()),
        _ => Err(Error::new(format!(
            "{what} with {size} bytes of content, which not all archivers store"
        ))
        .hint("make the archive again with GNU tar")),
    }
}

pub(super) fn directory(size: u64) -> Result<Kind> {
    no_content(size, "a directory")?;
    Ok(Kind::Directory(BTreeMap::new()))
}

pub(super) fn symlink(target: &[u8]) -> Result<Kind> {
    match target.len() {
        0 => Err(Error::new("a symbolic link without a target")),
        length if length > TARGET_MAX => Err(Error::new(format!(
            "the target of the symbolic link has {length} bytes, more than the {TARGET_MAX} of Linux"
        ))),
        _ => Ok(Kind::Symlink(target.into())),
    }
}

pub(super) fn unknown(flag: u8) -> Error {
    let what = match flag {
        b'D' => "a directory of an incremental archive (type D)",
        b'M' => "a file continued from another volume (type M)",
        b'N' => "a list of long names in GNU's oldest form (type N)",
        b'S' => "a sparse file in star's form (type S)",
        b'A' => "a Solaris access control list (type A)",
        b'E' => "a Solaris file of attributes (type E)",
        b'I' => "an inode without content in star's form (type I)",
        _ => {
            return Error::new(format!(
                "an entry of the unknown type \"{}\"",
                flag.escape_ascii()
            ))
            .hint("make the archive again with `tar --format=pax`");
        }
    };
    Error::new(format!("{what}, which is not supported"))
        .hint("make the archive again with `tar --format=pax`")
}
