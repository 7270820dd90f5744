//! Programs that cannot be started: init, the tools for volumes, and what units run.

use object::elf::{EM_386, EM_AARCH64};

use crate::rootfs::check::samples::{Program, found, found_with, put, summaries};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The one finding about init, or none.
fn init(changes: &[(&str, &str)], program: Program, more: &[(&str, Program)]) -> Vec<String> {
    summaries(&found_with("", changes, |tree| {
        put(tree, "/usr/lib/systemd/systemd", program.bytes());
        for (path, program) in more {
            put(tree, path, program.bytes());
        }
    }))
}

fn cannot_run(why: &str) -> Vec<String> {
    vec![format!(
        "error init-cannot-run: the image's init /sbin/init (which is /usr/lib/systemd/systemd) cannot run: {why}"
    )]
}

#[test]
fn an_init_without_its_loader_or_a_library_is_refused_with_the_missing_file() {
    let dynamic = Program {
        loader: Some(LOADER),
        needed: &["libc.so.6", "libcore.so"],
        runpath: Some("$ORIGIN/private"),
        ..Program::default()
    };
    let library = Program {
        soname: Some("libc.so.6"),
        ..Program::default()
    };
    let core = Program {
        needed: &["libc.so.6", "libdeep.so"],
        ..Program::default()
    };
    let deep = Program::default();
    let links = [
        ("/lib64", "-> usr/lib64"),
        ("/lib", "-> usr/lib"),
        ("/usr/lib64/", ""),
    ];
    let loader = ("/usr/lib64/ld-linux-x86-64.so.2", Program::default());
    let libc = ("/usr/lib/x86_64-linux-gnu/libc.so.6", library);
    let (core, deep) = (
        ("/usr/lib/systemd/private/libcore.so", core),
        ("/usr/lib/systemd/private/libdeep.so", deep),
    );
    assert_eq!(
        init(&links, dynamic, &[]),
        cannot_run("its dynamic loader /lib64/ld-linux-x86-64.so.2 is not in the image")
    );
    assert_eq!(
        init(&links, dynamic, &[loader, core]),
        cannot_run("the library libc.so.6 is not in the image")
    );
    assert_eq!(
        init(&links, dynamic, &[loader, libc, core]),
        cannot_run(
            "the library libdeep.so, which /usr/lib/systemd/private/libcore.so needs, is not in the image"
        )
    );
    // DT_RUNPATH is for what the program itself needs, not for what its libraries need.
    assert_eq!(
        init(&links, dynamic, &[loader, libc, core, deep]),
        cannot_run(
            "the library libdeep.so, which /usr/lib/systemd/private/libcore.so needs, is not found: the dynamic loader does not search \
             /usr/lib/systemd/private/libdeep.so"
        )
    );
    let inherited = Program {
        rpath: dynamic.runpath,
        runpath: None,
        ..dynamic
    };
    assert_eq!(
        init(&links, inherited, &[loader, libc, core, deep]),
        [""; 0]
    );
    // A library of another machine is passed over.
    let other = (
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        Program {
            machine: EM_AARCH64,
            ..library
        },
    );
    assert_eq!(
        init(&links, inherited, &[loader, other, core, deep]).len(),
        1
    );
    let musl = Program {
        loader: Some("/lib/ld-musl-x86_64.so.1"),
        needed: &["libc.musl-x86_64.so.1", "libpthread.so.0", "libz.so.1"],
        ..Program::default()
    };
    assert_eq!(
        init(&links, musl, &[]),
        cannot_run("its dynamic loader /lib/ld-musl-x86_64.so.1 is not in the image")
    );
    let musl_loader = ("/usr/lib/ld-musl-x86_64.so.1", Program::default());
    assert_eq!(
        init(&links, musl, &[musl_loader]),
        cannot_run("the library libz.so.1 is not in the image")
    );
    assert_eq!(
        init(
            &links,
            musl,
            &[
                musl_loader,
                ("/usr/local/lib/libz.so.1", Program::default())
            ]
        ),
        [""; 0]
    );
}

