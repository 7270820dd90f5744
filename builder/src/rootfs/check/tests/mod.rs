mod mounts;
mod programs;
mod units;

use super::samples::found;
use super::*;

#[test]
fn a_good_image_has_no_findings() {
    assert_eq!(found("", &[]), []);
}

#[test]
fn faults_that_make_an_image_useless_are_errors() {
    for (rule, part, changes) in [
        (
            "no-init",
            "leads to ../lib/systemd/systemd",
            &[("/usr/lib/systemd/systemd", "-")][..],
        ),
        (
            "no-mount-point",
            "/proc does not exist in the image",
            &[("/proc", "-")],
        ),
        (
            "no-mount-point",
            "/var/log, the mount point of volume \"logs\", does not exist in the image",
            &[("/var/log", "-")],
        ),
        (
            "no-volume-tools",
            "no e2fsck, which the agent needs",
            &[("/usr/sbin/e2fsck", "-")],
        ),
        ("no-machine-id", "missing", &[("/etc/machine-id", "-")]),
        (
            "no-machine-id",
            "not a file",
            &[("/etc/machine-id", "-> /var/lib/id")],
        ),
        (
            "sshd-without-host-keys",
            "read-only root",
            &[
                (
                    "/etc/systemd/system/multi-user.target.wants/ssh.service",
                    "x",
                ),
                (
                    "/usr/lib/systemd/system/ssh.service",
                    "[Service]\nExecStart=/usr/sbin/sshd -D\n",
                ),
                ("/usr/sbin/sshd", "ELF"),
            ],
        ),
        (
            "no-image-name",
            "IMAGE_ID",
            &[("/usr/lib/os-release", "ID=debian\n")],
        ),
        (
            "no-disk-driver",
            "no driver for any disk",
            &[
                ("/boot/vmlinuz-6.1", "MZ"),
                ("/boot/config-6.1", "CONFIG_EXT4_FS=y\n"),
                (
                    "/usr/lib/modules/6.1/modules.dep",
                    "kernel/fs/erofs/erofs.ko.xz:\n",
                ),
            ],
        ),
        (
            "no-ext4",
            "does not support ext4",
            &[
                ("/boot/vmlinuz-6.1", "MZ"),
                ("/boot/config-6.1", "CONFIG_EROFS=y\n"),
                (
                    "/usr/lib/modules/6.1/modules.dep",
                    "kernel/drivers/block/virtio_blk.ko.xz:\n",
                ),
            ],
        ),
    ] {
        let findings = found("", changes);
        assert!(
            findings
                .iter()
                .any(|f| f.is_error && f.rule == rule && f.message.contains(part)),
            "{rule}: {findings:?}"
        );
    }
}

#[test]
fn faults_of_one_service_are_warnings_with_a_remedy() {
    let wanted = |unit: &str| format!("/etc/systemd/system/multi-user.target.wants/{unit}");
    let bad = wanted("bad.service");
    let ssh = wanted("ssh.service");
    for (rule, part, hint, changes) in [
        (
            "link-leaves-image",
            "/srv/out -> ../../etc",
            "path = \"/srv/out\"",
            vec![("/srv/out", "-> ../../etc")],
        ),
        (
            "unit-writes-read-only",
            "bad.service (/etc/bad)",
            "link = \"/dev/null\"",
            vec![
                (&*bad, "[Service]\nReadWritePaths=/etc/bad\n"),
                (
                    "/usr/lib/systemd/system/bad.service",
                    "[Service]\nReadWritePaths=/etc/bad\n",
                ),
            ],
        ),
        (
            "unit-writes-read-only",
            "bad.service (/opt/x.log)",
            "mount = \"/opt\"",
            vec![
                (&*bad, "x"),
                (
                    "/usr/lib/systemd/system/bad.service",
                    "[Service]\nStandardOutput=append:/opt/x.log\n",
                ),
            ],
        ),
        (
            "sshd-without-host-keys",
            "no unit that starts at boot creates",
            "HostKey /var/lib/ssh",
            vec![
                (&*ssh, "x"),
                ("/usr/lib/systemd/system/ssh.service", "[Service]\n"),
                ("/usr/sbin/sshd", "ELF"),
                ("/etc/ssh/sshd_config", "HostKey /var/lib/ssh/key\n"),
            ],
        ),
        (
            "sshd-shared-host-keys",
            "ssh_host_rsa_key",
            "HostKey /var/lib/ssh",
            vec![
                (&*ssh, "x"),
                ("/usr/lib/systemd/system/ssh.service", "[Service]\n"),
                ("/usr/sbin/sshd", "ELF"),
                ("/etc/ssh/ssh_host_rsa_key", "k"),
            ],
        ),
        (
            "home-read-only",
            "joe (/home/joe)",
            "mount = \"/home\"",
            vec![(
                "/etc/passwd",
                "root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\nd:x:1001:1::/x:/usr/sbin/nologin\n",
            )],
        ),
        (
            "empty-password",
            "root",
            "ssh.authorized_keys.root",
            vec![("/etc/shadow", "root::1:::::: \na:*:1::::::\n")],
        ),
        (
            "shared-machine-id",
            "machine-id",
            "keep",
            vec![("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")],
        ),
    ] {
        let findings = found("", &changes);
        let [finding] = &findings[..] else {
            panic!("{rule}: {findings:?}")
        };
        assert!(
            !finding.is_error
                && finding.rule == rule
                && finding.message.contains(part)
                && finding.hint.contains(hint),
            "{rule}: {finding:?}"
        );
    }
}

