//! Enabled `.mount` and `.swap` units whose device no machine with this image has
//! (systemd.mount(5), systemd.swap(5)).

use super::devices::{Devices, Presence};
use super::units::Units;
use super::writable::Writable;
use super::{Finding, Image};

pub fn check(image: &Image, units: &Units, writable: &Writable, devices: &Devices) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, unit) in units
        .enabled()
        .filter(|(name, _)| name.ends_with(".mount") || name.ends_with(".swap"))
    {
        if unit.is_skipped(image, writable) {
            continue;
        }
        let Some(device) = unit.last("What").filter(|device| !device.contains('%')) else {
            continue;
        };
        let options: Vec<&str> = unit
            .values("Options")
            .flat_map(|options| options.split(','))
            .collect();
        let kind = if name.ends_with(".swap") {
            "swap"
        } else {
            unit.last("Type").unwrap_or_default()
        };
        let is_file = options.contains(&"bind") || options.contains(&"rbind");
        let is_absent = match if is_file {
            Presence::File
        } else {
            devices.presence(device, kind)
        } {
            Presence::Absent => true,
            Presence::File => !image.exists(device) && !writable.holds(device),
            Presence::Present | Presence::NoDevice => false,
        };
        if is_absent && !options.contains(&"_netdev") {
            let is_error = units.is_required(name);
            let then = if is_error {
                "stops in emergency mode"
            } else {
                "waits 90 seconds for it"
            };
            findings.push(Finding {
                is_error,
                rule: "unit-device-missing",
                message: format!("{name} has What={device}, which this image's disk does not have; the machine {then}"),
                hint: format!("correct What=, for example with /dev/disk/by-label/NAME of a volume; or mask the unit: [[file]] path = \"/etc/systemd/system/{name}\", link = \"/dev/null\""),
            });
        }
    }
    findings
}
