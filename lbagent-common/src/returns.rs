//! `RETURNS`: which VIP a backend's reply belongs to.

use crate::{Addr, BackendId, Port, Protocol};

/// Source of a reply. Size 20, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReturnKey {
    /// Backend address.
    pub backend: Addr,
    /// Port that the backend listens on.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
    #[doc(hidden)]
    pub pad: u8,
}

impl ReturnKey {
    /// Key of a backend's listening port.
    #[inline(always)]
    pub const fn new(backend: Addr, port: Port, protocol: Protocol) -> Self {
        Self {
            backend,
            port,
            protocol,
            pad: 0,
        }
    }
}

/// The VIP to restore. Size 48, alignment 4.
///
/// Where several VIPs share the backend's port, `FLAG_AMBIGUOUS` is set, the flow's `NAT_FLOWS`
/// entry decides, and this entry holds the VIP that had the port first, for flows from before the
/// second one was published.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnEntry {
    /// VIP address.
    pub vip: Addr,
    /// The gateway's own address towards this backend: replies to it belong to `NAT_FLOWS`.
    pub source: Addr,
    /// Index into `VIP_COUNTERS`.
    pub vip_id: u32,
    /// Index into `BACKEND_COUNTERS`.
    pub backend_id: BackendId,
    /// VIP port.
    pub vip_port: Port,
    /// Bits of `FLAG_*`.
    pub flags: u16,
    #[doc(hidden)]
    pub pad: u32,
}

impl ReturnEntry {
    /// More than one VIP publishes this backend's port.
    pub const FLAG_AMBIGUOUS: u16 = 1;
}
