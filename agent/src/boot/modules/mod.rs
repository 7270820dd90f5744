//! Loads kernel modules of the initramfs: those that every machine needs, and those that this
//! machine's devices ask for. Each is loaded after the modules that it depends on.
//!
//! A device's modalias says what it is. The module list has the patterns of the kernel's drivers,
//! as depmod(8) collects them. Loading all modules would also work, but probing for absent hardware
//! takes most of an initramfs's time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};

use adamant_contract::modalias;
use adamant_contract::paths::MODULE_LIST_PATH;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::Context;
use loading::LoadOutcome;

mod loading;

/// Longest list that is read, bytes: some drivers have hundreds of devices.
const LIST_LIMIT: u64 = 1 << 20;
/// Longest modalias: a page, which a processor's feature list can fill.
const NAME_LIMIT: u64 = 4096;
/// Most devices that are read.
const DEVICES: usize = 4096;
/// Deepest nesting of buses.
const PASSES: usize = 8;
const BUSES: &str = "/sys/bus";
const PROCESSOR: &str = "/sys/devices/system/cpu/modalias";

/// The modules of the list that were not tried yet.
#[derive(Default)]
pub struct ModuleList {
    all: Vec<Module>,
    /// Names of modules for hardware that this machine does not have.
    absent: BTreeSet<String>,
}

struct Module {
    path: String,
    name: String,
    /// Names of modules that must be loaded before it.
    needs: Vec<String>,
    /// Names of modules that, if they are loaded at all, must be loaded before it.
    after: Vec<String>,
    /// Patterns of modaliases. `None`: every machine needs the module.
    patterns: Option<Vec<String>>,
}

