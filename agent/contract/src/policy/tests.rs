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
