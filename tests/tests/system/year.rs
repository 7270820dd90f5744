//! A server lives long, and under attack: nothing of it grows, nothing stands still, and nothing
//! that an operator does is taken for an attack.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adamant_tests::scratch::Scratch;
use adamant_tests::server::{Server, reference};
use adamant_tests::tool;
use serde_json::Value;

const FLOOD: &str = include_str!("../../year/flood.pl");
const RACE: &str = include_str!("../../year/race.pl");
const LIFE: &str = include_str!("../../year/life.sh");

/// Promised for the watch, KiB.
const MEMORY: u64 = 8 << 10;
/// What the kernel may have more of at the end, KiB: its caches of names and inodes have been
/// emptied before.
const KERNEL: u64 = 24 << 10;
/// The longest time that a service's answer may take under attack, in times of that without one:
/// two of two processors are the attacker's.
const SLOWER: u32 = 8;

fn start(scratch: &Scratch) -> Option<Server> {
    let mut server = Server::fresh(&reference("debian"), scratch, |setup| {
        setup.deadline(Duration::from_secs(4 * 3600))
    })?;
    assert_eq!(
        server.ask("systemctl is-system-running --wait").trim(),
        "running"
    );
    Some(server)
}

/// A script, given to what runs it as its standard input.
fn script(server: &mut Server, run: &str, text: &str) -> String {
    assert!(!text.lines().any(|line| line == "END"));
    server.ask(&format!("{run} <<'END'\n{text}END\n"))
}

/// What the agent's programs and the kernel hold, KiB.
#[derive(Debug, Clone, Copy)]
struct Held {
    watch: u64,
    scrub: u64,
    kernel: u64,
}

fn held(server: &mut Server) -> Held {
    let rss = |server: &mut Server, unit: &str| {
        let said = server.ask(&format!("sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(systemctl show -P MainPID {unit})/status"));
        said.trim()
            .parse()
            .unwrap_or_else(|e| panic!("{unit}: {e}: {said}"))
    };
    let (watch, scrub) = (rss(server, "adamant-watch"), rss(server, "adamant-scrub"));
    // BPF's maps are memory of the kernel's that is mapped page by page, or per processor, or slabs
    // that can't be given back.
    let sum = "awk '/^(SUnreclaim|VmallocUsed|Percpu|KernelStack|PageTables):/ { all += $2 } END { print all }' /proc/meminfo";
    let said = server.ask(&format!(
        "sync; echo 3 >/proc/sys/vm/drop_caches; sleep 2; {sum}"
    ));
    let kernel = said
        .trim()
        .parse()
        .unwrap_or_else(|e| panic!("{e}: {said}"));
    Held {
        watch,
        scrub,
        kernel,
    }
}

/// How often what was refused, as the watch told it: by hook, the process's and its parent's name,
/// and the name of what it wanted.
fn denials(server: &mut Server) -> BTreeMap<String, u64> {
    let lines =
        server.ask("cat /run/adamant/events.jsonl.1 /run/adamant/events.jsonl 2>/dev/null; true");
    let mut all = BTreeMap::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let kind = match text("class").as_str() {
            "denials" => format!(
                "{} of {:?} to {:?} of {:?}",
                text("hook"),
                text("name"),
                text("comm"),
                text("parent")
            ),
            class => format!(
                "{class}: {} is {}",
                text("what") + &text("name"),
                text("is")
            ),
        };
        *all.entry(kind).or_default() += event["times"].as_u64().unwrap_or(1);
    }
    all
}

fn counter(server: &mut Server, hook: &str) -> u64 {
    let json: Value = serde_json::from_str(&server.ask("adamant-agent status --json"))
        .unwrap_or_else(|e| panic!("{e}"));
    json["now"]["denials"][hook].as_u64().unwrap_or(0)
}

fn no_unit_failed(server: &mut Server) {
    let failed = server.ask("systemctl --failed --no-legend --plain");
    assert_eq!(
        failed.trim(),
        "",
        "{}",
        server.ask("journalctl -b -p warning --no-pager | tail -n 40")
    );
}

/// The longest of some answers, on the server itself: a login takes its own time.
fn answer(server: &mut Server) -> Duration {
    let slowest = "for i in 1 2 3 4 5; do s=$(date +%s%N); adamant-agent status >/dev/null || exit; echo $(($(date +%s%N) - s)); done | sort -n | tail -n 1";
    let said = server.ask(slowest);
    Duration::from_nanos(
        said.trim()
            .parse()
            .unwrap_or_else(|e| panic!("{e}: {said}")),
    )
}

