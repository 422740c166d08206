//! What the holder of a token shows, and what of it is kept.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// Marks a token, for people and for programs that look for secrets in the wrong places.
const PREFIX: &str = "lbat_";

/// A new secret: 256 random bits, in letters and digits that survive being copied as one word.
pub(super) fn random() -> Result<String, getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(format!("{PREFIX}{}", hex(&bits)))
}

/// A secret's SHA-256. A slow hash protects words that people think up; 256 random bits need none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a secret as its holder shows it.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// In hexadecimal, as it is written down.
    pub(super) fn written(&self) -> String {
        hex(&self.0)
    }

    /// Takes as long for a digest that is almost right as for any other.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "expected 64 hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            let digits = &text[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_words_of_their_own_and_digests_read_back() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), PREFIX.len() + 64);
        let digest = Digest::of(a.as_bytes());
        let written = serde_json::to_string(&digest).unwrap();
        assert!(!written.contains(&a[5..]));
        let read: Digest = serde_json::from_str(&written).unwrap();
        assert!(read.is(&digest) && !read.is(&Digest::of(b.as_bytes())));
        assert_eq!(format!("{digest:?}"), "Digest(…)");
        assert!(serde_json::from_str::<Digest>("\"00\"").is_err());
        // The published test vector of "abc" (FIPS 180-2).
        let abc = serde_json::to_string(&Digest::of(b"abc")).unwrap();
        assert!(abc.starts_with("\"ba7816bf8f01cfea"), "{abc}");
    }
}