impl ModuleList {
    /// Reads the list. If it can't be read, the boot continues without modules; a later stage
    /// reports what is missing.
    pub fn open(context: &mut Context) -> ModuleList {
        match read(MODULE_LIST_PATH, LIST_LIMIT) {
            Ok(list) => ModuleList {
                all: list.lines().filter_map(Module::parse).collect(),
                absent: BTreeSet::new(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => ModuleList::default(),
            Err(error) => {
                context.warn(format!(
                    "{MODULE_LIST_PATH}: no module was loaded: {error}."
                ));
                ModuleList::default()
            }
        }
    }

    /// Loads the modules that every machine needs and those for the present devices. Returns the
    /// number of loaded modules.
    pub fn load(&mut self, context: &mut Context) -> usize {
        let (mut known, mut loaded) = (BTreeSet::new(), 0);
        for pass in 0..PASSES {
            let found = devices();
            let new: Vec<&String> = found.difference(&known).collect();
            if new.is_empty() && pass > 0 {
                break;
            }
            let chosen =
                self.choose(&|pattern| new.iter().any(|name| modalias::matches(pattern, name)));
            if chosen.is_empty() {
                break;
            }
            loaded += self.load_chosen(&chosen, context);
            known = found;
        }
        loaded
    }

    /// Loads the modules for devices that have just appeared. Returns the number of loaded modules.
    pub fn load_for(&mut self, names: &[String], context: &mut Context) -> usize {
        let chosen =
            self.choose(&|pattern| names.iter().any(|name| modalias::matches(pattern, name)));
        self.load_chosen(&chosen, context)
    }

    /// Loads all remaining modules, for a device without a modalias. Returns the number of loaded
    /// modules.
    pub fn load_the_rest(&mut self, context: &mut Context) -> usize {
        let chosen = self.all.iter().map(|module| module.name.clone()).collect();
        self.load_chosen(&chosen, context)
    }

    /// The names of modules for every machine and for the given devices, with everything that these
    /// depend on or follow.
    fn choose(&self, is_asked: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
        let mut chosen = BTreeSet::new();
        // Backwards, because each module follows its dependencies in the list.
        for module in self.all.iter().rev() {
            let asked = module
                .patterns
                .as_ref()
                .is_none_or(|patterns| patterns.iter().any(|pattern| is_asked(pattern)));
            if asked || chosen.contains(&module.name) {
                chosen.insert(module.name.clone());
                chosen.extend(module.needs.iter().chain(&module.after).cloned());
            }
        }
        chosen.retain(|name| self.all.iter().any(|module| module.name == *name));
        chosen
    }

    fn load_chosen(&mut self, names: &BTreeSet<String>, context: &mut Context) -> usize {
        if names.is_empty() {
            return 0;
        }
        let (now, later): (Vec<Module>, Vec<Module>) = std::mem::take(&mut self.all)
            .into_iter()
            .partition(|module| names.contains(&module.name));
        self.all = later;
        let mut loaded = 0;
        for (module, outcome) in
            now.iter()
                .zip(loading::load_in_order(&now, &mut self.absent, &load_module))
        {
            match outcome {
                LoadOutcome::Loaded => {
                    context.report.modules.push(module.name.clone());
                    loaded += 1;
                }
                LoadOutcome::ThereBefore | LoadOutcome::Absent => {}
                LoadOutcome::Failed(error) => context.warn(format!(
                    "{}: the module was not loaded: {}.",
                    module.path,
                    error.desc()
                )),
            }
        }
        // A module may have brought a watchdog.
        context.watchdog.arm();
        context.watchdog.alive();
        loaded
    }
}

impl Module {
    fn parse(line: &str) -> Option<Module> {
        let (module, patterns) = line
            .split_once('|')
            .map_or((line, None), |(module, patterns)| (module, Some(patterns)));
        let mut words = module.split_ascii_whitespace();
        let path = words.next()?.to_owned();
        let (mut needs, mut after) = (Vec::new(), Vec::new());
        for word in words {
            match word.strip_prefix('~') {
                Some(soft) => after.push(soft.to_owned()),
                None => needs.push(word.to_owned()),
            }
        }
        let patterns = patterns.map(|patterns| {
            patterns
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect()
        });
        Some(Module {
            name: name(&path),
            path,
            needs,
            after,
            patterns,
        })
    }
}

/// The modaliases of all devices on all buses, and of the processor.
fn devices() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut note = |path: &str| {
        if let Ok(name) = read(path, NAME_LIMIT)
            && !name.trim().is_empty()
            && found.len() < DEVICES
        {
            found.insert(name.trim().to_owned());
        }
    };
    note(PROCESSOR);
    for bus in fs::read_dir(BUSES).into_iter().flatten().flatten() {
        for device in fs::read_dir(bus.path().join("devices"))
            .into_iter()
            .flatten()
            .flatten()
            .take(DEVICES)
        {
            note(&device.path().join("modalias").to_string_lossy());
        }
    }
    found
}

fn read(path: &str, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    if File::open(path)?
        .take(limit + 1)
        .read_to_string(&mut text)? as u64
        > limit
    {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

fn load_module(module: &Module) -> LoadOutcome {
    let load = || {
        let file =
            File::open(&module.path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
    };
    match load() {
        Ok(()) => {
            // Its pages are in memory twice now: in the module, and in the initramfs' file.
            let _ = fs::remove_file(&module.path);
            LoadOutcome::Loaded
        }
        Err(Errno::EEXIST) => LoadOutcome::ThereBefore,
        Err(Errno::ENODEV) => LoadOutcome::Absent,
        Err(error) => LoadOutcome::Failed(error),
    }
}

/// The kernel's name of a module: its file name with `_` for `-`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(lines: &[&str]) -> ModuleList {
        ModuleList {
            all: lines
                .iter()
                .filter_map(|line| Module::parse(line))
                .collect(),
            absent: BTreeSet::new(),
        }
    }

    #[test]
    fn chooses_modules_for_every_machine_and_for_devices_with_their_dependencies() {
        let all = modules(&[
            "/m/lib.ko |",
            "/m/lib-2.ko |",
            "/m/fast.ko | cpu:*0094*",
            "/m/bus.ko lib | pci:v*",
            "/m/disk.ko lib_2 ~fast | scsi:t-0x00*",
            "/m/root.ko",
        ]);
        let chosen = |names: &[&str]| {
            all.choose(&|pattern| names.iter().any(|name| modalias::matches(pattern, name)))
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]), ["root"]);
        assert_eq!(chosen(&["pci:v1"]), ["bus", "lib", "root"]);
        assert_eq!(
            chosen(&["scsi:t-0x00", "usb:v1"]),
            ["disk", "fast", "lib_2", "root"]
        );
        assert!(modules(&[]).choose(&|_| true).is_empty());
    }

    #[test]
    fn parses_a_line_of_the_module_list() {
        let module =
            Module::parse("/usr/lib/m/dm-verity.ko dm_mod ~sha256_ssse3 | pci:v1 usb:*").unwrap();
        assert_eq!(
            (module.name.as_str(), module.needs, module.after),
            (
                "dm_verity",
                vec!["dm_mod".to_owned()],
                vec!["sha256_ssse3".to_owned()]
            )
        );
        assert_eq!(
            module.patterns,
            Some(vec!["pci:v1".to_owned(), "usb:*".to_owned()])
        );
        assert!(
            Module::parse("").is_none()
                && Module::parse(" | a").is_none()
                && Module::parse("/m/a.ko").unwrap().patterns.is_none()
        );
    }
}
