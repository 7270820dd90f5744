//! What an image's systemd is told of what the agent has set up: files in /run that it reads when it starts. Another init does not mind.

use std::fs;
use std::io;
use std::path::Path;

use adamant_agent::report;

/// systemd-system.conf(5). Its name sorts first, so that a drop-in of the image's own decides.
const WATCHDOG: &str = "/run/systemd/system.conf.d/00-adamant-watchdog.conf";
/// Units here come after those of /etc and before those of /usr/lib (systemd.unit(5)).
const UNITS: &str = "/run/systemd/system";

/// Left alone, systemd does not touch an armed watchdog, and the machine would restart under it.
pub fn feed_the_watchdog() -> io::Result<()> {
    write(Path::new(WATCHDOG), "[Manager]\nRuntimeWatchdogSec=60s\n")
}

/// A mount that systemd only sees but has no unit for is required by nothing, so that at shutdown it would be unmounted under those who still
/// write to it, the journal first of all.
pub fn describe_volumes(volumes: &[report::Volume]) -> io::Result<()> {
    for volume in volumes {
        let report::Volume { name, device, mount, .. } = volume;
        let unit = format!(
            "[Unit]\nDescription=Volume {name}\nBefore=local-fs.target\n\n[Mount]\nWhat={device}\nWhere={mount}\nType=ext4\nOptions=nosuid,nodev,noexec\n"
        );
        write(&Path::new(UNITS).join(unit_name(mount)), &unit)?;
    }
    Ok(())
}

/// The name of a mount point's unit (systemd.unit(5), "String Escaping for Inclusion in Unit Names").
fn unit_name(mount: &str) -> String {
    let mut name = String::new();
    for (at, byte) in mount.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' => name.push(byte.into()),
            b'.' if at > 0 => name.push('.'),
            _ => name += &format!("\\x{byte:02x}"),
        }
    }
    name + ".mount"
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::unit_name;

    #[test]
    fn units_are_named_as_systemd_escape_names_them() {
        for mount in ["/var", "/var/log", "/srv/my-app", "/.hidden/.x", "/srv/ä"] {
            let Ok(output) = std::process::Command::new("systemd-escape").args(["--path", "--suffix=mount", mount]).output() else {
                eprintln!("skipped: no systemd-escape");
                return;
            };
            assert_eq!(unit_name(mount), String::from_utf8_lossy(&output.stdout).trim_end());
        }
    }
}
