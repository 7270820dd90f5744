//! The kernel modules of the initramfs: those in its list, in the list's order, and no others.

use std::fs::{self, File};
use std::io::{self, Read};

use adamant_agent::contract::MODULE_LIST_PATH;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::Context;

/// Longest list read, bytes.
const LIST_LIMIT: u64 = 64 * 1024;

/// Loads them. A module that can't be loaded is a warning: whether the boot needs it shows later, where it can be said what is missing.
pub fn load(context: &mut Context) {
    let list = match read_list() {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return context.warn(format!("{MODULE_LIST_PATH}: no module was loaded: {error}.")),
    };
    let mut absent: Vec<String> = Vec::new();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let Some(path) = words.next() else { continue };
        // The kernel would only complain about each symbol that is missing.
        if words.any(|needed| absent.iter().any(|absent| absent == needed)) {
            absent.push(name(path));
            continue;
        }
        match load_one(path) {
            Ok(()) => context.report.modules.push(name(path)),
            // Built in, or loaded already.
            Err(Errno::EEXIST) => {}
            // For hardware that is not there, such as a processor's SHA instructions or another hypervisor's bus.
            Err(Errno::ENODEV) => absent.push(name(path)),
            Err(error) => {
                context.warn(format!("{path}: the module was not loaded: {}.", error.desc()));
                absent.push(name(path));
            }
        }
    }
}

fn read_list() -> io::Result<String> {
    let mut list = String::new();
    if File::open(MODULE_LIST_PATH)?.take(LIST_LIMIT + 1).read_to_string(&mut list)? as u64 > LIST_LIMIT {
        return Err(io::Error::other(format!("the list is longer than {LIST_LIMIT} bytes")));
    }
    Ok(list)
}

fn load_one(path: &str) -> Result<(), Errno> {
    let file = File::open(path).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    finit_module(&file, c"", ModuleInitFlags::empty())?;
    // Its pages are now in the kernel twice: as a module, and as a file of the initramfs.
    let _ = fs::remove_file(path);
    Ok(())
}

/// The kernel's name of a module: its file's, with `_` for `-`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}
