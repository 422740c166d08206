//! How many requests a source may make in a second, where that is limited.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use crate::limits::Source;

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 64;

/// Sources in a part from which on those that are quiet are forgotten.
const MANY: usize = 1024;

/// What a limit is for: a group's published port, or the gateway if there is none.
pub type Scope = Option<(Uuid, u16)>;

/// The allowance of each source: a second's worth at most, refilled as time passes.
#[derive(Debug)]
pub struct Rates {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Part {
    sources: HashMap<(Scope, Source), Allowance>,
    /// When those that are quiet were last forgotten: once a second at most, because it takes a
    /// walk over all.
    swept: Option<Instant>,
}

impl Part {
    /// Whoever has been quiet for a second begins anew either way.
    fn forget_quiet(&mut self, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at).as_secs() < 1;
        if self.sources.len() >= MANY && !self.swept.is_some_and(is_recent) {
            self.sources.retain(|_, allowance| is_recent(allowance.at));
            self.swept = Some(now);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    requests: f64,
    at: Instant,
}

impl Allowance {
    fn refill(&mut self, per_second: u32, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let most = f64::from(per_second);
        self.requests = (self.requests + seconds * most).min(most);
        self.at = now;
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Rates {
    /// Whether a source may make a request now, which is counted then.
    pub fn allows(&self, scope: Scope, peer: IpAddr, per_second: u32, now: Instant) -> bool {
        let source = (scope, Source::from(peer));
        let part = self.hasher.hash_one(source) % PARTS as u64;
        // Counting does not panic, so what a poisoned lock guards is whole.
        let mut part = self.parts[part as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        part.forget_quiet(now);
        let allowance = part.sources.entry(source).or_insert(Allowance {
            requests: f64::from(per_second),
            at: now,
        });
        allowance.refill(per_second, now);
        let is_allowed = allowance.requests >= 1.0;
        if is_allowed {
            allowance.requests -= 1.0;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_has_its_share_of_each_second() {
        let rates = Rates::default();
        let began = Instant::now();
        let allowed = |peer: &str, millis, tries| {
            let now = began + Duration::from_millis(millis);
            let peer = peer.parse().expect("an address");
            (0..tries)
                .filter(|_| rates.allows(None, peer, 10, now))
                .count()
        };
        assert_eq!(allowed("192.0.2.1", 0, 50), 10);
        assert_eq!(allowed("192.0.2.2", 0, 5), 5);
        assert_eq!(allowed("192.0.2.1", 500, 50), 5);
        assert_eq!(allowed("192.0.2.1", 500, 50), 0);
        assert_eq!(allowed("192.0.2.1", 60_000, 50), 10);
        assert_eq!(
            allowed("2001:db8::1", 0, 5) + allowed("2001:db8::2", 0, 50),
            10
        );
        // Limits of other scopes are others.
        let port = Some((Uuid::nil(), 443));
        let peer = IpAddr::from([192, 0, 2, 1]);
        assert!(rates.allows(port, peer, 1, began) && !rates.allows(port, peer, 1, began));
    }

    #[test]
    fn quiet_sources_are_forgotten() {
        let rates = Rates::default();
        let began = Instant::now();
        for second in 0..4 {
            for number in 0..100_000_u32 {
                let peer = IpAddr::from((number + second * 100_000).to_be_bytes());
                let now = began + Duration::from_secs(u64::from(second) * 2);
                assert!(rates.allows(None, peer, 1, now));
            }
        }
        let kept = rates
            .parts
            .iter()
            .map(|part| part.lock().expect("whole").sources.len());
        assert!(kept.sum::<usize>() <= 2 * 100_000 + PARTS * MANY);
    }
}
