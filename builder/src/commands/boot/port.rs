//! Ports of this host that are forwarded to the machine.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::str::FromStr;

use crate::error::{Error, Result};

/// A TCP port of 127.0.0.1 and the guest's port to which it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Port of the host.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Port, String> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
        text.split_once(':')
            .and_then(|(host, guest)| {
                Some(Port {
                    host: number(host)?,
                    guest: number(guest)?,
                })
            })
            .ok_or_else(|| {
                "write HOST:GUEST with port numbers from 1 to 65535, for example 2222:22".to_owned()
            })
    }
}

/// Fails for the first port on which QEMU could not listen.
pub fn check_free(ports: &[Port]) -> Result<()> {
    let mut given = BTreeSet::new();
    for port in ports {
        if !given.insert(port.host) {
            return Err(Error::new(format!(
                "--port {}:{}: port {} of 127.0.0.1 is given twice",
                port.host, port.guest, port.host
            ))
            .hint("choose another HOST port for one of them"));
        }
        // The listener is closed immediately. QEMU opens its own.
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port.host)) {
            let flag = format!("--port {}:{}", port.host, port.guest);
            return Err(match error.kind() {
                ErrorKind::AddrInUse => Error::new(format!(
                    "{flag}: another program uses port {} of 127.0.0.1",
                    port.host
                ))
                .hint(format!(
                    "choose another HOST port, or find that program with `ss -ltnp sport = :{}`",
                    port.host
                )),
                ErrorKind::PermissionDenied => Error::new(format!(
                    "{flag}: this user may not listen on port {}",
                    port.host
                ))
                .hint("choose a HOST port above 1023"),
                _ => Error::new(format!(
                    "{flag}: listening on port {} of 127.0.0.1: {error}",
                    port.host
                ))
                .hint("choose another HOST port"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_pairs_of_port_numbers() {
        assert_eq!(
            "2222:22".parse(),
            Ok(Port {
                host: 2222,
                guest: 22
            })
        );
        for bad in [
            "", "22", ":22", "22:", "0:22", "22:0", "65536:22", "1:2:3", "-1:2", "a:b",
        ] {
            assert!(
                bad.parse::<Port>()
                    .is_err_and(|why| why.contains("2222:22")),
                "{bad}"
            );
        }
    }

    #[test]
    fn refuses_a_port_that_is_taken_or_given_twice() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = taken.local_addr().unwrap().port();
        let error = check_free(&[Port { host, guest: 22 }]).unwrap_err();
        assert!(
            error.message().contains(&format!(
                "--port {host}:22: another program uses port {host} of 127.0.0.1"
            )),
            "{error}"
        );
        drop(taken);
        // A process that another test is starting holds the listener until its exec.
        let freed = (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            check_free(&[Port { host, guest: 22 }]).is_ok()
        });
        assert!(freed);
        assert!(
            check_free(&[Port { host, guest: 22 }, Port { host, guest: 80 }])
                .unwrap_err()
                .message()
                .contains("given twice")
        );
    }
}