#[test]
fn a_library_that_only_the_cache_lists_is_found_there() {
    let program = Program {
        loader: Some(LOADER),
        needed: &["libx.so"],
        ..Program::default()
    };
    let files = [
        ("/usr/local/lib/libx.so", Program::default()),
        (LOADER, Program::default()),
    ];
    assert_eq!(
        init(&[], program, &files),
        cannot_run(
            "the library libx.so is not found: the dynamic loader does not search /usr/local/lib/libx.so"
        )
    );
    let cache = [(
        "/etc/ld.so.cache",
        "glibc-ld.so.cache1.1\0\0\0libx.so\0/usr/local/lib/libx.so\0",
    )];
    assert_eq!(init(&cache, program, &files), [""; 0]);
}

#[test]
fn an_init_that_the_kernel_does_not_start_is_refused_with_the_reason() {
    let systemd = "/usr/lib/systemd/systemd";
    for (text, why) in [
        ("", "it is empty"),
        (
            "text\n",
            "it is neither an ELF program nor a script with #!",
        ),
        ("\x7fELF", "it is a damaged ELF program: it is truncated"),
        (
            "#!\n",
            "its #! line names no interpreter that the kernel can read",
        ),
        (
            "#!/usr/bin/no-such-shell -e\necho\n",
            "its interpreter /usr/bin/no-such-shell is not in the image",
        ),
        (
            "#!/bin/sh\r\necho\r\n",
            "its lines end with CR LF, so the kernel looks for an interpreter \"/bin/sh\\r\", which does not exist",
        ),
        (
            "\u{feff}#!/bin/sh\n",
            "it starts with a UTF-8 byte order mark, so the kernel does not see #!",
        ),
        (
            "#!/nested\n",
            "its interpreter /nested cannot run: its interpreter /usr/bin/gone is not in the image",
        ),
        ("#!/plain\n", "its interpreter /plain is not executable"),
        (
            "#!/loop\n",
            "its interpreter /loop cannot run: its path is a symbolic link loop",
        ),
        (
            "#!/self\n",
            "its interpreter is a script whose interpreter is a script, nested deeper than the kernel allows",
        ),
        (
            "#!/tmp/sh\n",
            "its interpreter /tmp/sh cannot run: another file system is mounted over it at /tmp",
        ),
        (
            "#!/var/sh\n",
            "its interpreter /var/sh cannot run: it lies on the volume at /var, which is mounted noexec",
        ),
        (
            "#!/dangling\n",
            "its interpreter /dangling cannot run: the symbolic link /dangling leads to bin/gone, which is not in the image",
        ),
        (
            "#!/proc\n",
            "its interpreter /proc cannot run: another file system is mounted over it at /proc",
        ),
        (
            "#!/usr\n",
            "its interpreter /usr cannot run: it is not a file",
        ),
        (
            "#!/usr/bin/env python3\n",
            "its #! line asks env for python3, which is in none of /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin, /sbin, /bin",
        ),
    ] {
        let changes = [
            (systemd, text),
            ("/nested", "#!/usr/bin/gone\n"),
            ("/plain", "0644:#!/bin/sh\n"),
            ("/loop", "-> loop"),
            ("/self", "#!/self\n"),
            ("/tmp/sh", "ELF"),
            ("/var/sh", "ELF"),
            ("/dangling", "-> bin/gone"),
            ("/usr/bin/env", "ELF"),
        ];
        let told: Vec<_> = summaries(&found("", &changes))
            .into_iter()
            .filter(|line| line.starts_with("error"))
            .collect();
        assert_eq!(told, cannot_run(why), "{text:?}");
    }
    let arm = Program {
        machine: EM_AARCH64,
        ..Program::default()
    };
    assert_eq!(
        init(&[], arm, &[]),
        cannot_run(
            "it is a program for another processor (64-bit Arm), and the image is for x86-64"
        )
    );
    // A header of 64 bits with the number of a 32-bit machine is no program of either.
    assert_eq!(
        init(
            &[],
            Program {
                machine: EM_386,
                ..Program::default()
            },
            &[]
        )
        .len(),
        1
    );
}

