//! The agent's program: PID 1 in the initramfs, an ordinary command in the running image.
//!
//! The entry point is C's `main`, not Rust's. On a machine without a console, Rust's start-up code
//! aborts because descriptors 0 to 2 are closed, and the end of PID 1 is a kernel panic.

#![cfg_attr(not(test), no_main)]

#[cfg(without_tables)]
mod unwinding;

use std::env;
use std::ffi::{OsString, c_char, c_int};
use std::io::Write;

use adamant_agent::{boot, monitor, status};

const HELP: &str = "\
adamant-agent: boot a verified image, and inspect the running one

Usage: adamant-agent COMMAND

    status [--json]    Show image, seal, volumes and problems of the running machine
    scrub [--now]      Read all blocks of the root to find corrupted ones: endlessly at the
                       policy's rate, or with --now once at full speed
    watch              Report violations of the policy until stopped
    drift [--json [--nonce HEX]]
                       List differences between the running machine and its image and policy;
                       --nonce puts up to 64 hexadecimal digits of the asker into the answer
    --version          Print the version
    --help             Print this help

Exit codes: 0 all is as it should be, 1 a problem, a difference or an error, 2 wrong usage.

As /init of an initramfs, this program finds, verifies and boots the image whose root hash is
`roothash=` on the kernel command line.
";

/// The kernel starts `/init` of an initramfs as PID 1.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    if std::process::id() == 1 && name == "/init" {
        boot::boot_image();
    }
    c_int::from(run_command(arguments.collect()))
}

/// Runs a command. Returns the exit code.
fn run_command(arguments: Vec<OsString>) -> u8 {
    let arguments: Option<Vec<&str>> = arguments.iter().map(|a| a.to_str()).collect();
    match arguments.as_deref() {
        Some(["status", option @ ..]) if matches!(option, [] | ["--json"]) => {
            match status::print_status(!option.is_empty()) {
                Ok(status) => print(&status.text).max(u8::from(!status.holds)),
                Err(line) => fail(&line),
            }
        }
        Some(["scrub", option @ ..]) if matches!(option, [] | ["--now"]) => {
            monitor::scrub::scrub_root(!option.is_empty()).unwrap_or_else(|line| fail(&line))
        }
        Some(["watch"]) => monitor::watch::watch_machine().unwrap_or_else(|line| fail(&line)),
        Some(["drift", option @ ..])
            if matches!(option, [] | ["--json"] | ["--json", "--nonce", _]) =>
        {
            match monitor::drift::report_drift(!option.is_empty(), option.get(2).copied()) {
                Ok(drift) => print(&drift.text).max(u8::from(!drift.none)),
                Err(line) => fail(&line),
            }
        }
        Some(["--version" | "-V"]) => {
            print(&format!("adamant-agent {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some(["--help" | "-h" | "help"]) => print(HELP),
        _ => {
            let _ = std::io::stderr().write_all(HELP.as_bytes());
            2
        }
    }
}

/// Writes an error line to the standard error. Returns the exit code.
fn fail(line: &str) -> u8 {
    let _ = std::io::stderr().write_all(line.as_bytes());
    1
}

/// Writes to the standard output. Returns the exit code: a closed output is a failure, not a panic.
fn print(text: &str) -> u8 {
    let mut out = std::io::stdout();
    u8::from(
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err(),
    )
}
