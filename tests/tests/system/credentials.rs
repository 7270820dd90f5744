//! Configuration from outside: only credentials that the policy names reach the image's init, from
//! every source.

use std::fs;

use adamant_tests::esp::{self, Esp};
use adamant_tests::image::{Image, Tiny, build_command};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

const ACCEPT: &str = "[credentials]\naccept = [\"ssh.*\", \"system.hostname\", \"big*\"]\n";

fn start(image: &Image, name: &str, change: impl FnOnce(Setup, &Scratch) -> Setup) -> String {
    let scratch = Scratch::new(name);
    let disk = esp::copy(image, &scratch);
    let mut machine = change(Setup::of(image).disk(&disk), &scratch).start(&scratch);
    machine.wait_for("tiny: done");
    machine.wait_for_end()
}

fn has(console: &str, line: &str) {
    assert!(
        console
            .lines()
            .any(|there| there.trim_end().ends_with(line)),
        "no line {line:?} in\n{console}"
    );
}

#[test]
fn what_the_policy_names_reaches_init_and_what_it_does_not_is_dropped_by_name() {
    let console = start(
        &Tiny::usual().with(ACCEPT).build(),
        "credentials",
        |setup, scratch| {
            let file = |name: &str, bytes: &[u8]| {
                let path = scratch.join(name);
                fs::write(&path, bytes).unwrap();
                path.display().to_string()
            };
            let fw_cfg = |name: &str, bytes: &[u8]| {
                format!(
                    "name=opt/io.systemd.credentials/{name},file={}",
                    file(name, bytes)
                )
            };
            let mut arguments: Vec<String> = Vec::new();
            for (name, bytes) in [
                ("ssh.binary", &b"\0\xff\n"[..]),
                ("big.one", &vec![7; (1 << 20) + 1]),
                ("tmpfiles.extra", b"f /x"),
            ] {
                arguments.extend(["-fw_cfg".to_owned(), fw_cfg(name, bytes)]);
            }
            let strings = [
                "io.systemd.credential:ssh.key=ssh-ed25519 AAA= me",
                "io.systemd.credential.binary:ssh.nul=AAE=",
                "io.systemd.credential:ssh.key=second",
            ];
            for string in strings {
                arguments.extend(["-smbios".to_owned(), format!("type=11,value={string}")]);
            }
            for number in 0..150 {
                arguments.extend([
                    "-smbios".to_owned(),
                    format!("type=11,value=io.systemd.credential:flood.{number}=x"),
                ]);
            }
            let words = "systemd.set_credential=system.hostname:web1 systemd.set_credential=fstab.extra:evil CREDENTIALS_DIRECTORY=/etc";
            setup
                .arguments(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
                .append(words)
        },
    );
    for line in [
        "tiny: plain credentials 4 in /run/credentials/@system",
        "tiny: plain ssh.binary has 3 bytes: \"\\0\u{fffd}\\n\"",
        "tiny: plain ssh.key has 22 bytes: \"ssh-ed25519 AAA= me\""
            .replace("22", "19")
            .as_str(),
        "tiny: plain ssh.nul has 2 bytes: \"\\0\\u{1}\"",
        "tiny: plain system.hostname has 4 bytes: \"web1\"",
        "tiny: encrypted credentials 0 in /run/credentials/@encrypted",
        "tiny: dropped big.one from fw_cfg: it is larger than the 1 MiB that all may have together",
        "tiny: dropped tmpfiles.extra from fw_cfg: the image's policy does not name it",
        "tiny: dropped ssh.key from SMBIOS: it was given before",
        "tiny: dropped flood.0 from SMBIOS: the image's policy does not name it",
        "tiny: 154 credentials dropped, clock was None",
        "credential system.hostname from the command line, 4 bytes",
        "credential tmpfiles.extra from fw_cfg was dropped: the image's policy does not name it",
    ] {
        has(&console, line);
    }
    let said_by_the_agent: Vec<&str> = console
        .lines()
        .filter(|line| line.contains("adamant:") && !line.contains("Command line"))
        .collect();
    assert!(
        !said_by_the_agent
            .iter()
            .any(|line| line.contains("ssh-ed25519")
                || line.contains("web1")
                || line.contains("evil")),
        "a value was said"
    );
}

#[test]
fn what_the_esp_holds_arrives_as_what_only_this_machine_can_decrypt() {
    if !tool::have("mcopy") {
        return;
    }
    let image = esp::signed().with(ACCEPT).build();
    let scratch = Scratch::new("credentials-esp");
    let disk = esp::copy(&image, &scratch);
    let esp = Esp::of(&disk);
    esp.make("/loader/credentials");
    esp.write("/loader/credentials/ssh.sealed.cred", b"sealed", &scratch);
    esp.write("/loader/credentials/tmpfiles.extra.cred", b"f /x", &scratch);
    let mut machine = Setup::of(&image).firmware(None).disk(&disk).start(&scratch);
    machine.wait_for("tiny: done");
    let console = machine.wait_for_end();
    has(
        &console,
        "tiny: encrypted ssh.sealed has 6 bytes: \"sealed\"",
    );
    has(
        &console,
        "tiny: plain credentials 0 in /run/credentials/@system",
    );
    has(
        &console,
        "tiny: dropped tmpfiles.extra from the EFI system partition: the image's policy does not name it",
    );
}

#[test]
fn a_clock_before_the_build_time_or_long_after_it_is_set_to_the_build_time() {
    let scratch = Scratch::new("clock");
    let definition = Tiny::usual().define(&scratch.join("definition"));
    let image = Image {
        dir: scratch.join("out"),
        stem: "tiny_1".to_owned(),
    };
    tool::run(build_command(&definition, &image.dir).args(["--epoch", "2026-11-01"]));
    for (date, set) in [
        ("2001-01-01T00:00:00", true),
        ("2031-01-01T00:00:00", false),
        ("2060-01-01T00:00:00", true),
    ] {
        let console = start(&image, "clock", |setup, _| {
            setup.arguments(&["-rtc", &format!("base={date}")])
        });
        assert_eq!(
            console.contains("clock was Some("),
            set,
            "{date}: {console}"
        );
        assert_eq!(
            console.contains("before the image was built or 15 years after it: set to 1793491200"),
            set,
            "{date}: {console}"
        );
    }
}
