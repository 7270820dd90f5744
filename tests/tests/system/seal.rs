//! What a level of the seal promises is in force before init starts, on Debian's kernels 6.1 and
//! 6.12; and a kernel that can't give it is refused, or said to be weaker, as the policy says.

use std::time::Duration;

use adamant_tests::alter;
use adamant_tests::image::Tiny;
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

const SUITES: [&str; 2] = ["trixie", "bookworm"];

/// What makes the tiny image have an interpreter, which is its own init under such a name, and be
/// told to try it.
const READER: &str = "[[file]]\npath = \"/usr/bin/dash\"\ncopy = \"input/init\"\nmode = \"0755\"\n";

fn tiny(suite: &'static str, level: &str, enforce: &str, more: &str) -> Tiny {
    Tiny {
        suite,
        ..Tiny::usual()
    }
    .with(&format!(
        "[seal]\nlevel = {level:?}\nenforce = {enforce:?}\n{more}"
    ))
}

/// The console of a fresh copy's only start, with the kernel's list of security modules as given.
fn start(tiny: &Tiny, name: &str, words: &str) -> String {
    start_with(tiny, name, words, 1)
}

/// As [`start`], with several processors, each of which calls the guard.
fn start_with(tiny: &Tiny, name: &str, words: &str, processors: u32) -> String {
    let image = tiny.build();
    let scratch = Scratch::new(name);
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    Setup::of(&image)
        .disk(&disk)
        .processors(processors)
        .append(words)
        .start(&scratch)
        .wait_for_end()
}

/// What an interpreter of the image may open, and what not.
const SCRIPTS_REFUSED: [&str; 13] = [
    "image worked",
    "volume refused",
    "run refused",
    "shm refused",
    "dev refused",
    "link refused",
    "image-link worked",
    "kernel worked",
    "pipe worked",
    "new worked",
    "new-again refused",
    "other worked",
    "memory refused",
];

fn lines<'a>(console: &'a str, start: &str) -> Vec<&'a str> {
    console
        .lines()
        .map(str::trim_end)
        .filter_map(|line| line.strip_prefix(start))
        .collect()
}

#[test]
fn each_level_is_in_force_on_both_kernels() {
    for suite in SUITES {
        for level in ["verity", "lockdown", "guard"] {
            // The first two need nothing that the older kernel lacks: it is asked in the long form.
            if suite == "bookworm" && level != "guard" && !tool::is_long() {
                continue;
            }
            let scripts = if level == "guard" {
                format!("scripts = \"refuse\"\n{READER}")
            } else {
                String::new()
            };
            let console = start_with(
                &tiny(suite, level, "require", &scripts),
                &format!("seal-{level}-{suite}"),
                "tiny.seal",
                2,
            );
            assert_eq!(
                lines(&console, "tiny: seal reached "),
                [level],
                "{suite}: {console}"
            );
            assert_eq!(
                lines(&console, "tiny: seal missing "),
                [""; 0],
                "{suite}: {console}"
            );
            // What the kernel says itself, and what happens when init tries.
            let locked = if level == "verity" {
                "none"
            } else {
                "integrity"
            };
            assert_eq!(
                lines(&console, "tiny: lockdown "),
                [locked],
                "{suite}, {level}: {console}"
            );
            for (what, refused) in [
                ("exec", level == "guard"),
                ("map", level == "guard"),
                ("cover", level == "guard"),
                ("partition", true),
            ] {
                let wanted = if refused { "refused" } else { "worked" };
                assert_eq!(
                    lines(&console, &format!("tiny: try {what} ")),
                    [wanted],
                    "{suite}, {level}: {console}"
                );
            }
            if level == "guard" {
                assert_eq!(
                    lines(&console, "tiny: try script "),
                    SCRIPTS_REFUSED,
                    "{suite}: {console}"
                );
                assert!(
                    lines(&console, "tiny: seal enforced ").contains(&"scripts of the image alone"),
                    "{suite}: {console}"
                );
            }
        }
    }
}

#[test]
fn what_a_kernel_lacks_is_refused_or_said_as_the_policy_asks() {
    // A list of modules without BPF is a kernel without it. Lockdown is always there in Debian's
    // kernels, whatever the list says.
    let (level, lsm, why, left) = (
        "guard",
        "lsm=lockdown,yama",
        "BPF is not among the kernel's security modules",
        "lockdown",
    );
    for suite in SUITES {
        let console = start(
            &tiny(suite, level, "require", ""),
            &format!("seal-require-{level}-{suite}"),
            lsm,
        );
        assert!(
            console.contains(&format!(
                "adamant: seal: level {level:?}, which the policy requires: {why}"
            )),
            "{suite}: {console}"
        );
        assert!(
            !console.contains("tiny: "),
            "{suite}, {level}: init started: {console}"
        );
        let console = start(
            &tiny(suite, level, "prefer", ""),
            &format!("seal-prefer-{level}-{suite}"),
            &format!("{lsm} tiny.seal"),
        );
        assert_eq!(
            lines(&console, "tiny: seal reached "),
            [left],
            "{suite}: {console}"
        );
        assert!(
            lines(&console, "tiny: seal missing ")
                .iter()
                .any(|line| line.contains(why)),
            "{suite}: {console}"
        );
        assert!(
            console.contains("tiny: done"),
            "{suite}, {level}: {console}"
        );
    }
}

