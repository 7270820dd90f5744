//! `adamant drift` by the real program. A script in place of ssh plays the hosts: some answer, some
//! fail.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The argument after `--` is the host; its name selects its behaviour.
const SSH: &str = r#"#!/bin/sh
echo "$@" >>"$FLEET/calls"
while [ "$1" != -- ]; do shift; done
: >"$FLEET/running/$2"
ls "$FLEET/running" | wc -l >>"$FLEET/at-once"
a=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
b=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
nonce=${3##* }
answer() { printf '{"image_id":"debian","image_version":"%s","root_hash":"%s","drift":[%s],"denials":{},"allowances":[],"volumes":[],"nonce":"'$nonce'"}\n' "$1" "$2" "$3"; }
code=0
case $2 in
  fine*) sleep 0.3; answer 1.2 $a ;;
  # All eight wait for each other.
  together*) while [ "$(wc -l <"$FLEET/calls")" -lt 8 ]; do sleep 0.05; done; answer 1.2 $a ;;
  behind) answer 1.1 $b ;;
  recorded) nonce=00000000000000000000000000000000; answer 1.2 $a ;;
  drifted) answer 1.2 $a '{"class":"units","what":"/run/systemd/transient/x.service","is":"there","should":"absent"},{"class":"mounts","what":"/usr","is":"tmpfs over it","should":"not mounted over"}'; code=1 ;;
  escapes) printf '\033]0;banner\007\n' >&2; answer 1.2 $a '{"class":"\u001b[2J","what":"\u009b31m\u202e","is":"\u0007","should":"a\nb"}'; code=1 ;;
  screams) printf 'last\n\033[2J\302\23331mwords\r\n' >&2; code=255 ;;
  garbage) printf '\033[2J\001{"drift":' ;;
  other) echo '{"version":1}' ;;
  floods) head -c 100000000 /dev/zero | tr '\0' x ;;
  hangs) sleep 987 & echo $! >"$FLEET/left"; sleep 987 ;;
  refused) echo 'root@refused: Permission denied (publickey).' >&2; code=255 ;;
  changed) echo 'Host key verification failed.' >&2; code=255 ;;
  plain) echo 'sh: 1: adamant-agent: not found' >&2; code=127 ;;
  old) echo 'adamant-agent: boots an image' >&2; code=2 ;;
  user) echo 'adamant: drift: only root is told by the kernel what it needs to know: run it as root' >&2; code=1 ;;
esac
rm "$FLEET/running/$2"
exit $code
"#;

struct Fleet(TempDir);

impl Fleet {
    fn new() -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let ssh = folder.path().join("ssh");
        fs::create_dir(folder.path().join("running")).unwrap();
        fs::write(&ssh, SSH).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        Fleet(folder)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
        command
            .arg("drift")
            .args(arguments)
            .env("FLEET", self.0.path());
        command.env(
            "PATH",
            format!(
                "{}:{}",
                self.0.path().display(),
                std::env::var("PATH").unwrap()
            ),
        );
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        // The output never contains control characters, whatever the hosts answer.
        let controls = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .chars()
                .any(|c| c.is_control() && c != '\n')
        };
        assert!(
            !controls(&output.stdout) && !controls(&output.stderr),
            "{output:?}"
        );
        output
    }

    fn text(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments, "");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }

    fn json(&self, arguments: &[&str], input: &str) -> (Option<i32>, Value) {
        let output = self.run(&[arguments, &["--json", "-q"]].concat(), input);
        (
            output.status.code(),
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}")),
        )
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

