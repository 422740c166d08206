//! What a shared map is made of: leaves with entries, and branches that share what is below them.

use std::borrow::Borrow;
use std::sync::Arc;

/// Entries in the order of their keys. Only a map without entries has a node without any.
pub(super) trait Node: Sized {
    /// What entries are found by.
    type Key;
    /// What they hold.
    type Value;
    /// Most entries or nodes right below it; a moment longer there may be one more.
    const WIDTH: usize;

    /// A node of one entry.
    fn of(key: Self::Key, value: Self::Value) -> Self;

    /// All entries.
    fn iter(&self) -> impl DoubleEndedIterator<Item = (&Self::Key, &Self::Value)> + Clone;

    /// Entries or nodes right below it.
    fn width(&self) -> usize;

    /// Whether it takes no key above its last one.
    fn is_full(&self) -> bool;

    fn last_key(&self) -> Option<&Self::Key>;

    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Self::Value>
    where
        Self::Key: Borrow<Q>;

    /// From one key to another, both inclusive.
    fn range<'a>(
        &'a self,
        from: &Self::Key,
        to: &Self::Key,
    ) -> impl DoubleEndedIterator<Item = (&'a Self::Key, &'a Self::Value)> + use<'a, Self>
    where
        Self::Key: Ord + Clone;
}

/// What can be changed, at the cost of copying what is shared on the way.
pub(super) trait Change: Node + Clone {
    fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut Self::Value>
    where
        Self::Key: Borrow<Q>;

    fn values_mut(&mut self) -> impl Iterator<Item = &mut Self::Value>;

    fn insert(&mut self, key: Self::Key, value: Self::Value) -> Option<Self::Value>
    where
        Self::Key: Ord;

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<Self::Value>
    where
        Self::Key: Borrow<Q>;

    /// Its upper half.
    fn split(&mut self) -> Self;

    /// Takes what comes behind it.
    fn append(&mut self, next: Self);

    fn into_entries(self) -> impl Iterator<Item = (Self::Key, Self::Value)>;
}

/// Entries. A change copies half of the most there may be, on average.
#[derive(Clone)]
pub(super) struct Leaf<K, V>(pub(super) Vec<(K, V)>);

impl<K, V> Leaf<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0
            .binary_search_by(|(known, _)| known.borrow().cmp(key))
    }
}

impl<K, V> Node for Leaf<K, V> {
    type Key = K;
    type Value = V;
    const WIDTH: usize = 32;

    fn of(key: K, value: V) -> Self {
        Self(vec![(key, value)])
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    fn width(&self) -> usize {
        self.0.len()
    }

    fn is_full(&self) -> bool {
        self.0.len() >= Self::WIDTH
    }

    fn last_key(&self) -> Option<&K> {
        self.0.last().map(|(key, _)| key)
    }

    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        Some(&self.0[place].1)
    }

    fn range<'a>(
        &'a self,
        from: &K,
        to: &K,
    ) -> impl DoubleEndedIterator<Item = (&'a K, &'a V)> + use<'a, K, V>
    where
        K: Ord + Clone,
    {
        let start = self.find(from).unwrap_or_else(|place| place);
        let end = self.find(to).map_or_else(|place| place, |place| place + 1);
        let entries = self.0.get(start..end).unwrap_or_default();
        entries.iter().map(|(key, value)| (key, value))
    }
}

impl<K: Clone, V: Clone> Change for Leaf<K, V> {
    fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        Some(&mut self.0[place].1)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    fn insert(&mut self, key: K, value: V) -> Option<V>
    where
        K: Ord,
    {
        match self.find(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.0.insert(place, (key, value));
                None
            }
        }
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.find(key).ok()?;
        Some(self.0.remove(place).1)
    }

    fn split(&mut self) -> Self {
        Self(self.0.split_off(self.0.len() / 2))
    }

    fn append(&mut self, next: Self) {
        self.0.extend(next.0);
    }

    fn into_entries(self) -> impl Iterator<Item = (K, V)> {
        self.0.into_iter()
    }
}

