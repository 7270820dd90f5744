//! How a boot ended is known to the next one: from the black box what the agent could say, from the
//! kernel's store what only the kernel could.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use adamant_tests::alter;
use adamant_tests::image::Tiny;
use adamant_tests::machine::{Machine, Setup};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// A firmware's store that outlives power cuts (ACPI ERST), in a file.
fn store(scratch: &Scratch) -> Vec<String> {
    let path = scratch.join("erst");
    if !path.exists() {
        File::create(&path)
            .and_then(|file| file.set_len(64 << 10))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let object = format!(
        "memory-backend-file,id=erst,mem-path={},size=64K,share=on",
        path.display()
    );
    ["-object", &object, "-device", "acpi-erst,memdev=erst"]
        .map(str::to_owned)
        .into()
}

/// Waits for what the log says of the panic before this boot; gives the line of the status that
/// does.
fn tells_of_the_panic(machine: &mut Machine) -> String {
    let told = machine.wait_for("adamant: the last boot, of tiny_1, failed: ");
    assert!(
        told.contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{told}"
    );
    machine.wait_for("adamant: then: ");
    machine.wait_for("tiny: status: bad boot ")
}

#[test]
fn a_refused_image_and_a_panic_are_known_to_the_next_boot() {
    let mut tiny = Tiny::usual();
    tiny.more = tiny.more.replace(
        "after = \"1s\"\n",
        "after = \"1s\"\nhung_task = \"panic\"\n",
    );
    let image = tiny.build();
    let scratch = Scratch::new("history");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let store = store(&scratch);
    let store: Vec<&str> = store.iter().map(String::as_str).collect();
    let start = |words: &str| -> Machine {
        Setup::of(&image)
            .disk(&disk)
            .arguments(&store)
            .store(scratch.join("erst"))
            .append(words)
            .start(&scratch)
    };

    // A machine that was never started has no history; one that could not be started has.
    let super_block = alter::root(&disk).start + 1024;
    alter::flip(&disk, super_block);
    let refused = start("").wait_for_end();
    let why = refused
        .lines()
        .find(|line| line.contains("adamant: root: ") || line.contains("adamant: verify: "))
        .unwrap_or_else(|| panic!("{refused}"));
    assert!(!refused.contains("the last boot"), "{refused}");
    alter::flip(&disk, super_block);

    let mut machine = start("tiny.status tiny.panic");
    let told = machine.wait_for("adamant: the last boot, of tiny_1, failed: ");
    let reason = told.split("failed: ").nth(1).unwrap();
    assert!(reason.len() > 40 && why.contains(reason), "{why}\n{told}");
    let status = machine.wait_for("tiny: status: bad boot ");
    assert!(
        status.contains("the one before this")
            && status.contains(": tiny_1, root hash ")
            && status.contains("adamant: "),
        "{status}"
    );
    // The kernel's line comes before or between those of the console's other writers.
    let console = machine.wait_for_end();
    assert!(console.contains("sysrq: Trigger a crash"), "{console}");
    drop(machine);

    let mut machine = start("tiny.status");
    let status = tells_of_the_panic(&mut machine);
    assert!(
        status.contains(", the last of 2 in a row: tiny_1,") && status.contains("Kernel panic"),
        "{status}"
    );
    machine.wait_for("tiny: status : exit code Some(0)");
    assert!(
        machine.console().contains(
            "tiny: on faults panic=1 panic_on_oops=1 softlockup_panic=0 hung_task_panic=1"
        ),
        "{}",
        machine.console()
    );
    machine.wait_for_end();
    drop(machine);

    // Nobody in this image tells of its end: that a good boot came between is known all the same.
    let mut machine = start("tiny.status");
    let status = machine.wait_for("tiny: status: bad boot ");
    assert!(
        status.contains("bad boot   2 starts ago") && status.contains("Kernel panic"),
        "{status}"
    );
    assert!(
        !machine.console().contains("adamant: the last boot"),
        "{}",
        machine.console()
    );
}

#[test]
#[ignore = "long: two starts by firmware"]
fn a_panic_is_known_from_the_firmwares_variables() {
    let code = Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd");
    if !code.exists() {
        return tool::skipped(tool::Need::Program("OVMF_CODE_4M.fd (ovmf)"));
    }
    let mut tiny = Tiny::usual();
    // [kernel] is what the definition ends with.
    tiny.more.insert_str(0, "modules = [\"efi_pstore\"]\n");
    let image = tiny.build();
    let scratch = Scratch::new("history-efi");
    let (disk, variables) = (scratch.join("disk.raw"), scratch.join("variables.fd"));
    alter::copy(&image.path("raw"), &disk);
    alter::copy(&code.with_file_name("OVMF_VARS_4M.fd"), &variables);
    let flash =
        |more: &str, path: &Path| format!("if=pflash,format=raw{more},file={}", path.display());
    let (code, kept) = (flash(",readonly=on", code), flash("", &variables));
    let start = |words: &str| -> Machine {
        let firmware = ["-drive", &code, "-drive", &kept];
        Setup::of(&image)
            .disk(&disk)
            .arguments(&firmware)
            .store(&variables)
            .append(words)
            .deadline(Duration::from_secs(300))
            .start(&scratch)
    };

    let console = start("tiny.panic").wait_for_end();
    assert!(
        console.contains("pstore: Registered efi_pstore as persistent store backend")
            && console.contains("sysrq: Trigger a crash"),
        "{console}"
    );
    let mut machine = start("tiny.status");
    let status = tells_of_the_panic(&mut machine);
    assert!(
        status.contains("the one before this") && status.contains("Kernel panic"),
        "{status}"
    );
    machine.wait_for_end();
}
