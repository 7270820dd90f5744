//! How a boot that fails ends: with its line, and then as the policy says. What the kernel prints
//! last tells the three outcomes apart.

use std::time::Duration;

use adamant_tests::alter;
use adamant_tests::image::{self, Image, SMALL_VOLUMES, Tiny};
use adamant_tests::machine::{Machine, Setup};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// Starts an image with this policy for failures, whose state volume is missing; waits for the
/// failure's line.
fn failing(name: &str, failure: &str, scratch: &Scratch) -> Machine {
    let image = Tiny {
        more: format!("{SMALL_VOLUMES}[failure]\n{failure}\n"),
        ..Tiny::default()
    }
    .build();
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    alter::drop_partition(&disk, alter::partition(&disk, "state").number);
    let mut machine = Setup::of(&image).disk(&disk).start(scratch);
    let line = machine.wait_for("adamant: volumes: ");
    assert!(line.contains("state"), "{name}: {line}");
    machine
}

#[test]
fn reboot_restarts_the_machine() {
    let scratch = Scratch::new("outcome-reboot");
    let console = failing("reboot", "action = \"reboot\"\nafter = \"1s\"", &scratch).wait_for_end();
    assert!(console.contains("reboot: Restarting system"), "{console}");
}

#[test]
fn poweroff_switches_the_machine_off() {
    let scratch = Scratch::new("outcome-poweroff");
    let console = failing(
        "poweroff",
        "action = \"poweroff\"\nafter = \"1s\"",
        &scratch,
    )
    .wait_for_end();
    assert!(console.contains("reboot: Power down"), "{console}");
}

#[test]
fn halt_stops_the_machine_and_leaves_it_on() {
    let scratch = Scratch::new("outcome-halt");
    let mut machine = failing("halt", "action = \"halt\"\nafter = \"1s\"", &scratch);
    machine.wait_for("reboot: System halted");
    let seen = machine.age();
    machine.run_for(seen + Duration::from_secs(5));
    assert!(machine.is_on(), "{}", machine.console());
    assert!(
        !machine.console().contains("tiny: "),
        "{}",
        machine.console()
    );
}

#[test]
fn the_outcome_waits_for_its_delay() {
    let scratch = Scratch::new("outcome-delay");
    let mut machine = failing("delay", "action = \"poweroff\"\nafter = \"6s\"", &scratch);
    let said = machine.age();
    let console = machine.wait_for_end();
    let waited = machine.age() - said;
    // The machine's clock is not ours: half of it is enough to tell a delay from none.
    assert!(waited > Duration::from_secs(3), "{waited:?}: {console}");
}

#[test]
#[ignore = "builds a second agent, a minute of work"]
fn a_mistake_in_the_agent_is_a_failed_boot_like_any_other() {
    let scratch = Scratch::new("outcome-mistake");
    let target = image::target_dir().join("mistake");
    let mut cargo = tool::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(image::workspace()).args([
        "build",
        "--quiet",
        "--profile",
        "agent",
        "-p",
        "adamant-agent",
        "--features",
        "mistake",
        "--target-dir",
    ]);
    tool::run(cargo.arg(&target));
    let definition = Tiny::usual().define(scratch.path());
    let out = scratch.join("out");
    let mut build = image::builder();
    build
        .arg("build")
        .arg(&definition)
        .arg("-o")
        .arg(&out)
        .arg("--agent")
        .arg(target.join("x86_64-unknown-linux-gnu/agent/adamant-agent"));
    tool::run(&mut build);
    let image = Image {
        dir: out,
        stem: "tiny_1".to_owned(),
    };
    let mut machine = Setup::of(&image).disk(image.path("raw")).start(&scratch);
    let line = machine.wait_for("adamant: agent: ");
    assert!(
        line.contains("a mistake in the agent: made on purpose: "),
        "{line}"
    );
    let console = machine.wait_for_end();
    assert!(
        console.contains("reboot: Power down"),
        "the policy was known: {console}"
    );
    assert!(
        !console.contains("Kernel panic") && !console.contains("tiny: "),
        "{console}"
    );
}
