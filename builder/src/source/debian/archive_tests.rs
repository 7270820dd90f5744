use super::*;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

pub fn debian(suite: &str) -> Debian {
    Debian {
        suite: suite.to_owned(),
        packages: vec![],
        variant: "important".to_owned(),
        architecture: "amd64".to_owned(),
        components: vec!["main".to_owned()],
        mirrors: vec![],
        snapshot: None,
        proxy: None,
        keyring: None,
        recommends: false,
    }
}

/// An archive in a directory, with Release files alone.
struct Local(TempDir);

impl Local {
    fn new() -> Local {
        Local(tempfile::tempdir().unwrap())
    }

    fn suite(self, path: &str, release: &str) -> Local {
        let folder = self.0.path().join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("InRelease"), release).unwrap();
        self
    }

    fn uri(&self, path: &str) -> String {
        format!("file:{}/{path}", self.0.path().display())
    }

    /// The address that mmdebstrap gets.
    fn copied(&self, path: &str) -> String {
        self.uri(path).replace("file:", "copy:")
    }
}

const RELEASE: &str = "Origin: Debian\nDate: Sat, 01 Jan 2000 00:00:00 UTC\nArchitectures: amd64 arm64\nComponents: main contrib\n";
const LATER: &str = "Origin: Debian\nDate: Sun, 02 Jan 2000 00:00:00 UTC\nComponents: main\n";

fn with(suite: &str, mirrors: &[&str]) -> Debian {
    Debian {
        mirrors: mirrors
            .iter()
            .map(|text| Mirror::parse(text).unwrap())
            .collect(),
        ..debian(suite)
    }
}

