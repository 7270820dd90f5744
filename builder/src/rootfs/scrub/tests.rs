use adamant_skip::skip;
use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::definition::Definition;

fn definition(keep: &str) -> Definition {
    let text = format!(
        "[image]\nid = \"t\"\nversion = \"1\"\n[[source]]\ndir = \"x\"\n[scrub]\nkeep = [{keep}]\n"
    );
    Definition::parse(&text, Path::new("image.toml")).unwrap()
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, text) in files {
        let meta = Meta {
            mode: 0o640,
            gid: 7,
            ..Meta::default()
        };
        tree.insert(
            path.as_bytes(),
            meta,
            Kind::File(Content::from_memory(text.as_bytes())),
        )
        .unwrap();
    }
    tree
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.walk()
        .into_iter()
        .filter(|(_, id)| !matches!(tree.node(*id).kind, Kind::Directory(_)))
        .map(|(path, _)| show(&path))
        .collect()
}

use crate::tree::show;

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END OPENSSH PRIVATE KEY-----\n";

#[test]
fn removes_files_that_differ_between_servers_or_builds() {
    let noise = [
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_rsa_key.pub",
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
        "/var/lib/dhcp/dhclient.eth0.leases",
        "/var/lib/dbus/machine-id",
        "/var/cache/apt/pkgcache.bin",
        "/var/cache/apt/archives/partial/x.deb",
        "/var/lib/apt/lists/deb.debian.org_InRelease",
        "/var/log/dpkg.log",
        "/var/log/apt/history.log",
        "/var/cache/ldconfig/aux-cache",
        "/etc/nginx/nginx.conf~",
        "/root/.x.swp",
        "/etc/a.dpkg-old",
        "/etc/passwd-",
        "/boot/initrd.img-6.12",
    ];
    let stays = [
        "/etc/ssh/sshd_config",
        "/usr/lib/x.py",
        "/var/lib/dpkg/status",
        "/var/log/nginx/access.log",
        "/etc/hostname",
    ];
    let mut tree = tree(
        &noise
            .iter()
            .chain(&stays)
            .map(|path| (*path, "some text"))
            .collect::<Vec<_>>(),
    );
    let done = scrub(&mut tree, &definition(""), None).unwrap();
    let mut expected: Vec<String> = stays.iter().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(paths(&tree), expected);
    let of = |rule: &str| {
        done.iter()
            .find(|done| done.rule == rule)
            .map_or(0, |done| done.paths.len())
    };
    assert_eq!(
        (
            of("ssh-host-keys"),
            of("apt"),
            of("dpkg"),
            of("logs"),
            of("editor-backups")
        ),
        (2, 4, 1, 1, 3)
    );
    // A log keeps its owner and mode, for the volume that is seeded from it.
    let log = tree.node(tree.lookup(b"/var/log/nginx/access.log").unwrap());
    assert!(matches!(&log.kind, Kind::File(content) if content.is_empty()));
    assert_eq!((log.meta.mode, log.meta.gid), (0o640, 7));
}

#[test]
fn keep_excludes_paths_and_two_stars_turn_scrubbing_off() {
    let files = [
        ("/etc/ssh/ssh_host_rsa_key", KEY),
        ("/var/log/dpkg.log", "x"),
        ("/etc/machine-id", "0123"),
    ];
    let mut some = tree(&files);
    scrub(&mut some, &definition("\"/etc/ssh/ssh_host_*\""), None).unwrap();
    assert_eq!(
        paths(&some),
        ["/etc/machine-id", "/etc/ssh/ssh_host_rsa_key"]
    );
    let mut all = tree(&files);
    assert_eq!(scrub(&mut all, &definition("\"**\""), Some(0)).unwrap(), []);
    assert_eq!(paths(&all).len(), 3);
}

#[test]
fn empties_the_machine_id_and_creates_it_for_systemd() {
    let mut with_id = tree(&[("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")]);
    scrub(&mut with_id, &definition(""), None).unwrap();
    let mut without = tree(&[("/usr/lib/systemd/systemd", "ELF")]);
    scrub(&mut without, &definition(""), None).unwrap();
    for tree in [with_id, without] {
        let node = tree.node(tree.lookup(b"/etc/machine-id").unwrap());
        assert!(matches!(&node.kind, Kind::File(content) if content.is_empty()));
        assert_eq!(node.meta.mode & 0o222, 0);
    }
    let mut plain = tree(&[("/init", "x")]);
    scrub(&mut plain, &definition(""), None).unwrap();
    assert_eq!(plain.lookup(b"/etc/machine-id"), None);
}

