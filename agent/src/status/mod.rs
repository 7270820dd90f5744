//! `adamant-agent status`: one screen for an operator at 3 a.m., the most important line first.
//!
//! The boot report says what the boot found. What can change later is read from the kernel again.
//! The exit code is 0 only if everything that the policy requires still holds.

#![forbid(unsafe_code)]

mod now;
mod page;
#[cfg(test)]
mod schema;

use std::fmt::Display;
use std::fs;
use std::io::{IsTerminal, Read};
use std::path::Path;

use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::report::{BootReport, VERSION};
use now::CurrentState;
use serde::Deserialize;
use serde_json::Value;

/// Longest accepted report, in bytes.
const LIMIT: u64 = 1 << 20;

/// What the command prints, and whether everything that the policy requires holds.
pub struct Status {
    /// Text for the standard output.
    pub text: String,
    /// False if there is a problem.
    pub holds: bool,
}

/// Returns the status as text for people, or with `json` as the boot report plus a member `now`
/// with the current state. `Err` is a line for the standard error.
pub fn print_status(json: bool) -> Result<Status, String> {
    let fail = |why: &dyn Display, remedy: &str| {
        format!("adamant: status: {BOOT_REPORT_PATH}: {why}: {remedy}\n")
    };
    let changed = |e: serde_json::Error| fail(&e, "the file was changed since the boot");
    let bytes = read(Path::new(BOOT_REPORT_PATH))
        .map_err(|why| fail(&why, "only a server that adamant-agent has booted has one"))?;
    #[derive(Deserialize)]
    struct ReportVersion {
        version: u32,
    }
    let ReportVersion { version } = serde_json::from_slice(&bytes).map_err(changed)?;
    if version != VERSION {
        return Err(fail(
            &format!("version {version}, not {VERSION}"),
            "use the agent of the image that is running",
        ));
    }
    let report: BootReport = serde_json::from_slice(&bytes).map_err(changed)?;
    let now = CurrentState::read(&report);
    let problems = now.problems(&report);
    let holds = problems.is_empty();
    let text = if json {
        let mut report: Value = serde_json::from_slice(&bytes).map_err(changed)?;
        report["now"] = now.to_json(&problems);
        let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
        text.push('\n');
        text
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        page::render(&report, &now, &problems, colour)
    };
    Ok(Status { text, holds })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LIMIT {
        Err(format!("longer than {LIMIT} bytes"))
    } else {
        Ok(bytes)
    }
}
