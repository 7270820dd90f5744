//! The order of versions.
//!
//! Format: UAPI.10, Version Format Specification, as `systemd-analyze compare-versions` and boot
//! loaders implement it.

use std::cmp::Ordering;

/// Compares two versions. Any text is a version. Characters other than letters, digits and `~ - ^
/// .` only separate parts.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_separators(a);
        b = skip_separators(b);
        // A pre-release is older than the version without it.
        match mark(&mut a, &mut b, b'~') {
            Ordering::Equal => {}
            unequal => return unequal,
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        for separator in *b"-^." {
            match mark(&mut a, &mut b, separator) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        let numeric = starts(a, u8::is_ascii_digit) || starts(b, u8::is_ascii_digit);
        let part = |text| {
            split(
                text,
                if numeric {
                    u8::is_ascii_digit
                } else {
                    u8::is_ascii_alphabetic
                },
            )
        };
        let ((part_a, rest_a), (part_b, rest_b)) = (part(a), part(b));
        let order = if numeric {
            compare_numbers(part_a, part_b)
        } else {
            part_a.cmp(part_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let known = |c: &u8| c.is_ascii_alphanumeric() || b"~-^.".contains(c);
    &text[text.iter().position(known).unwrap_or(text.len())..]
}

/// The version that starts with the mark is the smaller. If both start with it, both lose it.
fn mark(a: &mut &[u8], b: &mut &[u8], mark: u8) -> Ordering {
    let (in_a, in_b) = (a.first() == Some(&mark), b.first() == Some(&mark));
    if in_a && in_b {
        (*a, *b) = (&a[1..], &b[1..]);
    }
    in_b.cmp(&in_a)
}

fn starts(text: &[u8], class: fn(&u8) -> bool) -> bool {
    text.first().is_some_and(class)
}

fn split(text: &[u8], class: fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|c| !class(c)).unwrap_or(text.len()))
}

/// Compares decimal numbers of any length. No digit is less than 0.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &'_ [u8]| {
        digits
            .iter()
            .position(|&c| c != b'0')
            .unwrap_or(digits.len())
    };
    let (short_a, short_b) = (&a[significant(a)..], &b[significant(b)..]);
    (!a.is_empty(), short_a.len(), short_a).cmp(&(!b.is_empty(), short_b.len(), short_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_the_specification_requires() {
        // The specification's own chain, and kernels.
        for chain in [
            &[
                "122.1",
                "123~rc1-1",
                "123",
                "123-a",
                "123-a.1",
                "123-1",
                "123-1.1",
                "123^post1",
                "123.a-1",
                "123.1-1",
                "123a-1",
                "124-1",
            ][..],
            &[
                "6.1.0-9-amd64",
                "6.1.0-56-cloud-amd64",
                "6.12.9+deb13-amd64",
                "6.12.118+deb13-cloud-amd64",
            ][..],
            &["", "0", "1", "007.1", "7.10"][..],
        ] {
            for (i, a) in chain.iter().enumerate() {
                for (j, b) in chain.iter().enumerate() {
                    assert_eq!(compare(a, b), i.cmp(&j), "{a:?} and {b:?}");
                }
            }
        }
        assert_eq!(compare("1.002", "1.2"), Ordering::Equal);
        assert_eq!(compare("1+2", "1 2"), Ordering::Equal);
    }
}