#[test]
fn keeps_a_dbus_machine_id_that_is_a_link() {
    let mut tree = tree(&[]);
    tree.insert(
        b"/var/lib/dbus/machine-id",
        Meta::default(),
        Kind::Symlink(b"/etc/machine-id"[..].into()),
    )
    .unwrap();
    assert_eq!(scrub(&mut tree, &definition(""), None).unwrap(), []);
    assert!(tree.lookup(b"/var/lib/dbus/machine-id").is_some());
}

#[test]
fn removes_bytecode_with_a_time_and_keeps_bytecode_with_a_hash() {
    // Magic number of Python 3.13 and the flags: by time, by hash checked, by hash unchecked; and
    // Python 2.7.
    let files = [
        ("/t.pyc", "\u{73}\u{d}\r\n\0\0\0\0t"),
        ("/h.pyc", "\u{73}\u{d}\r\n\u{3}\0\0\0h"),
        ("/u.pyc", "\u{73}\u{d}\r\n\u{1}\0\0\0u"),
        ("/short.pyc", "x"),
    ];
    let mut tree = tree(&files);
    tree.insert(
        b"/two.pyc",
        Meta::default(),
        Kind::File(Content::from_memory(&b"\x03\xf3\r\n\x01\0\0\0"[..])),
    )
    .unwrap();
    scrub(&mut tree, &definition(""), None).unwrap();
    assert_eq!(paths(&tree), ["/h.pyc", "/u.pyc"]);
}

#[test]
fn newer_times_and_password_dates_are_clamped_to_the_epoch() {
    let mut tree = tree(&[
        (
            "/etc/shadow",
            "root:*:20781:0:99999:7:::\nold:!:100::::::\n",
        ),
        ("/new", "x"),
        ("/old", "x"),
    ]);
    let id = tree.lookup(b"/new").unwrap();
    tree.node_mut(id).meta.mtime = Time {
        seconds: 1_700_000_000,
        nanoseconds: 1,
    };
    let id = tree.lookup(b"/old").unwrap();
    tree.node_mut(id).meta.mtime = Time {
        seconds: -5,
        nanoseconds: 7,
    };
    scrub(&mut tree, &definition(""), Some(1_700_000_000)).unwrap();
    let mtime = |path: &[u8]| tree.node(tree.lookup(path).unwrap()).meta.mtime;
    assert_eq!(
        mtime(b"/new"),
        Time {
            seconds: 1_700_000_000,
            nanoseconds: 0
        }
    );
    assert_eq!(
        mtime(b"/old"),
        Time {
            seconds: -5,
            nanoseconds: 7
        }
    );
    let Kind::File(shadow) = &tree.node(tree.lookup(b"/etc/shadow").unwrap()).kind else {
        panic!()
    };
    assert_eq!(
        shadow.to_vec(100).unwrap(),
        b"root:*:19675:0:99999:7:::\nold:!:100::::::\n"
    );
}

