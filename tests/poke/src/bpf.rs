//! BPF programs, maps and links, and performance events.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result, say, text};
use crate::kernel::{self, Plain, call, plain};

/// Commands of bpf(2).
#[derive(Clone, Copy)]
#[repr(u32)]
enum BpfCommand {
    MapCreate = 0,
    ProgLoad = 5,
    ObjGet = 7,
    ProgGetNextId = 11,
    MapGetNextId = 12,
    ProgGetFdById = 13,
    MapGetFdById = 14,
    ObjGetInfoByFd = 15,
    LinkGetFdById = 30,
    LinkGetNextId = 31,
    LinkDetach = 34,
}

/// Types of programs.
#[derive(Clone, Copy)]
#[repr(u32)]
enum ProgramType {
    SocketFilter = 1,
    Kprobe = 2,
    Xdp = 6,
    RawTracepoint = 17,
    CgroupSysctl = 23,
}

plain! {
    /// `union bpf_attr` of the commands that take or give an id.
    struct IdAttributes {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }

    /// `union bpf_attr` of BPF_OBJ_GET_INFO_BY_FD.
    struct InfoAttributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }

    /// `union bpf_attr` of BPF_LINK_DETACH.
    struct DetachAttributes {
        link_fd: u32,
    }

    /// `union bpf_attr` of BPF_PROG_LOAD.
    struct LoadAttributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }

    /// `union bpf_attr` of BPF_MAP_CREATE.
    struct MapAttributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }

    /// `union bpf_attr` of BPF_OBJ_GET.
    struct PathAttributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }

    /// The kernel's `struct bpf_insn`.
    struct BpfInsn {
        code: u8,
        registers: u8,
        off: i16,
        imm: i32,
    }
}

/// Calls bpf(2) with the command's attributes, whose addresses are of buffers that live until the
/// end of the call.
fn bpf<T: Plain>(command: BpfCommand, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the callers below pass the command's own attributes.
    kernel::checked(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    })
}

/// Objects that have ids.
#[derive(Clone, Copy)]
enum Kind {
    Links,
    Programs,
    Maps,
}

impl Kind {
    fn commands(self) -> (BpfCommand, BpfCommand) {
        match self {
            Kind::Links => (BpfCommand::LinkGetNextId, BpfCommand::LinkGetFdById),
            Kind::Programs => (BpfCommand::ProgGetNextId, BpfCommand::ProgGetFdById),
            Kind::Maps => (BpfCommand::MapGetNextId, BpfCommand::MapGetFdById),
        }
    }
}

/// `bpf links|programs|maps`: looks for the guard's objects. `bpf
/// kill|kprobe|tracepoint|socket|xdp|cgroup`: loads a program. `bpf map`: creates a map. `bpf
/// pinned PATH`: opens an object by its path.
pub fn ask(arguments: &Arguments) -> Result {
    const BPF_SEND_SIGNAL: i32 = 109;
    match arguments.text(0) {
        "links" => find_guard(Kind::Links),
        "programs" => find_guard(Kind::Programs),
        "maps" => find_guard(Kind::Maps),
        // A program that kills every task that meets its probe.
        "kill" => load(ProgramType::Kprobe, Some(BPF_SEND_SIGNAL)),
        "kprobe" => load(ProgramType::Kprobe, None),
        "tracepoint" => load(ProgramType::RawTracepoint, Some(BPF_SEND_SIGNAL)),
        "socket" => load(ProgramType::SocketFilter, None),
        "xdp" => load(ProgramType::Xdp, None),
        // The type that systemd loads.
        "cgroup" => load(ProgramType::CgroupSysctl, None),
        "map" => create_map(),
        "pinned" => open_pinned(&arguments.c_string(1)?),
        _ => Err(Failure::Usage),
    }
}

/// Highest id that is tried.
const HIGHEST_ID: u32 = 500;
/// Length of the descriptions of programs, maps and links.
const INFO: usize = 256;
/// Position of the name in `struct bpf_prog_info` and in `struct bpf_map_info`.
const PROGRAM_NAME: usize = 64;
const MAP_NAME: usize = 24;
const BPF_LINK_TYPE_TRACING: u8 = 2;

