//! Base64 (RFC 4648), padded, in its only form.

/// The bytes that these digits stand for.
pub fn decode(digits: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "not Base64".to_owned();
    let padding = digits
        .iter()
        .rev()
        .take_while(|&&digit| digit == b'=')
        .count();
    if !digits.len().is_multiple_of(4) || padding > 2 {
        return Err(wrong());
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits[..digits.len() - padding].chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err(wrong()),
            };
            bits = bits << 6 | u32::from(value);
        }
        let unused = 6 * (4 - group.len());
        let [_, group_bytes @ ..] = (bits << unused).to_be_bytes();
        let (used, rest) = group_bytes.split_at(group.len() - 1);
        // Other bits than zero after the last byte would be a second form of the same bytes.
        if rest.iter().any(|&byte| byte != 0) {
            return Err(wrong());
        }
        bytes.extend_from_slice(used);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_one_form_alone() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmE=", "fooba"),
        ] {
            assert_eq!(decode(text.as_bytes()), Ok(bytes.as_bytes().to_vec()));
        }
        for text in [
            "Zh==", "Zm9=", "Zg=", "Zg", "Z===", "====", "Zm9v\n", "Zm=v", "Zm-v",
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
