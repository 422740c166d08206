//! The way back: which VIP a backend's reply is restored to.

use std::collections::{BTreeMap, BTreeSet};

use lbagent_common::{Addr, BackendId, ReturnEntry, ReturnKey, VipEntry, VipKey};

/// A VIP that a reply may belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) vip: VipKey,
    pub(super) vip_id: u32,
    pub(super) backend_id: BackendId,
    /// The gateway's own address towards the backend.
    pub(super) source: Addr,
}

/// All candidates by reply source.
pub(super) type Candidates = BTreeMap<ReturnKey, Vec<Candidate>>;

/// Entries for all reply sources. Sets [`VipEntry::FLAG_TRACK_RETURN`] on the VIPs that share one.
pub(super) fn resolve(
    candidates: &Candidates,
    actual: &BTreeMap<ReturnKey, ReturnEntry>,
    vips: &mut BTreeMap<VipKey, VipEntry>,
) -> BTreeMap<ReturnKey, ReturnEntry> {
    let mut tracked = BTreeSet::new();
    let mut entries = BTreeMap::new();
    for (key, candidates) in candidates {
        let Some(holder) = holder(candidates, actual.get(key)) else {
            continue;
        };
        let is_ambiguous = candidates.iter().any(|other| other.vip != holder.vip);
        if is_ambiguous {
            tracked.extend(candidates.iter().map(|candidate| candidate.vip));
        }
        let entry = ReturnEntry {
            vip: holder.vip.addr,
            source: holder.source,
            vip_id: holder.vip_id,
            backend_id: holder.backend_id,
            vip_port: holder.vip.port,
            flags: if is_ambiguous {
                ReturnEntry::FLAG_AMBIGUOUS
            } else {
                0
            },
            ..ReturnEntry::default()
        };
        entries.insert(*key, entry);
    }
    for (key, entry) in vips {
        entry.flags = if tracked.contains(key) {
            VipEntry::FLAG_TRACK_RETURN
        } else {
            0
        };
    }
    entries
}

/// The VIP that replies without a stored flow belong to: the one that had the port before others
/// came, because only its flows can be older than the storing.
fn holder<'a>(candidates: &'a [Candidate], actual: Option<&ReturnEntry>) -> Option<&'a Candidate> {
    let had_it = |candidate: &&Candidate| {
        actual.is_some_and(|entry| {
            (entry.vip_id, entry.vip, entry.vip_port)
                == (candidate.vip_id, candidate.vip.addr, candidate.vip.port)
        })
    };
    let rank = |candidate: &&Candidate| (candidate.vip_id, candidate.backend_id);
    let former = candidates.iter().filter(had_it).min_by_key(rank);
    former.or_else(|| candidates.iter().min_by_key(rank))
}
