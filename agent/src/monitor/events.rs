//! What the watch tells of, and who was told of what: each thing once, and what repeats once a
//! minute with its number of times.

use super::findings::Finding;
use super::guard::Denial;
use super::members;

/// Seconds between two looks at what nobody tells of, and between two tellings of the same.
pub const MINUTE: u64 = 60;
/// Different things that are remembered; more are counted together.
const REMEMBERED: usize = 256;
/// The classes of violations, in the order of the counters.
pub const CLASSES: [&str; 5] = ["mounts", "sysctls", "verity", "devices", "denials"];

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub class: &'static str,
    /// What is the same is told once.
    pub key: String,
    /// For a person.
    pub text: String,
    /// For programs: members of an object.
    pub members: String,
}

impl From<&Finding> for Event {
    fn from(found: &Finding) -> Event {
        Event {
            class: found.class,
            key: found.line(),
            text: found.line(),
            members: found.members(),
        }
    }
}

impl From<Denial> for Event {
    fn from(denial: Denial) -> Event {
        let Denial {
            time: _,
            hook,
            pid,
            uid,
            device,
            inode,
            comm,
            parent,
            name,
        } = denial;
        let numbers = [
            ("pid", u64::from(pid)),
            ("uid", u64::from(uid)),
            ("inode", inode),
        ];
        let mut members = members(&[
            ("hook", hook),
            ("comm", &comm),
            ("parent", &parent),
            ("name", &name),
            ("device", &device),
        ]);
        for (key, number) in numbers {
            members += &[",\"", key, "\":", &number.to_string()].concat();
        }
        let key = [hook, "\0", &comm, "\0", &name].concat();
        let text = [
            "denials: ",
            hook,
            " of \"",
            &name,
            "\" refused to ",
            &comm,
            " (",
            &pid.to_string(),
            ", of ",
            &parent,
            ")",
        ]
        .concat();
        Event {
            class: "denials",
            key,
            text,
            members,
        }
    }
}

/// Who was told of what.
#[derive(Default)]
pub struct Told {
    all: Vec<One>,
    /// Different things beyond those that are remembered, since that was told.
    others: u64,
    others_told: u64,
}

struct One {
    event: Event,
    /// Seconds since the kernel started.
    at: u64,
    /// Times since then.
    more: u64,
}

impl Told {
    /// Something was seen. Whether it is to be told now.
    pub fn seen(&mut self, event: &Event, now: u64) -> bool {
        let full = self.all.len() >= REMEMBERED;
        match self.all.iter_mut().find(|one| one.event.key == event.key) {
            Some(one) => {
                one.more += 1;
                // The newest: its process may still be there.
                one.event = event.clone();
                false
            }
            None if full => {
                self.others += 1;
                false
            }
            None => {
                self.all.push(One {
                    event: event.clone(),
                    at: now,
                    more: 0,
                });
                true
            }
        }
    }

    /// When there is something to be told again, seconds since the kernel started.
    pub fn next(&self) -> impl Iterator<Item = u64> + '_ {
        self.all
            .iter()
            .filter(|one| one.more > 0)
            .map(|one| one.at + MINUTE)
    }

    /// What is to be told again, each with its number of times. What did not come again is
    /// forgotten.
    pub fn due(&mut self, now: u64) -> Vec<(Event, u64)> {
        let mut due = Vec::new();
        self.all.retain_mut(|one| {
            if now < one.at + MINUTE {
                return true;
            }
            let more = std::mem::take(&mut one.more);
            one.at = now;
            if more > 0 {
                due.push((one.event.clone(), more));
            }
            more > 0
        });
        if self.others > 0 && now >= self.others_told + MINUTE {
            let event = Event {
                class: "denials",
                key: String::new(),
                text: "denials: others of many kinds".to_owned(),
                members: members(&[("hook", "others")]),
            };
            due.push((event, std::mem::take(&mut self.others)));
            self.others_told = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &str) -> Event {
        Event {
            class: "denials",
            key: key.to_owned(),
            text: String::new(),
            members: String::new(),
        }
    }

    #[test]
    fn what_repeats_is_told_once_a_minute_with_its_number_of_times() {
        let mut told = Told::default();
        assert!(told.seen(&event("a"), 10));
        for _ in 0..5 {
            assert!(!told.seen(&event("a"), 20));
        }
        assert!(told.seen(&event("b"), 30));
        assert_eq!(told.due(69), []);
        assert_eq!(told.due(70), [(event("a"), 5)]);
        assert_eq!(told.due(130), []);
        // Forgotten, and so new.
        assert!(told.seen(&event("a"), 131) && told.seen(&event("b"), 131));
    }

    #[test]
    fn memory_has_an_end_and_what_is_beyond_it_is_counted() {
        let mut told = Told::default();
        let new = (0..1000)
            .filter(|number| told.seen(&event(&number.to_string()), 100))
            .count();
        assert_eq!((new, told.all.len()), (REMEMBERED, REMEMBERED));
        let due = told.due(100);
        assert_eq!((due.len(), due[0].1), (1, 1000 - REMEMBERED as u64));
        assert_eq!((told.due(161), told.all.len()), (vec![], 0));
    }

    #[test]
    fn an_event_is_a_line_of_json_whatever_a_name_holds() {
        let denial = Denial {
            time: 1,
            hook: "file_open",
            pid: 7,
            uid: 0,
            device: "254:3".to_owned(),
            inode: 9,
            comm: "s\"h".to_owned(),
            parent: "x\ny".to_owned(),
            name: "}\\".to_owned(),
        };
        let event = Event::from(denial);
        let read: serde_json::Value =
            serde_json::from_str(&format!("{{{}}}", event.members)).unwrap();
        assert_eq!(
            (
                read["name"].as_str(),
                read["parent"].as_str(),
                read["pid"].as_u64()
            ),
            (Some("}\\"), Some("x\ny"), Some(7))
        );
        let finding = Finding::new("mounts", "/usr", "tmpfs over it", "not mounted over");
        assert_eq!(
            Event::from(&finding).members,
            r#""what":"/usr","is":"tmpfs over it","should":"not mounted over""#
        );
    }
}
