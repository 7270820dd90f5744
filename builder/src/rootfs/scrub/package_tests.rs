//! Files that packages make at their installation, hard links into rules, and secrets in
//! attributes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;

pub(super) fn definition(keep: &[&str]) -> Definition {
    let text = format!(
        "[image]\nid = \"t\"\nversion = \"1\"\n[[source]]\ndir = \"x\"\n[scrub]\nkeep = {keep:?}\n"
    );
    Definition::parse(&text, Path::new("image.toml")).unwrap()
}

pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, text) in files {
        tree.insert(
            path.as_bytes(),
            Meta {
                mode: 0o640,
                ..Meta::default()
            },
            Kind::File(Content::from_memory(text.as_bytes())),
        )
        .unwrap();
    }
    tree
}

fn text(tree: &Tree, path: &str) -> String {
    match &tree
        .node(
            tree.lookup(path.as_bytes())
                .unwrap_or_else(|| panic!("no {path}")),
        )
        .kind
    {
        Kind::File(content) => String::from_utf8(content.to_vec(1 << 20).unwrap()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn refusal(files: &[(&str, &str)]) -> Error {
    scrub(&mut tree(files), &definition(&[]), None)
        .map(|_| panic!("{files:?} passed"))
        .unwrap_err()
}

#[test]
fn emptying_a_log_keeps_the_content_of_names_without_a_rule() {
    let mut tree = tree(&[("/var/log/a", "text"), ("/var/log/whole", "gone")]);
    let id = tree.lookup(b"/var/log/a").unwrap();
    for name in [&b"/var/log/b"[..], b"/var/log/kept", b"/usr/share/a"] {
        tree.link(name, id).unwrap();
    }
    scrub(&mut tree, &definition(&["/var/log/kept"]), None).unwrap();
    let contents = [
        "/var/log/a",
        "/var/log/b",
        "/var/log/kept",
        "/usr/share/a",
        "/var/log/whole",
    ]
    .map(|path| text(&tree, path));
    assert_eq!(contents, ["", "", "text", "text", ""]);
    // What was one file and is emptied together stays one.
    let (a, b) = (
        tree.lookup(b"/var/log/a").unwrap(),
        tree.lookup(b"/var/log/b").unwrap(),
    );
    assert_eq!(
        (
            a,
            tree.node(a).links,
            tree.node(id).links,
            tree.node(a).meta.mode
        ),
        (b, 2, 2, 0o640)
    );
}

#[test]
fn hard_links_without_a_rule_keep_content_and_kept_links_keep_the_time() {
    let mut tree = tree(&[
        ("/etc/shadow", "root:*:20781:0:99999:7:::\n"),
        ("/srv/a", "x"),
        ("/srv/b", "x"),
    ]);
    let shadow = tree.lookup(b"/etc/shadow").unwrap();
    tree.link(b"/usr/share/shadow", shadow).unwrap();
    for path in [&b"/srv/a"[..], b"/srv/b"] {
        let id = tree.lookup(path).unwrap();
        tree.node_mut(id).meta.mtime.seconds = 2_000_000_000;
    }
    let a = tree.lookup(b"/srv/a").unwrap();
    tree.link(b"/srv/kept", a).unwrap();
    let done = scrub(&mut tree, &definition(&["/srv/kept"]), Some(1_700_000_000)).unwrap();
    assert!(
        text(&tree, "/etc/shadow").contains(":19675:")
            && text(&tree, "/usr/share/shadow").contains(":20781:")
    );
    let seconds = |path: &[u8]| tree.node(tree.lookup(path).unwrap()).meta.mtime.seconds;
    assert_eq!(
        (seconds(b"/srv/a"), seconds(b"/srv/b")),
        (2_000_000_000, 1_700_000_000)
    );
    assert_eq!(
        done.iter()
            .find(|done| done.rule == "newer-times")
            .unwrap()
            .paths,
        [b"/srv/b".to_vec()]
    );
}

#[test]
fn removes_secrets_of_package_installations_and_explains_how_servers_create_them() {
    for (rule, path, needs_note) in [
        ("rndc-key", "/etc/bind/rndc.key", true),
        ("munge-key", "/etc/munge/munge.key", true),
        ("erlang-cookie", "/var/lib/rabbitmq/.erlang.cookie", false),
        ("dns-control-keys", "/etc/unbound/unbound_control.key", true),
        ("dns-control-keys", "/etc/nsd/nsd_server.pem", true),
        (
            "snakeoil-certificate",
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            true,
        ),
        ("xrdp-key", "/etc/xrdp/rsakeys.ini", true),
        ("host-id", "/etc/hostid", true),
        (
            "tor-keys",
            "/var/lib/tor/keys/ed25519_master_id_secret_key",
            false,
        ),
        ("salt-minion-key", "/etc/salt/pki/minion/minion.pem", true),
        ("mysql-identity", "/var/lib/mysql/auto.cnf", false),
        ("mysql-identity", "/var/lib/mysql/server-key.pem", false),
        (
            "node-identity",
            "/var/lib/zerotier-one/identity.secret",
            false,
        ),
        ("node-identity", "/etc/docker/key.json", false),
        ("reporting-identity", "/etc/popularity-contest.conf", false),
        ("disks", "/etc/multipath/wwids", false),
        ("session-cookies", "/root/.Xauthority", false),
        (
            "ssh-host-keys",
            "/etc/dropbear/initramfs/dropbear_rsa_host_key",
            false,
        ),
    ] {
        let mut image = tree(&[
            (path, "secret \"0123456789abcdefghij\";"),
            ("/etc/hostname", "x"),
        ]);
        let done =
            scrub(&mut image, &definition(&[]), None).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(image.lookup(path.as_bytes()), None, "{path}");
        assert!(
            done.iter()
                .any(|done| done.rule == rule && done.paths == [path.as_bytes()]),
            "{path}: {done:?}"
        );
        let notes = notes(&done);
        assert_eq!(notes.len(), usize::from(needs_note), "{path}: {notes:?}");
        assert!(
            notes.iter().all(|note| note.rule == rule
                && note.message.contains(path)
                && !note.hint.is_empty())
        );
        let mut kept = tree(&[(path, "x")]);
        scrub(&mut kept, &definition(&[path]), None).unwrap();
        assert_eq!(text(&kept, path), "x");
        // Under another name it still is what nobody may have twice.
        let mut twin = tree(&[(path, "x")]);
        let id = twin.lookup(path.as_bytes()).unwrap();
        twin.link(b"/usr/share/twin", id).unwrap();
        let is_secret = RULES
            .iter()
            .any(|known| known.name == rule && known.is_secret);
        let done = scrub(&mut twin, &definition(&[]), None);
        assert_eq!(done.is_err(), is_secret, "{path}");
        assert!(
            done.map_or_else(
                |error| error.message().contains("/usr/share/twin"),
                |_| true
            ),
            "{path}"
        );
    }
}

#[test]
fn removes_links_named_after_the_host_name_of_the_build_machine() {
    let mut image = tree(&[("/etc/ssl/certs/ssl-cert-snakeoil.pem", "x")]);
    for (path, target) in [
        (
            &b"/etc/ssl/certs/4f31dd6f.0"[..],
            &b"ssl-cert-snakeoil.pem"[..],
        ),
        (b"/etc/ssl/certs/other.0", b"other.pem"),
    ] {
        image
            .insert(path, Meta::default(), Kind::Symlink(target.into()))
            .unwrap();
    }
    scrub(&mut image, &definition(&[]), None).unwrap();
    assert!(
        image.lookup(b"/etc/ssl/certs/4f31dd6f.0").is_none()
            && image.lookup(b"/etc/ssl/certs/other.0").is_some()
    );
}

const WG: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

#[test]
fn keys_and_passwords_of_services_are_refused_by_path_unless_kept() {
    let wireguard = format!("[Interface]\nAddress = 10.0.0.1/24\nPrivateKey = {WG}\n");
    let slash = format!(
        "[NetDev]\nKind=wireguard\n[WireGuard]\nPrivateKey=/{}\n",
        &WG[1..]
    );
    let tsig = format!("key \"xfer\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{WG}\";\n}};\n");
    let one_line = format!("key \"xfer\" {{ algorithm hmac-sha256; secret \"{WG}\"; }};");
    let kea = format!(
        "{{\"tsig-keys\": [{{\"name\": \"a\", \"algorithm\": \"HMAC-SHA256\", \"secret\": \"{WG}\"}}]}}"
    );
    let jwk = format!(
        "{{\"kty\": \"RSA\", \"n\": \"x\", \"d\": \"{}\"}}",
        "A".repeat(64)
    );
    let vpn = format!(
        "-----BEGIN OpenVPN Static key V1-----\n{}\n-----END OpenVPN Static key V1-----\n",
        "0123456789abcdef0123456789abcdef\n".repeat(16)
    );
    for (rule, path, text) in [
        ("shared-key", "/etc/corosync/authkey", "x"),
        ("shared-key", "/etc/pacemaker/authkey", "x"),
        ("shared-key", "/etc/samba/passdb.tdb", "TDB file"),
        (
            "shared-key",
            "/var/lib/samba/private/secrets.tdb",
            "TDB file",
        ),
        ("shared-key", "/var/lib/samba/private/tls/x", "x"),
        ("shared-key", "/etc/wireguard/wg0.conf", &wireguard),
        ("shared-key", "/etc/wireguard/privatekey", WG),
        ("shared-key", "/etc/systemd/network/wg0.netdev", &slash),
        ("shared-key", "/etc/bind/keys.conf", &tsig),
        ("shared-key", "/etc/bind/named.conf.local", &one_line),
        ("shared-key", "/etc/kea/kea-dhcp-ddns.conf", &kea),
        (
            "shared-key",
            "/etc/ceph/ceph.client.admin.keyring",
            "[client.admin]\n\tkey = AQBvPGFmAAAAABAAxyz0123456789abcdefghi==\n",
        ),
        (
            "shared-key",
            "/etc/ipsec.secrets",
            "192.0.2.1 192.0.2.2 : PSK \"hunter2\"\n",
        ),
        (
            "shared-key",
            "/etc/swanctl/conf.d/a.conf",
            "secrets {\n  ike-1 {\n    secret = hunter2\n  }\n}\n",
        ),
        ("shared-key", "/etc/krb5.keytab", "\u{5}\u{2}\0\0\0"),
        ("shared-key", "/etc/krb5kdc/stash", "x"),
        (
            "shared-key",
            "/etc/chrony/chrony.keys",
            "1 SHA1 HEX:1dc764e0791b11fa67efc7ecbc4b0d73f68a070c\n",
        ),
        (
            "shared-key",
            "/etc/nvme/config.json",
            "[{\"hosttraddr\": \"x\", \"dhchap_key\": \"DHHC-1:00:abc\"}]",
        ),
        ("shared-key", "/etc/cryptsetup-keys.d/data.key", "x"),
        (
            "private-key",
            "/var/lib/tor/site/hs_ed25519_secret_key",
            "== ed25519v1-secret: type0 ==",
        ),
        (
            "private-key",
            "/etc/bind/Kexample.org.+013+1.private",
            "Private-key-format: v1.3\nAlgorithm: 13\n",
        ),
        (
            "private-key",
            "/etc/letsencrypt/accounts/a/private_key.json",
            &jwk,
        ),
        ("private-key", "/etc/openvpn/ta.key", &vpn),
        (
            "plain-text-password",
            "/etc/dbconfig-common/phpmyadmin.conf",
            "dbc_install='true'\ndbc_dbpass='hunter2'\n",
        ),
        (
            "plain-text-password",
            "/etc/phpmyadmin/config-db.php",
            "<?php\n$dbuser='a';\n$dbpass='hunter2';\n",
        ),
        (
            "plain-text-password",
            "/srv/www/wp-config.php",
            "define( 'DB_PASSWORD', 'hunter2' );\n",
        ),
        (
            "plain-text-password",
            "/etc/postfix/sasl/sasl_passwd",
            "[mail.example.org]:587 me:hunter2\n",
        ),
        ("plain-text-password", "/etc/postfix/sasl_passwd.db", "\0\0"),
        (
            "plain-text-password",
            "/etc/exim4/passwd.client",
            "*.example.org:me:hunter2\n",
        ),
        (
            "plain-text-password",
            "/etc/dovecot/dovecot-sql.conf.ext",
            "connect = host=db dbname=mail user=a password=b\n",
        ),
        (
            "plain-text-password",
            "/etc/freeipmi/freeipmi.conf",
            "username admin\npassword hunter2\n",
        ),
        (
            "plain-text-password",
            "/etc/snmp/snmpd.conf",
            "createUser me SHA hunter2hunter2 AES\n",
        ),
        (
            "plain-text-password",
            "/var/lib/iwd/home.psk",
            "[Security]\nPassphrase=hunter22\n",
        ),
        (
            "plain-text-password",
            "/etc/network/interfaces",
            "iface wlan0 inet dhcp\n  wpa-psk hunter22\n",
        ),
        (
            "plain-text-password",
            "/etc/netplan/50-wifi.yaml",
            "network:\n  wifis:\n    a:\n      access-points:\n        x:\n          password: hunter22\n",
        ),
        (
            "plain-text-password",
            "/etc/iscsi/iscsid.conf",
            "node.session.auth.password = hunter2\n",
        ),
        (
            "plain-text-password",
            "/etc/bacula/bacula-fd.conf",
            "Director {\n  Password = \"cYpQ1\"\n}\n",
        ),
        (
            "plain-text-password",
            "/etc/redis/redis.conf",
            "requirepass hunter2\n",
        ),
        (
            "plain-text-password",
            "/etc/msmtprc",
            "account a\nuser me\npassword hunter2\n",
        ),
        (
            "plain-text-password",
            "/etc/samba/.smbcredentials",
            "username=me\npassword=hunter2\n",
        ),
        ("plain-text-password", "/root/.vnc/passwd", "x"),
        (
            "cloud-credentials",
            "/root/.config/rclone/rclone.conf",
            "[s3]\nsecret_access_key = abc\n",
        ),
        ("cloud-credentials", "/etc/passwd-s3fs", "AKIA:abc\n"),
    ] {
        let error = refusal(&[(path, text)]);
        assert!(
            error.message().contains(&format!("{rule}: {path}")),
            "{path}: {error}"
        );
        scrub(&mut tree(&[(path, text)]), &definition(&[path]), None).unwrap();
    }
}

#[test]
fn accepts_the_configuration_files_of_packages() {
    let public = format!("[Peer]\nPublicKey = {WG}\nEndpoint = vpn.example.org:51820\n");
    for (path, text) in [
        ("/etc/wireguard/wg0.conf", &*public),
        ("/etc/wireguard/peer.pub", WG),
        ("/etc/systemd/network/a.network", "[Match]\nName=eth0\n"),
        (
            "/etc/bind/named.conf.options",
            "options {\n\tdirectory \"/var/cache/bind\";\n\t// secret \"AAAAAAAAAAAAAAAAAAAAAAAA\";\n};\n",
        ),
        (
            "/etc/chrony/chrony.keys",
            "# 1 MD5 AVeryLongAndRandomPassword\n",
        ),
        (
            "/etc/ipsec.secrets",
            "# : PSK \"x\"\ninclude /var/lib/strongswan/ipsec.secrets.inc\n: RSA key.pem\n",
        ),
        ("/etc/dbconfig-common/a.conf", "dbc_dbpass=''\n"),
        (
            "/etc/phpmyadmin/config-db.php",
            "$dbpass='';\n$dbserver='x';\n",
        ),
        (
            "/usr/share/wordpress/wp-config.php",
            "define('DB_PASSWORD', 'password_here');\ndefine('DB_PASSWORD', getenv('X'));\n",
        ),
        (
            "/etc/postfix/main.cf",
            "smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd\n",
        ),
        (
            "/etc/exim4/passwd.client",
            "### target.mail.server.example:login:password\n",
        ),
        ("/etc/dovecot/dovecot-ldap.conf.ext", "#dnpass = x\n"),
        ("/etc/freeipmi/freeipmi.conf", "# password mypassword\n"),
        (
            "/etc/snmp/snmpd.conf",
            "rouser authPrivUser authpriv -V systemonly\n# createUser a MD5 b\n",
        ),
        (
            "/etc/iscsi/iscsid.conf",
            "#node.session.auth.password = password\nnode.session.timeo.replacement_timeout = 120\n",
        ),
        ("/etc/redis/redis.conf", "# requirepass foobared\n"),
        (
            "/etc/krb5.conf",
            "[libdefaults]\ndefault_keytab_name = FILE:/etc/krb5.keytab\n",
        ),
        ("/etc/netplan/01.yaml", "network:\n  version: 2\n"),
        (
            "/etc/NetworkManager/system-connections/a",
            "[802-1x]\nprivate-key=/etc/ssl/a.key\n[wireguard]\nprivate-key-flags=1\n",
        ),
        ("/etc/freeradius/3.0/clients.conf", "secret = testing123\n"),
        (
            "/usr/lib/python3/dist-packages/jose/key.json",
            "{\"kty\": \"oct\", \"d\": \"AAAAAAAAAAAAAAAAAAAAAAAA\"}",
        ),
        ("/etc/tor/torrc", "HiddenServiceDir /var/lib/tor/site\n"),
    ] {
        scrub(&mut tree(&[(path, text)]), &definition(&[]), None)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn the_remedy_lists_every_path_of_every_rule() {
    let error = refusal(&[
        ("/etc/corosync/authkey", "x"),
        ("/root/.vault-token", "s.x"),
        ("/etc/a[1].pem", PEM),
    ]);
    let hint = error.remedy().unwrap();
    assert!(
        hint.contains(
            "keep = [\"/etc/a\\\\[1\\\\].pem\", \"/etc/corosync/authkey\", \"/root/.vault-token\"]"
        ),
        "{hint}"
    );
    let many: Vec<(String, &str)> = (0..30).map(|n| (format!("/srv/{n:02}.pem"), PEM)).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (&**path, *text)).collect();
    let error = refusal(&many);
    assert!(
        error.message().contains("/srv/19.pem and 10 more")
            && error.remedy().unwrap().contains("and 10 more"),
        "{error}"
    );
}

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n-----END PRIVATE KEY-----\n";

#[test]
fn secrets_in_attributes_are_refused_with_path_and_name() {
    let with = |name: &str, value: &[u8], kind: Kind| {
        let mut tree = Tree::new();
        let xattrs = Some(Arc::new(BTreeMap::from([(
            name.as_bytes().into(),
            value.into(),
        )])));
        tree.insert(
            b"/srv/x",
            Meta {
                xattrs,
                ..Meta::default()
            },
            kind,
        )
        .unwrap();
        scrub(&mut tree, &definition(&[]), None)
    };
    for (name, value) in [
        ("user.key", PEM),
        (
            "user.xdg.origin.url",
            "https://me:hunter2@example.org/file.tar",
        ),
        ("trusted.note", "API_TOKEN=abc"),
        ("user.aws", "AKIAIOSFODNN7EXAMPLE secret_access_key x"),
    ] {
        for kind in [
            Kind::Directory(BTreeMap::new()),
            Kind::File(Content::default()),
            Kind::Fifo,
        ] {
            let error = with(name, value.as_bytes(), kind).unwrap_err();
            assert!(
                error
                    .message()
                    .contains(&format!("/srv/x (attribute {name})"))
                    && error.remedy().unwrap().contains("keep = [\"/srv/x\"]"),
                "{error}"
            );
        }
    }
    for (name, value) in [
        ("user.xdg.origin.url", &b"https://example.org/file.tar"[..]),
        ("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0]),
        ("user.mime_type", b"text"),
    ] {
        with(name, value, Kind::File(Content::default())).unwrap();
    }
}
