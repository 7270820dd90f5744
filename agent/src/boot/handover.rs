//! The stage that starts the image's own init in this process.
//!
//! Promise: init finds what systemd's INITRD_INTERFACE describes, and nothing of the initramfs: no
//! file, no memory, no descriptor, no signal disposition, no mount.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use adamant_contract::paths::{BOOT_REPORT_PATH, INITS, SYSROOT};
use adamant_contract::policy::Level;
use adamant_contract::report;
use adamant_contract::report::StageName;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::{chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout, execve};

use super::seal::Sealed;
use super::{
    Context, Failure, credentials, firmware, history, identity, locate, root, systemd, verify,
};
use crate::kernel::clock::since_kernel_start;
use crate::kernel::process;

const STAGE: StageName = StageName::Handover;
/// The mount points that move into the image.
const MOVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
/// The file systems that an initramfs can be on. Nothing else is ever emptied. <linux/magic.h>
const INITRAMFS: [FsType; 2] = [FsType(0x8584_58f6), FsType(0x0102_1994)];

/// Enters the root and becomes its init. Returns only on failure.
pub fn start_init(sealed: Sealed, context: &mut Context) -> Result<Infallible, Failure> {
    let start = since_kernel_start();
    let mounted = sealed.root();
    let located = mounted.verified().located();
    locate::refuse_second_disk(located, context)?;
    let init = find_init(located.cmdline.init.as_deref())?;
    for name in MOVED {
        if !root::open_inside(name, OFlag::O_DIRECTORY | OFlag::O_PATH)
            .is_ok_and(|f| f.metadata().is_ok_and(|m| m.is_dir()))
        {
            return Err(Failure::new(
                STAGE,
                name,
                "the image has no such directory",
                "add it to the image: the kernel's file systems are moved there",
            ));
        }
    }
    firmware::phase(context, "leave-initrd");
    mounted
        .verified()
        .arm(mounted.policy().verify.on_corruption, context)?;
    context.watchdog.alive();
    context.report.watchdog = context.watchdog.path().map(str::to_owned);
    if mounted.policy().seal.level >= Level::Lockdown {
        context.watchdog.keep_armed();
    }
    context.report.stages.push(report::StageReport {
        name: STAGE,
        start_us: start,
        took_us: since_kernel_start().saturating_sub(start),
    });
    write_run_files(context)
        .map_err(|e| Failure::new(STAGE, "writing to /run", e, "give the machine more memory"))?;
    let first = context
        .report
        .stages
        .first()
        .map_or(start, |stage| stage.start_us);
    let image = &mounted.policy().image;
    log::info!(
        "verified: {} {}, root hash {}, {} volumes, {} ms",
        image.id,
        image.version,
        verify::short(&located.root_hash),
        context.report.volumes.len(),
        since_kernel_start().saturating_sub(first) / 1000
    );
    switch_root().map_err(|(what, e)| Failure::new(STAGE, what, e, "report this"))?;
    history::record_running();
    context.watchdog.hand_over();
    let error = enter(&init);
    Err(Failure::new(
        STAGE,
        format!("starting {init}"),
        error,
        "check that the image's init is a program for this machine, or name another with init=",
    ))
}

/// Finds the image's init: the requested one, or the first of the usual paths. Symbolic links are
/// resolved as they will be after the root is switched.
fn find_init(asked: Option<&str>) -> Result<String, Failure> {
    let is_program = |path: &str| {
        root::open_inside(path, OFlag::O_PATH)
            .and_then(|f| f.metadata())
            .is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
    };
    match asked {
        Some(path) if is_program(path) => Ok(path.to_owned()),
        Some(path) => Err(Failure::new(
            STAGE,
            format!("init={path}"),
            "no such program in the image",
            "correct the kernel command line",
        )),
        None => INITS
            .iter()
            .find(|path| is_program(path))
            .map(|path| (*path).to_owned())
            .ok_or_else(|| {
                Failure::new(
                    STAGE,
                    "the image's init",
                    format!("none of {} is a program", INITS.join(", ")),
                    "add one to the image, or name it with init=",
                )
            }),
    }
}

/// Writes the report, and systemd's files in /run.
fn write_run_files(context: &Context) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(&context.report).map_err(io::Error::other)?;
    json.push(b'\n');
    if let Some(folder) = Path::new(BOOT_REPORT_PATH).parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(BOOT_REPORT_PATH, json)?;
    if context.report.watchdog.is_some() {
        systemd::enable_watchdog()?;
    }
    systemd::describe_machine_id(identity::RUN)?;
    systemd::describe_image_data(&context.report.image_data)?;
    systemd::describe_volumes(&context.report.volumes)
}

/// Makes the image the root, and frees the initramfs.
fn switch_root() -> Result<(), (&'static str, io::Error)> {
    for name in MOVED {
        let target = format!("{SYSROOT}{name}");
        mount(
            Some(name),
            target.as_str(),
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )
        .map_err(|e| (name, e.into()))?;
    }
    let is_initramfs = statfs("/").is_ok_and(|fs| INITRAMFS.contains(&fs.filesystem_type()));
    chdir(SYSROOT).map_err(|e| (SYSROOT, e.into()))?;
    if is_initramfs && let Ok(top) = fs::symlink_metadata("/") {
        empty(Path::new("/"), top.dev());
    }
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|e| ("moving the root", e.into()))?;
    chroot(".").map_err(|e| ("changing the root", e.into()))?;
    chdir("/").map_err(|e| ("changing the root", e.into()))
}

/// Deletes the entries of a directory without entering other file systems. An entry that cannot be
/// deleted only occupies memory.
fn empty(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.dev() != device => {}
            Ok(found) if found.is_dir() => {
                empty(&path, device);
                let _ = fs::remove_dir(&path);
            }
            _ => {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// The environment for init: the kernel's, and the directories of credentials. systemd does not
/// collect credentials itself if these variables are set. Both are removed from the kernel's
/// variables first, because a kernel argument could set another directory.
fn environment() -> Vec<CString> {
    let ours = [
        ("CREDENTIALS_DIRECTORY", credentials::PLAIN),
        ("ENCRYPTED_CREDENTIALS_DIRECTORY", credentials::ENCRYPTED),
    ];
    let theirs = env::vars_os().filter(|(name, _)| ours.iter().all(|(our, _)| name != our));
    let theirs = theirs.filter_map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    theirs
        .chain(
            ours.iter()
                .filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()),
        )
        .collect()
}

/// Executes init with the kernel's arguments and environment. Returns the error if that fails.
fn enter(init: &str) -> io::Error {
    let Ok(program) = CString::new(init) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let mut arguments = vec![program.clone()];
    arguments.extend(
        env::args_os()
            .skip(1)
            .filter_map(|word| CString::new(word.into_vec()).ok()),
    );
    // A machine without a console has no /dev/console that opens.
    let console = ["/dev/console", "/dev/null"].iter().find_map(|path| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
            .ok()
    });
    if let Some(console) = console {
        let _ = dup2_stdin(&console);
        let _ = dup2_stdout(&console);
        let _ = dup2_stderr(&console);
    }
    process::close_other_descriptors_on_exec();
    process::reset_signals();
    let Err(error) = execve(&program, &arguments, &environment());
    error.into()
}
