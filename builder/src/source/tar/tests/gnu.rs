//! GNU tar archives a tree with every kind of entry in each of its formats. Our reader must return
//! the metadata that the kernel reports.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::libc;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use super::scratch;
use crate::definition::Limits;
use crate::source::{Budget, tar};
use crate::tree::{Kind, Tree, show};

/// Features that only some formats have.
struct Can {
    long: bool,
    fractions: bool,
    attributes: bool,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
    .unwrap();
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let (path, name) = (
        CString::new(path.as_os_str().as_bytes()).unwrap(),
        CString::new(name).unwrap(),
    );
    // SAFETY: both strings end with a NUL, the value has the given length, and all outlive the
    // call.
    let done = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    assert_eq!(
        done,
        0,
        "{path:?} {name:?}: {}",
        std::io::Error::last_os_error()
    );
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0u8; 65536];
    // SAFETY: the path ends with a NUL, and the buffer has the given length.
    let length =
        unsafe { libc::llistxattr(c_path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let names = &names[..usize::try_from(length).unwrap()];
    let mut all: Vec<_> = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let c_name = CString::new(name).unwrap();
            let mut value = vec![0u8; 65536];
            // SAFETY: as above.
            let length = unsafe {
                libc::lgetxattr(
                    c_path.as_ptr(),
                    c_name.as_ptr(),
                    value.as_mut_ptr().cast(),
                    value.len(),
                )
            };
            value.truncate(usize::try_from(length).unwrap());
            (name.to_vec(), value)
        })
        .collect();
    all.sort();
    all
}

fn make(root: &Path, can: &Can) {
    let file = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).unwrap();
    fs::create_dir_all(root.join("deep/er/and/deeper")).unwrap();
    file("empty", b"");
    file("deep/er/one", b"1");
    file("deep/block", &[7; 512]);
    file("deep/more", &[8; 70_000]);
    fs::hard_link(root.join("deep/more"), root.join("again")).unwrap();
    fs::hard_link(root.join("deep/more"), root.join("deep/er/and/again")).unwrap();
    symlink("../deep/more", root.join("deep/link")).unwrap();
    fs::hard_link(root.join("deep/link"), root.join("deep/second-link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    mknod(
        &root.join("fifo"),
        SFlag::S_IFIFO,
        Mode::from_bits_truncate(0o600),
        0,
    )
    .unwrap();
    fs::write(
        root.join(std::ffi::OsString::from_vec(
            b"latin-\xe4\n\x01 name".to_vec(),
        )),
        b"bytes",
    )
    .unwrap();
    fs::write(root.join("p".repeat(99)).with_extension(""), b"just fits").unwrap();
    let folder = root.join("d".repeat(90)).join("e".repeat(60));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("in-prefix"), b"a prefix and a name").unwrap();
    if can.long {
        fs::write(root.join("n".repeat(255)), b"long").unwrap();
        fs::write(folder.join("x".repeat(255)), b"longer").unwrap();
        symlink("t".repeat(4095), root.join("long-link")).unwrap();
        fs::hard_link(root.join("n".repeat(255)), root.join("to-a-long-name")).unwrap();
        let holes = File::create(root.join("holes")).unwrap();
        for piece in 0..60u64 {
            holes
                .write_all_at(&[piece as u8 + 1; 4096], piece * 100_000 / 4096 * 4096)
                .unwrap();
        }
        holes.set_len(20 << 20).unwrap();
        File::create(root.join("nothing-but-a-hole"))
            .unwrap()
            .set_len(5 << 30)
            .unwrap();
        let mut ends = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(root.join("h".repeat(130)))
            .unwrap();
        ends.write_all(b"start").unwrap();
        ends.write_all_at(b"end", 9 << 20).unwrap();
    }
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o7711)).unwrap();
    fs::set_permissions(root.join("deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    if can.attributes {
        set_attribute(&root.join("deep/more"), "user.a=b%c", b"x\0\ny=z");
        set_attribute(&root.join("deep/more"), "user.empty", b"");
        set_attribute(&root.join("deep"), "user.on-a-directory", &[0xff; 1000]);
    }
    if is_root() {
        mknod(
            &root.join("char"),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o620),
            libc::makedev(5, 1),
        )
        .unwrap();
        mknod(
            &root.join("block"),
            SFlag::S_IFBLK,
            Mode::from_bits_truncate(0o660),
            libc::makedev(259, if can.long { 1_000_000 } else { 70_000 }),
        )
        .unwrap();
        std::os::unix::fs::lchown(root.join("dangling"), Some(12), Some(34)).unwrap();
        if can.long {
            std::os::unix::fs::lchown(
                root.join("deep/block"),
                Some(4_000_000_000),
                Some(3_000_000),
            )
            .unwrap();
        }
        if can.attributes {
            set_attribute(&root.join("deep/more"), "trusted.t", b"t");
            set_attribute(
                &root.join("deep/more"),
                "security.capability",
                b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            );
            set_attribute(&root.join("deep/link"), "trusted.on-a-link", b"t");
        }
    }
    set_time(&root.join("dangling"), 1_700_000_000, 0);
    set_time(&root.join("deep/er"), 1, 0);
    if can.long {
        set_time(&root.join("deep/er/one"), -86_400, 0);
        set_time(&root.join("fifo"), 5_000_000_000, 0);
    }
    if can.fractions {
        set_time(&root.join("empty"), 1_600_000_000, 123_456_789);
        set_time(&root.join("deep/block"), -2, 750_000_000);
    }
    set_time(root, 1_234_567_890, 0);
}