fn refused(debian: &Debian) -> String {
    match state(debian) {
        Err(Failure::Refused(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn names(debian: &Debian) -> Vec<String> {
    candidates(debian)
        .iter()
        .map(|candidate| format!("{} {}", candidate.entry.uri, candidate.entry.suite))
        .collect()
}

#[test]
fn a_release_includes_its_update_and_security_suites() {
    assert_eq!(names(&debian("sid")), ["http://deb.debian.org/debian sid"]);
    assert_eq!(
        names(&debian("trixie")),
        [
            "http://deb.debian.org/debian trixie",
            "http://deb.debian.org/debian trixie-updates",
            "http://security.debian.org/debian-security trixie-security"
        ]
    );
    let dated = Debian {
        snapshot: Some("20261101T000000Z".to_owned()),
        ..debian("trixie")
    };
    assert_eq!(names(&dated).len(), 3);
    assert!(
        names(&dated)
            .iter()
            .all(|name| name.contains("20261101T000000Z"))
    );
    assert_eq!(
        names(&with("sid", &["file:/srv/mirror/"])),
        ["file:/srv/mirror sid"]
    );
    assert_eq!(
        names(&with("trixie-backports", &["file:/srv/mirror/"])),
        ["file:/srv/mirror trixie-backports"]
    );
}

#[test]
fn finds_the_security_suite_of_a_debian_mirror_in_the_neighbouring_archive() {
    let local = Local::new()
        .suite("debian/dists/trixie", RELEASE)
        .suite("debian/dists/trixie-updates", RELEASE)
        .suite("debian-security/dists/trixie-security", LATER);
    let mirror = local.uri("debian");
    let state = state(&with("trixie", &[&mirror])).unwrap();
    let (copied, security) = (local.copied("debian"), local.copied("debian-security"));
    assert_eq!(
        state.lines,
        [
            format!("deb {copied} trixie main"),
            format!("deb {copied} trixie-updates main"),
            format!("deb {security} trixie-security main")
        ]
    );
    assert_eq!(
        (state.date, state.archive.warnings.len()),
        (946_684_800 + 86_400, 0)
    );
    let suites: Vec<_> = state
        .archive
        .suites
        .iter()
        .map(|suite| (suite.suite.as_str(), suite.date))
        .collect();
    assert_eq!(
        suites,
        [
            ("trixie", Some(946_684_800)),
            ("trixie-updates", Some(946_684_800)),
            ("trixie-security", Some(946_684_800 + 86_400))
        ]
    );
}

#[test]
fn finds_the_security_suite_of_an_ubuntu_mirror_in_the_same_archive() {
    let ubuntu = RELEASE.replace("Debian", "Ubuntu");
    let local = Local::new()
        .suite("ubuntu/dists/noble", &ubuntu)
        .suite("ubuntu/dists/noble-updates", &ubuntu)
        .suite("ubuntu/dists/noble-security", &ubuntu);
    let state = state(&with("noble", &[&local.uri("ubuntu/")])).unwrap();
    assert_eq!((state.lines.len(), state.archive.warnings.len()), (3, 0));
    assert_eq!(
        state.lines[2],
        format!("deb {} noble-security main", local.copied("ubuntu"))
    );
}

#[test]
fn warns_of_a_mirror_without_update_and_security_suites() {
    let local = Local::new()
        .suite("debian/dists/trixie", RELEASE)
        .suite("security/dists/trixie-security", LATER);
    let mirror = local.uri("debian");
    let alone = state(&with("trixie", &[&mirror])).unwrap();
    assert_eq!(
        alone.lines,
        [format!("deb {} trixie main", local.copied("debian"))]
    );
    let told: Vec<&str> = alone
        .archive
        .warnings
        .iter()
        .map(|warning| warning.message.as_str())
        .collect();
    assert_eq!(told.len(), 2);
    assert!(
        told[0].starts_with("suite trixie-security: ")
            && told[0].contains(&mirror)
            && told[1].starts_with("suite trixie-updates: "),
        "{told:?}"
    );
    // Another address may be of a security archive alone.
    let both = state(&with("trixie", &[&mirror, &local.uri("security")])).unwrap();
    assert_eq!(both.lines.len(), 2);
    assert_eq!(both.archive.warnings.len(), 1);
    assert_ne!(alone.digest, both.digest);
    assert!(state(&with("sid", &[&local.uri("debian")])).is_err());
}

#[test]
fn lines_and_stanzas_define_their_own_suites() {
    let local = Local::new()
        .suite("a/dists/trixie", RELEASE)
        .suite("a/dists/trixie-security", RELEASE)
        .suite("b", LATER);
    let (a, b) = (local.uri("a"), local.uri("b"));
    let line = format!("deb [arch=amd64 trusted=yes] {a} trixie main");
    let stanza = format!("Types: deb\nURIs: {b}\nSuites: ./\nTrusted: yes");
    let state = state(&with("trixie", &[&line, &stanza])).unwrap();
    assert_eq!(
        (state.lines.as_slice(), state.stanzas.as_slice()),
        (
            [line.replace("file:", "copy:")].as_slice(),
            [stanza.replace("file:", "copy:")].as_slice()
        )
    );
    assert_eq!(
        state
            .archive
            .suites
            .iter()
            .map(|suite| suite.suite.as_str())
            .collect::<Vec<_>>(),
        ["trixie", "./"]
    );
    assert_eq!(
        state.archive.warnings.len(),
        2,
        "{:?}",
        state.archive.warnings
    );
    assert!(state.archive.warnings[0].remedy.contains("line or stanza"));
    // An address beside a line has its own suites.
    let mixed = super::state(&with("trixie", &[&format!("deb {b} ./"), &a])).unwrap();
    let (a, b) = (local.copied("a"), local.copied("b"));
    assert_eq!(
        mixed.lines,
        [
            format!("deb {a} trixie main"),
            format!("deb {a} trixie-security main"),
            format!("deb {b} ./")
        ]
    );
}

#[test]
fn an_archive_without_a_signature_needs_packages_only_if_it_is_trusted() {
    let local = Local::new().suite("base/dists/trixie", RELEASE);
    fs::create_dir(local.0.path().join("flat")).unwrap();
    fs::write(local.0.path().join("flat/Packages"), "Package: x\n").unwrap();
    let base = format!("deb {} trixie main", local.uri("base"));
    let state = state(&with(
        "trixie",
        &[
            &base,
            &format!("deb [trusted=yes] {} ./", local.uri("flat")),
        ],
    ))
    .unwrap();
    assert_eq!(state.archive.suites[1].date, None);
    let told = refused(&with(
        "trixie",
        &[&base, &format!("deb {} ./", local.uri("flat"))],
    ));
    assert!(told.contains("trusted=yes"), "{told}");
    let told = refused(&with(
        "trixie",
        &[&format!("deb [trusted=yes] {} ./", local.uri("flat"))],
    ));
    assert!(told.contains("Date"), "{told}");
}

#[test]
fn a_suite_that_does_not_exist_is_refused_with_the_nearest_name() {
    let local = Local::new()
        .suite("dists/trixie", RELEASE)
        .suite("dists/our-own", RELEASE);
    for (suite, near) in [("trixi", "`trixie`"), ("our-onw", "`our-own`")] {
        let told = refused(&with(suite, &[&local.uri("")]));
        assert!(
            told.starts_with(&format!("suite {suite}: ")) && told.contains(near),
            "{told}"
        );
    }
    let told = refused(&with("warty", &[&local.uri("")]));
    assert!(told.contains("the archive has our-own, trixie"), "{told}");
    let told = refused(&with(
        "trixie",
        &[&format!("deb {} trixei main", local.uri(""))],
    ));
    assert!(
        told.starts_with("suite trixei: ") && told.contains("`trixie`"),
        "{told}"
    );
    let told = refused(&with("trixie", &["file:/nowhere/at/all"]));
    assert!(told.contains("/nowhere/at/all does not exist"), "{told}");
    // One address of two that has nothing is named.
    let told = refused(&with("trixie", &[&local.uri(""), &local.uri("other")]));
    assert!(told.contains(&local.uri("other")), "{told}");
    assert!(Path::new(local.0.path()).exists());
}

#[test]
fn an_expired_release_and_a_wrong_component_or_architecture_are_refused() {
    let expired = format!("{RELEASE}Valid-Until: Sat, 08 Jan 2000 00:00:00 UTC\n");
    let local = Local::new()
        .suite("old/dists/trixie", &expired)
        .suite("new/dists/trixie", RELEASE);
    let check = |debian: &Debian| state(debian).unwrap().check(debian);
    let told = check(&with("trixie", &[&local.uri("old")]))
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("expired at 2000-01-08")
            && told.contains(&format!(
                "deb [check-valid-until=no] {} trixie main",
                local.uri("old")
            )),
        "{told}"
    );
    check(&with(
        "trixie",
        &[&format!(
            "deb [check-valid-until=no] {} trixie main",
            local.uri("old")
        )],
    ))
    .unwrap();
    check(&with("trixie", &[&local.uri("new")])).unwrap();
    let told = check(&Debian {
        components: vec!["contirb".to_owned()],
        ..with("trixie", &[&local.uri("new")])
    })
    .unwrap_err()
    .to_string();
    assert!(
        told.contains("no component contirb") && told.contains("`contrib`"),
        "{told}"
    );
    let told = check(&Debian {
        architecture: "armhf".to_owned(),
        ..with("trixie", &[&local.uri("new")])
    })
    .unwrap_err()
    .to_string();
    assert!(
        told.contains("no architecture armhf") && told.contains("arm64"),
        "{told}"
    );
}

#[test]
fn an_unreachable_archive_is_not_a_missing_suite() {
    let answer = state(&with("trixie", &["http://127.0.0.1:9/debian"]));
    // Without apt's helper there is no answer either.
    let Err(Failure::Unreachable(error)) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        error.message().contains("127.0.0.1:9") || error.message().contains("apt-helper"),
        "{error}"
    );
}
