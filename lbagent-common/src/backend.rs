//! `BACKENDS`: where a packet goes.

use crate::Addr;

/// Dense index of a backend into `BACKENDS` and `BACKEND_COUNTERS`; 0 is no backend.
pub type BackendId = u32;

/// One address of one instance. Size 128, alignment 8: two cache lines, the first of which holds
/// all that an ordinary packet needs.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// Address that packets are rewritten to, or that outer headers are for.
    pub addr: Addr,
    /// Mask of the prefix that the backend shares with clients on its own link: such clients get
    /// their source rewritten. All ones when only the backend itself is meant.
    pub onlink_mask: Addr,
    /// The first 12 bytes of a frame to the next hop: its link address, then the gateway's own.
    /// Valid with [`FLAG_NEXT_HOP`](Self::FLAG_NEXT_HOP).
    pub link: [u32; 3],
    /// Interface that frames to the next hop leave by (the port, where the route names a bridge;
    /// the device below, where it names a VLAN); 0 when unknown.
    pub ifindex: u32,
    /// Largest IP packet on the way, in bytes; 0 when unknown.
    pub mtu: u16,
    /// VLAN that frames to the next hop are tagged with; 0 for none.
    pub vlan: u16,
    /// Bits of `FLAG_*`; 0 is an unused entry.
    pub flags: u16,
    /// Weight that the Maglev table was built with.
    pub weight: u16,
    /// Tells the instance's group from others, as [`crate::VipEntry::group_tag`]: a stored flow
    /// follows no id that another group's instance got since.
    pub group_tag: u32,
    #[doc(hidden)]
    pub pad: u32,
    /// The gateway's own address towards this backend: the source of flows whose client would
    /// otherwise be answered past the gateway, and of outer headers. Unspecified when the agent
    /// found none.
    pub source: Addr,
    /// Owner: the instance's UUID in RFC 9562 byte order. Read back after a restart.
    pub instance: [u8; 16],
    #[doc(hidden)]
    pub pad_end: [u32; 8],
}

impl BackendEntry {
    /// The entry is in use: packets may be sent to it, old flows included.
    pub const FLAG_ALIVE: u16 = 1;
    /// No new flows; told from the table, kept here for the operator's view.
    pub const FLAG_DRAINING: u16 = 2;
    /// The interface towards it sends no frames that XDP redirects: the kernel forwards them.
    pub const FLAG_VIA_KERNEL: u16 = 4;
    /// `link` and `ifindex` tell the way; otherwise the programs ask the kernel's routing table.
    pub const FLAG_NEXT_HOP: u16 = 8;
    /// Its health checks fail. The programs ignore it: the table says who takes flows. Read back
    /// after a restart.
    pub const FLAG_UNHEALTHY: u16 = 16;

    /// Whether its health checks fail.
    pub const fn is_unhealthy(&self) -> bool {
        self.flags & Self::FLAG_UNHEALTHY != 0
    }

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

    /// Whether the agent resolved the way to this backend.
    #[inline(always)]
    pub const fn has_next_hop(&self) -> bool {
        self.flags & Self::FLAG_NEXT_HOP != 0
    }

    /// Whether gateway and backend share a link that others may be on too: then a frame for the
    /// backend reaches it without a router.
    #[inline(always)]
    pub const fn shares_link(&self) -> bool {
        // A mask that ends in a one names the backend alone.
        self.onlink_mask.wire()[3] != u32::MAX
    }

    /// Whether the source must be rewritten for this client: it shares a link with the backend,
    /// which would answer it directly, past the gateway.
    #[inline(always)]
    pub const fn answers_directly(&self, client: &Addr) -> bool {
        self.addr.agrees(client, &self.onlink_mask)
    }

    /// The first 12 bytes of a frame from one link address to another.
    pub const fn link_words(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        ]
    }
}
