use super::*;
use adamant_contract::policy::Level;
use adamant_contract::report::{
    FirmwareReport, SealReport, StageName, StageReport, VERSION, VolumeState,
};

pub fn sample() -> BootReport {
    BootReport {
        version: VERSION,
        image_id: "web".to_owned(),
        image_version: "1.0.0".to_owned(),
        root_hash: "ab".repeat(32),
        stages: vec![
            StageReport {
                name: StageName::Early,
                start_us: 1_000_000,
                took_us: 5_250,
            },
            StageReport {
                name: StageName::Locate,
                start_us: 1_005_250,
                took_us: 94_750,
            },
        ],
        volumes: vec![VolumeReport {
            name: "state".to_owned(),
            mount: "/var".to_owned(),
            device: "/dev/vda3".to_owned(),
            bytes: 512 << 20,
            state: VolumeState::Clean,
            kept: vec!["/var/www".to_owned()],
            ..Default::default()
        }],
        seal: SealReport {
            wanted: Level::Guard,
            enforce: Enforce::Require,
            reached: ReachedLevel::Guard,
            enforced: vec![
                "lockdown=integrity".to_owned(),
                "kernel.modules_disabled=1".to_owned(),
            ],
            module_loading: ModuleLoadingReport::Boot,
            since_us: 3_000_000,
            ..Default::default()
        },
        warnings: vec!["A label was \x1b[31mred.".to_owned()],
        ..Default::default()
    }
}

fn good() -> CurrentState {
    let volume = Fill {
        used: 128 << 20,
        size: 480 << 20,
        trouble: None,
        safe: true,
    };
    CurrentState {
        verified: true,
        lockdown: "integrity".to_owned(),
        modules: false,
        volumes: vec![Some(volume)],
        denials: Some(Vec::new()),
        scrub: None,
        idle_services: Vec::new(),
        uptime: 4000,
        clock: 1_700_000_000,
    }
}

fn page(report: &BootReport, now: &CurrentState, colour: bool) -> String {
    render(report, now, &now.problems(report), colour)
}

#[test]
fn the_page_fits_one_screen_and_begins_with_the_root() {
    let text = page(&sample(), &good(), false);
    let start = "root       verified; web 1.0.0, root hash abababab…\nsealed     at level guard for 1 h 6 min (required)\n           modules: none can be loaded until the next boot\nwarnings   1\n";
    assert!(text.starts_with(start), "{text}");
    assert!(
        text.contains(
            "volume     state at /var on /dev/vda3: 128 MiB of 480 MiB, 26 % full; clean\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("boot       100 ms: early 5.2, locate 94\n"),
        "{text}"
    );
    let mut open = sample();
    open.seal.module_loading = ModuleLoadingReport::Image;
    assert!(page(&open, &good(), false).contains("(required)\n           modules: only the image's, on request of the kernel and systemd-udevd\n"));
    assert!(
        text.lines().count() <= 24 && !text.contains('\x1b'),
        "{text}"
    );
    assert!(
        page(&sample(), &good(), true)
            .starts_with("\x1b[32mroot       verified; web 1.0.0, root hash abababab…\x1b[0m\n")
    );
}

#[test]
fn problems_come_before_the_details() {
    let mut report = sample();
    report.seal.reached = ReachedLevel::Lockdown;
    report.seal.missing = vec!["the kernel has no hook bpf".to_owned()];
    let now = CurrentState {
        verified: false,
        lockdown: "none".to_owned(),
        modules: true,
        volumes: vec![None],
        denials: Some(vec![("file_open", 3)]),
        scrub: None,
        idle_services: Vec::new(),
        uptime: 5,
        clock: 0,
    };
    let text = page(&report, &now, false);
    assert!(text.starts_with("root       NOT VERIFIED"), "{text}");
    assert!(text.contains("sealed     at level lockdown, NOT at guard (required)\n           not in force: the kernel has no hook bpf\n"), "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("PROBLEM "))
            .count(),
        5,
        "{text}"
    );
    assert!(
        text.contains("The volume state at /var is not mounted.") && text.contains("NOT MOUNTED"),
        "{text}"
    );
    // A level that is only preferred is reported, but is no problem.
    report.seal.enforce = Enforce::Prefer;
    let now = good();
    assert_eq!(now.problems(&report), [""; 0]);
}

#[test]
fn an_expired_certificate_is_a_problem_only_after_its_last_second() {
    let mut report = sample();
    report.signature.signer = Some("us".to_owned());
    report.signature.valid_until = 1_700_000_000;
    let now = good();
    assert_eq!(now.problems(&report), [""; 0]);
    report.signature.valid_until -= 3 * 86_400;
    let problems = now.problems(&report);
    assert!(
        problems.len() == 1
            && problems[0].starts_with("The certificate of us, which signed this image, expired 3 days ago. The server still starts."),
        "{problems:?}"
    );
    // Nothing was signed.
    report.signature.signer = None;
    assert_eq!(now.problems(&report), [""; 0]);
}

#[test]
fn without_secure_boot_the_page_says_what_an_attacker_can_replace() {
    let mut report = sample();
    for (uefi, secure_boot, words) in [
        (true, Some(true), "Secure Boot is on"),
        (true, Some(false), "Secure Boot is OFF: an attacker"),
        (false, None, "not UEFI"),
    ] {
        report.firmware = FirmwareReport {
            uefi,
            secure_boot,
            ..Default::default()
        };
        assert!(
            page(&report, &good(), false).contains(&format!("firmware   {words}")),
            "{words}"
        );
    }
}
