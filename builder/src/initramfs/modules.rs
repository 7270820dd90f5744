//! Selects the kernel modules of the initramfs, in an order in which each module follows its
//! dependencies.
//!
//! Formats: depmod's modules.dep, modules.softdep, modules.alias and modules.builtin
//! (modules.dep(5), modprobe.d(5)). Modules are decompressed but not changed, so their signatures
//! stay valid.

use std::collections::BTreeSet;
use std::io::Read;

use super::depmod::{Index, normal};
use super::kernel::{Configured, ImageKernel};
use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::tree::{Tree, show};

/// Modules without which no root can be mounted, and the kernel option of each.
const REQUIRED: [(&str, &str); 2] = [("dm_verity", "DM_VERITY"), ("erofs", "EROFS_FS")];

/// Modules that some machine needs before its root can be read. A kernel may lack any of them.
const WANTED: [&str; 31] = [
    // Watchdogs come first. One is armed as soon as the modules that every machine needs are
    // loaded.
    "i6300esb",
    "iTCO_wdt",
    // Credentials, and the machine's id.
    "qemu_fw_cfg",
    "dmi_sysfs",
    // The TPM, whose drivers are built into many kernels.
    "tpm_crb",
    "tpm_tis",
    // dm-verity requests "sha256" and gets the fastest implementation that is loaded.
    "sha256_generic",
    "sha256_ssse3",
    "crc32c_generic",
    "crc32c_intel",
    // Disks.
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "nvme",
    "ahci",
    "xen_blkfront",
    "hv_storvsc",
    "pci_hyperv",
    "vmw_pvscsi",
    "xhci_pci",
    "ehci_pci",
    "usb_storage",
    "uas",
    "sd_mod",
    // The root, and the volumes.
    "dm_verity",
    "erofs",
    "ext4",
    // Console and randomness of virtual machines.
    "virtio_console",
    "virtio_rng",
    "hv_utils",
];

/// Largest module, bytes. Graphics drivers have about 20 MB.
const MODULE_LIMIT: u64 = 64 << 20;
/// Largest sum of the modules, bytes. The usual set has 3 MB.
const TOTAL_LIMIT: usize = 128 << 20;
/// Largest depth of dependencies. Real kernels stay far below it.
const DEPTH_LIMIT: usize = 64;

/// A module for the initramfs.
#[derive(Debug)]
pub struct Module {
    /// Name in the kernel's spelling, with `_`.
    pub name: String,
    /// Absolute path that ends in `.ko`.
    pub path: String,
    /// Decompressed content, with the signature at its end.
    pub bytes: Vec<u8>,
    /// Names of the modules on which it depends.
    pub needs: Vec<String>,
    /// Names of modules that are loaded before it, if they are present.
    pub after: Vec<String>,
    /// When the agent loads it.
    pub when: When,
}

/// When the agent loads a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// On every machine.
    Always,
    /// If a device's modalias matches one of these patterns, or another module depends on it.
    Devices(Vec<String>),
}

impl Module {
    /// The module's line in the list for the agent, see
    /// [`adamant_contract::paths::MODULE_LIST_PATH`].
    pub fn line(&self) -> String {
        let after: Vec<String> = self.after.iter().map(|name| format!("~{name}")).collect();
        let fields = std::iter::once(self.path.as_str())
            .chain(self.needs.iter().chain(&after).map(String::as_str));
        let behind = match &self.when {
            When::Always => Vec::new(),
            When::Devices(patterns) => std::iter::once("|")
                .chain(patterns.iter().map(String::as_str))
                .collect(),
        };
        fields.chain(behind).collect::<Vec<_>>().join(" ") + "\n"
    }
}

