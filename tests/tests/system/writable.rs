//! What root may open for writing in /proc, /sys and /dev on images/debian at level guard: the
//! groups of tests/writable cover every file, and the kernel does what their verdicts say.

use std::fs;

use adamant::commands::boot::command::DiskBus;
use adamant_tests::image::{self, Image, target_dir, workspace};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::server::Server;
use adamant_tests::tool;

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
fn root_may_write_what_the_groups_say_and_nothing_else() {
    let scratch = Scratch::new("writable");
    let image = with_poke(&scratch);
    let change = |setup: Setup| setup.firmware(None);
    let Some(mut server) = Server::fresh(&image, &scratch, change) else {
        return;
    };
    server.ask("systemctl is-system-running --wait");
    let list = server.ask(&format!("timeout 500 {POKE} writable"));
    fs::write("/tmp/wr-list", &list).unwrap();
    let mounts = server.ask("cat /proc/mounts; ls /dev; lsmod; adamant-agent status; dmesg | tail -50; systemctl list-units; for i in / ; do busctl --no-pager list; done");
    fs::write("/tmp/wr-info", &mounts).unwrap();
    let more = server.ask("for s in org.freedesktop.systemd1 org.freedesktop.login1 org.freedesktop.hostname1 org.freedesktop.timedate1 org.freedesktop.locale1 org.freedesktop.resolve1 org.freedesktop.network1 org.freedesktop.timesync1 ; do echo == $s; busctl --no-pager tree --list $s | head -5; done; ls /usr/lib/systemd /usr/share/polkit-1 /usr/share/dbus-1/system.d /usr/share/dbus-1/system-services /usr/lib/udev; ss -lxp; ss -ltunp; find / -xdev -perm /6000 -type f 2>/dev/null; true");
    fs::write("/tmp/wr-more", &more).unwrap();
    for (o, i) in [
        ("systemd1", "Manager"),
        ("login1", "Manager"),
        ("hostname1", ""),
        ("timedate1", ""),
        ("locale1", ""),
        ("network1", "Manager"),
        ("resolve1", "Manager"),
        ("timesync1", "Manager"),
    ] {
        let iface = if i.is_empty() {
            format!("org.freedesktop.{o}")
        } else {
            format!("org.freedesktop.{o}.{i}")
        };
        let (said, _) = server.try_to(&format!("busctl --no-pager introspect org.freedesktop.{o} /org/freedesktop/{o} {iface} | grep -v signal"));
        fs::write(format!("/tmp/wr-bus-{o}"), said).unwrap();
    }
    server.power_off();
}
