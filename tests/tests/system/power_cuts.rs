//! The power may go at any moment: the next boot succeeds, and nothing that was synced is lost. The
//! cut is a SIGKILL to QEMU, whose disk writes back through the host's cache.

use std::path::Path;
use std::time::{Duration, Instant};

use adamant_tests::alter::{self, Random};
use adamant_tests::esp;
use adamant_tests::image::{Image, Tiny};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// How many cuts: a few each time, a hundred in the long form.
fn cuts(few: u64, many: u64) -> u64 {
    if tool::is_long() { many } else { few }
}

fn records(image: &Image, disk: &Path) -> Setup {
    Setup::of(image).disk(disk).append("tiny.records")
}

/// The number after the last `tiny: synced` whose line is whole, plus one: how many records must be
/// there.
fn synced(console: &str) -> u64 {
    let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter_map(|line| {
            line.trim_end()
                .strip_prefix("tiny: synced ")?
                .parse::<u64>()
                .ok()
        })
        .max()
        .map_or(0, |last| last + 1)
}

fn number_after(console: &str, start: &str) -> u64 {
    let line = console
        .lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no line {start:?} in\n{console}"));
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

/// How long it takes from the agent's start until records are written, on this machine and now.
fn agents_part(image: &Image, disk: &Path, scratch: &Scratch) -> Duration {
    let mut machine = records(image, disk).start(scratch);
    machine.wait_for("Run /init");
    let started = Instant::now();
    machine.wait_for("tiny: synced 3");
    machine.cut_power();
    started.elapsed()
}

/// Cuts the power `count` times, each time in a boot of a fresh copy of `from`, half of them while
/// the agent works, which is when volumes are made and grown, the others while records are written.
fn cut(name: &str, image: &Image, from: &Path, count: u64, before: u64) {
    let scratch = Scratch::new(name);
    let disk = scratch.join("disk.raw");
    alter::copy(from, &disk);
    let agents = agents_part(image, &disk, &scratch);
    let mut random = Random::new(0x5eed);
    let (mut early, mut lost) = (0, 0);
    for number in 0..count {
        alter::copy(from, &disk);
        let (mark, window) = if number % 2 == 0 {
            ("Run /init", agents.as_millis() as u64)
        } else {
            ("tiny: synced 0", 1500)
        };
        // A growing boot has records already, and goes on where they end.
        let mark = if before > 0 && number % 2 == 1 {
            "tiny: synced "
        } else {
            mark
        };
        let moment = Duration::from_millis(random.below(window.max(1)));
        let mut machine = records(image, &disk).start(&scratch);
        machine.wait_for(mark);
        machine.run_for(machine.age() + moment);
        let console = machine.cut_power();
        let must_be_there = synced(&console).max(before);
        early += u64::from(!console.contains("tiny: "));
        lost += must_be_there;
        // The next boot must get as far as the records, and find them.
        let mut machine = records(image, &disk).start(&scratch);
        let line = machine.wait_for("tiny: records ");
        let found = number_after(&line, "tiny: records ");
        assert!(
            found >= must_be_there,
            "cut {number}, {moment:?} after {mark:?}: {found} records, {must_be_there} were synced\n{console}"
        );
        machine.wait_for("tiny: synced ");
        machine.cut_power();
    }
    println!(
        "{name}: {count} power cuts survived, {early} of them before init, {lost} synced records all found again"
    );
}

#[test]
fn a_first_boot_survives_power_cuts() {
    let image = Tiny::usual().build();
    cut("cut-first", &image, &image.path("raw"), cuts(6, 50), 0);
}

#[test]
fn a_growing_boot_survives_power_cuts_and_keeps_what_was_synced() {
    // The whole disk: EFI system partition, two slots with signatures, volumes at its end.
    let image = esp::signed().build();
    let scratch = Scratch::new("grow-base");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut machine = records(&image, &disk).start(&scratch);
    machine.wait_for("tiny: synced 20");
    let before = synced(&machine.cut_power());
    alter::resize(
        &disk,
        std::fs::metadata(&disk)
            .map(|meta| meta.len())
            .unwrap_or_default()
            + (256 << 20),
    );
    cut("cut-growing", &image, &disk, cuts(4, 100), before);
}
