//! Level `guard`: the BPF-LSM programs of agent/bpf/guard.bpf.c, put into the running kernel.
//!
//! Promise: either every hook that this kernel has is attached, tried, and beyond the reach of
//! everybody until the next reboot, or what is missing is said. The links are held by a BPF file
//! system that is mounted in the initramfs alone. Who unmounts the image in a mount namespace of
//! his own comes there: so the guard refuses to have them taken away, too.
//!
//! In two steps, because the kernel takes long to check and attach the programs, and nothing that
//! the boot does meanwhile is against them: [`begin`] attaches them as soon as a verified policy
//! asks for it, beside the stages that follow; they let everything pass until [`seal`] has written
//! the decisions.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use adamant_contract::guard_abi::{DENIALS, EVENTS, HOOKS};
use adamant_contract::policy::{Allow, Seal};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::identity::Identified;
use super::super::{Context, systemd};
use super::beside::{Beside, STACK};
use super::{decide, enforced, missing};
use crate::kernel::bpf::{self, Map};
use crate::kernel::btf::Btf;
use crate::kernel::clock::since_kernel_start;

/// A field of one of the kernel's structures.
pub struct Field {
    of: &'static str,
    path: &'static [&'static str],
}

/// A program or a function of one, and where what goes into its instructions.
pub struct Code {
    name: &'static str,
    instructions: &'static [u64],
    fields: &'static [(u16, u16)],
    maps: &'static [(u16, u16)],
    calls: &'static [(u16, u16)],
}

include!(concat!(env!("OUT_DIR"), "/guard.rs"));

const FOLDER: &str = "/guard";
/// The least room for events: 64 KiB hold some 500.
const RING: u32 = 64 << 10;
/// Hooks that a kernel may lack without being weaker for it: there, the other one is asked.
const OPTIONAL: [&str; 1] = ["file_ioctl_compat"];
/// How long the kernel may take: a hundred times what it takes under emulation.
const PATIENCE: Duration = Duration::from_secs(120);
/// The order of the maps in `Code::maps`, which are also the numbers of what loads them.
const MAP_FD: u64 = 1;
const MAP_VALUE: u64 = 2;

/// The programs in the kernel, or on their way there.
pub type Attaching = Beside<Attached>;

/// The programs in the kernel, which let everything pass.
pub struct Attached {
    maps: [OwnedFd; 3],
    hooks: usize,
}

/// Begins to attach the programs. `Err` is a clause.
pub fn begin() -> Result<Attaching, String> {
    Beside::begin("attaches the guard", PATIENCE, attach)
}

