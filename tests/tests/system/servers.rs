//! The reference images as servers: Debian starts without a failed unit, twice, accepts a login
//! with the right key, and allows everyday work.

use std::path::Path;

use adamant_tests::alter;
use adamant_tests::image::{self, Image, workspace};
use adamant_tests::machine::Machine;
use adamant_tests::scratch::Scratch;
use adamant_tests::server::{Login, Server, free_port, key, reference, setup};
use adamant_tests::tool;

fn start(
    image: &Image,
    disk: &Path,
    scratch: &Scratch,
    words: &str,
    arguments: &[&str],
) -> Machine {
    setup(image, disk, words, arguments).start(scratch)
}

/// Boots until the image has said how it went.
fn report(image: &Image, disk: &Path, scratch: &Scratch) -> String {
    let mut machine = start(image, disk, scratch, "adamant.check", &[]);
    let console = machine.wait_for_end();
    println!(
        "{}: reported and switched off after {} s",
        image.stem,
        machine.age().as_secs()
    );
    console
}

fn is_running_twice(name: &str) {
    let image = reference(name);
    let scratch = Scratch::new(name);
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let console = report(&image, &disk, &scratch);
    assert!(
        console.contains(&format!("verified: {name}, running")),
        "first boot:\n{console}"
    );
    assert!(
        !console.contains("Failed to start"),
        "first boot:\n{console}"
    );
    // The second one is a day of work, too.
    let console = match Server::start(&image, &disk, &scratch, |setup| setup) {
        Some(mut server) => {
            assert_eq!(
                server.ask("systemctl is-system-running --wait").trim(),
                "running"
            );
            println!(
                "{}: up and running after {} s",
                image.stem,
                server.machine.age().as_secs()
            );
            a_normal_day(&mut server, name);
            server.power_off()
        }
        None => report(&image, &disk, &scratch),
    };
    assert!(
        !console.contains("Failed to start"),
        "second boot:\n{console}"
    );
}

/// What an operator and the machine itself do on any day: each ends with 0.
const DAY: [&str; 15] = [
    "logger -t day what happens",
    "journalctl -b -t day --no-pager | grep -q 'what happens'",
    "journalctl --rotate",
    "journalctl --vacuum-size=8M",
    "journalctl --verify --quiet",
    "if [ -x /usr/sbin/logrotate ]; then logrotate --force /etc/logrotate.conf; fi",
    "systemctl restart systemd-timesyncd && systemctl is-active --quiet systemd-timesyncd",
    "timedatectl",
    "systemctl reload ssh",
    "systemctl start systemd-tmpfiles-clean.service",
    "systemctl start fstrim.service",
    "udevadm trigger --settle --subsystem-match=block",
    "systemd-run --scope -q true",
    "perl -e 'open my $file, \"+>\", undef or die $!'",
    "dpkg -l >/dev/null && apt-cache stats >/dev/null",
];

