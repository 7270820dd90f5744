//! Builds that fail, are killed, or fill the disk.

use super::*;

#[test]
fn a_failed_build_leaves_the_output_as_it_was() {
    let scratch = Scratch::new();
    assert_success(&scratch.build());
    let before = fs::read(scratch.out("t_1.manifest.json")).unwrap();
    let text = fs::read_to_string(scratch.0.path().join("image.toml")).unwrap();
    for (from, to) in [
        ("console=ttyS0", "root=/dev/vda1"),
        ("dir = \"files\"", "dir = \"missing\""),
        ("CONFIG_DM_VERITY=y", "CONFIG_NOTHING=y"),
    ] {
        scratch.write("image.toml", text.replace(from, to).as_bytes());
        let output = scratch.build();
        assert_eq!(output.status.code(), Some(1), "{to}");
        assert_eq!(fs::read(scratch.out("t_1.manifest.json")).unwrap(), before);
        assert_eq!(
            scratch.names(),
            ["agent", "files", "image.toml", "out"],
            "{to}"
        );
    }
}

/// Kills a build at many times, from before its first step to after its last.
#[test]
fn a_kill_at_any_time_leaves_a_complete_output() {
    let scratch = Scratch::new();
    let started = std::time::Instant::now();
    assert_success(&scratch.build());
    let whole = started.elapsed();
    let (mut killed, mut hidden) = (0, 0);
    const KILLS: u32 = 24;
    for n in 0..KILLS {
        scratch.define(&(n + 2).to_string());
        let mut child = scratch
            .adamant("build")
            .arg(scratch.0.path())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * n / (KILLS - 4) + Duration::from_micros(u64::from(n) * 137));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        for (target, whole) in [("out@1", "t_1: OK"), ("out", ": OK")] {
            let text = scratch.verify(target).unwrap();
            assert!(text.contains(whole), "{text}");
        }
        let strays: Vec<String> = scratch
            .names()
            .into_iter()
            .filter(|name| !["agent", "files", "image.toml", "out"].contains(&name.as_str()))
            .collect();
        // Between naming and renaming there is a hidden directory.
        assert!(
            strays.iter().all(|name| name == ".out.adamant-new"),
            "{strays:?}"
        );
        hidden += strays.len();
    }
    assert!(killed > 0, "no kill came in time");
    println!("{killed} of {KILLS} killed, {hidden} hidden directories left to the next build");
    assert_success(&scratch.build());
    assert_eq!(scratch.names(), ["agent", "files", "image.toml", "out"]);
}

#[test]
fn a_full_disk_leaves_the_output_as_it_was() {
    let scratch = Scratch::new();
    scratch.write("run", b"set -e\nmount -t tmpfs -o size=\"$3\" tmpfs \"$1/small\"\n\"$2\" build \"$1\" -o \"$1/small/out\"\nls -A \"$1/small\"\nfor n in 2 3 4 5; do sed -i \"s/^version = .*/version = \\\"$n\\\"/\" \"$1/image.toml\"; \"$2\" build \"$1\" -o \"$1/small/out\" || { echo refused; break; }; done\n\"$2\" verify \"$1/small/out\"\nls -A \"$1/small\"\n");
    fs::create_dir(scratch.0.path().join("small")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh"])
        .arg(scratch.0.path().join("run"))
        .arg(scratch.0.path())
        .arg(env!("CARGO_BIN_EXE_adamant"))
        .arg("12M");
    let output = command
        .env("ADAMANT_AGENT", scratch.0.path().join("agent"))
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    if errors.contains("unshare failed") || errors.contains("permission denied") {
        skip!(Root("mounting"));
    }
    assert!(output.status.success(), "{said}\n{errors}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "out");
    assert!(
        said.contains("refused") && errors.contains("no space left on its file system"),
        "{said}\n{errors}"
    );
    assert!(said.contains("t_1: OK"), "{said}");
    assert_eq!(lines.last(), Some(&"out"));
}
