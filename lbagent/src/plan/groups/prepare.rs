//! What a group's plan needs that no other group's plan changes: worked out for many groups at once.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use uuid::Uuid;

use super::super::backends::{Member, Members};
use super::super::publish::PublishedGroup;
use super::super::{Family, maglev};
use super::{families, wanted_len};

/// Groups that are prepared at once: their tables are in memory together.
pub(super) const PORTION: usize = 1 << 10;
/// Groups that are worth another thread.
const SHARE: usize = 1 << 6;

/// By family: the members, and the active ones' Maglev table, which holds places among these; empty
/// when there is none.
pub(super) type Prepared = BTreeMap<Family, (Vec<Member>, Vec<u32>)>;

/// Prepares groups, in their order; many of them by several threads.
pub(super) fn prepare(
    members: &Members<'_>,
    seed: u64,
    groups: &[&PublishedGroup],
) -> Vec<Prepared> {
    let all = |groups: &[&PublishedGroup]| -> Vec<Prepared> {
        let each = |group: &&PublishedGroup| one(members, seed, group);
        groups.iter().map(each).collect()
    };
    if groups.len() <= SHARE {
        // To ask how many CPUs there are takes longer than to prepare a few groups.
        return all(groups);
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = groups.len().div_ceil(threads).max(SHARE);
    let (first, rest) = groups.split_at(share.min(groups.len()));
    thread::scope(|scope| {
        let others = rest
            .chunks(share)
            .map(|share| scope.spawn(move || all(share)));
        let others: Vec<_> = others.collect();
        let mut prepared = all(first);
        for other in others {
            prepared.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        prepared
    })
}

fn one(members: &Members<'_>, seed: u64, (group, ports): &PublishedGroup) -> Prepared {
    let of_family = |family| {
        let of_group = members.of(*group, family);
        let len = wanted_len(members.eligible(*group, family));
        let active = of_group.iter().filter(|member| member.is_active);
        let weights = active.map(|member| (member.instance, member.entry.weight));
        let weights: Vec<(Uuid, u16)> = weights.collect();
        let table = maglev::build(&weights, seed, len).unwrap_or_default();
        (family, (of_group, table))
    };
    families(ports).into_iter().map(of_family).collect()
}
