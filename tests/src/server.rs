//! The reference images as servers, and how to log in to one.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use adamant::commands::boot::Port;

use crate::image::{self, Image, lock, target_dir, workspace};
use crate::machine::{Machine, Setup};
use crate::scratch::Scratch;
use crate::{alter, tool};

/// A whole Debian takes its time without hardware help.
pub const BOOT: Duration = Duration::from_secs(600);

/// Builds a reference image, once a run.
pub fn reference(name: &str) -> Image {
    let _lock = lock(&format!("reference-{name}"));
    let dir = target_dir().join("reference").join(name);
    image::build(&workspace().join("images").join(name), &dir);
    Image {
        dir,
        stem: format!("{name}_1.0.0"),
    }
}

/// A server of an image, on a network of its own unless the arguments for QEMU have another.
pub fn setup(image: &Image, disk: &Path, append: &str, arguments: &[&str]) -> Setup {
    let setup = Setup::of(image)
        .disk(disk)
        .processors(2)
        .compressed_kernel()
        .sata()
        .memory("1G")
        .append(append)
        .arguments(arguments)
        .deadline(2 * BOOT);
    match arguments.is_empty() {
        true => setup.network(&[]),
        false => setup,
    }
}

/// A running server with a root shell by SSH.
pub struct Server {
    /// The machine.
    pub machine: Machine,
    login: Login,
}

impl Server {
    /// Starts one from a disk, which may have been started before, and waits until it has come up;
    /// `None` where there is no SSH client. `change` may give it more.
    pub fn start(
        image: &Image,
        disk: &Path,
        scratch: &Scratch,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Option<Server> {
        if !tool::have("ssh-keygen") || !tool::have("ssh") {
            return None;
        }
        let login = Login {
            key: key(scratch),
            port: free_port(),
        };
        let ssh = Port {
            host: login.port,
            guest: 22,
        };
        let credential = login.credential();
        let setup = setup(image, disk, "", &["-smbios", &credential]).network(&[ssh]);
        let mut machine = change(setup).start(scratch);
        // Not for the prompt itself, which is no whole line.
        machine.wait_for(&format!(
            "{} ttyS0",
            image.stem.split('_').next().unwrap_or_default()
        ));
        Some(Server { machine, login })
    }

    /// Starts a fresh copy of the image.
    pub fn fresh(
        image: &Image,
        scratch: &Scratch,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Option<Server> {
        let disk = scratch.join("disk.raw");
        alter::copy(&image.path("raw"), &disk);
        Server::start(image, &disk, scratch, change)
    }

    /// Runs a command on the server, as soon as it lets in, and gives what it said; the test fails
    /// when the command does.
    pub fn ask(&mut self, command: &str) -> String {
        let (said, code) = self.try_to(command);
        assert!(code == 0, "{command}: exit code {code}\n{said}");
        said
    }

    /// Runs a command on the server, and gives what it said, to both outputs, and its exit code.
    pub fn try_to(&mut self, command: &str) -> (String, i32) {
        self.login
            .ask(&mut self.machine, &format!("exec 2>&1; {command}"))
    }

    /// What `adamant drift` says of it, with its exit code.
    pub fn drift(&self) -> (Option<i32>, String) {
        let (host, key) = (
            format!("ssh://root@127.0.0.1:{}", self.login.port),
            format!("IdentityFile={}", self.login.key.display()),
        );
        let options = [
            key.as_str(),
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ]
        .map(|option| ["--ssh-option", option]);
        let output = tool::output(
            image::builder()
                .args(["drift", &host, "--timeout", "5m"])
                .args(options.as_flattened()),
        );
        (
            output.status.code(),
            tool::lossy(&output.stdout) + &tool::lossy(&output.stderr),
        )
    }

    /// Switches it off as an operator does.
    pub fn power_off(mut self) -> String {
        self.ask("(sleep 1; systemctl poweroff) >/dev/null 2>&1 & true");
        self.machine.wait_for_end()
    }
}

/// How root logs in.
pub struct Login {
    /// The private key's file.
    pub key: PathBuf,
    /// The port of this machine's that leads to the server's.
    pub port: u16,
}

impl Login {
    /// For QEMU: the key's public half, as a hypervisor hands it to the server.
    pub fn credential(&self) -> String {
        format!(
            "type=11,value=io.systemd.credential:ssh.authorized_keys.root={}",
            self.public()
        )
    }

    /// The key's public half.
    pub fn public(&self) -> String {
        let public = std::fs::read_to_string(self.key.with_extension("pub"))
            .unwrap_or_else(|e| panic!("{e}"));
        public.trim().to_owned()
    }

    /// Runs a command on the server, as soon as it lets in; gives its output and its exit code.
    pub fn ask(&self, machine: &mut Machine, command: &str) -> (String, i32) {
        // What SSH itself ends with where it does not get there.
        const NOT_THERE: i32 = 255;
        let started = Instant::now();
        loop {
            let output = self.once(command);
            match output.status.code() {
                Some(code) if code != NOT_THERE => return (tool::lossy(&output.stdout), code),
                _ => assert!(
                    started.elapsed() < BOOT && machine.is_on(),
                    "ssh: {}\n{}",
                    tool::lossy(&output.stderr),
                    machine.console()
                ),
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    fn once(&self, command: &str) -> Output {
        tool::output(
            tool::command("ssh")
                .args([
                    "-i",
                    &self.key.display().to_string(),
                    "-p",
                    &self.port.to_string(),
                ])
                .args([
                    "-o",
                    "StrictHostKeyChecking=no",
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                    "-o",
                    "ServerAliveInterval=60",
                ])
                .args([
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "ConnectTimeout=20",
                    "-o",
                    "LogLevel=ERROR",
                    "root@127.0.0.1",
                    command,
                ])
                .stdin(Stdio::null()),
        )
    }
}

/// A key of the test's own, made at the first call.
pub fn key(scratch: &Scratch) -> PathBuf {
    let key = scratch.join("key");
    if !key.exists() {
        tool::run(
            tool::command("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
                .arg(&key),
        );
    }
    key
}

/// A port of this machine's that nobody uses.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .unwrap_or_else(|e| panic!("{e}"))
}
