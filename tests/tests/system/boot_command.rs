//! `adamant boot` keeps what it promises to people and scripts: its exit codes, and that persisted
//! machines are the user's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adamant_tests::alter;
use adamant_tests::image::{
    self, FULL, Image, POWEROFF_AT_ONCE, SMALL_VOLUMES, Tiny, build_command,
};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// How `adamant boot` ended.
struct Booted {
    code: Option<i32>,
    console: String,
    said: String,
}

fn command(out: &Path, words: &[&str], scratch: &Scratch) -> Command {
    let mut command = image::builder();
    command
        .env("XDG_STATE_HOME", scratch.join("state"))
        .arg("boot")
        .arg(out);
    command
        .args(["--accel", "tcg", "--memory", "512M", "--console"])
        .arg(scratch.join("console"))
        .args(words);
    if !words.contains(&"--timeout") {
        command.args(["--timeout", "240s"]);
    }
    command
}

fn boot(out: &Path, words: &[&str], scratch: &Scratch) -> Booted {
    let _ = fs::remove_file(scratch.join("console"));
    let output = tool::output(&mut command(out, words, scratch));
    let console = fs::read(scratch.join("console"))
        .map(|bytes| tool::lossy(&bytes))
        .unwrap_or_default();
    Booted {
        code: output.status.code(),
        console,
        said: tool::lossy(&output.stderr),
    }
}

/// A copy of an image with a byte of its root altered.
fn altered(image: &Image, scratch: &Scratch) -> PathBuf {
    let out = scratch.join("altered");
    fs::create_dir(&out).unwrap();
    for entry in fs::read_dir(&image.dir).unwrap() {
        let path = entry.unwrap().path();
        alter::copy(&path, &out.join(path.file_name().unwrap()));
    }
    let disk = out.join(format!("{}.raw", image.stem));
    alter::flip(&disk, alter::root(&disk).start + (4 << 20));
    out
}

#[test]
fn a_machine_that_reached_init_and_switched_itself_off_is_0_and_one_that_ran_on_is_4() {
    let (image, scratch) = (Tiny::usual().build(), Scratch::new("boot-codes"));
    let good = boot(&image.dir, &[], &scratch);
    assert!(
        good.code == Some(0) && good.console.contains("tiny: done"),
        "{:?} {}\n{}",
        good.code,
        good.said,
        good.console
    );
    assert!(!good.said.contains("serial console"), "{}", good.said);
    let late = boot(
        &image.dir,
        &["--append", "tiny.stay", "--timeout", "45s"],
        &scratch,
    );
    assert!(
        late.code == Some(4) && late.said.contains("still running after 45 s"),
        "{:?} {}",
        late.code,
        late.said
    );
    assert_eq!(boot(&scratch.join("nothing"), &[], &scratch).code, Some(1));
    assert_eq!(boot(&image.dir, &["--smp", "0"], &scratch).code, Some(2));
}

#[test]
fn an_image_that_the_agent_refused_is_3_whatever_the_machine_did_then() {
    for (action, words) in [
        ("poweroff", &[][..]),
        ("reboot", &["--reboots", "1"]),
        ("halt", &[]),
    ] {
        let scratch = Scratch::new(&format!("boot-refused-{action}"));
        let image = Tiny {
            more: format!(
                "{SMALL_VOLUMES}[failure]\naction = \"{action}\"\nafter = \"1s\"\n{FULL}"
            ),
            ..Tiny::default()
        }
        .build();
        let refused = boot(&altered(&image, &scratch), words, &scratch);
        assert_eq!(
            refused.code,
            Some(3),
            "{action}: {}\n{}",
            refused.said,
            refused.console
        );
        assert!(
            refused
                .said
                .contains("error: the agent refused the image: ")
                && !refused.console.contains("tiny: "),
            "{action}: {}",
            refused.said
        );
        assert_eq!(
            refused.said.contains("the machine was halted"),
            action == "halt",
            "{}",
            refused.said
        );
    }
}

