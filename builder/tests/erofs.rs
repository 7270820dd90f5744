//! What goes into a root file system comes out of it: through our own reader, the kernel's mount and fsck.erofs.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use adamant::definition::Compression;
use adamant::erofs::read::Image;
use adamant::erofs::{self, BLOCK, Options, Sink};
use adamant::part::Part;
use adamant::tree::{Bytes, Content, Extent, Kind, Meta, NodeId, Time, Tree};

const EVERY_WAY: [(Compression, u32); 9] = [
    (Compression::None, 65536),
    (Compression::Lz4, 4096),
    (Compression::Lz4, 65536),
    (Compression::Lz4hc, 8192),
    (Compression::Lz4hc, 1 << 20),
    (Compression::Zstd(3), 4096),
    (Compression::Zstd(3), 65536),
    (Compression::Zstd(1), 131072),
    (Compression::Zstd(5), 1 << 20),
];

/// What checks from outside look at: they take longer.
const MAIN_WAYS: [(Compression, u32); 4] =
    [(Compression::None, 65536), (Compression::Lz4, 65536), (Compression::Lz4hc, 1 << 20), (Compression::Zstd(3), 65536)];

// ---- writing and scratch ----

struct ToFile(File, u64);

impl Sink for ToFile {
    fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        assert_eq!(blocks.len() % BLOCK, 0);
        self.0.write_all_at(blocks, self.1)?;
        self.1 += blocks.len() as u64;
        Ok(())
    }

    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.0.write_all_at(block, 0)
    }
}

fn write(tree: &Tree, compression: Compression, cluster: u32, jobs: usize, path: &Path) -> adamant::Result<()> {
    let options = Options { compression, cluster, uuid: [7; 16], label: "test".to_owned(), jobs };
    erofs::write(tree, &options, &mut ToFile(File::create(path).unwrap(), BLOCK as u64)).map(|_| ())
}

fn open(path: impl AsRef<Path>) -> adamant::Result<Image> {
    Image::open(Part::whole(File::open(path).unwrap()).unwrap())
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

// ---- trees ----

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Less than a power of two that is itself drawn, so that small numbers are frequent.
    fn upto(&mut self, bits: u64) -> usize {
        let limit = 1 << self.below(bits);
        self.below(limit) as usize
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }

    /// Bytes that shrink, as text does.
    fn text(&mut self, len: usize) -> Vec<u8> {
        let words: Vec<Vec<u8>> = (0..200).map(|i| self.noise(2 + i % 9)).collect();
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            out.extend_from_slice(&words[self.below(200) as usize]);
        }
        out.truncate(len);
        out
    }
}

fn file(bytes: Vec<u8>) -> Kind {
    Kind::File(Content::from_memory(bytes))
}

fn xattrs(list: &[(&str, Vec<u8>)]) -> Option<adamant::tree::Xattrs> {
    Some(Arc::new(list.iter().map(|(name, value)| (name.as_bytes().into(), value[..].into())).collect::<BTreeMap<Box<[u8]>, Box<[u8]>>>()))
}

/// An access control list as the kernel has it: version 2, owner, one user, group, mask, others.
fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [(1u16, 7u16, !0u32), (2, 5, 1000), (4, 5, !0), (0x10, 7, !0), (0x20, 1, !0)] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&perm.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

