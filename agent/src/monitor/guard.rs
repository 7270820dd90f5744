//! The guard's counters and events. The guard opens them only to the image's own agent.

use std::io;

use serde::Serialize;
use zerocopy::FromBytes;

use crate::kernel::bpf::ValueMap;
use crate::kernel::guard_abi::{DENIALS, Denials, GuardEvent, HOOKS};

/// The number of denials of each hook.
pub struct DenialCounters(ValueMap<Denials>);

impl DenialCounters {
    /// `None` if there is no guard.
    pub fn open() -> io::Result<Option<DenialCounters>> {
        Ok(ValueMap::open(DENIALS)?.map(DenialCounters))
    }

    /// The numbers, in the order of [`HOOKS`].
    pub fn read(&self) -> io::Result<Denials> {
        self.0.get()
    }
}

/// An operation that the guard refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Denial {
    pub hook: &'static str,
    /// Name of the process.
    pub comm: String,
    /// Name of its parent process.
    pub parent: String,
    /// The object of the operation, for example a file name.
    pub name: String,
    /// `MAJOR:MINOR` of the object's file system, if the hook has one.
    pub device: String,
    pub pid: u32,
    pub uid: u32,
    pub inode: u64,
    /// Nanoseconds since the kernel started.
    #[serde(skip)]
    pub time: u64,
}

impl Denial {
    /// Decodes an event. `None` if it is not an event of this agent's guard.
    pub fn parse(event: &[u8]) -> Option<Denial> {
        let (event, _) = GuardEvent::read_from_prefix(event).ok()?;
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
        };
        let (major, minor) = (event.device >> 20, event.device & 0xf_ffff);
        Some(Denial {
            time: event.time,
            hook: HOOKS.get(event.hook as usize)?,
            pid: event.pid,
            uid: event.uid,
            device: [major.to_string(), minor.to_string()].join(":"),
            inode: event.inode,
            comm: text(&event.comm),
            parent: text(&event.parent),
            name: text(&event.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    #[test]
    fn decodes_an_event_and_refuses_an_unknown_hook() {
        let mut event = GuardEvent {
            pid: 77,
            uid: 1000,
            hook: 10,
            device: 254 << 20 | 3,
            inode: 99,
            name: [b'a'; 40],
            ..GuardEvent::new_zeroed()
        };
        event.comm[..2].copy_from_slice(b"sh");
        event.parent[..4].copy_from_slice(b"sshd");
        let denial = Denial::parse(event.as_bytes()).unwrap();
        assert_eq!(
            (
                denial.hook,
                denial.pid,
                denial.uid,
                denial.device.as_str(),
                denial.inode
            ),
            ("file_open", 77, 1000, "254:3", 99)
        );
        assert_eq!(
            (denial.comm.as_str(), denial.parent.as_str(), denial.name),
            ("sh", "sshd", "a".repeat(40))
        );
        assert_eq!(Denial::parse(&event.as_bytes()[1..]), None);
        event.hook = HOOKS.len() as u32;
        assert_eq!(Denial::parse(event.as_bytes()), None);
    }
}