#[test]
fn without_a_black_box_the_agents_line_on_the_console_says_it() {
    let scratch = Scratch::new("boot-no-box");
    let image = Tiny {
        more: format!("[disk]\nblack_box = false\n{SMALL_VOLUMES}{POWEROFF_AT_ONCE}{FULL}"),
        ..Tiny::default()
    }
    .build();
    let good = boot(&image.dir, &["--append", "quiet"], &scratch);
    assert_eq!(good.code, Some(0), "{}\n{}", good.said, good.console);
    let refused = boot(&altered(&image, &scratch), &["--append", "quiet"], &scratch);
    assert_eq!(
        refused.code,
        Some(3),
        "{}\n{}",
        refused.said,
        refused.console
    );
}

#[test]
fn a_kernel_that_panics_is_4_before_and_after_init() {
    let (image, scratch) = (Tiny::usual().build(), Scratch::new("boot-panic"));
    for words in ["tiny.panic", "rdinit=/nothing panic=1"] {
        let panic = boot(&image.dir, &["--reboots", "0", "--append", words], &scratch);
        assert_eq!(
            panic.code,
            Some(4),
            "{words}: {}\n{}",
            panic.said,
            panic.console
        );
        assert!(
            panic.console.contains("Kernel panic") && panic.said.contains("restarted itself"),
            "{words}: {}\n{}",
            panic.said,
            panic.console
        );
    }
}

#[test]
fn an_image_without_a_serial_console_is_said_to_show_nothing() {
    let (image, scratch) = (Tiny::usual().build(), Scratch::new("boot-silent"));
    let out = scratch.join("out");
    fs::create_dir(&out).unwrap();
    for entry in fs::read_dir(&image.dir).unwrap() {
        let path = entry.unwrap().path();
        alter::copy(&path, &out.join(path.file_name().unwrap()));
    }
    let cmdline = out.join(format!("{}.cmdline", image.stem));
    fs::write(
        &cmdline,
        fs::read_to_string(&cmdline)
            .unwrap()
            .replace("console=ttyS0", "quiet"),
    )
    .unwrap();
    let silent = boot(&out, &[], &scratch);
    // The black box tells all the same that init was reached.
    assert_eq!(
        (silent.code, silent.console.as_str()),
        (Some(0), ""),
        "{}",
        silent.said
    );
    assert!(
        silent
            .said
            .contains("the screen stays empty: add console=ttyS0"),
        "{}",
        silent.said
    );
}

