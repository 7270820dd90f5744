//! Violations that `watch` reports, and their rate limit: the first occurrence at once, repetitions
//! once a minute with their number.

use serde::Serialize;

use super::finding::{Class, Difference, Finding};
use super::guard::Denial;

/// Seconds between two comparisons of state without events, and between two reports of the same
/// violation.
pub const MINUTE: u64 = 60;
/// Distinct violations that are remembered. Further ones are only counted.
const REMEMBERED: usize = 256;
/// The classes of violations, in the order of the counters.
pub const CLASSES: [Class; 6] = [
    Class::Mounts,
    Class::Sysctls,
    Class::Verity,
    Class::Devices,
    Class::Denials,
    Class::Services,
];

/// Something that `watch` reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    pub class: Class,
    /// Violations with the same key count as repetitions.
    pub key: String,
    /// The line for people.
    pub text: String,
    /// The members of the JSON object, for programs.
    pub details: Details,
}

/// The members of a violation's JSON object besides time, class and times.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Details {
    /// A finding.
    Difference(Difference),
    /// A denial of the guard.
    Denial(Denial),
    /// A new block device.
    Device { name: String },
    /// Denials without details: `lost` or `others`.
    Denials { hook: &'static str },
}

impl From<&Finding> for Violation {
    fn from(found: &Finding) -> Violation {
        Violation {
            class: found.class,
            key: found.line(),
            text: found.line(),
            details: Details::Difference(found.difference.clone()),
        }
    }
}

impl From<Denial> for Violation {
    fn from(denial: Denial) -> Violation {
        let Denial {
            hook,
            comm,
            name,
            parent,
            pid,
            ..
        } = &denial;
        let key = [hook, "\0", comm, "\0", name].concat();
        let text = [
            "denials: ",
            hook,
            " of \"",
            name,
            "\" refused to ",
            comm,
            " (",
            &pid.to_string(),
            ", of ",
            parent,
            ")",
        ]
        .concat();
        Violation {
            class: Class::Denials,
            key,
            text,
            details: Details::Denial(denial),
        }
    }
}

/// The violations of the last minute, to report repetitions together.
#[derive(Default)]
pub struct RateLimit {
    remembered: Vec<Reported>,
    /// Number of distinct violations beyond the remembered ones since their last report.
    others: u64,
    others_reported: u64,
}

struct Reported {
    violation: Violation,
    /// Time of the last report, seconds since the kernel started.
    at: u64,
    /// Repetitions since then.
    repetitions: u64,
}

impl RateLimit {
    /// Counts a violation. True if it must be reported now.
    pub fn is_new(&mut self, violation: &Violation, now: u64) -> bool {
        let full = self.remembered.len() >= REMEMBERED;
        let known = self
            .remembered
            .iter_mut()
            .find(|reported| reported.violation.key == violation.key);
        match known {
            Some(reported) => {
                reported.repetitions += 1;
                // The newest one is reported: its process may still exist.
                reported.violation = violation.clone();
                false
            }
            None if full => {
                self.others += 1;
                false
            }
            None => {
                self.remembered.push(Reported {
                    violation: violation.clone(),
                    at: now,
                    repetitions: 0,
                });
                true
            }
        }
    }

    /// Times at which repetitions are due, in seconds since the kernel started.
    pub fn due_times(&self) -> impl Iterator<Item = u64> + '_ {
        self.remembered
            .iter()
            .filter(|reported| reported.repetitions > 0)
            .map(|reported| reported.at + MINUTE)
    }

    /// Returns the violations whose repetitions are due, each with their number. Violations that
    /// did not repeat within a minute are forgotten.
    pub fn due(&mut self, now: u64) -> Vec<(Violation, u64)> {
        let mut due = Vec::new();
        self.remembered.retain_mut(|reported| {
            if now < reported.at + MINUTE {
                return true;
            }
            let repetitions = std::mem::take(&mut reported.repetitions);
            reported.at = now;
            if repetitions > 0 {
                due.push((reported.violation.clone(), repetitions));
            }
            repetitions > 0
        });
        if self.others > 0 && now >= self.others_reported + MINUTE {
            let violation = Violation {
                class: Class::Denials,
                key: String::new(),
                text: "denials: others of many kinds".to_owned(),
                details: Details::Denials { hook: "others" },
            };
            due.push((violation, std::mem::take(&mut self.others)));
            self.others_reported = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(key: &str) -> Violation {
        Violation {
            class: Class::Denials,
            key: key.to_owned(),
            text: String::new(),
            details: Details::Denials { hook: "lost" },
        }
    }

    #[test]
    fn repetitions_are_reported_once_a_minute_with_their_number() {
        let mut limit = RateLimit::default();
        assert!(limit.is_new(&violation("a"), 10));
        for _ in 0..5 {
            assert!(!limit.is_new(&violation("a"), 20));
        }
        assert!(limit.is_new(&violation("b"), 30));
        assert_eq!(limit.due(69), []);
        assert_eq!(limit.due(70), [(violation("a"), 5)]);
        assert_eq!(limit.due(130), []);
        // Forgotten, and so new.
        assert!(limit.is_new(&violation("a"), 131) && limit.is_new(&violation("b"), 131));
    }

    #[test]
    fn memory_is_bounded_and_violations_beyond_it_are_counted() {
        let mut limit = RateLimit::default();
        let new = (0..1000)
            .filter(|number| limit.is_new(&violation(&number.to_string()), 100))
            .count();
        assert_eq!((new, limit.remembered.len()), (REMEMBERED, REMEMBERED));
        let due = limit.due(100);
        assert_eq!((due.len(), due[0].1), (1, 1000 - REMEMBERED as u64));
        assert_eq!((limit.due(161), limit.remembered.len()), (vec![], 0));
    }
}