/// The guard is there, and nobody who does nothing wrong meets it.
fn a_normal_day(server: &mut Server, name: &str) {
    let more = ["nginx -t && systemctl reload nginx && systemctl is-active --quiet nginx"];
    // In one session: each login takes its seconds.
    let day = DAY.iter().chain(more.iter().filter(|_| name == "web"));
    let day: String = day
        .enumerate()
        .map(|(number, command)| {
            format!(
                "{{ {command}\n}} || {{ echo \"command {number} of the day failed\"; exit 1; }}\n"
            )
        })
        .collect();
    server.ask(&day);
    // Changing the server is refused in words that a person understands, and leaves nothing half
    // done.
    for command in [
        "apt-get update",
        "apt-get install -y hello",
        "apt install hello",
        "dpkg --remove less",
        "/usr/bin/apt-get remove -y less",
    ] {
        let (said, code) = server.try_to(command);
        assert!(
            code != 0 && said.contains("never modified, only replaced"),
            "{command}: {code}: {said}"
        );
    }
    assert_eq!(
        server.ask("dpkg --audit; dpkg-query -W -f '${db:Status-Status}' less"),
        "installed"
    );
    // `systemctl isolate` leaves the agent's services alone, and nothing else stops them for good.
    for service in ["adamant-watch", "adamant-scrub"] {
        let shown = server.ask(&format!(
            "systemctl show -p IgnoreOnIsolate -p UpheldBy {service}"
        ));
        assert_eq!(
            shown.trim_end(),
            "UpheldBy=init.scope\nIgnoreOnIsolate=yes",
            "{service}"
        );
    }
    let failed = server.ask("systemctl --failed --no-legend --plain");
    assert_eq!(failed.trim(), "");
    let told = server.ask("cat /run/adamant/events.jsonl 2>/dev/null; true");
    assert_eq!(told, "", "what should not be");
    let said = server.ask("adamant-agent status");
    assert!(said.contains("denials    none since the boot"), "{said}");
    // The boot before this one was ended as it should be, which only the watch could tell.
    assert!(said.contains("bad boot   none on record"), "{said}");
    let said = server.ask("adamant-agent drift");
    assert!(said.starts_with("no drift\ndenials: none\n"), "{said}");
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
#[ignore = "long: four more boots of Debian"]
fn root_logs_in_with_the_key_from_the_credential_and_the_host_key_stays() {
    let image = reference("debian");
    let scratch = Scratch::new("ssh");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut host_keys = Vec::new();
    for _ in 0..2 {
        let Some(mut server) = Server::start(&image, &disk, &scratch, |setup| setup) else {
            return;
        };
        let said = server.ask("adamant-agent status && ls -ld /var/log/journal/$(cat /etc/machine-id) && cat /var/lib/ssh/ssh_host_ed25519_key.pub");
        assert!(said.contains(&image.root_hash()[..8]), "{said}");
        host_keys.push(said.lines().last().unwrap_or_default().to_owned());
        let refused = server.ask("touch /etc/x; touch /usr/x; true");
        assert_eq!(
            refused.matches("Read-only file system").count(),
            2,
            "{refused}"
        );
        let (code, table) = server.drift();
        assert_eq!(code, Some(0), "{table}");
        assert!(
            table.contains(&format!(
                "debian 1.0.0  {}   no drift",
                &image.root_hash()[..8]
            )),
            "{table}"
        );
        let (said, code) = server.try_to("systemd-run --quiet --unit=stranger sleep 1000");
        assert!(
            code != 0 && said.contains("Access denied"),
            "{code}: {said}"
        );
        server
            .ask("setsid -f systemd-socket-activate -l 0.0.0.0:471 true >/dev/null 2>&1; sleep 2");
        let (code, table) = server.drift();
        assert_eq!(code, Some(1), "{table}");
        assert!(
            table.contains("sockets: 0.0.0.0:471/tcp: is open, by systemd-socket-"),
            "{table}"
        );
        server.power_off();
    }
    assert!(
        host_keys[0].starts_with("ssh-ed25519 ") && host_keys[0] == host_keys[1],
        "{host_keys:?}"
    );
    // A machine that was not shut down tells of it.
    let Some(mut server) = Server::start(&image, &disk, &scratch, |setup| setup) else {
        return;
    };
    server.ask("systemctl is-active --quiet adamant-watch");
    server.machine.cut_power();
    let Some(mut server) = Server::start(&image, &disk, &scratch, |setup| setup) else {
        return;
    };
    let said = server.ask("adamant-agent status");
    assert!(
        said.contains("bad boot   the one before this")
            && said.contains("it was not shut down: power cut, reset or hang"),
        "{said}"
    );
}

/// Builds images/debian with more packages and more lines in its definition.
fn debian_with(scratch: &Scratch, packages: &[&str], lines: &str) -> Image {
    let folder = scratch.join("image");
    tool::run(
        tool::command("cp")
            .arg("-a")
            .arg(workspace().join("images/debian"))
            .arg(&folder),
    );
    let _ = std::fs::remove_dir_all(folder.join("out"));
    let definition = folder.join("image.toml");
    let text = std::fs::read_to_string(&definition).unwrap();
    let listed: String = packages
        .iter()
        .map(|name| format!(", \"{name}\""))
        .collect();
    let more = text.replacen(
        "\"openssh-server\"",
        &format!("\"openssh-server\"{listed}"),
        1,
    );
    assert!(
        more != text,
        "images/debian names its packages in another way"
    );
    std::fs::write(&definition, format!("{more}\n{lines}")).unwrap();
    let image = Image {
        dir: scratch.join("out"),
        stem: "debian_1.0.0".to_owned(),
    };
    image::build(&folder, &image.dir);
    image
}

/// Commands that read the identity, health and layout of disks and network devices, and a text that
/// each prints. `mdadm` tells that there is nothing to show. multipath is not here: it needs a
/// writable file in /etc.
const READERS: [(&str, &str); 13] = [
    ("smartctl -i -H /dev/sda", "Device type:          disk"),
    ("smartctl -a /dev/nvme0", "SMART overall-health"),
    ("nvme list", "/dev/nvme0n1"),
    ("mdadm --examine /dev/sda", "No md superblock"),
    ("mdadm --detail --scan --verbose && echo none", "none"),
    ("pvs -a -o +dev_size", "PSize"),
    ("vgs; lvs; pvscan", "No matching physical volumes"),
    (
        "ethtool $(basename $(ls -d /sys/class/net/e*))",
        "Link detected",
    ),
    (
        "ethtool -i $(basename $(ls -d /sys/class/net/e*))",
        "virtio_net",
    ),
    ("lsblk --output-all /dev/sda", "sda"),
    ("blkid /dev/vda1", "vfat"),
    ("sfdisk --dump /dev/vda", "label: gpt"),
    ("dmsetup table root && dmsetup status", "verity"),
];

#[test]
#[ignore = "long: one more Debian, with the tools of disks"]
fn tools_that_only_read_disks_and_network_devices_work_at_level_guard() {
    if !tool::have("ssh-keygen") || !tool::have("ssh") {
        return;
    }
    let scratch = Scratch::new("readers");
    let image = debian_with(
        &scratch,
        &[
            "smartmontools",
            "nvme-cli",
            "mdadm",
            "lvm2",
            "ethtool",
            "fdisk",
        ],
        "",
    );
    let disks = ["nvme", "scsi"].map(|name| {
        let path = scratch.join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        format!("file={},format=raw,if=none,id={name}", path.display())
    });
    let arguments = [
        "-drive",
        &disks[0],
        "-device",
        "nvme,serial=n1,drive=nvme",
        "-drive",
        &disks[1],
        "-device",
        "virtio-scsi-pci",
        "-device",
        "scsi-hd,serial=s1,drive=scsi",
    ];
    let started = Server::fresh(&image, &scratch, |setup| setup.arguments(&arguments));
    let Some(mut server) = started else { return };
    let mut wrong = Vec::new();
    for (command, text) in READERS {
        let (said, code) = server.try_to(command);
        if !said.contains(text) {
            wrong.push(format!("{command}: {code}: {said}"));
        }
    }
    let told = server.ask("cat /run/adamant/events.jsonl 2>/dev/null; true");
    assert!(wrong.is_empty(), "{}\n{told}", wrong.join("\n"));
    // mdadm asks to remove partitions (BLKPG) and goes on without; units of the packages call
    // modprobe for modules that the definition does not list.
    let known = ["\"comm\":\"mdadm\"", "\"comm\":\"modprobe\""];
    let others = told
        .lines()
        .find(|line| !known.iter().any(|comm| line.contains(comm)));
    assert_eq!(others, None);
    server.machine.cut_power();
}

#[test]
#[ignore = "long: one more Debian, with curl"]
fn a_cloud_s_metadata_service_gives_root_its_key_as_the_documentation_says() {
    if !tool::have("ssh-keygen") || !tool::have("ssh") {
        return;
    }
    let scratch = Scratch::new("metadata");
    let page = std::fs::read_to_string(workspace().join("docs/platforms.md")).unwrap();
    let example = page
        .split_once("```toml\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap()
        .0;
    let image = debian_with(&scratch, &["curl"], example);

    // The metadata service, which QEMU starts for each connection: it gives out a token, and for
    // a token the key.
    let login = Login {
        key: key(&scratch),
        port: free_port(),
    };
    let service = scratch.join("service");
    let script = format!(
        "read -r method path _\ntoken=\nwhile read -r name value; do case $name in X-aws-ec2-metadata-token:) token=${{value%?}} ;; ?) break ;; esac; done\n\
         case \"$method $path $token\" in\n'PUT /latest/api/token '*) body=secret ;;\n\
         'GET /latest/meta-data/public-keys/0/openssh-key secret') body='{}' ;;\n*) printf 'HTTP/1.1 401 No\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'; exit ;;\nesac\n\
         printf 'HTTP/1.1 200 OK\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n%s' \"${{#body}}\" \"$body\"\n",
        login.public()
    );
    std::fs::write(&service, script).unwrap();
    let port = login.port;
    let network = format!(
        "user,id=net,net=169.254.169.0/24,dhcpstart=169.254.169.15,hostfwd=tcp:127.0.0.1:{port}-169.254.169.15:22,guestfwd=tcp:169.254.169.254:80-cmd:sh {}",
        service.display()
    );
    let arguments = [
        "-netdev",
        &network,
        "-device",
        "virtio-net-pci,netdev=net",
        "-device",
        "virtio-rng-pci",
    ];
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut machine = start(&image, &disk, &scratch, "", &arguments);
    machine.wait_for("debian ttyS0");
    let (said, _) = login.ask(
        &mut machine,
        "cat /run/ssh/authorized_keys/root; systemctl is-active metadata-key.service",
    );
    assert!(said.starts_with(&login.public()), "{said}");
    machine.cut_power();
}
