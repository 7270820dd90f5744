//! BPF programs for LSM hooks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::libc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{BPF_OBJ_NAME_LEN, bpf, bpf_fd, object_name, raw};
use crate::kernel::instruction::Instruction;

// enum bpf_cmd
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
// enum bpf_prog_type, enum bpf_attach_type
const BPF_PROG_TYPE_LSM: u32 = 29;
const BPF_LSM_MAC: u32 = 27;
/// The verifier writes a line for each instruction that it follows, and a log that is too small is
/// an error of its own.
const LOG_BYTES: usize = 16 << 20;

// `union bpf_attr`: one structure for each command. The kernel takes missing bytes at the end as 0.

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; BPF_OBJ_NAME_LEN],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Loads a program for an LSM hook, given as the number of its function among the kernel's types.
/// An error contains the last lines of the verifier's log.
pub fn load_lsm_program(
    instructions: &[Instruction],
    hook: u32,
    name: &str,
) -> Result<OwnedFd, String> {
    // SPDX-License-Identifier of agent/bpf/guard.bpf.c, as the kernel spells it.
    let license = c"Dual MIT/GPL";
    let mut attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_LSM,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_name: object_name(name),
        expected_attach_type: BPF_LSM_MAC,
        attach_btf_id: hook,
        ..ProgLoad::new_zeroed()
    };
    // SAFETY: instructions and license outlive the call, the number of instructions is given, and
    // the license ends with a NUL. BPF_PROG_LOAD returns a new descriptor.
    let error = match unsafe { bpf_fd(BPF_PROG_LOAD, &mut attributes) } {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // A second attempt to get the reason: a log slows the verifier down.
    let mut log = vec![0u8; LOG_BYTES];
    attributes.log_level = 1;
    attributes.log_size = log.len() as u32;
    attributes.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: as above; and the kernel writes at most `log_size` bytes to the log, which outlives
    // the call.
    match unsafe { bpf_fd(BPF_PROG_LOAD, &mut attributes) } {
        Ok(program) => Ok(program),
        Err(_) => Err(format!("{error}: {}", last_lines(&log))),
    }
}

/// Attaches a program to its hook. It stays attached as long as something holds the link.
pub fn attach(program: BorrowedFd) -> io::Result<OwnedFd> {
    let mut attributes = RawTracepointOpen {
        prog_fd: raw(program),
        ..RawTracepointOpen::new_zeroed()
    };
    // SAFETY: the pointer to a name is null, which LSM programs need, and BPF_RAW_TRACEPOINT_OPEN
    // returns a new descriptor.
    unsafe { bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &mut attributes) }
}

/// Pins a link at a path in a BPF file system, which holds it from then on.
pub fn pin(link: BorrowedFd, path: &CStr) -> io::Result<()> {
    let mut attributes = ObjPin {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(link),
        ..ObjPin::new_zeroed()
    };
    // SAFETY: the path ends with a NUL and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes).map(drop) }
}

/// The last lines of the verifier's log without its statistics. Text behind the first NUL is about
/// paths that the verifier has abandoned.
fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("processed "))
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn attributes_have_the_offsets_of_the_kernels_header() {
        // As gcc's offsetof() gives them for <linux/bpf.h> of Linux 6.12.
        assert_eq!(offset_of!(ProgLoad, log_buf), 32);
        assert_eq!(offset_of!(ProgLoad, prog_name), 48);
        assert_eq!(offset_of!(ProgLoad, expected_attach_type), 68);
        assert_eq!(offset_of!(ProgLoad, attach_btf_id), 108);
        assert_eq!(offset_of!(RawTracepointOpen, prog_fd), 8);
    }
}
