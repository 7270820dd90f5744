use super::namespaces::{NamespaceSettings, userns};
use super::*;
use crate::source::debian::archive::{Archive, tests::debian};

fn nothing() -> ArchiveState {
    ArchiveState {
        digest: [0; 32],
        date: 0,
        lines: vec![],
        stanzas: vec![],
        archive: Archive::default(),
        suites: vec![],
    }
}

fn told(lines: &str) -> String {
    let said: Vec<String> = lines.lines().map(str::to_owned).collect();
    explain(
        &debian("trixie"),
        &nothing(),
        &said,
        "exit status: 25",
        Some(Path::new("/cache/mmdebstrap.log")),
    )
    .to_string()
}

#[test]
fn each_failure_is_one_line_with_a_remedy_and_the_log() {
    for (said, why, remedy) in [
        (
            "Reading package lists...\nE: Unable to locate package ngnix\nE: Unable to locate package ngnix\nE: apt-get failed with exit code 100",
            "suite trixie: package `ngnix` does not exist",
            "remove it from `packages`",
        ),
        (
            "E: Unable to locate package b\nE: Package 'a' has no installation candidate",
            "packages `a`, `b` do not exist",
            "packages",
        ),
        (
            "E: Version '1' for 'nginx' was not found",
            "Version '1' for 'nginx'",
            "madison",
        ),
        (
            "The following packages have unmet dependencies:\n nginx : Depends: libx (= 1) but it is not installable\nE: Unable to correct problems, you have held broken packages.",
            "package nginx can't be installed: Depends: libx (= 1) but it is not installable",
            "same release",
        ),
        (
            "W: GPG error: http://x/ubuntu noble InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 871920D1991BC93C\nE: The repository 'http://x/ubuntu noble InRelease' is not signed.",
            "http://x/ubuntu noble is signed with key 871920D1991BC93C, which no keyring of this machine has",
            "`keyring`",
        ),
        (
            "W: OpenPGP signature verification failed: http://x/debian sid InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 871920D1991BC93C, which is needed to verify signature.",
            "http://x/debian sid is signed with key 871920D1991BC93C",
            "`keyring`",
        ),
        (
            "W: GPG error: http://x/debian sid InRelease: The following signatures were invalid: EXPKEYSIG 648ACFD622F3D138 Debian",
            "expired key",
            "keyring",
        ),
        (
            "W: http://x/dists/sid/InRelease: The key(s) in the keyring /root/k.gpg are ignored as the file is not readable by user '_apt' executing apt-key.\nW: GPG error: http://x sid InRelease: NO_PUBKEY 871920D1991BC93C",
            "apt's user can't read a keyring",
            "chmod a+r",
        ),
        (
            "E: The repository 'file:/srv ./ Release' is not signed.",
            "not signed",
            "trusted=yes",
        ),
        (
            "E: Release file for http://x/InRelease is expired (invalid since 24d 8h). Updates for this repository will not be applied.",
            "expired",
            "check-valid-until",
        ),
        (
            "E: Release file for http://x/InRelease is not valid yet (invalid for another 2h). Updates",
            "future",
            "clock",
        ),
        (
            "E: Failed to fetch http://x/a.deb  404  Not Found [IP: 10.0.0.1 80]",
            "404  Not Found",
            "build again",
        ),
        (
            "E: Failed to fetch http://me:secret@x/a.deb  Could not resolve 'x'",
            "http://x/a.deb  Could not resolve 'x'",
            "network",
        ),
        (
            "dpkg: error processing package slapd (--configure):\n installed slapd package post-installation script subprocess returned error exit status 1",
            "package slapd can't be installed: installed slapd package post-installation script subprocess returned error exit status 1",
            "script",
        ),
        (
            "dpkg: error processing archive /var/cache/apt/archives/x.deb (--unpack):\n cannot copy extracted data: failed to write (No space left on device)",
            "no space left in",
            "TMPDIR",
        ),
        (
            "E: You don't have enough free space in /tmp/mmdebstrap.x/var/cache/apt/archives/.",
            "no space left in",
            "TMPDIR",
        ),
        (
            "E: something new\nE: setup failed: E: apt-get failed with exit code 100",
            "mmdebstrap failed: something new",
            "--verbose",
        ),
        ("", "mmdebstrap failed (exit status: 25)", "--verbose"),
    ] {
        let told = told(said);
        let (first, second) = told.split_once('\n').unwrap();
        assert!(first.contains(why), "{said}\n{told}");
        assert!(
            second.contains(remedy) && second.contains("/cache/mmdebstrap.log"),
            "{said}\n{told}"
        );
        assert!(!second.contains('\n') && !told.contains("secret"), "{told}");
    }
}

#[test]
fn a_build_without_root_names_what_is_missing() {
    let machine = |newuidmap, ids: &str, settings: &[(&'static str, &str)]| NamespaceSettings {
        newuidmap,
        subuid: ids.to_owned(),
        subgid: ids.to_owned(),
        settings: settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
    };
    let why = |machine: &NamespaceSettings| userns("me", machine).unwrap();
    assert_eq!(why(&machine(false, "", &[])).1, "apt-get install uidmap");
    let none = why(&machine(true, "mee:100000:65536\n", &[]));
    assert!(
        none.0.contains("/etc/subuid") && none.1.contains("usermod --add-subuids"),
        "{none:?}"
    );
    let ids = "root:1:1\nme:100000:65536\n";
    for (name, value, remedy) in [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "user/max_user_namespaces",
            "0",
            "sysctl user.max_user_namespaces=15000",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        assert_eq!(why(&machine(true, ids, &[(name, value)])).1, remedy);
    }
    assert!(
        why(&machine(
            true,
            ids,
            &[("kernel/unprivileged_userns_clone", "1")]
        ))
        .1
        .contains("container")
    );
}
