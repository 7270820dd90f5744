//! Where an entry lands in the image.
//!
//! Symbolic links that earlier sources put on the way are followed as the image's own kernel would
//! follow them: on a Debian, whose /bin is a link to usr/bin, an overlay's `bin/x` lands in
//! /usr/bin. Links of the archive itself are refused on the way: no archive of a real tree has
//! an entry below one, and those that have are made to reach where they should not.

use crate::error::{Error, Result};
use crate::source::link_loop;
use crate::tree::{LinkPolicy, NodeId, ResolveError, Tree, parts, show};

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
        let place = Place {
            at: Vec::new(),
            first: tree.capacity(),
        };
        let at = place.of(tree, at, true)?;
        Ok(Place { at, ..place })
    }

    /// Whether the archive, not an earlier source, made this node.
    pub fn is_own(&self, id: NodeId) -> bool {
        id.0 as usize >= self.first
    }

    /// The path where `path` lands. A directory over an earlier source's link to a directory lands
    /// where that leads.
    pub fn of(&self, tree: &Tree, path: &[u8], is_directory: bool) -> Result<Vec<u8>> {
        let end = tree.follow(parts(&self.at).chain(parts(path)), &mut |link| match (
            self.is_own(link.id),
            link.is_last,
        ) {
            (true, true) => LinkPolicy::NoFollow,
            (true, false) => LinkPolicy::Refuse,
            (false, true) if !(is_directory && tree.is_directory(&link.path())) => {
                LinkPolicy::NoFollow
            }
            (false, _) => LinkPolicy::Follow,
        });
        match end {
            Ok(end) => Ok(end.path()),
            Err(ResolveError::Loop) => Err(link_loop(path)),
            Err(ResolveError::Refused(link)) => Err(Error::new(format!("{} leads through the symbolic link {:?} of the same archive", show(path), show(&link)))
                .hint("such archives are made to write where they should not: make it again, from a real tree")),
        }
    }
}
