//! The kernel modules of the initramfs: of those in its list, the ones that each machine needs and
//! the ones that this machine's devices ask for, each after those it needs.
//!
//! A device's name (modalias) says what it is, and the list has the patterns that the kernel's
//! drivers give, as depmod(8) collects them. Loading all of them would work, too: probing for
//! hardware that is not there takes most of an initramfs's time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};

use adamant_contract::modalias;
use adamant_contract::paths::MODULE_LIST_PATH;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::Context;
use loading::Outcome;

mod loading;

/// Longest list read, bytes: some drivers have hundreds of devices.
const LIST_LIMIT: u64 = 1 << 20;
/// A device's name is at most a page, which a processor's features can fill.
const NAME_LIMIT: u64 = 4096;
/// More devices than this are not looked at.
const DEVICES: usize = 4096;
/// Buses behind buses, at most.
const PASSES: usize = 8;
const BUSES: &str = "/sys/bus";
const PROCESSOR: &str = "/sys/devices/system/cpu/modalias";

/// What is in the list and has not been tried yet.
#[derive(Default)]
pub struct Modules {
    all: Vec<Module>,
    /// Those that this machine can't have.
    absent: BTreeSet<String>,
}

struct Module {
    path: String,
    name: String,
    /// Names of modules that it can't be without.
    needs: Vec<String>,
    /// Names of modules that it comes after, if they are loaded.
    after: Vec<String>,
    /// Of devices; `None`: for each machine.
    patterns: Option<Vec<String>>,
}

impl Modules {
    /// Reads the list. Where it can't be read, the boot goes on without: whether it needs one shows
    /// later, where it can be said what is missing.
    pub fn read(context: &mut Context) -> Modules {
        match read(MODULE_LIST_PATH, LIST_LIMIT) {
            Ok(list) => Modules {
                all: list.lines().filter_map(Module::parse).collect(),
                absent: BTreeSet::new(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Modules::default(),
            Err(error) => {
                context.warn(format!(
                    "{MODULE_LIST_PATH}: no module was loaded: {error}."
                ));
                Modules::default()
            }
        }
    }

    /// Loads what each machine needs, and what the devices need that are there. Gives how many were
    /// loaded.
    pub fn load(&mut self, context: &mut Context) -> usize {
        let (mut known, mut loaded) = (BTreeSet::new(), 0);
        for pass in 0..PASSES {
            let found = devices();
            let new: Vec<&String> = found.difference(&known).collect();
            if new.is_empty() && pass > 0 {
                break;
            }
            let chosen =
                self.choose(&|pattern| new.iter().any(|name| modalias::is_like(pattern, name)));
            if chosen.is_empty() {
                break;
            }
            loaded += self.load_those(&chosen, context);
            known = found;
        }
        loaded
    }

    /// Loads what devices need that have just appeared. Gives how many were loaded.
    pub fn load_for(&mut self, names: &[String], context: &mut Context) -> usize {
        let chosen =
            self.choose(&|pattern| names.iter().any(|name| modalias::is_like(pattern, name)));
        self.load_those(&chosen, context)
    }

    /// Loads all that is left, for a device that does not say what it is. Gives how many were
    /// loaded.
    pub fn load_the_rest(&mut self, context: &mut Context) -> usize {
        let chosen = self.all.iter().map(|module| module.name.clone()).collect();
        self.load_those(&chosen, context)
    }

    /// The names of those that are for each machine, or for a device, and of those that these need
    /// or come after.
    fn choose(&self, is_asked: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
        let mut chosen = BTreeSet::new();
        // From the end: each stands behind those it needs.
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

    fn load_those(&mut self, names: &BTreeSet<String>, context: &mut Context) -> usize {
        if names.is_empty() {
            return 0;
        }
        let (now, later): (Vec<Module>, Vec<Module>) = std::mem::take(&mut self.all)
            .into_iter()
            .partition(|module| names.contains(&module.name));
        self.all = later;
        let mut loaded = 0;
        for (module, outcome) in now
            .iter()
            .zip(loading::all(&now, &mut self.absent, &load_one))
        {
            match outcome {
                Outcome::Loaded => {
                    context.report.modules.push(module.name.clone());
                    loaded += 1;
                }
                Outcome::ThereBefore | Outcome::Absent => {}
                Outcome::Failed(error) => context.warn(format!(
                    "{}: the module was not loaded: {}.",
                    module.path,
                    error.desc()
                )),
            }
        }
        // One of them may have brought a watchdog.
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

/// The names of all devices, on all buses, and the processor's.
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

fn load_one(module: &Module) -> Outcome {
    let load = || {
        let file =
            File::open(&module.path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
    };
    match load() {
        Ok(()) => {
            // Its pages are now in the kernel twice: as a module, and as a file of the initramfs.
            let _ = fs::remove_file(&module.path);
            Outcome::Loaded
        }
        Err(Errno::EEXIST) => Outcome::ThereBefore,
        Err(Errno::ENODEV) => Outcome::Absent,
        Err(error) => Outcome::Failed(error),
    }
}

/// The kernel's name of a module: its file's, with `_` for `-`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(lines: &[&str]) -> Modules {
        Modules {
            all: lines
                .iter()
                .filter_map(|line| Module::parse(line))
                .collect(),
            absent: BTreeSet::new(),
        }
    }

    #[test]
    fn what_each_machine_needs_and_what_devices_ask_for_is_chosen_with_what_that_needs() {
        let all = modules(&[
            "/m/lib.ko |",
            "/m/lib-2.ko |",
            "/m/fast.ko | cpu:*0094*",
            "/m/bus.ko lib | pci:v*",
            "/m/disk.ko lib_2 ~fast | scsi:t-0x00*",
            "/m/root.ko",
        ]);
        let chosen = |names: &[&str]| {
            all.choose(&|pattern| names.iter().any(|name| modalias::is_like(pattern, name)))
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
    fn a_line_says_path_needs_order_and_devices() {
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
