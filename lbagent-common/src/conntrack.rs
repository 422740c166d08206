//! `CONNS` and `NAT_FLOWS`: the few flows that the tables cannot tell.

use crate::{Addr, BackendId, Port, Protocol};

/// Where a stored flow goes. Size 16, alignment 8.
///
/// The flow itself is not held but a 64-bit tag of it, [`conn_tag`], which two flows share with a
/// chance of 2^-62 for each of the four entries looked at. The tag is stored combined with the
/// owner, so that a reader that sees one half of an entry being replaced finds no match.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnEntry {
    /// Tag and owner combined; see [`ConnEntry::tag`].
    check: u64,
    /// Owner of the flow; 0 for a free entry.
    pub backend: BackendId,
    /// Last packet, in ticks of 2^30 ns of the monotonic clock; the top bit is
    /// [`ESTABLISHED`](Self::ESTABLISHED).
    pub last_seen: u32,
}

impl ConnEntry {
    /// The flow sent more than its first packet: a newer flow may not take its place.
    pub const ESTABLISHED: u32 = 1 << 31;

    /// An entry.
    #[inline(always)]
    pub const fn new(tag: u64, backend: BackendId, last_seen: u32) -> Self {
        Self {
            check: Self::combine(tag, backend),
            backend,
            last_seen,
        }
    }

    /// The flow's tag, unless the entry was being replaced.
    #[inline(always)]
    pub const fn tag(&self) -> u64 {
        Self::combine(self.check, self.backend)
    }

    /// Its own inverse.
    #[inline(always)]
    const fn combine(check: u64, backend: BackendId) -> u64 {
        check ^ (backend as u64) << 32 ^ backend as u64
    }

    /// The tick of the last packet.
    #[inline(always)]
    pub const fn tick(&self) -> u32 {
        self.last_seen & !Self::ESTABLISHED
    }

    /// Whether the flow sent more than its first packet.
    #[inline(always)]
    pub const fn is_established(&self) -> bool {
        self.last_seen & Self::ESTABLISHED != 0
    }
}

/// What `CONNS` holds of a flow: its hash, and the VIP in the lower bits, which select the bucket.
/// The upper half is the hash's own, so that user space can tell the flow's slot.
#[inline(always)]
pub const fn conn_tag(flow_hash: u64, vip_id: u32) -> u64 {
    flow_hash ^ vip_id as u64
}

/// Entries of a bucket.
pub const CONN_WAYS: usize = 4;

/// The flows whose tags end alike. Size 64, alignment 8: one cache line, as `CONNS` is mmapable
/// and so begins at a page.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnBucket {
    /// The flows, in no order.
    pub ways: [ConnEntry; CONN_WAYS],
}

/// A flow as its backend sees it, in the direction of its replies. Size 40, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatFlowKey {
    /// Backend address, source of the reply.
    pub backend: Addr,
    /// Where the backend sends its replies: the client, or the gateway where the source was
    /// rewritten.
    pub peer: Addr,
    /// Backend port.
    pub backend_port: Port,
    /// Peer port.
    pub peer_port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
    #[doc(hidden)]
    pub pad: u8,
    /// Zero.
    pub pad_end: u16,
}

impl NatFlowKey {
    /// Key of the reply's 5-tuple.
    #[inline(always)]
    pub const fn new(
        backend: Addr,
        backend_port: Port,
        peer: Addr,
        peer_port: Port,
        protocol: Protocol,
    ) -> Self {
        Self {
            backend,
            peer,
            backend_port,
            peer_port,
            protocol,
            pad: 0,
            pad_end: 0,
        }
    }
}

/// What the reply of a stored flow is restored to. Size 48, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatFlowEntry {
    /// Client address.
    pub client: Addr,
    /// VIP address.
    pub vip: Addr,
    /// Client port.
    pub client_port: Port,
    /// VIP port.
    pub vip_port: Port,
    /// Index into `VIP_COUNTERS`.
    pub vip_id: u32,
    /// Index into `BACKEND_COUNTERS`.
    pub backend_id: BackendId,
    /// Last packet, in ticks of 2^30 ns of the monotonic clock; the top bit is
    /// [`CLOSING`](Self::CLOSING).
    pub last_seen: u32,
}

impl NatFlowEntry {
    /// The client sent a FIN or a RST: the entry may be taken over by another flow.
    pub const CLOSING: u32 = 1 << 31;
}
