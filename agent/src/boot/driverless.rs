//! Finds controllers for which this image has no driver, to explain why an attached disk was not
//! found.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use adamant_contract::modalias;

/// Most devices that a message names.
const NAMED: usize = 3;
/// Most devices of a bus that are read.
const DEVICES: usize = 4096;
/// Longest modalias, bytes: a page.
const NAME_LIMIT: u64 = 4096;

/// For each kind of device: its bus, a pattern of the modaliases, and its name in messages.
const KINDS: &str = "\
pci pci:*bc01sc* storage controller,pci pci:*bc0Csc03* USB controller,pci pci:*bc08sc05* SD card controller,pci pci:v00001AF4d* virtio device,\
virtio virtio:d00000002v* virtio disk,virtio virtio:d00000008v* virtio SCSI controller,usb usb:*ic08isc* USB disk,\
vmbus vmbus:d96361baa104294db60572e2ffb1dc7f Hyper-V storage controller,xen xen:vbd Xen disk";

/// Drivers of common controllers, by pattern, for the remedy. Drivers of other controllers are in
/// the image's own modules.alias.
const DRIVERS: &str = "\
pci:v00001AF4d* virtio_pci,pci:v00001000d0000005[BDF]* megaraid_sas,pci:v00001000d0000001[4567]*bc01* megaraid_sas,pci:v00001000d00000060* megaraid_sas,\
pci:v00001000d0000007[13489]* megaraid_sas,pci:v00001000d000000[689ACDE]*bc01* mpt3sas,pci:v00001000d0000007[02]* mpt3sas,\
pci:v00001000d0000005[0468]* mptsas,pci:v00001000d00000030* mptspi,pci:v00001000d0000000*bc01* sym53c8xx,pci:v00001000d00000012* sym53c8xx,\
pci:v000015ADd000007C0* vmw_pvscsi,pci:v00009005d0000028F* smartpqi,pci:v0000103Cd000032*bc01* hpsa,pci:v00001022d00002020* am53c974,\
pci:*bc01sc08i02* nvme,pci:*bc01sc06i01* ahci,pci:v00008086d*bc01sc01* ata_piix,pci:*bc0Csc03i30* xhci_pci,pci:*bc08sc05* sdhci_pci,\
virtio:d00000002v* virtio_blk,virtio:d00000008v* virtio_scsi,usb:*ic08isc06ip62* uas,usb:*ic08isc* usb_storage,xen:vbd xen_blkfront";

/// A device without a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driverless {
    /// Its kind, and its address on the bus.
    what: String,
    modalias: String,
    driver: Option<&'static str>,
}

/// Finds all of them.
pub fn find_driverless() -> Vec<Driverless> {
    find_below(Path::new("/sys/bus"))
}

#[inline(never)]
fn find_below(buses: &Path) -> Vec<Driverless> {
    let mut found = Vec::new();
    for bus in ["pci", "virtio", "usb", "vmbus", "xen"] {
        for entry in fs::read_dir(buses.join(bus).join("devices"))
            .into_iter()
            .flatten()
            .flatten()
            .take(DEVICES)
        {
            let path = entry.path();
            let Some(modalias) = text(&path.join("modalias")) else {
                continue;
            };
            let kind = KINDS.split(',').find_map(|entry| {
                let (pattern, kind) = entry
                    .strip_prefix(bus)?
                    .strip_prefix(' ')?
                    .split_once(' ')?;
                modalias::matches(pattern, &modalias).then_some(kind)
            });
            if let Some(kind) = kind
                && !path.join("driver").exists()
            {
                let ids = match (text(&path.join("vendor")), text(&path.join("device"))) {
                    (Some(vendor), Some(device)) => format!(
                        ", {}:{}",
                        vendor.trim_start_matches("0x"),
                        device.trim_start_matches("0x")
                    ),
                    _ => String::new(),
                };
                let what = format!("{kind} {}{ids}", entry.file_name().to_string_lossy());
                // Sorted, because the order of a directory's entries is not defined.
                let at = found
                    .iter()
                    .position(|other: &Driverless| other.what > what)
                    .unwrap_or(found.len());
                found.insert(
                    at,
                    Driverless {
                        what,
                        driver: driver(&modalias),
                        modalias,
                    },
                );
            }
        }
    }
    found
}

