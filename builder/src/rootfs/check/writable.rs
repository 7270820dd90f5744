//! Writable paths of a running server: volumes, and memory file systems of the kernel and init.

use super::Image;
use super::devices::Devices;
use super::fstab::{self, FstabLine};
use super::units::Units;

/// Directories below which files can be written.
pub struct Writable {
    places: Vec<String>,
}

impl Writable {
    /// Volumes, kernel file systems, enabled mount units, and lines of fstab whose device may
    /// exist.
    pub fn new(image: &Image, units: &Units, lines: &[FstabLine], devices: &Devices) -> Writable {
        // The agent mounts a tmpfs at /tmp if nothing else is mounted there.
        let mut places: Vec<String> = ["/run", "/dev", "/proc", "/sys", "/tmp"]
            .map(str::to_owned)
            .into();
        places.extend(
            image
                .definition
                .volumes
                .iter()
                .map(|volume| volume.policy.mount.clone()),
        );
        places.extend(units.mounts());
        let own = Writable { places };
        let more = fstab::writable_places(lines, devices, |path| own.holds(path));
        Writable {
            places: own.places.into_iter().chain(more).collect(),
        }
    }

    /// Whether this path, or a path below it, can be written.
    pub fn holds(&self, path: &str) -> bool {
        // /var/run is a link to /run in every distribution, and units still use it.
        let path = path
            .strip_prefix("/var/run")
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .map_or(path.to_owned(), |rest| format!("/run{rest}"));
        self.places
            .iter()
            .any(|place| path == *place || adamant_contract::policy::is_below(&path, place))
    }
}