/// One of everything that is odd.
fn oddities(crowd: usize) -> Tree {
    let mut random = Random(42);
    let mut tree = Tree::new();
    let mut put = |path: &[u8], meta: Meta, kind: Kind| tree.insert(path, meta, kind).unwrap();
    let plain = || Meta { mode: 0o644, ..Meta::default() };
    for size in [0, 1, 31, 4000, 4031, 4032, 4033, 4064, 4065, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 65535, 65536, 65537, 200_000, 1_000_003] {
        put(format!("/sizes/text-{size}").as_bytes(), plain(), file(random.text(size)));
        put(format!("/sizes/noise-{size}").as_bytes(), plain(), file(random.noise(size)));
        put(format!("/sizes/zero-{size}").as_bytes(), plain(), file(vec![0; size]));
    }
    // Several segments; noise amid text; a file whose first segment alone is noise.
    put(b"/large/text", plain(), file(random.text((5 << 20) + 17)));
    put(b"/large/noise", plain(), file(random.noise((4 << 20) + 4000)));
    put(b"/large/aligned-noise", plain(), file(random.noise((4 << 20) + BLOCK)));
    let mut mixed = random.noise(4 << 20);
    mixed.extend(random.text(1_000_001));
    put(b"/large/mixed", plain(), file(mixed));
    let mut islands = Vec::new();
    for _ in 0..40 {
        let (noise, text) = (random.below(70_000) as usize, random.below(70_000) as usize);
        islands.extend(random.noise(noise));
        islands.extend(random.text(text));
    }
    put(b"/large/islands", plain(), file(islands));
    let piece = Extent { at: 7_000_000, len: 5000, bytes: Bytes::Memory(random.noise(5000).into()) };
    put(b"/large/sparse", plain(), Kind::File(Content::sparse(30_000_000, vec![piece]).unwrap()));

    for (i, (seconds, nanoseconds)) in [(0, 0), (1, 999_999_999), (-1, 5), (-9_000_000_000, 0), (4_294_967_296, 1), (9_000_000_000, 0)].into_iter().enumerate()
    {
        put(format!("/times/{i}").as_bytes(), Meta { mode: 0o600, mtime: Time { seconds, nanoseconds }, ..Meta::default() }, file(vec![b'x'; i * 2000]));
    }
    for (i, (mode, uid, gid)) in [(0o7777, 0, 0), (0, 65_535, 65_536), (0o4755, 4_294_967_294, 4_294_967_294), (0o1777, 65_536, 1)].into_iter().enumerate() {
        put(format!("/owners/{i}").as_bytes(), Meta { mode, uid, gid, ..Meta::default() }, file(b"owned".to_vec()));
    }
    for (i, (major, minor)) in [(1, 3), (0, 0), (4095, 1_048_575), (259, 256)].into_iter().enumerate() {
        put(format!("/special/char-{i}").as_bytes(), plain(), Kind::CharDevice { major, minor });
        put(format!("/special/block-{i}").as_bytes(), plain(), Kind::BlockDevice { major, minor });
    }
    put(b"/special/fifo", plain(), Kind::Fifo);
    put(b"/special/socket", plain(), Kind::Socket);
    for len in [1, 59, 60, 4000, 4032, 4033, 4064, 4065, 4095] {
        put(format!("/links/{len}").as_bytes(), Meta { mode: 0o777, ..Meta::default() }, Kind::Symlink(vec![b'l'; len].into()));
    }
    put(b"/names/-before-dot", plain(), Kind::Fifo);
    put(b"/names/.hidden", plain(), Kind::Fifo);
    put(b"/names/..double", plain(), Kind::Fifo);
    put(b"/names/\xff\xfe not utf-8", plain(), file(b"bytes".to_vec()));
    put(b"/names/new\nline", plain(), file(b"bytes".to_vec()));
    put(&[b"/names/".to_vec(), vec![b'n'; 255]].concat(), plain(), file(b"long".to_vec()));

    let capability = vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for i in 0..5 {
        let set = xattrs(&[("security.capability", capability.clone()), ("user.number", vec![b'0' + i])]);
        put(format!("/xattrs/capable-{i}").as_bytes(), Meta { mode: 0o755, xattrs: set, ..Meta::default() }, file(random.text(3000)));
    }
    let many: Vec<(String, Vec<u8>)> = (0..300).map(|i| (format!("user.many-{i}"), vec![i as u8; i % 90])).collect();
    let many: Vec<(&str, Vec<u8>)> = many.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    for i in 0..2 {
        put(format!("/xattrs/many-{i}").as_bytes(), Meta { mode: 0o644, xattrs: xattrs(&many), ..Meta::default() }, file(random.text(70_000)));
    }
    let long = [("user.long", random.noise(65_535)), ("trusted.overlay.opaque", b"y".to_vec()), ("user.empty", Vec::new())];
    put(b"/xattrs/long", Meta { mode: 0o644, xattrs: xattrs(&long), ..Meta::default() }, file(random.text(10_000)));
    put(
        b"/xattrs/long-link",
        Meta { mode: 0o777, xattrs: xattrs(&[("trusted.x", random.noise(3000))]), ..Meta::default() },
        Kind::Symlink(vec![b't'; 2000].into()),
    );
    let acls = xattrs(&[("system.posix_acl_access", acl()), ("system.posix_acl_default", acl())]);
    put(b"/xattrs/acl", Meta { mode: 0o775, xattrs: acls, ..Meta::default() }, Kind::Directory(BTreeMap::new()));
    put(b"/xattrs/fifo", Meta { mode: 0o644, xattrs: xattrs(&[("trusted.fifo", vec![1])]), ..Meta::default() }, Kind::Fifo);

    let deep = b"/d".repeat(300);
    put(&deep, Meta { mode: 0o700, ..Meta::default() }, Kind::Directory(BTreeMap::new()));
    put(b"/empty", Meta { mode: 0o1777, ..Meta::default() }, Kind::Directory(BTreeMap::new()));
    let linked = put(b"/crowd/original", plain(), file(random.text(9000)));
    for i in 0..crowd {
        tree.link(format!("/crowd/{i:05}-{}", "x".repeat(i % 40)).as_bytes(), linked).unwrap();
    }
    tree.node_mut(Tree::ROOT).meta =
        Meta { mode: 0o751, uid: 3, gid: 4, mtime: Time { seconds: 77, nanoseconds: 7 }, xattrs: xattrs(&[("user.root", vec![1, 2, 3])]) };
    tree
}

