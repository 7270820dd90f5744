//! The attack suite, tests/attacks: its own rules, and that what each level must refuse is refused.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use adamant_tests::image::workspace;

const CLASSES: usize = 8;

#[test]
fn every_attack_has_a_level_a_title_and_says_who_refuses_it() {
    let dir = workspace().join("tests/attacks");
    let files = fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let files: Vec<_> = files
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains('-'))
        })
        .collect();
    assert_eq!(files.len(), CLASSES);
    let mut ids = BTreeSet::new();
    for file in files {
        let class = file.file_name().unwrap().to_string_lossy()[..1].to_uppercase();
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(header) = line.strip_prefix("### ") else {
                continue;
            };
            let place = format!("{}:{}", file.display(), number + 1);
            let (words, title) = header
                .split_once(": ")
                .unwrap_or_else(|| panic!("{place}: no title"));
            let mut words = words.split(' ');
            let (id, level) = (words.next().unwrap(), words.next().unwrap_or_default());
            assert!(
                id.starts_with(&class) && ids.insert(id.to_owned()),
                "{place}: {id}"
            );
            assert!(
                ["verity", "lockdown", "guard", "open"].contains(&level),
                "{place}: {level}"
            );
            assert!(
                words.all(|word| ["slow", "last", "anyone"].contains(&word)) && !title.is_empty(),
                "{place}"
            );
            assert!(
                lines
                    .get(number + 1)
                    .is_some_and(|next| next.starts_with("# who refuses it: ")),
                "{place}: who refuses it?"
            );
        }
    }
    assert!(ids.len() >= 130, "{} attacks", ids.len());
}

/// As Linux 5.9 and later have them: CAP_CHECKPOINT_RESTORE is number 40.
const CAPABILITIES: usize = 41;

#[test]
fn every_capability_says_once_which_attacks_it_could_open() {
    let text = fs::read_to_string(workspace().join("tests/attacks/capabilities")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names: BTreeSet<&str> = lines
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        names.iter().all(|name| name.starts_with("CAP_"))
            && names.len() == lines.len()
            && names.len() == CAPABILITIES,
        "{names:?}"
    );
}

#[test]
#[ignore = "long: builds and boots six Debian machines and attacks each"]
fn every_attack_is_refused_from_its_level_on() {
    let ended = Command::new(workspace().join("tests/attacks/run"))
        .status()
        .unwrap();
    assert!(ended.success(), "see above");
}
