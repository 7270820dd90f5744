//! The number that a question carries and its answer must repeat, so that a recorded answer is not
//! taken for a new one. A signed answer will contain it, too.

use std::fmt::Write;

use crate::error::{Error, Result};

/// Bytes of a number.
const BYTES: usize = 16;

/// A random number as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A new number from the kernel's random source. The error is the kernel's refusal.
    pub fn random() -> Result<Nonce> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(format!("the kernel's random numbers: {error}")))?;
        Ok(Nonce::from_bytes(&bytes))
    }

    fn from_bytes(bytes: &[u8]) -> Nonce {
        let mut digits = String::new();
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(digits, "{byte:02x}");
        }
        Nonce(digits)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_and_has_the_digits_of_its_bytes() {
        assert_eq!(Nonce::from_bytes(&[0, 0x0f, 0xff]).as_str(), "000fff");
        let (one, other) = (Nonce::random().unwrap(), Nonce::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 2 * BYTES);
    }
}
