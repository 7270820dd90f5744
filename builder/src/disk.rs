//! The disk image: a GPT with the root, its verity tree, and room for the volumes. Written sparse, in one pass, by anyone: no loop
//! device, no mount, no privilege.
//!
//! Layout and labels follow the Discoverable Partitions Specification (UAPI.2); every GUID is derived from the image's id or the root
//! hash, never random.

use std::fs::File;
use std::os::unix::fs::FileExt;

use adamant_agent::gpt::{ATTR_NO_AUTO, ATTR_READ_ONLY, Guid, LABEL_UNITS, Partition, ROOT_VERITY_X86_64, ROOT_X86_64, Table, volume_type};
use adamant_agent::hash::RootHash;
use sha2::{Digest, Sha256};

use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::verity::uuid_from;

/// Sector size of the disk image, bytes.
pub const SECTOR: u64 = 512;
/// Partitions start and end on this grain, bytes: what partitioning tools use, and a multiple of every flash page.
pub const GRAIN: u64 = 1 << 20;

/// Where everything is on the disk.
#[derive(Debug, Clone)]
pub struct Layout {
    table: Table,
}

/// SHA-256 of what was read and written, so that nothing is read again to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// The root file system's artifact.
    pub root: [u8; 32],
    /// The whole disk.
    pub disk: [u8; 32],
}

impl Layout {
    /// The layout for a root and a tree of these sizes in bytes.
    pub fn new(definition: &Definition, root_hash: &RootHash, root_bytes: u64, tree_bytes: u64) -> Result<Layout> {
        let Definition { id, version, .. } = definition;
        let mut parts = vec![
            (ROOT_X86_64, root_hash.data_partuuid(), ATTR_READ_ONLY, format!("{id}_{version}"), root_bytes),
            (ROOT_VERITY_X86_64, root_hash.tree_partuuid(), ATTR_READ_ONLY, format!("{id}_{version}_verity"), tree_bytes),
        ];
        for volume in &definition.volumes {
            let name = &volume.policy.name;
            parts.push((volume_type(&volume.policy.mount), derived_guid(id, &format!("volume {name}")), ATTR_NO_AUTO, name.clone(), volume.size));
        }
        let mut next = GRAIN;
        let mut partitions = Vec::with_capacity(parts.len());
        for (kind, partition_id, attributes, label, bytes) in parts {
            if label.encode_utf16().count() > LABEL_UNITS {
                return Err(Error::new(format!("partition label {label:?} is longer than the {LABEL_UNITS} characters a GPT holds"))
                    .hint("give the image a shorter id or version"));
            }
            let end = round_up(bytes.max(1)).and_then(|bytes| next.checked_add(bytes)).filter(|&end| end < 1 << 62);
            let end = end.ok_or_else(|| Error::new(format!("partition {label:?}: {bytes} bytes is no possible size")))?;
            partitions.push(Some(Partition { kind, id: partition_id, first: next / SECTOR, last: end / SECTOR - 1, attributes, label }));
            next = end;
        }
        // One more grain holds the backup table.
        Ok(Layout { table: Table { disk: derived_guid(id, "disk"), sector: SECTOR as u32, sectors: (next + GRAIN) / SECTOR, partitions } })
    }

    /// Size of the whole disk in bytes.
    pub fn bytes(&self) -> u64 {
        self.table.sectors * SECTOR
    }

    /// Writes the disk into an empty file. `root` and `tree` are read once, from their starts.
    pub fn write(&self, root: &File, tree: &File, out: &File) -> Result<Digests> {
        out.set_len(self.bytes()).context(|| "making room for the disk image")?;
        let mut disk = Writer { out, at: 0, hash: Sha256::new() };
        let mut root_hash = Sha256::new();
        disk.put(&self.table.primary())?;
        for (index, (file, name)) in [(root, "root file system"), (tree, "verity tree")].into_iter().enumerate() {
            let Some(Some(partition)) = self.table.partitions.get(index) else { continue };
            disk.zeros_until(partition.first * SECTOR)?;
            let length = file.metadata().context(|| name)?.len();
            let mut at = 0;
            let mut buffer = vec![0; 4 << 20];
            while at < length {
                let take = (length - at).min(buffer.len() as u64) as usize;
                file.read_exact_at(&mut buffer[..take], at).context(|| format!("reading the {name}"))?;
                // Two hashes of the same bytes: one core each.
                std::thread::scope(|scope| {
                    if index == 0 {
                        scope.spawn(|| root_hash.update(&buffer[..take]));
                    }
                    disk.put(&buffer[..take])
                })?;
                at += take as u64;
            }
        }
        let backup = self.table.backup();
        disk.zeros_until(self.bytes() - backup.len() as u64)?;
        disk.put(&backup)?;
        Ok(Digests { root: root_hash.finalize().into(), disk: disk.hash.finalize().into() })
    }
}

