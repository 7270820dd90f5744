//! The kernel modules of the initramfs: those in its list, each after those it needs, and no others. Of these, what the machine has devices for.
//!
//! A device's name (modalias) says what it is, and the list has the patterns that the kernel's own drivers give: Documentation/driver-api and
//! modules.alias of depmod(8). Loading all of them would work, too: probing for what is not there is most of what an initramfs takes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};

use adamant_agent::contract::MODULE_LIST_PATH;
use adamant_agent::modalias;
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
    /// Reads the list. Where it can't be read, the boot goes on without: whether it needs one shows later, where it can be said what is missing.
    pub fn read(context: &mut Context) -> Modules {
        match read(MODULE_LIST_PATH, LIST_LIMIT) {
            Ok(list) => Modules { all: list.lines().filter_map(Module::parse).collect(), absent: BTreeSet::new() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Modules::default(),
            Err(error) => {
                context.warn(format!("{MODULE_LIST_PATH}: no module was loaded: {error}."));
                Modules::default()
            }
        }
    }

    /// Loads what each machine needs, and what the devices need that are there.
    pub fn load(&mut self, context: &mut Context) {
        let mut known = BTreeSet::new();
        for pass in 0..PASSES {
            let found = devices();
            let new: Vec<&String> = found.difference(&known).collect();
            if new.is_empty() && pass > 0 {
                break;
            }
            if self.load_those(&|patterns| patterns.iter().any(|pattern| new.iter().any(|name| modalias::is_like(pattern, name))), context) == 0 {
                break;
            }
            known = found;
        }
    }

    /// Loads what devices need that have just appeared.
    pub fn load_for(&mut self, names: &[String], context: &mut Context) {
        self.load_those(&|patterns| patterns.iter().any(|pattern| names.iter().any(|name| modalias::is_like(pattern, name))), context);
    }

    /// Loads all that is left, for a device that does not say what it is. Gives their number.
    pub fn load_the_rest(&mut self, context: &mut Context) -> usize {
        self.load_those(&|_| true, context)
    }

    /// Loads those that are asked for, with what they need. Gives how many were tried.
    fn load_those(&mut self, asked: &dyn Fn(&[String]) -> bool, context: &mut Context) -> usize {
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for module in self.all.iter().filter(|module| module.patterns.as_deref().is_none_or(asked)) {
            wanted.insert(module.name.clone());
            wanted.extend(module.needs.iter().cloned());
        }
        let Modules { all, absent } = self;
        let (now, later): (Vec<Module>, Vec<Module>) = std::mem::take(all).into_iter().partition(|module| wanted.contains(&module.name));
        let outcomes = loading::all(&now, absent, &load_one);
        for (module, outcome) in now.iter().zip(&outcomes) {
            match outcome {
                Outcome::Loaded => context.report.modules.push(module.name.clone()),
                Outcome::ThereBefore | Outcome::Absent => {}
                Outcome::Failed(error) => context.warn(format!("{}: the module was not loaded: {}.", module.path, error.desc())),
            }
        }
        *all = later;
        now.len()
    }
}

impl Module {
    fn parse(line: &str) -> Option<Module> {
        let (module, patterns) = line.split_once('|').map_or((line, None), |(module, patterns)| (module, Some(patterns)));
        let mut words = module.split_ascii_whitespace();
        let path = words.next()?.to_owned();
        let (mut needs, mut after) = (Vec::new(), Vec::new());
        for word in words {
            match word.strip_prefix('~') {
                Some(soft) => after.push(soft.to_owned()),
                None => needs.push(word.to_owned()),
            }
        }
        let patterns = patterns.map(|patterns| patterns.split_ascii_whitespace().map(str::to_owned).collect());
        Some(Module { name: name(&path), path, needs, after, patterns })
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
        for device in fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten().take(DEVICES) {
            note(&device.path().join("modalias").to_string_lossy());
        }
    }
    found
}

fn read(path: &str, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(limit + 1).read_to_string(&mut text)? as u64 > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

fn load_one(module: &Module) -> Outcome {
    let load = || {
        let file = File::open(&module.path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
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
