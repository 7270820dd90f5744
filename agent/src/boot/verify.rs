//! The stage that sets up dm-verity and reads through it.
//!
//! Promise: reads of a [`VerifiedRoot`] return data that matches the root hash, or an I/O error.
//! Data that is read from the two partitions before the kernel has the table is bounded, and
//! checked against the root hash or the partitions' sizes. The stage trusts the root hash on the
//! kernel command line, and the kernel.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use adamant_contract::hex;
use adamant_contract::paths::ROOT_MAPPING;
use adamant_contract::policy::OnCorruption;
use adamant_contract::report::StageName;
use adamant_contract::root_hash::RootHash;
use adamant_contract::verity::{self, BLOCK, CorruptedBlock, Superblock};
use nix::errno::Errno;

use super::locate::Located;
use super::signature::Checked;
use super::{Context, Failure};
use crate::kernel::block::{self, Disk, KernelPartition};
use crate::kernel::dm::{self, Mapping, VerityStatus};
use crate::kernel::keyring;

const STAGE: StageName = StageName::Verify;
/// The name of the key with the root hash's signature in the agent's own keyring.
const SIGNATURE_KEY: &str = "adamant:root";
const RESTORE: &str = "write the image to the disk again, or boot another version";
/// Block of the hash partition with the top of the hash tree.
const TOP: u64 = 1;
/// The version of the verity target that can restart or panic on I/O errors (Linux 6.12).
const ON_ERROR_SINCE: (u32, u32) = (1, 10);

/// A block device that returns only data matching the root hash, or an error. Only [`verify_root`]
/// makes one.
pub struct VerifiedRoot {
    located: Located,
    superblock: Superblock,
    mapping: Mapping,
    table: Table,
}

/// Checks the verity superblock, makes the device and reads the hash tree's top through it.
pub fn verify_root(checked: Checked, context: &mut Context) -> Result<VerifiedRoot, Failure> {
    let (located, message) = checked.into_parts();
    let tree = &located.tree.path;
    let file = File::open(tree)
        .map_err(|e| Failure::new(STAGE, tree.display().to_string(), e, "check the disk"))?;
    let superblock = read_superblock(&file, &located)?;
    check_top(&file, &located, &superblock)?;

    let data = &located.data;
    let failure = |what: &str, error: io::Error| {
        Failure::new(
            STAGE,
            what,
            error,
            "use a kernel with dm-verity, in it or as a module in the initramfs",
        )
    };
    let numbers = |partition: &KernelPartition| {
        block::major_minor(&partition.name).map_err(|e| failure("device numbers", e))
    };
    let salt = if superblock.salt.is_empty() {
        "-".to_owned()
    } else {
        hex::encode(&superblock.salt)
    };
    let line = format!(
        "1 {} {} {BLOCK} {BLOCK} {} {TOP} sha256 {} {salt}",
        numbers(data)?,
        numbers(&located.tree)?,
        superblock.data_blocks,
        located.root_hash
    );
    let uuid = format!(
        "CRYPT-VERITY-{}-{ROOT_MAPPING}",
        hex::encode(&superblock.uuid)
    );
    let sectors = superblock.data_blocks * (BLOCK as u64 / 512);
    let create =
        |table: &Table| Mapping::create(ROOT_MAPPING, &uuid, "verity", sectors, &table.with(&[]));
    let mut table = Table {
        line,
        signature: None,
    };
    let mut seen = None;
    if let Some(message) = message {
        let signed = Table {
            signature: Some(SIGNATURE_KEY),
            ..table.clone()
        };
        // A kernel that rejects the signature is no failure, because the agent has verified it. The
        // kernel's keys are those of firmware and distribution, which may not include the signer.
        match keyring::add_key(SIGNATURE_KEY, &message).and_then(|()| create(&signed)) {
            Ok(mapping) => {
                (seen, table, context.report.signature.kernel) =
                    (Some(mapping), signed, "verified".to_owned())
            }
            Err(error) => {
                let why = kernels_reason(&error);
                // The device-mapper's own log line calls it an error.
                log::info!(
                    "no harm: the kernel was asked about the signature too, and {why}; the agent has verified it"
                );
                context.report.signature.kernel = why;
            }
        }
    }
    let mapping = seen
        .map_or_else(|| create(&table), Ok)
        .map_err(|e| failure("setting dm-verity up", e))?;
    let root = VerifiedRoot {
        located,
        superblock,
        mapping,
        table,
    };
    root.link().map_err(|e| failure("/dev/mapper/root", e))?;

    let last = root.superblock.data_blocks - 1;
    let device = File::open(root.device()).map_err(|e| failure("opening the verified root", e))?;
    let mut bytes = [0; BLOCK];
    for block in [last, 0] {
        device
            .read_exact_at(&mut bytes, block * BLOCK as u64)
            .map_err(|e| root.explain(block, &e))?;
    }
    root.check_length(&bytes)?;
    context.report.root.mapped = root.device().display().to_string();
    context.report.root.blocks = root.superblock.data_blocks;
    Ok(root)
}