#[test]
fn warns_of_an_image_without_a_state_volume() {
    let rules: Vec<_> = found("volumes = []", &[])
        .into_iter()
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(rules, ["unit-writes-read-only", "var-read-only"]);
}

#[test]
fn accepts_an_image_with_all_remedies_applied() {
    let ssh = (
        "/etc/systemd/system/multi-user.target.wants/ssh.service",
        "x",
    );
    let moved = [
        ssh,
        (
            "/usr/lib/systemd/system/ssh.service",
            "[Service]\nExecStart=/usr/sbin/sshd -D\n",
        ),
        (
            "/etc/systemd/system/ssh.service.d/key.conf",
            "[Service]\nExecStartPre=/bin/sh -c 'ssh-keygen -A -f /var/lib/ssh'\n",
        ),
        (
            "/etc/ssh/sshd_config.d/key.conf",
            "HostKey /var/lib/ssh/ssh_host_ed25519_key\n",
        ),
        ("/usr/sbin/sshd", "ELF"),
    ];
    assert_eq!(found("", &moved), []);
    let named = [
        ssh,
        (
            "/usr/lib/systemd/system/ssh.service",
            "[Service]\nExecStart=/usr/sbin/sshd -D -o HostKey=/var/lib/ssh/key\n",
        ),
        ("/usr/sbin/sshd", "ELF"),
    ];
    assert_eq!(found("", &named), []);
    let masked = [
        ssh,
        ("/usr/lib/systemd/system/ssh.service", "[Service]\n"),
        ("/etc/systemd/system/ssh.service", "-> /dev/null"),
        ("/usr/sbin/sshd", "ELF"),
    ];
    assert_eq!(found("", &masked), []);
    let fstab = [
        ("/usr/lib/systemd/system/tmp.mount", "-"),
        ("/etc/fstab", "# x\ntmpfs /tmp tmpfs nosuid 0 0\n"),
    ];
    assert_eq!(found("", &fstab), []);
    let skipped = [
        (
            "/etc/systemd/system/multi-user.target.wants/bad.service",
            "x",
        ),
        (
            "/usr/lib/systemd/system/bad.service",
            "[Unit]\nConditionPathIsReadWrite=/etc/x\n[Service]\nReadWritePaths=/etc/x\n",
        ),
    ];
    assert_eq!(found("", &skipped), []);
    let permission = [
        (
            "/etc/systemd/system/multi-user.target.wants/logind.service",
            "x",
        ),
        (
            "/usr/lib/systemd/system/logind.service",
            "[Service]\nReadWritePaths=/etc /run\n",
        ),
    ];
    assert_eq!(found("", &permission), []);
}

#[test]
fn links_up_to_the_root_stay_in_the_image() {
    for (path, target, out) in [
        ("/etc/os-release", "../usr/lib/os-release", false),
        ("/a", "..", true),
        ("/a/b", "..", false),
        ("/a/b", "../..", true),
        ("/a/b", "c/../../d", false),
        ("/a/b", "/../../x", false),
        ("/a", "./b", false),
    ] {
        assert_eq!(
            leaves(path.as_bytes(), target.as_bytes()),
            out,
            "{path} -> {target}"
        );
    }
}

