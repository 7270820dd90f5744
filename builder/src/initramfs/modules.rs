//! Selects the kernel modules of the initramfs, in an order in which each module follows its
//! dependencies.
//!
//! Formats: depmod's modules.dep, modules.softdep, modules.alias and modules.builtin
//! (modules.dep(5), modprobe.d(5)). Modules are decompressed but not changed, so their signatures
//! stay valid.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

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

/// Drivers of devices that appear late, behind another device or bus. The first module of a pair is
/// loaded wherever the second is. Otherwise a disk that appears very late would be detected only
/// after the root was found.
const LOADED_WITH: [(&str, &str); 8] = [
    ("sd_mod", "scsi_mod"),
    ("sd_mod", "usbcore"),
    ("sd_mod", "hv_vmbus"),
    ("usb_storage", "usbcore"),
    ("uas", "usbcore"),
    ("hv_storvsc", "hv_vmbus"),
    ("pci_hyperv", "hv_vmbus"),
    ("hv_utils", "hv_vmbus"),
];

/// Largest file of depmod, bytes. They have 100 KB to 1 MB.
const LIST_LIMIT: u64 = 64 << 20;
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

/// depmod's data about a kernel's modules.
#[derive(Default)]
struct Index {
    /// `/usr/lib/modules/RELEASE`.
    base: String,
    modules: BTreeMap<String, DepEntry>,
    builtin: BTreeSet<String>,
    /// Soft dependencies by module: a name or alias, and whether it is loaded before the module.
    soft: BTreeMap<String, Vec<(bool, String)>>,
    /// Modules by exact alias, which the kernel or another module requests.
    aliases: BTreeMap<String, Vec<String>>,
    /// Modalias patterns of devices by module.
    devices: BTreeMap<String, BTreeSet<String>>,
}

struct DepEntry {
    /// Path, relative to the base or absolute.
    path: String,
    /// Dependencies in the order of modules.dep: the one to load first is last.
    needs: Vec<String>,
}

impl Index {
    fn read(tree: &Tree, kernel: &ImageKernel) -> Result<Index> {
        let mut index = Index {
            base: format!("/usr/lib/modules/{}", kernel.release),
            ..Index::default()
        };
        if tree.resolve(index.base.as_bytes()).is_none() {
            index.base = format!("/lib/modules/{}", kernel.release);
        }
        let list = |name: &str| -> Result<Option<String>> {
            let path = format!("{}/{name}", index.base);
            let Some(content) = tree.file_content(path.as_bytes()) else {
                return Ok(None);
            };
            let bytes = content.to_vec(LIST_LIMIT).context(|| path)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        };
        let builtin = list("modules.builtin")?.unwrap_or_default();
        let dependencies = list("modules.dep")?;
        let (softdeps, aliases) = (
            list("modules.softdep")?.unwrap_or_default(),
            list("modules.alias")?.unwrap_or_default(),
        );
        if dependencies.is_none()
            && tree
                .file_content(format!("{}/modules.order", index.base).as_bytes())
                .is_some()
        {
            return Err(
                Error::new(format!("{}: modules without modules.dep", index.base)).hint(format!(
                    "run depmod {} when the image is assembled",
                    kernel.release
                )),
            );
        }
        index.builtin = builtin.lines().filter_map(module_name).collect();
        for line in dependencies.as_deref().unwrap_or_default().lines() {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let Some(name) = module_name(path) else {
                continue;
            };
            let needs = needs.split_whitespace().filter_map(module_name).collect();
            index.modules.insert(
                name,
                DepEntry {
                    path: path.to_owned(),
                    needs,
                },
            );
        }
        for line in softdeps.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(name)) = (words.next(), words.next()) {
                let soft = index.soft.entry(normal(name)).or_default();
                let mut before = true;
                for word in words {
                    match word {
                        "pre:" => before = true,
                        "post:" => before = false,
                        name => soft.push((before, normal(name))),
                    }
                }
            }
        }
        for line in aliases.lines() {
            let mut words = line.split_whitespace();
            let (Some("alias"), Some(alias), Some(name), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            // The alias of a device has a bus and a colon. `devname:` is for programs that create
            // device nodes.
            if alias.starts_with("devname:") {
                continue;
            }
            if alias.contains(':') {
                index
                    .devices
                    .entry(normal(name))
                    .or_default()
                    .insert(alias.to_owned());
            } else if !alias.contains(['*', '?', '[']) {
                index
                    .aliases
                    .entry(normal(alias))
                    .or_default()
                    .push(normal(name));
            }
        }
        Ok(index)
    }

    /// Modalias patterns of a module's devices, and of the modules with which [`LOADED_WITH`] loads
    /// it; `None` if it has no patterns.
    fn patterns(&self, name: &str, all: &[String]) -> Option<BTreeSet<String>> {
        let mut patterns = self.devices.get(name)?.clone();
        for (_, before) in LOADED_WITH.iter().filter(|(behind, _)| *behind == name) {
            // A built-in module has no patterns here.
            if self.builtin.contains(*before) {
                return None;
            }
            let stands_before = |other: &&String| {
                *other == before
                    || self
                        .modules
                        .get(*other)
                        .is_some_and(|entry| entry.needs.iter().any(|need| need == before))
            };
            patterns.extend(
                all.iter()
                    .filter(stands_before)
                    .flat_map(|other| self.devices.get(other))
                    .flatten()
                    .cloned(),
            );
        }
        Some(patterns)
    }

    /// The modules that a name or an alias denotes.
    fn real(&self, name: &str) -> Vec<String> {
        let name = normal(name);
        self.aliases
            .get(&name)
            .filter(|_| !self.modules.contains_key(&name))
            .cloned()
            .unwrap_or_else(|| vec![name])
    }

    /// Whether the kernel has it as a module or built in, by name or alias.
    fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.modules.contains_key(&name)
            || self.builtin.contains(&name)
            || self.aliases.contains_key(&name)
    }
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

