use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;

fn said(code: i32, out: &str, err: &str) -> HostOutcome {
    // An answer repeats the nonce of the question.
    let nonce = Nonce::random().unwrap();
    let member = format!(r#""nonce":"{}","drift":"#, nonce.as_str());
    said_to(&nonce, code, &out.replace(r#""drift":"#, &member), err)
}

fn said_to(nonce: &Nonce, code: i32, out: &str, err: &str) -> HostOutcome {
    let captured = Captured {
        status: ExitStatus::from_raw(code << 8),
        out: out.into(),
        err: err.into(),
    };
    HostOutcome::from_ssh(&captured, nonce)
}

fn reason(code: i32, out: &str, err: &str) -> String {
    match said(code, out, err) {
        HostOutcome::NotAsked { reason } => reason,
        other => panic!("{other:?}"),
    }
}

const ONE: &str = r#"{"drift":[{"class":"units","what":"a","is":"there","should":"absent"},{"class":"verity","what":"b","is":"c","should":"d"}],"denials":{"x":2}}"#;

#[test]
fn reads_answers_of_older_and_newer_agents() {
    let HostOutcome::Drift(answer) = said(1, ONE, "") else {
        panic!()
    };
    assert_eq!(
        (
            answer.drift[0].class.as_str(),
            &answer.image_id,
            answer.denied()
        ),
        ("verity", &None, 2)
    );
    assert_eq!(answer.classes(), [("verity", 1), ("units", 1)]);
    let hash = "AB".repeat(32);
    let text = format!(
        r#"{{"image_id":"web","image_version":"1","root_hash":"{hash}","drift":[],"denials":{{}},"new":[1]}}"#
    );
    let HostOutcome::NoDrift(answer) = said(0, &text, "Welcome\n") else {
        panic!()
    };
    assert_eq!(
        (answer.image_id.as_deref(), answer.root_hash),
        (Some("web"), Some("ab".repeat(32)))
    );
}

#[test]
fn finds_the_answer_among_lines_of_the_hosts_shell() {
    for (before, after) in [
        ("*** web1 ***\nloading profile\n", "\n"),
        ("{ not ours }\n{\n", ""),
        ("\r\n", "\r\nlogout\n"),
        ("\u{1b}[2J\n", "\n\n"),
    ] {
        let out = format!("{before}{ONE}{after}");
        assert!(
            matches!(said(1, &out, ""), HostOutcome::Drift(ref answer) if answer.drift.len() == 2),
            "{out:?}"
        );
    }
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(ONE).unwrap())
            .unwrap();
    assert!(matches!(
        said(1, &format!("motd\n{pretty}\n"), ""),
        HostOutcome::Drift(_)
    ));
    let reason = reason(0, "\n*** web1 - authorised use only ***\nmore\n", "");
    assert!(reason.contains("it says \"*** web1 - authorised use only ***\": let its shell's start files print nothing"), "{reason}");
}

#[test]
fn gives_a_reason_for_every_missing_answer() {
    assert_eq!(
        reason(255, "", "@@@\nroot@a: Permission denied (publickey).\r\n"),
        "root@a: Permission denied (publickey)."
    );
    assert_eq!(reason(255, ONE, ""), "ssh failed without a message");
    assert_eq!(
        reason(127, "", "sh: 1: adamant-agent: not found"),
        "it can't run adamant-agent: sh: 1: adamant-agent: not found"
    );
    assert_eq!(
        reason(1, "", "adamant: drift: run it as root\n"),
        "adamant: drift: run it as root"
    );
    assert_eq!(reason(0, " \n", ""), "no output");
    assert!(reason(2, "", "help").contains("too old"));
    assert_eq!(reason(70, "", ""), "adamant-agent ended with exit code 70");
    for garbage in [
        "{",
        "[]",
        "{}",
        "\u{1b}[2J",
        r#"{"drift":[1]}"#,
        r#"{"drift":[]} x"#,
        &"[".repeat(100_000),
    ] {
        assert!(
            reason(0, garbage, "").starts_with("not an answer"),
            "{garbage:.40}"
        );
    }
    assert!(reason(0, r#"{"drift":[],"root_hash":"ab"}"#, "").contains("root_hash"));
    assert!(
        reason(0, ONE, "").contains("contradicts")
            && reason(1, r#"{"drift":[]}"#, "").contains("contradicts")
    );
}

#[test]
fn an_answer_to_another_question_counts_as_none() {
    let nonce = Nonce::random().unwrap();
    for other in ["", r#""nonce":null,"#, r#""nonce":"00","#] {
        let text = format!(r#"{{{other}"drift":[]}}"#);
        let HostOutcome::NotAsked { reason } = said_to(&nonce, 0, &text, "") else {
            panic!("{text}")
        };
        assert!(
            reason.contains("does not have the nonce of this question"),
            "{reason}"
        );
    }
}

#[test]
fn escapes_control_characters_of_a_host() {
    assert_eq!(
        printable("a\u{1b}]0;x\u{7}\n\u{9b}\u{202e}ü"),
        r"a\u{1b}]0;x\u{7}\u{a}\u{9b}\u{202e}ü"
    );
    assert_eq!(printable(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    let hostile = ONE
        .replace("\"units\"", r#""\u001b[2J""#)
        .replace("\"a\"", r#""\u009bA""#);
    let HostOutcome::Drift(answer) = said(1, &hostile, "") else {
        panic!()
    };
    assert!(
        !format!("{}{}", answer.drift[1].class, answer.drift[1].what)
            .chars()
            .any(char::is_control),
        "{answer:?}"
    );
    assert!(
        !reason(255, "", "\u{1b}[2Jbye\u{9b}")
            .chars()
            .any(char::is_control)
    );
}

#[test]
fn sorts_drift_before_missing_answers() {
    let ranks = [
        said(1, ONE, ""),
        said(1, &ONE.replace("verity", "mounts"), ""),
        said(255, "", ""),
        said(0, r#"{"drift":[]}"#, ""),
    ]
    .map(|one| one.rank());
    assert!(ranks.is_sorted(), "{ranks:?}");
}