/// Reads the superblock, and checks that it fits both partitions.
fn read_superblock(file: &File, located: &Located) -> Result<Superblock, Failure> {
    let Located { data, tree, .. } = located;
    let refuse = |why: String| {
        Failure::new(
            STAGE,
            format!("verity partition {}", tree.path.display()),
            why,
            RESTORE,
        )
    };
    let mut bytes = [0; verity::SUPERBLOCK];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|e| refuse(format!("its superblock can't be read: {e}")))?;
    let superblock = Superblock::parse(&bytes).map_err(|e| refuse(e.to_string()))?;
    let (blocks, tree_blocks) = (
        superblock.data_blocks,
        verity::partition_blocks(superblock.data_blocks),
    );
    for (partition, role, blocks) in [(data, "data", blocks), (tree, "tree", tree_blocks)] {
        let room = partition.bytes / BLOCK as u64;
        if blocks > room {
            let why = format!(
                "its superblock asks for {blocks} {role} blocks, but {} has space for {room}",
                partition.path.display()
            );
            return Err(refuse(why));
        }
    }
    Ok(superblock)
}

/// Compares the top of the hash tree with the root hash. The kernel would do the same, but its
/// error does not show that the two don't belong together.
fn check_top(file: &File, located: &Located, superblock: &Superblock) -> Result<(), Failure> {
    let mut top_read = Ok(());
    let mut read = |at: CorruptedBlock, bytes: &mut [u8; BLOCK]| {
        let CorruptedBlock::Hash(TOP) = at else {
            return false;
        };
        top_read = file.read_exact_at(bytes, TOP * BLOCK as u64);
        top_read.is_ok()
    };
    let result = verity::check_path(superblock, &located.root_hash, 0, &mut read);
    let what = format!("verity partition {}", located.tree.path.display());
    if let Err(error) = top_read {
        return Err(Failure::new(
            STAGE,
            what,
            format!("the top of its hash tree can't be read: {error}"),
            RESTORE,
        ));
    }
    // Corrupted blocks further down are found later.
    if result == Err(CorruptedBlock::Hash(TOP)) {
        let why = format!(
            "the top of its hash tree does not match the root hash {}",
            short(&located.root_hash)
        );
        return Err(Failure::new(
            STAGE,
            what,
            why,
            format!("boot with the root hash built with this image, or {RESTORE}"),
        ));
    }
    Ok(())
}

/// The verity target's parameters; see
/// <https://docs.kernel.org/admin-guide/device-mapper/verity.html>.
#[derive(Clone)]
struct Table {
    /// Devices, sizes, root hash and salt.
    line: String,
    /// The key that holds the root hash's signature, if the kernel is to check it too.
    signature: Option<&'static str>,
}

