//! Tests that a volume is not made again, even with `on_damage = "recreate"`, if it is newer than
//! the image, if it can't be read, or if a program failed. They use real file systems that debugfs
//! alters.

use std::fs;
use std::os::unix::fs::FileExt;

use adamant_contract::gpt::{ATTR_MAKING, ATTR_NEVER_USED};
use adamant_contract::policy::OnDamage;

use super::superblock::{OFFSET, SIZE};
use super::tests::{MIB, Server, tool};

/// A server after its first boot, with a data file of bytes 7.
fn server(name: &str, on_damage: OnDamage) -> Option<Server> {
    let mut server = Server::new(name, 24, 16, 43 * MIB)?;
    server.volumes[0].on_damage = on_damage;
    server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
    Some(server)
}

/// Runs debugfs requests on the volume `state`.
fn debug(server: &Server, requests: &[&str]) {
    let (start, length) = server.place("state");
    let path = format!("{}-state", server.disk.path());
    let mut bytes = vec![0; length as usize];
    server.file().read_exact_at(&mut bytes, start).unwrap();
    fs::write(&path, &bytes).unwrap();
    for request in requests {
        assert!(tool("debugfs", &["-w", "-R", request, &path]));
    }
    server.write_in("state", 0, &fs::read(&path).unwrap());
    fs::remove_file(&path).unwrap();
}

fn content(server: &Server) -> Vec<u8> {
    let (start, length) = server.place("state");
    let mut bytes = vec![0; length as usize];
    server.file().read_exact_at(&mut bytes, start).unwrap();
    bytes
}

/// Marks the file system as not unmounted cleanly.
const DIRTY: &str = "set_super_value state 0";
const RECOVER: &str = "feature needs_recovery";

#[test]
fn mounts_without_a_check_a_volume_with_an_unknown_compatible_feature() {
    for on_damage in [OnDamage::Fail, OnDamage::Recreate] {
        for (name, requests) in [
            ("clean", &["feature FEATURE_C14"][..]),
            ("dirty", &["feature FEATURE_C14", DIRTY]),
            ("recover", &["feature FEATURE_C14", DIRTY, RECOVER]),
        ] {
            let Some(server) = server(&format!("compat-{name}"), on_damage) else {
                return;
            };
            debug(&server, requests);
            server.grow_disk(60 * MIB);
            server.boot(|booted| {
                assert_eq!(booted.states(), ["unchecked", "clean"], "{name}");
                let warning = booted
                    .warnings
                    .iter()
                    .find(|w| w.contains("was mounted without a check"))
                    .unwrap_or_else(|| panic!("{name}: {:?}", booted.warnings));
                assert!(
                    warning.contains("FEATURE_C14") && warning.contains("e2fsck 1."),
                    "{warning}"
                );
                assert!(
                    fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20],
                    "{name}"
                );
            });
        }
    }
}

#[test]
fn names_the_feature_that_the_kernel_lacks_and_leaves_the_volume_unchanged() {
    for on_damage in [OnDamage::Fail, OnDamage::Recreate] {
        for feature in ["FEATURE_I20", "FEATURE_R25"] {
            for (name, more) in [
                ("clean", &[][..]),
                ("dirty", &[DIRTY][..]),
                ("recover", &[DIRTY, RECOVER]),
            ] {
                let Some(server) = server(&format!("{feature}-{name}"), on_damage) else {
                    return;
                };
                let request = format!("feature {feature}");
                debug(&server, &[&[request.as_str()], more].concat());
                let before = content(&server);
                server.boot(|booted| {
                    let line = booted.failure();
                    assert!(
                        line.contains("volume \"state\"")
                            && line.contains(feature)
                            && line.contains("made by newer tools"),
                        "{line}"
                    );
                    assert!(
                        line.contains("start the image that made the volume")
                            && !line.contains("recreate"),
                        "{line}"
                    );
                });
                assert!(
                    before == content(&server),
                    "{feature} {name}: it was written to"
                );
            }
        }
    }
}

