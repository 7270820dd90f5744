//! Level `guard`: loads the BPF-LSM programs of agent/bpf/guard.bpf.c into the running kernel.
//!
//! Promise: either every hook that this kernel has is attached, tested, and out of everybody's
//! reach until the next reboot, or the report says what is missing. A BPF file system that is
//! mounted only in the initramfs holds the links. A process that unmounts the image in a mount
//! namespace of its own gets to see that file system, so the guard also refuses to delete the
//! links.
//!
//! In two steps, because the kernel needs seconds to check and attach the programs:
//! [`start_attaching`] attaches them in the background as soon as a verified policy wants them, and
//! they allow everything. [`apply_guard_level`] writes their configuration, and from then on they
//! refuse.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use adamant_contract::policy::{Allow, Seal};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::identity::Identified;
use super::super::{Context, systemd};
use super::background::{BackgroundTask, STACK_BYTES};
use super::linker::{Code, FIELDS, PROGRAMS, link};
use super::{config, enforced, missing};
use crate::kernel::block;
use crate::kernel::bpf::{self, ProgramAccess, ValueMap};
use crate::kernel::btf::Btf;
use crate::kernel::clock::since_kernel_start;
use crate::kernel::guard_abi::{CONFIG, DENIALS, Denials, EVENTS, GuardConfig, HOOKS};
use crate::kernel::memory;

/// Mount point of the BPF file system with the links.
const PINS: &str = "/guard";
/// Whether files can have leases (fcntl(2), `F_SETLEASE`).
const LEASES: &str = "/proc/sys/fs/leases-enable";
/// Bytes of the ring of events: room for 500 of them.
const RING_BYTES: u32 = 64 << 10;
/// Hooks that a kernel may lack without being weaker: there, the kernel calls `file_ioctl` and
/// `inode_setxattr` instead.
const OPTIONAL: [&str; 2] = ["file_ioctl_compat", "inode_set_acl"];
/// Longest time to attach all programs: a hundred times what an emulated machine takes.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The programs while they are being attached.
pub type Attaching = BackgroundTask<Attached>;

/// The programs in the kernel, which allow everything.
pub struct Attached {
    config: ValueMap<GuardConfig>,
    denials: ValueMap<Denials>,
    hooks: usize,
}

/// Starts to attach the programs. The error is a phrase for a message.
pub fn start_attaching() -> Result<Attaching, String> {
    BackgroundTask::start("attaches the guard", TIMEOUT, attach)
}

/// Seals, and returns whether the guard is in force. With `modules_on_request` it decides which
/// processes load modules.
pub fn apply_guard_level(
    attaching: &Result<Attaching, String>,
    identified: &Identified,
    seal: &Seal,
    modules_on_request: bool,
    context: &mut Context,
) -> bool {
    // A lease of a file of the image keeps PID 1 waiting until its holder gives way. Later the
    // guard refuses to write this setting.
    if let Err(error) = fs::write(LEASES, "0") {
        missing(context, [LEASES, ": ", &error.to_string()].concat());
    }
    let attached = attaching
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|attaching| attaching.wait(context));
    match attached.and_then(|attached| {
        arm(&attached, identified, seal, modules_on_request, context).map(|()| attached.hooks)
    }) {
        Ok(hooks) => {
            enforced(context, format!("guard on {hooks} hooks"));
            if !seal.interpreters.is_empty() {
                enforced(context, "scripts of the image alone");
            }
            protect_other_partitions(identified, seal, context);
            let disabled = systemd::disable_manager_of_root()
                .and_then(|()| systemd::disable_esp_automounts(&seal.allow.mounts));
            if let Err(error) = disabled {
                context.warn(format!(
                    "Units that the guard refuses may fail: /run/systemd/system: {error}."
                ));
            }
            true
        }
        Err(why) => {
            // Detaches the programs that are attached, so that no process can configure them later.
            let _ = umount2(PINS, MntFlags::MNT_DETACH);
            missing(context, why);
            false
        }
    }
}

/// Makes the partitions read-only that hold no volume and that the policy does not allow to be
/// written, such as the ESP. The guard refuses programs that open them. A driver of the kernel that
/// root tells to open one (DRBD, md, nvmet) passes no hook, but the kernel refuses it a read-only
/// device.
fn protect_other_partitions(identified: &Identified, seal: &Seal, context: &mut Context) {
    let folder = Path::new("/sys/block").join(&identified.root().disk().name);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let device = Path::new("/dev").join(entry.file_name());
        let report = &context.report;
        let is = |path: &str| Path::new(path) == device;
        if !entry.path().join("partition").exists()
            || report.volumes.iter().any(|volume| is(&volume.device))
            || report.black_box.as_deref().is_some_and(is)
            || block::label(&entry.path()).is_some_and(|label| seal.allow.disks.contains(&label))
        {
            continue;
        }
        if let Err(error) = super::verity::make_read_only(&device) {
            missing(
                context,
                format!("{} can't be made read-only: {error}", device.display()),
            );
        }
    }
}

