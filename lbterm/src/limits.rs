//! How many connections clients may have: in all, and from one place.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lbagent_api::terminator::Limits;

/// Parts of the table of sources, each with a lock of its own.
const PARTS: usize = 64;

/// One place that connections come from: an IPv4 address, or an IPv6 /64, which is what one
/// customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64)).into(),
            v4 => v4,
        })
    }
}

/// Counts the connections that are open.
#[derive(Debug)]
pub struct Admission {
    open: AtomicU64,
    sources: [Mutex<HashMap<Source, u32>>; PARTS],
    hasher: RandomState,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            open: AtomicU64::new(0),
            sources: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as allowed are open.
    Total,
    /// As many as allowed are open from this source.
    Source,
}

impl Admission {
    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Admits a connection until the permit is dropped. It is of no source until
    /// [`Permit::count_source`].
    pub fn admit(self: &Arc<Self>, limits: &Limits) -> Result<Permit, Refusal> {
        let below = |open| (open < u64::from(limits.connections)).then_some(open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .map_err(|_| Refusal::Total)?;
        Ok(Permit {
            admission: Arc::clone(self),
            source: None,
        })
    }

    fn with_source<R>(&self, source: Source, change: impl FnOnce(&mut u32) -> R) -> R {
        let part = self.hasher.hash_one(source) % PARTS as u64;
        // Counting does not panic, so what a poisoned lock guards is whole.
        let mut sources = self.sources[part as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open = sources.entry(source).or_default();
        let result = change(open);
        if *open == 0 {
            sources.remove(&source);
        }
        result
    }
}

/// An admitted connection.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    source: Option<Source>,
}

impl Permit {
    /// Counts the connection among those of its client, once. Sources are counted without a limit too,
    /// so that a limit which comes later counts what is open then.
    pub fn count_source(&mut self, client: IpAddr, limits: &Limits) -> Result<(), Refusal> {
        let source = Source::from(client);
        let is_admitted = self.admission.with_source(source, |open| {
            let is_below =
                limits.connections_per_source == 0 || *open < limits.connections_per_source;
            *open += u32::from(is_below);
            is_below
        });
        if !is_admitted {
            return Err(Refusal::Source);
        }
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            self.admission
                .with_source(source, |open| *open = open.saturating_sub(1));
        }
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_in_all_and_by_source() {
        let admission = Arc::<Admission>::default();
        let limits = Limits {
            connections: 3,
            connections_per_source: 2,
            ..Limits::default()
        };
        let admit = |peer: &str| {
            let mut permit = admission.admit(&limits)?;
            permit.count_source(peer.parse().unwrap(), &limits)?;
            Ok::<_, Refusal>(permit)
        };
        let first = admit("2001:db8:0:1::1").unwrap();
        let _second = admit("2001:db8:0:1:ffff::2").unwrap();
        assert_eq!(admit("2001:db8:0:1::3").unwrap_err(), Refusal::Source);
        let _third = admit("2001:db8:0:2::1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Refusal::Total);
        drop(first);
        assert_eq!(admission.open(), 2);
        assert!(admit("2001:db8:0:1::3").is_ok());
    }

    #[test]
    fn an_ipv4_address_is_a_source_of_its_own() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn nothing_is_kept_of_sources_without_connections() {
        let admission = Arc::<Admission>::default();
        for last in 0..=255 {
            let peer = IpAddr::from([192, 0, 2, last]);
            let mut permit = admission.admit(&Limits::default()).unwrap();
            permit.count_source(peer, &Limits::default()).unwrap();
        }
        let kept = admission
            .sources
            .iter()
            .map(|part| part.lock().unwrap().len());
        assert_eq!(kept.sum::<usize>(), 0);
    }
}
