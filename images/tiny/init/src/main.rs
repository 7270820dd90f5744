//! The init of images/tiny. It prints what it sees, one `tiny: ` line each, does what `tiny.` words
//! on the kernel command line ask for, and switches off. Tests read its lines; people can, too.
//!
//!     tiny.read=PATH      reads a file to its end
//!     tiny.read-all       reads every file of the root
//!     tiny.write=PATH     writes a small file and syncs it
//!     tiny.fill=DIR       fills the file system at DIR, then shows that the state volume still
//! takes writes     tiny.records        appends to a file on the state volume, with a sync and a
//! line for each record, until the power goes     tiny.list=DEV,OUT   mounts the EROFS on DEV and
//! writes its listing to the start of the block device OUT     tiny.speed=DEV,...  reads the files
//! of the EROFS on each DEV, in order and at random places     tiny.cost           measures what
//! usual work costs     tiny.seal           tries what the seal refuses
//!     tiny.exceptions     tries what each exception of [seal.allow] allows
//!     tiny.watchdog       lets the watchdog bite
//!     tiny.panic          makes the kernel panic
//!     tiny.status         prints what adamant-agent status says
//!     tiny.serve          does what is asked for on the second serial port, a line each, until
//! that says `end`     tiny.stay           does not switch off

mod cost;
mod exceptions;
mod look;
mod seal;
mod serve;
mod speed;
mod work;

use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

fn main() {
    if std::process::id() != 1 {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match arguments.first().map(String::as_str) {
            Some(cost::NOTHING) => return,
            Some(exceptions::TRY) => return exceptions::try_all(),
            Some(exceptions::WAIT) => return exceptions::wait(),
            Some(seal::READ) => std::process::exit(i32::from(seal::read_all().is_err())),
            Some(serve::CHILD) => serve::child(&arguments[1..].join(" ")),
            _ => {}
        }
        eprintln!("tiny-init is the init of images/tiny: it does nothing as an ordinary program");
        std::process::exit(2);
    }
    // PID 1 must not end, whatever happens: a failure is one more line.
    look::look();
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut stay = false;
    for word in cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("tiny."))
    {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "stay" => stay = true,
            _ => work::work(name, value),
        }
    }
    println!("tiny: done");
    // What was mounted last goes first: the volumes are left clean.
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let volumes = mounts
        .lines()
        .rev()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&"ext4"));
    for volume in volumes {
        let _ = mount(
            None::<&str>,
            volume[1],
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            None::<&str>,
        );
    }
    nix::unistd::sync();
    if !stay {
        let _ = reboot(RebootMode::RB_POWER_OFF);
        println!("tiny: switching off failed");
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