#[test]
fn sorts_the_worst_host_first_and_returns_its_exit_code() {
    let fleet = Fleet::new();
    let (code, text) = fleet.text(&["fine1", "behind", "refused", "fine2", "drifted"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "HOST     IMAGE       ROOT HASH  DRIFT",
            "drifted  debian 1.2  aaaaaaaa   2 (mounts 1, units 1)",
            "    mounts: /usr: is tmpfs over it, should be not mounted over",
            "    units: /run/systemd/transient/x.service: is there, should be absent",
            "refused  -           -          could not be asked: root@refused: Permission denied (publickey).",
            "fine1    debian 1.2  aaaaaaaa   no drift",
            "behind   debian 1.1  bbbbbbbb   no drift",
            "fine2    debian 1.2  aaaaaaaa   no drift",
            "",
            "debian is not the same everywhere: 3 hosts run 1.2 (aaaaaaaa), 1 runs 1.1 (bbbbbbbb: behind)",
            "",
            "5 hosts: 1 with drift, 1 could not be asked, 3 without drift",
        ]
    );
    assert_eq!(code, Some(1));
    assert_eq!(fleet.text(&["fine1", "refused"]).0, Some(3));
    assert_eq!(fleet.text(&["fine1", "behind"]).0, Some(0));
    let call = fleet.read("calls");
    assert!(
        call.contains("BatchMode=yes")
            && call.contains("ConnectTimeout=15 -- fine1 adamant-agent drift --json --nonce "),
        "{call}"
    );
}

