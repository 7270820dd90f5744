//! Tests of seeding as a part of the stage.

use super::*;

#[test]
fn boots_with_a_full_log_volume() {
    let Some(server) = Server::new("full", 32, 16, 51 * MIB) else {
        return;
    };
    fs::write(server.image.path().join("var/log/huge"), vec![1; 40 << 20]).unwrap();
    for _ in 0..2 {
        server.boot(|booted| {
            assert_eq!(booted.volumes().len(), 2);
            let warned = |w: &String| {
                w.starts_with("Volume \"logs\" lacks 1 of the units")
                    && w.contains("/var/log/huge: no room: 41943040 bytes")
            };
            assert!(booted.warnings.iter().any(warned), "{:?}", booted.warnings);
            assert!(
                !booted.path("var/log/huge").exists()
                    && !booted.path("var/log/.adamant/seeding").exists(),
                "whole or not at all"
            );
            assert!(
                booted.path("var/log/README").exists()
                    && booted.volumes()[1].lacking == ["/var/log/huge"],
                "the others were seeded"
            );
            fs::write(booted.path("var/lib/app/state"), vec![1; 1 << 20]).unwrap();
        });
    }
    fs::remove_file(server.image.path().join("var/log/huge")).unwrap();
    server.boot(|booted| {
        assert!(booted.path("var/log/README").exists());
        assert!(booted.warnings.is_empty());
        // Full to the last block: a new image only causes a warning.
        let _ = fs::write(booted.path("var/log/filler"), vec![1; 16 << 20]);
        fs::remove_file(booted.path("var/log/.adamant/seeded")).unwrap();
        let _ = fs::write(booted.path("var/log/filler2"), vec![1; 16 << 20]);
        assert!(fs::write(booted.path("var/lib/app/state"), vec![2; 1 << 20]).is_ok());
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn seeds_what_fits_and_the_rest_once_there_is_room() {
    let Some(server) = Server::new("fits", 24, 16, 43 * MIB) else {
        return;
    };
    let app = server.image.path().join("var/lib/app");
    fs::write(app.join("model"), vec![1; 40 << 20]).unwrap();
    fs::create_dir(server.image.path().join("var/lib/many")).unwrap();
    for number in 0..10_000 {
        fs::write(
            server.image.path().join(format!("var/lib/many/{number}")),
            "x",
        )
        .unwrap();
    }
    fs::create_dir(server.image.path().join("var/lib/other")).unwrap();
    fs::write(
        server.image.path().join("var/lib/other/needed"),
        "a service does not start without this\n",
    )
    .unwrap();
    // 40 MB of zeros take no space.
    fs::write(server.image.path().join("var/zeros"), vec![0; 40 << 20]).unwrap();
    for start in 0..2 {
        server.boot(|booted| {
            assert_eq!(
                booted.volumes()[0].lacking,
                ["/var/lib/many", "/var/lib/app"],
                "{:?}",
                booted.warnings
            );
            let rest = if start == 0 {
                "the others were seeded"
            } else {
                "nothing was seeded at this boot"
            };
            let warned = |w: &String| {
                w.starts_with("Volume \"state\" lacks 2 of the units")
                    && w.contains(rest)
                    && w.contains("10001 inodes are needed")
            };
            assert!(booted.warnings.iter().any(warned), "{:?}", booted.warnings);
            assert_eq!(
                fs::metadata(booted.path("var/lib/other/needed"))
                    .unwrap()
                    .len(),
                38
            );
            assert_eq!(
                fs::metadata(booted.path("var/zeros")).unwrap().len(),
                40 << 20
            );
            assert!(!booted.path("var/lib/app").exists() && !booted.path("var/lib/many").exists());
        });
    }
    fs::remove_file(app.join("model")).unwrap();
    server.boot(|booted| {
        assert_eq!(booted.volumes()[0].lacking, ["/var/lib/many"]);
        assert!(booted.path("var/lib/app/config").exists());
    });
}

#[test]
fn shows_the_running_image_s_package_list_and_pages_after_update_and_rollback() {
    let Some(mut server) = Server::new("update", 24, 16, 43 * MIB) else {
        return;
    };
    let write = |server: &Server, version: &str| {
        for (folder, name) in [
            ("var/lib/dpkg", "status"),
            ("var/www", "index.html"),
            ("var/lib/mine", "data"),
            ("var/lib/apt", "extended_states"),
        ] {
            fs::create_dir_all(server.image.path().join(folder)).unwrap();
            fs::write(server.image.path().join(folder).join(name), version).unwrap();
        }
    };
    let read = |booted: &Booted, path: &str| fs::read_to_string(booted.path(path)).unwrap();
    write(&server, "1");
    // An earlier image put the list on the volume.
    server.image_data = vec!["/var/lib/apt/extended_states".to_owned()];
    server.boot(|booted| assert_eq!(read(booted, "var/lib/dpkg/status"), "1"));
    server.image_data = vec![
        "/var/lib/dpkg".to_owned(),
        "/var/lib/apt/extended_states".to_owned(),
    ];
    for (version, replaced) in [("2", 2), ("3", 1), ("2", 1)] {
        write(&server, version);
        server.mark = format!("web {version} hash{version}\n");
        server.boot(|booted| {
            for path in ["var/lib/dpkg/status", "var/lib/apt/extended_states"] {
                assert_eq!(read(booted, path), version);
                assert_eq!(
                    fs::write(booted.path(path), "x")
                        .unwrap_err()
                        .raw_os_error(),
                    Some(nix::libc::EROFS)
                );
            }
            assert_eq!(read(booted, "var/www/index.html"), version);
            let state = &booted.volumes()[0];
            if replaced == 2 {
                fs::write(booted.path("var/lib/mine/data"), "mine").unwrap();
            } else {
                // A rollback to the seeded version does not report files as kept.
                let kept = if version == "3" {
                    vec!["/var/lib/mine".to_owned()]
                } else {
                    Vec::new()
                };
                let warned = booted
                    .warnings
                    .iter()
                    .any(|w| w.contains("/var/lib/mine") && w.contains("stay as they are"));
                assert_eq!(
                    (
                        &state.kept,
                        warned,
                        read(booted, "var/lib/mine/data").as_str()
                    ),
                    (&kept, !kept.is_empty(), "mine")
                );
            }
            assert!(state.replaced >= replaced, "{:?}", state);
        });
        let again = |booted: &Booted| {
            assert_eq!(
                (
                    booted.volumes()[0].replaced,
                    booted.volumes()[0].seeded,
                    booted.warnings.len()
                ),
                (0, 0, 0)
            )
        };
        server.boot(again);
    }
}

#[test]
fn a_link_in_an_immutable_directory_does_not_keep_the_image_s_data_from_its_path() {
    let Some(mut server) = Server::new("link-above", 24, 16, 43 * MIB) else {
        return;
    };
    let linger = "var/lib/systemd/linger";
    fs::create_dir_all(server.image.path().join(linger)).unwrap();
    server.boot(|booted| {
        fs::rename(booted.path("var/lib/systemd"), booted.path("var/lib/old")).unwrap();
        fs::create_dir_all(booted.path("var/lib/other/linger")).unwrap();
        fs::write(booted.path("var/lib/other/linger/root"), "").unwrap();
        symlink("other", booted.path("var/lib/systemd")).unwrap();
    });
    // The flags are: extents, immutable.
    server.set_inode_field("state", "/lib", "flags", "0x80010");
    server.image_data = vec![["/", linger].concat()];
    server.boot(|booted| {
        assert_eq!(fs::read_dir(booted.path(linger)).unwrap().count(), 0);
        let written = fs::write(booted.path(linger).join("root"), "");
        assert_eq!(written.unwrap_err().raw_os_error(), Some(nix::libc::EROFS));
        let aside = booted.path("var/lib/systemd.not-a-folder");
        assert!(fs::symlink_metadata(aside).unwrap().is_symlink());
        let warned = |w: &String| w.contains("that is now systemd.not-a-folder");
        assert!(booted.warnings.iter().any(warned), "{:?}", booted.warnings);
    });
}