/// A small tree that depends on the seed alone.
fn generated(seed: u64) -> Tree {
    let mut random = Random(seed * 2 + 1);
    let mut tree = Tree::new();
    let mut directories = vec![Vec::new()];
    for i in 0..random.below(120) {
        let mut path = directories[random.below(directories.len() as u64) as usize].clone();
        path.push(b'/');
        let len = 1 + random.upto(8);
        path.extend(random.noise(len).iter().map(|b| match b {
            0 | b'/' | b'.' => b'_',
            other => *other,
        }));
        path.extend_from_slice(i.to_string().as_bytes());
        path.truncate(path.len().min(3000));
        let mtime = if random.below(3) == 0 {
            Time { seconds: random.below(1 << 33) as i64, nanoseconds: random.below(1_000_000_000) as u32 }
        } else {
            Time::default()
        };
        let attributes = [("user.a", random.noise(3)), ("trusted.b", b"same".to_vec()), ("security.c", random.text(900))];
        let some = random.below(9) as usize;
        let meta = Meta { mode: random.below(0o10000) as u16, uid: random.below(1 << 17) as u32, gid: random.below(1 << 17) as u32, mtime, xattrs: None };
        let size = random.upto(19);
        let kind = match random.below(10) {
            0 | 1 => Kind::Directory(BTreeMap::new()),
            2 => Kind::Symlink(vec![b's'; 1 + size % 4095].into()),
            3 => Kind::Fifo,
            4 => file(random.noise(size)),
            5 => file([random.text(size), random.noise(size / 3), random.text(size / 2)].concat()),
            _ => file(random.text(size)),
        };
        let directory = matches!(kind, Kind::Directory(_));
        // The kernel shows `user.` attributes of files and directories only.
        let from = usize::from(!matches!(kind, Kind::Directory(_) | Kind::File(_)));
        let xattrs = if from < some && some < 4 { xattrs(&attributes[from..some]) } else { None };
        let meta = Meta { xattrs, ..meta };
        let node = tree.insert(&path, meta, kind).unwrap();
        if directory {
            directories.push(path);
        } else if random.below(6) == 0 {
            tree.link(format!("/link-{i}").as_bytes(), node).unwrap();
        }
    }
    tree
}

// ---- comparing ----

fn type_of(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 1,
        Kind::CharDevice { .. } => 2,
        Kind::Directory(_) => 4,
        Kind::BlockDevice { .. } => 6,
        Kind::File(_) => 8,
        Kind::Symlink(_) => 10,
        Kind::Socket => 12,
    }
}

fn links(tree: &Tree, id: NodeId) -> u32 {
    match &tree.node(id).kind {
        Kind::Directory(names) => 2 + names.values().filter(|c| matches!(tree.node(**c).kind, Kind::Directory(_))).count() as u32,
        _ => tree.node(id).links,
    }
}