/// Nodes in the order of their keys.
pub(super) struct Branch<N>(pub(super) Vec<Arc<N>>);

impl<N> Clone for Branch<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Node> Branch<N> {
    /// The node that holds the key or is to take it; any number when there is none.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        N::Key: Borrow<Q>,
    {
        let is_before = |node: &Arc<N>| node.last_key().is_some_and(|last| last.borrow() < key);
        let place = self.0.partition_point(is_before);
        place.min(self.0.len().saturating_sub(1))
    }
}

impl<N: Node> Node for Branch<N> {
    type Key = N::Key;
    type Value = N::Value;
    const WIDTH: usize = 64;

    fn of(key: N::Key, value: N::Value) -> Self {
        Self(vec![Arc::new(N::of(key, value))])
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (&N::Key, &N::Value)> + Clone {
        self.0.iter().flat_map(|node| node.iter())
    }

    fn width(&self) -> usize {
        self.0.len()
    }

    fn is_full(&self) -> bool {
        self.0.len() >= Self::WIDTH && self.0.last().is_some_and(|last| last.is_full())
    }

    fn last_key(&self) -> Option<&N::Key> {
        self.0.last()?.last_key()
    }

    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&N::Value>
    where
        N::Key: Borrow<Q>,
    {
        self.0.get(self.find(key))?.get(key)
    }

    fn range<'a>(
        &'a self,
        from: &N::Key,
        to: &N::Key,
    ) -> impl DoubleEndedIterator<Item = (&'a N::Key, &'a N::Value)> + use<'a, N>
    where
        N::Key: Ord + Clone,
    {
        let nodes = self.0.get(self.find(from)..=self.find(to));
        let (from, to) = (from.clone(), to.clone());
        let nodes = nodes.unwrap_or_default().iter();
        nodes.flat_map(move |node| node.range(&from, &to))
    }
}

impl<N: Change> Change for Branch<N> {
    fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut N::Value>
    where
        N::Key: Borrow<Q>,
    {
        let place = self.find(key);
        Arc::make_mut(self.0.get_mut(place)?).get_mut(key)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut N::Value> {
        let nodes = self.0.iter_mut().map(Arc::make_mut);
        nodes.flat_map(N::values_mut)
    }

    fn insert(&mut self, key: N::Key, value: N::Value) -> Option<N::Value>
    where
        N::Key: Ord,
    {
        let place = self.find(&key);
        let Some(node) = self.0.get_mut(place) else {
            *self = Self::of(key, value);
            return None;
        };
        if node.is_full() && node.last_key() < Some(&key) {
            // Keys that come in their order fill one node after the other.
            self.0.insert(place + 1, Arc::new(N::of(key, value)));
            return None;
        }
        let node = Arc::make_mut(node);
        let former = node.insert(key, value);
        if node.width() > N::WIDTH {
            let upper = node.split();
            self.0.insert(place + 1, Arc::new(upper));
        }
        former
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<N::Value>
    where
        N::Key: Borrow<Q>,
    {
        let place = self.find(key);
        let node = Arc::make_mut(self.0.get_mut(place)?);
        let value = node.remove(key);
        let left = node.width();
        let next = self.0.get(place + 1).map_or(N::WIDTH, |next| next.width());
        if left == 0 {
            self.0.remove(place);
        } else if left + next <= N::WIDTH / 2 {
            // Few entries in many nodes would cost each copy more than they save.
            let next = self.0.remove(place + 1);
            Arc::make_mut(&mut self.0[place]).append(Arc::unwrap_or_clone(next));
        }
        value
    }

    fn split(&mut self) -> Self {
        Self(self.0.split_off(self.0.len() / 2))
    }

    fn append(&mut self, next: Self) {
        self.0.extend(next.0);
    }

    fn into_entries(self) -> impl Iterator<Item = (N::Key, N::Value)> {
        let nodes = self.0.into_iter().map(Arc::unwrap_or_clone);
        nodes.flat_map(N::into_entries)
    }
}
