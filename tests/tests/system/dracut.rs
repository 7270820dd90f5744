//! An initramfs that knows nothing of us starts our disk by its root hash: Debian's own dracut,
//! with systemd and dm-verity in it.

use std::fs;
use std::path::PathBuf;

use adamant_tests::image::{lock, target_dir};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::{esp, tool};

/// A Debian 13 with dracut, and in it the kernel and the initramfs that it makes for any machine.
fn debian() -> PathBuf {
    let _lock = lock("dracut");
    let root = target_dir().join("dracut");
    if root.join("initrd").exists() {
        return root;
    }
    let _ = fs::remove_dir_all(&root);
    let packages = "dracut,systemd,systemd-cryptsetup,linux-image-cloud-amd64,zstd,kmod,dmsetup,cryptsetup-bin,erofs-utils";
    tool::run(
        tool::command("mmdebstrap")
            .args(["--quiet", "--variant=apt"])
            .arg(format!("--include={packages}"))
            .arg("trixie")
            .arg(&root),
    );
    let script = "release=$(ls /lib/modules) && ln -f /boot/vmlinuz-$release /vmlinuz.stock && dracut --force --no-hostonly --add 'systemd systemd-veritysetup' \
                  --filesystems 'erofs ext4' --add-drivers 'erofs dm-verity virtio_blk virtio_pci' /initrd.new $release && mv /initrd.new /initrd";
    tool::run(
        tool::command("chroot")
            .arg(&root)
            .args(["sh", "-c", script]),
    );
    root
}

#[test]
#[ignore = "long: fetches a Debian with dracut"]
fn a_stock_initramfs_starts_our_disk_by_its_root_hash() {
    if !tool::root() || !tool::have("mmdebstrap") {
        return;
    }
    let debian = debian();
    let (mut image, scratch) = (esp::signed().build(), Scratch::new("dracut"));
    let disk = esp::copy(&image, &scratch);
    let hash = image.root_hash();
    // Where Setup looks for an image's kernel and initramfs.
    image.dir = scratch.join("stock");
    fs::create_dir(&image.dir).unwrap();
    fs::copy(debian.join("vmlinuz.stock"), image.path("vmlinuz")).unwrap();
    fs::copy(debian.join("initrd"), image.path("initrd")).unwrap();
    let line = |hash: &str| format!("roothash={hash} systemd.gpt_auto=0 ro console=ttyS0\n");
    fs::write(image.path("cmdline"), line(&hash)).unwrap();
    let mut machine = Setup::of(&image)
        .disk(&disk)
        .compressed_kernel()
        .processors(2)
        .memory("1G")
        .start(&scratch);
    machine.wait_for("tiny: done");
    let console = machine.wait_for_end();
    assert!(
        console.contains(" / / ro,")
            && console.contains("erofs /dev/mapper/root")
            && console.contains("tiny: mapping root"),
        "{console}"
    );
    assert!(
        console.contains("tiny: the root refuses writes") && console.contains("tiny: no report"),
        "{console}"
    );
}
