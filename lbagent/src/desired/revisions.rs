//! When each of the store's keys was last written.

use sha2::{Digest, Sha256};

use super::SharedMap;

/// Revision of the last write by key. Keys are kept as the first 16 bytes of their SHA-256: as text
/// they would take more memory than the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revisions(SharedMap<[u8; 16], u64>);

impl Revisions {
    /// Revision at which a key was last written; `None` when there is no such key.
    pub fn get(&self, key: &str) -> Option<u64> {
        self.0.get(&digest(key)).copied()
    }

    pub(super) fn insert(&mut self, key: &str, revision: u64) {
        self.0.insert(digest(key), revision);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(&digest(key));
    }

    pub(super) fn compact(&mut self) {
        self.0.compact();
    }
}

fn digest(key: &str) -> [u8; 16] {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _]: [u8; 32] =
        Sha256::digest(key).into();
    digest
}
