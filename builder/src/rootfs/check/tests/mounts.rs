//! Mount points that are links, and devices that no machine from the image has.

use crate::rootfs::check::samples::{found, summaries};

fn volumes(list: &[(&str, &str)]) -> String {
    list.iter()
        .map(|(name, mount)| {
            format!("[[volume]]\nname = {name:?}\nmount = {mount:?}\nsize = \"16M\"\n")
        })
        .collect()
}

/// Message and hint of each error about a mount point.
fn mount_points(list: &[(&str, &str)], changes: &[(&str, &str)]) -> Vec<String> {
    // The tables of a definition may come in any order.
    let findings = found(&volumes(list), changes);
    findings
        .iter()
        .filter(|found| found.rule.contains("mount-point"))
        .map(|found| format!("{} ({})", found.message, found.hint))
        .collect()
}

#[test]
fn a_volume_on_a_symbolic_link_is_refused_with_link_target_and_remedy() {
    let var = ("state", "/var");
    assert_eq!(
        mount_points(
            &[var, ("home", "/home")],
            &[("/home", "-> var/home"), ("/var/home/", "")]
        ),
        [
            "/home, the mount point of volume \"home\", is a symbolic link (/home -> var/home), and the agent follows no symbolic links when it mounts (write mount = \"/var/home\"; \
             or replace the link by a directory: [[file]] path = \"/home\", absent = true, and [[file]] path = \"/home\", directory = true)"
        ]
    );
    // Absolute, chained, and to nothing.
    let chained = mount_points(
        &[var, ("home", "/home")],
        &[
            ("/home", "-> /h2"),
            ("/h2", "-> srv/../var/h3"),
            ("/srv/", ""),
        ],
    );
    assert!(
        chained.len() == 1 && chained[0].contains("(/home -> /h2, /h2 -> srv/../var/h3)"),
        "{chained:?}"
    );
    assert!(
        chained[0].contains(
            "write mount = \"/var/h3\" and [[file]] path = \"/var/h3\", directory = true;"
        ),
        "{chained:?}"
    );
    // Within another volume.
    let logs = mount_points(
        &[var, ("logs", "/var/log")],
        &[("/var/log", "-> volatile/log"), ("/var/volatile/log/", "")],
    );
    assert!(
        logs.len() == 1
            && logs[0].contains("/var/log -> volatile/log")
            && logs[0].contains("mount = \"/var/volatile/log\""),
        "{logs:?}"
    );
    // A parent that is a link: of the merged /usr, where no volume can be.
    let usr = mount_points(
        &[("app", "/lib/app")],
        &[("/lib", "-> usr/lib"), ("/usr/lib/app/", "")],
    );
    assert!(
        usr.len() == 1
            && usr[0].contains("goes through a symbolic link (/lib -> usr/lib)")
            && usr[0].contains("mount the volume elsewhere"),
        "{usr:?}"
    );
    // A place that another volume has.
    let taken = mount_points(&[var, ("v", "/v")], &[("/v", "-> var")]);
    assert!(
        taken.len() == 1 && !taken[0].contains("write mount") && taken[0].contains("absent = true"),
        "{taken:?}"
    );
    let circle = mount_points(&[("v", "/v")], &[("/v", "-> v")]);
    assert!(
        circle.len() == 1 && circle[0].contains("symbolic link loop (/v -> v)"),
        "{circle:?}"
    );
}

#[test]
fn mount_points_of_the_kernel_must_be_directories() {
    let findings = mount_points(
        &[("state", "/var")],
        &[
            ("/run", "-> var/run"),
            ("/var/run/", ""),
            ("/proc", "-"),
            ("/sys", "text"),
        ],
    );
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(
        findings[0].contains("/proc does not exist in the image")
            && findings[1].contains("/sys is not a directory, but"),
        "{findings:?}"
    );
    assert!(
        findings[2].contains("/run is a symbolic link (/run -> var/run)"),
        "{findings:?}"
    );
    assert_eq!(
        mount_points(&[("state", "/var"), ("a", "/srv/a")], &[("/srv/a/", "")]),
        [""; 0]
    );
    let file = mount_points(&[("state", "/var"), ("a", "/srv/a")], &[("/srv/a", "text")]);
    assert!(
        file.len() == 1
            && file[0].contains("/srv/a, the mount point of volume \"a\", is not a directory, but"),
        "{file:?}"
    );
}

