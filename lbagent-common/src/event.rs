//! `EVENTS`: sampled packets, for whoever watches.

use crate::{Addr, BackendId, Port, Protocol};

/// What became of one packet. Size 72, alignment 8.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEvent {
    /// When the packet had its outcome, in ns of the monotonic clock.
    pub time_ns: u64,
    /// Source address as the packet arrived; unspecified where its headers were not read.
    pub source: Addr,
    /// Destination address as the packet arrived.
    pub destination: Addr,
    /// Source port as the packet arrived.
    pub source_port: Port,
    /// Destination port as the packet arrived.
    pub destination_port: Port,
    /// Index of the [`crate::Outcome`].
    pub outcome: u32,
    /// Length of the frame as it arrived.
    pub bytes: u32,
    /// Interface that it arrived by.
    pub ifindex: u32,
    /// Index into `VIP_COUNTERS`, where the packet was counted for a backend; else 0.
    pub vip_id: u32,
    /// Index into `BACKEND_COUNTERS` likewise. Of a reply, which has 0, the source tells.
    pub backend_id: BackendId,
    /// Transport protocol; 0 where the headers were not read.
    pub protocol: Protocol,
    #[doc(hidden)]
    pub pad: [u8; 7],
}

/// A CPU's event while its packet is under way. Size 88, alignment 8.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventDraft {
    /// What is known so far.
    pub event: FlowEvent,
    /// Events for which the ring had no room, since the maps were made.
    pub lost: u64,
    /// Not 0 while the CPU's packet is one of the sample.
    pub is_sampled: u32,
    #[doc(hidden)]
    pub pad: u32,
}