/// A GUID from the image's id and a purpose.
fn derived_guid(id: &str, purpose: &str) -> Guid {
    Guid::from_text_order(uuid_from(format!("adamant {purpose}\0").as_bytes(), id))
}

fn round_up(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(GRAIN)
}

/// Writes in order and hashes on the way; what is zero stays a hole.
struct Writer<'a> {
    out: &'a File,
    at: u64,
    hash: Sha256,
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all_at(bytes, self.at).context(|| "writing the disk image")?;
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn zeros_until(&mut self, end: u64) -> Result<()> {
        while self.at < end {
            let take = (end - self.at).min(ZEROS.len() as u64);
            self.hash.update(&ZEROS[..take as usize]);
            self.at += take;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Command;

    fn definition() -> Definition {
        let policy = |name: &str, mount: &str| adamant_agent::policy::Volume {
            name: name.to_owned(),
            mount: mount.to_owned(),
            filesystem: Default::default(),
            weight: 1,
            on_damage: Default::default(),
        };
        Definition {
            path: "image.toml".into(),
            digest: [0; 32],
            id: "web".into(),
            version: "1.0.0".into(),
            epoch: None,
            sources: vec![],
            root: crate::definition::Root { compression: crate::definition::Compression::None, cluster: 4096 },
            keep: vec![],
            volumes: vec![
                crate::definition::Volume { policy: policy("state", "/var"), size: 8 << 20 },
                crate::definition::Volume { policy: policy("logs", "/var/log"), size: 4 << 20 },
            ],
            verify: Default::default(),
            failure: Default::default(),
            kernel: crate::definition::Kernel { cmdline: String::new(), modules: vec![] },
            limits: Default::default(),
        }
    }

    #[test]
    fn the_disk_is_what_sfdisk_and_a_second_hash_say_it_is() {
        let dir = std::env::temp_dir().join(format!("adamant-disk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("root"), vec![7; 5_000_192]).unwrap();
        std::fs::write(dir.join("tree"), vec![8; 8192]).unwrap();
        let open = |name: &str| File::open(dir.join(name)).unwrap();
        let root_hash: RootHash = "f6f9916eced28986000102030405060708090a0b0c0d0e0f1011121314151617".parse().unwrap();
        let layout = Layout::new(&definition(), &root_hash, 5_000_192, 8192).unwrap();
        let out = File::options().read(true).write(true).create_new(true).open(dir.join("disk.raw")).unwrap();
        let digests = layout.write(&open("root"), &open("tree"), &out).unwrap();

        let mut bytes = Vec::new();
        open("disk.raw").read_to_end(&mut bytes).unwrap();
        assert_eq!(digests.disk, <[u8; 32]>::from(Sha256::digest(&bytes)));
        assert_eq!(digests.root, <[u8; 32]>::from(Sha256::digest(vec![7; 5_000_192])));
        assert_eq!(bytes.len() as u64, layout.bytes());
        let Ok(checked) = Command::new("sfdisk").arg("--verify").arg(dir.join("disk.raw")).output() else {
            eprintln!("skipped: no sfdisk");
            return;
        };
        assert!(checked.status.success(), "{checked:?}");
        let dump = Command::new("sfdisk").arg("-J").arg(dir.join("disk.raw")).output().unwrap().stdout;
        let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
        let parts = &dump["partitiontable"]["partitions"];
        let row = |i: usize| ["name", "uuid", "attrs", "start", "size"].map(|key| parts[i][key].to_string());
        assert_eq!(row(0), ["\"web_1.0.0\"", "\"F6F9916E-CED2-8986-0001-020304050607\"", "\"GUID:60\"", "2048", "10240"]);
        assert_eq!(row(1), ["\"web_1.0.0_verity\"", "\"08090A0B-0C0D-0E0F-1011-121314151617\"", "\"GUID:60\"", "12288", "2048"]);
        assert_eq!(
            (&parts[2]["name"], &parts[2]["attrs"], &parts[2]["type"]),
            (&"state".into(), &"GUID:63".into(), &"4D21B016-B534-45C2-A9FB-5C16E091FD2D".into())
        );
        assert_eq!((&parts[3]["name"], &parts[3]["type"]), (&"logs".into(), &"0FC63DAF-8483-4772-8E79-3D69D8477DE4".into()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
