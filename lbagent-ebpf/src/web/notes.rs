//! Hints about connections that proved their address, in a table of fixed size.
//!
//! A cookie tells a connection's first segment, and nothing tells later ones from those of a
//! connection that nobody knows. Without a hint the answer is still right or late: see `later.rs`.

use lbagent_common::Settings;
use lbagent_common::hash;

use super::Segment;
use super::maps::{self, Place};
use crate::kernel;
use crate::maps::Seen;
use crate::packet::Packet;

/// What is known of a connection. Two flows share a place, and the last one has it; what is in it
/// tells whose it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Note {
    kind: u32,
    /// When, in ticks.
    tick: u32,
    /// What the client sends next at least.
    sequence: u32,
    /// What it acknowledged.
    acknowledged: u32,
}

/// Opened, and nothing came yet.
pub const OPENED: u32 = 1;
/// The first segment was left to the terminator.
pub const PASSED: u32 = 2;
/// Answered.
pub const ANSWERED: u32 = 3;

/// How long hints count, in ticks: as long as cookies.
const TICKS: u32 = 112;
/// How far a client may be ahead: windows are not scaled.
const WINDOW: u32 = 0xffff;

impl Note {
    /// Of this kind, about a client that has sent everything before `sequence`.
    #[inline(always)]
    pub fn new(kind: u32, tick: u32, sequence: u32, acknowledged: u32) -> Self {
        Self {
            kind,
            tick,
            sequence,
            acknowledged,
        }
    }

    /// The kind, if it is about the connection that a segment is of, whose client has acknowledged
    /// up to `answered` bytes more than was noted.
    #[inline(always)]
    pub fn kind_for(&self, segment: &Segment, tick: u32, answered: u32) -> u32 {
        // One less is the sequence number of a probe whether the connection lives.
        let ahead = segment.sequence.wrapping_sub(self.sequence).wrapping_add(1);
        let more = segment.acknowledged.wrapping_sub(self.acknowledged);
        if ahead <= WINDOW && more <= answered && tick.wrapping_sub(self.tick) <= TICKS {
            self.kind
        } else {
            0
        }
    }

    /// Whether it was made in this tick or the one before.
    #[inline(always)]
    pub fn is_fresh(&self, tick: u32) -> bool {
        tick.wrapping_sub(self.tick) <= 1
    }
}

/// How long the kernel keeps a connection that is over (TIME_WAIT, a minute), in ticks.
const KEPT_TICKS: u32 = 60;

/// Notes that a packet is left to the kernel, which may have its connection for a while.
#[inline(always)]
pub fn leave(packet: &Packet) {
    if let Some(left) = left(packet) {
        left.set(kernel::tick());
    }
}

/// Whether the kernel may have a connection of a client from its port, even one that is over.
#[inline(always)]
pub fn may_be_left(packet: &Packet) -> bool {
    // Asked for each SYN: small and cheap, so that it stays in the cache, and wrong now and then.
    let since = left(packet).map_or(0, |left| left.get());
    since != 0 && kernel::tick().wrapping_sub(since) <= KEPT_TICKS
}

#[inline(always)]
fn left(packet: &Packet) -> Option<Seen> {
    let [a, b, c, d] = packet.source.wire();
    let port = u32::from(packet.source_port.get());
    maps::left((a ^ b ^ c ^ d ^ port << 16).wrapping_mul(0x9e37_79b1))
}

/// Where a flow's hint is.
#[inline(always)]
pub fn place(settings: &Settings, packet: &Packet) -> Option<Place> {
    let [.., vip] = packet.destination.wire();
    let seed = settings.hash_seed ^ u64::from(vip);
    maps::place(hash::flow_hash(
        seed,
        &packet.source,
        packet.source_port,
        packet.destination_port,
        packet.protocol,
    ))
}
