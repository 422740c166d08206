//! `BACKENDS`: where a packet goes.

use crate::Addr;

/// Dense index of a backend into `BACKENDS` and `BACKEND_COUNTERS`; 0 is no backend.
pub type BackendId = u32;

/// One address of one instance. Size 64, alignment 8: one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// Address that packets are rewritten to.
    pub addr: Addr,
    /// The gateway's own address towards this backend: the source of flows whose client would
    /// otherwise be answered past the gateway. Unspecified when the agent found none.
    pub source: Addr,
    /// Owner: the instance's UUID in RFC 9562 byte order. Read back after a restart.
    pub instance: [u8; 16],
    /// Interface towards the backend; 0 when unknown.
    pub ifindex: u32,
    /// Weight that the Maglev table was built with.
    pub weight: u16,
    /// Prefix (of 128 bits) that the backend shares with clients on its own link: such clients
    /// get their source rewritten. 128 when only the backend itself is meant.
    pub onlink_prefix: u8,
    /// Bits of `FLAG_*`; 0 is an unused entry.
    pub flags: u8,
    /// Tells the instance's group from others that it was in: a new group is a new backend, so
    /// that no stored flow follows. Programs do not use it.
    pub group_tag: u32,
    #[doc(hidden)]
    pub pad: u32,
}

impl BackendEntry {
    /// The entry is in use: packets may be sent to it, old flows included.
    pub const FLAG_ALIVE: u8 = 1;
    /// No new flows; told from the table, kept here for the operator's view.
    pub const FLAG_DRAINING: u8 = 2;
    /// The interface towards it sends no frames that XDP redirects: the kernel forwards them.
    pub const FLAG_VIA_KERNEL: u8 = 4;

    /// Whether packets may be sent to this backend.
    #[inline(always)]
    pub const fn is_alive(&self) -> bool {
        self.flags & Self::FLAG_ALIVE != 0
    }

    /// Whether the kernel has to send the packets that XDP rewrote.
    #[inline(always)]
    pub const fn is_via_kernel(&self) -> bool {
        self.flags & Self::FLAG_VIA_KERNEL != 0
    }

    /// Whether the source must be rewritten for this client: it shares a link with the backend,
    /// which would answer it directly, past the gateway.
    #[inline(always)]
    pub const fn answers_directly(&self, client: &Addr) -> bool {
        self.addr.shares_prefix(client, self.onlink_prefix)
    }
}
