//! POSIX access control lists: converts the text of extended headers (POSIX.1e draft 17, section
//! 23.3, with star's numeric ids) to Linux attributes (`struct posix_acl_xattr_header`, version 2).
//!
//! Names are resolved from the owners and groups of the archive's entries, then from the image's
//! /etc/passwd and /etc/group, never from those of the building machine.

use std::collections::{BTreeMap, HashMap};

use super::Memory;
use super::pax::{Pax, decimal};
use crate::error::{Context, Error, Result};
use crate::tree::{Kind, NodeId, Tree};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The access control lists read so far. They are converted when all names are known.
#[derive(Default)]
pub struct Acls {
    lists: BTreeMap<NodeId, Vec<Attribute>>,
    /// Ids of owners and groups by name.
    pub names: AccountNames,
}

/// An attribute: name and value.
type Attribute = (&'static [u8], Vec<u8>);

impl Acls {
    /// Stores the lists of an entry and replaces earlier lists of its node.
    pub fn note(
        &mut self,
        id: NodeId,
        is_directory: bool,
        said: &Pax,
        memory: &mut Memory,
    ) -> Result<()> {
        self.lists.remove(&id);
        if said.acl_default.is_some() && !is_directory {
            return Err(Error::new(
                "a default access control list of an entry that is not a directory",
            ));
        }
        let lists: Vec<Attribute> = [(ACCESS, &said.acl_access), (DEFAULT, &said.acl_default)]
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.clone()?)))
            .collect();
        if !lists.is_empty() {
            memory.reserve(lists.iter().map(|list| list.1.len() as u64).sum())?;
            self.lists.insert(id, lists);
        }
        Ok(())
    }

    /// The attributes for each node of the tree.
    pub fn settle(mut self, tree: &Tree) -> Result<Vec<(NodeId, Vec<Attribute>)>> {
        let mut out = Vec::new();
        if !self.lists.is_empty() {
            known_to_image(tree, b"/etc/passwd", &mut self.names.owners);
            known_to_image(tree, b"/etc/group", &mut self.names.groups);
        }
        for (id, lists) in self.lists {
            let mut attributes = Vec::new();
            for (name, text) in lists {
                let entries = parse(&text, &self.names)
                    .context(|| format!("the access control list \"{}\"", text.escape_ascii()))?;
                // Linux stores no attribute for a list that only repeats the mode.
                if name == DEFAULT || entries.len() > 3 {
                    attributes.push((name, binary(&entries)));
                }
            }
            out.push((id, attributes));
        }
        Ok(out)
    }
}

/// Ids of owners and groups by name; `None` for a name with several ids.
#[derive(Default)]
pub struct AccountNames {
    owners: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
}

impl AccountNames {
    /// Records the owner and group of an entry.
    pub fn learn(
        &mut self,
        owner: &[u8],
        uid: u32,
        group: &[u8],
        gid: u32,
        memory: &mut Memory,
    ) -> Result<()> {
        for (map, name, id) in [
            (&mut self.owners, owner, uid),
            (&mut self.groups, group, gid),
        ] {
            match map.get_mut(name) {
                _ if name.is_empty() => {}
                Some(known) if *known == Some(id) => {}
                Some(known) => *known = None,
                None => {
                    memory.reserve(name.len() as u64)?;
                    map.insert(name.to_vec(), Some(id));
                }
            }
        }
        Ok(())
    }
}

/// Maximum size of /etc/passwd and /etc/group.
const ACCOUNTS_MAX: u64 = 16 << 20;

/// Adds the names of a file with lines `NAME:PASSWORD:ID:...`. The first line for a name counts.
/// Invalid lines are ignored, as in the C library.
fn known_to_image(tree: &Tree, path: &[u8], names: &mut HashMap<Vec<u8>, Option<u32>>) {
    let Some(Kind::File(content)) = tree.resolve(path).map(|id| &tree.node(id).kind) else {
        return;
    };
    let Ok(bytes) = content.to_vec(ACCOUNTS_MAX) else {
        return;
    };
    for line in bytes.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        if let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next())
            && let Some(id) = decimal(id).and_then(|id| u32::try_from(id).ok())
            && !name.is_empty()
        {
            names.entry(name.to_vec()).or_insert(Some(id));
        }
    }
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Tag, id (for `USER` and `GROUP`) and permissions, in the order that Linux requires.
type Entries = BTreeMap<(u16, u32), u16>;

