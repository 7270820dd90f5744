//! Parsing of definitions, and the exact errors about wrong ones.

use std::path::Path;

use super::*;

const GOOD: &str = "[image]\nid = \"web\"\nversion = \"1.0.0\"\n[[source]]\ntar = \"root.tar\"\n";

fn parse(text: &str) -> Result<Definition> {
    Definition::parse(text, Path::new("images/web/image.toml"))
}

#[test]
fn the_smallest_definition_has_both_default_volumes() {
    let definition = parse(GOOD).unwrap();
    let volumes: Vec<_> = definition
        .volumes
        .iter()
        .map(|v| {
            (
                v.policy.name.as_str(),
                v.policy.mount.as_str(),
                v.size >> 20,
            )
        })
        .collect();
    assert_eq!(volumes, [("state", "/var", 512), ("logs", "/var/log", 256)]);
    assert!(
        matches!(&definition.sources[0].origin, Origin::Tar(path) if path == Path::new("images/web/root.tar"))
    );
    assert_eq!(definition.sources[0].location, "images/web/image.toml:4:1");
    assert_eq!(definition.root.cluster, 65536);
    assert_eq!(definition.failure.after_seconds, 10);
    assert!(
        parse(&format!("volumes = []\n{GOOD}"))
            .unwrap()
            .volumes
            .is_empty()
    );
}

#[test]
fn parses_every_key() {
    let text = r#"
[image]
id = "debian"
version = "1.0.0"
epoch = 2026-11-01T00:00:00Z
[[source]]
debian = { suite = "trixie", packages = ["systemd-sysv", "openssh-server", "linux-image-cloud-amd64"], recommends = true }
[[source]]
tar = "files.tar.gz"
[[source]]
dir = "./overlay/."
at = "/srv/web"
owner = "keep"
cross_mounts = true
[[file]]
path = "/etc/hostname"
content = "web\n"
mode = "0640"
uid = 33
[[file]]
path = "/sbin"
link = "usr/sbin"
[[file]]
path = "/mnt"
directory = true
[[file]]
path = "/etc/motd"
absent = true
[root]
compression = "zstd:19"
cluster = "1M"
[scrub]
keep = ["/etc/ssh/ssh_host_*"]
[[volume]]
name = "logs"
mount = "/var/log"
size = "256M"
weight = 0
[[volume]]
name = "state"
mount = "/var"
size = "1G"
on_damage = "recreate"
[verify]
boot = "full"
on_corruption = "panic"
scrub_rate = 100
[drift]
listen = ["22/tcp", "123/udp"]
[on_violation]
mounts = "reboot"
[failure]
action = "halt"
after = "2m"
[kernel]
cmdline = "console=ttyS0 quiet"
modules = ["virtio_net"]
[limits]
bytes = "8G"
entries = 1000
"#;
    let definition = parse(text).unwrap();
    assert_eq!(definition.epoch, Some(1_793_491_200));
    assert_eq!(definition.sources.len(), 7);
    assert_eq!(definition.root.compression, Compression::Zstd(19));
    assert!(
        matches!(&definition.sources[2].origin, Origin::Dir(dir) if dir.keep_owner && dir.cross_mounts && dir.path == Path::new("images/web/overlay"))
    );
    // Parents before children, whatever the order in the file.
    assert_eq!(definition.volumes[0].policy.name, "state");
    assert_eq!(definition.policy().check(), Ok(()));
    assert_eq!(definition.failure.after_seconds, 120);
    assert_eq!(
        (
            definition.policy().verify.scrub_rate,
            definition.policy().verify.scrub_every
        ),
        (100, 24)
    );
    assert_eq!(definition.drift.listen.as_ref().map(Vec::len), Some(2));
    assert_eq!(
        (
            definition.on_violation.mounts,
            definition.on_violation.denials
        ),
        (super::Reaction::Reboot, super::Reaction::Log)
    );
    assert_eq!(definition.stem(), "debian_1.0.0");
}

