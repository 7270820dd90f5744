//! Units that are enabled and cannot work.

use crate::rootfs::check::samples::{found, found_with, put, summaries};

const APP: &str = "/usr/lib/systemd/system/app.service";
const LINK: (&str, &str) = (
    "/etc/systemd/system/multi-user.target.wants/app.service",
    "-> /usr/lib/systemd/system/app.service",
);

/// What is said of an enabled unit with this text, and of other changes.
fn app(text: &str, more: &[(&str, &str)]) -> Vec<String> {
    let changes: Vec<_> = [(APP, text), LINK]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    summaries(&found("", &changes))
}

#[test]
fn an_enabled_unit_that_does_not_exist_is_named_with_its_link() {
    let wants = |name: &str| format!("/etc/systemd/system/multi-user.target.wants/{name}");
    let told_of = |changes: &[(&str, &str)]| summaries(&found("", changes));
    let (ghost, instance, alias) = (
        wants("ghost.service"),
        wants("ghost@a.service"),
        wants("alias.service"),
    );
    assert_eq!(
        told_of(&[(&ghost, "-> /usr/lib/systemd/system/ghost.service")]),
        [format!(
            "warning unit-missing: ghost.service is enabled by {ghost}, and no such unit exists"
        )]
    );
    assert_eq!(
        told_of(&[(&instance, "-> /usr/lib/systemd/system/ghost@.service")]).len(),
        1
    );
    assert_eq!(
        told_of(&[
            (&alias, "x"),
            (
                "/etc/systemd/system/alias.service",
                "-> /usr/lib/systemd/system/ghost.service"
            )
        ])
        .len(),
        1
    );
    // Present, as template, alias, masked unit, script of /etc/init.d; and types that need no file.
    for changes in [
        &[
            (&*instance, "x"),
            ("/usr/lib/systemd/system/ghost@.service", "[Service]\n"),
        ][..],
        &[
            (&alias, "x"),
            (
                "/etc/systemd/system/alias.service",
                "-> /usr/lib/systemd/system/good.service",
            ),
        ],
        &[
            (&ghost, "x"),
            ("/etc/systemd/system/ghost.service", "-> /dev/null"),
        ],
        &[(&ghost, "x"), ("/etc/systemd/system/ghost.service", "")],
        &[(&ghost, "-> /dev/null")],
        &[(&ghost, "x"), ("/etc/init.d/ghost", "#!/bin/sh\n")],
        &[
            (&ghost, "x"),
            (
                "/usr/lib/systemd/system-generators/ghosts",
                "#!/bin/sh\necho >$1/ghost.service\n",
            ),
        ],
        &[
            ("/etc/systemd/system/multi-user.target.wants/srv.mount", "x"),
            ("/etc/systemd/system/multi-user.target.wants/a.slice", "x"),
        ],
        // What is only wanted by a unit's own text may be missing.
        &[(
            "/usr/lib/systemd/system/good.service",
            "[Unit]\nWants=ghost.service\nAfter=ghost.service\n[Service]\n",
        )],
    ] {
        assert_eq!(told_of(changes), [""; 0], "{changes:?}");
    }
    let required = told_of(&[(
        "/usr/lib/systemd/system/good.service",
        "[Unit]\nRequires=ghost.service\n[Service]\n",
    )]);
    assert_eq!(
        required,
        [
            "warning unit-missing: good.service cannot start: it has Requires=ghost.service, and no such unit exists"
        ]
    );
    let target = told_of(&[(
        "/etc/systemd/system/multi-user.target.requires/ghost.service",
        "-> nowhere",
    )]);
    assert!(
        target.len() == 1 && target[0].starts_with("error unit-missing: ghost.service"),
        "{target:?}"
    );
    let timer = told_of(&[
        (&wants("t.timer"), "x"),
        ("/etc/systemd/system/t.timer", "[Timer]\nOnBootSec=1\n"),
    ]);
    assert_eq!(
        timer,
        [
            "warning unit-missing: t.timer cannot start: it has Unit=t.service, and no such unit exists"
        ]
    );
    assert_eq!(
        told_of(&[("/usr/lib/systemd/system/default.target", "-")])[0]
            .split(':')
            .next(),
        Some("warning no-default-target")
    );
}

