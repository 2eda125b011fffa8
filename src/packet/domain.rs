//! A DNS domain as an alert names it.

use std::fmt;

/// Bytes of a domain that are kept.
const KEPT: usize = 31;

/// The end of a domain name, in lower case; what is beyond 31 bytes is cut off in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain {
    len: u8,
    bytes: [u8; KEPT],
}

impl Domain {
    /// `name` in dotted form. Bytes that no host name has become `?`.
    pub fn new(name: &[u8]) -> Self {
        let tail = &name[name.len().saturating_sub(KEPT)..];
        let mut bytes = [0; KEPT];
        for (to, from) in bytes.iter_mut().zip(tail) {
            let usual = from.is_ascii_alphanumeric() || matches!(from, b'.' | b'-' | b'_');
            *to = if usual { from.to_ascii_lowercase() } else { b'?' };
        }
        Self { len: tail.len() as u8, bytes }
    }

    pub fn as_str(&self) -> &str {
        // Nothing but ASCII gets in.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_in_lower_case() {
        assert_eq!(Domain::new(b"Example.COM").as_str(), "example.com");
        assert_eq!(Domain::new(b"a\xff.b c").as_str(), "a?.b?c");
        let long = [b'x'; 80];
        assert_eq!(Domain::new(&long).as_str().len(), KEPT);
        assert_eq!(Domain::new(b"").to_string(), "");
    }
}