fn holds(kind: &Kind) -> Option<Vec<u8>> {
    match kind {
        Kind::File(content) => Some(content.to_vec(u64::MAX).unwrap()),
        Kind::Symlink(target) => Some(target.to_vec()),
        _ => None,
    }
}

fn all_of(tree: &Tree) -> Vec<(Vec<u8>, NodeId)> {
    let mut all = tree.walk();
    all.push((b"/".to_vec(), Tree::ROOT));
    all
}

fn our_reader_agrees(tree: &Tree, path: &Path) {
    let image = open(path).unwrap();
    let mut names: BTreeMap<Vec<u8>, usize> = image.names().collect();
    names.insert(b"/".to_vec(), 0);
    let all = all_of(tree);
    assert_eq!(names.len(), all.len());
    let mut seen = BTreeMap::new();
    for (path, id) in all {
        let shown = String::from_utf8_lossy(&path).into_owned();
        let number = names[&path];
        if *seen.entry(id).or_insert(number) != number {
            panic!("{shown}: a hard link to another inode");
        }
        let (node, stat) = (tree.node(id), image.stat(number));
        assert_eq!(stat.mode, node.meta.mode | type_of(&node.kind) << 12, "{shown}");
        assert_eq!((stat.uid, stat.gid, stat.links), (node.meta.uid, node.meta.gid, links(tree, id)), "{shown}");
        assert_eq!(stat.mtime, (node.meta.mtime.seconds, node.meta.mtime.nanoseconds), "{shown}");
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind {
            assert_eq!(stat.device, (major, minor), "{shown}");
        }
        let wanted: BTreeMap<&[u8], &[u8]> = node.meta.xattrs.iter().flat_map(|x| x.iter()).map(|(n, v)| (&**n, &**v)).collect();
        let has: BTreeMap<&[u8], &[u8]> = image.xattrs(number).iter().map(|(n, v)| (&**n, &**v)).collect();
        assert!(wanted == has, "{shown}: extended attributes differ");
        if let Some(wanted) = holds(&node.kind) {
            let mut has = Vec::new();
            image
                .read(number, &mut |piece| {
                    has.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert!(has == wanted, "{shown}: bytes differ");
        }
    }
}

/// Compares what stands below `root` on this machine with the tree; `whole`: owners, times, link counts and attributes too.
fn folder_agrees(tree: &Tree, root: &Path, whole: bool) {
    let mut count = 0;
    for (path, id) in all_of(tree) {
        count += 1;
        let shown = String::from_utf8_lossy(&path).into_owned();
        let node = tree.node(id);
        let here = root.join(OsStr::from_bytes(&path[1..]));
        let here = if path == b"/" { root.to_owned() } else { here };
        let meta = std::fs::symlink_metadata(&here).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let links_only = matches!(node.kind, Kind::Symlink(_)) && !whole;
        assert_eq!(meta.mode() >> 12, u32::from(type_of(&node.kind)), "{shown}");
        if !links_only {
            // fsck.erofs sets owners after modes, and so loses set-id bits.
            let mask = if whole { 0o7777 } else { 0o777 };
            assert_eq!(meta.mode() & mask, u32::from(node.meta.mode) & mask, "{shown}");
        }
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind {
            assert!(meta.file_type().is_char_device() || meta.file_type().is_block_device());
            assert_eq!((nix::libc::major(meta.rdev()), nix::libc::minor(meta.rdev())), (major, minor), "{shown}");
        }
        let bytes = match &node.kind {
            Kind::File(_) => Some(std::fs::read(&here).unwrap_or_else(|e| panic!("{shown}: {e}"))),
            Kind::Symlink(_) => Some(std::fs::read_link(&here).unwrap().into_os_string().into_vec()),
            _ => None,
        };
        assert!(bytes == holds(&node.kind), "{shown}: bytes differ");
        if whole {
            assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (node.meta.uid, node.meta.gid, u64::from(links(tree, id))), "{shown}");
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (node.meta.mtime.seconds, i64::from(node.meta.mtime.nanoseconds)), "{shown}");
            let wanted: BTreeMap<Vec<u8>, Vec<u8>> = node.meta.xattrs.iter().flat_map(|x| x.iter()).map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            assert!(wanted == kernel_xattrs(&here), "{shown}: extended attributes differ");
        }
    }
    assert_eq!(count_below(root), count, "entries that were not in the tree");
}

