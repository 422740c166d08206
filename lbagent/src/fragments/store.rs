//! The fragments that wait, by datagram. Pure: the caller brings the time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lbagent_common::FragmentKey;

use crate::dataplane::HeldFrame;

/// How long a fragment waits at most. A first fragment that was overtaken comes within the difference
/// of two ways' delays; one that was lost never comes, because what is sent again gets another
/// identification. So this is far less than the 30 s for which receivers keep datagrams.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// The shortest time between two looks for the first fragment.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Nanoseconds of a duration that is known to be short.
pub const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// A datagram whose first fragment has not come.
struct Datagram {
    key: FragmentKey,
    frames: Vec<HeldFrame>,
    /// When the first of its frames came.
    since: u64,
    next_look: u64,
}

/// The fragments that wait. Times are ns of the monotonic clock.
pub struct Store {
    capacity: usize,
    /// By order of arrival.
    datagrams: BTreeMap<u64, Datagram>,
    places: HashMap<FragmentKey, u64>,
    next_place: u64,
    frames: usize,
}

impl Store {
    /// For so many frames, 1 at least.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            datagrams: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
            frames: 0,
        }
    }

    /// How many frames wait.
    pub const fn len(&self) -> usize {
        self.frames
    }

    /// Takes a frame in, which is to be looked after at once. Where there is no room the oldest
    /// datagram gives way: its first fragment is the least likely to come. Returns how many frames
    /// gave way.
    pub fn insert(&mut self, frame: HeldFrame, now: u64) -> usize {
        let before = self.frames;
        while self.frames >= self.capacity && self.pop_oldest() {}
        let displaced = before - self.frames;
        let place = *self.places.entry(frame.key).or_insert(self.next_place);
        self.next_place += 1;
        let datagram = self.datagrams.entry(place).or_insert_with(|| Datagram {
            key: frame.key,
            frames: Vec::new(),
            since: frame.time_ns,
            next_look: now,
        });
        datagram.frames.push(frame);
        self.frames += 1;
        displaced
    }

    /// The datagrams whose first fragment is to be looked for now, the oldest first.
    pub fn due(&self, now: u64) -> Vec<FragmentKey> {
        let due = self.datagrams.values();
        due.filter(|datagram| datagram.next_look <= now)
            .map(|datagram| datagram.key)
            .collect()
    }

    /// The first fragment was not there. The next look is as much later as the datagram is old: so
    /// a fragment waits at most twice as long as it must, and looks get rare.
    pub fn postpone(&mut self, key: &FragmentKey, now: u64) {
        let place = self.places.get(key);
        if let Some(datagram) = place.and_then(|place| self.datagrams.get_mut(place)) {
            let age = now.saturating_sub(datagram.since);
            datagram.next_look = now + age.max(nanos(SHORTEST_WAIT));
        }
    }

    /// Takes a datagram's frames out, in the order in which they came.
    pub fn take(&mut self, key: &FragmentKey) -> Vec<HeldFrame> {
        let place = self.places.remove(key);
        let datagram = place.and_then(|place| self.datagrams.remove(&place));
        let frames = datagram.map_or_else(Vec::new, |datagram| datagram.frames);
        self.frames -= frames.len();
        frames
    }

    /// Forgets what has waited for too long; returns how many frames that were.
    pub fn expire(&mut self, now: u64) -> usize {
        let before = self.frames;
        let is_over = |datagram: &Datagram| has_expired(datagram.since, now);
        while self.datagrams.values().next().is_some_and(is_over) && self.pop_oldest() {}
        before - self.frames
    }

    /// When something is to be done next: a look, or the end of a wait.
    pub fn next_due(&self) -> Option<u64> {
        let looks = self.datagrams.values().map(|datagram| datagram.next_look);
        let end = self.datagrams.values().next();
        let end = end.map(|datagram| datagram.since + nanos(DEADLINE));
        looks.chain(end).min()
    }

    fn pop_oldest(&mut self) -> bool {
        let Some((_, datagram)) = self.datagrams.pop_first() else {
            return false;
        };
        self.places.remove(&datagram.key);
        self.frames -= datagram.frames.len();
        true
    }
}

/// Whether a fragment that came at a time has waited for too long.
pub const fn has_expired(since: u64, now: u64) -> bool {
    now.saturating_sub(since) >= nanos(DEADLINE)
}
