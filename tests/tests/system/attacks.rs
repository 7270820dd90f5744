//! The attack suite, tests/attacks: its files, and that each level refuses what it must refuse.

use std::collections::BTreeSet;
use std::process::Command;

use adamant_tests::attacks::capabilities::capabilities;
use adamant_tests::attacks::directory;
use adamant_tests::attacks::index::Index;

/// Number of attacks when the index became a file: none gets lost.
const ATTACKS: usize = 393;

#[test]
fn every_attack_has_an_entry_and_a_body() {
    let index = Index::load(&directory()).unwrap_or_else(|e| panic!("{e}"));
    let count = index.attacks.len();
    assert!(count >= ATTACKS, "{count} attacks");
    for attack in &index.attacks {
        let path = directory().join(format!("bodies/{}.sh", attack.id));
        let checked = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(
            checked.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}

/// Linux 5.9 and later have this many: CAP_CHECKPOINT_RESTORE is number 40.
const CAPABILITIES: usize = 41;

#[test]
fn every_capability_has_one_line() {
    let capabilities = capabilities(&directory()).unwrap();
    let names: BTreeSet<&str> = (capabilities.iter())
        .map(|capability| capability.name.as_str())
        .collect();
    assert_eq!(names.len(), capabilities.len(), "{names:?}");
    assert_eq!(names.len(), CAPABILITIES, "{names:?}");
}

#[test]
fn every_expression_of_a_capability_matches_an_attack() {
    let index = Index::load(&directory()).unwrap_or_else(|e| panic!("{e}"));
    for capability in capabilities(&directory()).unwrap() {
        let matches = capability.attacks(&index).len();
        assert_eq!(
            matches > 0,
            capability.expression.is_some(),
            "{capability:?} matches {matches} attacks"
        );
    }
}

#[test]
#[ignore = "long: builds and boots six Debian machines and attacks each"]
fn every_attack_is_refused_from_its_level_on() {
    let ended = Command::new(directory().join("run")).status().unwrap();
    assert!(ended.success(), "see above");
}