#[test]
fn a_program_that_a_unit_cannot_start_is_named() {
    for (line, why) in [
        (
            "ExecStart=/usr/bin/app --x",
            Some("ExecStart=/usr/bin/app: it is not in the image"),
        ),
        (
            "ExecStart=@+!/usr/bin/app app",
            Some("ExecStart=/usr/bin/app: it is not in the image"),
        ),
        (
            "ExecStart=app",
            Some("ExecStart=app: it is not in the image"),
        ),
        (
            "ExecStartPre=/opt/plain",
            Some("ExecStartPre=/opt/plain: it is not executable"),
        ),
        (
            "ExecStart=/opt/windows",
            Some(
                "ExecStart=/opt/windows: its lines end with CR LF, so the kernel looks for an interpreter \"/bin/sh\\r\", which does not exist",
            ),
        ),
        (
            "ExecStart=/opt/data",
            Some("ExecStart=/opt/data: it is neither an ELF program nor a script with #!"),
        ),
        (
            "ExecStart=/var/lib/app/run",
            Some("ExecStart=/var/lib/app/run: it is not in the image"),
        ),
        ("ExecStart=-/usr/bin/app", None),
        ("ExecStop=/usr/bin/app", None),
        (
            "ExecStart=/usr/bin/app\nExecStart=\nExecStart=/bin/sh",
            None,
        ),
        ("ExecStart=/usr/bin/%i", None),
        ("ExecStart=sh -c 'x ; y'", None),
        ("ExecStart=/bin/sh -c \"exec /usr/bin/app\"", None),
        ("ExecStart=/srv/run\nRootDirectory=/srv", None),
        ("ExecSearchPath=/opt\nExecStart=script", None),
    ] {
        let more = [
            ("/opt/plain", "0644:ELF"),
            ("/opt/data", "data"),
            ("/opt/script", "#!/bin/sh\n"),
            ("/opt/windows", "#!/bin/sh\r\n"),
        ];
        let told: Vec<_> = app(&format!("[Service]\n{line}\n"), &more)
            .into_iter()
            .filter(|line| line.contains("unit-program"))
            .collect();
        // On a volume a program may appear later, but for one that is mounted noexec.
        let expected = match why {
            Some(_) if line.contains("/var/lib") => Vec::new(),
            Some(why) => vec![format!(
                "warning unit-program-cannot-run: app.service cannot start: {why}"
            )],
            None => Vec::new(),
        };
        assert_eq!(told, expected, "{line}");
    }
    let noexec = app(
        "[Service]\nExecStart=/var/lib/app/run\n",
        &[("/var/lib/app/run", "ELF")],
    );
    assert!(
        noexec.len() == 1
            && noexec[0].contains("it lies on the volume at /var, which is mounted noexec"),
        "{noexec:?}"
    );
    // A condition that does not hold, a format of the kernel's own list.
    assert_eq!(
        app(
            "[Unit]\nConditionFileIsExecutable=/usr/bin/app\n[Service]\nExecStart=/usr/bin/app\n",
            &[]
        ),
        [""; 0]
    );
    assert_eq!(
        app(
            "[Unit]\nConditionPathExists=|/a\nConditionPathExists=|!/usr\n[Service]\nExecStart=/usr/bin/app\n",
            &[]
        ),
        [""; 0]
    );
    assert_eq!(app("[Unit]\nConditionPathExists=|/a\nConditionPathExists=|/usr\n[Service]\nExecStart=/usr/bin/app\n", &[]).len(), 1);
    assert_eq!(
        app(
            "[Service]\nExecStart=/opt/data\n",
            &[("/opt/data", "data"), ("/usr/lib/binfmt.d/x.conf", ":x:")]
        ),
        [""; 0]
    );
}

