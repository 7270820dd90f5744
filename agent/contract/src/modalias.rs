//! Matches modaliases of devices with patterns of drivers, as depmod(8) and the kernel's file2alias
//! make them: `*`, `?` and `[a-f]`; `-` and `_` are equal.

/// Whether a modalias matches a driver's pattern. The number of steps is at most the product of
/// both lengths, for any input.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // The position of the last star, and the end of what it matched in the name. Only the last star
    // needs backtracking.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = matching_length(&pattern[p.min(pattern.len())..], name[n]) {
            p += length;
            n += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p.min(pattern.len())..]
        .iter()
        .all(|&byte| byte == b'*')
}

/// The length of the part of the pattern that matches this byte; `None` if it does not match.
fn matching_length(pattern: &[u8], byte: u8) -> Option<usize> {
    let same = |a: u8, b: u8| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|&byte| byte == b']')?;
            let mut inside = &pattern[1..end];
            while let Some(&first) = inside.first() {
                let (last, length) = if inside.get(1) == Some(&b'-') && inside.len() > 2 {
                    (inside[2], 3)
                } else {
                    (first, 1)
                };
                if (first..=last).contains(&byte) {
                    return Some(end + 1);
                }
                inside = &inside[length..];
            }
            None
        }
        other => same(other, byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_devices_with_their_drivers_patterns_only() {
        let network = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00";
        for (pattern, name, like) in [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", network, true),
            ("pci:v*d*sv*sd*bc01sc06i01*", network, false),
            ("pci:v*d*sv*sd*bc02sc00i00", network, true),
            ("pci:v*d*sv*sd*bc02sc00i0", network, false),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000003v00001AF4", false),
            ("acpi*:QEMU0002:*", "acpi:QEMU0002:", true),
            ("acpi*:QEMU0002:*", "acpi:QEMU0003:PNP0C02:", false),
            ("scsi:t-0x00*", "scsi:t_0x00", true),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*0094*",
                "cpu:type:x86,ven0002fam0006mod0006:feature:,0000,0001,0094,0096",
                true,
            ),
            ("usb:v0bc2pabcdd0[1-3]*", "usb:v0bc2pabcdd0212", true),
            ("usb:v0bc2pabcdd0[1-3]*", "usb:v0bc2pabcdd0412", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("*", "", true),
            ("", "a", false),
            ("[", "[", false),
            ("[]", "a", false),
            ("a[b", "ab", false),
            ("xen:vbd", "xen:vbd", true),
        ] {
            assert_eq!(matches(pattern, name), like, "{pattern} {name}");
        }
    }

    #[test]
    fn matches_many_stars_in_bounded_time() {
        assert!(!matches(&("*a".repeat(2000) + "b"), &"a".repeat(4000)));
    }
}
