//! depmod's data about the modules of a kernel: names, dependencies, aliases and devices.
//!
//! Formats: modules.dep, modules.softdep, modules.alias and modules.builtin (modules.dep(5),
//! modprobe.d(5)).

use std::collections::{BTreeMap, BTreeSet};

use super::kernel::ImageKernel;
use crate::error::{Context, Error, Result};
use crate::tree::Tree;

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

/// depmod's data about a kernel's modules.
#[derive(Default)]
pub(super) struct Index {
    /// `/usr/lib/modules/RELEASE`.
    pub(super) base: String,
    pub(super) modules: BTreeMap<String, DepEntry>,
    pub(super) builtin: BTreeSet<String>,
    /// Soft dependencies by module: a name or alias, and whether it is loaded before the module.
    pub(super) soft: BTreeMap<String, Vec<(bool, String)>>,
    /// Modules by exact alias, which the kernel or another module requests.
    pub(super) aliases: BTreeMap<String, Vec<String>>,
    /// Modalias patterns of devices by module.
    pub(super) devices: BTreeMap<String, BTreeSet<String>>,
}

pub(super) struct DepEntry {
    /// Path, relative to the base or absolute.
    pub(super) path: String,
    /// Dependencies in the order of modules.dep: the one to load first is last.
    pub(super) needs: Vec<String>,
}

impl Index {
    pub(super) fn read(tree: &Tree, kernel: &ImageKernel) -> Result<Index> {
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
    pub(super) fn patterns(&self, name: &str, all: &[String]) -> Option<BTreeSet<String>> {
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
    pub(super) fn real(&self, name: &str) -> Vec<String> {
        let name = normal(name);
        self.aliases
            .get(&name)
            .filter(|_| !self.modules.contains_key(&name))
            .cloned()
            .unwrap_or_else(|| vec![name])
    }

    /// Whether the kernel has it as a module or built in, by name or alias.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.modules.contains_key(&name)
            || self.builtin.contains(&name)
            || self.aliases.contains_key(&name)
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
pub(super) fn normal(name: &str) -> String {
    name.replace('-', "_")
}
