//! Tests of damaged volumes: repair, evidence and replacement.

use super::*;

#[test]
fn overwrites_foreign_data_only_if_the_policy_allows_it() {
    let Some(mut server) = Server::new("foreign", 16, 160, 179 * MIB) else {
        return;
    };
    let noise: Vec<u8> = (0..3u32 << 20)
        .map(|n| (n.wrapping_mul(2654435761) >> 13) as u8)
        .collect();
    server.write_in("state", 0, &noise);
    server.boot(|booted| {
        let line = booted.failure();
        assert!(
            line.contains("adamant: volumes: volume \"state\"")
                && line.contains("data of an unknown kind")
                && line.contains("recreate"),
            "{line}"
        );
    });
    let mut there = vec![0; noise.len()];
    server
        .file()
        .read_exact_at(&mut there, server.place("state").0)
        .unwrap();
    assert!(there == noise);
    // No work was begun: `logs` is still blank. Once it is sound, the evidence is saved on it.
    let damaged = std::mem::replace(&mut server.volumes[0], volume("logs", "/var/log"));
    server.volumes.truncate(1);
    server.boot(|booted| assert_eq!(booted.states(), ["made"]));
    server.volumes.insert(0, damaged);
    server.volumes[0].on_damage = OnDamage::Recreate;
    server.boot(|booted| {
        assert_eq!(booted.states(), ["recreated", "clean"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("state") && w.contains("/var/log/.adamant/damaged/state-")),
            "{:?}",
            booted.warnings
        );
        let kept = fs::read_dir(booted.path("var/log/.adamant/damaged"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let kept = fs::read(kept.path()).unwrap();
        assert!(kept.windows(4096).any(|w| w == &noise[..4096]));
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn keeps_a_complete_damaged_volume_if_the_disk_has_room() {
    let Some(mut server) = Server::new("aside", 16, 16, 120 * MIB) else {
        return;
    };
    for volume in &mut server.volumes {
        (volume.weight, volume.on_damage) = (0, OnDamage::Recreate);
    }
    server.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    let (start, length) = server.place("state");
    server.write_in("state", 0, &vec![0x55; length as usize]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["recreated", "clean"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("kept completely as partition 2 (damaged-state)")),
            "{:?}",
            booted.warnings
        );
        assert!(booted.path("var/lib/app/config").exists());
    });
    assert_eq!(server.place("damaged-state"), (start, length));
    let mut byte = [0; 1];
    server
        .file()
        .read_exact_at(&mut byte, start + length - 1)
        .unwrap();
    assert_eq!(byte, [0x55]);
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn saves_evidence_of_the_only_volume_in_its_new_file_system() {
    let Some(mut server) = Server::new("lone", 200, 1, 204 * MIB) else {
        return;
    };
    server.volumes.truncate(1);
    server.volumes[0].on_damage = OnDamage::Recreate;
    server.write_in("state", 0, &[0x5a; 70000]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["recreated"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("it holds data of an unknown kind")),
            "{:?}",
            booted.warnings
        );
        assert_eq!(
            fs::read_dir(booted.path("var/.adamant/damaged"))
                .unwrap()
                .count(),
            1
        );
    });
}

#[test]
fn repairs_a_destroyed_superblock_from_its_copy_without_losing_data() {
    for (name, size) in [("super-small", 16), ("super", 300)] {
        let Some(server) = Server::new(name, size, 16, (size + 19) * MIB) else {
            return;
        };
        server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
        for damage in [
            vec![0; 4096],
            (0..1024u32).map(|n| (n * 7 % 251) as u8).collect(),
        ] {
            server.write_in(
                "state",
                if damage.len() == 4096 { 0 } else { 1024 },
                &damage,
            );
            server.boot(|booted| {
                assert_eq!(booted.states(), ["repaired", "clean"]);
                assert!(
                    booted
                        .warnings
                        .iter()
                        .any(|w| w.starts_with("Volume \"state\" was repaired")),
                    "{:?}",
                    booted.warnings
                );
                assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
            });
            server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
        }
    }
}

/// The only file of evidence in a volume's directory: the bytes of the damaged volume's start.
fn evidence_in(folder: &Path) -> Vec<u8> {
    let files: Vec<PathBuf> = fs::read_dir(folder.join(".adamant/damaged"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let text = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
    assert!(
        bytes.starts_with(b"adamant: parts of the damaged volume state of "),
        "{}",
        String::from_utf8_lossy(&bytes[..text])
    );
    bytes[text + 2..].to_vec()
}

#[test]
fn saves_evidence_before_a_repair_deletes_data() {
    // The check finds a superblock that only its copy can replace; only mounting finds wrong group
    // descriptors.
    let noise: Vec<u8> = (0..1024u32).map(|n| (n * 7 % 251) as u8 | 1).collect();
    for (name, at, damage) in [
        ("kept-super", 1024, noise),
        ("kept-groups", 4096, vec![0xff; 1024]),
    ] {
        let Some(server) = Server::new(name, 160, 160, 323 * MIB) else {
            return;
        };
        server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
        server.write_in("state", at, &damage);
        server.boot(|booted| {
            assert_eq!(booted.states(), ["repaired", "clean"]);
            let place = "evidence of it is kept as /var/log/.adamant/damaged/state-";
            assert!(
                booted.warnings.iter().any(|w| w.contains(place)),
                "{name}: {:?}",
                booted.warnings
            );
            assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
            assert!(
                evidence_in(&booted.path("var/log"))[at as usize..][..damage.len()] == damage,
                "{name}: what was there before the repair"
            );
        });
        let mut after = vec![0; damage.len()];
        server
            .file()
            .read_exact_at(&mut after, server.place("state").0 + at)
            .unwrap();
        assert!(after != damage, "{name}: the repair took it away");
    }
}

#[test]
fn saves_evidence_of_the_only_volume_on_itself_after_its_repair() {
    let Some(mut server) = Server::new("kept-lone", 200, 1, 204 * MIB) else {
        return;
    };
    server.volumes.truncate(1);
    server.boot(|booted| assert_eq!(booted.states(), ["made"]));
    server.write_in("state", 1024, &[0x5a; 1024]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["repaired"]);
        assert_eq!(evidence_in(&booted.path("var"))[1024..2048], [0x5a; 1024]);
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean"]));
}

#[test]
fn repairs_or_remakes_a_volume_whose_damage_only_mounting_shows() {
    let Some(mut server) = Server::new("mounting", 160, 160, 323 * MIB) else {
        return;
    };
    server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
    // The group descriptors, which `e2fsck -p` does not check in a file system that is marked
    // clean.
    server.write_in("state", 4096, &[0xff; 4096]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["repaired", "clean"]);
        assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
    });
    // Everything but the superblock.
    server.volumes[0].on_damage = OnDamage::Recreate;
    server.write_in("state", 4096, &vec![0x5a; 159 << 20]);
    server.boot(|booted| assert!(["recreated", "repaired"].contains(&booted.states()[0])));
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}
