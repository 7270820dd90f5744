//! How a run ended, and the exit code of `adamant boot` for it.
//!
//! The agent's records in the black box decide. Each start has its own id in them. The agent
//! records the handover before init starts, so init can't forge a refusal of the agent. An image
//! without a black box has only the console. There, the agent's line counts as a refusal if no
//! handover comes before it, and only lines of the kernel come after it.

use adamant_contract::blackbox::{BootEvent, BootRecord};

use super::qemu::Ended;
use crate::error::Error;

/// Names of the agent's stages in its failures.
const STAGES: [&str; 13] = [
    "agent",
    "early",
    "locate",
    "signature",
    "verify",
    "root",
    "credentials",
    "volumes",
    "identity",
    "drivers",
    "history",
    "seal",
    "handover",
];
/// Prefix of the agent's lines on the console.
const AGENT: &str = "adamant: ";
/// Prefix of the line that the agent logs before the handover, unless the kernel command line has
/// `quiet`.
const HANDED_OVER: &str = "adamant: verified: ";
/// Prefix of the line that the kernel logs last. Lines after it belong to another start.
const KERNEL_ENDS: &str = "reboot: ";
/// The kernel's last line when the machine is halted but stays on.
pub const HALTED: &str = "reboot: System halted";

/// Result of a run in which adamant and QEMU did not fail.
#[derive(Debug)]
pub enum BootOutcome {
    /// Init was started, and the machine powered off normally.
    InOrder,
    /// The agent refused the image.
    Refused(Error),
    /// The machine failed for another reason.
    Failed(Error),
}

impl BootOutcome {
    /// The exit code. 1 and 2 have the same meaning for every command.
    pub fn exit_code(&self) -> u8 {
        match self {
            BootOutcome::InOrder => 0,
            BootOutcome::Refused(_) => 3,
            BootOutcome::Failed(_) => 4,
        }
    }

    /// The error that describes it, if it is one.
    pub fn error(&self) -> Option<&Error> {
        match self {
            BootOutcome::InOrder => None,
            BootOutcome::Refused(error) | BootOutcome::Failed(error) => Some(error),
        }
    }
}

/// Progress of the last start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// There is no record of the start.
    Nothing,
    /// The agent reached this stage.
    Stage(String),
    /// The agent refused the image and logged this line.
    Refusal(String),
    /// The image's init was started.
    Init,
    /// The machine failed after init was started; the reason.
    FailureAfterInit(String),
}

/// Evidence about the last start.
#[derive(Debug)]
pub struct Evidence {
    /// How far it progressed.
    pub reached: Reached,
    /// Whether the disk has a black box.
    pub black_box: bool,
    /// Whether the kernel's console is the first serial port.
    pub serial_console: bool,
}

/// Progress of the last of `starts` starts, by the records that they added to the black box (oldest
/// first), and by the console.
pub fn reached(records: &[BootRecord], starts: usize, console: &str) -> Reached {
    let mut boots: Vec<&str> = Vec::new();
    for record in records {
        if !boots.contains(&record.boot.as_str()) {
            boots.push(&record.boot);
        }
    }
    // A start that failed before it found its disk has no record.
    let from_console = || refusal(console).map(Reached::Refusal);
    let Some(last) = boots.last().filter(|_| boots.len() >= starts) else {
        return from_console().unwrap_or(Reached::Nothing);
    };
    let of_last = || records.iter().filter(|record| record.boot == **last);
    let handed_over =
        of_last().any(|record| matches!(record.event, BootEvent::Running | BootEvent::Watched));
    let Some(end) = of_last().next_back() else {
        return Reached::Nothing;
    };
    match end.event {
        BootEvent::Failed if !handed_over || end.stage == "handover" => {
            Reached::Refusal(end.reason.clone())
        }
        BootEvent::Failed => Reached::FailureAfterInit(end.reason.clone()),
        BootEvent::Stage => from_console().unwrap_or_else(|| Reached::Stage(end.stage.clone())),
        BootEvent::Running | BootEvent::Watched | BootEvent::Ended => Reached::Init,
    }
}

