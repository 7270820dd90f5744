//! A tar archive as a tree, for measurements and comparisons: trusts the archive, and keeps what mmdebstrap writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use adamant::tree::{Content, Kind, Meta, Time, Tree};

/// Reads an uncompressed archive; the bytes of files stay in it.
pub fn load(path: &Path) -> io::Result<Tree> {
    let file = Arc::new(File::open(path)?);
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 16, File::open(path)?));
    let mut tree = Tree::new();
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let header = entry.header().clone();
        let mut meta = Meta {
            mode: (header.mode()? & 0o7777) as u16,
            uid: header.uid()? as u32,
            gid: header.gid()? as u32,
            mtime: Time { seconds: header.mtime()? as i64, nanoseconds: 0 },
            xattrs: None,
        };
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let key = extension.key().map_err(io::Error::other)?;
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.as_bytes().into(), extension.value_bytes().into());
                } else if key == "mtime" {
                    let text = extension.value().map_err(io::Error::other)?;
                    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
                    meta.mtime.seconds = seconds.parse().map_err(io::Error::other)?;
                    meta.mtime.nanoseconds = format!("{fraction:0<9}")[..9].parse().map_err(io::Error::other)?;
                }
            }
        }
        meta.xattrs = (!xattrs.is_empty()).then(|| Arc::new(xattrs));
        let name = entry.path_bytes().into_owned();
        let name = name.strip_prefix(b".").unwrap_or(&name);
        if name.iter().all(|&b| b == b'/') {
            tree.node_mut(Tree::ROOT).meta = meta;
            continue;
        }
        let target = entry.link_name_bytes().unwrap_or_default();
        let device = || -> io::Result<(u32, u32)> { Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))) };
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Directory(BTreeMap::new()),
            tar::EntryType::Symlink => Kind::Symlink(target[..].into()),
            tar::EntryType::Char => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            tar::EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            tar::EntryType::Fifo => Kind::Fifo,
            tar::EntryType::Link => {
                let target = target.strip_prefix(b".").unwrap_or(&target);
                let node = tree.lookup(target).ok_or_else(|| io::Error::other("a hard link to what is not there"))?;
                tree.link(name, node).map_err(io::Error::other)?;
                continue;
            }
            _ => Kind::File(Content::from_file(file.clone(), entry.raw_file_position(), entry.size())),
        };
        tree.insert(name, meta, kind).map_err(io::Error::other)?;
    }
    Ok(tree)
}