#[test]
fn each_error_has_its_position_and_a_remedy() {
    let with = |more: &str| format!("{GOOD}{more}");
    let replaced = |from: &str, to: &str| GOOD.replace(from, to);
    let volume = |line: &str| {
        with(&format!(
            "[[volume]]\nname = \"state\"\nmount = \"/var\"\nsize = \"64M\"\n{line}\n"
        ))
    };
    for (text, message) in [
        (
            String::new(),
            "1:1: table [image] is missing (write [image], id = \"...\" and version = \"...\")",
        ),
        (
            "[image]\nid = \"a\"\nversion = \"1\"\n".to_owned(),
            "1:1: the definition has no source (write a [[source]] with debian, tar or dir)",
        ),
        (
            replaced("id =", "idd ="),
            "2:1: unknown key `idd` (did you mean `id`?)",
        ),
        (
            replaced("tar =", "tra ="),
            "5:1: unknown key `tra` (did you mean `tar`?)",
        ),
        (
            with("[roots]\n"),
            "6:2: unknown key `roots` (did you mean `root`?)",
        ),
        (
            with("[root]\ncompresion = \"lz4\"\n"),
            "7:1: unknown key `compresion` (did you mean `compression`?)",
        ),
        (
            with("[verify]\nscrub_every = 0\n"),
            "7:15: verify.scrub_every is 0, 1 to 8760 is possible",
        ),
        (
            with("[drift]\nlisten = [\"22/tcp\", \"ssh\"]\n"),
            "7:21: drift.listen: \"ssh\" is not a port (for example 22/tcp or 123/udp)",
        ),
        (
            with("[failure]\nwhatever = 1\n"),
            "7:1: unknown key `whatever` (known here: action, after, oops, lockup, hung_task)",
        ),
        (
            volume("mont = \"/x\""),
            "10:1: unknown key `mont` (did you mean `mount`?)",
        ),
        (
            replaced("id = \"web\"\n", ""),
            "1:1: key `id` is missing (write id = ...)",
        ),
        (
            replaced("\"web\"", "\"Web\""),
            "2:6: id \"Web\" is not an image id (use a-z 0-9 . _ -, starting with a letter or digit)",
        ),
        (
            replaced("\"web\"", "5"),
            "2:6: wrong type: integer `5`, expected a string",
        ),
        (
            replaced("\"1.0.0\"", "\"1_0\""),
            "3:11: version \"1_0\" is not a version (use A-Z a-z 0-9 . ~ ^ -, starting with a letter or digit, for example 1.4.0)",
        ),
        (
            replaced("\"1.0.0\"", "\"2026.11.24.12.00.00-rc1.xy\""),
            "3:11: label \"web_2026.11.24.12.00.00-rc1.xy_verity\" has 37 characters, a partition label has room for 36 (shorten id or version)",
        ),
        (
            replaced("[image]\n", "[image]\nepoch = \"soon\"\n"),
            "2:9: epoch is not a time (use seconds since 1970 or a date, for example 2026-11-01T00:00:00Z)",
        ),
        (
            replaced("tar = \"root.tar\"", ""),
            "4:1: this source is empty (write one of debian = { ... }, tar = \"...\" or dir = \"...\")",
        ),
        (
            with("dir = \"x\"\n"),
            "4:1: this source has more than one of debian, tar and dir (write a [[source]] for each)",
        ),
        (
            with("owner = \"keep\"\n"),
            "6:9: key `owner` has an effect only with dir (leave it out)",
        ),
        (
            with("at = \"srv\"\n"),
            "6:6: \"srv\" is not a path in the image (write an absolute path without ., .., // or a slash at the end)",
        ),
        (
            replaced("[[source]]", "[source]"),
            "4:1: this is a table, but a list of tables is expected (write its name in double brackets, for example [[source]])",
        ),
        (
            replaced("tar = \"root.tar\"", "debian = { sutie = \"trixie\" }"),
            "5:12: unknown key `sutie` (did you mean `suite`?)",
        ),
        (
            replaced("tar = \"root.tar\"", "debian = { suite = \"--x\" }"),
            "5:20: \"--x\" is not a suite (use letters, digits and . _ + -)",
        ),
        (
            replaced(
                "tar = \"root.tar\"",
                "debian = { suite = \"sid\", architecture = \"arm64\" }",
            ),
            "5:42: architecture \"arm64\" is not supported yet (use \"amd64\", or leave it out)",
        ),
        (
            replaced(
                "tar = \"root.tar\"",
                "debian = { suite = \"sid\", packages = [\"a\", \"b,c d\"] }",
            ),
            "5:44: \"b,c d\" is not a package (use letters, digits and . _ + -)",
        ),
        (
            with("[[file]]\npath = \"/a/../b\"\ncontent = \"\"\n"),
            "7:8: \"/a/../b\" is not a path in the image (write an absolute path without ., .., // or a slash at the end)",
        ),
        (
            with("[[file]]\npath = \"/a\"\n"),
            "6:1: file \"/a\" needs exactly one of content, copy, link, directory = true and absent = true",
        ),
        (
            with("[[file]]\npath = \"/a\"\ncontent = \"\"\nlink = \"b\"\n"),
            "6:1: file \"/a\" needs exactly one of content, copy, link, directory = true and absent = true",
        ),
        (
            with("[[file]]\npath = \"/a\"\ncontent = \"\"\nmode = \"rw\"\n"),
            "9:8: mode \"rw\" is not octal permission bits (use for example \"0640\")",
        ),
        (
            with("[[file]]\npath = \"/a\"\ncontent = \"\"\nuid = -1\n"),
            "9:7: wrong value: integer `-1`, expected a whole number from 0 to 4294967295",
        ),
        (
            with("[root]\ncluster = \"48K\"\n"),
            "7:11: cluster \"48K\" is not a power of two from 4K to 1M (use for example 64K)",
        ),
        (
            with("[root]\ncompression = \"zstd:23\"\n"),
            "7:15: compression \"zstd:23\": \"23\" is not a level (use 1 to 22)",
        ),
        (
            with("[scrub]\nkeep = [\"/ok\", \"/[a\"]\n"),
            "7:16: keep \"/[a\": unclosed character class; missing ']' (write for example \"/etc/ssh/ssh_host_*\")",
        ),
        (
            volume("").replace("64M", "2Q"),
            "9:8: volume \"state\": size \"2Q\" is not a size (use for example 512M or 2G)",
        ),
        (
            volume("").replace("64M", "100K"),
            "9:8: volume \"state\": size \"100K\" is not a whole number of MiB (use for example 512M)",
        ),
        (
            volume("").replace("/var", "/etc/x"),
            "8:9: volume \"state\": /etc/x can't be a volume's mount point: /etc belongs to the image or the kernel",
        ),
        (
            volume("").replace("\"state\"", "\"_empty\""),
            "7:8: \"_empty\" is not a volume name (1 to 36 of a-z 0-9 . _ -, not starting with _)",
        ),
        (
            volume("[[volume]]\nname = \"state\"\nmount = \"/srv\"\nsize = \"64M\""),
            "11:8: two volumes have the name \"state\" (give this one another name)",
        ),
        (
            volume("[[volume]]\nname = \"b\"\nmount = \"/var\"\nsize = \"64M\""),
            "12:9: two volumes are mounted at \"/var\" (give this one another mount)",
        ),
        (
            volume("on_damage = \"recreat\""),
            "10:13: \"recreat\" is not known here (did you mean \"recreate\"?)",
        ),
        (
            format!("volumes = []\n{}", volume("")),
            "7:1: `volumes = []` and a [[volume]] contradict each other (leave one out)",
        ),
        (
            format!("volumes = [1]\n{GOOD}"),
            "1:11: `volumes` can only be an empty list (write a [[volume]] for each volume)",
        ),
        (
            with("[failure]\nafter = \"ten\"\n"),
            "7:9: after \"ten\" is not a duration (use for example 10s, 5m or 1h)",
        ),
        (
            with("[failure]\nafter = \"2h\"\n"),
            "7:9: after \"2h\" is too long (use 1h or less)",
        ),
        (
            with("[verify]\nboot = \"always\"\n"),
            "7:8: \"always\" is not known here (use lazy or full)",
        ),
        (
            with("[kernel]\ncmdline = \"quiet roothash=00\"\n"),
            "7:11: cmdline: `roothash=` is written by the builder (leave it out)",
        ),
        (
            with("[kernel]\ncmdline = \"a\\nb\"\n"),
            "7:11: cmdline contains a line break or another control character (write one line)",
        ),
        (
            with("[kernel]\nmodules = [\"../x\"]\n"),
            "7:12: \"../x\" is not a module name (write it without path and .ko, for example \"virtio_net\")",
        ),
        (
            with("[seal]\nlevel = \"lockdown\"\nscripts = \"refuse\"\n"),
            "8:11: scripts = \"refuse\" needs level \"guard\" (write level = \"guard\", or leave out scripts)",
        ),
        (
            with("[seal]\nlevel = \"guard\"\nallow = { scripts = [\"/usr/bin/perl\"] }\n"),
            "8:21: this has no effect while scripts are allowed (write scripts = \"refuse\" in [seal], or leave it out)",
        ),
        (
            with("[seal]\nlevel = \"guard\"\nscripts = \"refuse\"\ninterpreters = [\"engine\"]\n"),
            "9:17: \"engine\" is not a path in the image (write an absolute path without ., .., // or a slash at the end)",
        ),
        (
            with("[seal]\nlevel = \"guard\"\nallow = { at_start = [\"/var/spool/crontabs\"] }\n"),
            "8:23: \"/var/spool/crontabs\" is no place that a program reads at start (use /var/lib/binfmts, /var/lib/cloud, /var/lib/dkms, /var/lib/lxc, /var/lib/systemd/linger, /var/lib/waagent, /var/spool/at, /var/spool/atjobs, /var/spool/cron, /var/spool/fcron, /var/spool/incron)",
        ),
        (
            with("[seal]\nlevel = \"lockdown\"\nallow = { at_start = [\"/var/spool/cron\"] }\n"),
            "8:22: this has no effect below level \"guard\" (write level = \"guard\" in [seal], or leave it out)",
        ),
        (
            with("[seal]\nlevel = \"lockdown\"\nmodule_loading = \"image\"\n"),
            "8:18: module_loading = \"image\" needs level \"guard\" (write level = \"guard\", or leave out module_loading)",
        ),
        (
            with("[seal]\nmodule_loading = \"boot\"\n"),
            "7:18: level \"verity\" does not restrict modules (write level = \"lockdown\" or \"guard\", or leave out module_loading)",
        ),
        (
            with(
                "[seal]\nlevel = \"guard\"\nmodule_loading = \"image\"\nallow = { containers = true }\n",
            ),
            "8:18: with the exception containers or debug, the guard can't tell which program loads a module (write module_loading = \"boot\", and list later modules in modules)",
        ),
        (
            with("[seal]\nlevel = \"guard\"\nmodule_loading = \"never\"\n"),
            "8:18: \"never\" is not known here (use image or boot)",
        ),
        (
            with("[limits]\nentries = \"many\"\n"),
            "7:11: wrong type: string \"many\", expected a whole number",
        ),
    ] {
        let error = parse(&text).expect_err(&text);
        assert_eq!(
            error.message().strip_prefix("images/web/image.toml:"),
            Some(message),
            "{text}\n{error}"
        );
    }
}

