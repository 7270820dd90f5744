//! Writes files to /run that describe mounts, the watchdog and devices to the image's systemd.
//! systemd reads them when it starts. Other init systems ignore them.

use std::fs;
use std::io;
use std::path::Path;

use adamant_contract::report;

/// See systemd-system.conf(5). Its name sorts first, so that a drop-in of the image overrides it.
const WATCHDOG: &str = "/run/systemd/system.conf.d/00-adamant-watchdog.conf";
/// Units in this directory override those of /usr/lib, and those of /etc override them
/// (systemd.unit(5)).
const UNITS: &str = "/run/systemd/system";
/// Directory for udev rules that are made at run time.
pub const RULES: &str = "/run/udev/rules.d";
/// File name of the agent's udev rules.
pub const RULE: &str = "00-adamant.rules";

/// Makes systemd feed the watchdog. By default it does not touch a watchdog that is already armed,
/// and the machine would reset.
pub fn enable_watchdog() -> io::Result<()> {
    write(Path::new(WATCHDOG), "[Manager]\nRuntimeWatchdogSec=60s\n")
}

/// Writes units for the volumes. Without one, no service requires the mount, so that systemd would
/// unmount it at shutdown while the journal and others still write to it.
pub fn describe_volumes(volumes: &[report::VolumeReport]) -> io::Result<()> {
    for volume in volumes {
        let report::VolumeReport {
            name,
            device,
            mount,
            ..
        } = volume;
        describe(
            mount,
            device,
            &format!("Volume {name}"),
            "Before=local-fs.target\n",
            "Type=ext4\nOptions=nosuid,nodev,noexec\n",
        )?;
    }
    Ok(())
}

/// Writes a unit for a file system in memory. Without it, systemd would mount its own unit of the
/// same name over it, or change its mount options.
pub fn describe_memory(mount: &str) -> io::Result<()> {
    describe(
        mount,
        "tmpfs",
        &format!("Memory at {mount}"),
        "",
        "Type=tmpfs\nOptions=mode=1777,strictatime,nosuid,nodev,noexec\n",
    )
}

/// Writes a unit for the bind mount over /etc/machine-id, so that systemd does not try to unmount
/// it: nothing can.
pub fn describe_machine_id(source: &str) -> io::Result<()> {
    describe(
        "/etc/machine-id",
        source,
        "This server's machine-id",
        "",
        "Options=bind,ro\n",
    )
}

/// Writes units for data of the image that is shown on a volume, which can't be unmounted either.
pub fn describe_image_data(paths: &[String]) -> io::Result<()> {
    paths.iter().try_for_each(|path| {
        describe(
            path,
            "/dev/mapper/root",
            "Data of the image",
            "",
            "Options=bind,ro\n",
        )
    })
}

/// The unit of a file system that is already mounted and stays mounted until the machine ends.
fn describe(mount: &str, what: &str, description: &str, order: &str, how: &str) -> io::Result<()> {
    let unit = format!(
        "[Unit]\nDescription={description}\nDefaultDependencies=no\n{order}\n[Mount]\nWhat={what}\nWhere={mount}\n{how}"
    );
    write(&Path::new(UNITS).join(unit_name(mount)), &unit)
}

/// Stops systemd from making automounts for the disk's ESP, which the guard refuses, so that no
/// unit fails.
pub fn disable_esp_automounts(allowed: &[String]) -> io::Result<()> {
    for mount in ["/efi", "/boot"]
        .iter()
        .filter(|mount| !allowed.iter().any(|path| path == *mount))
    {
        fs::create_dir_all(UNITS)?;
        for kind in ["automount", "mount"] {
            std::os::unix::fs::symlink(
                "/dev/null",
                Path::new(UNITS).join(unit_name(mount)).with_extension(kind),
            )?;
        }
    }
    Ok(())
}

/// The unit of root's own service manager, which pam_systemd starts at a login.
pub const MANAGER_OF_ROOT: &str = "user@0.service";
/// The template of the managers of users.
const MANAGERS: &str = "/sysroot/usr/lib/systemd/system/user@.service";

/// Stops logind from starting root's own service manager, which the guard refuses, so that no unit
/// fails. Root logs in without it.
pub fn disable_manager_of_root() -> io::Result<()> {
    if !Path::new(MANAGERS).exists() {
        return Ok(());
    }
    fs::create_dir_all(UNITS)?;
    std::os::unix::fs::symlink("/dev/null", Path::new(UNITS).join(MANAGER_OF_ROOT))
}

/// Services that load modules on request. The guard recognizes them by their cgroups. Two ways
/// around that are closed here: systemd puts any process that root names into a delegated cgroup,
/// and systemd-modules-load would take module names from a command line in the manager's
/// environment, which root can set.
pub const MODULE_LOADERS: [&str; 2] = ["systemd-udevd.service.d", "systemd-modules-load.service.d"];

/// Makes sure that only systemd itself can start processes that the guard takes for these services.
pub fn protect_module_loaders() -> io::Result<()> {
    for folder in MODULE_LOADERS {
        write(
            &Path::new(UNITS).join(folder).join("00-adamant.conf"),
            "[Service]\nDelegate=no\nUnsetEnvironment=SYSTEMD_PROC_CMDLINE\n",
        )?;
    }
    Ok(())
}

/// Gives names below /dev/disk to the partitions of the disk that the machine started from
/// (udev(7), "OPTIONS"), even if a disk with the same labels appears.
pub fn pin_disk_names(disk: &str) -> io::Result<()> {
    let between = if disk.ends_with(|last: char| last.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    let rule = format!(
        "SUBSYSTEM==\"block\", KERNEL==\"{disk}|{disk}{between}[0-9]*\", OPTIONS+=\"link_priority=100\"\n"
    );
    write(&Path::new(RULES).join(RULE), &rule)
}

/// The name of a mount point's unit (systemd.unit(5), "String Escaping for Inclusion in Unit
/// Names").
pub fn unit_name(mount: &str) -> String {
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
    use adamant_skip::skip;

    #[test]
    fn units_are_named_as_systemd_escape_names_them() {
        for mount in ["/var", "/var/log", "/srv/my-app", "/.hidden/.x", "/srv/ä"] {
            let Ok(output) = std::process::Command::new("systemd-escape")
                .args(["--path", "--suffix=mount", mount])
                .output()
            else {
                skip!(Program("systemd-escape"));
            };
            assert_eq!(
                unit_name(mount),
                String::from_utf8_lossy(&output.stdout).trim_end()
            );
        }
    }
}
