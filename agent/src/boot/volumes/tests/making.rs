//! Tests of finding, making, checking and growing volumes.

use super::*;

#[test]
fn first_boot_makes_and_seeds_volumes_and_second_boot_keeps_them() {
    let Some(server) = Server::new("first", 32, 16, 51 * MIB) else {
        return;
    };
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["made", "made"], 0)
        );
        assert_eq!(
            fs::read_to_string(booted.path("var/lib/app/config")).unwrap(),
            "from the image\n"
        );
        assert_eq!(mode(&booted.path("var/cache")), 0o2770);
        assert!(booted.path("var/log/journal").is_dir() && booted.path("var/log/README").is_file());
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for mount in ["var", "var/log"] {
            let line = mounts
                .lines()
                .find(|line| line.contains(&format!(" {} ", booted.path(mount).display())))
                .unwrap();
            assert!(
                line.contains("rw,nosuid,nodev,noexec") && line.contains(" ext4 "),
                "{line}"
            );
        }
        fs::write(booted.path("var/lib/app/config"), "changed\n").unwrap();
        fs::write(booted.path("var/log/line"), "kept\n").unwrap();
        fs::remove_file(booted.path("var/log/README")).unwrap();
    });
    assert!(
        server
            .table()
            .table
            .partitions
            .iter()
            .flatten()
            .all(|p| p.attributes & ATTR_MAKING == 0)
    );
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["clean", "clean"], 0)
        );
        assert_eq!(
            fs::read_to_string(booted.path("var/lib/app/config")).unwrap(),
            "changed\n"
        );
        assert_eq!(
            fs::read_to_string(booted.path("var/log/line")).unwrap(),
            "kept\n"
        );
        assert!(
            !booted.path("var/log/README").exists(),
            "the same image does not seed again"
        );
        assert!(booted.volumes().iter().all(|v| v.seeded == 0));
    });
}

#[test]
fn a_directory_of_the_agent_that_was_made_unusable_is_made_usable_again() {
    let Some(server) = Server::new("unusable", 32, 16, 51 * MIB) else {
        return;
    };
    server.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    // The flags are: extents, immutable.
    for (inode, field, value) in [
        ("/.adamant", "uid", "7"),
        ("/.adamant", "gid", "8"),
        ("/.adamant", "mode", "040777"),
        ("/.adamant", "flags", "0x80010"),
        ("<2>", "flags", "0x80010"),
    ] {
        server.set_inode_field("state", inode, field, value);
    }
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["clean", "clean"], 0)
        );
        let own = fs::metadata(booted.path("var/.adamant")).unwrap();
        assert_eq!((own.uid(), own.gid(), own.mode() & 0o7777), (0, 0, 0o700));
        fs::write(booted.path("var/.adamant/test"), "").unwrap();
    });
}

#[test]
fn always_checks_a_volume_whose_superblock_is_not_to_be_trusted() {
    let Some(mut server) = Server::new("always", 32, 16, 51 * MIB) else {
        return;
    };
    server.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    // Somebody with access to the disk changes an inode and leaves the superblock clean.
    server.set_inode_field("logs", "<2>", "links_count", "77");
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
    server.volumes[1].check = VolumeCheck::Always;
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "repaired"]));
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
    // Without the programs, nothing decides whether the file system is sound.
    server.has_programs = false;
    server.boot(|booted| {
        assert!(
            booted.failure().contains("\"logs\""),
            "{}",
            booted.failure()
        );
    });
}

#[test]
fn checks_only_volumes_that_were_not_unmounted_cleanly() {
    let Some(mut server) = Server::new("in-order", 32, 16, 51 * MIB) else {
        return;
    };
    server.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    server.has_programs = false;
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["clean", "clean"], 0)
        )
    });
    // s_state of a file system without errors that was not unmounted.
    server.write_in("logs", 1024 + 0x3a, &[0, 0]);
    server.boot(|booted| {
        assert!(
            booted.failure().contains("\"logs\"") && booted.failure().contains("e2fsprogs"),
            "{}",
            booted.failure()
        )
    });
}

#[test]
fn shares_disk_space_at_first_boot_and_gives_later_growth_to_the_last_volume() {
    let Some(mut server) = Server::new("grow", 16, 16, 100 * MIB) else {
        return;
    };
    server.volumes[0].weight = 3;
    server.boot(|booted| {
        assert_eq!(booted.states(), ["made", "made"]);
        // 98 MiB from the second to before the last MiB; 66 of them free.
        let bytes: Vec<u64> = booted.volumes().iter().map(|v| v.bytes).collect();
        assert_eq!(bytes, [(16 + 48) * MIB, (16 + 17) * MIB]);
        fs::write(booted.path("var/lib/data"), vec![7; 3 << 20]).unwrap();
        fs::write(booted.path("var/log/data"), vec![8; 3 << 20]).unwrap();
    });
    let places = (server.place("state"), server.place("logs"));
    server.grow_disk(400 * MIB);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["clean", "clean"]);
        assert_eq!(
            (booted.volumes()[0].grown_by, booted.volumes()[1].grown_by),
            (0, 300 * MIB)
        );
        assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 3 << 20]);
        assert!(fs::read(booted.path("var/log/data")).unwrap() == vec![8; 3 << 20]);
        if !may_resize() {
            assert!(
                booted
                    .warnings
                    .iter()
                    .all(|w| w.contains("could not be grown"))
                    && booted.warnings.len() == 1,
                "{:?}",
                booted.warnings
            );
            return;
        }
        assert_eq!(booted.warnings.len(), 0);
        let size = nix::sys::statvfs::statvfs(&booted.path("var/log")).unwrap();
        assert!(
            size.blocks() * size.fragment_size() > 290 * MIB,
            "the file system grew with it"
        );
    });
    assert_eq!(
        (server.place("state"), server.place("logs").0),
        (places.0, places.1.0),
        "nothing has moved"
    );
    assert_eq!(server.table().repairs, Vec::<String>::new());
    tool("sgdisk", &["-v", server.disk.path()]);
    server.boot(|booted| {
        assert_eq!(
            (booted.volumes()[1].grown_by, booted.states()),
            (0, vec!["clean", "clean"])
        )
    });
}