/// The kernel's own instructions are counted, one a nanosecond: the same work costs the same, but
/// for the timer's ticks, and for how the library's pages came into memory, which is different at
/// each start by 1 %. The least of some starts counts.
#[test]
#[ignore = "nine machines without any parallel emulation: part of tests/run --all"]
fn the_guard_costs_at_most_two_percent() {
    let mut costs = Vec::new();
    for (level, scripts) in [
        ("lockdown", "allow"),
        ("guard", "allow"),
        ("guard", "refuse"),
    ] {
        let image = tiny(
            "trixie",
            level,
            "require",
            &format!("scripts = {scripts:?}\n{READER}"),
        )
        .build();
        let scratch = Scratch::new(&format!("seal-cost-{level}-{scripts}"));
        let disk = scratch.join("disk.raw");
        alter::copy(&image.path("raw"), &disk);
        let counting = ["-icount", "shift=0,sleep=off", "-smp", "1"];
        let mut least = [u64::MAX; 3];
        for _ in 0..3 {
            let setup = Setup::of(&image)
                .disk(&disk)
                .append("tiny.cost")
                .arguments(&counting)
                .deadline(Duration::from_secs(900));
            let console = setup.start(&scratch).wait_for_end();
            let cost = |name: &str| {
                lines(&console, &format!("tiny: cost {name} "))[0]
                    .parse::<u64>()
                    .unwrap_or_else(|e| panic!("{name}: {e}: {console}"))
            };
            let now = ["exec", "map", "open"].map(cost);
            least = std::array::from_fn(|at| least[at].min(now[at]));
        }
        costs.push(least);
    }
    for (at, name) in ["exec", "map", "open"].iter().enumerate() {
        let (without, with, scripts) = (costs[0][at], costs[1][at], costs[2][at]);
        let more = |with: u64| (with as f64 / without as f64 - 1.0) * 100.0;
        println!(
            "{name}: {without} instructions without the guard, {with} with it: {:+.2} %; {scripts} with scripts refused: {:+.2} %",
            more(with),
            more(scripts)
        );
    }
    for with in &costs[1..] {
        for (without, with) in costs[0].iter().zip(with) {
            assert!(with * 100 <= without * 102, "{costs:?}");
        }
    }
}

#[test]
fn an_exception_of_the_policy_is_one_and_is_told() {
    let console = start(
        &tiny(
            "trixie",
            "guard",
            "require",
            &format!(
                "scripts = \"refuse\"\n[seal.allow]\nexecute = [\"state\"]\nmounts = [\"/mnt\"]\nscripts = [\"/usr/bin/dash\"]\n{READER}"
            ),
        ),
        "seal-allow",
        "tiny.seal",
    );
    assert_eq!(lines(&console, "tiny: try exec "), ["worked"], "{console}");
    assert_eq!(lines(&console, "tiny: try cover "), ["worked"], "{console}");
    assert_eq!(lines(&console, "tiny: try map "), ["refused"], "{console}");
    assert_eq!(
        lines(&console, "tiny: seal allows "),
        ["execute state", "mounts /mnt", "scripts /usr/bin/dash"],
        "{console}"
    );
    assert!(
        lines(&console, "tiny: try script ")
            .iter()
            .all(|line| line.ends_with(" worked")),
        "{console}"
    );
}

/// Each exception as a line of [seal.allow]. The attempts are in
/// images/tiny/init/src/exceptions.rs. `binfmt` is missing: the tiny image has no module
/// binfmt_misc. The agent's unit tests show its bit, and the attacks show that it is refused.
const EXCEPTIONS: [(&str, &str); 11] = [
    ("jit", "jit = true"),
    ("debug", "debug = true"),
    ("bpf", "bpf = true"),
    ("containers", "containers = true"),
    ("scripts", "scripts = [\"/usr/bin/dash\"]"),
    ("execute", "execute = [\"state\"]"),
    ("mounts", "mounts = [\"/mnt\"]"),
    ("disks", "disks = [\"black-box\"]"),
    ("transient_units", "transient_units = true"),
    ("ioctls", "ioctls = [0x1262]"),
    ("at_start", "at_start = [\"/var/spool/cron\"]"),
];
/// The image only has to have a file of cron's name.
const CRON: &str = "[[file]]\npath = \"/usr/sbin/cron\"\ncopy = \"input/init\"\nmode = \"0755\"\n";

/// Six boots are enough: each exception is allowed in another pair of them, so for any two
/// exceptions a boot allows the first without the second. Opening both by either would show.
#[test]
fn each_exception_allows_what_it_names_and_nothing_else() {
    const BOOTS: usize = 6;
    let pairs: Vec<[usize; 2]> = (0..BOOTS)
        .flat_map(|first| (first + 1..BOOTS).map(move |second| [first, second]))
        .collect();
    assert!(pairs.len() >= EXCEPTIONS.len());
    for boot in 0..BOOTS {
        let is_allowed = |exception: usize| pairs[exception].contains(&boot);
        let allowed: Vec<&str> = (0..EXCEPTIONS.len())
            .filter(|exception| is_allowed(*exception))
            .map(|exception| EXCEPTIONS[exception].1)
            .collect();
        let console = start(
            &tiny(
                "trixie",
                "guard",
                "require",
                &format!(
                    "scripts = \"refuse\"\n[seal.allow]\n{}\n{READER}{CRON}",
                    allowed.join("\n")
                ),
            ),
            &format!("seal-exceptions-{boot}"),
            "tiny.exceptions",
        );
        for (index, (name, _)) in EXCEPTIONS.iter().enumerate() {
            let expected = if is_allowed(index) {
                "worked"
            } else {
                "refused"
            };
            assert_eq!(
                lines(&console, &format!("tiny: try {name} ")),
                [expected],
                "{name}, allowed: {allowed:?}: {console}"
            );
        }
        assert_eq!(
            lines(&console, "tiny: try nothing "),
            ["refused"],
            "allowed: {allowed:?}: {console}"
        );
    }
}
