//! An ordered map whose copies share what they have in common: a copy costs a pointer for each chunk
//! of entries, a change one chunk, and comparing two copies only the chunks that they do not share.
//!
//! The desired state is one: each generation is a whole state of its own, and hundreds of thousands
//! of objects must be neither copied nor compared because one of them changed.

#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most entries of a chunk. A change copies half of them on average, a copy of the map one pointer
/// for as many entries.
const CHUNK: usize = 128;

/// An ordered map in chunks. None is empty; keys rise within a chunk and from chunk to chunk.
pub struct SharedMap<K, V> {
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

type Chunk<K, V> = Arc<Vec<(K, V)>>;

impl<K, V> SharedMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        let entries = self.chunks.iter().flat_map(|chunk| chunk.iter());
        entries.map(|(key, value)| (key, value))
    }

    /// Keys in their order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (chunk, place) = self.find(key);
        let place = place.ok()?;
        Some(&self.chunks[chunk][place].1)
    }

    /// Whether the key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Entries from one key to another, both inclusive, in the order of their keys.
    pub fn range<'a>(
        &'a self,
        from: &K,
        to: &K,
    ) -> impl DoubleEndedIterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let (first, start) = self.find(from);
        let (last, end) = self.find(to);
        let start = start.unwrap_or_else(|place| place);
        let end = end.map_or_else(|place| place, |place| place + 1);
        let chunks = self.chunks.get(first..=last).unwrap_or_default();
        let last = chunks.len().saturating_sub(1);
        let entries = chunks.iter().enumerate().flat_map(move |(place, chunk)| {
            let start = if place == 0 { start } else { 0 };
            let end = if place == last { end } else { chunk.len() };
            chunk.get(start..end).unwrap_or_default()
        });
        entries.map(|(key, value)| (key, value))
    }

    /// The chunk that holds the key or is to take it, and the place in there. Without any chunk the
    /// place is none.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: std::borrow::Borrow<Q>,
    {
        let is_before = |chunk: &Chunk<K, V>| {
            let last = chunk.last();
            last.is_some_and(|(last, _)| last.borrow() < key)
        };
        let chunk = self.chunks.partition_point(is_before);
        let chunk = chunk.min(self.chunks.len().saturating_sub(1));
        let place = self.chunks.get(chunk).map_or(Err(0), |entries| {
            entries.binary_search_by(|(known, _)| known.borrow().cmp(key))
        });
        (chunk, place)
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (chunk, place) = self.find(key);
        let place = place.ok()?;
        Some(&mut Arc::make_mut(&mut self.chunks[chunk])[place].1)
    }

    /// All values, to be changed, in the order of their keys. Copies every chunk that is shared.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = self.chunks.iter_mut().map(Arc::make_mut);
        chunks.flatten().map(|(_, value)| value)
    }

    /// Gives a key a value; returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (index, place) = self.find(&key);
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let place = match place {
            Ok(place) => {
                let entry = &mut Arc::make_mut(chunk)[place].1;
                return Some(std::mem::replace(entry, value));
            }
            Err(place) => place,
        };
        self.len += 1;
        if place == CHUNK {
            // Keys that come in their order fill one chunk after the other.
            self.chunks.insert(index + 1, Arc::new(vec![(key, value)]));
            return None;
        }
        let entries = Arc::make_mut(chunk);
        entries.insert(place, (key, value));
        if entries.len() > CHUNK {
            let upper = entries.split_off(entries.len() / 2);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
        None
    }

    /// Fills the chunks up: keys that came in no order left half of their room empty.
    pub fn compact(&mut self) {
        let mut entries = Vec::with_capacity(CHUNK);
        let mut chunks = Vec::with_capacity(self.len.div_ceil(CHUNK));
        for chunk in std::mem::take(&mut self.chunks) {
            for entry in Arc::unwrap_or_clone(chunk) {
                entries.push(entry);
                if entries.len() == CHUNK {
                    let full = std::mem::replace(&mut entries, Vec::with_capacity(CHUNK));
                    chunks.push(Arc::new(full));
                }
            }
        }
        if !entries.is_empty() {
            entries.shrink_to_fit();
            chunks.push(Arc::new(entries));
        }
        self.chunks = chunks;
    }

    /// Takes a key out; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (index, place) = self.find(key);
        let place = place.ok()?;
        let entries = Arc::make_mut(&mut self.chunks[index]);
        let (_, value) = entries.remove(place);
        self.len -= 1;
        let left = entries.len();
        let next = self.chunks.get(index + 1).map_or(CHUNK, |next| next.len());
        if left == 0 {
            self.chunks.remove(index);
        } else if left + next <= CHUNK / 2 {
            // Few entries in many chunks would cost each copy more than they save.
            let next = self.chunks.remove(index + 1);
            Arc::make_mut(&mut self.chunks[index]).extend(next.iter().cloned());
        }
        Some(value)
    }
}

impl<K: Ord + Clone, V: PartialEq> SharedMap<K, V> {
    /// The keys whose values differ between the two maps, or that only one of them has, in order.
    pub fn changed_keys(&self, other: &Self) -> Vec<K> {
        let mut changed = Vec::new();
        let (mut ours, mut theirs) = (Cursor::of(self), Cursor::of(other));
        loop {
            if ours.skip_shared(&mut theirs) {
                continue;
            }
            let order = match (ours.entry(), theirs.entry()) {
                (None, None) => return changed,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((our_key, our)), Some((their_key, their))) => {
                    let order = our_key.cmp(their_key);
                    if order.is_eq() && our == their {
                        ours.advance();
                        theirs.advance();
                        continue;
                    }
                    order
                }
            };
            let first = if order.is_gt() { &theirs } else { &ours };
            changed.extend(first.entry().map(|(key, _)| key.clone()));
            if order.is_le() {
                ours.advance();
            }
            if order.is_ge() {
                theirs.advance();
            }
        }
    }
}

/// A place in a map.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    place: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(map: &'a SharedMap<K, V>) -> Self {
        Self {
            chunks: &map.chunks,
            place: 0,
        }
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.chunks.first().map(|chunk| &chunk[self.place])
    }

    fn advance(&mut self) {
        self.place += 1;
        if self.chunks.first().is_some_and(|c| c.len() == self.place) {
            self.skip_chunk();
        }
    }

    fn skip_chunk(&mut self) {
        self.chunks = &self.chunks[1..];
        self.place = 0;
    }

    /// Goes behind a chunk that both maps have, if both are at its beginning.
    fn skip_shared(&mut self, other: &mut Self) -> bool {
        let is_shared = match (self.chunks, other.chunks) {
            ([ours, ..], [theirs, ..]) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        let skips = is_shared && self.place == 0 && other.place == 0;
        if skips {
            self.skip_chunk();
            other.skip_chunk();
        }
        skips
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

impl<K: Ord, V> std::ops::Index<&K> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("no entry found for key")
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for SharedMap<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K, V> Visitor<'de> for Entries<K, V>
        where
            K: Ord + Clone + Deserialize<'de>,
            V: Clone + Deserialize<'de>,
        {
            type Value = SharedMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = SharedMap::new();
                while let Some((key, value)) = access.next_entry()? {
                    map.insert(key, value);
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