/// Compares the tree with the metadata that the kernel reports. Returns the number of entries.
fn compare(tree: &Tree, root: &Path, can: &Can) -> usize {
    let mut entries = vec![(b"/".to_vec(), Tree::ROOT)];
    entries.extend(tree.walk());
    for (path, id) in &entries {
        let node = tree.node(*id);
        let real = root.join(Path::new(std::ffi::OsStr::from_bytes(&path[1..])));
        let metadata =
            fs::symlink_metadata(&real).unwrap_or_else(|e| panic!("{}: {e}", show(path)));
        let what = show(path);
        let (kind, detail_same) = match &node.kind {
            Kind::Directory(names) => (
                libc::S_IFDIR,
                fs::read_dir(&real).unwrap().count() == names.len(),
            ),
            Kind::File(content) => {
                let bytes = File::open(&real).unwrap();
                let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
                let mut same = content.len() == metadata.len();
                // Of the file with a hole of several GiB, only the first 64 MiB.
                for at in (0..content.len().min(64 << 20)).step_by(1 << 20) {
                    let take = (content.len() - at).min(1 << 20) as usize;
                    content.read_exact_at(at, &mut ours[..take]).unwrap();
                    bytes.read_exact_at(&mut theirs[..take], at).unwrap();
                    same &= ours[..take] == theirs[..take];
                }
                (libc::S_IFREG, same)
            }
            Kind::Symlink(target) => (
                libc::S_IFLNK,
                fs::read_link(&real).unwrap().as_os_str().as_bytes() == &**target,
            ),
            Kind::CharDevice { major, minor } => (
                libc::S_IFCHR,
                metadata.rdev() == libc::makedev(*major, *minor),
            ),
            Kind::BlockDevice { major, minor } => (
                libc::S_IFBLK,
                metadata.rdev() == libc::makedev(*major, *minor),
            ),
            Kind::Fifo => (libc::S_IFIFO, true),
            Kind::Socket => (libc::S_IFSOCK, true),
        };
        assert!(
            detail_same,
            "{what}: content, target, names or device differ"
        );
        assert_eq!(metadata.mode() & libc::S_IFMT, kind, "{what}");
        assert_eq!(
            metadata.mode() & 0o7777,
            u32::from(node.meta.mode),
            "{what}"
        );
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (node.meta.uid, node.meta.gid),
            "{what}"
        );
        let nanoseconds = if can.fractions {
            metadata.mtime_nsec()
        } else {
            0
        };
        assert_eq!(
            (metadata.mtime(), nanoseconds),
            (
                node.meta.mtime.seconds,
                i64::from(node.meta.mtime.nanoseconds)
            ),
            "{what}"
        );
        if kind != libc::S_IFDIR {
            assert_eq!(metadata.nlink(), u64::from(node.links), "{what}");
        }
        let ours: Vec<_> = node
            .meta
            .xattrs
            .iter()
            .flat_map(|all| all.iter())
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        let theirs = if can.attributes {
            attributes(&real)
        } else {
            Vec::new()
        };
        assert_eq!(ours, theirs, "{what}");
    }
    entries.len()
}

