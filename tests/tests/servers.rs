//! The reference images as servers: Debian comes up whole, twice, and lets in whoever has the key.

use std::path::{Path, PathBuf};
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
    let (disk, key) = (scratch.join("disk.raw"), new_key(&scratch));
    alter::copy(&image.path("raw"), &disk);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap_or_else(|e| panic!("{e}"));
    let port = free_port();
    let network = format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22");
    // In the two forms there are: text, and base64 for what has commas or line ends.
    let credential = format!("type=11,value=io.systemd.credential:ssh.authorized_keys.root={}", public.trim());
    let arguments = ["-netdev", &network, "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci", "-smbios", &credential];
    let login = Login { key, port };
    let ask = |machine: &mut Machine, command: &str| login.ask(machine, command);
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
        let (code, table) = login.drift();
        assert_eq!(code, Some(0), "{table}");
        assert!(table.contains(&format!("debian 1.0.0  {}   no drift", &image.root_hash()[..8])), "{table}");
        ask(&mut machine, "systemd-run --quiet --unit=stranger sleep 1000");
        let (code, table) = login.drift();
        assert_eq!(code, Some(1), "{table}");
        assert!(table.contains("units: /run/systemd/transient/stranger.service: is there, should be absent"), "{table}");
        ask(&mut machine, "(sleep 1; systemctl poweroff) >/dev/null 2>&1 & true");
        machine.wait_for_end();
    }
    assert!(host_keys[0].starts_with("ssh-ed25519 ") && host_keys[0] == host_keys[1], "{host_keys:?}");
}

#[test]
#[ignore = "long: one more Debian, with curl"]
fn a_cloud_s_metadata_service_gives_root_its_key_as_the_documentation_says() {
    if !tool::have("ssh-keygen") || !tool::have("ssh") {
        return;
    }
    let scratch = Scratch::new("metadata");
    let page = std::fs::read_to_string(workspace().join("docs/platforms.md")).unwrap();
    let example = page.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let folder = scratch.join("image");
    tool::run(tool::command("cp").arg("-a").arg(workspace().join("images/debian")).arg(&folder));
    let _ = std::fs::remove_dir_all(folder.join("out"));
    let definition = folder.join("image.toml");
    let text = std::fs::read_to_string(&definition).unwrap();
    let with_curl = text.replacen("\"openssh-server\"", "\"openssh-server\", \"curl\"", 1);
    assert!(with_curl != text, "images/debian names its packages in another way");
    std::fs::write(&definition, format!("{with_curl}\n{example}")).unwrap();
    let image = Image { dir: scratch.join("out"), stem: "debian_1.0.0".to_owned() };
    image::build(&folder, &image.dir);

    // The service, as QEMU starts it for each connection: a token for whoever asks to be given one, a key for whoever has it.
    let key = new_key(&scratch);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let service = scratch.join("service");
    let script = format!(
        "read -r method path _\ntoken=\nwhile read -r name value; do case $name in X-aws-ec2-metadata-token:) token=${{value%?}} ;; ?) break ;; esac; done\n\
         case \"$method $path $token\" in\n'PUT /latest/api/token '*) body=secret ;;\n\
         'GET /latest/meta-data/public-keys/0/openssh-key secret') body='{}' ;;\n*) printf 'HTTP/1.1 401 No\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'; exit ;;\nesac\n\
         printf 'HTTP/1.1 200 OK\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n%s' \"${{#body}}\" \"$body\"\n",
        public.trim()
    );
    std::fs::write(&service, script).unwrap();
    let port = free_port();
    let network = format!(
        "user,id=net,net=169.254.169.0/24,dhcpstart=169.254.169.15,hostfwd=tcp:127.0.0.1:{port}-169.254.169.15:22,guestfwd=tcp:169.254.169.254:80-cmd:sh {}",
        service.display()
    );
    let arguments = ["-netdev", &network, "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"];
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut machine = start(&image, &disk, &scratch, "", &arguments);
    machine.wait_for("debian ttyS0");
    let login = Login { key, port };
    let said = login.ask(&mut machine, "cat /run/ssh/authorized_keys/root; systemctl is-active metadata-key.service");
    assert!(said.starts_with(public.trim()), "{said}");
    machine.cut_power();
}

/// A new key of one's own.
fn new_key(scratch: &Scratch) -> PathBuf {
    let key = scratch.join("key");
    tool::run(tool::command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&key));
    key
}

/// How root logs in.
struct Login {
    key: PathBuf,
    port: u16,
}

impl Login {
    /// What `adamant drift` says of the server, with its exit code.
    fn drift(&self) -> (Option<i32>, String) {
        let (host, key) = (format!("ssh://root@127.0.0.1:{}", self.port), format!("IdentityFile={}", self.key.display()));
        let options = [key.as_str(), "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"].map(|option| ["--ssh-option", option]);
        let output = tool::output(image::builder().args(["drift", &host, "--timeout", "5m"]).args(options.as_flattened()));
        (output.status.code(), tool::lossy(&output.stdout) + &tool::lossy(&output.stderr))
    }

    /// Runs a command on the server, as soon as it lets in.
    fn ask(&self, machine: &mut Machine, command: &str) -> String {
        let started = Instant::now();
        loop {
            let output = tool::output(
                tool::command("ssh")
                    .args(["-i", &self.key.display().to_string(), "-p", &self.port.to_string()])
                    .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
                    .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "root@127.0.0.1", command])
                    .stdin(Stdio::null()),
            );
            if output.status.success() {
                return tool::lossy(&output.stdout);
            }
            assert!(started.elapsed() < BOOT, "ssh: {}\n{}", tool::lossy(&output.stderr), machine.console());
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map(|address| address.port()).unwrap_or_else(|e| panic!("{e}"))
}