/// Opens objects by their ids, and prints those of the guard.
fn find_guard(kind: Kind) -> Result {
    let (next, get) = kind.commands();
    let (mut id, mut found, mut listed) = (0, 0, true);
    for _ in 0..HIGHEST_ID {
        let mut attributes = IdAttributes {
            id,
            ..IdAttributes::ZERO
        };
        if listed {
            match bpf(next, &mut attributes) {
                Ok(_) => id = attributes.next_id,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                // Without the list, ids are easy to guess.
                Err(error) => {
                    say(&format!("the list of ids: {}", text(&error)));
                    listed = false;
                    id += 1;
                }
            }
        } else {
            id += 1;
        }
        let mut attributes = IdAttributes {
            id,
            ..IdAttributes::ZERO
        };
        if let Ok(object) = kernel::owned(bpf(get, &mut attributes)) {
            found += u32::from(describe(kind, id, &object));
        }
    }
    if found == 0 {
        return Err(Failure::NoEffect("no such object can be opened".to_owned()));
    }
    Ok(())
}

/// Prints an object of the guard, and detaches it if it is a link. Returns whether it is of the
/// guard.
fn describe(kind: Kind, id: u32, object: &OwnedFd) -> bool {
    let mut info = [0; INFO];
    let mut attributes = InfoAttributes {
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        info_len: INFO as u32,
        info: kernel::address_mut(&mut info),
    };
    let described = bpf(BpfCommand::ObjGetInfoByFd, &mut attributes).is_ok();
    let name = |at: usize| {
        CStr::from_bytes_until_nul(&info[at..])
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let of_guard = |name: &String| described && name.starts_with("adamant_");
    let name = match kind {
        // Links have no names; the guard's are of type tracing, as those of all LSM programs.
        Kind::Links => (info[0] == BPF_LINK_TYPE_TRACING).then(|| "a link".to_owned()),
        Kind::Programs => Some(name(PROGRAM_NAME)).filter(of_guard),
        Kind::Maps => Some(name(MAP_NAME)).filter(of_guard),
    };
    let Some(name) = name else {
        return false;
    };
    let mut out = io::stdout();
    let _ = writeln!(out, "got {name} (id {id})");
    if matches!(kind, Kind::Links) {
        let mut attributes = DetachAttributes {
            link_fd: object.as_raw_fd().cast_unsigned(),
        };
        if bpf(BpfCommand::LinkDetach, &mut attributes).is_ok() {
            let _ = writeln!(out, "and detached it");
        }
    }
    true
}

/// Loads a program that calls a helper, or does nothing, and returns 0.
fn load(kind: ProgramType, helper: Option<i32>) -> Result {
    const MOVE: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    let instruction = |code, registers, imm| BpfInsn {
        code,
        registers,
        off: 0,
        imm,
    };
    let mut program = Vec::new();
    if let Some(helper) = helper {
        program.push(instruction(MOVE, 1, libc::SIGKILL));
        program.push(instruction(CALL, 0, helper));
    }
    program.extend([instruction(MOVE, 0, 0), instruction(EXIT, 0, 0)]);
    let mut attributes = LoadAttributes {
        prog_type: kind as u32,
        insn_cnt: program.len() as u32,
        insns: kernel::address(&program[..]),
        license: kernel::address(c"GPL".to_bytes_with_nul()),
        ..LoadAttributes::ZERO
    };
    bpf(BpfCommand::ProgLoad, &mut attributes)
        .named("BPF_PROG_LOAD")
        .map(drop)
}

fn create_map() -> Result {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let mut attributes = MapAttributes {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
    };
    bpf(BpfCommand::MapCreate, &mut attributes)
        .named("BPF_MAP_CREATE")
        .map(drop)
}

fn open_pinned(path: &CStr) -> Result {
    let mut attributes = PathAttributes {
        pathname: kernel::address(path.to_bytes_with_nul()),
        ..PathAttributes::ZERO
    };
    bpf(BpfCommand::ObjGet, &mut attributes)
        .named("BPF_OBJ_GET")
        .map(drop)
}

plain! {
    /// The kernel's `struct perf_event_attr` in its first version.
    struct PerfEventAttr {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        bp_type: u32,
        config1: u64,
    }
}

/// `perf`: an event of the whole system, with addresses of the kernel.
pub fn open_perf_event(_: &Arguments) -> Result {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
    const PERF_SAMPLE_IP: u64 = 1;
    const ALL_PROCESSES: i32 = -1;
    const FIRST_PROCESSOR: i32 = 0;
    const NO_GROUP: i32 = -1;
    let attributes = PerfEventAttr {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfEventAttr>() as u32,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample_period: 100_000,
        sample_type: PERF_SAMPLE_IP,
        ..PerfEventAttr::ZERO
    };
    call!(
        PerfEventOpen,
        attributes.bytes(),
        ALL_PROCESSES,
        FIRST_PROCESSOR,
        NO_GROUP,
        0
    )
    .named("perf_event_open")
    .map(drop)
}
