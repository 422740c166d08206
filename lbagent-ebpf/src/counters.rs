//! Per-CPU counters of outcomes, VIPs and backends.

use lbagent_common::{BackendId, Outcome, Settings, Steered};

use crate::{events, maps};

/// Counts the packet's one outcome.
#[inline(always)]
pub fn outcome(outcome: Outcome, bytes: u32) {
    maps::count_outcome(outcome, u64::from(bytes));
}

/// Counts a packet towards a backend.
#[inline(always)]
pub fn forwarded(settings: &Settings, vip_id: u32, backend: BackendId, is_new: bool, bytes: u32) {
    let add = |counter: &mut lbagent_common::TrafficCounter| {
        counter.flows += u64::from(is_new);
        counter.in_packets += 1;
        counter.in_bytes += u64::from(bytes);
    };
    maps::count_vip(vip_id, add);
    maps::count_backend(backend, add);
    events::has_backend(settings, vip_id, backend);
}

/// Counts a packet towards a client. Watchers find its backend by its source.
#[inline(always)]
pub fn returned(vip_id: u32, backend: BackendId, bytes: u32) {
    let add = |counter: &mut lbagent_common::TrafficCounter| {
        counter.out_packets += 1;
        counter.out_bytes += u64::from(bytes);
    };
    maps::count_vip(vip_id, add);
    maps::count_backend(backend, add);
}

/// Counts a connection to a terminated port.
#[inline(always)]
pub fn steered(end: Steered) {
    maps::count_steered(end);
}
