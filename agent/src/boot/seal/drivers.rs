//! The drivers of the hardware that is there, and the modules that the policy names: later none can be loaded.
//!
//! The image's own modprobe knows which module a device wants; it runs in a chroot of the verified root. A driver brings new devices to light,
//! such as a network card behind a bus, so it is asked again until there are no new ones.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use adamant_agent::contract::SYSROOT;
use nix::fcntl::OFlag;

use super::super::volumes::tool;
use super::super::{Context, root};

const DEADLINE: Duration = Duration::from_secs(60);
/// Buses behind buses, at most.
const PASSES: usize = 4;
/// More devices than this are not looked at, nor folders deeper than that.
const DEVICES: usize = 4096;
const DEPTH: usize = 24;
/// What systemd and its usual units ask the kernel for in every image, whatever the hardware.
const USUAL: [&str; 5] = ["autofs4", "configfs", "efi_pstore", "fuse", "dm_mod"];

/// Loads them. What can't be loaded is a warning where the policy names it; other hardware may be without a driver.
pub fn load(modules: &[String], context: &mut Context) {
    if root::open_inside("/usr/sbin/modprobe", OFlag::O_PATH).is_err() {
        if !modules.is_empty() {
            context.warn("The policy names modules, but the image has no modprobe to load them with: add kmod.".to_owned());
        }
        return;
    }
    let mut known = BTreeSet::new();
    for pass in 0..PASSES {
        let mut found = BTreeSet::new();
        look(Path::new("/sys/devices"), 0, &mut found);
        let mut words: Vec<&str> = vec!["-a", "-b", "-q"];
        if pass == 0 {
            words.extend(USUAL);
        }
        let before = words.len();
        words.extend(found.difference(&known).map(String::as_str));
        if words.len() == before && pass > 0 {
            break;
        }
        // Its exit code says only that one of them has no module, which is so for most.
        if let Err(why) = tool::run(Path::new(SYSROOT), "modprobe", &words, DEADLINE, &mut || context.watchdog.alive()) {
            return context.warn(format!("No drivers were loaded: {why}."));
        }
        known = found;
    }
    for module in modules {
        match tool::run(Path::new(SYSROOT), "modprobe", &["-b", module], DEADLINE, &mut || context.watchdog.alive()) {
            Ok(ended) if ended.code == 0 => context.report.modules.push(module.clone()),
            Ok(ended) => context.warn(format!("The module {module} was not loaded: {}.", ended.said)),
            Err(why) => context.warn(format!("The module {module} was not loaded: {why}.")),
        }
    }
}

/// The names by which devices that have none ask for drivers.
fn look(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if depth > DEPTH {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            look(&entry.path(), depth + 1, found);
        } else if entry.file_name() == "modalias" && found.len() < DEVICES && !folder.join("driver").exists() {
            let mut text = String::new();
            let read = fs::File::open(entry.path()).and_then(|file| file.take(512).read_to_string(&mut text));
            if read.is_ok() && !text.trim().is_empty() {
                found.insert(text.trim().to_owned());
            }
        }
    }
}
