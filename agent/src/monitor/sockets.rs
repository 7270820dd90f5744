//! Compares the open network ports with the policy's list.
//!
//! The source is /proc/net/tcp and its siblings, see proc(5). They show the network namespace of
//! this process, which is the host's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adamant_contract::policy::Policy;

use super::finding::{Class, Finding};
use super::read;

/// Socket tables, and the protocol's name in the policy.
const KINDS: [(&str, &str); 4] = [
    ("/proc/net/tcp", "tcp"),
    ("/proc/net/tcp6", "tcp"),
    ("/proc/net/udp", "udp"),
    ("/proc/net/udp6", "udp"),
];
/// State of a listening TCP socket, and of a UDP socket that accepts datagrams from any address.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";
/// Lowest port that the kernel gives to clients by default.
const FIRST_EPHEMERAL: u16 = 32768;
/// Longest table that is read, in bytes: 400,000 sockets.
const TABLE_LIMIT: u64 = 64 << 20;
/// Most ports that are listed.
const LISTED: usize = 1000;
/// Number of processes, and of descriptors per process, that are searched for a socket's owner.
const PROCESSES: usize = 4096;
const DESCRIPTORS: usize = 4096;

/// A port that is open to other machines.
#[derive(Debug, PartialEq)]
struct OpenPort {
    address: IpAddr,
    port: u16,
    kind: &'static str,
    inode: u64,
}

/// Adds a finding for each open port that the policy does not list. A policy without a list allows
/// all.
pub fn check_ports(policy: &Policy, found: &mut Vec<Finding>) {
    let Some(wanted) = &policy.drift.listen else {
        return;
    };
    // A client's UDP socket gets a port from this range, and the table does not tell it from a
    // server's. A range that was extended downwards must not hide a server.
    let range = read("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range
        .split_ascii_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(FIRST_EPHEMERAL)
        .max(FIRST_EPHEMERAL);
    let mut strangers = Vec::new();
    for (path, kind) in KINDS {
        let table = match File::open(path) {
            Ok(table) => table,
            // A kernel without IPv6 has no tables of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                add_unreadable(path, &error.to_string(), found);
                continue;
            }
        };
        let end = listening(&mut BufReader::new(table), kind, first, &mut |one| {
            let name = [&one.port.to_string(), "/", one.kind].concat();
            let is_wanted = wanted.contains(&name);
            // One more than are listed tells that there are more.
            if !is_wanted && strangers.len() <= LISTED {
                strangers.push(one);
            }
        });
        match end {
            Ok(true) => {}
            Ok(false) => add_unreadable(path, "longer than 64 MiB", found),
            Err(error) => add_unreadable(path, &error.to_string(), found),
        }
    }
    if strangers.is_empty() {
        return;
    }
    if strangers.len() > LISTED {
        strangers.truncate(LISTED);
        let more = ["more than ", &LISTED.to_string()].concat();
        found.push(Finding::new(Class::Sockets, "open ports", &more, "closed"));
    }
    let owners = owners();
    for OpenPort {
        address,
        port,
        kind,
        inode,
    } in strangers
    {
        let address = if address.is_ipv6() {
            ["[", &address.to_string(), "]"].concat()
        } else {
            address.to_string()
        };
        let what = [&address, ":", &port.to_string(), "/", kind].concat();
        let is = match owners.get(&inode) {
            Some(owner) => ["open, by ", owner].concat(),
            None => "open".to_owned(),
        };
        found.push(Finding::new(Class::Sockets, &what, &is, "closed"));
    }
}

/// Adds a finding for a table that was not read to its end: it may hide a port.
fn add_unreadable(path: &str, why: &str, found: &mut Vec<Finding>) {
    found.push(Finding::new(Class::Sockets, path, why, "readable"));
}

/// Reads one of the tables, and passes each open port to `take`. Malformed lines are left out.
/// Returns false if the table is too long.
fn listening(
    table: &mut dyn BufRead,
    kind: &'static str,
    first_ephemeral: u16,
    take: &mut dyn FnMut(OpenPort),
) -> io::Result<bool> {
    let mut table = table.take(TABLE_LIMIT);
    let mut line = String::new();
    loop {
        line.clear();
        if table.read_line(&mut line)? == 0 {
            return Ok(table.limit() > 0);
        }
        // sl, local_address, rem_address, st, queues, timer, retrnsmt, uid, timeout, inode
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(local), Some(state), Some(inode)) = (words.get(1), words.get(3), words.get(9))
        else {
            continue;
        };
        let Some((address, port)) = local.split_once(':').and_then(|(address, port)| {
            Some((to_address(address)?, u16::from_str_radix(port, 16).ok()?))
        }) else {
            continue;
        };
        let is_open = if kind == "tcp" {
            *state == LISTEN
        } else {
            *state == UNCONNECTED && port < first_ephemeral
        };
        // Ports that only this machine can reach do not count.
        if is_open && !address.is_loopback() {
            take(OpenPort {
                address,
                port,
                kind,
                inode: inode.parse().unwrap_or(0),
            });
        }
    }
}

