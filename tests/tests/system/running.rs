//! The running machine is watched: what should not happen to it is found, told once, counted, and
//! answered as the policy says.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use adamant_tests::alter;
use adamant_tests::image::{Image, Tiny};
use adamant_tests::machine::{Machine, Setup};
use adamant_tests::scratch::Scratch;
use serde_json::Value;

const AGENT: &str = "/usr/bin/adamant-agent";
const EVENTS: &str = "/run/adamant/events.jsonl";
const METRICS: &str = "/run/adamant/metrics.prom";
/// What nobody tells of is looked at once a minute, and a machine that is emulated on a busy one
/// takes longer.
const A_LOOK: Duration = Duration::from_secs(200);
const DEADLINE: Duration = Duration::from_secs(900);
/// Promised for the watch, KiB.
const MEMORY: u64 = 8 << 10;
/// How long the watch's own start takes, its first lines in every place that it tells included.
const SETTLED: Duration = Duration::from_secs(10);
/// How long nothing happens. Less than a minute, in which a look is due.
const IDLE: Duration = Duration::from_secs(20);

/// A tiny server that does what is asked for, and the disk that it runs on.
struct Server {
    machine: Machine,
    disk: PathBuf,
    image: Image,
    /// The process of the watch.
    watch: String,
    _scratch: Scratch,
}

impl Server {
    fn start(name: &str, more: &str) -> Server {
        let image = Tiny::usual().with(more).build();
        let scratch = Scratch::new(name);
        let (disk, other) = (scratch.join("disk.raw"), scratch.join("other.raw"));
        alter::copy(&image.path("raw"), &disk);
        std::fs::write(&other, [0; 1 << 20]).unwrap_or_else(|e| panic!("{}: {e}", other.display()));
        // A place that a disk can be plugged into, and the disk.
        let drive = format!("if=none,id=other,format=raw,file={}", other.display());
        let arguments = [
            "-device",
            "pcie-root-port,id=bay,chassis=1,slot=1",
            "-drive",
            &drive,
        ];
        let machine = Setup::of(&image)
            .disk(&disk)
            .processors(2)
            .arguments(&arguments)
            .serving()
            .deadline(DEADLINE)
            .start(&scratch);
        Server {
            machine,
            disk,
            image,
            watch: String::new(),
            _scratch: scratch,
        }
    }

    /// Does something, which works, and gives what it said.
    fn ask(&mut self, command: &str) -> String {
        let answer = self.machine.ask(command);
        assert!(
            ["done", "exit status: 0"].contains(&answer.end.as_str()),
            "{command}: {answer:?}"
        );
        answer.said
    }

    /// Runs the agent, and gives what it said, and whether it ended with 0.
    fn agent(&mut self, command: &str) -> (String, bool) {
        let answer = self.machine.ask(&format!("run {AGENT} {command}"));
        assert!(
            ["exit status: 0", "exit status: 1"].contains(&answer.end.as_str()),
            "{command}: {answer:?}"
        );
        (answer.said, answer.end.ends_with('0'))
    }

    /// Starts the watch, and waits until it has begun.
    fn watched(&mut self) {
        self.watch = self.ask(&format!("start /run/watch {AGENT} watch"));
        self.until("a first look", |server| {
            server.machine.ask(&format!("read {METRICS}")).end == "done"
        });
    }