fn round_trip(arguments: &[&str], can: &Can) {
    let folder = scratch();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    make(&root, can);
    let acls = can.attributes && Command::new("setfacl").arg("--version").output().is_ok();
    if acls {
        // GNU tar always writes the names that this machine knows, so the image must know them,
        // too.
        fs::create_dir(root.join("etc")).unwrap();
        fs::copy("/etc/passwd", root.join("etc/passwd")).unwrap();
        fs::copy("/etc/group", root.join("etc/group")).unwrap();
        for (name, list) in [
            ("deep/more", "u:7:rw,g:4000000:r,m::rwx"),
            ("deep", "u:1:rwx,d:u:2:r,d:g:3:x"),
            ("deep/er", "d:u::rwx,d:g::r,d:o::-"),
        ] {
            let time = fs::metadata(root.join(name)).unwrap();
            assert!(
                Command::new("setfacl")
                    .args(["-m", list])
                    .arg(root.join(name))
                    .status()
                    .unwrap()
                    .success()
            );
            set_time(&root.join(name), time.mtime(), time.mtime_nsec());
        }
    }
    for (packer, suffix) in [
        ("", "tar"),
        ("--gzip", "tar.gz"),
        ("--zstd", "tar.zst"),
        ("--xz", "tar.xz"),
    ] {
        let archive = folder.path().join(format!("a.{suffix}"));
        let mut command = Command::new("tar");
        command
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .args(arguments)
            .args((!packer.is_empty()).then_some(packer))
            .arg(".");
        assert!(command.status().unwrap().success(), "{command:?}");
        let mut tree = Tree::new();
        let loaded = tar::load(
            &mut tree,
            b"/",
            &archive,
            &mut Budget::new(Limits::default()),
            folder.path(),
        )
        .unwrap();
        let entries = compare(&tree, &root, can);
        assert_eq!(entries as u64, loaded.entries);
        assert!(entries > 20);
        let sum = Command::new("sha256sum")
            .arg(&archive)
            .output()
            .unwrap()
            .stdout;
        let ours: String = loaded
            .sha256
            .wait()
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(ours.as_bytes(), &sum[..64]);
    }
}

#[test]
fn reads_ustar_as_gnu_tar_writes_it() {
    round_trip(
        &["--format=ustar"],
        &Can {
            long: false,
            fractions: false,
            attributes: false,
        },
    );
}

#[test]
fn reads_gnu_as_gnu_tar_writes_it() {
    round_trip(
        &["--format=gnu", "--sparse"],
        &Can {
            long: true,
            fractions: false,
            attributes: false,
        },
    );
}

#[test]
fn reads_pax_as_gnu_tar_writes_it() {
    for version in ["0.0", "0.1", "1.0"] {
        let sparse = format!("--sparse-version={version}");
        round_trip(
            &[
                "--format=pax",
                "--xattrs",
                "--xattrs-include=*",
                "--acls",
                "--numeric-owner",
                "--sparse",
                &sparse,
            ],
            &Can {
                long: true,
                fractions: true,
                attributes: true,
            },
        );
    }
}
