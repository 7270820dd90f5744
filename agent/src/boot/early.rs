//! The stage that mounts the kernel's file systems, starts log and watchdog, loads modules, and
//! reads how firmware started the machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;

use adamant_contract::cmdline::{self, CommandLine};
use adamant_contract::paths::COMMAND_LINES_PATH;
use adamant_contract::report;
use adamant_contract::report::StageName;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::SigSet;

use super::hotplug::HotplugListener;
use super::{Context, Failure, firmware};

const STAGE: StageName = StageName::Early;

/// The state after the stage: the kernel's file systems are mounted, its command line was read, its
/// events are received, and the present devices have their drivers.
pub struct Early {
    pub(super) cmdline: CommandLine,
    pub(super) hotplug: HotplugListener,
}

/// Mounts the kernel's file systems and loads the modules of the initramfs that this machine needs.
pub fn prepare(context: &mut Context) -> Result<Early, Failure> {
    // Signals are blocked, so that none can end the boot half-way. Only the kernel could have sent
    // one so far.
    let _ = SigSet::all().thread_block();
    mount_kernel_file_systems()?;
    fill_standard_descriptors();
    context.watchdog.arm();
    context.report.version = report::VERSION;
    context.report.agent = env!("CARGO_PKG_VERSION").to_owned();
    context.report.kernel = nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let cmdline = read_command_line()?;
    let hotplug = HotplugListener::open(context).map_err(|e| {
        Failure::new(
            STAGE,
            "listening to the kernel's device events",
            e,
            "use a kernel with CONFIG_NET",
        )
    })?;
    firmware::detect(context);
    if context.report.firmware.secure_boot == Some(true) {
        refuse_foreign_arguments()?;
    }
    Ok(Early { cmdline, hotplug })
}

/// The mounts that systemd's INITRD_INTERFACE requires.
fn mount_kernel_file_systems() -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (target, kind, flags, options) in [
        ("/proc", "proc", safe, None),
        ("/sys", "sysfs", safe, None),
        (
            "/dev",
            "devtmpfs",
            MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
            Some("mode=0755"),
        ),
        (
            "/run",
            "tmpfs",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_STRICTATIME,
            Some("mode=0755"),
        ),
    ] {
        let _ = fs::create_dir(target);
        match mount(Some(kind), target, Some(kind), flags, options) {
            // devtmpfs may be mounted already: the kernel can do so by itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => {
                return Err(Failure::new(
                    STAGE,
                    format!("mounting {target}"),
                    error.desc(),
                    format!("use a kernel with {kind}"),
                ));
            }
        }
    }
    Ok(())
}

/// Opens /dev/null on those of the descriptors 0 to 2 that are closed. A machine without a console
/// starts this process without them. The next opened file would get such a number, and output to
/// "standard error" would be written into that file.
fn fill_standard_descriptors() {
    while let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > 2 {
            break;
        }
        std::mem::forget(null);
    }
}

fn read_command_line() -> Result<CommandLine, Failure> {
    let failure = |why: String| {
        Failure::new(
            STAGE,
            "kernel command line",
            why,
            "correct it in the boot loader, or boot the image's own",
        )
    };
    CommandLine::parse(&read("/proc/cmdline").map_err(|e| failure(e.to_string()))?)
        .map_err(|e| failure(e.to_string()))
}

/// Refuses foreign kernel arguments if Secure Boot is on. Everything else that starts the kernel is
/// signed then, but a hypervisor can make systemd's stub add arguments.
fn refuse_foreign_arguments() -> Result<(), Failure> {
    let failure = |why: &dyn std::fmt::Display| {
        let remedy = "start the image with its own command line: without kernel-cmdline-extra in the hypervisor's SMBIOS strings, and without addons";
        Failure::new(STAGE, "kernel command line", why, remedy)
    };
    let allowed = read(COMMAND_LINES_PATH)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|e| failure(&e))?;
    match cmdline::is_one_of(&read("/proc/cmdline").map_err(|e| failure(&e))?, &allowed) {
        true => Ok(()),
        false => Err(failure(
            &"Secure Boot is on, and it has arguments that are not in the signed image",
        )),
    }
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(cmdline::LIMIT as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