#[test]
fn names_missing_accounts_with_the_file_that_describes_them() {
    for (line, part) in [
        (
            "User=ghost",
            Some("app.service cannot start: it has User=ghost, and /etc/passwd has no such user"),
        ),
        (
            "Group=ghost",
            Some("it has Group=ghost, and /etc/group has no such group"),
        ),
        (
            "SupplementaryGroups=web ghost",
            Some("it has SupplementaryGroups=ghost, and /etc/group has no such group"),
        ),
        (
            "User=later",
            Some("it has User=later, a user that only /usr/lib/sysusers.d/later.conf describes"),
        ),
        (
            "Group=later",
            Some("it has Group=later, a group that only /usr/lib/sysusers.d/later.conf describes"),
        ),
        (
            "User=web\nGroup=web\nSupplementaryGroups=root nogroup",
            None,
        ),
        ("User=1000\nGroup=5", None),
        ("User=%i", None),
        ("User=ghost\nGroup=ghost\nDynamicUser=yes", None),
        ("User=nobody", None),
        ("User=json", None),
        ("User=ghost\nUser=", None),
    ] {
        let more = [
            (
                "/usr/lib/sysusers.d/later.conf",
                "# x\nu later - \"Later\" /\n",
            ),
            ("/usr/lib/userdb/json.user", "{}"),
        ];
        let told: Vec<_> = app(&format!("[Service]\n{line}\n"), &more);
        match part {
            Some(part) => assert!(
                told.len() == 1
                    && told[0].starts_with("warning unit-account-missing")
                    && told[0].contains(part),
                "{line}: {told:?}"
            ),
            None => assert_eq!(told, [""; 0], "{line}"),
        }
    }
    let elsewhere = [(
        "/etc/nsswitch.conf",
        "passwd: files sss [NOTFOUND=return]\ngroup: files systemd\n",
    )];
    assert_eq!(app("[Service]\nUser=ghost\n", &elsewhere), [""; 0]);
    assert_eq!(app("[Service]\nGroup=ghost\n", &elsewhere).len(), 1);
}

#[test]
fn names_lines_that_systemd_ignores_with_the_nearest_valid_line() {
    let hints = |text: &str, more: &[(&str, &str)]| -> Vec<String> {
        let changes: Vec<_> = [(APP, text), LINK]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        found("", &changes)
            .iter()
            .map(|found| format!("{} ({})", found.message, found.hint))
            .collect()
    };
    for (line, expected) in [
        (
            "ExecStrt=/bin/sh",
            Some("systemd ignores the unknown key ExecStrt= in [Service] (write ExecStart=)"),
        ),
        (
            "Type=smple",
            Some("systemd ignores Type=smple, an unknown value (write Type=simple)"),
        ),
        (
            "Restart=sometimes",
            Some("systemd ignores Restart=sometimes, an unknown value (write one of no, always"),
        ),
        (
            "Type=notify\nRestart=on-failure\nKillMode=mixed\nX-Own=1\nCapabilityBoundingSet=\nWatchdogSec=3min",
            None,
        ),
        (
            "[Servcie]\nExecStart=/bin/sh",
            Some(
                "systemd ignores the section [Servcie], which is unknown in units of this type (write [Service])",
            ),
        ),
        ("[X-Own]\nA=1\n[Install]\nWantedBy=multi-user.target", None),
    ] {
        let told = hints(&format!("[Service]\n{line}\n"), &[]);
        match expected {
            Some(expected) => assert!(
                told.len() == 1
                    && told[0].starts_with(&format!("{APP}: "))
                    && told[0].contains(expected),
                "{line}: {told:?}"
            ),
            None => assert_eq!(told, [""; 0], "{line}"),
        }
    }
    let drop_in = hints(
        "[Service]\n",
        &[(
            "/etc/systemd/system/app.service.d/a.conf",
            "[Service]\nRestrat=always\n",
        )],
    );
    assert_eq!(
        drop_in,
        [
            "/etc/systemd/system/app.service.d/a.conf: systemd ignores the unknown key Restrat= in [Service] (write Restart=)"
        ]
    );
}

#[test]
fn the_images_own_systemd_decides_which_keys_are_known() {
    let known =
        b"\0Unit.Description\0Service.ExecStart\0Service.NewKey\0Service.Type\0Install.WantedBy\0"
            .as_slice();
    let told_of = |line: &str| {
        summaries(&found_with(
            "",
            &[(APP, &format!("[Service]\n{line}\n")), LINK],
            |tree| {
                put(tree, "/usr/lib/systemd/libsystemd-core-999.so", known);
                put(tree, "/usr/lib/systemd/system/good.service", "[Service]\n");
                put(tree, "/usr/lib/systemd/system/tmp.mount", "[Unit]\n");
                for target in ["multi-user.target", "basic.target", "sysinit.target"] {
                    put(
                        tree,
                        &format!("/usr/lib/systemd/system/{target}"),
                        "[Unit]\n",
                    );
                }
            },
        ))
    };
    assert_eq!(told_of("NewKey=1"), [""; 0]);
    assert_eq!(
        told_of("SomethingElse=1"),
        [format!(
            "warning unit-line-ignored: {APP}: systemd ignores the unknown key SomethingElse= in [Service]"
        )]
    );
}

