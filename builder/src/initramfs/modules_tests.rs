use super::*;
use crate::tree::{Content, Kind, Meta};

fn kernel() -> ImageKernel {
    ImageKernel {
        release: "6.1".to_owned(),
        image: Vec::new(),
        config: String::new(),
    }
}

fn tree(files: &[(&str, &[u8])]) -> Tree {
    let mut tree = Tree::new();
    for (path, bytes) in files {
        tree.insert(
            format!("/usr/lib/modules/6.1/{path}").as_bytes(),
            Meta::default(),
            Kind::File(Content::from_memory(bytes.to_vec())),
        )
        .unwrap();
    }
    tree
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 6)
        .read_to_end(&mut out)
        .unwrap();
    out
}

const DEP: &[u8] = b"k/dm-verity.ko.xz: k/dm-bufio.ko.zst k/dm-mod.ko\nk/dm-bufio.ko.zst: k/dm-mod.ko\nk/dm-mod.ko:\nk/erofs.ko.gz: k/libcrc32c.ko\nk/libcrc32c.ko:\nk/crc32c-intel.ko:\nk/extra-one.ko:\n";

fn whole() -> Vec<(&'static str, Vec<u8>)> {
    let elf = |name: &str| {
        [
            b"\x7fELF",
            name.as_bytes(),
            b"~Module signature appended~\n",
        ]
        .concat()
    };
    let mut gz = Vec::new();
    flate2::read::GzEncoder::new(&*elf("erofs"), flate2::Compression::best())
        .read_to_end(&mut gz)
        .unwrap();
    vec![
        ("modules.dep", DEP.to_vec()),
        (
            "modules.softdep",
            b"# comment\nsoftdep libcrc32c pre: crc32c\nsoftdep erofs post: nothing extra-one\n"
                .to_vec(),
        ),
        (
            "modules.alias",
            b"alias crc32c crc32c_intel\nalias pci:v* nvme\n".to_vec(),
        ),
        ("modules.builtin", b"kernel/fs/ext4/ext4.ko\n".to_vec()),
        ("k/dm-verity.ko.xz", xz(&elf("verity"))),
        (
            "k/dm-bufio.ko.zst",
            zstd::encode_all(&*elf("bufio"), 3).unwrap(),
        ),
        ("k/dm-mod.ko", elf("mod")),
        ("k/erofs.ko.gz", gz),
        ("k/libcrc32c.ko", elf("crc")),
        ("k/crc32c-intel.ko", elf("intel")),
        ("k/extra-one.ko", elf("extra")),
    ]
}

