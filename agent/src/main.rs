//! The agent's program: PID 1 in the initramfs, an ordinary command in the running image.
//!
//! Its entry is C's `main`, not Rust's: on a machine without a console, Rust's start-up would abort
//! for want of descriptors 0 to 2, and the end of PID 1 is a kernel panic.

#![cfg_attr(not(test), no_main)]

#[cfg(without_tables)]
mod unwinding;

use std::env;
use std::ffi::{OsString, c_char, c_int};
use std::io::Write;

use adamant_agent::{boot, monitor, status};

const HELP: &str = "\
adamant-agent: boots an image, and tells about the running one

    adamant-agent status [--json]    what runs, how it is sealed, and whether that holds: exit code 0 only then
    adamant-agent scrub [--now]      reads the whole root, slowly and again and again; with --now once, at full speed
    adamant-agent watch              tells of what happens to the machine that should not, as long as it runs
    adamant-agent drift [--json]     in what the running machine differs from its image and policy
    adamant-agent --version
    adamant-agent --help

As /init of an initramfs it finds, verifies and enters the image that `roothash=` on the kernel command line stands for.
";

/// The kernel starts `/init` of an initramfs as PID 1.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    let mut words = env::args_os();
    let name = words.next().unwrap_or_default();
    if std::process::id() == 1 && name == "/init" {
        boot::run();
    }
    c_int::from(command(words.collect()))
}

/// Runs a verb. Gives the exit code: 0 done, 1 failed, 2 usage.
fn command(words: Vec<OsString>) -> u8 {
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    match words.as_deref() {
        Some(["status", option @ ..]) if matches!(option, [] | ["--json"]) => {
            match status::run(!option.is_empty()) {
                Ok((text, verified)) => say(&text).max(u8::from(!verified)),
                Err(line) => ended(Err(line)),
            }
        }
        Some(["scrub", option @ ..]) if matches!(option, [] | ["--now"]) => {
            ended(monitor::scrub::run(!option.is_empty()))
        }
        Some(["watch"]) => ended(monitor::watch::run()),
        Some(["drift", option @ ..]) if matches!(option, [] | ["--json"]) => {
            match monitor::drift::run(!option.is_empty()) {
                Ok((text, none)) => say(&text).max(u8::from(!none)),
                Err(line) => ended(Err(line)),
            }
        }
        Some(["--version" | "-V"]) => {
            say(&format!("adamant-agent {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some(["--help" | "-h" | "help"]) => say(HELP),
        _ => {
            let _ = std::io::stderr().write_all(HELP.as_bytes());
            2
        }
    }
}

/// The exit code of a verb that said by itself what there was to say, or else why it failed.
fn ended(result: Result<u8, String>) -> u8 {
    result.unwrap_or_else(|line| {
        let _ = std::io::stderr().write_all(line.as_bytes());
        1
    })
}

/// Writes to the standard output; nobody reading is a failure, not a panic.
fn say(text: &str) -> u8 {
    let mut out = std::io::stdout();
    u8::from(
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err(),
    )
}
