use super::*;

fn entries(text: &str) -> Vec<MirrorSuite> {
    Mirror::parse(text).unwrap().entries().cloned().collect()
}

#[test]
fn an_address_loses_its_last_slash() {
    for (text, address) in [
        (
            "http://deb.debian.org/debian/",
            "http://deb.debian.org/debian",
        ),
        ("file:/srv/mirror", "file:/srv/mirror"),
        ("copy:/srv/mirror", "copy:/srv/mirror"),
        (
            " mirror+file:/etc/mirrors.txt\n",
            "mirror+file:/etc/mirrors.txt",
        ),
        ("tor+http://x.onion/debian", "tor+http://x.onion/debian"),
    ] {
        assert_eq!(
            Mirror::parse(text),
            Ok(Mirror::Address(address.to_owned())),
            "{text}"
        );
    }
}

#[test]
fn deb_lines_keep_their_options() {
    let text = "deb  [ arch=amd64  signed-by=/usr/share/keyrings/x.gpg,/etc/y.asc trusted=yes ]   http://x/debian/ trixie  main contrib";
    let Ok(Mirror::Lines(lines)) = Mirror::parse(text) else {
        panic!("no line")
    };
    assert_eq!(
        lines[0].text,
        "deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg,/etc/y.asc trusted=yes] http://x/debian/ trixie main contrib"
    );
    let entry = lines[0].entry.as_ref().unwrap();
    assert_eq!(
        (
            entry.uri.as_str(),
            entry.suite.as_str(),
            entry.components.len()
        ),
        ("http://x/debian", "trixie", 2)
    );
    assert_eq!(
        entry.signed_by,
        [
            PathBuf::from("/usr/share/keyrings/x.gpg"),
            PathBuf::from("/etc/y.asc")
        ]
    );
    assert!(entry.is_trusted && entry.expires);

    let several = entries(
        "# ours\ndeb http://x/debian trixie main\n\ndeb-src http://x/debian trixie main\ndeb [check-valid-until=no] file:/srv ./\n",
    );
    assert_eq!(
        several
            .iter()
            .map(|entry| (entry.suite.as_str(), entry.expires))
            .collect::<Vec<_>>(),
        [("trixie", true), ("./", false)]
    );
    assert_eq!(
        entries("deb [signed-by=871920D1991BC93C871920D1991BC93C00000000!] http://x sid main")[0]
            .signed_by,
        Vec::<PathBuf>::new()
    );
}

#[test]
fn stanzas_give_each_suite_of_each_address() {
    let text = "Types: deb deb-src\nURIs: http://a/ubuntu/ http://b/ubuntu\nSuites: noble noble-updates\nComponents: main\n universe\n# key\n\
                Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\nTrusted: no\nX-Repolib-Name: u\n\nEnabled: no\nTypes: deb\nURIs: http://c\nSuites: noble\nComponents: main\n\n\n\
                Types: deb\nURIs: file:/srv\nSuites: ./\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n";
    let found = entries(text);
    let shown: Vec<String> = found
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}",
                entry.uri,
                entry.suite,
                entry.components.join(",")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "http://a/ubuntu noble main,universe",
            "http://a/ubuntu noble-updates main,universe",
            "http://b/ubuntu noble main,universe",
            "http://b/ubuntu noble-updates main,universe",
            "file:/srv ./ "
        ]
    );
    assert_eq!(
        found[0].signed_by,
        [PathBuf::from(
            "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
        )]
    );
    assert!(found[4].signed_by.is_empty());
}

#[test]
fn refuses_values_that_apt_would_refuse() {
    for (text, why) in [
        ("", "empty"),
        ("# nothing", "empty"),
        ("deb.debian.org/debian", "not an address"),
        ("/srv/mirror", "not an address"),
        ("-x", "not an address"),
        ("http://x/debian trixie main", "not a mirror"),
        ("deb http://x/debian", "suite is missing"),
        ("deb http://x/debian trixie", "components are missing"),
        ("deb http://x/debian ./ main", "no components"),
        (
            "deb [arch=amd64 http://x/debian trixie main",
            "closing bracket",
        ),
        (
            "deb [singed-by=/x] http://x/debian trixie main",
            "did you mean \"signed-by\"",
        ),
        (
            "deb [signed-by=keys/x.gpg] http://x/debian trixie main",
            "absolute path",
        ),
        ("deb cdrom:[x]/ trixie main", "a disc is not a mirror"),
        (
            "deb http://x/debian trixie main\nhttp://y/debian",
            "does not start with deb",
        ),
        ("Types: deb\nURIs: http://x\nComponents: main", "no Suites"),
        (
            "Types: rpm\nURIs: http://x\nSuites: a\nComponents: main",
            "Types: \"rpm\"",
        ),
        (
            "Types: deb-src\nURIs: http://x\nSuites: a\nComponents: main",
            "no stanza here gives packages",
        ),
        (
            "Types: deb\nURIs: http://x\nURIs: http://y\nSuites: a\nComponents: main",
            "occurs twice",
        ),
        (
            "Types: deb\nURIs: http://x\nSuite: a\nComponents: main",
            "did you mean \"suites\"",
        ),
        ("http://x/\u{7}", "control character"),
    ] {
        let error = Mirror::parse(text).unwrap_err();
        assert!(error.contains(why), "{text:?}: {error}");
    }
}