/// Seals, and says whether the guard is in force. With `on_request` it judges who loads modules.
pub fn seal(
    attaching: &Result<Attaching, String>,
    identified: &Identified,
    seal: &Seal,
    on_request: bool,
    context: &mut Context,
) -> bool {
    let attached = attaching
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|attaching| attaching.wait(context));
    match attached.and_then(|attached| {
        arm(&attached, identified, seal, on_request, context).map(|()| attached.hooks)
    }) {
        Ok(hooks) => {
            enforced(context, format!("guard on {hooks} hooks"));
            if !seal.interpreters.is_empty() {
                enforced(context, "scripts of the image alone");
            }
            if let Err(error) = systemd::leave_the_esp_alone(&seal.allow.mounts) {
                context.warn(format!(
                    "Units for the ESP may fail: /run/systemd/system: {error}."
                ));
            }
            true
        }
        Err(why) => {
            // What is attached goes, where there is something: nobody is to arm it later.
            let _ = umount2(FOLDER, MntFlags::MNT_DETACH);
            missing(context, why);
            false
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
    let mut places = Vec::new();
    for (index, field) in FIELDS.iter().enumerate() {
        // A structure that several fields are of is found under its first name in the list.
        let first = structs
            .iter()
            .position(|of| *of == field.of)
            .unwrap_or(index);
        places.push(
            btf.place(first, field.path).ok_or_else(|| {
                format!("the kernel has no {}.{}", field.of, field.path.join("."))
            })?,
        );
    }
    let maps = [
        bpf::map(Map::Constant(decide::BYTES as u32), "adamant_decide")
            .map_err(fail("a BPF map"))?,
        bpf::map(Map::Value(8 * HOOKS.len() as u32), DENIALS).map_err(fail("a BPF map"))?,
        bpf::map(Map::Ring(RING), EVENTS).map_err(fail("a BPF ring buffer"))?,
    ];
    // Held by nothing but this, in which the guard lets nobody delete anything once it is armed.
    let _ = fs::create_dir(FOLDER);
    mount(
        Some("bpf"),
        FOLDER,
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
    let links = each(&ready, |(hook, code)| {
        let instructions = link(code, &places, &maps);
        let refuse =
            |e: io::Error| format!("the guard's program {} can't be attached: {e}", code.name);
        let program = bpf::load(&instructions, *hook, &["adamant_", code.name].concat())
            .map_err(|e| format!("the guard's program {}: {e}", code.name))?;
        let link = bpf::attach(&program).map_err(refuse)?;
        let path = CString::new([FOLDER, "/", code.name].concat()).unwrap_or_default();
        bpf::pin(&link, &path).map_err(refuse)
    })?;
    Ok(Attached {
        maps,
        hooks: links.len(),
    })
}

/// Tells the programs what they refuse from now on, for good.
fn arm(
    attached: &Attached,
    identified: &Identified,
    seal: &Seal,
    on_request: bool,
    context: &mut Context,
) -> Result<(), String> {
    let decisions = decide::decide(identified, seal, on_request, FOLDER, &context.report)?;
    for why in decisions.absent {
        context.warn(format!(
            "An exception of [seal.allow] stands for nothing here: {why}."
        ));
    }
    let [told, counters, _] = &attached.maps;
    bpf::set(told, &decisions.bytes)
        .and_then(|()| bpf::freeze(told))
        .map_err(fail("the guard's decisions"))?;
    try_it(identified, &seal.allow)?;
    bpf::set(counters, &[0; 8 * HOOKS.len()]).map_err(fail("the guard's counters"))?;
    context.report.seal.since_us = since_kernel_start();
    Ok(())
}

fn fail(what: &str) -> impl Fn(io::Error) -> String {
    move |e| format!("{what}: {e}")
}

/// Does the same for all, all at once: attaching a hook is mostly waiting until every task of the
/// kernel has been scheduled (RCU tasks), which all can wait for together.
fn each<T: Sync, U: Send>(
    all: &[T],
    run: impl Fn(&T) -> Result<U, String> + Sync,
) -> Result<Vec<U>, String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, one)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            all.get(index).map(|one| (index, one))
        } {
            done.push((index, run(one)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        // What can't be started, the others do.
        let others: Vec<_> = (1..all.len())
            .filter_map(|_| {
                thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, work)
                    .ok()
            })
            .collect();
        let mut done = work();
        // A thread of these can't panic: it would have ended the boot.
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

/// A program with all functions that it needs behind it, its fields' places, its maps and its calls
/// filled in.
fn link(program: &Code, places: &[u32], maps: &[OwnedFd; 3]) -> Vec<u64> {
    use std::os::fd::AsRawFd;
    let mut out: Vec<u64> = Vec::new();
    // Where each function begins; those that are called by those that are called come behind.
    let mut starts: Vec<(u16, usize)> = Vec::new();
    let mut calls: Vec<(usize, u16)> = Vec::new();
    let mut parts = vec![program];
    let mut part = 0;
    while let Some(code) = parts.get(part).copied() {
        let start = out.len();
        out.extend(code.instructions);
        for (at, field) in code.fields {
            let (at, place) = (
                start + usize::from(*at),
                u64::from(places.get(usize::from(*field)).copied().unwrap_or(0)),
            );
            // Loads and stores (classes 1 to 3) have it as their offset, arithmetic as its number.
            out[at] = match out[at] & 7 {
                1..=3 => out[at] & !0xffff_0000 | place << 16 & 0xffff_0000,
                _ => out[at] & 0xffff_ffff | place << 32,
            };
        }
        for (at, map) in code.maps {
            let at = start + usize::from(*at);
            let kind = if *map == 2 { MAP_FD } else { MAP_VALUE };
            out[at] = out[at] & 0x0fff
                | kind << 12
                | (maps[usize::from(*map).min(2)].as_raw_fd() as u64) << 32;
        }
        for (at, function) in code.calls {
            calls.push((start + usize::from(*at), *function));
            if !starts.iter().any(|(known, _)| known == function)
                && let Some(code) = FUNCTIONS.get(usize::from(*function))
            {
                starts.push((*function, usize::MAX));
                parts.push(code);
            }
        }
        part += 1;
        // The next part begins here.
        if let Some(next) = starts.get_mut(part - 1) {
            next.1 = out.len();
        }
    }
    for (at, function) in calls {
        let start = starts
            .iter()
            .find(|(known, _)| *known == function)
            .map_or(0, |(_, start)| *start);
        let distance = (start as i64 - at as i64 - 1) as u32;
        out[at] = out[at] & 0xffff_ffff | u64::from(distance) << 32;
    }
    out
}

/// Tries two of the hooks: a program that is attached but answers nothing would be worse than none.
fn try_it(identified: &Identified, allow: &Allow) -> Result<(), String> {
    let data = &identified.root().verified().located().data.path;
    if OpenOptions::new()
        .write(true)
        .open(data)
        .err()
        .and_then(|e| e.raw_os_error())
        != Some(libc::EPERM)
    {
        return Err(format!(
            "the guard is attached, but lets {} be opened for writing",
            data.display()
        ));
    }
    if !allow.jit {
        // SAFETY: a new mapping, which nothing else knows of.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapped != libc::MAP_FAILED || Errno::last() != Errno::EPERM {
            return Err("the guard is attached, but lets memory be executed".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_has_a_counter_and_every_counter_a_hook() {
        let mut programs: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        let mut counters = HOOKS.to_vec();
        programs.sort_unstable();
        counters.sort_unstable();
        assert_eq!(programs, counters);
        // In the order of the source's own list.
        let source = include_str!("../../../bpf/guard.bpf.c");
        let list = source
            .split("enum hook {")
            .nth(1)
            .unwrap()
            .split("HOOKS")
            .next()
            .unwrap();
        let names: Vec<String> = list
            .split(',')
            .map(|name| name.trim().to_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        assert_eq!(names, HOOKS);
    }

    #[test]
    fn calls_lead_to_the_functions_behind_the_program() {
        let maps = [(); 3].map(|()| OwnedFd::from(fs::File::open("/dev/null").unwrap()));
        let places = vec![8; FIELDS.len()];
        for program in PROGRAMS {
            let linked = link(program, &places, &maps);
            assert!(linked.len() >= program.instructions.len() && linked.len() < 16_384);
            for (at, instruction) in linked.iter().enumerate() {
                // A call of a function (0x85, source 1).
                if instruction & 0xf0ff == 0x1085 {
                    let target = at as i64 + 1 + i64::from((instruction >> 32) as i32);
                    assert!(
                        target >= program.instructions.len() as i64 && target < linked.len() as i64,
                        "{}",
                        program.name
                    );
                }
            }
        }
    }
}
