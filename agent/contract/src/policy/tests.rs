use super::*;

const GOOD: &str = r#"{"version": 1, "image": {"id": "web", "version": "1"}, "volume": [{"name": "state", "mount": "/var"}]}"#;

fn with_volume(name: &str, mount: &str) -> String {
    GOOD.replace(
        "}]}",
        &format!("}}, {{\"name\": {name:?}, \"mount\": {mount:?}}}]}}"),
    )
}

fn with_image_data(paths: &str) -> String {
    GOOD.replace("}]}", &format!("}}], \"image_data\": [\"{paths}\"]}}"))
}

#[test]
fn image_data_belongs_to_the_closest_volume_above_it() {
    let policy = with_volume("db", "/var/lib").replace(
        "}]}",
        "}], \"image_data\": [\"/var/lib/dpkg\", \"/var/cache/x\"]}",
    );
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    assert_eq!(policy.volume_of("/var/lib/dpkg").unwrap().name, "db");
    assert_eq!(policy.volume_of("/var/cache/x").unwrap().name, "state");
    assert_eq!(policy.volumes[0].refresh, Refresh::Unchanged);
}

#[test]
fn reads_a_policy_with_defaults() {
    let policy = Policy::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(policy.failure.after_seconds, 10);
    assert_eq!(policy.volumes[0].weight, 1);
    assert_eq!(Policy::parse(&policy.to_json().unwrap()), Ok(policy));
}