/// What is said of /etc/fstab.
fn fstab(text: &str) -> Vec<String> {
    let changes = [
        ("/etc/fstab", text),
        ("/srv/", ""),
        ("/srv/data/", ""),
        ("/boot/efi/", ""),
        ("/mnt/", ""),
        ("/opt/disk.img", "x"),
    ];
    summaries(&found("", &changes))
        .into_iter()
        .filter(|line| line.contains("stab"))
        .collect()
}

#[test]
fn names_fstab_lines_without_a_device_by_their_effect() {
    let text = "# installer\nUUID=0f2b / ext4 errors=remount-ro 0 1\nUUID=5C2A-91F0\t/boot/efi vfat umask=0077 0 1\n/dev/vdb1 /srv/data ext4 defaults 0 2\nUUID=aa none swap sw 0 0\n";
    assert_eq!(
        fstab(text),
        [
            "error stale-fstab: /etc/fstab has lines that stop the boot in emergency mode, where no login is possible: line 2: / (UUID=0f2b): this image's disk has no \
             such device; line 3: /boot/efi (UUID=5C2A-91F0): this image's disk has no such device; line 4: /srv/data (/dev/vdb1): this image's disk has no such device",
            "warning stale-fstab: /etc/fstab has lines that make the boot wait for a missing device and then fail: line 5: swap (UUID=aa): this image's disk has no such device",
        ]
    );
    for (line, part) in [
        ("LABEL=none /srv ext4 defaults 0 2", "error stale-fstab"),
        (
            "/dev/mapper/vg-data /srv ext4 defaults 0 2",
            "error stale-fstab",
        ),
        (
            "/dev/disk/by-id/x /srv xfs defaults 0 2",
            "error stale-fstab",
        ),
        (
            "PARTLABEL=esp /boot/efi vfat defaults 0 2",
            "error stale-fstab",
        ),
        (
            "/srv/my\\040disk /srv none bind",
            "/srv/my disk is not in the image",
        ),
        (
            "tmpfs /cache tmpfs defaults 0 0",
            "the image has no directory /cache",
        ),
        ("tank/data /srv zfs defaults 0 0", "error stale-fstab"),
        (
            "UUID=x /srv ext4 x-systemd.automount 0 0",
            "warning stale-fstab",
        ),
        ("/swapfile none swap sw 0 0", "warning stale-fstab"),
        (
            "UUID=x /var ext4 nofail 0 2",
            "warning fstab-on-volume: /etc/fstab has lines for mount points that the agent mounts itself, so they have no effect: line 1: /var (UUID=x): the volume \"state\"",
        ),
        ("tmpfs /var/log tmpfs defaults", "warning fstab-on-volume"),
        ("tmpfs / tmpfs defaults", "the root is the verified image"),
        ("server:/x /cache nfs _netdev 0 0", "warning stale-fstab"),
    ] {
        let told = fstab(line);
        assert!(
            told.len() == 1 && told[0].contains(part),
            "{line}: {told:?}"
        );
    }
}

#[test]
fn accepts_fstab_lines_that_do_not_delay_the_boot() {
    for line in [
        "UUID=5C2A-91F0 /boot/efi vfat noauto 0 1",
        "UUID=7d1d /srv/data ext4 defaults,nofail 0 2",
        "UUID=x /var ext4 noauto 0 2",
        "LABEL=state /var ext4 defaults 0 2",
        "LABEL=logs /mnt ext4 defaults 0 2",
        "/dev/disk/by-label/state /mnt ext4 defaults 0 2",
        "PARTLABEL=state /mnt ext4 defaults 0 2",
        "tmpfs /srv tmpfs nosuid 0 0",
        "proc /proc proc defaults 0 0",
        "/dev/cdrom /mnt iso9660 noauto,ro 0 0",
        "/srv/data /mnt none bind 0 0",
        "/var/lib/x /mnt none rbind,ro 0 0",
        "/opt/disk.img /mnt ext4 loop,ro 0 0",
        "server:/export /srv nfs _netdev 0 0",
        "//server/share /srv cifs credentials=/etc/x 0 0",
        "UUID=iscsi /srv xfs _netdev 0 0",
        "/dev/zram0 none swap defaults 0 0",
        "overlay /srv overlay lowerdir=/a 0 0",
        "# UUID=x / ext4 defaults 0 1",
        "",
    ] {
        assert_eq!(fstab(line), [""; 0], "{line}");
    }
    let masked = [
        ("/etc/fstab", "UUID=x /srv/data ext4 defaults"),
        ("/srv/data/", ""),
        ("/etc/systemd/system/srv-data.mount", "-> /dev/null"),
    ];
    assert_eq!(summaries(&found("", &masked)), [""; 0]);
}