/// The fault, as a phrase, and its remedy. `loaded` are the loaded modules. `attach` is the remedy
/// if the disk can be elsewhere: many servers have USB controllers without a device.
pub fn explain(found: &[Driverless], loaded: &[String], attach: &str) -> Option<(String, String)> {
    if found.is_empty() {
        return None;
    }
    let is_loaded = |device: &Driverless| {
        device
            .driver
            .is_some_and(|driver| loaded.iter().any(|module| module == driver))
    };
    let devices: Vec<String> = found
        .iter()
        .take(NAMED)
        .map(|device| match device.driver.filter(|_| is_loaded(device)) {
            Some(driver) => format!("{} was refused by its driver {driver}", device.what),
            None => format!(
                "{} has no driver in this image (modalias {})",
                device.what, device.modalias
            ),
        })
        .collect();
    let rest = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; {more} more have none"),
    };
    let lacking: Vec<&Driverless> = found.iter().filter(|device| !is_loaded(device)).collect();
    let mut names = Vec::new();
    for name in lacking
        .iter()
        .filter_map(|device| device.driver)
        .map(|driver| format!("{driver:?}"))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let remedy = match lacking.iter().find(|device| device.driver.is_none()) {
        _ if lacking.is_empty() => "look in the kernel's log for what the driver says".to_owned(),
        None => format!(
            "add the driver to the image's definition, [kernel] modules = [{}], and build it again, with a kernel that has it",
            names.join(", ")
        ),
        Some(device) => format!(
            "add its driver to [kernel] modules in the image's definition, and build it again; `modprobe --resolve-alias {}` on a machine with this kernel names it",
            device.modalias
        ),
    };
    let is_elsewhere = found.iter().all(|device| {
        ["USB controller", "SD card"]
            .iter()
            .any(|kind| device.what.starts_with(kind))
    });
    let remedy = if is_elsewhere {
        format!("{attach}; if it is behind this controller, {remedy}")
    } else {
        remedy
    };
    Some((format!("{}{rest}", devices.join("; ")), remedy))
}

fn driver(modalias: &str) -> Option<&'static str> {
    DRIVERS
        .split(',')
        .filter_map(|entry| entry.split_once(' '))
        .find(|(pattern, _)| modalias::matches(pattern, modalias))
        .map(|(_, driver)| driver)
}

#[inline(never)]
fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(NAME_LIMIT)
        .read_to_string(&mut text)
        .ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSI: &str = "pci:v00001000d00000012sv00000000sd00001000bc01sc00i00";
    const OTHER: &str = "pci:v00001234d00005678sv00000000sd00000000bc01sc07i00";

    #[test]
    fn finds_only_controllers_without_a_driver() {
        let buses = std::env::temp_dir().join(format!("adamant-driverless-{}", std::process::id()));
        let device = |bus: &str, name: &str, modalias: &str| {
            let path = buses.join(bus).join("devices").join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("modalias"), format!("{modalias}\n")).unwrap();
            path
        };
        let lsi = device("pci", "0000:00:03.0", LSI);
        fs::write(lsi.join("vendor"), "0x1000\n").unwrap();
        fs::write(lsi.join("device"), "0x0012\n").unwrap();
        fs::create_dir(
            device(
                "pci",
                "0000:00:04.0",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
            )
            .join("driver"),
        )
        .unwrap();
        device(
            "pci",
            "0000:00:02.0",
            "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00",
        );
        device("virtio", "virtio0", "virtio:d00000002v00001AF4");
        device("virtio", "virtio1", "virtio:d00000001v00001AF4");
        let found = find_below(&buses);
        fs::remove_dir_all(&buses).unwrap();
        let what: Vec<&str> = found.iter().map(|device| device.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "storage controller 0000:00:03.0, 1000:0012",
                "virtio disk virtio0"
            ]
        );
        let (why, remedy) = explain(&found, &[], "attach it").unwrap();
        assert!(why.contains(&format!("storage controller 0000:00:03.0, 1000:0012 has no driver in this image (modalias {LSI})")), "{why}");
        assert!(
            remedy.contains("[kernel] modules = [\"sym53c8xx\", \"virtio_blk\"]"),
            "{remedy}"
        );
        assert_eq!(explain(&[], &[], "attach it"), None);
    }

    #[test]
    fn asks_for_an_unknown_driver_and_names_one_that_failed() {
        let device = |modalias: &str| Driverless {
            what: "storage controller 1".to_owned(),
            driver: driver(modalias),
            modalias: modalias.to_owned(),
        };
        let (_, remedy) = explain(&[device(LSI), device(OTHER)], &[], "attach it").unwrap();
        assert!(
            remedy.contains("[kernel] modules")
                && remedy.contains(&format!("--resolve-alias {OTHER}")),
            "{remedy}"
        );
        let (why, remedy) =
            explain(&[device(LSI)], &["sym53c8xx".to_owned()], "attach it").unwrap();
        assert!(
            why.contains("refused by its driver sym53c8xx") && remedy.contains("kernel's log"),
            "{why}: {remedy}"
        );
        let (why, _) = explain(&vec![device(OTHER); 5], &[], "attach it").unwrap();
        assert!(why.ends_with("2 more have none"), "{why}");
        let usb = Driverless {
            what: "USB controller 1".to_owned(),
            ..device("pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30")
        };
        let (_, remedy) = explain(std::slice::from_ref(&usb), &[], "attach it").unwrap();
        assert!(
            remedy.starts_with("attach it; if it is behind this controller, add the driver")
                && remedy.contains("xhci_pci"),
            "{remedy}"
        );
        assert!(
            !explain(&[usb, device(LSI)], &[], "attach it")
                .unwrap()
                .1
                .contains("attach it")
        );
    }
}
