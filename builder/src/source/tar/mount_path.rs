//! Where an entry of an archive lands in the image.
//!
//! Symbolic links that earlier sources created are followed as the image's kernel would follow
//! them: on Debian, where /bin is a link to usr/bin, an overlay's `bin/x` lands in /usr/bin. An
//! entry below a symbolic link of the same archive is refused: no archive of a real tree has one,
//! and such archives are made to write to unexpected paths.

use crate::error::{Error, Result};
use crate::source::link_loop;
use crate::tree::{LinkPolicy, NodeId, ResolveError, Tree, parts, show};

/// The directory that an archive is loaded into.
pub struct MountPath {
    /// Its path in the image, with symbolic links followed.
    at: Vec<u8>,
    /// The first node that the archive itself adds.
    first: usize,
}

impl MountPath {
    /// For this directory of the tree, which may not exist yet.
    pub fn new(tree: &Tree, at: &[u8]) -> Result<MountPath> {
        let mount_path = MountPath {
            at: Vec::new(),
            first: tree.capacity(),
        };
        let at = mount_path.landing(tree, at, true)?;
        Ok(MountPath { at, ..mount_path })
    }

    /// Whether the archive, not an earlier source, made this node.
    pub fn is_own(&self, id: NodeId) -> bool {
        id.0 as usize >= self.first
    }

    /// The path where `path` lands. A directory over an earlier source's link to a directory lands
    /// in the directory that the link leads to.
    pub fn landing(&self, tree: &Tree, path: &[u8], is_directory: bool) -> Result<Vec<u8>> {
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
                .hint("such archives are made to write to unexpected paths: create the archive again, from a real tree")),
        }
    }
}
