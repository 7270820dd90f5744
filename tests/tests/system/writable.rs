//! What root may open for writing in /proc, /sys and /dev on images/debian at level guard: the
//! groups of tests/writable cover every file, and the kernel does what their verdicts say.
//!
//! `UPDATE_SNAPSHOTS=1` writes the list of the walk to tests/writable/found.

use std::fs;

use adamant::commands::boot::command::DiskBus;
use adamant_tests::image::{self, Image, target_dir, workspace};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::server::Server;
use adamant_tests::tool;
use adamant_tests::writable::groups::Groups;
use adamant_tests::writable::{self, directory, document, found};

/// Time for the walk. It takes 20 s without hardware help.
const SECONDS: u32 = 500;
/// A slot of PCI Express, as a disk of many virtual machines is in one.
const SLOT: [&str; 2] = ["-device", "pcie-root-port,id=bay,chassis=1"];
/// Where the program is in the image.
const POKE: &str = "/usr/lib/poke";

/// Builds images/debian with poke.
fn with_poke(scratch: &Scratch) -> Image {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    tool::run(tool::command(cargo).current_dir(workspace()).args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "adamant-poke",
    ]));
    let poke = target_dir().join("x86_64-unknown-linux-gnu/release/poke");
    let folder = scratch.join("image");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(poke, folder.join("poke")).unwrap();
    let definition = fs::read_to_string(workspace().join("images/debian/image.toml")).unwrap();
    let file = format!("[[file]]\npath = {POKE:?}\ncopy = \"poke\"\nmode = \"0755\"\n");
    fs::write(folder.join("image.toml"), format!("{definition}\n{file}")).unwrap();
    let image = Image {
        dir: scratch.join("out"),
        stem: "debian_1.0.0".to_owned(),
    };
    image::build(&folder, &image.dir);
    image
}

#[test]
fn the_groups_cover_the_list_and_nothing_else() {
    let groups = Groups::load(&directory()).unwrap_or_else(|e| panic!("{e}"));
    let list = fs::read_to_string(directory().join("found")).unwrap();
    let found = found::parse(&list).unwrap();
    assert_eq!(groups.faults(&found), []);
    assert_eq!(groups.unused(&found), [""; 0], "remove these paths");
}

#[test]
fn the_document_has_the_tables_of_the_groups() {
    let page = fs::read_to_string(writable::document()).unwrap();
    let current = document::current().unwrap_or_else(|e| panic!("{e}"));
    assert!(
        page == current,
        "docs/writable.md differs from tests/writable: run `cargo run -p adamant-tests --bin writable`"
    );
}

#[test]
#[ignore = "long: one more boot of Debian"]
fn root_may_write_what_the_groups_say_and_nothing_else() {
    let scratch = Scratch::new("writable");
    let image = with_poke(&scratch);
    let (scsi, nvme) = (scratch.join("scsi.qcow2"), scratch.join("nvme.qcow2"));
    for file in [&scsi, &nvme] {
        let mut create = tool::command("qemu-img");
        create.args(["create", "-q", "-f", "qcow2"]);
        tool::run(create.arg(file).arg("16M"));
    }
    // Firmware has EFI variables, and a machine that restarts has a watchdog.
    let change = |setup: Setup| {
        setup
            .firmware(None)
            .overlay(&scsi, Some(DiskBus::Scsi))
            .overlay(&nvme, Some(DiskBus::Nvme))
            .arguments(&SLOT)
            .restarts()
    };
    let Some(mut server) = Server::fresh(&image, &scratch, change) else {
        return;
    };
    assert_eq!(
        server.ask("systemctl is-system-running --wait").trim(),
        "running"
    );
    let list = server.ask(&format!("timeout {SECONDS} {POKE} writable"));
    let found = found::parse(&list).unwrap();
    // The walk is over, and the server still works.
    let said = server.ask("adamant-agent status");
    assert!(said.contains("at level guard"), "{said}");
    server.power_off();

    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(directory().join("found"), &list).unwrap();
    }
    let groups = Groups::load(&directory()).unwrap_or_else(|e| panic!("{e}"));
    let faults = groups.faults(&found);
    assert!(
        faults.is_empty(),
        "add new files to a group of tests/writable/groups.toml, and correct the verdict of others: {faults:#?}"
    );
}
