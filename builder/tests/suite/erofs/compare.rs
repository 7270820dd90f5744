//! Comparison of images with trees: through our own reader, and through a directory that the kernel
//! or another tool made.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use adamant::tree::{Kind, NodeId, Tree};

use super::image::open;

pub fn type_of(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 1,
        Kind::CharDevice { .. } => 2,
        Kind::Directory(_) => 4,
        Kind::BlockDevice { .. } => 6,
        Kind::File(_) => 8,
        Kind::Symlink(_) => 10,
        Kind::Socket => 12,
    }
}

pub fn links(tree: &Tree, id: NodeId) -> u32 {
    match &tree.node(id).kind {
        Kind::Directory(names) => {
            2 + names
                .values()
                .filter(|c| matches!(tree.node(**c).kind, Kind::Directory(_)))
                .count() as u32
        }
        _ => tree.node(id).links,
    }
}

pub fn holds(kind: &Kind) -> Option<Vec<u8>> {
    match kind {
        Kind::File(content) => Some(content.to_vec(u64::MAX).unwrap()),
        Kind::Symlink(target) => Some(target.to_vec()),
        _ => None,
    }
}

pub fn all_of(tree: &Tree) -> Vec<(Vec<u8>, NodeId)> {
    let mut all = tree.walk();
    all.push((b"/".to_vec(), Tree::ROOT));
    all
}

pub fn our_reader_agrees(tree: &Tree, path: &Path) {
    let image = open(path).unwrap();
    let mut names: BTreeMap<Vec<u8>, usize> = image.names().collect();
    names.insert(b"/".to_vec(), 0);
    let all = all_of(tree);
    assert_eq!(names.len(), all.len());
    let mut seen = BTreeMap::new();
    for (path, id) in all {
        let shown = String::from_utf8_lossy(&path).into_owned();
        let number = names[&path];
        if *seen.entry(id).or_insert(number) != number {
            panic!("{shown}: a hard link to another inode");
        }
        let (node, stat) = (tree.node(id), image.stat(number));
        assert_eq!(
            stat.mode,
            node.meta.mode | type_of(&node.kind) << 12,
            "{shown}"
        );
        assert_eq!(
            (stat.uid, stat.gid, stat.links),
            (node.meta.uid, node.meta.gid, links(tree, id)),
            "{shown}"
        );
        assert_eq!(
            stat.mtime,
            (node.meta.mtime.seconds, node.meta.mtime.nanoseconds),
            "{shown}"
        );
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind {
            assert_eq!(stat.device, (major, minor), "{shown}");
        }
        let wanted: BTreeMap<&[u8], &[u8]> = node
            .meta
            .xattrs
            .iter()
            .flat_map(|x| x.iter())
            .map(|(n, v)| (&**n, &**v))
            .collect();
        let has: BTreeMap<&[u8], &[u8]> = image
            .xattrs(number)
            .iter()
            .map(|(n, v)| (&**n, &**v))
            .collect();
        assert!(wanted == has, "{shown}: extended attributes differ");
        if let Some(wanted) = holds(&node.kind) {
            let mut has = Vec::new();
            image
                .read(number, &mut |piece| {
                    has.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert!(has == wanted, "{shown}: bytes differ");
        }
    }
}

/// Compares the directory `root` of this machine with the tree. `whole` includes owners, times,
/// link counts and attributes.
pub fn folder_agrees(tree: &Tree, root: &Path, whole: bool) {
    let mut count = 0;
    for (path, id) in all_of(tree) {
        count += 1;
        let shown = String::from_utf8_lossy(&path).into_owned();
        let node = tree.node(id);
        let here = root.join(OsStr::from_bytes(&path[1..]));
        let here = if path == b"/" { root.to_owned() } else { here };
        let meta = std::fs::symlink_metadata(&here).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let links_only = matches!(node.kind, Kind::Symlink(_)) && !whole;
        assert_eq!(meta.mode() >> 12, u32::from(type_of(&node.kind)), "{shown}");
        if !links_only {
            // fsck.erofs sets owners after modes, and so loses set-id bits.
            let mask = if whole { 0o7777 } else { 0o777 };
            assert_eq!(
                meta.mode() & mask,
                u32::from(node.meta.mode) & mask,
                "{shown}"
            );
        }
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind {
            assert!(meta.file_type().is_char_device() || meta.file_type().is_block_device());
            assert_eq!(
                (nix::libc::major(meta.rdev()), nix::libc::minor(meta.rdev())),
                (major, minor),
                "{shown}"
            );
        }
        let bytes = match &node.kind {
            Kind::File(_) => Some(std::fs::read(&here).unwrap_or_else(|e| panic!("{shown}: {e}"))),
            Kind::Symlink(_) => Some(
                std::fs::read_link(&here)
                    .unwrap()
                    .into_os_string()
                    .into_vec(),
            ),
            _ => None,
        };
        assert!(bytes == holds(&node.kind), "{shown}: bytes differ");
        if whole {
            assert_eq!(
                (meta.uid(), meta.gid(), meta.nlink()),
                (node.meta.uid, node.meta.gid, u64::from(links(tree, id))),
                "{shown}"
            );
            assert_eq!(
                (meta.mtime(), meta.mtime_nsec()),
                (
                    node.meta.mtime.seconds,
                    i64::from(node.meta.mtime.nanoseconds)
                ),
                "{shown}"
            );
            let wanted: BTreeMap<Vec<u8>, Vec<u8>> = node
                .meta
                .xattrs
                .iter()
                .flat_map(|x| x.iter())
                .map(|(n, v)| (n.to_vec(), v.to_vec()))
                .collect();
            assert!(
                wanted == kernel_xattrs(&here),
                "{shown}: extended attributes differ"
            );
        }
    }
    assert_eq!(count_below(root), count, "entries that are not in the tree");
}

pub fn count_below(root: &Path) -> usize {
    let below = std::fs::read_dir(root).unwrap().map(|e| e.unwrap());
    1 + below
        .map(|e| {
            if e.file_type().unwrap().is_dir() {
                count_below(&e.path())
            } else {
                1
            }
        })
        .sum::<usize>()
}

pub fn kernel_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut list = vec![0u8; 1 << 16];
    // SAFETY: the path ends with NUL, and the buffer has the given length.
    let len = unsafe { nix::libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(usize::try_from(len).unwrap());
    let names = list.split(|&b| b == 0).filter(|n| !n.is_empty());
    names
        .map(|name| {
            let c_name = CString::new(name).unwrap();
            let mut value = vec![0u8; 1 << 16];
            // SAFETY: as above.
            let len = unsafe {
                nix::libc::lgetxattr(
                    path.as_ptr(),
                    c_name.as_ptr(),
                    value.as_mut_ptr().cast(),
                    value.len(),
                )
            };
            value.truncate(usize::try_from(len).unwrap());
            (name.to_vec(), value)
        })
        .collect()
}