#[test]
fn works_on_a_disk_with_4096_byte_sectors() {
    let Some(server) = Server::with_sector(4096, "large-sectors", 16, 16, 60 * MIB) else {
        return;
    };
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["made", "made"], 0)
        );
        assert_eq!(
            booted.volumes().iter().map(|v| v.bytes).collect::<Vec<_>>(),
            [(16 + 12) * MIB, (16 + 13) * MIB]
        );
    });
    server.grow_disk(70 * MIB);
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.volumes()[1].grown_by),
            (vec!["clean", "clean"], 10 * MIB)
        )
    });
    assert_eq!(server.table().repairs, Vec::<String>::new());
}

#[test]
fn makes_a_volume_again_whose_making_was_interrupted() {
    let Some(server) = Server::new("cut", 16, 16, 60 * MIB) else {
        return;
    };
    let mut table = server.table().table;
    table.partitions[1].as_mut().unwrap().attributes |= ATTR_MAKING;
    server.set_table(&table);
    server.write_in("state", 0, &vec![0xaa; 5 << 20]);
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["made", "made"], 0)
        )
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn refuses_a_missing_an_ambiguous_and_a_wrongly_typed_partition() {
    let Some(server) = Server::new("match", 16, 16, 40 * MIB) else {
        return;
    };
    let table = server.table().table;
    let changed = |label: &str, kind: Guid, why: &str| {
        let mut table = table.clone();
        let partition = table.partitions[2].as_mut().unwrap();
        (partition.label, partition.kind) = (label.to_owned(), kind);
        server.set_table(&table);
        server.boot(|booted| assert!(booted.failure().contains(why), "{}", booted.failure()));
    };
    changed("other", gpt::LINUX_GENERIC, "volume \"logs\" on /dev/loop");
    changed("other", gpt::LINUX_GENERIC, "no partition has this label");
    changed(
        "logs",
        gpt::SRV,
        "partition 3 has this label but not type 0fc63daf",
    );
    changed("state", gpt::VAR, "partitions 2 and 3 all have this label");
}

#[test]
fn repairs_a_damaged_partition_table_from_its_backup() {
    let Some(server) = Server::new("table", 16, 16, 35 * MIB) else {
        return;
    };
    server.boot(|_| ());
    server.disk.write(512, &[0; 8192]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["clean", "clean"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("partition table") && w.contains("at the start is not intact")),
            "{:?}",
            booted.warnings
        );
    });
    assert_eq!(server.table().repairs, Vec::<String>::new());
}

#[test]
fn follows_no_symbolic_link_out_of_a_hostile_volume() {
    let Some(server) = Server::new("hostile", 16, 16, 35 * MIB) else {
        return;
    };
    let outside = Folder::new("hostile-outside");
    server.boot(|booted| {
        umount2(&booted.path("var/log"), MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(booted.path("var/log")).unwrap();
        symlink(outside.path(), booted.path("var/log")).unwrap();
        fs::remove_dir_all(booted.path("var/lib")).unwrap();
        symlink(outside.path(), booted.path("var/lib")).unwrap();
        fs::remove_dir_all(booted.path("var/.adamant")).unwrap();
        symlink(outside.path(), booted.path("var/.adamant")).unwrap();
        // So that the teardown finds the mounts.
        fs::remove_file(booted.path("var/log")).unwrap();
        fs::create_dir(booted.path("var/log")).unwrap();
        mount(
            Some("none"),
            &booted.path("var/log"),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    });
    server.boot(|booted| {
        assert_eq!(booted.states(), ["clean", "clean"]);
        assert!(
            fs::symlink_metadata(booted.path("var/lib"))
                .unwrap()
                .is_symlink(),
            "what is there wins"
        );
        umount2(&booted.path("var/log"), MntFlags::empty()).unwrap();
        fs::remove_dir_all(booted.path("var/log")).unwrap();
        symlink(outside.path(), booted.path("var/log")).unwrap();
        mount(
            Some("none"),
            outside.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    });
    server.boot(|booted| {
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("not a directory and is now log.not-a-folder")),
            "{:?}",
            booted.warnings
        );
        assert!(booted.path("var/log/README").exists());
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