fn count_below(root: &Path) -> usize {
    let below = std::fs::read_dir(root).unwrap().map(|e| e.unwrap());
    1 + below.map(|e| if e.file_type().unwrap().is_dir() { count_below(&e.path()) } else { 1 }).sum::<usize>()
}

fn kernel_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut list = vec![0u8; 1 << 16];
    // SAFETY: the path ends with NUL, and the buffer is as long as is said.
    let len = unsafe { nix::libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(usize::try_from(len).unwrap());
    let names = list.split(|&b| b == 0).filter(|n| !n.is_empty());
    names
        .map(|name| {
            let c_name = CString::new(name).unwrap();
            let mut value = vec![0u8; 1 << 16];
            // SAFETY: as above.
            let len = unsafe { nix::libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
            value.truncate(usize::try_from(len).unwrap());
            (name.to_vec(), value)
        })
        .collect()
}

fn may_mount() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: mounting needs root");
    }
    root
}

struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Mounted {
        std::fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(&at));
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !text.contains("<E>"), "{command:?}: {text}");
    text
}

// ---- promises ----

#[test]
fn every_oddity_comes_out_of_our_reader_as_it_went_in() {
    let scratch = Scratch::new("oddities-reader");
    let tree = oddities(20_500);
    for (compression, cluster) in EVERY_WAY {
        let image = scratch.0.join("image");
        write(&tree, compression, cluster, 2, &image).unwrap();
        our_reader_agrees(&tree, &image);
    }
}

#[test]
fn every_oddity_comes_out_of_the_kernels_mount_as_it_went_in() {
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new("oddities-mount");
    let tree = oddities(20_500);
    for (compression, cluster) in MAIN_WAYS {
        let image = scratch.0.join("image");
        write(&tree, compression, cluster, 2, &image).unwrap();
        let mounted = Mounted::new(&image, scratch.0.join("mount"));
        folder_agrees(&tree, &mounted.0, true);
    }
}

#[test]
fn fsck_finds_nothing_and_extracts_what_went_in() {
    if !may_mount() || Command::new("fsck.erofs").arg("--version").output().is_err() {
        eprintln!("SKIPPED: fsck.erofs is not installed, or this is not root");
        return;
    }
    let scratch = Scratch::new("oddities-fsck");
    // erofs-utils 1.5 extracts each hard link as a file of its own.
    let tree = oddities(300);
    // erofs-utils 1.5 knows no zstd.
    for (compression, cluster) in MAIN_WAYS.into_iter().filter(|(c, _)| !matches!(c, Compression::Zstd(_))) {
        let (image, out) = (scratch.0.join("image"), scratch.0.join("out"));
        write(&tree, compression, cluster, 2, &image).unwrap();
        run(Command::new("fsck.erofs").arg(&image));
        let _ = std::fs::remove_dir_all(&out);
        run(Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg("--preserve").arg(&image));
        folder_agrees(&tree, &out, false);
    }
}

#[test]
fn fsck_reads_an_image_whose_last_inode_would_end_with_its_block() {
    if Command::new("fsck.erofs").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no fsck.erofs");
        return;
    }
    let scratch = Scratch::new("last-inode");
    let image = scratch.0.join("image");
    let mut tree = Tree::new();
    // Compact inodes of 32 bytes: somewhere in more than a block of them the last one ends where its block does.
    for n in 0..140 {
        tree.insert(format!("/{n:04}").as_bytes(), Meta::default(), Kind::Fifo).unwrap();
        write(&tree, Compression::None, 4096, 1, &image).unwrap();
        let output = Command::new("fsck.erofs").arg(&image).output().unwrap();
        assert!(output.status.success(), "{n}: {}", String::from_utf8_lossy(&output.stderr));
        our_reader_agrees(&tree, &image);
    }
}