#[test]
fn a_port_in_use_and_a_locked_disk_are_named_before_qemu_complains() {
    let (image, scratch) = (Tiny::usual().build(), Scratch::new("boot-taken"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = boot(&image.dir, &["--port", &format!("{port}:22")], &scratch);
    assert!(
        refused.code == Some(1)
            && refused
                .said
                .contains(&format!("another program uses port {port} of 127.0.0.1")),
        "{}",
        refused.said
    );
    // A machine of somebody else's that writes to the artifact itself.
    let out = altered(&image, &scratch);
    let drive = format!(
        "if=none,id=d,format=raw,file={}",
        out.join(format!("{}.raw", image.stem)).display()
    );
    let other = tool::command("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-no-user-config",
            "-accel",
            "tcg",
            "-display",
            "none",
            "-S",
            "-drive",
            &drive,
            "-device",
            "virtio-blk-pci,drive=d",
        ])
        .spawn()
        .map(Running)
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let refused = boot(&out, &[], &scratch);
    drop(other);
    assert!(
        refused.code == Some(1)
            && refused
                .said
                .contains(".raw: another machine uses this disk"),
        "{:?} {}",
        refused.code,
        refused.said
    );
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `adamant build` of a tiny image with this version and a file with these bytes in it.
fn build(
    scratch: &Scratch,
    version: &str,
    greeting: impl AsRef<[u8]>,
    words: &[&str],
) -> (PathBuf, bool, String) {
    let tiny = Tiny {
        version: version.to_owned(),
        ..Tiny::usual()
    }
    .with("[[file]]\npath = \"/etc/greeting\"\ncopy = \"greeting\"\n");
    let out = scratch.join("out");
    let definition = tiny.define(&scratch.join("definition"));
    fs::write(definition.with_file_name("greeting"), greeting).unwrap();
    let built = tool::output(build_command(&definition, &out).args(words));
    (out, built.status.success(), tool::lossy(&built.stderr))
}

fn counter(booted: &Booted, number: u32) {
    assert_eq!(booted.code, Some(0), "{}\n{}", booted.said, booted.console);
    let line = format!("tiny: counter {number}");
    assert!(
        booted.console.lines().any(|found| found.trim_end() == line),
        "no {line:?}: {}\n{}",
        booted.said,
        booted.console
    );
}

#[test]
fn a_persisted_machine_outlives_builds_updates_and_power_cuts() {
    let scratch = Scratch::new("boot-persist");
    let (out, built, said) = build(&scratch, "1", "one", &[]);
    assert!(built, "{said}");
    let disk = scratch.join("state/adamant/tiny/disk.raw");
    counter(&boot(&out, &["--persist"], &scratch), 1);
    counter(&boot(&out, &["--persist"], &scratch), 2);

    // Other content under the same version: an error that names both root hashes, until it is asked
    // for.
    let hash = || {
        fs::read_to_string(out.join("tiny_1.roothash"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let first = hash();
    let (_, built, said) = build(&scratch, "1", "two", &[]);
    assert!(
        !built && said.contains(&first) && said.contains("--force") && hash() == first,
        "{said}"
    );
    let (_, built, said) = build(&scratch, "1", "two", &["--force"]);
    assert!(built && hash() != first, "{said}");
    let rebuilt = boot(&out, &["--persist"], &scratch);
    counter(&rebuilt, 3);
    assert!(
        rebuilt
            .console
            .contains(&format!("tiny: root hash {}", hash())),
        "{}",
        rebuilt.console
    );

    // The next version; the power goes while it is written into the machine.
    let (_, built, said) = build(&scratch, "2", "three", &[]);
    assert!(built, "{said}");
    // How long the writing takes depends on this machine, so the cuts come at growing moments. When
    // the disk is in place before a cut, the following round writes the other version again.
    let new = disk.with_extension("raw.new");
    let inode_of = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
    let (mut cut, mut target, mut delay) = (0, 2, 0);
    for _ in 0..60 {
        // A cut before this leaves a file that the next run removes first.
        let _ = fs::remove_file(&new);
        let inode = inode_of(&disk);
        let mut child = Running(
            command(
                Path::new(&format!("{}@{target}", out.display())),
                &["--persist"],
                &scratch,
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
        );
        let began = Instant::now();
        while inode_of(&new).is_none()
            && inode_of(&disk) == inode
            && began.elapsed() < Duration::from_secs(20)
            && child.0.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(delay));
        drop(child);
        tool::run(image::builder().arg("verify").arg(&disk));
        if inode_of(&disk) == inode {
            (cut, delay) = (cut + 1, delay + 4);
        } else {
            (target, delay) = (3 - target, 0);
        }
        if cut == 5 {
            break;
        }
    }
    assert!(
        cut > 0,
        "no power cut came before the new disk was in place"
    );
    let updated = boot(&out, &["--persist"], &scratch);
    assert!(
        updated.code == Some(0) && updated.console.contains("tiny: image tiny 2"),
        "{}\n{}",
        updated.said,
        updated.console
    );
    assert!(
        updated.console.contains("tiny: counter ")
            && !updated.console.contains("tiny: counter 1\r"),
        "{}",
        updated.console
    );
    // Back to the older version, which OUT still holds.
    let back = boot(
        Path::new(&format!("{}@1", out.display())),
        &["--persist"],
        &scratch,
    );
    assert!(
        back.code == Some(0) && back.console.contains("tiny: image tiny 1"),
        "{}\n{}",
        back.said,
        back.console
    );

    // What does not fit is refused with its sizes, and the machine stays as it is.
    let before = tool::run(tool::command("sha256sum").arg(&disk));
    let mut random = alter::Random::new(3);
    let noise: Vec<u8> = (0..500_000)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    let (_, built, said) = build(&scratch, "3", noise, &[]);
    assert!(built, "{said}");
    let large = boot(&out, &["--persist"], &scratch);
    assert!(
        large.code == Some(1)
            && large.said.contains("the root has ")
            && large.said.contains(" MiB, its partition "),
        "{:?} {}",
        large.code,
        large.said
    );
    assert_eq!(tool::run(tool::command("sha256sum").arg(&disk)), before);

    // One run at a time, and deleted only by somebody who says so.
    let old = format!("{}@2", out.display());
    let running = Running(
        command(
            Path::new(&old),
            &["--persist", "--append", "tiny.stay"],
            &scratch,
        )
        .stderr(Stdio::null())
        .spawn()
        .unwrap(),
    );
    let began = Instant::now();
    while !fs::read(scratch.join("console"))
        .is_ok_and(|bytes| tool::lossy(&bytes).contains("tiny: image"))
        && began.elapsed() < Duration::from_secs(120)
    {
        std::thread::sleep(Duration::from_millis(100));
    }
    let second = tool::output(&mut command(Path::new(&old), &["--persist"], &scratch));
    assert!(
        second.status.code() == Some(1)
            && tool::lossy(&second.stderr).contains("this persisted machine is running already"),
        "{second:?}"
    );
    drop(running);
    let asked = boot(Path::new(&old), &["--reset"], &scratch);
    assert!(
        asked.code == Some(1) && asked.said.contains("add --yes") && disk.exists(),
        "{}",
        asked.said
    );
    counter(&boot(Path::new(&old), &["--reset", "--yes"], &scratch), 1);
}

#[test]
fn with_several_versions_in_out_every_command_takes_the_newest_or_the_named_one() {
    let scratch = Scratch::new("boot-versions");
    for (version, greeting) in [("1.9", "one"), ("1.10", "two")] {
        let (_, built, said) = build(&scratch, version, greeting, &[]);
        assert!(built, "{said}");
    }
    let out = scratch.join("out");
    let hash = |version: &str| {
        fs::read_to_string(out.join(format!("tiny_{version}.roothash")))
            .unwrap()
            .trim()
            .to_owned()
    };
    let say = |verb: &str, targets: &[String]| {
        let output = tool::output(image::builder().arg(verb).args(targets));
        (
            output.status.success(),
            format!(
                "{}{}",
                tool::lossy(&output.stdout),
                tool::lossy(&output.stderr)
            ),
        )
    };
    let (dir, old) = (out.display().to_string(), format!("{}@1.9", out.display()));
    for (target, version) in [
        (&dir, "1.10"),
        (&old, "1.9"),
        (&format!("{dir}/tiny_1.9.manifest.json"), "1.9"),
    ] {
        let (done, said) = say("verify", std::slice::from_ref(target));
        assert!(done && said.contains(&hash(version)), "{target}: {said}");
    }
    assert!(
        say("verify", std::slice::from_ref(&dir))
            .1
            .contains("taking 1.10, the newest")
    );
    let (_, said) = say("inspect", std::slice::from_ref(&dir));
    assert!(
        said.contains("tiny_1.10_verity") && !said.contains("tiny_1.9_verity"),
        "{said}"
    );
    let (_, said) = say("inspect", std::slice::from_ref(&old));
    assert!(said.contains("tiny_1.9_verity"), "{said}");
    let (done, said) = say("diff", &[old, dir.clone()]);
    assert!(
        done && said.contains(" blocks are new: ") && !said.starts_with("0 of "),
        "{said}"
    );
    let (done, said) = say("diff", &[format!("{dir}@2"), dir]);
    assert!(
        !done
            && said.contains("no image with version 2")
            && said.contains("it holds tiny_1.10, tiny_1.9"),
        "{said}"
    );
}