/// `kernel/fs/a-b.ko.xz` -> `a_b`.
fn module_name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let name = ["", ".xz", ".zst", ".gz"]
        .iter()
        .find_map(|packed| file.strip_suffix(packed)?.strip_suffix(".ko"))?;
    (!name.is_empty()).then(|| normal(name))
}

/// Replaces `-` by `_`, which are equal in the name of a module.
fn normal(name: &str) -> String {
    name.replace('-', "_")
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
mod tests {
    use super::*;
    use crate::tree::{Content, Kind, Meta};

    fn kernel() -> ImageKernel {
        ImageKernel {
            release: "6.1".to_owned(),
            image: Vec::new(),
            config: String::new(),
        }
    }

    fn tree(files: &[(&str, &[u8])]) -> Tree {
        let mut tree = Tree::new();
        for (path, bytes) in files {
            tree.insert(
                format!("/usr/lib/modules/6.1/{path}").as_bytes(),
                Meta::default(),
                Kind::File(Content::from_memory(bytes.to_vec())),
            )
            .unwrap();
        }
        tree
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        liblzma::read::XzEncoder::new(bytes, 6)
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    const DEP: &[u8] = b"k/dm-verity.ko.xz: k/dm-bufio.ko.zst k/dm-mod.ko\nk/dm-bufio.ko.zst: k/dm-mod.ko\nk/dm-mod.ko:\nk/erofs.ko.gz: k/libcrc32c.ko\nk/libcrc32c.ko:\nk/crc32c-intel.ko:\nk/extra-one.ko:\n";

    fn whole() -> Vec<(&'static str, Vec<u8>)> {
        let elf = |name: &str| {
            [
                b"\x7fELF",
                name.as_bytes(),
                b"~Module signature appended~\n",
            ]
            .concat()
        };
        let mut gz = Vec::new();
        flate2::read::GzEncoder::new(&*elf("erofs"), flate2::Compression::best())
            .read_to_end(&mut gz)
            .unwrap();
        vec![
            ("modules.dep", DEP.to_vec()),
            ("modules.softdep", b"# comment\nsoftdep libcrc32c pre: crc32c\nsoftdep erofs post: nothing extra-one\n".to_vec()),
            ("modules.alias", b"alias crc32c crc32c_intel\nalias pci:v* nvme\n".to_vec()),
            ("modules.builtin", b"kernel/fs/ext4/ext4.ko\n".to_vec()),
            ("k/dm-verity.ko.xz", xz(&elf("verity"))),
            ("k/dm-bufio.ko.zst", zstd::encode_all(&*elf("bufio"), 3).unwrap()),
            ("k/dm-mod.ko", elf("mod")),
            ("k/erofs.ko.gz", gz),
            ("k/libcrc32c.ko", elf("crc")),
            ("k/crc32c-intel.ko", elf("intel")),
            ("k/extra-one.ko", elf("extra")),
        ]
    }

    fn with(change: impl Fn(&mut Vec<(&'static str, Vec<u8>)>)) -> Tree {
        let mut files = whole();
        change(&mut files);
        tree(
            &files
                .iter()
                .map(|(path, bytes)| (*path, &**bytes))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn each_module_follows_its_dependencies_and_keeps_its_signature() {
        let modules = select(&with(|_| {}), &kernel(), &["crc32c".to_owned()], None).unwrap();
        let names: Vec<&str> = modules.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "crc32c_intel",
                "dm_mod",
                "dm_bufio",
                "dm_verity",
                "libcrc32c",
                "erofs",
                "extra_one"
            ]
        );
        assert_eq!(modules[3].path, "/usr/lib/modules/6.1/k/dm-verity.ko");
        assert!(
            modules
                .iter()
                .all(|m| m.bytes.ends_with(b"~Module signature appended~\n"))
        );
    }

    #[test]
    fn decides_whether_a_module_is_for_devices_or_for_every_machine() {
        let aliases = b"alias crc32c crc32c_intel\nalias cpu:type:x86*:feature:*0094* crc32c_intel\nalias cpu:a crc32c_intel\nalias acpi*:X-Y:* extra-one\n";
        let lines = |extra: &[String]| -> Vec<String> {
            let tree = with(|files| files[2].1 = aliases.to_vec());
            select(&tree, &kernel(), extra, None)
                .unwrap()
                .iter()
                .map(|module| module.line().replace("/usr/lib/modules/6.1/k/", ""))
                .collect()
        };
        let all = [
            "crc32c-intel.ko | cpu:a cpu:type:x86*:feature:*0094*\n",
            "dm-mod.ko |\n",
            "dm-bufio.ko dm_mod |\n",
            "dm-verity.ko dm_bufio dm_mod\n",
            "libcrc32c.ko ~crc32c_intel |\n",
            "erofs.ko libcrc32c\n",
            "extra-one.ko | acpi*:X-Y:*\n",
        ];
        assert_eq!(lines(&[]), all);
        let named = lines(&["crc32c".to_owned(), "extra_one".to_owned()]);
        assert_eq!(
            (named[0].as_str(), named[6].as_str()),
            ("crc32c-intel.ko\n", "extra-one.ko\n")
        );
    }

    #[test]
    fn drivers_of_late_devices_are_loaded_with_their_bus() {
        let dep = b"k/dm-verity.ko:\nk/erofs.ko:\nk/scsi_mod.ko:\nk/virtio_scsi.ko: k/scsi_mod.ko\nk/sd_mod.ko: k/scsi_mod.ko\n".to_vec();
        let aliases = b"alias virtio:d8v* virtio_scsi\nalias scsi:t-0x00* sd_mod\nalias devname:x dm_verity\n".to_vec();
        let lines = |builtin: &str| -> Vec<String> {
            let names = ["dm-verity", "erofs", "scsi_mod", "virtio_scsi", "sd_mod"]
                .map(|name| format!("k/{name}.ko"));
            let mut files: Vec<(&str, &[u8])> = vec![
                ("modules.dep", &dep),
                ("modules.alias", &aliases),
                ("modules.builtin", builtin.as_bytes()),
            ];
            files.extend(names.iter().map(|name| (name.as_str(), &b"\x7fELF"[..])));
            select(&tree(&files), &kernel(), &[], None)
                .unwrap()
                .iter()
                .map(|module| module.line().replace("/usr/lib/modules/6.1/k/", ""))
                .collect()
        };
        let sd = |patterns: &str| format!("sd_mod.ko scsi_mod{patterns}\n");
        assert_eq!(
            lines(""),
            [
                "scsi_mod.ko |\n",
                "virtio_scsi.ko scsi_mod | virtio:d8v*\n",
                &sd(" | scsi:t-0x00* virtio:d8v*"),
                "dm-verity.ko\n",
                "erofs.ko\n"
            ]
        );
        assert_eq!(lines("kernel/drivers/usb/core/usbcore.ko\n")[2], sd(""));
    }

    #[test]
    fn names_the_missing_module_of_a_kernel() {
        let kernel = kernel();
        let error = |tree: &Tree, extra: &[String]| {
            select(tree, &kernel, extra, None).unwrap_err().to_string()
        };
        let no_erofs = with(|files| files[0].1 = b"k/dm-verity.ko.xz:\n".to_vec());
        assert!(error(&no_erofs, &[]).contains("CONFIG_EROFS_FS"));
        let built_in = ImageKernel {
            config: "CONFIG_EROFS_FS=y\nCONFIG_DM_VERITY=y\n".to_owned(),
            ..kernel.clone()
        };
        assert_eq!(select(&no_erofs, &built_in, &[], None).unwrap().len(), 1);
        assert!(error(&with(|_| {}), &["nothing".to_owned()]).contains("no module \"nothing\""));
        assert!(
            error(&with(|files| files.retain(|f| f.0 != "k/dm-mod.ko")), &[])
                .contains("it does not exist")
        );
        assert!(
            error(&with(|files| files[6].1 = b"text".to_vec()), &[])
                .contains("not a kernel module")
        );
        assert!(
            error(
                &with(|files| {
                    files[4].1.truncate(40);
                }),
                &[]
            )
            .contains("dm-verity.ko.xz")
        );
        let loops = with(|files| {
            files[0].1 = b"k/dm-mod.ko: k/dm-bufio.ko\nk/dm-bufio.ko.zst: k/dm-mod.ko\nk/dm-verity.ko.xz: k/dm-mod.ko\nk/erofs.ko.gz:\n".to_vec()
        });
        assert_eq!(select(&loops, &kernel, &[], None).unwrap().len(), 4);
        let no_dep = with(|files| {
            files.remove(0);
            files.push(("modules.order", Vec::new()));
        });
        assert!(error(&no_dep, &[]).contains("depmod"));
    }
}
