//! Tokens as text: made here, shown once, kept nowhere but as their digest.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::{GetRandomFailed, ring};

/// So that people and scanners of leaked secrets know what they see.
const PREFIX: &str = "gnm_";

/// A new token: 256 random bits.
///
/// # Errors
/// The operating system has no random numbers.
pub fn new_token() -> Result<String, GetRandomFailed> {
    let mut bytes = [0; 32];
    ring::default_provider().secure_random.fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// SHA-256 of a token in hexadecimal digits. A slow hash would be of no use: nobody guesses 256 bits.
#[must_use]
pub fn token_digest(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_their_digest_is_sha_256() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert!(one != other && one.len() == 4 + 43 && one.starts_with("gnm_"), "{one}");
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token_digest("abc"), known, "the example of FIPS 180-2");
    }
}