#[test]
fn names_programs_that_the_seal_denies_or_needs() {
    let changes = [
        ("/usr/bin/dash", "ELF"),
        ("/usr/bin/sh", "-> dash"),
        ("/usr/bin/python3.13", "ELF"),
        ("/usr/share/perl", "no program"),
        ("/usr/sbin/sshd", "ELF"),
    ];
    let findings = found(
        "[seal]\ndeny = [\"shell\", \"interpreter\", \"setuid\"]",
        &changes,
    );
    let messages: Vec<&str> = findings
        .iter()
        .filter(|found| found.rule == "denied")
        .map(|found| found.message.as_str())
        .collect();
    // Files of this small image are all executable.
    assert_eq!(
        messages[0],
        "[seal] deny has \"shell\", and the image has /usr/bin/dash"
    );
    assert!(
        messages[1].contains("/usr/bin/python3.13") && messages.len() == 2,
        "{messages:?}"
    );
    assert!(
        found("", &changes)
            .iter()
            .all(|found| found.rule != "denied")
    );
    let scripts = |more: &str| {
        let findings = found(
            &format!("[seal]\nlevel = \"guard\"\nscripts = \"refuse\"\n{more}"),
            &[("/usr/bin/dash", "\x7fELF"), ("/usr/bin/sh", "-> dash")],
        );
        findings
            .into_iter()
            .filter(|found| found.rule == "no-interpreter")
            .map(|found| format!("{} ({})", found.message, found.hint))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        scripts("[seal.allow]\nscripts = [\"/usr/bin/sh\"]"),
        [""; 0]
    );
    assert_eq!(
        scripts(
            "interpreters = [\"/usr/bin/python3\"]\n[seal.allow]\nscripts = [\"/usr/bin/sh\", \"/usr/bin/perl\"]"
        ),
        [
            "[seal] interpreters names /usr/bin/python3, which is not a program of the image (name a program of the image that is neither a script nor below a volume)",
            "[seal.allow] scripts names /usr/bin/perl, which is not an interpreter of the image (name one of its interpreters: the image has /usr/bin/dash)",
        ]
    );
    let start = |more: &str| {
        let cloud = [("/usr/bin/cloud-init", "\x7fELF")];
        let rules = ["instructions-on-volume", "no-start-place"];
        let findings = found(&format!("{more}[seal]\nlevel = \"guard\"\n"), &cloud);
        findings
            .into_iter()
            .filter(|found| found.is_error && rules.contains(&found.rule))
            .map(|found| format!("{} ({})", found.message, found.hint))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        start("[seal.allow]\nat_start = [\"/var/lib/cloud\"]\n"),
        [""; 0]
    );
    assert_eq!(
        start(""),
        [
            "/var/lib/cloud is on a volume, and /usr/bin/cloud-init follows instructions from there at each start. They can't be the image's: /usr/bin/cloud-init does not work if the directory is read-only (leave out the package of /usr/bin/cloud-init; or let the volume decide what runs at each start: [seal.allow] at_start = [\"/var/lib/cloud\"])"
        ]
    );
    assert_eq!(
        start(
            "[seal.allow]\nat_start = [\"/var/lib/cloud\", \"/var/spool/cron\"]\n[[volume]]\nname = \"v\"\nmount = \"/var/lib/cloud\"\nsize = \"16M\"\n"
        ),
        [
            "[seal.allow] at_start names /var/spool/cron, which is not on a volume (leave it out: the verified root has no instructions but the image's)"
        ]
    );
    let kernel = [
        ("/boot/vmlinuz-6.1", "MZ"),
        (
            "/boot/config-6.1",
            "CONFIG_EXT4_FS=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_BPF_LSM=y\n",
        ),
        ("/usr/sbin/modprobe", "ELF"),
    ];
    for (enforce, is_error) in [("require", true), ("prefer", false)] {
        let findings = found(
            &format!("[seal]\nlevel = \"guard\"\nenforce = {enforce:?}"),
            &kernel,
        );
        let found: Vec<&Finding> = findings
            .iter()
            .filter(|found| found.rule == "kernel-without-guard")
            .collect();
        assert!(
            found.len() == 1
                && found[0].is_error == is_error
                && found[0].message.contains("DEBUG_INFO_BTF"),
            "{findings:?}"
        );
    }
    let findings = found(
        "[seal.allow]\nmounts = [\"/srv/containers\", \"/var/lib/containers\"]",
        &[],
    );
    assert!(
        findings.iter().any(|found| found.rule == "no-mount-folder"
            && found.message.contains("/srv/containers")
            && !found.message.contains("/var/lib")),
        "{findings:?}"
    );
}
