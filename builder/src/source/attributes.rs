//! Which extended attributes and access control lists of a directory source go into the image.
//!
//! Without `owner = "keep"` only the capabilities of programs are copied. With it, all attributes
//! are copied except those that describe the storage or the security modules of the building
//! machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nix::libc;

use super::report::Report;
use crate::error::{Context, Error, Result};
use crate::tree::Xattrs;

/// Capabilities of a program (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";
/// The access control list of an entry.
const ACCESS: &[u8] = b"system.posix_acl_access";
/// The default access control list: new entries of a directory get it.
const DEFAULT: &[u8] = b"system.posix_acl_default";
/// Attributes of an overlayfs upper layer that hide or redirect entries of lower layers, without
/// the prefix `trusted.` or `user.`.
const LAYER_MARKS: [&[u8]; 5] = [
    b"overlay.opaque",
    b"overlay.whiteout",
    b"overlay.whiteouts",
    b"overlay.redirect",
    b"overlay.metacopy",
];

/// The attributes of one entry.
#[derive(Debug, Default)]
pub struct Attributes {
    /// Attributes that go into the image.
    pub kept: Option<Xattrs>,
    /// The permissions of the entry's group, if the entry has an access control list: its mode
    /// then holds the list's mask in the group bits (acl(5)).
    pub group: Option<u16>,
    /// Whether an attribute marks the entry as part of one image layer.
    pub is_layer: bool,
}

/// Reads the attributes of the entry at `place`; the last component is not followed. `path` is the
/// path for messages.
pub fn read(
    place: &Path,
    path: &[u8],
    keep_owner: bool,
    report: &mut Report,
) -> Result<Attributes> {
    let names = match xattr::list(place) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Ok(Attributes::default());
        }
        Err(error) => return Err(Error::new(error.to_string())),
    };
    let mut found = Attributes::default();
    let mut kept = BTreeMap::new();
    for name in names {
        let bytes = name.as_encoded_bytes();
        found.is_layer |= is_layer_mark(bytes);
        let is_kept = is_content(bytes, keep_owner);
        if !is_kept {
            report.left_out(bytes, path);
        }
        if !is_kept && bytes != ACCESS {
            continue;
        }
        let Some(value) =
            xattr::get(place, &name).context(|| name.to_string_lossy().into_owned())?
        else {
            continue;
        };
        if is_kept {
            let value = if keep_owner {
                value
            } else {
                capability_of_root(value)
            };
            kept.insert(bytes.into(), value.into_boxed_slice());
        } else {
            found.group = group_permissions(&value);
        }
    }
    found.kept = (!kept.is_empty()).then(|| Arc::new(kept));
    Ok(found)
}

/// Whether this attribute marks its entry as part of one image layer.
pub fn is_layer_mark(name: &[u8]) -> bool {
    let rest = name
        .strip_prefix(b"trusted.")
        .or(name.strip_prefix(b"user."));
    rest.is_some_and(|rest| LAYER_MARKS.contains(&rest))
}

/// Whether an attribute goes into the image.
fn is_content(name: &[u8], keep_owner: bool) -> bool {
    let is_overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let is_own = name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name == ACCESS
        || name == DEFAULT;
    name == CAPABILITY || keep_owner && is_own && !is_overlay
}

/// The permissions of the group in an access control list (`struct posix_acl_xattr_header`, version
/// 2).
fn group_permissions(list: &[u8]) -> Option<u16> {
    const GROUP_OBJ: u16 = 0x04;
    let entries = list.strip_prefix(&2u32.to_le_bytes())?;
    let mut entries = entries.chunks_exact(8).map(|entry| {
        (
            u16::from_le_bytes([entry[0], entry[1]]),
            u16::from_le_bytes([entry[2], entry[3]]),
        )
    });
    entries
        .find(|entry| entry.0 == GROUP_OBJ)
        .map(|entry| entry.1 & 0o7)
}

/// Converts capabilities of revision 3, which hold only in the user namespace of the building user
/// (`struct vfs_ns_cap_data`), to revision 2: files of the image belong to root.
fn capability_of_root(value: Vec<u8>) -> Vec<u8> {
    match *value {
        [low, mid, high, 3, ref data @ ..] if data.len() == 20 => {
            [&[low, mid, high, 2], &data[..16]].concat()
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_only_capabilities_unless_the_owner_is_kept() {
        for (name, root, keep) in [
            ("security.capability", true, true),
            ("system.posix_acl_access", false, true),
            ("system.posix_acl_default", false, true),
            ("user.note", false, true),
            ("user.xdg.origin.url", false, true),
            ("trusted.note", false, true),
            ("security.selinux", false, false),
            ("security.SMACK64EXEC", false, false),
            ("security.ima", false, false),
            ("security.evm", false, false),
            ("security.apparmor", false, false),
            ("btrfs.compression", false, false),
            ("system.nfs4_acl", false, false),
            ("system.richacl", false, false),
            ("trusted.overlay.origin", false, false),
        ] {
            assert_eq!(
                (
                    is_content(name.as_bytes(), false),
                    is_content(name.as_bytes(), true)
                ),
                (root, keep),
                "{name}"
            );
        }
        assert!(
            is_layer_mark(b"trusted.overlay.opaque")
                && is_layer_mark(b"user.overlay.whiteout")
                && !is_layer_mark(b"trusted.overlay.origin")
        );
    }

    #[test]
    fn reads_the_permissions_of_the_group_and_not_the_mask() {
        let list = |entries: &[(u16, u16)]| {
            let mut list = 2u32.to_le_bytes().to_vec();
            for (tag, permissions) in entries {
                list.extend(
                    [
                        &tag.to_le_bytes()[..],
                        &permissions.to_le_bytes(),
                        &[0xff; 4],
                    ]
                    .concat(),
                );
            }
            list
        };
        assert_eq!(
            group_permissions(&list(&[(1, 6), (2, 7), (4, 4), (0x10, 7), (0x20, 4)])),
            Some(4)
        );
        assert_eq!(group_permissions(&list(&[(1, 6), (0x20, 4)])), None);
        assert_eq!(group_permissions(b"\x01\0\0\0"), None);
    }

    #[test]
    fn converts_capabilities_of_a_user_namespace() {
        let capability = [[1, 0, 0, 3].as_slice(), &[7; 16], &1000u32.to_le_bytes()].concat();
        assert_eq!(
            capability_of_root(capability),
            [[1, 0, 0, 2].as_slice(), &[7; 16]].concat()
        );
        let plain = [[1, 0, 0, 2].as_slice(), &[7; 16]].concat();
        assert_eq!(capability_of_root(plain.clone()), plain);
    }
}
