//! The drivers of the hardware that is there, and the modules that the policy names: later none can
//! be loaded. Where modules are loaded on request, the image's systemd-udevd loads the drivers, and
//! the policy's modules are all that is loaded here.
//!
//! The image's own modprobe knows which module a device wants; it runs in a chroot of the verified
//! root. A driver brings new devices to light, such as a network card behind a bus, so it is asked
//! again until there are no new ones.
//!
//! In two steps, because checking the modules' signatures takes long, and nothing that the boot
//! does meanwhile waits for them: [`begin`] loads them beside the stages that follow, and
//! [`finish`] those of devices that have appeared since.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use adamant_contract::paths::SYSROOT;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};

use super::super::volumes::tool;
use super::super::{Context, root};
use super::beside::Beside;

/// How long modprobe may take each time.
const DEADLINE: Duration = Duration::from_secs(60);
/// Buses behind buses, at most.
const PASSES: usize = 4;
/// More devices than this are not looked at, nor folders deeper than that.
const DEVICES: usize = 4096;
const DEPTH: usize = 24;
/// What systemd and its usual units ask the kernel for in every image, whatever the hardware.
const USUAL: [&str; 5] = ["autofs4", "configfs", "efi_pstore", "fuse", "dm_mod"];

/// The drivers, on their way into the kernel.
pub type Loading = Beside<Loaded>;

/// Whether devices without a driver get one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// All of them, now.
    Drive,
    /// systemd-udevd does so later.
    Leave,
}

/// What was done so far.
pub struct Loaded {
    hardware: Hardware,
    /// The names of devices that modprobe was asked for.
    known: BTreeSet<String>,
    /// Modules that the policy names.
    modules: Vec<String>,
    /// Whole sentences.
    warnings: Vec<String>,
}

/// Begins to load the drivers, and `modules`. `None`: the image has nothing to load them with.
/// `Err` is a clause.
pub fn begin(modules: &[String], hardware: Hardware) -> Result<Option<Loading>, String> {
    if root::open_inside("/usr/sbin/modprobe", OFlag::O_PATH).is_err() {
        let missing =
            "the policy names modules, but the image has no modprobe to load them with: add kmod"
                .to_owned();
        return if modules.is_empty() {
            Ok(None)
        } else {
            Err(missing)
        };
    }
    let (apart, is_apart) = mpsc::sync_channel(1);
    // Longer than modprobe may take, as often as it may be asked.
    let patience = 2 * DEADLINE * (PASSES + modules.len()) as u32;
    let modules = modules.to_vec();
    let work = move || {
        // Mounts that follow must not be seen by the programs that are started here: a volume that
        // one of them holds could not be taken away for its repair. Without namespaces none
        // of them starts at all.
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        let _ = apart.send(());
        let nothing = Loaded {
            hardware,
            known: BTreeSet::new(),
            modules: Vec::new(),
            warnings: Vec::new(),
        };
        Ok(nothing.and(&USUAL, &mut || ())?.and_named(&modules))
    };
    let loading = Beside::begin("loads drivers", patience, work)?;
    // Where this takes long, a repair of a volume may meet a program that holds it. An error means
    // that the thread has ended, which is seen where it is waited for.
    let _ = is_apart.recv_timeout(Duration::from_secs(5));
    Ok(Some(loading))
}

/// Waits until they are loaded, and loads what devices need that have appeared since. What can't be
/// loaded is a warning where the policy names it; other hardware may be without a driver. `Err` is
/// a clause.
pub fn finish(loading: &Loading, context: &mut Context) -> Result<(), String> {
    let loaded = loading
        .wait(context)?
        .and(&[], &mut || context.watchdog.alive())?;
    context.report.modules.extend(loaded.modules);
    for warning in loaded.warnings {
        context.warn(warning);
    }
    Ok(())
}

impl Loaded {
    /// Loads what devices need that were not known, and with it `others`.
    fn and(mut self, others: &[&str], tick: &mut dyn FnMut()) -> Result<Loaded, String> {
        for pass in 0..PASSES {
            let mut found = BTreeSet::new();
            if self.hardware == Hardware::Drive {
                look(Path::new("/sys/devices"), 0, &mut found);
            }
            let mut words: Vec<&str> = vec!["-a", "-b", "-q"];
            let options = words.len();
            words.extend(others.iter().filter(|_| pass == 0));
            words.extend(found.difference(&self.known).map(String::as_str));
            if words.len() == options {
                break;
            }
            // Its exit code says only that one of them has no module, which is so for most.
            tool::run(Path::new(SYSROOT), "modprobe", &words, DEADLINE, tick)?;
            self.known = found;
        }
        Ok(self)
    }

    /// Loads the modules that the policy names.
    fn and_named(mut self, modules: &[String]) -> Loaded {
        for module in modules {
            match tool::run(
                Path::new(SYSROOT),
                "modprobe",
                &["-b", module],
                DEADLINE,
                &mut || (),
            ) {
                Ok(ended) if ended.code == 0 => self.modules.push(module.clone()),
                Ok(ended) => self.warnings.push(format!(
                    "The module {module} was not loaded: {}.",
                    ended.said
                )),
                Err(why) => self
                    .warnings
                    .push(format!("The module {module} was not loaded: {why}.")),
            }
        }
        self
    }
}

/// The names by which devices that have none ask for drivers.
fn look(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if depth > DEPTH {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            look(&entry.path(), depth + 1, found);
        } else if entry.file_name() == "modalias"
            && found.len() < DEVICES
            && !folder.join("driver").exists()
        {
            let mut text = String::new();
            let read = fs::File::open(entry.path())
                .and_then(|file| file.take(512).read_to_string(&mut text));
            if read.is_ok() && !text.trim().is_empty() {
                found.insert(text.trim().to_owned());
            }
        }
    }
}
