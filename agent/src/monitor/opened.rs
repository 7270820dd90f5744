//! Whoever opens the disk below the root, or its partitions, for writing, where there is no guard
//! to refuse it: the kernel tells of what is written, and of the end of whoever could have written
//! (inotify(7)). What is opened by other nodes than those in /dev is not seen.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use adamant_contract::paths::ROOT_MAPPING;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::kernel::dm;

/// Buffers of events that are taken at once.
const READS: usize = 16;

/// The disk's nodes.
pub struct Opened {
    kernel: Inotify,
    nodes: Vec<(WatchDescriptor, String)>,
}

impl Opened {
    /// Asks to be told, from now on. A node that is not there is left out.
    pub fn watch() -> io::Result<Opened> {
        let kernel = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let table = dm::table(ROOT_MAPPING).unwrap_or_default();
        let nodes = nodes(&table, &|device| {
            std::fs::canonicalize(Path::new("/sys/dev/block").join(device)).ok()
        });
        let told = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY;
        let nodes = nodes
            .into_iter()
            .filter_map(|node| {
                kernel
                    .add_watch(node.as_str(), told)
                    .ok()
                    .map(|number| (number, node))
            })
            .collect();
        Ok(Opened { kernel, nodes })
    }

    /// To wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }

    /// Takes what is there: the node, each time.
    pub fn each(&self, take: &mut dyn FnMut(&str)) {
        // Whoever writes without end must not keep us here; what is left is there the next time.
        for _ in 0..READS {
            // An error, where there is no more.
            for event in self.kernel.read_events().unwrap_or_default() {
                if let Some((_, node)) = self.nodes.iter().find(|(number, _)| *number == event.wd) {
                    take(node);
                }
            }
        }
    }
}

/// Of the two devices in a table of dm-verity and the disk that they are on. `place` gives a
/// device's folder in sysfs, which is within its disk's.
fn nodes(table: &str, place: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<String> {
    let mut nodes: Vec<String> = Vec::new();
    // Version, data, tree.
    for folder in table.split(' ').skip(1).take(2).filter_map(place) {
        for folder in [folder.parent(), Some(folder.as_path())]
            .into_iter()
            .flatten()
        {
            let node = folder
                .file_name()
                .map(|name| ["/dev/", &name.to_string_lossy()].concat())
                .unwrap_or_default();
            // Without a partition table, a disk's parent is a folder for all disks.
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
        let place = |device: &str| {
            let folder = match device {
                "254:2" => "/sys/devices/pci0000:00/virtio1/block/vda/vda2",
                "254:3" => "/sys/devices/pci0000:00/virtio1/block/vda/vda3",
                "254:16" => "/sys/devices/pci0000:00/virtio2/block/vdb",
                _ => return None,
            };
            Some(PathBuf::from(folder))
        };
        assert_eq!(
            nodes("1 254:2 254:3 4096 4096 77 1 sha256", &place),
            ["/dev/vda", "/dev/vda2", "/dev/vda3"]
        );
        assert_eq!(nodes("1 254:16 8:1 4096", &place), ["/dev/vdb"]);
        assert_eq!(nodes("", &place), [""; 0]);
    }
}