#[test]
fn generated_trees_survive_every_compression() {
    let scratch = Scratch::new("generated");
    for seed in 0..27 {
        let tree = generated(seed);
        let (compression, cluster) = EVERY_WAY[seed as usize % EVERY_WAY.len()];
        let image = scratch.0.join("image");
        write(&tree, compression, cluster, 2, &image).unwrap();
        our_reader_agrees(&tree, &image);
        if seed % 4 == 0 && nix::unistd::geteuid().is_root() {
            let mounted = Mounted::new(&image, scratch.0.join("mount"));
            folder_agrees(&tree, &mounted.0, true);
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let scratch = Scratch::new("threads");
    let tree = oddities(20_500);
    for compression in [Compression::None, Compression::Lz4hc, Compression::Zstd(3)] {
        let (one, many) = (scratch.0.join("one"), scratch.0.join("many"));
        write(&tree, compression, 65536, 1, &one).unwrap();
        write(&tree, compression, 65536, 7, &many).unwrap();
        assert!(std::fs::read(one).unwrap() == std::fs::read(many).unwrap());
    }
}

#[test]
fn refuses_what_the_format_cannot_hold_and_says_which_file() {
    let scratch = Scratch::new("refused");
    for (set, kind) in [
        (xattrs(&[("user.too-long", vec![0; 65_536])]), Kind::Fifo),
        (xattrs(&[("system.nfs4_acl", vec![0; 4])]), Kind::Fifo),
        (xattrs(&[("user.", vec![0; 4])]), Kind::Fifo),
        (None, Kind::CharDevice { major: 4096, minor: 0 }),
        (None, Kind::Symlink(vec![b'x'; 4096].into())),
    ] {
        let mut tree = Tree::new();
        tree.insert(b"/some/where", Meta { xattrs: set, ..Meta::default() }, kind).unwrap();
        let error = write(&tree, Compression::None, 4096, 1, &scratch.0.join("image")).unwrap_err();
        assert!(error.message().starts_with("/some/where: "), "{error}");
    }
}

#[test]
fn names_the_file_that_a_block_belongs_to() {
    let scratch = Scratch::new("owner");
    let image = scratch.0.join("image");
    let mut tree = Tree::new();
    for name in ["/a", "/b"] {
        tree.insert(name.as_bytes(), Meta::default(), file(vec![name.as_bytes()[1]; 3 * BLOCK])).unwrap();
    }
    write(&tree, Compression::None, 4096, 1, &image).unwrap();
    let image = open(image).unwrap();
    let owners: Vec<_> = (0..8).map(|block| image.owner(block)).collect();
    let (a, b) = (Some(b"/a".to_vec()), Some(b"/b".to_vec()));
    assert_eq!(owners, [None, a.clone(), a.clone(), a, b.clone(), b.clone(), b, Some(b"/".to_vec())]);
}

#[test]
fn damaged_images_are_refused_or_read_without_a_panic() {
    let scratch = Scratch::new("damaged");
    let path = scratch.0.join("image");
    let mut random = Random(9);
    let mut refused = 0;
    for seed in [3, 5, 11] {
        write(&generated(seed), Compression::Lz4, 16384, 2, &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        // Most of what can be wrong is in the metadata, which is the last part.
        let from = good.len() as u64 / 2;
        for round in 0..120 {
            let mut bad = good.clone();
            for _ in 0..1 + round % 4 {
                let at = if round % 8 == 0 { 1024 + random.below(128) } else { from + random.below(good.len() as u64 - from) };
                bad[at as usize] = random.next() as u8;
            }
            if round % 8 == 0 {
                fix_checksum(&mut bad);
            }
            if round % 50 == 49 {
                bad.truncate(random.below(good.len() as u64) as usize / BLOCK * BLOCK);
            }
            std::fs::write(&path, &bad).unwrap();
            match open(&path) {
                Err(_) => refused += 1,
                Ok(image) => {
                    for number in 0..image.inodes() {
                        let _ = image.read(number, &mut |_| Ok(()));
                    }
                }
            }
        }
    }
    assert!(refused > 20, "only {refused} of 360 damaged images were refused");
}

/// Makes a changed super block credible, so that what it says is looked at.
fn fix_checksum(image: &mut [u8]) {
    image[1028..1032].fill(0);
    let mut crc = !0u32;
    for &byte in &image[1024..4096] {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    image[1028..1032].copy_from_slice(&crc.to_le_bytes());
}