#[test]
fn secrets_are_refused_by_rule_and_path_unless_kept() {
    let gcloud = "{\"type\": \"service_account\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\\n\"}";
    for (rule, path, text) in [
        ("private-key", "/root/.ssh/id_ed25519", KEY),
        (
            "private-key",
            "/etc/ssl/private/a.key",
            "Bag\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n",
        ),
        (
            "private-key",
            "/etc/app.yaml",
            "key: |\n  -----BEGIN PRIVATE KEY-----\n  MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n",
        ),
        (
            "private-key",
            "/etc/age",
            "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ",
        ),
        ("private-key", "/etc/gcloud.json", gcloud),
        (
            "cloud-credentials",
            "/root/.aws/credentials",
            "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n",
        ),
        (
            "cloud-credentials",
            "/home/a/.docker/config.json",
            "{\"auths\":{\"r.example\":{\"auth\":\"dXNlcjpwYXNz\"}}}",
        ),
        (
            "cloud-credentials",
            "/root/.kube/config",
            "users:\n- name: a\n  user:\n    client-key-data: LS0tLS1CRUdJTg==\n",
        ),
        (
            "cloud-credentials",
            "/root/.git-credentials",
            "https://me:hunter2@example.org\n",
        ),
        (
            "cloud-credentials",
            "/root/.npmrc",
            "//registry.npmjs.org/:_authToken=npm_abc\n",
        ),
        (
            "cloud-credentials",
            "/root/.pypirc",
            "[pypi]\npassword = pypi-abc\n",
        ),
        ("cloud-credentials", "/root/.vault-token", "s.abc\n"),
        ("shell-history", "/root/.bash_history", "ls\n"),
        (
            "shell-history",
            "/home/x/.local/share/fish/fish_history",
            "- cmd: ls\n",
        ),
        (
            "plain-text-password",
            "/etc/shadow",
            "root:hunter2:1::::::\n",
        ),
        (
            "plain-text-password",
            "/root/.netrc",
            "machine a login b password c\n",
        ),
        (
            "plain-text-password",
            "/etc/apt/sources.list.d/a.list",
            "deb https://user:pw@example.org sid main\n",
        ),
        (
            "plain-text-password",
            "/etc/NetworkManager/system-connections/wifi",
            "[wifi-security]\npsk=hunter22\n",
        ),
        (
            "plain-text-password",
            "/etc/environment",
            "DB_PASSWORD=hunter2\n",
        ),
    ] {
        let error = scrub(&mut tree(&[(path, text)]), &definition(""), None).expect_err(path);
        assert!(
            error.message().contains(&format!("{rule}: {path}")),
            "{error}"
        );
        assert!(
            error
                .remedy()
                .unwrap()
                .contains(&format!("keep = [{path:?}]")),
            "{error}"
        );
        scrub(
            &mut tree(&[(path, text)]),
            &definition(&format!("{path:?}")),
            None,
        )
        .unwrap();
    }
}

#[test]
fn accepts_files_that_only_resemble_secrets() {
    for (path, text) in [
        (
            "/usr/share/doc/x",
            "A key starts with -----BEGIN RSA PRIVATE KEY----- and ends\n",
        ),
        (
            "/etc/ssl/a.pem",
            "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n-----END CERTIFICATE-----\n",
        ),
        (
            "/etc/ssl/b.pem",
            "-----BEGIN PUBLIC KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n-----END PUBLIC KEY-----\n",
        ),
        (
            "/usr/lib/ssh",
            "\0-----BEGIN OPENSSH PRIVATE KEY-----\n\0-----END OPENSSH PRIVATE KEY-----\n\0",
        ),
        (
            "/etc/shadow",
            "root:*:1::::::\na:!:1::::::\nb:$y$j9T$abc:1::::::\nc:!$6$abc:1::::::\nd::1::::::\ne:!*:1::::::\n",
        ),
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("/root/.netrc", "# machine a password b\n"),
        ("/root/.docker/config.json", "{\"auths\": {}}"),
        ("/root/.npmrc", "//r/:_authToken=${NPM_TOKEN}\n"),
        (
            "/etc/environment",
            "PATH=/bin\nDB_PASSWORD=\nTOKEN_FILE=/run/x\nSECRET=$X\n",
        ),
        ("/etc/wpa_supplicant/a.conf", "#psk=\"x\"\n"),
        (
            "/etc/apt/sources.list",
            "deb http://deb.debian.org/debian trixie main\n",
        ),
        ("/root/.bash_history", ""),
    ] {
        assert!(
            scrub(&mut tree(&[(path, text)]), &definition(""), None).is_ok(),
            "{path}"
        );
    }
}

fn holding(path: &str, bytes: Vec<u8>) -> Tree {
    let mut tree = Tree::new();
    tree.insert(
        path.as_bytes(),
        Meta::default(),
        Kind::File(Content::from_memory(bytes)),
    )
    .unwrap();
    tree
}

fn is_refused(path: &str, bytes: Vec<u8>) -> bool {
    match scrub(&mut holding(path, bytes), &definition(""), None) {
        Ok(_) => false,
        Err(error) => error.message().contains(&format!("private-key: {path}")),
    }
}

#[test]
fn keys_are_found_in_large_files_and_in_utf_16_but_not_in_programs() {
    for at in [70_000, (1 << 20) - 2100, (1 << 20) - 5, 3 << 20] {
        let mut bytes = vec![b'x'; at];
        bytes.extend(KEY.as_bytes());
        bytes.resize(4 << 20, b'y');
        assert!(is_refused("/srv/dump", bytes.clone()), "{at}");
        bytes[..4].copy_from_slice(b"\x7fELF");
        assert!(!is_refused("/usr/lib/libtls.so", bytes), "{at}");
    }
    let little: Vec<u8> = KEY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = KEY.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [
        [&[0xff, 0xfe], &little[..]].concat(),
        [&[0xfe, 0xff], &big[..]].concat(),
        little,
        big,
    ] {
        assert!(is_refused("/etc/key", bytes));
    }
    // A long history is one too.
    let history = scrub(
        &mut holding("/root/.bash_history", vec![b'l'; 100_000]),
        &definition(""),
        None,
    )
    .unwrap_err();
    assert!(history.message().contains("shell-history"), "{history}");
}