const ACCEPT: &str = "[credentials]\naccept = [\"ssh.authorized_keys.root\"]";
const SSHD: [(&str, &str); 5] = [
    (
        "/etc/systemd/system/multi-user.target.wants/ssh.service",
        "x",
    ),
    (
        "/usr/lib/systemd/system/ssh.service",
        "[Service]\nExecStart=/usr/sbin/sshd -D\nExecStartPre=-/bin/sh -c ssh-keygen\n",
    ),
    ("/usr/sbin/sshd", "ELF"),
    ("/etc/ssh/sshd_config", "HostKey /var/lib/ssh/key\n"),
    (
        "/usr/lib/tmpfiles.d/provision.conf",
        "# x\nd- /root/.ssh :0700 root :root -\nf^ /root/.ssh/authorized_keys :0600 root :root - ssh.authorized_keys.root\n",
    ),
];

#[test]
fn warns_of_a_root_key_credential_that_allows_no_login() {
    let with = |more: &[(&str, &str)]| -> Vec<String> {
        let changes: Vec<_> = SSHD.iter().chain(more).copied().collect();
        summaries(&found(ACCEPT, &changes))
    };
    let begin = "warning credential-without-effect: [credentials] accepts \"ssh.authorized_keys.root\", but it allows no login: ";
    assert_eq!(
        summaries(&found(ACCEPT, &[])),
        [format!("{begin}the image has no SSH server")]
    );
    assert_eq!(
        with(&[(
            "/etc/systemd/system/multi-user.target.wants/ssh.service",
            "-"
        )]),
        [format!("{begin}no unit of the SSH server is enabled")]
    );
    assert_eq!(
        with(&[("/usr/lib/tmpfiles.d/provision.conf", "-")]),
        [format!(
            "{begin}no file in tmpfiles.d writes it where sshd reads it"
        )]
    );
    assert_eq!(
        with(&[]),
        [format!(
            "{begin}/usr/lib/tmpfiles.d/provision.conf writes it to /root/.ssh/authorized_keys, on the read-only root"
        )]
    );
    let run = (
        "/etc/tmpfiles.d/provision.conf",
        "f^ /run/ssh/authorized_keys/root 0600 root root - ssh.authorized_keys.root\n",
    );
    assert_eq!(
        with(&[run]),
        [format!(
            "{begin}systemd-tmpfiles writes it to /run/ssh/authorized_keys/root, and sshd reads keys from /root/.ssh/authorized_keys, /root/.ssh/authorized_keys2"
        )]
    );
    let reads = (
        "/etc/ssh/sshd_config.d/10.conf",
        "AuthorizedKeysFile .ssh/authorized_keys /run/ssh/authorized_keys/%u\n",
    );
    assert_eq!(with(&[run, reads]), [""; 0]);
    let refused = ("/etc/ssh/sshd_config.d/20.conf", "PermitRootLogin no\n");
    assert_eq!(
        with(&[run, reads, refused]),
        [format!("{begin}sshd_config has PermitRootLogin no")]
    );
    // A home on a volume, and a unit of one's own.
    assert_eq!(
        with(&[
            ("/etc/passwd", "root:x:0:0::/var/lib/root:/bin/sh\n"),
            (
                "/usr/lib/tmpfiles.d/provision.conf",
                "f^ /var/lib/root/.ssh/authorized_keys - - - - ssh.authorized_keys.root\n"
            )
        ]),
        [""; 0]
    );
    assert_eq!(
        with(&[(
            "/usr/lib/systemd/system/good.service",
            "[Service]\nImportCredential=ssh.authorized_keys.*\n"
        )]),
        [""; 0]
    );
    // Nobody asked for it.
    assert_eq!(
        summaries(&found("[credentials]\naccept = [\"network.*\"]", &[])),
        [""; 0]
    );
}

#[test]
fn warns_of_a_kernel_command_line_without_a_serial_console() {
    let kernel = [
        ("/boot/vmlinuz-6.1", "MZ"),
        ("/usr/lib/modules/6.1/modules.dep", ""),
    ];
    let rules = |cmdline: &str| -> Vec<&str> {
        found(&format!("kernel = {{ cmdline = {cmdline:?} }}"), &kernel)
            .into_iter()
            .map(|found| found.rule)
            .collect()
    };
    assert_eq!(rules("quiet console=tty0"), ["no-serial-console"]);
    assert_eq!(rules("console=ttyS1"), ["no-serial-console"]);
    assert_eq!(rules("console=tty0 console=ttyS0,115200n8"), [""; 0]);
    assert_eq!(
        summaries(&found("kernel = { cmdline = \"\" }", &[])),
        [""; 0]
    );
}