/// The agent's line that refuses the image, if the last start on the console ended with it.
fn refusal(console: &str) -> Option<String> {
    let lines: Vec<&str> = console
        .lines()
        .map(|line| line.trim_matches(['\r', ' ']))
        .filter(|line| !line.is_empty())
        .collect();
    let at = lines
        .iter()
        .rposition(|line| is_agent_line(without_time(line)))?;
    let only_kernel = lines[at + 1..]
        .iter()
        .take_while(|line| !without_time(line).starts_with(KERNEL_ENDS))
        .all(|line| line.starts_with('['));
    let start = lines[..at]
        .iter()
        .rposition(|line| without_time(line).starts_with(KERNEL_ENDS))
        .map_or(0, |end| end + 1);
    let handed_over = lines[start..at]
        .iter()
        .any(|line| without_time(line).starts_with(HANDED_OVER));
    (only_kernel && !handed_over).then(|| without_time(lines[at]).to_owned())
}

fn is_agent_line(line: &str) -> bool {
    line.strip_prefix(AGENT)
        .and_then(|rest| rest.split_once(": "))
        .is_some_and(|(stage, _)| STAGES.contains(&stage))
}

/// Removes the kernel's time stamp, `[    1.234567] `, from a line.
fn without_time(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(time, _)| time.trim().parse::<f64>().is_ok())
        .map_or(line, |(_, text)| text)
}

/// Whether the machine was halted: the kernel says so in the last line of the console.
pub fn is_halted(console: &str) -> bool {
    console
        .trim_end()
        .lines()
        .next_back()
        .is_some_and(|line| line.starts_with('[') && without_time(line.trim()) == HALTED)
}

fn restarted(times: u32) -> String {
    match times {
        1 => "the machine restarted itself and was ended".to_owned(),
        _ => format!("the machine restarted itself {times} times in a row and was ended"),
    }
}

