//! Parses the kernel's device events (NETLINK_KOBJECT_UEVENT).
//!
//! Format: lib/kobject_uevent.c: `ACTION@DEVPATH`, then `KEY=VALUE` strings, each ended by a zero
//! byte. Messages of udev (`libudev`) do not come from the kernel and are refused.

/// Largest message of the kernel, bytes: its buffer of 2048 bytes for the strings, and the header.
pub const LIMIT: usize = 8192;

/// A device event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEvent {
    /// add, remove, change, ...
    pub action: String,
    /// Path below /sys.
    pub devpath: String,
    /// block, pci, ...
    pub subsystem: String,
    /// The node below /dev, if the device has one.
    pub devname: Option<String>,
    /// The modalias, by which drivers are found, if the device has one.
    pub modalias: Option<String>,
}

impl DeviceEvent {
    /// Parses one message; `None` for a message that the kernel would not send.
    pub fn parse(message: &[u8]) -> Option<DeviceEvent> {
        if message.len() > LIMIT {
            return None;
        }
        let text = std::str::from_utf8(message.strip_suffix(b"\0")?).ok()?;
        let mut strings = text.split('\0');
        let (action, devpath) = strings.next()?.split_once('@')?;
        let (mut subsystem, mut devname, mut modalias) = (None, None, None);
        for string in strings {
            let (key, value) = string.split_once('=')?;
            match key {
                // The kernel repeats the header in the strings. A message that contradicts itself
                // has another sender.
                "ACTION" if value != action => return None,
                "DEVPATH" if value != devpath => return None,
                "SUBSYSTEM" => subsystem = Some(value),
                "DEVNAME" => devname = Some(value.to_owned()),
                "MODALIAS" => modalias = Some(value.to_owned()),
                _ => {}
            }
        }
        let word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !word(action) || !devpath.starts_with('/') {
            return None;
        }
        Some(DeviceEvent {
            action: action.to_owned(),
            devpath: devpath.to_owned(),
            subsystem: subsystem?.to_owned(),
            devname,
            modalias,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &[u8] = b"add@/devices/pci0/virtio0/block/vda\0ACTION=add\0DEVPATH=/devices/pci0/virtio0/block/vda\0SUBSYSTEM=block\0MAJOR=254\0MINOR=0\0DEVNAME=vda\0DEVTYPE=disk\0SEQNUM=1006\0";

    #[test]
    fn reads_messages_of_the_kernel() {
        let event = DeviceEvent::parse(ADD).unwrap();
        assert_eq!(
            (
                event.action.as_str(),
                event.subsystem.as_str(),
                event.devname.as_deref()
            ),
            ("add", "block", Some("vda"))
        );
        assert_eq!(event.modalias, None);
        let event = DeviceEvent::parse(b"add@/devices/pci0\0ACTION=add\0DEVPATH=/devices/pci0\0SUBSYSTEM=pci\0MODALIAS=pci:v1AF4\0SEQNUM=7\0").unwrap();
        assert_eq!(
            (event.devname, event.modalias.as_deref()),
            (None, Some("pci:v1AF4"))
        );
    }

    #[test]
    fn refuses_messages_that_the_kernel_does_not_send() {
        let text = String::from_utf8(ADD.to_vec()).unwrap();
        for bad in [
            String::new(),
            "libudev\0\u{1}\0".to_owned(),
            text.replace("ACTION=add", "ACTION=remove"),
            text.replace("SUBSYSTEM", "SYSTEM"),
            text.replace("DEVTYPE=", "DEVTYPE"),
            text.trim_end_matches('\0').to_owned(),
            text.replacen("add@", "@", 1)
                .replace("ACTION=add", "ACTION="),
        ] {
            assert_eq!(DeviceEvent::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(DeviceEvent::parse(&[0xff; 100]), None);
        assert_eq!(DeviceEvent::parse(&vec![b'a'; LIMIT + 1]), None);
        for end in 0..ADD.len() {
            let _ = DeviceEvent::parse(&ADD[..end]);
        }
    }
}
