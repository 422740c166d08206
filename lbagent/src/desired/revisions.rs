//! What is known of the store's keys: when each was last written, and who has what it claims.

use sha2::{Digest, Sha256};

use super::SharedMap;

/// Revision of the last write by key.
pub type Revisions = ByKey<u64>;

/// Values by the store's key. Keys are kept as the first 16 bytes of their SHA-256: as text they would
/// take more memory than the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByKey<V>(SharedMap<[u8; 16], V>);

impl<V> Default for ByKey<V> {
    fn default() -> Self {
        Self(SharedMap::new())
    }
}

impl<V: Copy> ByKey<V> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<V> {
        self.0.get(&digest(key)).copied()
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key has a value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Gives a key a value; returns the one that it had.
    pub(super) fn insert(&mut self, key: &str, value: V) -> Option<V> {
        self.0.insert(digest(key), value)
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(&digest(key));
    }

    pub(super) fn compact(&mut self) {
        self.0.compact();
    }
}

/// Values while they are read: their keys come in another order than these are kept in.
pub(super) struct Unordered<V>(Vec<([u8; 16], V)>);

impl<V> Default for Unordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Unordered<V> {
    pub(super) fn push(&mut self, key: &str, value: V) {
        self.0.push((digest(key), value));
    }
}

impl<V> From<Unordered<V>> for ByKey<V> {
    fn from(values: Unordered<V>) -> Self {
        Self(values.0.into_iter().collect())
    }
}

fn digest(key: &str) -> [u8; 16] {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _]: [u8; 32] =
        Sha256::digest(key).into();
    digest
}