fn with(change: impl Fn(&mut Vec<(&'static str, Vec<u8>)>)) -> Tree {
    let mut files = whole();
    change(&mut files);
    tree(
        &files
            .iter()
            .map(|(path, bytes)| (*path, &**bytes))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn each_module_follows_its_dependencies_and_keeps_its_signature() {
    let modules = select(&with(|_| {}), &kernel(), &["crc32c".to_owned()], None).unwrap();
    let names: Vec<&str> = modules.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "crc32c_intel",
            "dm_mod",
            "dm_bufio",
            "dm_verity",
            "libcrc32c",
            "erofs",
            "extra_one"
        ]
    );
    assert_eq!(modules[3].path, "/usr/lib/modules/6.1/k/dm-verity.ko");
    assert!(
        modules
            .iter()
            .all(|m| m.bytes.ends_with(b"~Module signature appended~\n"))
    );
}

#[test]
fn decides_whether_a_module_is_for_devices_or_for_every_machine() {
    let aliases = b"alias crc32c crc32c_intel\nalias cpu:type:x86*:feature:*0094* crc32c_intel\nalias cpu:a crc32c_intel\nalias acpi*:X-Y:* extra-one\n";
    let lines = |extra: &[String]| -> Vec<String> {
        let tree = with(|files| files[2].1 = aliases.to_vec());
        select(&tree, &kernel(), extra, None)
            .unwrap()
            .iter()
            .map(|module| module.line().replace("/usr/lib/modules/6.1/k/", ""))
            .collect()
    };
    let all = [
        "crc32c-intel.ko | cpu:a cpu:type:x86*:feature:*0094*\n",
        "dm-mod.ko |\n",
        "dm-bufio.ko dm_mod |\n",
        "dm-verity.ko dm_bufio dm_mod\n",
        "libcrc32c.ko ~crc32c_intel |\n",
        "erofs.ko libcrc32c\n",
        "extra-one.ko | acpi*:X-Y:*\n",
    ];
    assert_eq!(lines(&[]), all);
    let named = lines(&["crc32c".to_owned(), "extra_one".to_owned()]);
    assert_eq!(
        (named[0].as_str(), named[6].as_str()),
        ("crc32c-intel.ko\n", "extra-one.ko\n")
    );
}

#[test]
fn drivers_of_late_devices_are_loaded_with_their_bus() {
    let dep = b"k/dm-verity.ko:\nk/erofs.ko:\nk/scsi_mod.ko:\nk/virtio_scsi.ko: k/scsi_mod.ko\nk/sd_mod.ko: k/scsi_mod.ko\n".to_vec();
    let aliases =
        b"alias virtio:d8v* virtio_scsi\nalias scsi:t-0x00* sd_mod\nalias devname:x dm_verity\n"
            .to_vec();
    let lines = |builtin: &str| -> Vec<String> {
        let names = ["dm-verity", "erofs", "scsi_mod", "virtio_scsi", "sd_mod"]
            .map(|name| format!("k/{name}.ko"));
        let mut files: Vec<(&str, &[u8])> = vec![
            ("modules.dep", &dep),
            ("modules.alias", &aliases),
            ("modules.builtin", builtin.as_bytes()),
        ];
        files.extend(names.iter().map(|name| (name.as_str(), &b"\x7fELF"[..])));
        select(&tree(&files), &kernel(), &[], None)
            .unwrap()
            .iter()
            .map(|module| module.line().replace("/usr/lib/modules/6.1/k/", ""))
            .collect()
    };
    let sd = |patterns: &str| format!("sd_mod.ko scsi_mod{patterns}\n");
    assert_eq!(
        lines(""),
        [
            "scsi_mod.ko |\n",
            "virtio_scsi.ko scsi_mod | virtio:d8v*\n",
            &sd(" | scsi:t-0x00* virtio:d8v*"),
            "dm-verity.ko\n",
            "erofs.ko\n"
        ]
    );
    assert_eq!(lines("kernel/drivers/usb/core/usbcore.ko\n")[2], sd(""));
}

#[test]
fn names_the_missing_module_of_a_kernel() {
    let kernel = kernel();
    let error =
        |tree: &Tree, extra: &[String]| select(tree, &kernel, extra, None).unwrap_err().to_string();
    let no_erofs = with(|files| files[0].1 = b"k/dm-verity.ko.xz:\n".to_vec());
    assert!(error(&no_erofs, &[]).contains("CONFIG_EROFS_FS"));
    let built_in = ImageKernel {
        config: "CONFIG_EROFS_FS=y\nCONFIG_DM_VERITY=y\n".to_owned(),
        ..kernel.clone()
    };
    assert_eq!(select(&no_erofs, &built_in, &[], None).unwrap().len(), 1);
    assert!(error(&with(|_| {}), &["nothing".to_owned()]).contains("no module \"nothing\""));
    assert!(
        error(&with(|files| files.retain(|f| f.0 != "k/dm-mod.ko")), &[])
            .contains("it does not exist")
    );
    assert!(
        error(&with(|files| files[6].1 = b"text".to_vec()), &[]).contains("not a kernel module")
    );
    assert!(
        error(
            &with(|files| {
                files[4].1.truncate(40);
            }),
            &[]
        )
        .contains("dm-verity.ko.xz")
    );
    let loops = with(|files| {
        files[0].1 = b"k/dm-mod.ko: k/dm-bufio.ko\nk/dm-bufio.ko.zst: k/dm-mod.ko\nk/dm-verity.ko.xz: k/dm-mod.ko\nk/erofs.ko.gz:\n".to_vec()
    });
    assert_eq!(select(&loops, &kernel, &[], None).unwrap().len(), 4);
    let no_dep = with(|files| {
        files.remove(0);
        files.push(("modules.order", Vec::new()));
    });
    assert!(error(&no_dep, &[]).contains("depmod"));
}