#[test]
fn an_fstab_line_without_a_device_makes_nothing_writable() {
    let unit = [
        ("/etc/systemd/system/multi-user.target.wants/w.service", "x"),
        (
            "/usr/lib/systemd/system/w.service",
            "[Service]\nReadWritePaths=/srv/data\n",
        ),
        ("/srv/data/", ""),
    ];
    let rules = |line: &str| -> Vec<&str> {
        let changes: Vec<_> = unit.iter().copied().chain([("/etc/fstab", line)]).collect();
        found("", &changes)
            .into_iter()
            .map(|found| found.rule)
            .collect()
    };
    assert_eq!(
        rules("UUID=x /srv/data ext4 defaults 0 2"),
        ["stale-fstab", "unit-writes-read-only"]
    );
    assert_eq!(
        rules("UUID=x /srv/data ext4 noauto 0 2"),
        ["unit-writes-read-only"]
    );
    assert_eq!(rules("UUID=x /srv/data ext4 nofail 0 2"), [""; 0]);
    assert_eq!(rules("tmpfs /srv tmpfs defaults 0 2"), [""; 0]);
}

#[test]
fn names_missing_devices_of_crypttab_and_mount_units() {
    let crypt = |line: &str, fstab: &str| {
        summaries(&found(
            "",
            &[
                ("/etc/crypttab", line),
                ("/etc/fstab", fstab),
                ("/srv/", ""),
            ],
        ))
    };
    let stale = crypt("# x\ndata UUID=x none luks\n", "");
    assert!(
        stale.len() == 1
            && stale[0].contains("warning stale-crypttab")
            && stale[0].contains("line 2: data (UUID=x)"),
        "{stale:?}"
    );
    assert_eq!(crypt("data UUID=x none luks,nofail\n", ""), [""; 0]);
    assert_eq!(
        crypt(
            "data /var/lib/data.img /var/lib/key luks\n",
            "/dev/mapper/data /srv ext4 defaults 0 2"
        ),
        [""; 0]
    );
    assert_eq!(
        crypt(
            "data UUID=x none luks\n",
            "/dev/mapper/data /srv ext4 defaults 0 2"
        )
        .len(),
        2
    );
    let unit = |kind: &str, what: &str, folder: &str| {
        let (unit, link) = (
            format!("/etc/systemd/system/srv.{kind}"),
            format!("/etc/systemd/system/{folder}/srv.{kind}"),
        );
        let section = if kind == "swap" { "Swap" } else { "Mount" };
        summaries(&found(
            "",
            &[
                (&unit, &format!("[{section}]\nWhat={what}\n")),
                (&link, "-> ../x"),
            ],
        ))
    };
    let waits = unit("mount", "/dev/disk/by-uuid/x", "multi-user.target.wants");
    assert!(
        waits.len() == 1
            && waits[0]
                .starts_with("warning unit-device-missing: srv.mount has What=/dev/disk/by-uuid/x"),
        "{waits:?}"
    );
    assert!(
        unit("mount", "/dev/vdb", "local-fs.target.requires")[0]
            .starts_with("error unit-device-missing")
    );
    assert!(
        unit("swap", "/dev/vdb", "multi-user.target.wants")[0]
            .starts_with("warning unit-device-missing")
    );
    assert_eq!(
        unit(
            "mount",
            "/dev/disk/by-label/state",
            "local-fs.target.requires"
        ),
        [""; 0]
    );
}

#[test]
fn without_systemd_fstab_lines_are_only_a_warning() {
    let without = [
        ("/usr/lib/systemd", "-"),
        ("/usr/sbin/init", "ELF"),
        ("/etc/fstab", "UUID=x / ext4 defaults 0 1\n"),
    ];
    let told = summaries(&found("", &without));
    assert!(told.len() == 1 && told[0].starts_with("warning stale-fstab: /etc/fstab has lines that cannot be mounted: line 1: / (UUID=x)"), "{told:?}");
}