#[test]
fn accepts_every_init_that_can_run() {
    let systemd = "/usr/lib/systemd/systemd";
    for changes in [
        &[(systemd, "#!/bin/sh\n")][..],
        &[
            (systemd, "#! /usr/bin/env -S sh -e\n"),
            ("/usr/bin/env", "ELF"),
        ],
        &[(systemd, "#!/usr/bin/env sh\n"), ("/usr/bin/env", "ELF")],
        &[(systemd, "#!bin/sh")],
        &[(systemd, "#!/a\n"), ("/a", "#!/b\n"), ("/b", "#!/bin/sh\n")],
        // A link that leads nowhere is passed over where another init can be started.
        &[("/usr/sbin/init", "-> /nowhere")],
    ] {
        assert_eq!(summaries(&found("", changes)), [""; 0], "{changes:?}");
    }
}

#[test]
fn checks_the_init_of_the_kernel_command_line() {
    let head = |init: &str| format!("kernel = {{ cmdline = \"init=/x {init} -- init=/y\" }}");
    assert_eq!(summaries(&found(&head("init=/bin/sh"), &[])), [""; 0]);
    let findings = summaries(&found(&head("init=/bin/none"), &[]));
    assert_eq!(
        findings,
        [
            "error init-cannot-run: the image's init /bin/none of kernel.cmdline cannot run: it is not in the image"
        ]
    );
}

#[test]
fn names_a_dangling_init_and_a_link_loop() {
    let gone = ("/usr/lib/systemd/systemd", "-");
    for (link, why) in [
        (
            "-> /lib/none",
            "the symbolic link /usr/sbin/init leads to /lib/none, which is not in the image",
        ),
        ("-> init", "its path is a symbolic link loop"),
        ("0644:text", "it is not executable"),
    ] {
        let findings = summaries(&found("", &[gone, ("/usr/sbin/init", link)]));
        assert_eq!(
            findings,
            [format!(
                "error no-init: the image's init /sbin/init cannot run: {why}"
            )]
        );
    }
}

#[test]
fn volume_tools_must_be_able_to_run() {
    let findings = found("", &[("/usr/sbin/mke2fs", "#!/no/such\n")]);
    assert_eq!(
        summaries(&findings),
        [
            "error volume-tool-cannot-run: the volumes need /usr/sbin/mkfs.ext4 (which is /usr/sbin/mke2fs), which cannot run: its interpreter /no/such is not in the image"
        ]
    );
    assert_eq!(
        summaries(&found(
            "volumes = []",
            &[
                ("/usr/sbin/mke2fs", "#!/no/such\n"),
                ("/usr/lib/systemd/system/good.service", "[Service]\n")
            ]
        ))
        .len(),
        1
    );
}

#[test]
fn accepts_programs_on_volumes_with_the_exception_execute() {
    let changes = [
        ("/usr/lib/systemd/systemd", "#!/var/lib/sh\n"),
        ("/var/lib/sh", "ELF"),
    ];
    assert_eq!(found("", &changes).len(), 1);
    let allowed = "[seal]\nlevel = \"guard\"\n[seal.allow]\nexecute = [\"state\"]";
    let errors: Vec<_> = summaries(&found(allowed, &changes))
        .into_iter()
        .filter(|line| line.contains("cannot run"))
        .collect();
    assert_eq!(errors, [""; 0]);
}

#[test]
fn names_scripts_with_windows_line_ends_or_a_byte_order_mark() {
    let changes = [
        ("/usr/local/bin/a", "#!/bin/sh\r\nexit\r\n"),
        ("/opt/b.py", "\u{feff}#!/usr/bin/python3\n"),
        ("/opt/c", "0644:#!/bin/sh\r\n"),
        ("/opt/d", "#!/bin/sh\necho\r\n"),
        ("/usr/share/doc/x/e", "#!/bin/sh\r\n"),
    ];
    assert_eq!(
        summaries(&found("", &changes)),
        [
            "warning script-line-ends: executable scripts whose lines end with CR LF, so the kernel does not find their interpreter: /usr/local/bin/a",
            "warning script-byte-order-mark: executable scripts that start with a UTF-8 byte order mark, so the kernel does not see #!: /opt/b.py",
        ]
    );
}
