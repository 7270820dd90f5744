//! Where a running server can write: its volumes, and what the kernel and init mount in memory.

use super::Image;
use super::units::Units;

/// Directories below which something can be written.
pub struct Writable {
    places: Vec<String>,
}

impl Writable {
    /// Volumes, the kernel's own file systems, enabled mount units and fstab.
    pub fn new(image: &Image, units: &Units) -> Writable {
        // The agent mounts memory at /tmp where nothing else is.
        let mut places: Vec<String> = ["/run", "/dev", "/proc", "/sys", "/tmp"].map(str::to_owned).into();
        places.extend(image.definition.volumes.iter().map(|volume| volume.policy.mount.clone()));
        places.extend(units.mounts());
        places.extend(from_fstab(&image.text("/etc/fstab").unwrap_or_default()));
        Writable { places }
    }

    /// Whether something can be written at or below this path.
    pub fn holds(&self, path: &str) -> bool {
        // /var/run is a link to /run in every distribution, and units still name it.
        let path = path.strip_prefix("/var/run").filter(|rest| rest.is_empty() || rest.starts_with('/')).map_or(path.to_owned(), |rest| format!("/run{rest}"));
        self.places.iter().any(|place| path == *place || adamant_agent::policy::is_below(&path, place))
    }
}

/// Mount points that are not read-only (fstab(5)).
fn from_fstab(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (place, _, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
            (place.starts_with('/') && place.len() > 1 && !options.split(',').any(|option| option == "ro")).then(|| place.to_owned())
        })
        .collect()
}