#[test]
fn finds_keys_in_der_and_accepts_similar_files() {
    let ed25519 = [
        &[
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ][..],
        &[7; 32],
    ]
    .concat();
    assert!(is_refused("/etc/key", ed25519.clone()));
    assert!(is_refused("/etc/key", [&ed25519[..], b"\n"].concat()));
    assert!(!is_refused("/etc/key", [&ed25519[..], b"more"].concat()));
    for length in 0..ed25519.len() {
        assert!(
            !is_refused("/etc/key", ed25519[..length].to_vec()),
            "{length}"
        );
    }
    for text in [
        &b"0123456789abcdef  usr/bin/x\n"[..],
        b"0",
        b"0\x80",
        b"0\x84\xff\xff\xff\xff",
        b"0\x05\x02\x01\x00\x02\x00",
    ] {
        assert!(!is_refused("/etc/text", text.to_vec()), "{text:?}");
    }
}

/// Keys as openssl writes them, and certificates, public keys and parameters beside them.
#[test]
fn finds_keys_of_openssl_and_accepts_its_other_files() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let make = |line: &str| -> Option<Vec<u8>> {
        let done = std::process::Command::new("openssl")
            .args(line.split(' '))
            .current_dir(dir)
            .stdin(std::process::Stdio::null())
            .output()
            .ok()?;
        assert!(
            done.status.success(),
            "openssl {line}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Some(std::fs::read(dir.join("out")).unwrap_or(done.stdout))
    };
    if make("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out rsa").is_none() {
        skip!(Program("openssl"));
    }
    for line in [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec",
        "genpkey -algorithm ED25519 -out ed",
        "req -new -x509 -key rsa -subj /CN=a -days 1 -out crt",
        "dsaparam -out dsap 1024",
        "gendsa -out dsa dsap",
    ] {
        make(line);
    }
    let of = |line: &str| {
        let bytes = make(&format!("{line} -out out")).unwrap();
        std::fs::remove_file(dir.join("out")).unwrap();
        is_refused("/etc/key.der", bytes)
    };
    for line in [
        "pkey -in rsa -outform DER",
        "rsa -in rsa -traditional -outform DER",
        "pkey -in ec -outform DER",
        "ec -in ec -outform DER",
        "pkey -in ed -outform DER",
        "dsa -in dsa -outform DER",
        "pkcs8 -topk8 -in rsa -outform DER -passout pass:x",
        "pkcs8 -topk8 -in ed -outform DER -v1 PBE-SHA1-3DES -passout pass:x",
        "pkcs12 -export -inkey rsa -in crt -passout pass:x",
        "pkcs12 -export -inkey rsa -in crt -keypbe NONE -certpbe NONE -passout pass:x",
    ] {
        assert!(of(line), "{line}");
    }
    for line in [
        "x509 -in crt -outform DER",
        "pkey -in rsa -pubout -outform DER",
        "rsa -in rsa -RSAPublicKey_out -outform DER",
        "ec -in ec -pubout -outform DER",
        "ecparam -name prime256v1 -outform DER",
        "dsaparam -in dsap -outform DER",
        "pkcs12 -export -nokeys -in crt -passout pass:x",
        "crl2pkcs7 -nocrl -certfile crt -outform DER",
    ] {
        assert!(!of(line), "{line}");
    }
}

#[test]
fn scrubs_names_that_are_not_utf8() {
    let mut tree = Tree::new();
    tree.insert(b"/var/cache/apt/\xff\xfe", Meta::default(), Kind::Fifo)
        .unwrap();
    tree.insert(
        b"/srv/\xff~",
        Meta::default(),
        Kind::Directory(BTreeMap::new()),
    )
    .unwrap();
    scrub(&mut tree, &definition(""), None).unwrap();
    assert_eq!(tree.lookup(b"/var/cache/apt/\xff\xfe"), None);
    // A directory is no back-up of an editor.
    assert!(tree.lookup(b"/srv/\xff~").is_some());
}
