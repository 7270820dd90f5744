//! Ways through the tree: a path, followed as the image's own kernel would follow it. `..` of the
//! root is the root, and absolute links start there again, so no way leads out of the image.

use super::{Kind, NodeId, Tree, parts};

/// The most links followed on one way, as in Linux.
const LINKS_MAX: u32 = 40;

/// What to do about a symbolic link on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go where it leads.
    Follow,
    /// Take the link itself for what is meant; for the last part of a way.
    Stay,
    /// Go no further.
    Refuse,
}

/// A symbolic link on the way.
#[derive(Debug)]
pub struct Link<'w> {
    /// The link.
    pub id: NodeId,
    /// Whether the way ends with it.
    pub is_last: bool,
    before: &'w [Part<'w>],
    name: &'w [u8],
}

/// Why a way has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// More links than Linux follows, most likely in a circle.
    Circle,
    /// The link of this name was refused.
    Refused(Vec<u8>),
}

/// Where a way leads.
#[derive(Debug)]
pub struct End<'w> {
    parts: Vec<Part<'w>>,
    /// Whether everything on the way was there.
    whole: bool,
}

/// A name, and what it stands for, if it is there.
type Part<'w> = (&'w [u8], Option<NodeId>);

impl Link<'_> {
    /// Where it stands, without links on the way there.
    pub fn path(&self) -> Vec<u8> {
        self.before
            .iter()
            .map(|part| part.0)
            .chain([self.name])
            .collect::<Vec<_>>()
            .join(&b'/')
    }
}

impl End<'_> {
    /// The path without links on the way, and without a slash at its start.
    pub fn path(&self) -> Vec<u8> {
        self.parts
            .iter()
            .map(|part| part.0)
            .collect::<Vec<_>>()
            .join(&b'/')
    }

    /// What is there.
    pub fn node(&self) -> Option<NodeId> {
        self.parts
            .last()
            .map_or(Some(Tree::ROOT), |last| last.1)
            .filter(|_| self.whole)
    }
}

impl Tree {
    /// Follows a path, given by its parts; `step` decides about each symbolic link. Parts that are
    /// not there stay as they are.
    pub fn follow<'w>(
        &'w self,
        path: impl Iterator<Item = &'w [u8]>,
        step: &mut dyn FnMut(&Link) -> Step,
    ) -> Result<End<'w>, Stop> {
        let mut todo: Vec<&[u8]> = path.collect();
        todo.reverse();
        let mut end = End {
            parts: Vec::with_capacity(todo.len()),
            whole: true,
        };
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            if name == b"." {
                continue;
            }
            if name == b".." {
                end.parts.pop();
                continue;
            }
            let directory = end.parts.last().map_or(Some(Tree::ROOT), |last| last.1);
            let id = directory.and_then(|directory| self.child(directory, name));
            let link = id.and_then(|id| match &self.node(id).kind {
                Kind::Symlink(target) => Some((id, &**target)),
                _ => None,
            });
            if let Some((id, target)) = link {
                match step(&Link {
                    id,
                    is_last: todo.is_empty(),
                    before: &end.parts,
                    name,
                }) {
                    Step::Follow => {
                        followed += 1;
                        if followed > LINKS_MAX {
                            return Err(Stop::Circle);
                        }
                        if target.starts_with(b"/") {
                            end.parts.clear();
                        }
                        let from = todo.len();
                        todo.extend(parts(target));
                        todo[from..].reverse();
                        continue;
                    }
                    Step::Stay => {}
                    Step::Refuse => return Err(Stop::Refused(name.to_vec())),
                }
            }
            end.whole &= id.is_some();
            end.parts.push((name, id));
        }
        Ok(end)
    }

    /// What stands at a path, following symbolic links.
    pub fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        self.follow(parts(path), &mut |_| Step::Follow).ok()?.node()
    }

    /// Whether a directory stands at a path, following symbolic links.
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
    fn links_in_circles_lead_nowhere() {
        let mut tree = Tree::new();
        link(&mut tree, b"/a", b"b");
        link(&mut tree, b"/b", b"/../a");
        assert_eq!(tree.resolve(b"/a/x"), None);
        assert_eq!(
            tree.follow(parts(b"a/x"), &mut |_| Step::Follow)
                .unwrap_err(),
            Stop::Circle
        );
    }

    #[test]
    fn a_way_stays_in_the_image_and_knows_what_is_not_there() {
        let mut tree = Tree::new();
        let file = tree
            .insert(b"/etc/passwd", Meta::default(), Kind::Fifo)
            .unwrap();
        link(&mut tree, b"/srv/out", b"../../../etc");
        assert_eq!(tree.resolve(b"srv/out/passwd"), Some(file));
        assert_eq!(tree.resolve(b"/../.."), Some(Tree::ROOT));
        let end = tree
            .follow(parts(b"/srv/out/new/./file"), &mut |_| Step::Follow)
            .unwrap();
        assert_eq!((end.path(), end.node()), (b"etc/new/file".to_vec(), None));
        // What is not there has no parent either.
        assert_eq!(tree.resolve(b"/new/../etc/passwd"), None);
    }

    #[test]
    fn the_last_link_can_be_meant_itself_and_any_can_be_refused() {
        let mut tree = Tree::new();
        link(&mut tree, b"/bin", b"usr/bin");
        link(&mut tree, b"/usr/bin", b"tools");
        let mut seen = Vec::new();
        let end = tree.follow(parts(b"bin"), &mut |link| {
            seen.push(link.path());
            if link.path() == b"bin" {
                Step::Follow
            } else {
                Step::Stay
            }
        });
        assert_eq!(end.unwrap().path(), b"usr/bin");
        assert_eq!(seen, [b"bin".to_vec(), b"usr/bin".to_vec()]);
        let refused = tree.follow(parts(b"/bin/x"), &mut |link| {
            if link.is_last {
                Step::Stay
            } else {
                Step::Refuse
            }
        });
        assert_eq!(refused.unwrap_err(), Stop::Refused(b"bin".to_vec()));
    }
}
