//! `build --check`.

use super::*;

#[test]
fn the_second_build_of_check_uses_the_same_keys() {
    let scratch = Scratch::new();
    let keys = scratch.0.path().join("keys");
    adamant::sign::keys::new(&keys, "test", 1).unwrap();
    let output = scratch
        .adamant("build")
        .args(["--check", "--json", "--keys"])
        .arg(&keys)
        .arg(scratch.0.path())
        .output()
        .unwrap();
    assert_success(&output);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            &document["check"]["identical"],
            &document["manifest"]["signatures"][0]["signed"]
        ),
        (&true.into(), &true.into())
    );
}

/// A source that only root can read is not an error: the second build then runs as the same user.
#[test]
fn check_keeps_the_user_if_another_one_cannot_read_a_source() {
    let scratch = Scratch::new();
    fs::set_permissions(
        scratch.0.path().join("files/usr/share/text"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let document = scratch.check_identical();
    assert!(
        !document["check"]["varied"].to_string().contains("user"),
        "{document}"
    );
}

#[test]
fn an_interrupted_check_removes_its_directory_and_the_next_build_that_of_a_killed_one() {
    let scratch = Scratch::new();
    let strays = || {
        scratch
            .names()
            .into_iter()
            .filter(|name| name.starts_with(".out.adamant-check-"))
            .count()
    };
    // Both builds read this key from a pipe. The test writes it once, for the first build; the
    // second build waits for it until it is ended.
    let keys = scratch.0.path().join("keys");
    adamant::sign::keys::new(&keys, "test", 1).unwrap();
    let pipe = keys.join("verity.key");
    let key = fs::read(&pipe).unwrap();
    let renew = || {
        fs::remove_file(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    };
    renew();
    let wait_for_the_second = |child: &mut Child| loop {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the build ended before the signal"
        );
        // Opening fails while the pipe has no reader.
        match File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
        {
            Ok(held) if strays() > 0 => return held,
            Ok(mut given) => {
                // The next reader opens another pipe, so it does not see the end of this one.
                renew();
                given.write_all(&key).unwrap();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let mut command = scratch.adamant("build");
        // A shell in the background may ignore SIGINT, and children inherit that.
        let heed = || {
            let default = nix::sys::signal::SigHandler::SigDfl;
            // SAFETY: the default action installs no handler.
            let earlier = unsafe { nix::sys::signal::signal(Signal::SIGINT, default) };
            earlier.map(drop).map_err(Into::into)
        };
        // SAFETY: between fork and exec only signal(2) is called, which is async-signal-safe, and
        // installs no handler.
        unsafe { command.pre_exec(heed) };
        let mut child = command
            .arg("--check")
            .arg("--keys")
            .arg(&keys)
            .arg(scratch.0.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _held = wait_for_the_second(&mut child);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal as i32));
        assert_eq!(strays(), usize::from(signal == Signal::SIGKILL), "{signal}");
        // The second build ends shortly after the first.
        let deadline = std::time::Instant::now() + Duration::from_secs(300);
        while strays() > 0 {
            assert!(
                std::time::Instant::now() < deadline,
                "still there after five minutes of builds"
            );
            assert_success(&scratch.build());
        }
        assert_eq!(
            scratch.names(),
            ["agent", "files", "image.toml", "keys", "out"]
        );
    }
}