    fn until(&mut self, what: &str, mut there: impl FnMut(&mut Server) -> bool) {
        let start = Instant::now();
        while !there(self) {
            assert!(
                start.elapsed() < A_LOOK,
                "{what}: waited {} s\n{}",
                A_LOOK.as_secs(),
                self.machine.ask("read /run/watch").said
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// What was told, of a class: what it was about, and how often it was told.
    fn told(&mut self, class: &str, key: &str) -> Vec<(String, u64)> {
        let lines = self.machine.ask(&format!("read {EVENTS}")).said;
        let events: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        let of_class = events.iter().filter(|event| event["class"] == class);
        let mut told: Vec<(String, u64)> = Vec::new();
        for event in of_class {
            assert!(
                event["time"].as_u64() > Some(1_700_000_000) && event["times"].as_u64() > Some(0),
                "{event}"
            );
            let what = event[key]
                .as_str()
                .unwrap_or_else(|| panic!("{event}"))
                .to_owned();
            match told.iter_mut().find(|(known, _)| *known == what) {
                Some((_, times)) => *times += 1,
                None => told.push((what, 1)),
            }
        }
        told
    }

    /// Waits until something of a class was told.
    fn until_told(&mut self, class: &str, key: &str, what: &str) {
        self.until(&format!("{class}: {what}"), |server| {
            server
                .told(class, key)
                .iter()
                .any(|(told, _)| told.contains(what))
        });
    }

    /// A number for Prometheus.
    fn metric(&mut self, name: &str) -> u64 {
        let text = self.ask(&format!("read {METRICS}"));
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.trim()
            .parse()
            .unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// A number of the watch's, as the kernel has it.
    fn process(&mut self, name: &str) -> u64 {
        let text = self.ask(&format!("read /proc/{}/status", self.watch));
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.trim_matches([':', '\t', ' '])
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{line}"))
    }
}

#[test]
fn what_happens_to_a_locked_machine_is_found_and_told_once() {
    let mut server = Server::start(
        "watched",
        "[seal]\nlevel = \"lockdown\"\nenforce = \"require\"\n[verify]\non_corruption = \"error\"\nscrub_rate = 10000\n",
    );
    let (said, same) = server.agent("drift");
    assert!(
        same && said.starts_with("no drift\n"),
        "a fresh machine: {said}"
    );

    server.watched();
    // It sleeps when nothing happens. What comes with its own start is written a second later, on a
    // busy machine more.
    std::thread::sleep(SETTLED);
    let before = server.process("voluntary_ctxt_switches");
    std::thread::sleep(IDLE);
    let (after, memory) = (
        server.process("voluntary_ctxt_switches"),
        server.process("VmRSS"),
    );
    println!(
        "watch: {memory} KiB, woken {} times in {} s without an event",
        after - before,
        IDLE.as_secs()
    );
    assert!(memory <= MEMORY, "{memory} KiB");
    assert_eq!(after - before, 0, "woken for nothing");

    // A disk is plugged in, by hand.
    server
        .machine
        .monitor("device_add virtio-blk-pci,drive=other,bus=bay,id=plugged");
    server.until_told("devices", "name", "vdb");

    // Something lies over the image's programs, and then no more; something else stays.
    server.ask("mount /usr");
    server.until_told("mounts", "what", "/usr");
    server.ask("umount /usr");
    server.ask("mount /mnt");
    server.until_told("mounts", "what", "/mnt");

    // A setting is not as the seal left it, the disk below the root can be written again, and there
    // is a program that the image did not bring.
    server.ask("write /proc/sys/fs/protected_symlinks 0");
    server.ask("program /var/program");
    // The watch reports that a program opened the disk as a whole; the guard would refuse it.
    assert_eq!(server.ask("open /dev/vda 1"), "refused 0 times");
    server.until_told("verity", "what", "/dev/vda");
    let data = alter::root(&server.disk).number;
    server.ask(&format!("writable /dev/vda{data}"));
    server.until_told("sysctls", "what", "fs.protected_symlinks");
    server.until_told("verity", "what", "below the root");

    // Drift has each of them, and nothing else.
    let (said, same) = server.agent("drift");
    assert!(!same, "{said}");
    let found: Vec<&str> = said.lines().filter(|line| line.contains(": is ")).collect();
    let wanted = [
        "mounts: /mnt: is tmpfs over it, should be not mounted over",
        "sysctls: fs.protected_symlinks: is 0, should be 1",
        "executables: /var/program: is a program that the image does not have, should be none",
    ];
    assert!(
        wanted.iter().all(|line| found.contains(line)) && found.len() == 4,
        "{said}"
    );
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("verity: partition ")
                && line.ends_with(" below the root: is writable, should be read-only")),
        "{said}"
    );
    let json: Value = serde_json::from_str(&server.agent("drift --json").0).unwrap();
    assert_eq!(json["drift"].as_array().map(Vec::len), Some(4), "{json}");

    // Each was told once, and is counted.
    assert_eq!(server.told("devices", "name"), [("vdb".to_owned(), 1)]);
    assert_eq!(
        server.told("mounts", "what"),
        [("/usr".to_owned(), 1), ("/mnt".to_owned(), 1)]
    );
    assert_eq!(
        server.told("sysctls", "what"),
        [("fs.protected_symlinks".to_owned(), 1)]
    );
    let told = server.told("verity", "what");
    assert!(
        told.len() == 2 && told.iter().all(|(_, times)| *times == 1) && told[0].0 == "/dev/vda",
        "{told:?}"
    );
    for (class, count) in [
        ("devices", 1),
        ("mounts", 2),
        ("sysctls", 1),
        ("verity", 2),
        ("denials", 0),
    ] {
        assert_eq!(
            server.metric(&format!("adamant_violations_total{{class=\"{class}\"}}")),
            count,
            "{class}"
        );
    }
    let journal = server.ask("read /run/watch");
    assert!(
        journal
            .lines()
            .all(|line| line.starts_with("<4>adamant: watch: "))
            && journal.lines().count() == 6,
        "{journal}"
    );

    bad_blocks(&mut server);
    let memory = server.process("VmRSS");
    println!("watch: {memory} KiB at the end");
    assert!(memory <= MEMORY, "{memory} KiB");
}

/// A block of the data and one of the tree are altered on the disk, from outside, while the machine
/// runs.
fn bad_blocks(server: &mut Server) {
    const BLOCK: u64 = 4096;
    /// Hashes in a block of the tree, and so blocks of data below one of its lowest level.
    const BELOW: u64 = 128;
    let (data, tree) = (alter::root(&server.disk), alter::verity(&server.disk));
    let blocks = std::fs::metadata(server.image.path("root.erofs"))
        .unwrap_or_else(|e| panic!("{e}"))
        .len()
        / BLOCK;
    // Where nobody has read yet, since what the kernel has in memory is not read from the disk
    // again. Of the tree it has read some before it was needed, and never gives the last 256
    // KiB back, unless it is told to.
    server.ask("write /sys/module/dm_bufio/parameters/retain_bytes 0");
    server.ask("write /proc/sys/vm/drop_caches 3");
    std::thread::sleep(Duration::from_secs(5));
    // The lowest level comes last in the tree.
    let lowest = blocks.div_ceil(BELOW);
    let level_start = adamant_contract::verity::levels(blocks)
        .iter()
        .rev()
        .skip(1)
        .sum::<u64>();
    let (of_data, of_tree) = (blocks / 3, lowest * 2 / 3);
    assert!(
        of_data / BELOW < of_tree && of_tree + 1 < lowest,
        "{blocks} blocks"
    );
    alter::flip(&server.disk, data.start + of_data * BLOCK + 17);
    // The superblock is in the first block of the partition.
    alter::flip(
        &server.disk,
        tree.start + (1 + level_start + of_tree) * BLOCK + 100,
    );

    // One reading, of the service.
    server.ask(&format!("start /run/scrub {AGENT} scrub"));
    server.until("a whole reading", |server| {
        server
            .ask("read /run/scrub")
            .contains("blocks were read or skipped, errors: ")
    });
    let said = server.ask("read /run/scrub");
    let errors = said
        .lines()
        .filter(|line| line.contains(" block ") || line.contains(" byte "))
        .count();
    println!(
        "scrub: {errors} lines of bad blocks, the first: {}",
        said.lines().next().unwrap_or_default()
    );
    assert!(said.contains(&format!("errors: {}", 1 + BELOW)), "{said}");
    let (said, holds) = server.agent("status");
    assert!(!holds, "{said}");
    assert!(
        said.contains(&format!(
            "The root has a corrupted block at byte {}",
            of_data * BLOCK
        )),
        "{said}"
    );
    assert!(
        said.contains(&format!("{} corrupted blocks", 1 + BELOW)),
        "{said}"
    );
    let json: Value =
        serde_json::from_str(&server.agent("status --json").0).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (
            json["now"]["scrub"]["first_error"].as_u64(),
            json["now"]["scrub"]["errors"].as_u64()
        ),
        (Some(of_data * BLOCK), Some(1 + BELOW)),
        "{json}"
    );
    // The watch hears of it from the kernel.
    server.until("a bad block", |server| {
        server
            .told("verity", "what")
            .iter()
            .any(|(what, times)| what == "the root" && *times == 1)
    });
    server.until("the number of bad blocks", |server| {
        server.metric("adamant_scrub_errors") == 1 + BELOW
    });
}

#[test]
fn what_the_guard_refuses_is_told_and_counted_and_is_no_drift() {
    let mut server = Server::start(
        "refused",
        "[seal]\nlevel = \"guard\"\nenforce = \"require\"\n",
    );
    server.watched();
    // The tiny init itself tries to open the verified device for writing, once.
    let (said, same) = server.agent("drift");
    assert!(
        same && said.starts_with("no drift\ndenials: file_open 1\n"),
        "a fresh machine: {said}"
    );
    assert_eq!(server.ask("open /dev/vda 1"), "refused 1 times");
    for attempt in ["mount /usr", "mount /mnt"] {
        let answer = server
            .machine
            .ask(&format!("run /usr/sbin/init do {attempt}"));
        assert_eq!(answer.end, "exit status: 1", "{attempt}: {answer:?}");
    }
    server.until_told("denials", "hook", "file_open");
    server.until_told("denials", "hook", "sb_mount");
    let (said, same) = server.agent("drift");
    assert!(
        same && said.starts_with("no drift\n")
            && said.contains("file_open 2")
            && said.contains("sb_mount 2"),
        "{said}"
    );
    let (said, holds) = server.agent("status");
    assert!(holds && said.contains("file_open 2"), "{said}");
    server.until("the counter", |server| {
        server.metric("adamant_denials_total{hook=\"file_open\"}") == 2
    });
    server.until("all three", |server| {
        server.metric("adamant_violations_total{class=\"denials\"}") == 4
    });

    // As fast as it goes, and far more than the ring has room for: told a few times, counted each
    // time, and the memory stays.
    let before = server.process("VmRSS");
    let (start, times) = (Instant::now(), 200_000);
    assert_eq!(
        server.ask(&format!("open /dev/vda {times}")),
        format!("refused {times} times")
    );
    println!(
        "{} denials a second",
        u128::from(times) * 1000 / start.elapsed().as_millis()
    );
    server.until("the counter", |server| {
        server.metric("adamant_denials_total{hook=\"file_open\"}") == 2 + times
    });
    let (told, memory) = (server.told("denials", "name"), server.process("VmRSS"));
    println!("watch: {before} KiB before, {memory} KiB after; told {told:?}");
    assert!(memory <= MEMORY, "{memory} KiB");
    let minutes = start.elapsed().as_secs() / 60;
    assert!(
        told.iter().all(|(_, times)| *times <= 2 + minutes),
        "{minutes} minutes: {told:?}"
    );
    let counted = server.metric("adamant_violations_total{class=\"denials\"}");
    println!("of {} denials {counted} came through the ring", times + 4);
}

#[test]
fn a_machine_is_switched_off_when_the_policy_says_so() {
    let mut server = Server::start("on-violation", "[on_violation]\nmounts = \"poweroff\"\n");
    server.watched();
    server.machine.send("mount /usr");
    let console = server.machine.wait_for_end();
    let line = "adamant: watch: mounts: /usr: is tmpfs over it, should be not mounted over: as the policy says, this machine is switched off now";
    assert!(
        console.contains(line) && !console.contains("tiny: done"),
        "{console}"
    );
}