fn attach() -> Result<Attached, String> {
    let active = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !active.split(',').any(|name| name.trim() == "bpf") {
        return Err(format!(
            "BPF is not among the kernel's security modules ({}): add bpf to lsm=, with CONFIG_BPF_LSM",
            active.trim()
        ));
    }
    let structs: Vec<&str> = FIELDS.iter().map(|field| field.of).collect();
    let hooks: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
    let btf = Btf::read(&structs, &hooks)?;
    let mut offsets = Vec::new();
    for (index, field) in FIELDS.iter().enumerate() {
        // The types are found once for each structure, under its first index.
        let first = structs
            .iter()
            .position(|of| *of == field.of)
            .unwrap_or(index);
        offsets.push(
            btf.offset(first, field.path).ok_or_else(|| {
                format!("the kernel has no {}.{}", field.of, field.path.join("."))
            })?,
        );
    }
    let config = ValueMap::create(CONFIG, ProgramAccess::Read).map_err(fail("a BPF map"))?;
    let denials = ValueMap::create(DENIALS, ProgramAccess::ReadWrite).map_err(fail("a BPF map"))?;
    let events = bpf::create_ring(EVENTS, RING_BYTES).map_err(fail("a BPF ring buffer"))?;
    // Nothing else holds the links. Once configured, the guard refuses to delete anything in it.
    let _ = fs::create_dir(PINS);
    mount(
        Some("bpf"),
        PINS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .map_err(|e| format!("a BPF file system: {}", e.desc()))?;
    let mut ready: Vec<(u32, &Code)> = Vec::new();
    for (index, program) in PROGRAMS.iter().enumerate() {
        match btf.function(index) {
            Some(hook) => ready.push((hook, program)),
            None if OPTIONAL.contains(&program.name) => {}
            None => return Err(format!("the kernel has no hook {}", program.name)),
        }
    }
    let maps = [config.as_fd(), denials.as_fd(), events.as_fd()];
    let links = for_all_at_once(&ready, |(hook, code)| {
        let cannot_attach =
            |e: io::Error| format!("the guard's program {} can't be attached: {e}", code.name);
        let program = load(code, &link(code, &offsets, maps), *hook)?;
        let link = bpf::attach(program.as_fd()).map_err(cannot_attach)?;
        let path = CString::new([PINS, "/", code.name].concat()).unwrap_or_default();
        bpf::pin(link.as_fd(), &path).map_err(cannot_attach)
    })?;
    Ok(Attached {
        config,
        denials,
        hooks: links.len(),
    })
}

fn load(
    code: &Code,
    instructions: &[crate::kernel::instruction::Instruction],
    hook: u32,
) -> Result<OwnedFd, String> {
    bpf::load_lsm_program(instructions, hook, &["adamant_", code.name].concat())
        .map_err(|e| format!("the guard's program {}: {e}", code.name))
}

/// Writes the configuration: from now on the programs refuse, until the next reboot.
fn arm(
    attached: &Attached,
    identified: &Identified,
    seal: &Seal,
    modules_on_request: bool,
    context: &mut Context,
) -> Result<(), String> {
    let report = &context.report;
    let configuration = config::configuration(identified, seal, modules_on_request, PINS, report)?;
    for why in configuration.without_object {
        context.warn(format!(
            "An exception of [seal.allow] has no effect on this machine: {why}."
        ));
    }
    attached
        .config
        .set(&configuration.values)
        .and_then(|()| attached.config.freeze())
        .map_err(fail("the guard's configuration"))?;
    test_hooks(identified, &seal.allow)?;
    attached
        .denials
        .set(&[0; HOOKS.len()])
        .map_err(fail("the guard's counters"))?;
    context.report.seal.since_us = since_kernel_start();
    Ok(())
}

fn fail(what: &str) -> impl Fn(io::Error) -> String {
    move |e| format!("{what}: {e}")
}

/// Runs `work` for all items at the same time, each in a thread where the kernel gives one.
/// Attaching a program is mostly a wait until every task of the kernel has been scheduled (RCU
/// tasks), and all programs can wait together.
fn for_all_at_once<T: Sync, U: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<U, String> + Sync,
) -> Result<Vec<U>, String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            done.push((index, work(item)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        // The started threads do the work of those that cannot be started.
        let others: Vec<_> = (1..items.len())
            .filter_map(|_| {
                thread::Builder::new()
                    .stack_size(STACK_BYTES)
                    .spawn_scoped(scope, worker)
                    .ok()
            })
            .collect();
        let mut done = worker();
        // A panic would have ended the boot: joining cannot fail.
        done.extend(
            others
                .into_iter()
                .flat_map(|other| other.join().unwrap_or_default()),
        );
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Tests two of the hooks: a program that is attached but never refuses would be worse than none.
fn test_hooks(identified: &Identified, allow: &Allow) -> Result<(), String> {
    let data = &identified.root().verified().located().data.path;
    if OpenOptions::new()
        .write(true)
        .open(data)
        .err()
        .and_then(|e| e.raw_os_error())
        != Some(libc::EPERM)
    {
        return Err(format!(
            "the guard is attached, but does not refuse to open {} for writing",
            data.display()
        ));
    }
    if !allow.jit && memory::try_executable_memory() != Err(Errno::EPERM) {
        return Err("the guard is attached, but does not refuse executable memory".to_owned());
    }
    Ok(())
}
