//! `CONNS` and `NAT_FLOWS`: the few flows that the tables cannot tell.

use crate::{Addr, BackendId, Port, Protocol};

/// A flow of a slot whose owner changed. Size 24, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// Client address.
    pub client: Addr,
    /// VIP that the flow is of; tells address, port and protocol.
    pub vip_id: u32,
    /// Client port.
    pub client_port: Port,
    #[doc(hidden)]
    pub pad: u16,
}

impl ConnKey {
    /// Key of a flow.
    #[inline(always)]
    pub const fn new(client: Addr, client_port: Port, vip_id: u32) -> Self {
        Self {
            client,
            vip_id,
            client_port,
            pad: 0,
        }
    }
}

/// Where a stored flow goes. Size 8, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnEntry {
    /// Owner of the flow.
    pub backend: BackendId,
    /// Last packet, in ticks of 2^30 ns of the monotonic clock.
    pub last_seen: u32,
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
    pub pad: [u8; 3],
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
            pad: [0; 3],
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