/// Selects the modules for a kernel, in load order: the built-in list and `extra`.
pub fn select(
    tree: &Tree,
    kernel: &ImageKernel,
    extra: &[String],
    cache: Option<&Cache>,
) -> Result<Vec<Module>> {
    let index = Index::read(tree, kernel)?;
    for (name, option) in REQUIRED {
        if !index.has(name) && kernel.configured(option) != Configured::BuiltIn {
            return Err(Error::new(format!("kernel {} has no {name}, neither built in nor as a module: no verified root can be mounted", kernel.release))
                .hint(format!("use a kernel with CONFIG_{option}=y or =m (Debian's linux-image-cloud-amd64 and linux-image-amd64 have it)")));
        }
    }
    let mut order = Order {
        index: &index,
        seen: BTreeSet::new(),
        wanted: BTreeSet::new(),
        chosen: Vec::new(),
    };
    for name in WANTED {
        order.want(name, 0)?;
    }
    for name in extra {
        if !index.has(name) {
            return Err(Error::new(format!(
                "kernel.modules: kernel {} has no module {name:?}",
                kernel.release
            ))
            .hint("remove it, or install the package that contains it"));
        }
        order.want(name, 0)?;
    }
    // The definition's modules are loaded on every machine, because they may be for a purpose that
    // no device shows.
    let named: BTreeSet<String> = extra.iter().flat_map(|name| index.real(name)).collect();
    let mut total = 0usize;
    let mut modules = Vec::new();
    let Order {
        wanted,
        chosen: all,
        ..
    } = order;
    for name in &all {
        let entry = &index.modules[name];
        let mut module = read_module(tree, &index.base, name, &entry.path, cache)?;
        module.needs.clone_from(&entry.needs);
        let soft = index
            .soft
            .get(name)
            .into_iter()
            .flatten()
            .filter(|(before, _)| *before);
        module.after = soft
            .flat_map(|(_, name)| index.real(name))
            .filter(|name| index.modules.contains_key(name))
            .collect();
        if let Some(patterns) = index.patterns(name, &all).filter(|_| !named.contains(name)) {
            module.when = When::Devices(patterns.into_iter().collect());
        } else if !wanted.contains(name) {
            module.when = When::Devices(Vec::new());
        }
        total = total.saturating_add(module.bytes.len());
        if total > TOTAL_LIMIT {
            return Err(Error::new(format!(
                "kernel {}: the modules for the initramfs have more than {} MiB",
                kernel.release,
                TOTAL_LIMIT >> 20
            )));
        }
        modules.push(module);
    }
    Ok(modules)
}

/// Collects modules depth-first, so that each follows its dependencies.
struct Order<'a> {
    index: &'a Index,
    seen: BTreeSet<String>,
    /// The modules that were requested, and not only added as a dependency.
    wanted: BTreeSet<String>,
    chosen: Vec<String>,
}

impl Order<'_> {
    fn want(&mut self, name: &str, depth: usize) -> Result<()> {
        self.wanted.insert(normal(name));
        self.add(name, depth)
    }

    fn add(&mut self, name: &str, depth: usize) -> Result<()> {
        let name = normal(name);
        if depth > DEPTH_LIMIT {
            return Err(Error::new(format!(
                "{}: the dependencies of {name} are more than {DEPTH_LIMIT} deep",
                self.index.base
            )));
        }
        if !self.seen.insert(name.clone()) || self.index.builtin.contains(&name) {
            return Ok(());
        }
        let index = self.index;
        let Some(entry) = index.modules.get(&name) else {
            for real in index.aliases.get(&name).into_iter().flatten() {
                self.want(real, depth + 1)?;
            }
            return Ok(());
        };
        for need in entry.needs.iter().rev() {
            if !index.modules.contains_key(need) && !index.builtin.contains(need) {
                return Err(Error::new(format!(
                    "{}/modules.dep: {name} needs {need}, which does not exist",
                    index.base
                )));
            }
            self.add(need, depth + 1)?;
        }
        let soft = index.soft.get(&name).map(Vec::as_slice).unwrap_or_default();
        for (_, soft) in soft.iter().filter(|(before, _)| *before) {
            self.want(soft, depth + 1)?;
        }
        self.chosen.push(name);
        for (_, soft) in soft.iter().filter(|(before, _)| !before) {
            self.want(soft, depth + 1)?;
        }
        Ok(())
    }
}

fn read_module(
    tree: &Tree,
    base: &str,
    name: &str,
    path: &str,
    cache: Option<&Cache>,
) -> Result<Module> {
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let content = tree.file_content(path.as_bytes()).ok_or_else(|| {
        Error::new(format!(
            "{path}: modules.dep lists it, but it does not exist"
        ))
    })?;
    let packed = content
        .to_vec(MODULE_LIMIT)
        .context(|| show(path.as_bytes()))?;
    let key = |cache: &Cache| cache.key("module as the kernel takes it", &[], &packed);
    let bytes = Cache::get_or_compute(cache, key, || {
        decompress(&packed).context(|| show(path.as_bytes()))
    })?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Error::new(format!("{path}: not a kernel module")));
    }
    let end = path.find(".ko").map_or(path.len(), |at| at + 3);
    Ok(Module {
        name: name.to_owned(),
        path: path[..end].to_owned(),
        bytes,
        needs: Vec::new(),
        after: Vec::new(),
        when: When::Always,
    })
}

/// Decompresses a module. The content decides the format, not the name.
fn decompress(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = match packed {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => liblzma::read::XzDecoder::new(packed)
            .take(MODULE_LIMIT + 1)
            .read_to_end(&mut out)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::new(packed)?
            .take(MODULE_LIMIT + 1)
            .read_to_end(&mut out)?,
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(packed)
            .take(MODULE_LIMIT + 1)
            .read_to_end(&mut out)?,
        plain => return Ok(plain.to_vec()),
    };
    if read as u64 > MODULE_LIMIT {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("more than {MODULE_LIMIT} bytes when decompressed"),
        ));
    }
    Ok(out)
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
