//! Firmware fetches one file from the network, and starts the root that is on the machine's disk
//! with it.

use std::path::Path;
use std::time::Duration;

use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::{esp, tool};

#[test]
fn firmware_starts_the_unified_kernel_image_from_the_network() {
    if !Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() {
        return tool::skipped(tool::Need::Program("OVMF_CODE_4M.fd (ovmf)"));
    }
    let (image, scratch) = (esp::signed().build(), Scratch::new("netboot"));
    let disk = esp::copy(&image, &scratch);
    let served = scratch.join("tftp");
    std::fs::create_dir(&served).unwrap();
    std::fs::copy(image.path("efi"), served.join("image.efi")).unwrap();
    let drive = format!("if=none,id=disk,format=raw,file={}", disk.display());
    let network = format!(
        "user,id=net,restrict=on,tftp={},bootfile=image.efi",
        served.display()
    );
    // The disk is not in the order of what is started.
    let arguments = [
        "-drive",
        &drive,
        "-device",
        "virtio-blk-pci,drive=disk",
        "-netdev",
        &network,
        "-device",
        "virtio-net-pci,netdev=net,bootindex=0,romfile=",
    ];
    let mut machine = Setup::of(&image)
        .firmware(None)
        .arguments(&arguments)
        .deadline(Duration::from_secs(420))
        .start(&scratch);
    machine.wait_for("tiny: done");
    let console = machine.wait_for_end();
    assert!(
        console.contains("PXE") && console.contains("tiny: firmware uefi"),
        "{console}"
    );
    // Nobody counted a try: the boot loader was not asked.
    assert!(esp::Esp::of(&disk).image().ends_with("+3-0.efi"));
}
