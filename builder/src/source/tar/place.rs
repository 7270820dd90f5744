//! Where an entry lands in the image.
//!
//! Symbolic links that earlier sources put on the way are followed as the image's own kernel would follow them: on a Debian, whose /bin is a
//! link to usr/bin, an overlay's `bin/x` lands in /usr/bin. Links of the archive itself are refused on the way: no archive of a real tree has
//! an entry below one, and those that have are made to reach where they should not.

use crate::error::{Error, Result};
use crate::tree::{Kind, NodeId, Tree, parts, show};

/// The most links followed on one way, as in Linux.
const LINKS_MAX: u32 = 40;

/// Where an archive is put.
pub struct Place {
    /// The directory it is put below, with its links followed.
    at: Vec<u8>,
    /// The first node that is the archive's own.
    first: usize,
}

impl Place {
    /// Below this directory of the tree, which need not be there yet.
    pub fn new(tree: &Tree, at: &[u8]) -> Result<Place> {
        let place = Place { at: Vec::new(), first: tree.capacity() };
        let at = place.of(tree, at, true)?;
        Ok(Place { at, ..place })
    }

    /// Whether the archive, not an earlier source, made this node.
    pub fn is_own(&self, id: NodeId) -> bool {
        id.0 as usize >= self.first
    }

    /// The path where `path` lands. A directory over an earlier source's link to a directory lands where that leads.
    pub fn of(&self, tree: &Tree, path: &[u8], is_directory: bool) -> Result<Vec<u8>> {
        let mut todo: Vec<&[u8]> = parts(&self.at).chain(parts(path)).collect();
        todo.reverse();
        let mut landed: Vec<(&[u8], Option<NodeId>)> = Vec::with_capacity(todo.len());
        let mut followed = 0;
        while let Some(part) = todo.pop() {
            if part == b"." {
                continue;
            }
            if part == b".." {
                landed.pop();
                continue;
            }
            let directory = landed.last().map_or(Some(Tree::ROOT), |last| last.1);
            let id = directory.and_then(|id| child(tree, id, part));
            let Some((link, target)) = id.and_then(|id| Some((id, target(tree, id)?))) else {
                landed.push((part, id));
                continue;
            };
            if todo.is_empty() && !(is_directory && !self.is_own(link) && self.leads_to_directory(tree, &landed, part)) {
                landed.push((part, id));
                continue;
            }
            if self.is_own(link) {
                let error = Error::new(format!("{} leads through the symbolic link {:?} of the same archive", show(path), show(part)));
                return Err(error.hint("such archives are made to write where they should not: make it again, from a real tree"));
            }
            followed += 1;
            if followed > LINKS_MAX {
                return Err(Error::new(format!("{}: symbolic links on the way lead in a circle", show(path))));
            }
            if target.starts_with(b"/") {
                landed.clear();
            }
            let from = todo.len();
            todo.extend(parts(target));
            todo[from..].reverse();
        }
        let landed: Vec<&[u8]> = landed.into_iter().map(|part| part.0).collect();
        Ok(landed.join(&b'/'))
    }

    fn leads_to_directory(&self, tree: &Tree, landed: &[(&[u8], Option<NodeId>)], name: &[u8]) -> bool {
        let path: Vec<&[u8]> = landed.iter().map(|part| part.0).chain([name]).collect();
        tree.resolve(&path.join(&b'/')).is_some_and(|id| matches!(tree.node(id).kind, Kind::Directory(_)))
    }
}

fn child(tree: &Tree, directory: NodeId, name: &[u8]) -> Option<NodeId> {
    match &tree.node(directory).kind {
        Kind::Directory(names) => names.get(name).copied(),
        _ => None,
    }
}

fn target(tree: &Tree, id: NodeId) -> Option<&[u8]> {
    match &tree.node(id).kind {
        Kind::Symlink(target) => Some(target),
        _ => None,
    }
}
