//! `poke`, the attackers' program of `tests/attacks`: system calls that a shell can't make, one
//! subcommand for each kind. It has no privileges of its own.
//!
//! The images under attack contain it, so that it may run there. It stands for the perl, Python or
//! C interpreter that a real attacker finds on a server. The guard must refuse a copy of it on a
//! volume. The binary is static, because the images have older libraries than the host.
//!
//! Exit code 0: the kernel did what the subcommand asks for. 1: it refused; standard error has the
//! reason. 77: this kernel or machine has no such feature. 2: wrong arguments.

mod arguments;
mod bpf;
mod clock;
mod devices;
mod disks;
mod failure;
mod files;
mod kernel;
mod mapper;
mod memory;
mod modules;
mod mounts;
mod processes;
mod programs;
mod ring;
mod writable;

use std::process::ExitCode;

use arguments::Arguments;
use failure::{Failure, Result};

/// A subcommand.
struct Command {
    name: &'static str,
    /// Least number of arguments.
    arguments: usize,
    call: fn(&Arguments) -> Result,
}

const fn command(name: &'static str, arguments: usize, call: fn(&Arguments) -> Result) -> Command {
    Command {
        name,
        arguments,
        call,
    }
}

const COMMANDS: &[Command] = &[
    command("hello", 0, programs::hello),
    command("memfd", 1, programs::execute_memfd),
    command("tmpfile", 2, programs::execute_unnamed_file),
    command("into", 2, programs::execute_in_cgroup),
    command("write", 2, files::write),
    command("handle", 2, files::open_by_handle),
    command("exchange", 2, files::exchange),
    command("ioctl", 2, devices::ioctl),
    command("blkpg", 3, devices::change_partition),
    command("loop", 2, devices::configure_loop),
    command("swapon", 1, devices::swap_on),
    command("scsi", 2, disks::scsi),
    command("bsg", 2, disks::scsi_v4),
    command("nvme", 2, disks::nvme),
    command("uring", 2, ring::write),
    command("uring-nvme", 2, ring::nvme),
    command("uring-path", 2, ring::change_path),
    command("memory", 1, memory::execute),
    command("userfaultfd", 0, memory::handle_faults),
    command("fsmount", 2, mounts::mount_new),
    command("clone", 2, mounts::bind),
    command("move", 2, mounts::move_mount),
    command("beneath", 2, mounts::bind_beneath),
    command("setattr", 3, mounts::set_attributes),
    command("reconfigure", 2, mounts::reconfigure),
    command("umount", 2, mounts::unmount),
    command("pivot", 2, mounts::pivot),
    command("dm", 2, mapper::change_device),
    command("module", 1, modules::load_file),
    command("module-bytes", 1, modules::load_bytes),
    command("uevent", 3, modules::send_uevent),
    command("kexec-file", 1, modules::kexec_file),
    command("kexec", 0, modules::kexec_segment),
    command("bpf", 1, bpf::ask),
    command("perf", 0, bpf::open_perf_event),
    command("clock", 2, clock::set_back),
    command("trace", 1, processes::trace),
    command("vm-write", 1, processes::write_by_vm_writev),
    command("mem-write", 1, processes::write_by_proc),
    command("steal", 2, processes::take_descriptor),
    command("signal", 2, processes::send_signal),
    command("sigio", 2, processes::signal_by_descriptor),
    command("limit", 2, processes::limit_processor_time),
    command("writable", 0, writable::list),
];

fn main() -> ExitCode {
    kernel::restore_broken_pipe_signal();
    let mut words = std::env::args_os().skip(1);
    // PID 1 of an attacker's file system is started without arguments.
    let name = words.next().unwrap_or_else(|| "hello".into());
    let arguments = Arguments::new(words);
    let result = match COMMANDS.iter().find(|command| name == command.name) {
        Some(command) if arguments.count() >= command.arguments => (command.call)(&arguments),
        _ => Err(Failure::Usage),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