/// The journal has feature flags of its own, which the superblock does not show.
#[test]
fn refuses_a_newer_journal_and_leaves_it_unchanged() {
    let Some(server) = server("journal", OnDamage::Recreate) else {
        return;
    };
    debug(&server, &[DIRTY, RECOVER]);
    let before = content(&server);
    let journal = before
        .chunks(4096)
        .position(|block| block[..4] == [0xc0, 0x3b, 0x39, 0x98] && block[7] == 4)
        .unwrap() as u64
        * 4096;
    server.write_in("state", journal + 0x28, &[0, 0x80, 0, 0]);
    let before = content(&server);
    server.boot(|booted| {
        let line = booted.failure();
        assert!(
            line.contains("made by newer tools")
                && line.contains("Journal superblock")
                && !line.contains("recreate"),
            "{line}"
        );
    });
    // e2fsck notes in the superblock that it did not finish.
    let (first, after) = ((OFFSET as usize) + SIZE, content(&server));
    assert!(before[first..] == after[first..], "it was written to");
    server.write_in("state", journal + 0x28, &[0, 0, 0, 0]);
    server
        .boot(|booted| assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]));
}

#[test]
fn checks_volumes_with_features_that_the_image_knows() {
    for features in [
        "metadata_csum_seed",
        "orphan_file",
        "casefold",
        "large_dir",
        "inline_data",
        "project,quota",
        "^metadata_csum,uninit_bg",
        "fast_commit",
        "^has_journal",
    ] {
        let Some(server) = server("known", OnDamage::Recreate) else {
            return;
        };
        let (start, length) = server.place("state");
        let offset = format!("offset={start}");
        let blocks = (length / 4096).to_string();
        if !tool(
            "mkfs.ext4",
            &[
                "-q",
                "-F",
                "-b",
                "4096",
                "-g",
                "2048",
                "-I",
                "256",
                "-O",
                features,
                "-E",
                &offset,
                server.disk.path(),
                &blocks,
            ],
        ) {
            return;
        }
        for requests in [&[][..], &[DIRTY]] {
            debug(&server, requests);
            server.boot(|booted| {
                // A kernel without Unicode or quotas can't mount two of them, which is no damage
                // either.
                if let Err(failure) = &booted.result {
                    let line = failure.to_string();
                    assert!(
                        line.contains("this image's kernel")
                            && !line.contains("recreate")
                            && !line.contains("damaged"),
                        "{features}: {line}"
                    );
                    return;
                }
                assert!(
                    ["clean", "repaired"].contains(&booted.states()[0]),
                    "{features}: {:?} {:?}",
                    booted.states(),
                    booted.warnings
                );
            });
        }
    }
}

#[test]
fn never_concludes_damage_from_a_failing_program() {
    let Some(mut server) = server("failing", OnDamage::Recreate) else {
        return;
    };
    debug(&server, &[DIRTY]);
    let before = content(&server);
    for (script, why) in [
        ("echo the disk is busy; exit 8", "ended with 8"),
        ("exit 16", "ended with 16"),
        ("exit 32", "ended with 32"),
        ("exit 128", "ended with 128"),
        ("exit 127", "can't be run"),
        ("kill -9 $$", "was killed"),
        ("kill -11 $$", "signal 11"),
        (
            "echo Error reading block 7 \\(Input/output error\\); exit 4",
            "Input/output error",
        ),
        (
            "echo fsck.ext4: Memory allocation failed; exit 12",
            "Memory allocation failed",
        ),
        (
            "echo does not describe a valid superblock: Input/output error; exit 8",
            "Input/output error",
        ),
    ] {
        server.fsck = Some(format!("#!/bin/sh\n{script}\n"));
        server.boot(|booted| {
            let line = booted.failure();
            assert!(
                line.contains("volume \"state\"")
                    && line.contains(why)
                    && !line.contains("recreate"),
                "{script}: {line}"
            );
        });
        assert!(before == content(&server), "{script}: it was written to");
    }
    server.fsck = Some("\x7fELF is no program".to_owned());
    server.boot(|booted| {
        assert!(
            booted.failure().contains("fsck.ext4 can't be run"),
            "{}",
            booted.failure()
        )
    });
    server.fsck = None;
    server
        .boot(|booted| assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]));
}

