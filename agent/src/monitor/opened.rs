//! Detects writers of the root's disk and partitions where no guard refuses them: inotify(7)
//! reports writes, and closes of descriptors that could write. It sees only the nodes in /dev, not
//! other nodes of the same devices.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use adamant_contract::paths::ROOT_MAPPING;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::kernel::dm;

/// Number of event buffers that are read in one go.
const READS: usize = 16;

/// An inotify watch of the nodes of the root's disk and partitions.
pub struct DiskWatch {
    kernel: Inotify,
    nodes: Vec<(WatchDescriptor, String)>,
}

impl DiskWatch {
    /// Starts the watch. Nodes that do not exist are left out.
    pub fn start() -> io::Result<DiskWatch> {
        let kernel = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let table = dm::table(ROOT_MAPPING).unwrap_or_default();
        let nodes = nodes(&table, &|device| {
            std::fs::canonicalize(Path::new("/sys/dev/block").join(device)).ok()
        });
        let mask = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY;
        let nodes = nodes
            .into_iter()
            .filter_map(|node| {
                kernel
                    .add_watch(node.as_str(), mask)
                    .ok()
                    .map(|number| (number, node))
            })
            .collect();
        Ok(DiskWatch { kernel, nodes })
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }

    /// Calls `take` with the node of each pending event.
    pub fn for_each_event(&self, take: &mut dyn FnMut(&str)) {
        // The bound keeps an endless writer from blocking the caller. The rest stays pending.
        for _ in 0..READS {
            // The error at the end means that no event is pending.
            for event in self.kernel.read_events().unwrap_or_default() {
                if let Some((_, node)) = self.nodes.iter().find(|(number, _)| *number == event.wd) {
                    take(node);
                }
            }
        }
    }
}

/// Returns the nodes of the two devices in a dm-verity table and of their disk. `sysfs` maps a
/// device number to the device's directory in sysfs, which is inside its disk's.
fn nodes(table: &str, sysfs: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<String> {
    let mut nodes: Vec<String> = Vec::new();
    // The table begins with the version, the data device and the hash device.
    for folder in table.split(' ').skip(1).take(2).filter_map(sysfs) {
        for folder in [folder.parent(), Some(folder.as_path())]
            .into_iter()
            .flatten()
        {
            let node = folder
                .file_name()
                .map(|name| ["/dev/", &name.to_string_lossy()].concat())
                .unwrap_or_default();
            // The parent of a disk without partitions is a directory of all disks.
            if node != "/dev/block" && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_their_disk_are_watched_once() {
        let sysfs = |device: &str| {
            let folder = match device {
                "254:2" => "/sys/devices/pci0000:00/virtio1/block/vda/vda2",
                "254:3" => "/sys/devices/pci0000:00/virtio1/block/vda/vda3",
                "254:16" => "/sys/devices/pci0000:00/virtio2/block/vdb",
                _ => return None,
            };
            Some(PathBuf::from(folder))
        };
        assert_eq!(
            nodes("1 254:2 254:3 4096 4096 77 1 sha256", &sysfs),
            ["/dev/vda", "/dev/vda2", "/dev/vda3"]
        );
        assert_eq!(nodes("1 254:16 8:1 4096", &sysfs), ["/dev/vdb"]);
        assert_eq!(nodes("", &sysfs), [""; 0]);
    }
}
