//! Files in /run that tell the image's systemd about mounts, the watchdog and devices that the
//! agent has set up. systemd reads them when it starts; another init ignores them.

use std::fs;
use std::io;
use std::path::Path;

use adamant_contract::report;

/// systemd-system.conf(5). Its name sorts first, so that a drop-in of the image's own decides.
const WATCHDOG: &str = "/run/systemd/system.conf.d/00-adamant-watchdog.conf";
/// Units here come after those of /etc and before those of /usr/lib (systemd.unit(5)).
const UNITS: &str = "/run/systemd/system";
/// Directory for udev rules that are made at run time.
pub const RULES: &str = "/run/udev/rules.d";
/// File name of the agent's udev rules.
pub const RULE: &str = "00-adamant.rules";

/// Left alone, systemd does not touch an armed watchdog, and the machine would restart under it.
pub fn feed_the_watchdog() -> io::Result<()> {
    write(Path::new(WATCHDOG), "[Manager]\nRuntimeWatchdogSec=60s\n")
}

/// A mount that systemd only sees but has no unit for is required by nothing, so that at shutdown
/// it would be unmounted under those who still write to it, the journal first of all.
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

/// The same for what is in memory: systemd's own units of these names would be mounted over it, or
/// ask for other flags.
pub fn describe_memory(mount: &str) -> io::Result<()> {
    describe(
        mount,
        "tmpfs",
        &format!("Memory at {mount}"),
        "",
        "Type=tmpfs\nOptions=mode=1777,strictatime,nosuid,nodev,noexec\n",
    )
}

/// What is bound over the image's /etc/machine-id stays there: nothing can unmount it, and nobody
/// has to try.
pub fn describe_machine_id(source: &str) -> io::Result<()> {
    describe(
        "/etc/machine-id",
        source,
        "This server's machine-id",
        "",
        "Options=bind,ro\n",
    )
}

/// The same for data of the image that is shown on a volume.
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

/// The unit of something that is mounted already, and stays so until the machine ends.
fn describe(mount: &str, what: &str, description: &str, order: &str, how: &str) -> io::Result<()> {
    let unit = format!(
        "[Unit]\nDescription={description}\nDefaultDependencies=no\n{order}\n[Mount]\nWhat={what}\nWhere={mount}\n{how}"
    );
    write(&Path::new(UNITS).join(unit_name(mount)), &unit)
}

/// systemd finds the disk's ESP by itself and makes automounts for it, which the guard refuses:
/// without a unit there is nothing to fail.
pub fn leave_the_esp_alone(allowed: &[String]) -> io::Result<()> {
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

/// Services that load modules on request. The guard knows them by their cgroups: into one that is
/// delegated, systemd puts whatever process root names. And systemd-modules-load would take the
/// names of modules from a command line that root has put into the manager's environment.
pub const MODULE_LOADERS: [&str; 2] = ["systemd-udevd.service.d", "systemd-modules-load.service.d"];

/// Has nobody but systemd start what the guard takes for these services.
pub fn keep_module_loaders_apart() -> io::Result<()> {
    for folder in MODULE_LOADERS {
        write(
            &Path::new(UNITS).join(folder).join("00-adamant.conf"),
            "[Service]\nDelegate=no\nUnsetEnvironment=SYSTEMD_PROC_CMDLINE\n",
        )?;
    }
    Ok(())
}

/// Names below /dev/disk stay with the partitions of the disk that the machine started from
/// (udev(7), "OPTIONS"), whatever labels another has that appears.
pub fn keep_names(disk: &str) -> io::Result<()> {
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
