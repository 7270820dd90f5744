//! The nonce of a question: a random number that the answer must repeat, so that a recorded answer
//! is not taken for a new one. A signed answer will contain it, too.

use adamant_contract::hex;

use crate::error::{Error, Result};

/// Bytes of a nonce.
const BYTES: usize = 16;

/// A nonce as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A new nonce from the kernel's random source. The error is the kernel's refusal.
    pub fn random() -> Result<Nonce> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(format!("the kernel's random numbers: {error}")))?;
        Ok(Nonce(hex::encode(&bytes)))
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
    fn each_nonce_is_new() {
        let (one, other) = (Nonce::random().unwrap(), Nonce::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 2 * BYTES);
    }
}