impl Table {
    /// The complete line, with these optional parameters.
    fn with(&self, options: &[&str]) -> String {
        let signature = self.signature.map(|key| ["root_hash_sig_key_desc", key]);
        let words: Vec<&str> = signature.iter().flatten().chain(options).copied().collect();
        if words.is_empty() {
            self.line.clone()
        } else {
            format!("{} {} {}", self.line, words.len(), words.join(" "))
        }
    }
}

/// Why the kernel rejected a signature that the agent accepted.
fn kernels_reason(error: &io::Error) -> String {
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::ENOKEY => "the signer's certificate is in none of its keyrings".to_owned(),
        Errno::EKEYREJECTED => "its keyrings reject the signer".to_owned(),
        Errno::EINVAL | Errno::ENOPKG | Errno::ENOSYS => {
            "it can't check such signatures".to_owned()
        }
        _ => error.to_string(),
    }
}

impl VerifiedRoot {
    /// Its device node.
    pub fn device(&self) -> PathBuf {
        block::node(&self.mapping.device())
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &Disk {
        &self.located.disk
    }

    /// The located partitions.
    pub(super) fn located(&self) -> &Located {
        &self.located
    }

    /// Its length in blocks.
    pub fn blocks(&self) -> u64 {
        self.superblock.data_blocks
    }

    /// Checks the size of the root. The root hash does not bind the number of blocks in the verity
    /// superblock: a smaller number can have the same hash tree. The file system's first block is
    /// verified and contains the file system's size.
    fn check_length(&self, first: &[u8; BLOCK]) -> Result<(), Failure> {
        let (needed, there) = (
            file_system_bytes(first).unwrap_or(0).div_ceil(BLOCK as u64),
            self.blocks(),
        );
        if needed > there {
            let what = format!("verity partition {}", self.located.tree.path.display());
            let why = format!("its superblock has {there} data blocks, but the root has {needed}");
            return Err(Failure::new(STAGE, what, why, RESTORE));
        }
        Ok(())
    }

    /// Finds the block that caused a read error by following the hash tree.
    pub(super) fn explain(&self, block: u64, error: &io::Error) -> Failure {
        let Located {
            data,
            tree,
            root_hash,
            ..
        } = &self.located;
        let (data_file, tree_file) = (File::open(&data.path), File::open(&tree.path));
        let mut unreadable = None;
        let result = verity::check_path(&self.superblock, root_hash, block, |at, bytes| {
            let (file, number) = match at {
                CorruptedBlock::Hash(number) => (&tree_file, number),
                CorruptedBlock::Data(number) => (&data_file, number),
            };
            let read = file.as_ref().map_err(|e| e.to_string()).and_then(|f| {
                f.read_exact_at(bytes, number * BLOCK as u64)
                    .map_err(|e| e.to_string())
            });
            unreadable = read.err();
            unreadable.is_none()
        });
        let (what, number, role) = match result {
            Err(CorruptedBlock::Hash(number)) => (&tree.path, number, "tree"),
            Err(CorruptedBlock::Data(number)) => (&data.path, number, "data"),
            Ok(()) => {
                return Failure::new(
                    STAGE,
                    format!("block {block} of the root"),
                    error,
                    "check the disk and the machine's memory",
                );
            }
        };
        let why = match unreadable {
            Some(error) => format!("can't be read: {error}"),
            None => "does not match the root hash".to_owned(),
        };
        Failure::new(
            STAGE,
            format!("{role} block {number} of {}", what.display()),
            why,
            RESTORE,
        )
    }

    /// Makes the kernel handle corrupted blocks by itself from now on. Until here the agent
    /// reported them.
    pub fn arm(&self, on_corruption: OnCorruption, context: &mut Context) -> Result<(), Failure> {
        context.report.root.on_corruption = on_corruption;
        let verb = match on_corruption {
            OnCorruption::Reboot => "restart",
            OnCorruption::Panic => "panic",
            OnCorruption::Error => return Ok(()),
        };
        let on_bad_block = format!("{verb}_on_corruption");
        // The same version number is also found in kernels without it.
        if dm::target_version("verity").is_ok_and(|version| version >= ON_ERROR_SINCE)
            && self
                .mapping
                .replace(
                    &self
                        .table
                        .with(&[&on_bad_block, &format!("{verb}_on_error")]),
                )
                .is_ok()
        {
            return Ok(());
        }
        self.mapping
            .replace(&self.table.with(&[&on_bad_block]))
            .map_err(|e| {
                Failure::new(
                    STAGE,
                    format!("dm-verity's {verb}_on_corruption"),
                    e,
                    "report this",
                )
            })
    }

    /// Makes the device's link in /dev/mapper, by which systemd and people know it.
    fn link(&self) -> io::Result<()> {
        fs::create_dir_all("/dev/mapper")?;
        match std::os::unix::fs::symlink(
            format!("../{}", self.mapping.device()),
            format!("/dev/mapper/{ROOT_MAPPING}"),
        ) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

/// Size of an EROFS image by its first block: the low 32 bits of its number of blocks (superblock
/// at 1024: magic at 0, log2 of the block size at 12, blocks at 36; the kernel's
/// fs/erofs/erofs_fs.h). `None` if it is not EROFS, which the mount reports.
fn file_system_bytes(first: &[u8; BLOCK]) -> Option<u64> {
    let superblock = &first[1024..1024 + 128];
    let blocks = u32::from_le_bytes([
        superblock[36],
        superblock[37],
        superblock[38],
        superblock[39],
    ]);
    (superblock[..4] == [0xe2, 0xe1, 0xf5, 0xe0])
        .then(|| u64::from(blocks) << superblock[12].min(16))
}

/// The first digits of a root hash, enough for a person to recognize it.
pub fn short(hash: &RootHash) -> String {
    format!("{}…", hex::encode(&hash.0[..4]))
}

/// The corruption that dm-verity has found, to explain a failure of a later stage.
pub fn damage_seen_by_the_kernel() -> Option<String> {
    let status = dm::verity_status(ROOT_MAPPING).ok()?;
    (status == VerityStatus::Corrupted).then(|| {
        crate::kernel::console::last_logged("device-mapper: verity:")
            .unwrap_or_else(|| "dm-verity found a corrupted block".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_skip::skip;

    #[test]
    fn optional_parameters_are_counted() {
        let mut table = Table {
            line: "1".to_owned(),
            signature: None,
        };
        assert_eq!(
            (table.with(&[]), table.with(&["a", "b"])),
            ("1".to_owned(), "1 2 a b".to_owned())
        );
        table.signature = Some("key");
        assert_eq!(table.with(&["a"]), "1 3 root_hash_sig_key_desc key a");
    }

    #[test]
    fn reads_the_size_of_erofs_and_refuses_other_data() {
        let mut first = [0xff; BLOCK];
        assert_eq!(file_system_bytes(&first), None);
        first[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
        assert_eq!(file_system_bytes(&first), Some(u64::from(u32::MAX) << 16));
        first[1036] = 12;
        first[1060..1064].copy_from_slice(&1000u32.to_le_bytes());
        assert_eq!(file_system_bytes(&first), Some(4_096_000));
    }

    /// Compares with mkfs.erofs, so that a common mistake is found.
    #[test]
    fn reads_the_size_that_mkfs_erofs_writes() {
        let path =
            std::env::temp_dir().join(format!("adamant-erofs-length-{}", std::process::id()));
        let folder = env!("CARGO_MANIFEST_DIR");
        let Ok(output) = std::process::Command::new("mkfs.erofs")
            .arg(&path)
            .arg(folder)
            .output()
        else {
            skip!(Program("mkfs.erofs"));
        };
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut first = [0; BLOCK];
        File::open(&path)
            .unwrap()
            .read_exact_at(&mut first, 0)
            .unwrap();
        let length = fs::metadata(&path).unwrap().len();
        fs::remove_file(&path).unwrap();
        assert_eq!(file_system_bytes(&first), Some(length));
    }
}