#[test]
fn json_output_is_one_document_with_a_fixed_structure() {
    let fleet = Fleet::new();
    let (code, document) = fleet.json(
        &["drifted", "--hosts", "-"],
        "fine1 # the first\n\n# none\nrefused\nfine1\n",
    );
    assert_eq!(code, Some(1));
    let hosts: Vec<(&str, &str)> = document["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            (
                host["host"].as_str().unwrap(),
                host["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        hosts,
        [
            ("drifted", "drift"),
            ("refused", "not_asked"),
            ("fine1", "no_drift")
        ]
    );
    assert_eq!(
        document["hosts"][0]["drift"][0],
        serde_json::json!({"class": "mounts", "what": "/usr", "is": "tmpfs over it", "should": "not mounted over"})
    );
    assert_eq!(
        document["hosts"][1]["reason"],
        "root@refused: Permission denied (publickey)."
    );
    assert_eq!(
        (
            &document["hosts"][2]["image_version"],
            &document["hosts"][2]["root_hash"]
        ),
        (&"1.2".into(), &"a".repeat(64).into())
    );
    assert_eq!(
        document["images"][0]["variants"][0]["hosts"],
        serde_json::json!(["drifted", "fine1"])
    );
    assert_eq!(
        document["total"],
        serde_json::json!({"hosts": 3, "drift": 1, "not_asked": 1, "no_drift": 1})
    );
}

#[test]
fn a_host_without_an_answer_is_listed_with_the_reason_and_delays_no_other_host() {
    let fleet = Fleet::new();
    let names = [
        "hangs", "floods", "garbage", "other", "refused", "changed", "plain", "old", "user",
        "screams", "recorded", "fine1",
    ];
    let started = Instant::now();
    let (code, document) = fleet.json(&[&names[..], &["--timeout", "20s"]].concat(), "");
    // A host is stopped at the output limit, so the time limit of the slowest host counts.
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(code, Some(3));
    let reason = |name: &str| {
        let host = document["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|host| host["host"] == name)
            .unwrap();
        host["reason"].as_str().unwrap_or("none").to_owned()
    };
    assert_eq!(reason("fine1"), "none");
    assert_eq!(reason("hangs"), "no answer within 20 s");
    assert_eq!(reason("floods"), "its output exceeds 1024 KiB");
    assert!(
        reason("garbage").starts_with("not an answer of adamant-agent's"),
        "{}",
        reason("garbage")
    );
    assert!(
        reason("other").contains("the field `drift` is missing"),
        "{}",
        reason("other")
    );
    assert_eq!(
        reason("refused"),
        "root@refused: Permission denied (publickey)."
    );
    assert_eq!(reason("changed"), "Host key verification failed.");
    assert_eq!(
        reason("plain"),
        "it can't run adamant-agent: sh: 1: adamant-agent: not found"
    );
    assert!(reason("recorded").contains("the nonce of this question"));
    assert!(reason("old").contains("too old"), "{}", reason("old"));
    assert!(
        reason("user").ends_with("run it as root"),
        "{}",
        reason("user")
    );
    assert_eq!(reason("screams"), r"\u{1b}[2J\u{9b}31mwords");
    // Processes that ssh had started are killed, too.
    let left = fleet.read("left");
    let gone = || {
        !fs::read_to_string(format!("/proc/{}/cmdline", left.trim()))
            .is_ok_and(|line| line.contains("987"))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !gone() {
        assert!(Instant::now() < deadline, "{left} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn output_of_a_host_cannot_control_the_terminal() {
    let fleet = Fleet::new();
    let (code, text) = fleet.text(&["escapes", "screams", "garbage"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains(r"\u{1b}[2J: \u{9b}31m\u{202e}: is \u{7}, should be a\u{a}b"),
        "{text}"
    );
    // Also in the document, because people view it in terminals.
    let (_, document) = fleet.json(&["escapes"], "");
    assert_eq!(document["hosts"][0]["drift"][0]["is"], r"\u{7}");
}

#[test]
fn queries_at_most_the_given_number_of_hosts_in_parallel() {
    let fleet = Fleet::new();
    let list = fleet.0.path().join("list");
    fs::write(
        &list,
        (0..8).map(|n| format!("fine{n}\n")).collect::<String>(),
    )
    .unwrap();
    assert_eq!(
        fleet
            .text(&["--jobs", "2", "--hosts", list.to_str().unwrap()])
            .0,
        Some(0)
    );
    let most = fleet
        .read("at-once")
        .lines()
        .map(|line| line.trim().parse::<usize>().unwrap())
        .max()
        .unwrap();
    assert!(most <= 2, "{most}");
}

#[test]
fn queries_hosts_in_parallel() {
    let fleet = Fleet::new();
    let list = fleet.0.path().join("list");
    fs::write(
        &list,
        (0..8).map(|n| format!("together{n}\n")).collect::<String>(),
    )
    .unwrap();
    let (code, text) = fleet.text(&["--hosts", list.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn refuses_invalid_host_names_before_any_query() {
    let fleet = Fleet::new();
    let list = fleet.0.path().join("list");
    fs::write(&list, "fine1\nfine2;id\n").unwrap();
    for arguments in [
        vec!["--", "fine1", "-oProxyCommand=id"],
        vec!["--hosts", list.to_str().unwrap()],
        vec!["--hosts", "/missing"],
        vec!["--hosts", "/dev/null"],
    ] {
        let output = fleet.run(&arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            output.stdout.is_empty()
                && String::from_utf8_lossy(&output.stderr).starts_with("error: "),
            "{output:?}"
        );
    }
    let said = fleet.run(&["--hosts", list.to_str().unwrap()], "");
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("list:2: \"fine2;id\" is not a host"),
        "{said:?}"
    );
    assert!(!fleet.0.path().join("calls").exists());
}

#[test]
fn the_users_options_and_sudo_reach_ssh() {
    let fleet = Fleet::new();
    assert_eq!(
        fleet
            .text(&[
                "fine1",
                "--sudo",
                "--ssh-option",
                "User=me",
                "--ssh-option",
                "ConnectTimeout=3"
            ])
            .0,
        Some(0)
    );
    let call = fleet.read("calls");
    let at = |words: &str| {
        call.find(words)
            .unwrap_or_else(|| panic!("{words}: {call}"))
    };
    assert!(
        at("-o BatchMode=yes") < at("-o User=me")
            && at("-o ConnectTimeout=3") < at("-o ConnectTimeout=15")
    );
    assert!(
        call.contains("-- fine1 sudo -n adamant-agent drift --json --nonce "),
        "{call}"
    );
}
