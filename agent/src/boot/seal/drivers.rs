//! Loads the drivers of the present hardware, and the modules that the policy names: after the seal
//! no module can be loaded. Where modules are loaded on request, the image's systemd-udevd loads
//! the drivers, and only the policy's modules are loaded here.
//!
//! The image's own modprobe, in a chroot of the verified root, knows which module a device needs. A
//! driver can reveal new devices, such as a network card behind a bus, so modprobe is called again
//! until there are no new ones.
//!
//! In two steps, because the kernel needs long to check the modules' signatures: [`start_loading`]
//! loads them in the background, and [`finish`] loads drivers of devices that have appeared since.

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
use super::background::BackgroundTask;

/// Longest time for one call of modprobe.
const DEADLINE: Duration = Duration::from_secs(60);
/// Most calls of modprobe: one for each level of buses behind buses.
const PASSES: usize = 4;
/// Most devices and deepest directories that are searched.
const DEVICES: usize = 4096;
const DEPTH: usize = 24;
/// Modules that systemd and its usual units need in every image, whatever the hardware.
const SYSTEMD_MODULES: [&str; 5] = ["autofs4", "configfs", "efi_pstore", "fuse", "dm_mod"];

/// The drivers while they are being loaded.
pub type Loading = BackgroundTask<Loaded>;

/// Whether the agent loads drivers of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// It loads the drivers of all devices.
    LoadDrivers,
    /// systemd-udevd loads them later.
    LeaveToUdev,
}

/// Modules that were loaded so far.
pub struct Loaded {
    hardware: Hardware,
    /// The modaliases that modprobe was called for.
    known: BTreeSet<String>,
    /// Loaded modules that the policy names.
    modules: Vec<String>,
    /// Each is a sentence.
    warnings: Vec<String>,
}

/// Starts to load the drivers, and `modules`. `None` if the image has no modprobe. The error is a
/// phrase for a message.
pub fn start_loading(modules: &[String], hardware: Hardware) -> Result<Option<Loading>, String> {
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
    let (separate, is_separate) = mpsc::sync_channel(1);
    // Twice the longest time of all calls of modprobe.
    let timeout = 2 * DEADLINE * (PASSES + modules.len()) as u32;
    let modules = modules.to_vec();
    let work = move || {
        // modprobe must not inherit later mounts: a volume that it holds could not be unmounted for
        // its repair. If unshare fails, modprobe cannot start either.
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        let _ = separate.send(());
        let nothing = Loaded {
            hardware,
            known: BTreeSet::new(),
            modules: Vec::new(),
            warnings: Vec::new(),
        };
        Ok(nothing
            .load_drivers(&SYSTEMD_MODULES, &mut || ())?
            .load_named(&modules))
    };
    let loading = BackgroundTask::start("loads drivers", timeout, work)?;
    // Without the namespace, a repair of a volume might find it in use. An error means that the
    // thread has ended, which `wait` reports.
    let _ = is_separate.recv_timeout(Duration::from_secs(5));
    Ok(Some(loading))
}

/// Waits until the drivers are loaded, and loads those of devices that have appeared since. A
/// module that the policy names and that cannot be loaded is a warning; hardware without a driver
/// is none. The error is a phrase for a message.
pub fn finish(loading: &Loading, context: &mut Context) -> Result<(), String> {
    let loaded = loading
        .wait(context)?
        .load_drivers(&[], &mut || context.watchdog.alive())?;
    context.report.modules.extend(loaded.modules);
    for warning in loaded.warnings {
        context.warn(warning);
    }
    Ok(())
}

impl Loaded {
    /// Loads the drivers of devices that are not in `known`, and the modules `others`.
    fn load_drivers(mut self, others: &[&str], tick: &mut dyn FnMut()) -> Result<Loaded, String> {
        for pass in 0..PASSES {
            let mut found = BTreeSet::new();
            if self.hardware == Hardware::LoadDrivers {
                find_modaliases(Path::new("/sys/devices"), 0, &mut found);
            }
            let mut arguments: Vec<&str> = vec!["-a", "-b", "-q"];
            let options = arguments.len();
            arguments.extend(others.iter().filter(|_| pass == 0));
            arguments.extend(found.difference(&self.known).map(String::as_str));
            if arguments.len() == options {
                break;
            }
            // The exit code only says that some device has no module, which is usual.
            tool::run_tool(Path::new(SYSROOT), "modprobe", &arguments, DEADLINE, tick)?;
            self.known = found;
        }
        Ok(self)
    }

    /// Loads the modules that the policy names.
    fn load_named(mut self, modules: &[String]) -> Loaded {
        for module in modules {
            match tool::run_tool(
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

/// Finds the modaliases of devices without a driver.
fn find_modaliases(directory: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if depth > DEPTH {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            find_modaliases(&entry.path(), depth + 1, found);
        } else if entry.file_name() == "modalias"
            && found.len() < DEVICES
            && !directory.join("driver").exists()
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
