//! Path resolution in the tree, like that of the image's own kernel. `..` of the root is the root,
//! and absolute links start at the root, so no path leads out of the image.

use super::{Kind, NodeId, Tree, parts};

/// Most symbolic links that are followed in one path, as in Linux.
const LINKS_MAX: u32 = 40;

/// What to do about a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Follow it.
    Follow,
    /// Resolve to the link itself. Only useful for the last component of a path.
    NoFollow,
    /// Fail.
    Refuse,
}

/// A symbolic link in a path.
#[derive(Debug)]
pub struct SymlinkStep<'w> {
    /// The link.
    pub id: NodeId,
    /// Whether it is the last component of the path.
    pub is_last: bool,
    /// The resolved components before it.
    before: &'w [Component<'w>],
    name: &'w [u8],
}

/// Why a path can't be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// A symbolic link loop: more links than Linux follows (ELOOP).
    Loop,
    /// The policy refused the link of this name.
    Refused(Vec<u8>),
}

/// A resolved path.
#[derive(Debug)]
pub struct Resolved<'w> {
    components: Vec<Component<'w>>,
    /// Whether all components exist.
    exists: bool,
}

/// A name, and its node if it exists.
type Component<'w> = (&'w [u8], Option<NodeId>);

impl SymlinkStep<'_> {
    /// Its own path, without symbolic links in front of it.
    pub fn path(&self) -> Vec<u8> {
        self.before
            .iter()
            .map(|part| part.0)
            .chain([self.name])
            .collect::<Vec<_>>()
            .join(&b'/')
    }
}

impl Resolved<'_> {
    /// The path without symbolic links, and without a slash at its start.
    pub fn path(&self) -> Vec<u8> {
        self.components
            .iter()
            .map(|part| part.0)
            .collect::<Vec<_>>()
            .join(&b'/')
    }

    /// The node at the path, if it exists.
    pub fn node(&self) -> Option<NodeId> {
        self.components
            .last()
            .map_or(Some(Tree::ROOT), |last| last.1)
            .filter(|_| self.exists)
    }
}

impl Tree {
    /// Resolves a path, given by its components; `policy` decides about each symbolic link.
    /// Components that don't exist are kept as they are.
    pub fn follow<'w>(
        &'w self,
        path: impl Iterator<Item = &'w [u8]>,
        policy: &mut dyn FnMut(&SymlinkStep) -> LinkPolicy,
    ) -> Result<Resolved<'w>, ResolveError> {
        let mut todo: Vec<&[u8]> = path.collect();
        todo.reverse();
        let mut resolved = Resolved {
            components: Vec::with_capacity(todo.len()),
            exists: true,
        };
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            if name == b"." {
                continue;
            }
            if name == b".." {
                resolved.components.pop();
                continue;
            }
            let directory = resolved
                .components
                .last()
                .map_or(Some(Tree::ROOT), |last| last.1);
            let id = directory.and_then(|directory| self.child(directory, name));
            let link = id.and_then(|id| match &self.node(id).kind {
                Kind::Symlink(target) => Some((id, &**target)),
                _ => None,
            });
            if let Some((id, target)) = link {
                match policy(&SymlinkStep {
                    id,
                    is_last: todo.is_empty(),
                    before: &resolved.components,
                    name,
                }) {
                    LinkPolicy::Follow => {
                        followed += 1;
                        if followed > LINKS_MAX {
                            return Err(ResolveError::Loop);
                        }
                        if target.starts_with(b"/") {
                            resolved.components.clear();
                        }
                        let from = todo.len();
                        todo.extend(parts(target));
                        todo[from..].reverse();
                        continue;
                    }
                    LinkPolicy::NoFollow => {}
                    LinkPolicy::Refuse => return Err(ResolveError::Refused(name.to_vec())),
                }
            }
            resolved.exists &= id.is_some();
            resolved.components.push((name, id));
        }
        Ok(resolved)
    }

    /// The node at a path; symbolic links are followed.
    pub fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        self.follow(parts(path), &mut |_| LinkPolicy::Follow)
            .ok()?
            .node()
    }

    /// Whether there is a directory at a path; symbolic links are followed.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        self.resolve(path)
            .is_some_and(|id| matches!(self.node(id).kind, Kind::Directory(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    fn link(tree: &mut Tree, path: &[u8], to: &[u8]) {
        tree.insert(path, Meta::default(), Kind::Symlink(to.into()))
            .unwrap();
    }

    #[test]
    fn a_symbolic_link_loop_is_an_error() {
        let mut tree = Tree::new();
        link(&mut tree, b"/a", b"b");
        link(&mut tree, b"/b", b"/../a");
        assert_eq!(tree.resolve(b"/a/x"), None);
        assert_eq!(
            tree.follow(parts(b"a/x"), &mut |_| LinkPolicy::Follow)
                .unwrap_err(),
            ResolveError::Loop
        );
    }

    #[test]
    fn no_path_leads_out_of_the_image_and_missing_components_are_kept() {
        let mut tree = Tree::new();
        let file = tree
            .insert(b"/etc/passwd", Meta::default(), Kind::Fifo)
            .unwrap();
        link(&mut tree, b"/srv/out", b"../../../etc");
        assert_eq!(tree.resolve(b"srv/out/passwd"), Some(file));
        assert_eq!(tree.resolve(b"/../.."), Some(Tree::ROOT));
        let end = tree
            .follow(parts(b"/srv/out/new/./file"), &mut |_| LinkPolicy::Follow)
            .unwrap();
        assert_eq!((end.path(), end.node()), (b"etc/new/file".to_vec(), None));
        // A missing directory has no parent either.
        assert_eq!(tree.resolve(b"/new/../etc/passwd"), None);
    }

    #[test]
    fn the_policy_decides_about_each_link() {
        let mut tree = Tree::new();
        link(&mut tree, b"/bin", b"usr/bin");
        link(&mut tree, b"/usr/bin", b"tools");
        let mut seen = Vec::new();
        let end = tree.follow(parts(b"bin"), &mut |link| {
            seen.push(link.path());
            if link.path() == b"bin" {
                LinkPolicy::Follow
            } else {
                LinkPolicy::NoFollow
            }
        });
        assert_eq!(end.unwrap().path(), b"usr/bin");
        assert_eq!(seen, [b"bin".to_vec(), b"usr/bin".to_vec()]);
        let refused = tree.follow(parts(b"/bin/x"), &mut |link| {
            if link.is_last {
                LinkPolicy::NoFollow
            } else {
                LinkPolicy::Refuse
            }
        });
        assert_eq!(refused.unwrap_err(), ResolveError::Refused(b"bin".to_vec()));
    }
}
