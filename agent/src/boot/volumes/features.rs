//! The optional features of an ext4 file system. A kernel must know them to mount it, and e2fsck
//! must know them to check it.
//!
//! Names are from e2fsprogs' lib/e2p/feature.c, versions from its release notes.

use std::fmt;

/// The three sets of feature flags in a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// s_feature_compat: a kernel without support for one of these can still mount the file
    /// system.
    pub compat: u32,
    /// s_feature_incompat: a kernel without support for one of these can't mount the file system.
    pub incompat: u32,
    /// s_feature_ro_compat: a kernel without support for one of these can mount it read-only.
    pub ro_compat: u32,
}

/// Which of the three sets a feature belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureSet {
    Compat,
    Incompat,
    RoCompat,
}

/// One feature: its set and its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    set: FeatureSet,
    bit: u32,
}

/// Needs recovery (incompat): the journal has to be replayed.
pub const NEEDS_RECOVERY: u32 = 1 << 2;
/// 64-bit block numbers (incompat).
pub const BITS_64: u32 = 1 << 7;
/// Checksums of all metadata (ro_compat).
pub const METADATA_CSUM: u32 = 1 << 10;
/// The orphan file is not empty (ro_compat).
pub const ORPHAN_PRESENT: u32 = 1 << 16;

/// For each feature: set and bit, name, and the first version of e2fsprogs that can check it. No
/// version means that all versions in use can; `-` means that none can. It is one string to keep
/// the agent small.
const KNOWN: &str = "\
C0 dir_prealloc,C1 imagic_inodes,C2 has_journal,C3 ext_attr,C4 resize_inode,C5 dir_index,C6 lazy_bg,C8 snapshot_bitmap,C9 sparse_super2 1.43,\
C10 fast_commit 1.46.0,C11 stable_inodes 1.46.0,C12 orphan_file 1.47.0,\
I0 compression -,I1 filetype,I2 needs_recovery,I3 journal_dev,I4 meta_bg,I6 extent,I7 64bit,I8 mmp,I9 flex_bg,I10 ea_inode 1.44.0,I12 dirdata -,\
I13 metadata_csum_seed 1.43,I14 large_dir 1.44.0,I15 inline_data 1.43,I16 encrypt 1.43,I17 casefold 1.45.1,\
R0 sparse_super,R1 large_file,R2 btree_dir -,R3 huge_file,R4 uninit_bg,R5 dir_nlink,R6 extra_isize,R8 quota,R9 bigalloc,R10 metadata_csum 1.43,\
R11 replica -,R12 read-only 1.43,R13 project 1.43,R14 shared_blocks 1.45.0,R15 verity 1.44.4,R16 orphan_present 1.47.0";

impl Features {
    /// Whether a feature is set that this table does not have: the file system was made by programs
    /// newer than adamant.
    pub fn has_unknown(self) -> bool {
        self.list().iter().any(|feature| feature.known().is_none())
    }

    /// Lists all features that are set.
    pub fn list(self) -> Vec<Feature> {
        let mut list = Vec::new();
        for (set, bits) in [
            (FeatureSet::Compat, self.compat),
            (FeatureSet::Incompat, self.incompat),
            (FeatureSet::RoCompat, self.ro_compat),
        ] {
            list.extend(
                (0..u32::BITS)
                    .filter(|bit| bits >> bit & 1 == 1)
                    .map(|bit| Feature { set, bit }),
            );
        }
        list
    }

    /// The features that a program's output names, either by name or by number as e2fsprogs does
    /// for features it does not know (`FEATURE_C12`).
    pub fn named_in(self, text: &str) -> Vec<Feature> {
        let mut list = self.list();
        list.retain(|feature| {
            let (name, number) = (feature.name(), feature.number());
            text.split([' ', ',', '\n'])
                .any(|word| word == name || word == number)
        });
        list
    }

    /// The features of one set whose bits are in `mask`.
    pub fn masked(self, set: FeatureSet, mask: u32) -> Vec<Feature> {
        let mut list = self.list();
        list.retain(|feature| feature.set == set && mask >> feature.bit & 1 == 1);
        list
    }
}

impl Feature {
    /// Looks up its name and version.
    #[inline(never)]
    fn known(self) -> Option<(&'static str, &'static str)> {
        let number = self.number();
        KNOWN.split(',').find_map(|entry| {
            let (key, rest) = entry.split_once(' ')?;
            (number.strip_prefix(PREFIX) == Some(key))
                .then(|| rest.split_once(' ').unwrap_or((rest, "")))
        })
    }

    /// Its number as e2fsprogs prints it for features that it does not know.
    fn number(self) -> String {
        let set = match self.set {
            FeatureSet::Compat => 'C',
            FeatureSet::Incompat => 'I',
            FeatureSet::RoCompat => 'R',
        };
        format!("{PREFIX}{set}{}", self.bit)
    }

    fn name(self) -> String {
        self.known()
            .map_or_else(|| self.number(), |(name, _)| name.to_owned())
    }
}

const PREFIX: &str = "FEATURE_";

/// Its name, and the version of e2fsprogs that it needs.
impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match self.known() {
            Some((_, "")) => Ok(()),
            Some((_, "-")) => f.write_str(" (no release of e2fsprogs checks it)"),
            Some((_, version)) => write!(f, " (e2fsprogs {version} or newer)"),
            None => f.write_str(" (no e2fsprogs up to 1.47 has it)"),
        }
    }
}

/// A list for a sentence: `feature A`, or `features A and B`.
#[inline(never)]
pub fn sentence(features: &[Feature]) -> String {
    let names: Vec<String> = features.iter().map(Feature::to_string).collect();
    format!(
        "feature{} {}",
        if names.len() == 1 { "" } else { "s" },
        names.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_features_as_e2fsprogs_does() {
        let found = Features {
            compat: 1 << 12 | 1 << 14,
            incompat: 1 << 17,
            ro_compat: METADATA_CSUM,
        };
        let names: Vec<String> = found.list().into_iter().map(Feature::name).collect();
        assert_eq!(
            names,
            ["orphan_file", "FEATURE_C14", "casefold", "metadata_csum"]
        );
        assert!(
            found.has_unknown()
                && !Features {
                    compat: 1 << 12,
                    ..found
                }
                .has_unknown()
        );
        // An old e2fsck prints a number for a feature that a newer one names.
        let text = "/dev/vda5 has unsupported feature(s): FEATURE_C12 FEATURE_C14";
        assert_eq!(
            sentence(&found.named_in(text)),
            "features orphan_file (e2fsprogs 1.47.0 or newer) and FEATURE_C14 (no e2fsprogs up to 1.47 has it)"
        );
        assert_eq!(
            sentence(&found.masked(FeatureSet::Incompat, 0xffff_ffff)),
            "feature casefold (e2fsprogs 1.45.1 or newer)"
        );
        assert!(found.named_in("FEATURE_C1 FEATURE_I14").is_empty());
    }

    #[test]
    fn lists_each_feature_once() {
        let keys: Vec<&str> = KNOWN
            .split(',')
            .map(|entry| entry.split_once(' ').unwrap().0)
            .collect();
        assert!(
            keys.len() > 40
                && keys
                    .iter()
                    .all(|key| keys.iter().filter(|other| *other == key).count() == 1),
            "{keys:?}"
        );
    }
}