/// Parses 8 or 32 hexadecimal digits: 32-bit values in host byte order that hold the address in
/// network byte order.
fn to_address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(digits.get(at..at + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for part in 0..4 {
                bytes[4 * part..4 * part + 4].copy_from_slice(&word(8 * part)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Maps socket inodes to the processes that hold them: `NAME (PID)`.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .take(PROCESSES)
    {
        let Some(pid) = process
            .file_name()
            .to_str()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
            .map(str::to_owned)
        else {
            continue;
        };
        let mut name = None;
        for descriptor in fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .take(DESCRIPTORS)
        {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target.to_str().and_then(|target| {
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse::<u64>()
                    .ok()
            });
            if let Some(inode) = inode {
                let name: &String = name.get_or_insert_with(|| {
                    read(&["/proc/", &pid, "/comm"].concat())
                        .unwrap_or_default()
                        .trim_end()
                        .to_owned()
                });
                owners
                    .entry(inode)
                    .or_insert_with(|| [name, " (", &pid, ")"].concat());
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn listening_sockets_are_told_from_clients() {
        let table = [
            HEAD,
            "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n",
            "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 12 1 0 100 0 0 10 0\n",
            "   2: 0F02000A:0016 0202000A:D4F2 01 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0\n",
            "   3: short\n   4: zz:yy 0 0A 0 0 0 0 0 0 0\n",
        ]
        .concat();
        let listed = |table: &str, kind| {
            let mut found = Vec::new();
            let whole = listening(&mut table.as_bytes(), kind, 32768, &mut |one| {
                found.push(format!("{}:{} {}", one.address, one.port, one.inode))
            });
            assert!(whole.unwrap());
            found
        };
        assert_eq!(listed(&table, "tcp"), ["0.0.0.0:22 4711"]);
        let udp = [
            HEAD,
            " 9: 00000000:0044 00000000:0000 07 0:0 0:0 0 0 0 1 2\n",
            " 9: 00000000:9C40 00000000:0000 07 0:0 0:0 0 0 0 2 2\n",
        ]
        .concat();
        assert_eq!(listed(&udp, "udp"), ["0.0.0.0:68 1"]);
    }

    #[test]
    fn a_port_at_the_end_of_a_long_table_is_found_and_a_longer_table_is_said_to_be_cut() {
        let client = "   2: 0F02000A:0016 0202000A:D4F2 01 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0\n";
        let server = client.replace("0202000A:D4F2 01", "00000000:0000 0A");
        let table = [HEAD, &client.repeat(100_000), &server].concat();
        assert!(table.len() > 10 << 20);
        let mut ports = Vec::new();
        let whole = listening(&mut table.as_bytes(), "tcp", 32768, &mut |one| {
            ports.push(one.port)
        });
        assert_eq!((whole.unwrap(), ports), (true, vec![22]));
        let mut endless = BufReader::new(io::repeat(b'x'));
        let whole = listening(&mut endless, "tcp", 32768, &mut |_| panic!());
        assert!(!whole.unwrap());
    }

    #[test]
    fn addresses_are_what_people_write() {
        assert_eq!(to_address("0100007F"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(
            to_address("B80D01200000000067452301EFCDAB89")
                .map(|a| a.to_string())
                .as_deref(),
            Some("2001:db8::123:4567:89ab:cdef")
        );
        assert_eq!(
            to_address("00000000000000000000000001000000")
                .map(|a| a.to_string())
                .as_deref(),
            Some("::1")
        );
        assert_eq!(
            [
                to_address(""),
                to_address("xxxxxxxx"),
                to_address("0100007F00")
            ],
            [None, None, None]
        );
    }

    #[test]
    fn a_socket_of_this_very_program_is_found_with_its_name() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut policy =
            Policy::parse(br#"{"version": 1, "image": {"id": "web", "version": "1"}}"#).unwrap();
        let mut found = Vec::new();
        check_ports(&policy, &mut found);
        assert_eq!(found, []);
        policy.drift.listen = Some(vec![]);
        check_ports(&policy, &mut found);
        let mine = found
            .iter()
            .find(|one| one.difference.object == format!("0.0.0.0:{port}/tcp"))
            .unwrap();
        assert!(
            mine.difference
                .actual
                .contains(&format!("({})", std::process::id())),
            "{mine:?}"
        );
        policy.drift.listen = Some(vec![format!("{port}/tcp")]);
        found.clear();
        check_ports(&policy, &mut found);
        assert!(
            !found
                .iter()
                .any(|one| one.difference.object.ends_with(&format!(":{port}/tcp")))
        );
    }
}