#[test]
fn leaves_module_loading_open_only_if_the_guard_knows_the_requester() {
    let open = |seal: &str| {
        let text = GOOD.replacen(
            "\"volume\"",
            &format!("\"seal\": {{{seal}}}, \"volume\""),
            1,
        );
        Policy::parse(text.as_bytes())
            .unwrap()
            .seal
            .loads_modules_on_request()
    };
    assert!(
        open(r#""level": "guard""#)
            && open(
                r#""level": "guard", "module_loading": "image", "allow": {"jit": true, "bpf": true, "mounts": ["/mnt"]}"#
            )
    );
    for seal in [
        "",
        r#""level": "verity", "module_loading": "image""#,
        r#""level": "lockdown", "module_loading": "image""#,
        r#""level": "guard", "module_loading": "boot""#,
        r#""level": "guard", "allow": {"containers": true}"#,
        r#""level": "guard", "allow": {"debug": true}"#,
    ] {
        assert!(!open(seal), "{seal}");
    }
}

#[test]
fn refuses_unknown_keys_and_invalid_values() {
    for (text, why) in [
        (
            GOOD.replace(
                "\"version\": 1, \"image\"",
                "\"version\": 2, \"new\": 1, \"image\"",
            ),
            "version 2, this agent knows version 1",
        ),
        (
            GOOD.replace(
                "\"version\": 1, \"image\"",
                "\"version\": 1, \"new\": 1, \"image\"",
            ),
            "unknown field `new`",
        ),
        (
            GOOD.replace("\"version\": 1, \"image\"", "\"image\""),
            "no `version`",
        ),
        (GOOD.replace("/var", "/var/../etc"), "not a mount point"),
        (
            GOOD.replace("/var", "/usr/local"),
            "can't be a volume's mount point",
        ),
        (GOOD.replace("\"state\"", "\"_empty\""), "not a volume name"),
        (with_volume("x", "/var"), "both mount"),
        (
            with_volume("x", "/var").replacen("/var", "/var/log", 1),
            "must come before",
        ),
        (
            GOOD.replacen(
                "\"volume\"",
                r#""seal": {"allow": {"at_start": ["/var/spool/cron", "/srv"]}}, "volume""#,
                1,
            ),
            "seal.allow.at_start: \"/srv\" is not a known place",
        ),
        (
            with_image_data("/etc/x"),
            "no path below a volume's mount point",
        ),
        (
            with_image_data("/var/../etc"),
            "no path below a volume's mount point",
        ),
        (
            with_image_data("/var/a b"),
            "no path below a volume's mount point",
        ),
        (
            with_image_data("/var"),
            "no path below a volume's mount point",
        ),
        (
            with_image_data("/var/x\", \"/var/x/y"),
            "above another path",
        ),
        (
            with_image_data("/var/lib").replace(
                "}], \"image",
                "}, {\"name\": \"x\", \"mount\": \"/var/lib/x\"}], \"image",
            ),
            "mounted at or below",
        ),
        (format!("{GOOD}x"), "trailing"),
    ] {
        let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// The key whose value is refused after a change to a good policy.
fn refused_after(change: impl FnOnce(&mut Policy)) -> Option<PolicyKey> {
    let mut policy = Policy::parse(GOOD.as_bytes()).unwrap();
    change(&mut policy);
    policy.check().err().map(|error| error.key().unwrap())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n{n}")).collect()
}

/// Volumes beside each other.
fn volumes(template: &Volume, count: usize) -> Vec<Volume> {
    names(count)
        .into_iter()
        .map(|name| Volume {
            mount: format!("/{name}"),
            name,
            ..template.clone()
        })
        .collect()
}

/// An absolute path below /var with this length in bytes.
fn path_of(length: usize) -> String {
    let mut path = format!("/var{}", "/a".repeat(length / 2 - 2));
    path.push_str(&"a".repeat(length % 2));
    path
}

#[test]
fn accepts_the_largest_value_of_each_limit_and_refuses_the_next() {
    use PolicyKey::*;
    type Change = fn(&mut Policy, usize);
    let limits: [(PolicyKey, usize, Change); 20] = [
        (Volumes, MAX_VOLUMES, |policy, n| {
            policy.volumes = volumes(&policy.volumes[0], n);
        }),
        (VolumeName, 36, |policy, n| {
            policy.volumes[0].name = "n".repeat(n);
        }),
        (VolumeMount, 1024, |policy, n| {
            policy.volumes[0].mount = path_of(n);
        }),
        (VolumeMount, 255, |policy, n| {
            policy.volumes[0].mount = format!("/{}", "m".repeat(n));
        }),
        (ImageData, MAX_IMAGE_DATA, |policy, n| {
            policy.image_data = names(n).iter().map(|n| format!("/var/{n}")).collect();
        }),
        (ImageData, 1024, |policy, n| {
            policy.image_data = vec![path_of(n)];
        }),
        (FailureAfterSeconds, 3600, |policy, n| {
            policy.failure.after_seconds = n as u32;
        }),
        (VerifyScrubRate, 10_000, |policy, n| {
            policy.verify.scrub_rate = n as u32;
        }),
        (VerifyScrubEvery, 8760, |policy, n| {
            policy.verify.scrub_every = n as u32;
        }),
        (CredentialsAccept, MAX_ACCEPTED_NAMES, |policy, n| {
            policy.credentials.accept = names(n);
        }),
        (DriftListen, MAX_PORTS, |policy, n| {
            policy.drift.listen = Some((1..=n).map(|port| format!("{port}/tcp")).collect());
        }),
        (DriftListen, 65_535, |policy, n| {
            policy.drift.listen = Some(vec![format!("{n}/udp")]);
        }),
        (SealModules, MAX_SEAL_NAMES, |policy, n| {
            policy.seal.modules = names(n);
        }),
        (SealModules, 64, |policy, n| {
            policy.seal.modules = vec!["m".repeat(n)];
        }),
        (SealInterpreters, MAX_INTERPRETERS, |policy, n| {
            policy.seal.interpreters = names(n);
        }),
        (SealAllowExecute, MAX_SEAL_NAMES, |policy, n| {
            policy.seal.allow.execute = vec!["state".to_owned(); n];
        }),
        (SealAllowMounts, MAX_SEAL_NAMES, |policy, n| {
            policy.seal.allow.mounts = vec!["/mnt".to_owned(); n];
        }),
        (SealAllowDisks, MAX_SEAL_NAMES, |policy, n| {
            policy.seal.allow.disks = names(n);
        }),
        (SealAllowDisks, 36, |policy, n| {
            policy.seal.allow.disks = vec!["d".repeat(n)];
        }),
        (SealAllowIoctls, MAX_IOCTLS, |policy, n| {
            policy.seal.allow.ioctls = vec![0; n];
        }),
    ];
    for (key, limit, change) in limits {
        for (value, refused) in [(limit, None), (limit + 1, Some(key))] {
            let found = refused_after(|policy| change(policy, value));
            assert_eq!(found, refused, "{key:?} with {value}");
        }
    }
    let padded = |length: usize| {
        let padding = " ".repeat(length - GOOD.len());
        Policy::parse(format!("{GOOD}{padding}").as_bytes())
    };
    assert!(padded(POLICY_LIMIT).is_ok());
    assert_eq!(
        padded(POLICY_LIMIT + 1),
        Err(PolicyError::TooLong(POLICY_LIMIT + 1))
    );
}

#[test]
fn refuses_each_malformed_value_under_its_key_and_accepts_its_neighbours() {
    use PolicyKey::*;
    type Change = fn(&mut Policy, &str);
    let values: [(PolicyKey, Change, &[&str], &[&str]); 9] = [
        (
            VolumeName,
            |policy, name| policy.volumes[0].name = name.to_owned(),
            &["a.b_c-1", "0", "black-box2"],
            &["", "A", "a b", "_a", "black-box"],
        ),
        (
            VolumeMount,
            |policy, mount| policy.volumes[0].mount = mount.to_owned(),
            &["/a", "/a/b", "/...", "/processes", "/users/etc"],
            &[
                "", "ab", "/", "/a/", "//a", "/a/.", "/../a", "/a b", "/a\\b", "/a\x7fb", "/proc",
                "/sys", "/dev", "/run", "/usr", "/etc", "/boot", "/efi", "/etc/a",
            ],
        ),
        (
            ImageData,
            |policy, path| policy.image_data = vec![path.to_owned()],
            &["/var/a", "/var/a/b", "/var/..."],
            &[
                "",
                "/var/a/",
                "/var//a",
                "/var/.",
                "/var/../a",
                "/var/a b",
                "/var/a\\b",
                "/var/a\x7fb",
                "/variable",
                "var/a",
            ],
        ),
        (
            CredentialsAccept,
            |policy, name| policy.credentials.accept = vec![name.to_owned()],
            &["*", "system.hostname"],
            &["", "a/b"],
        ),
        (
            DriftListen,
            |policy, port| policy.drift.listen = Some(vec![port.to_owned()]),
            &["1/tcp", "123/udp"],
            &["", "22", "0/tcp", "022/tcp", "+22/tcp", "22/sctp", "/udp"],
        ),
        (
            SealModules,
            |policy, name| policy.seal.modules = vec![name.to_owned()],
            &["virtio_net", "sha256-ssse3"],
            &["", "a b", "a/b", "a.ko"],
        ),
        (
            SealAllowExecute,
            |policy, name| policy.seal.allow.execute = vec![name.to_owned()],
            &["state"],
            &["", "logs"],
        ),
        (
            SealAllowMounts,
            |policy, path| policy.seal.allow.mounts = vec![path.to_owned()],
            &["/a", "/mnt/a b"],
            &["", "ab", "/", "/a/", "//a", "/./a", "/a/.."],
        ),
        (
            SealAllowAtStart,
            |policy, path| policy.seal.allow.at_start = vec![path.to_owned()],
            &["/var/spool/cron"],
            &["", "/srv", "/var/spool"],
        ),
    ];
    for (key, change, good, bad) in values {
        for (value, refused) in good
            .iter()
            .map(|value| (value, None))
            .chain(bad.iter().map(|value| (value, Some(key))))
        {
            let found = refused_after(|policy| change(policy, value));
            assert_eq!(found, refused, "{key:?} with {value:?}");
        }
    }
    for key in [VerifyScrubRate, VerifyScrubEvery] {
        let zero = refused_after(|policy| match key {
            VerifyScrubRate => policy.verify.scrub_rate = 0,
            _ => policy.verify.scrub_every = 0,
        });
        assert_eq!(zero, Some(key));
    }
    let disk = refused_after(|policy| policy.seal.allow.disks = vec![String::new()]);
    assert_eq!(disk, Some(SealAllowDisks));
}

#[test]
fn refuses_two_volumes_of_one_name_and_image_data_that_a_volume_hides() {
    let second = |name: &'static str, mount: &'static str| {
        move |policy: &mut Policy| {
            let first = policy.volumes[0].clone();
            policy.volumes.push(Volume {
                name: name.to_owned(),
                mount: mount.to_owned(),
                ..first
            });
        }
    };
    assert_eq!(refused_after(second("logs", "/var/log")), None);
    assert_eq!(
        refused_after(second("state", "/srv")),
        Some(PolicyKey::VolumeName)
    );
    let hidden = refused_after(|policy| {
        second("logs", "/var/log")(policy);
        policy.image_data = vec!["/var/log".to_owned()];
    });
    assert_eq!(hidden, Some(PolicyKey::ImageData));
}

#[test]
fn errors_about_the_whole_file_name_no_key() {
    assert_eq!(Policy::parse(b"{}"), Err(PolicyError::NoVersion));
    assert_eq!(PolicyError::NoVersion.key(), None);
}

#[test]
fn names_of_values_are_those_in_the_file() {
    for level in [Level::Verity, Level::Lockdown, Level::Guard] {
        assert_eq!(serde_json::to_value(level).unwrap(), level.name());
    }
    for reaction in [
        OnCorruption::Reboot,
        OnCorruption::Panic,
        OnCorruption::Error,
    ] {
        assert_eq!(serde_json::to_value(reaction).unwrap(), reaction.name());
    }
}

#[test]
fn lists_every_exception_that_the_policy_makes_and_no_other() {
    let name = |name: &str| vec![name.to_owned()];
    let mut allow = Allow::default();
    assert_eq!(allow.used(), Vec::<String>::new());
    allow.bpf = true;
    allow.execute = name("state");
    assert_eq!(allow.used(), ["bpf", "execute state"]);
    let all = Allow {
        jit: true,
        debug: true,
        bpf: true,
        containers: true,
        binfmt: true,
        transient_units: true,
        execute: name("state"),
        mounts: name("/mnt"),
        disks: name("logs"),
        scripts: name("/usr/bin/perl"),
        ioctls: vec![0x1261],
        at_start: name("/var/spool/cron"),
    };
    assert_eq!(
        all.used(),
        [
            "jit",
            "debug",
            "bpf",
            "containers",
            "binfmt",
            "transient_units",
            "execute state",
            "mounts /mnt",
            "disks logs",
            "scripts /usr/bin/perl",
            "at_start /var/spool/cron",
            "ioctls 0x1261",
        ]
    );
}

#[test]
fn leaves_false_and_empty_values_of_later_versions_out_of_the_file() {
    let policy = Policy::parse(GOOD.as_bytes()).unwrap();
    let json = String::from_utf8(policy.to_json().unwrap()).unwrap();
    for key in [
        "transient_units",
        "ioctls",
        "at_start",
        "scripts",
        "image_data",
    ] {
        assert!(!json.contains(key), "{key}");
    }
    assert!(json.ends_with("}\n"));
}