#[test]
#[ignore = "long: a Debian under attack; with ADAMANT_ALL for more than ten minutes"]
fn a_server_under_attack_answers_and_its_guard_does_not_grow() {
    let scratch = Scratch::new("attack");
    let Some(mut server) = start(&scratch) else {
        return;
    };
    let (calm, before) = (answer(&mut server), held(&mut server));
    let counted = counter(&mut server, "file_open");
    // Both processors are busy with being refused, for a while, while others want something.
    let seconds = if tool::is_long() { 120 } else { 30 };
    // Through a pipe: perl reads no script of a volume's.
    server.ask(&format!(
        "cat >/var/tmp/flood.pl <<'END'\n{FLOOD}END\nfor i in 1 2; do (cat /var/tmp/flood.pl | perl - {seconds} >/var/tmp/flood.$i 2>&1 &); done"
    ));
    let attacked = answer(&mut server);
    let login = Instant::now();
    server.ask("true");
    println!(
        "a status takes {calm:?}, under attack {attacked:?}; a login {:?}",
        login.elapsed()
    );
    let said = server.ask(&format!("sleep {seconds}; while pgrep -x perl >/dev/null; do sleep 1; done; cat /var/tmp/flood.1 /var/tmp/flood.2"));
    let refused: Vec<u64> = said
        .lines()
        .map(|line| {
            line.strip_prefix("refused ")
                .and_then(|n| n.parse().ok())
                .unwrap_or_else(|| panic!("{said}"))
        })
        .collect();
    let all: u64 = refused.iter().sum();
    println!("{} denials a second, {all} in all", all / seconds);
    assert_eq!(refused.len(), 2, "{said}");
    assert!(
        attacked <= calm * SLOWER + Duration::from_secs(1),
        "{calm:?}, {attacked:?}"
    );
    // Far more than the ring has room for: events may be lost, and no number is.
    assert_eq!(counter(&mut server, "file_open") - counted, all);
    let after = held(&mut server);
    println!("before {before:?}, after {after:?}");
    assert!(
        after.watch <= MEMORY && after.kernel <= before.kernel + KERNEL,
        "{before:?}, {after:?}"
    );
    let told = denials(&mut server);
    let expected = |kind: &String| {
        kind.starts_with("file_open of \"vda\" to \"perl\"") || kind.starts_with("lost of")
    };
    assert!(
        told.keys().all(expected) && told.values().sum::<u64>() == all,
        "{told:#?}"
    );

    // Between the check and the use: for ten minutes, or a part of one.
    let seconds = if tool::is_long() { 600 } else { 40 };
    let enter = "mkdir -p /var/tmp/race && touch /var/tmp/control && exec unshare -m sh -c 'mount -o remount,bind,exec /var && cp /usr/bin/touch /var/tmp/race/alone && ! /var/tmp/race/alone /var/tmp/race/mark && exec \"$@\"' sh";
    let said = script(
        &mut server,
        &format!("{enter} perl - /var/tmp/race {seconds}"),
        RACE,
    );
    println!("{said}");
    let mut paths = 0;
    for line in said.lines().filter(|line| line.contains(" ran ")) {
        let numbers: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        // Both happened, or there was no race.
        assert!(numbers[0] >= 3 && numbers[1] >= 3, "{said}");
        paths += 1;
    }
    assert_eq!(paths, 3, "{said}");
    assert!(counter(&mut server, "bprm_check_security") > 0);
    server.ask("test ! -e /var/tmp/race/mark && test -e /var/tmp/control");
    no_unit_failed(&mut server);
    server.power_off();
}

#[test]
#[ignore = "long: a Debian that lives a year; with ADAMANT_ALL an hour"]
fn a_year_in_an_hour_leaves_nothing_failed_grown_or_wrongly_refused() {
    let (restarts, logins) = if tool::is_long() {
        (2000, 200)
    } else {
        (60, 8)
    };
    // Restarts are slow where processors are emulated and have other work: ADAMANT_RESTARTS is
    // another number of them.
    let restarts = std::env::var("ADAMANT_RESTARTS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(restarts);
    let scratch = Scratch::new("year");
    let Some(mut server) = start(&scratch) else {
        return;
    };
    // Once for all that is loaded when it is needed.
    server.ask("true");
    let before = held(&mut server);
    for _ in 0..logins {
        assert_eq!(server.ask("id -un").trim(), "root");
    }
    let said = script(&mut server, &format!("sh -s {restarts}"), LIFE);
    println!("{said}");
    assert!(!said.contains("failed ("), "{said}");
    // A person is told why.
    assert!(said.contains("never modified, only replaced"), "{said}");
    let after = held(&mut server);
    println!("before {before:?}, after {after:?}");
    let told = denials(&mut server);
    println!("told: {told:#?}");
    no_unit_failed(&mut server);
    assert_eq!(server.ask("systemctl is-system-running").trim(), "running");
    assert!(
        after.watch <= MEMORY && after.scrub <= MEMORY && after.kernel <= before.kernel + KERNEL,
        "{before:?}, {after:?}"
    );
    assert_eq!(told, BTreeMap::new());
    let (said, code) = server.try_to("adamant-agent drift");
    assert_eq!(code, 0, "{said}");
    server.power_off();
}