#[test]
fn independent_errors_are_reported_together() {
    let lines = |text: &str| -> Vec<String> {
        let error = parse(text).unwrap_err();
        error
            .message()
            .lines()
            .map(|line| {
                line.trim_start_matches("images/web/image.toml:")
                    .split(' ')
                    .take(3)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    };
    let keys = "[image]\nidd = \"web\"\nversion = \"1\"\n[[source]]\ntra = \"x\"\n[[source]]\ndebian = { sutie = \"a\" }\n[rot]\n[kernel]\ncmdlin = \"\"\n";
    assert_eq!(
        lines(keys),
        [
            "2:1: unknown key",
            "5:1: unknown key",
            "7:12: unknown key",
            "8:2: unknown key",
            "10:1: unknown key"
        ]
    );
    let values = format!(
        "{}[[source]]\n[root]\ncluster = \"3K\"\n[[volume]]\nname = \"a\"\nmount = \"/var\"\nsize = \"1Q\"\n[[volume]]\nname = \"b\"\nmount = \"/x\"\nsize = \"2Q\"\n[failure]\nafter = \"x\"\n",
        GOOD.replace("\"web\"", "\"W\"")
    );
    assert_eq!(
        lines(&values),
        [
            "2:6: id \"W\"",
            "6:1: this source",
            "8:11: cluster \"3K\"",
            "12:8: volume \"a\":",
            "16:8: volume \"b\":",
            "18:9: after \"x\""
        ]
    );
    // Repeated errors are cut off.
    let many = format!("{GOOD}{}", "[[source]]\n".repeat(100));
    assert_eq!(lines(&many).len(), 21);
    assert_eq!(lines(&many)[20], "and 80 more");
}

#[test]
fn errors_about_types_name_no_rust_type() {
    const RUST: [&str; 9] = [
        "i128", "u128", "u32", "u64", "variant", "sequence", "map", "wanted", "nothing",
    ];
    for line in WRONG_TYPES {
        let error = parse(&format!("{GOOD}{line}\n")).unwrap_err();
        let named = RUST.iter().find(|name| error.message().contains(**name));
        assert_eq!(named, None, "{line}: {error}");
    }
    let message = |line: &str| parse(&format!("{GOOD}{line}\n")).unwrap_err().to_string();
    for line in ["boot = 5", "boot = []", "boot = {}", "boot = { lazy = 1 }"] {
        assert!(
            message(&format!("[verify]\n{line}")).contains("wrong type: expected a string"),
            "{line}"
        );
    }
    assert!(
        message("[disk]\nslots = 999999999999999999999999999999999999999999")
            .contains("the number is too large")
    );
    for (line, what) in [
        ("[disk]\nslots = 01", "a number starts with 0"),
        ("[kernel]\ncmdline = quiet", "has no quotes"),
        ("[kernel]\ncmdline = \"quiet", "no closing quote"),
        (
            "[kernel]\ncmdline = 2026-01-01",
            "a date, expected a string",
        ),
    ] {
        assert!(message(line).contains(what), "{}", message(line));
    }
    assert!(
        message("[disk]\nslots = 99999999999999999999999")
            .contains("expected a whole number from 0 to 4294967295")
    );
}

/// Values of a wrong type or range, and text that is not TOML.
const WRONG_TYPES: &[&str] = &[
    "[disk]\nslots = 99999999999999999999999",
    "[disk]\nslots = 999999999999999999999999999999999999999999",
    "[disk]\nslots = 99999999999",
    "[disk]\nslots = 1.5",
    "[disk]\nslots = \"2\"",
    "[disk]\nslots = 3",
    "[disk]\nslots = 01",
    "[disk]\nblack_box = \"yes\"",
    "[disk]\nesp = 512",
    "[disk]\nesp = 1e400",
    "[limits]\nentries = -5",
    "[limits]\nentries = 99999999999999999999999",
    "[verify]\nboot = 5",
    "[verify]\nboot = true",
    "[verify]\nboot = [\"lazy\"]",
    "[verify]\nboot = {}",
    "[verify]\nboot = { lazy = 1 }",
    "[verify]\nboot = { lazy = 1, full = 2 }",
    "[verify]\nboot = 2026-01-01",
    "verify = 5",
    "[[verify]]\nboot = \"lazy\"",
    "[seal]\ndeny = \"shell\"",
    "[seal]\ndeny = [1]",
    "[seal]\ndeny = [{ a = 1 }]",
    "[seal]\nallow = 1",
    "[seal]\nmodules = [1]",
    "[scrub]\nkeep = \"a\"",
    "[file]\npath = \"/a\"",
    "[[file]]\npath = \"/a\"\nuid = \"root\"",
    "[[file]]\npath = \"/a\"\nmode = 640",
    "[[file]]\npath = \"/a\"\ncontent = 2026-01-01",
    "[[source]]\ndebian = \"trixie\"",
    "[drift]\nlisten = [22]",
    "a",
    "a =",
    "a = b",
    "[image",
    "[image]",
    "tar = \"b\"",
    "x = \"\\q\"",
];

#[test]
fn a_renamed_key_is_refused_with_its_new_name() {
    let error = parse(&format!("{GOOD}[root]\nlayout = \"smallest\"\n")).unwrap_err();
    let message =
        "7:1: key `layout` was renamed to `optimize` (write optimize = \"updates\" or \"size\")";
    assert!(error.message().contains(message), "{error}");
    let error = parse(&format!("{GOOD}[root]\noptimize = \"smallest\"\n")).unwrap_err();
    assert!(error.message().contains("use updates or size"), "{error}");
}

#[test]
fn columns_count_characters_and_windows_line_ends_are_accepted() {
    let error = parse("[image]\r\nid = \"web\"\r\nversion = \"é1\" # é\r\n").unwrap_err();
    assert!(error.message().contains(":3:11: "), "{error}");
}

#[test]
fn hostile_text_is_an_error_and_never_a_panic() {
    let deep = "a = ".to_owned() + &"[".repeat(100_000);
    let dotted = "a.".repeat(100_000) + "b = 1";
    for text in [
        "\0",
        "=",
        "[",
        "[[",
        "[image",
        "\"",
        "é",
        "[image]\n[image]\n",
        "a = 1\na = 2\n",
        &deep,
        &dotted,
        "[image]\nid = \"\"\nversion=\"\"\n",
    ] {
        assert!(parse(text).is_err());
    }
    // Every prefix of a valid text, and every byte replaced by one that is significant in TOML.
    for at in 0..GOOD.len() {
        let _ = parse(&GOOD[..at]);
        for byte in ["\"", "[", "]", "=", "\n", "{", "\0", "é"] {
            let mut text = GOOD.to_owned();
            text.replace_range(at..=at, byte);
            let _ = parse(&text);
        }
    }
}