#[test]
fn leaves_a_volume_unchanged_without_e2fsprogs() {
    let Some(mut server) = server("no-programs", OnDamage::Recreate) else {
        return;
    };
    debug(&server, &[DIRTY]);
    let before = content(&server);
    server.has_programs = false;
    server.boot(|booted| {
        assert!(
            booted.failure().contains("put e2fsprogs into the image"),
            "{}",
            booted.failure()
        )
    });
    assert!(before == content(&server));
}

#[test]
fn refuses_another_file_system_with_either_policy() {
    for on_damage in [OnDamage::Fail, OnDamage::Recreate] {
        let Some(server) = server("signature", on_damage) else {
            return;
        };
        server.write_in("state", 0, &vec![0; 24 << 20]);
        server.write_in("state", 0, b"XFSB");
        let before = content(&server);
        server.boot(|booted| {
            let line = booted.failure();
            assert!(
                line.contains("it holds XFS")
                    && line.contains("wipefs")
                    && !line.contains("recreate"),
                "{line}"
            );
        });
        assert!(before == content(&server), "it was written to");
    }
}

#[test]
fn refuses_a_file_system_larger_than_its_partition_and_leaves_it_unchanged() {
    let Some(server) = server("larger", OnDamage::Recreate) else {
        return;
    };
    debug(&server, &["set_super_value blocks_count 10000", DIRTY]);
    let before = content(&server);
    server.boot(|booted| {
        let line = booted.failure();
        assert!(
            line.contains("its file system has 40960000 bytes, the partition only 25165824")
                && !line.contains("recreate"),
            "{line}"
        );
    });
    assert!(before == content(&server), "it was written to");
}

#[test]
fn trusts_no_feature_of_a_corrupted_superblock() {
    let Some(server) = server("corrupted", OnDamage::Fail) else {
        return;
    };
    server.write_in("state", OFFSET + 0x5c, &[0xff; 4]);
    server.boot(|booted| {
        assert_eq!(
            booted.states(),
            ["repaired", "clean"],
            "{:?}",
            booted.warnings
        );
        assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
    });
    assert_eq!(content(&server)[OFFSET as usize..][..SIZE][0x5d] & 0xe0, 0);
}

#[test]
fn clears_the_never_used_mark_before_it_makes_a_file_system() {
    let Some(server) = Server::new("mark", 24, 16, 43 * MIB) else {
        return;
    };
    let mut table = server.table().table;
    for partition in table.partitions.iter_mut().flatten() {
        partition.attributes |= ATTR_NEVER_USED;
    }
    server.set_table(&table);
    let marks = |server: &Server| {
        server
            .table()
            .table
            .partitions
            .iter()
            .flatten()
            .map(|p| p.attributes & (ATTR_NEVER_USED | ATTR_MAKING))
            .collect::<Vec<_>>()
    };
    // Making fails after the table was written.
    let mut failing = server;
    failing.has_programs = false;
    failing.boot(|booted| {
        assert!(
            booted.failure().contains("mkfs.ext4"),
            "{}",
            booted.failure()
        )
    });
    assert_eq!(
        marks(&failing),
        [ATTR_NEVER_USED, ATTR_MAKING, ATTR_MAKING],
        "the root's is not the agent's"
    );
    failing.has_programs = true;
    failing.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    assert_eq!(marks(&failing), [ATTR_NEVER_USED, 0, 0]);
    failing.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn assesses_a_marked_volume_with_data_like_any_other() {
    let Some(mut server) = Server::new("marked", 24, 16, 43 * MIB) else {
        return;
    };
    server.volumes[0].on_damage = OnDamage::Fail;
    let mut table = server.table().table;
    table.partitions[1].as_mut().unwrap().attributes |= ATTR_NEVER_USED;
    server.set_table(&table);
    server.write_in("state", 65536, &[1]);
    server.boot(|booted| {
        assert!(
            booted.failure().contains("data of an unknown kind"),
            "{}",
            booted.failure()
        )
    });
    assert_eq!(content(&server)[65536], 1);
}