/// Parses entries separated by commas or newlines: `TYPE:NAME:PERMISSIONS`, in star's form with
/// `:ID`.
fn parse(text: &[u8], names: &AccountNames) -> Result<Entries> {
    let mut entries = Entries::new();
    for entry in text.split(|&byte| byte == b',' || byte == b'\n') {
        let entry = entry
            .split(|&byte| byte == b'#')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if entry.is_empty() {
            continue;
        }
        let fields: Vec<&[u8]> = entry
            .split(|&byte| byte == b':')
            .map(<[u8]>::trim_ascii)
            .collect();
        let wrong = || {
            Error::new(format!(
                "\"{}\" is not an entry of the form TYPE:NAME:PERMISSIONS",
                entry.escape_ascii()
            ))
        };
        let (tag, name, permissions, number) = match *fields {
            [tag, permissions] => (tag, &[][..], permissions, None),
            [tag, name, permissions] => (tag, name, permissions, None),
            [tag, name, permissions, number] => (tag, name, permissions, Some(number)),
            _ => return Err(wrong()),
        };
        let permissions = bits(permissions).ok_or_else(wrong)?;
        let key = match (tag, name.is_empty()) {
            (b"user" | b"u", true) => (USER_OBJ, u32::MAX),
            (b"user" | b"u", false) => (USER, id(name, number, &names.owners)?),
            (b"group" | b"g", true) => (GROUP_OBJ, u32::MAX),
            (b"group" | b"g", false) => (GROUP, id(name, number, &names.groups)?),
            (b"mask" | b"m", true) => (MASK, u32::MAX),
            (b"other" | b"o", true) => (OTHER, u32::MAX),
            _ => return Err(wrong()),
        };
        if entries.insert(key, permissions).is_some() {
            return Err(Error::new(format!(
                "the entry \"{}\" occurs twice",
                entry.escape_ascii()
            )));
        }
    }
    let has = |tag| entries.range((tag, 0)..=(tag, u32::MAX)).next().is_some();
    if !has(USER_OBJ) || !has(GROUP_OBJ) || !has(OTHER) {
        return Err(Error::new("the entry for user, group or other is missing"));
    }
    if (has(USER) || has(GROUP)) && !has(MASK) {
        return Err(Error::new(
            "the mask is missing, which named users and groups need",
        ));
    }
    Ok(entries)
}

fn bits(permissions: &[u8]) -> Option<u16> {
    permissions.iter().try_fold(0, |bits, letter| match letter {
        b'r' => Some(bits | 4),
        b'w' => Some(bits | 2),
        b'x' => Some(bits | 1),
        b'-' => Some(bits),
        _ => None,
    })
}

/// The explicit id, else the name as a number, else the id from the known names.
fn id(name: &[u8], number: Option<&[u8]>, known: &HashMap<Vec<u8>, Option<u32>>) -> Result<u32> {
    let written = number.filter(|number| !number.is_empty()).unwrap_or(name);
    let id = match decimal(written) {
        Some(id) => u32::try_from(id).ok(),
        None if number.is_some_and(|number| !number.is_empty()) => None,
        None => known.get(name).copied().flatten(),
    };
    id.filter(|&id| id != u32::MAX).ok_or_else(|| {
        let error = Error::new(format!("\"{}\" is not a number, and neither the archive nor the image has this name", name.escape_ascii()));
        error.hint("add the name to /etc/passwd or /etc/group of the image, or write numbers into the list")
    })
}

fn binary(entries: &Entries) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (&(tag, id), permissions) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_lists_to_the_attributes_of_linux() {
        let mut names = AccountNames::default();
        names
            .learn(b"lisa", 1000, b"staff", 50, &mut Memory::default())
            .unwrap();
        let entries =
            parse(b"user::rwx,group:staff:r-x,user:7:r--,user:lisa:rw-\ngroup::r-x #effective:r--\nmask::rwx,user:max:---:99,other::r--", &names).unwrap();
        let mut expected = vec![2, 0, 0, 0];
        for (tag, perm, id) in [
            (1u8, 7u8, -1i32),
            (2, 4, 7),
            (2, 0, 99),
            (2, 6, 1000),
            (4, 5, -1),
            (8, 5, 50),
            (0x10, 7, -1),
            (0x20, 4, -1),
        ] {
            expected.extend([tag, 0, perm, 0]);
            expected.extend(id.to_le_bytes());
        }
        assert_eq!(binary(&entries), expected);
    }

    #[test]
    fn refuses_lists_that_linux_would_refuse() {
        let mut names = AccountNames::default();
        names
            .learn(b"two", 1, b"", 0, &mut Memory::default())
            .unwrap();
        names
            .learn(b"two", 2, b"", 0, &mut Memory::default())
            .unwrap();
        for text in [
            "user::rwx,group::r-x",
            "user::rwx,user::r-x,group::r-x,other::---",
            "user::rwx,user:7:r-x,group::r-x,other::---",
            "user::rwx,user:nobody-knows:r-x,group::r-x,mask::rwx,other::---",
            "user::rwx,user:two:r-x,group::r-x,mask::rwx,other::---",
            "user::rwx,user:x:r-x:4294967295,group::r-x,mask::rwx,other::---",
            "user::rwt,group::r-x,other::---",
            "owner::rwx,group::r-x,other::---",
            "rwx",
            "",
        ] {
            assert!(parse(text.as_bytes(), &names).is_err(), "{text}");
        }
    }
}
