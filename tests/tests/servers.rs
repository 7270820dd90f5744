//! The reference images as servers: Debian comes up whole, twice, and lets in whoever has the key.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use adamant_tests::alter;
use adamant_tests::image::{self, Image, lock, target_dir, workspace};
use adamant_tests::machine::{Machine, Setup};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// A whole Debian takes its time without hardware help.
const BOOT: Duration = Duration::from_secs(600);

/// Builds a reference image, once a run.
fn reference(name: &str) -> Image {
    let _lock = lock(&format!("reference-{name}"));
    let dir = target_dir().join("reference").join(name);
    image::build(&workspace().join("images").join(name), &dir);
    Image { dir, stem: format!("{name}_1.0.0") }
}

fn start(image: &Image, disk: &Path, scratch: &Scratch, words: &str, arguments: &[&str]) -> Machine {
    let network = ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"];
    let arguments = if arguments.is_empty() { &network[..] } else { arguments };
    Setup::of(image).disk(disk).memory("1G").append(words).arguments(arguments).deadline(BOOT).start(scratch)
}

/// Boots until the image has said how it went.
fn report(image: &Image, disk: &Path, scratch: &Scratch) -> String {
    let mut machine = start(image, disk, scratch, "adamant.check", &[]);
    let console = machine.wait_for_end();
    println!("{}: reported and switched off after {} s", image.stem, machine.age().as_secs());
    console
}

fn is_running_twice(name: &str) {
    let image = reference(name);
    let scratch = Scratch::new(name);
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    for boot in ["first", "second"] {
        let console = report(&image, &disk, &scratch);
        assert!(console.contains(&format!("verified: {name}, running")), "{boot} boot:\n{console}");
        assert!(!console.contains("Failed to start"), "{boot} boot:\n{console}");
    }
}

#[test]
fn debian_is_running_with_no_failed_unit_on_its_first_and_second_boot() {
    is_running_twice("debian");
}

#[test]
#[ignore = "long: one more Debian, with nginx"]
fn web_is_running_with_no_failed_unit_on_its_first_and_second_boot() {
    is_running_twice("web");
}

#[test]
#[ignore = "long: two more boots of Debian"]
fn root_logs_in_with_the_key_from_the_credential_and_the_host_key_stays() {
    if !tool::have("ssh-keygen") || !tool::have("ssh") {
        return;
    }
    let image = reference("debian");
    let scratch = Scratch::new("ssh");
    let (disk, key) = (scratch.join("disk.raw"), scratch.join("key"));
    alter::copy(&image.path("raw"), &disk);
    tool::run(tool::command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&key));
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap_or_else(|e| panic!("{e}"));
    let port = free_port();
    let network = format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22");
    // In the two forms there are: text, and base64 for what has commas or line ends.
    let credential = format!("type=11,value=io.systemd.credential:ssh.authorized_keys.root={}", public.trim());
    let arguments = ["-netdev", &network, "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci", "-smbios", &credential];
    let ask = |machine: &mut Machine, command: &str| {
        let started = Instant::now();
        loop {
            let output = tool::output(
                tool::command("ssh")
                    .args(["-i", &key.display().to_string(), "-p", &port.to_string(), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
                    .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "root@127.0.0.1", command])
                    .stdin(Stdio::null()),
            );
            if output.status.success() {
                return tool::lossy(&output.stdout);
            }
            assert!(started.elapsed() < BOOT, "ssh: {}\n{}", tool::lossy(&output.stderr), machine.console());
            std::thread::sleep(Duration::from_secs(2));
        }
    };
    let mut host_keys = Vec::new();
    for _ in 0..2 {
        let mut machine = start(&image, &disk, &scratch, "", &arguments);
        // Not for the prompt itself, which is no whole line.
        machine.wait_for("debian ttyS0");
        let said = ask(&mut machine, "adamant-agent status && ls -ld /var/log/journal/$(cat /etc/machine-id) && cat /var/lib/ssh/ssh_host_ed25519_key.pub");
        assert!(said.contains(&image.root_hash()[..8]), "{said}");
        host_keys.push(said.lines().last().unwrap_or_default().to_owned());
        let refused = ask(&mut machine, "touch /etc/x 2>&1; touch /usr/x 2>&1; true");
        assert_eq!(refused.matches("Read-only file system").count(), 2, "{refused}");
        ask(&mut machine, "(sleep 1; systemctl poweroff) >/dev/null 2>&1 & true");
        machine.wait_for_end();
    }
    assert!(host_keys[0].starts_with("ssh-ed25519 ") && host_keys[0] == host_keys[1], "{host_keys:?}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map(|address| address.port()).unwrap_or_else(|e| panic!("{e}"))
}
