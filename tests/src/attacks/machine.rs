//! The machine under attack: firmware, the image on a SCSI disk, an attacker's file system on an
//! NVMe disk, and a copy of the image's disk that is plugged in on demand.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adamant::commands::boot::command::DiskBus;

use crate::machine::{Machine, Setup};
use crate::scratch::Scratch;
use crate::tool;

/// Line on the console that asks for the copy of the disk.
const PLUG: &str = "attacks plug";
/// Last line on the console after all attacks.
const DONE: &str = "attacks done";
/// Starts of the machine. An attack that switches it off is passed over after the next start.
const STARTS: usize = 4;
/// Interval of looks at the console.
const POLL: Duration = Duration::from_secs(1);

/// A machine's files.
struct Files {
    console: PathBuf,
    variables: PathBuf,
    disk: PathBuf,
    other: PathBuf,
    twin: PathBuf,
}

/// Starts the machine until all attacks were tried, or the deadline. `disk` and `other` are raw
/// disks, which stay unchanged. The console's file is in `directory`. Returns whether all attacks
/// were tried; `say` prints a message.
pub fn run_attacks(
    directory: &Path,
    disk: &Path,
    other: &Path,
    time: Duration,
    say: &mut dyn FnMut(&str),
) -> io::Result<bool> {
    let scratch = Scratch::new("attacks");
    let files = Files {
        console: directory.join("console"),
        variables: scratch.join("variables.fd"),
        disk: scratch.join("disk.qcow2"),
        other: scratch.join("other.qcow2"),
        twin: scratch.join("twin.qcow2"),
    };
    std::fs::write(&files.console, "")?;
    for (overlay, base) in [
        (&files.disk, disk),
        (&files.twin, disk),
        (&files.other, other),
    ] {
        let base = base.canonicalize()?;
        let mut create = tool::command("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
        tool::run(create.arg(base).arg(overlay));
    }
    let deadline = Instant::now() + time;
    for _ in 0..STARTS {
        let left = deadline.saturating_duration_since(Instant::now());
        let setup = Setup::with_variables(&files.variables)
            .overlay(&files.disk, Some(DiskBus::Scsi))
            .overlay(&files.other, Some(DiskBus::Nvme))
            .overlay(&files.twin, None)
            .network(&[])
            .memory("1G")
            .processors(2)
            .sata()
            .console(&files.console)
            .restarts()
            .deadline(left);
        attend(setup.start(&scratch), deadline, say);
        if is_done(&files.console)? || Instant::now() >= deadline {
            break;
        }
    }
    is_done(&files.console)
}

/// Waits until the machine switches itself off, or the deadline; plugs the copy of the disk in when
/// an attack asks for it.
fn attend(mut machine: Machine, deadline: Instant, say: &mut dyn FnMut(&str)) {
    let asked = |machine: &Machine| machine.console().matches(PLUG).count();
    let before = asked(&machine);
    let mut plugged = false;
    while machine.is_on() {
        if Instant::now() >= deadline {
            say("  the deadline passed");
            return;
        }
        if !plugged && asked(&machine) > before {
            machine.monitor("device_add scsi-hd,bus=scsi.0,drive=disk2,id=twin");
            plugged = true;
        }
        std::thread::sleep(POLL);
    }
}

fn is_done(console: &Path) -> io::Result<bool> {
    Ok(tool::lossy(&std::fs::read(console)?).contains(DONE))
}