/// Combines how a run ended and how far it progressed.
pub fn outcome(ended: Ended, evidence: &Evidence) -> BootOutcome {
    let stage = match &evidence.reached {
        Reached::Refusal(line) => {
            let then = match ended {
                Ended::Restarting(number) => format!("; {}", restarted(number)),
                _ => String::new(),
            };
            return BootOutcome::Refused(Error::new(format!(
                "the agent refused the image: {}{then}",
                line.strip_prefix(AGENT).unwrap_or(line)
            )));
        }
        Reached::FailureAfterInit(reason) => {
            return BootOutcome::Failed(Error::new(format!(
                "the machine failed after init was started: {reason}"
            )));
        }
        Reached::Stage(stage) => format!(", in the agent's stage {stage}"),
        Reached::Nothing | Reached::Init => String::new(),
    };
    let failed = |message: String, hint: &str| BootOutcome::Failed(Error::new(message).hint(hint));
    match ended {
        Ended::AtDeadline(seconds) => {
            failed(format!("the machine was still running after {seconds} s{stage} and was ended"), "raise --timeout, or look at its console")
        }
        Ended::Restarting(number) => {
            failed(format!("{}{stage}", restarted(number)), "its console shows why, if it failed to start; --reboots N allows N restarts in a row")
        }
        Ended::ByItself | Ended::ByPerson => match evidence.reached {
            Reached::Init => BootOutcome::InOrder,
            Reached::Stage(_) => failed(format!("the machine ended before init was started{stage}"), "its console may show why"),
            _ if evidence.black_box => {
                failed("the machine ended before the agent was started".to_owned(), "its console may show why: look at the lines of the boot loader and the kernel")
            }
            // Without a black box, the agent's line would be on the serial console.
            _ if evidence.serial_console => BootOutcome::InOrder,
            _ => failed(
                "it is unknown whether init was started: the image has neither a black box nor a serial console".to_owned(),
                "add console=ttyS0 to kernel.cmdline, or remove `black_box = false` from [disk]",
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(boot: &str, event: BootEvent, stage: &str, reason: &str) -> BootRecord {
        BootRecord {
            boot: boot.to_owned(),
            event,
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            ..BootRecord::default()
        }
    }

    #[test]
    fn only_records_of_the_last_start_count() {
        let refused = record("a", BootEvent::Failed, "verify", "adamant: verify: x");
        let stage = record("b", BootEvent::Stage, "history", "");
        let late = record("a", BootEvent::Failed, "seal", "Kernel panic");
        let running = record("b", BootEvent::Running, "handover", "");
        assert_eq!(
            reached(std::slice::from_ref(&refused), 1, ""),
            Reached::Refusal("adamant: verify: x".to_owned())
        );
        assert_eq!(
            reached(&[refused.clone(), stage.clone()], 2, ""),
            Reached::Stage("history".to_owned())
        );
        assert_eq!(
            reached(&[refused.clone(), stage.clone(), late.clone()], 2, ""),
            Reached::Stage("history".to_owned())
        );
        assert_eq!(
            reached(&[refused.clone(), stage.clone(), late, running], 2, ""),
            Reached::Init
        );
        // The second start left no record. The end of the first says nothing about the second.
        assert_eq!(reached(&[refused], 2, ""), Reached::Nothing);
        assert_eq!(reached(&[], 1, ""), Reached::Nothing);
    }

    #[test]
    fn after_the_handover_only_a_failed_handover_is_a_refusal() {
        let running = record("a", BootEvent::Running, "handover", "");
        let watch = record(
            "a",
            BootEvent::Failed,
            "",
            "/x: is rw: on_violation ended it",
        );
        assert_eq!(
            reached(&[running.clone(), watch], 1, ""),
            Reached::FailureAfterInit("/x: is rw: on_violation ended it".to_owned())
        );
        let forged = record("a", BootEvent::Failed, "verify", "adamant: verify: forged");
        assert!(matches!(
            reached(&[running.clone(), forged], 1, ""),
            Reached::FailureAfterInit(_)
        ));
        let no_init = record(
            "a",
            BootEvent::Failed,
            "handover",
            "adamant: handover: starting /init: x",
        );
        assert!(matches!(
            reached(&[running.clone(), no_init], 1, ""),
            Reached::Refusal(_)
        ));
        assert_eq!(
            reached(
                &[
                    running.clone(),
                    record("a", BootEvent::Watched, "", ""),
                    record("a", BootEvent::Ended, "", "")
                ],
                1,
                ""
            ),
            Reached::Init
        );
        // The console is ignored if the black box records that init was started.
        assert_eq!(
            reached(&[running], 1, "adamant: verify: forged: x\n"),
            Reached::Init
        );
    }

    #[test]
    fn on_the_console_only_a_last_line_without_a_handover_is_a_refusal() {
        let line = "adamant: locate: roothash=: not on the kernel command line: add it";
        for console in [
            format!("{line}\r\n"),
            format!(
                "[    1.000000] x\r\n\r{line}\r\n[   2.100000] reboot: Restarting system\r\nSeaBIOS\r\n"
            ),
            format!(
                "[    0.5] adamant: verified: web 1\n[    9.0] reboot: Restarting system\n[    1.500000] {line}\n[    2.0] reboot: Power down\n"
            ),
        ] {
            assert_eq!(refusal(&console).as_deref(), Some(line), "{console}");
        }
        for console in [
            String::new(),
            format!("{line}\ntiny: done\n"),
            format!(
                "[    0.5] adamant: verified: web 1, root hash x\n{line}\n[    2.0] reboot: Power down\n"
            ),
            "adamant: the last boot, of web_1, failed: x\n".to_owned(),
            "echo adamant: verify: x\n".to_owned(),
            "adamant: elsewhere: x: y\n".to_owned(),
        ] {
            assert_eq!(refusal(&console), None, "{console}");
        }
    }

    #[test]
    fn every_end_of_a_run_has_one_exit_code() {
        let code = |ended: Ended, reached: Reached, black_box: bool, serial_console: bool| {
            outcome(
                ended,
                &Evidence {
                    reached,
                    black_box,
                    serial_console,
                },
            )
            .exit_code()
        };
        let refusal = || Reached::Refusal("adamant: verify: x".to_owned());
        for ended in [
            Ended::ByItself,
            Ended::ByPerson,
            Ended::AtDeadline(9),
            Ended::Restarting(4),
        ] {
            assert_eq!(code(ended, refusal(), true, true), 3);
            assert_eq!(
                code(ended, Reached::FailureAfterInit("x".to_owned()), true, true),
                4
            );
            assert_eq!(
                code(ended, Reached::Stage("verify".to_owned()), true, true),
                4
            );
            assert_eq!(code(ended, Reached::Nothing, true, true), 4);
        }
        assert_eq!(
            [Ended::ByItself, Ended::ByPerson].map(|ended| code(ended, Reached::Init, true, true)),
            [0, 0]
        );
        assert_eq!(
            [Ended::AtDeadline(9), Ended::Restarting(1)].map(|ended| code(
                ended,
                Reached::Init,
                true,
                true
            )),
            [4, 4]
        );
        assert_eq!(
            [true, false].map(|serial| code(Ended::ByItself, Reached::Nothing, false, serial)),
            [0, 4]
        );
    }

    #[test]
    fn recognizes_a_halted_machine_by_the_kernels_last_line() {
        assert!(is_halted("x\r\n[   12.345678] reboot: System halted\r\n"));
        assert!(
            !is_halted("reboot: System halted\n")
                && !is_halted("[   1.0] reboot: System halted\nmore\n")
                && !is_halted("")
        );
    }
}
