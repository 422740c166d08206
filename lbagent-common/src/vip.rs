//! `VIPS`: what a packet's destination means.

use crate::{Addr, Port, Protocol};

/// Destination of a packet. Size 20, alignment 4. With port 0 and [`Protocol::ANY`] it names the
/// VIP address itself, whatever is published on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipKey {
    /// VIP address.
    pub addr: Addr,
    /// Published port.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
    #[doc(hidden)]
    pub pad: u8,
}

impl VipKey {
    /// Key of a published port.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, protocol: Protocol) -> Self {
        Self {
            addr,
            port,
            protocol,
            pad: 0,
        }
    }

    /// Key of the address entry.
    #[inline(always)]
    pub const fn address(addr: Addr) -> Self {
        Self::new(addr, Port::new(0), Protocol::ANY)
    }

    /// Whether this key names the address rather than a published port.
    pub const fn is_address(&self) -> bool {
        self.protocol.0 == 0
    }
}

/// What a VIP does with a match. Size 64, alignment 4.
///
/// `SLOTS[table_offset .. table_offset + table_len]` is the Maglev table. After a change of the
/// table's size the table from before stays at `previous_offset` and tells, with the `previous` of
/// its slots, who owns the flows that are not stored; `previous_len` 0 says that there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipEntry {
    /// Dense index of this VIP into `VIP_COUNTERS`; 0 for the address entry.
    pub vip_id: u32,
    /// First slot of the table.
    pub table_offset: u32,
    /// Slots in the table; 0 when the service group has never had a backend of this family.
    pub table_len: u32,
    /// First slot of the table before the last change of size.
    pub previous_offset: u32,
    /// Slots in that table; 0 for none.
    pub previous_len: u32,
    /// Port that the instances listen on.
    pub destination_port: Port,
    /// One of the `DISPOSITION_*` constants.
    pub disposition: u8,
    /// One of the `MODE_*` constants.
    pub forwarding_mode: u8,
    /// Bits of `FLAG_*`.
    pub flags: u32,
    /// Owner: the service group's UUID in RFC 9562 byte order. Read back after a restart.
    pub service_group: [u8; 16],
    /// Which rules of `SOURCES` and `QUIC_SERVERS` are this VIP's; 0 for none.
    pub policy_id: u32,
    /// Since when the table's *aged* slots are changed at least, and since when there is a former
    /// table, in ticks of 2^30 ns of the monotonic clock. Tells user space when slots may settle;
    /// programs do not use it.
    pub changed_at: u32,
    /// Tells the service group from others; [`crate::BackendEntry::group_tag`] has the same.
    pub group_tag: u32,
    /// Bytes of a server id in QUIC connection ids; 0 where connection ids tell nothing.
    pub quic_server_id_len: u8,
    /// Value of the first three bits of connection ids that carry a server id.
    pub quic_config_rotation: u8,
    /// Place of the VIP's address in bit sets, from 1; 0 for none. See [`bit`](Self::bit).
    pub vip_index: u8,
    #[doc(hidden)]
    pub pad: [u8; 5],
}

impl VipEntry {
    /// Packets go to backends.
    pub const DISPOSITION_FORWARD: u8 = 0;
    /// Packets go up to the terminator.
    pub const DISPOSITION_TERMINATE: u8 = 1;
    /// Destination NAT, replies come back through the gateway.
    pub const MODE_NAT: u8 = 0;
    /// The frame goes to the backend as it is: both share a link, and the backend has the VIP.
    pub const MODE_DSR_L2: u8 = 1;
    /// Inside of another IP packet (RFC 2003, RFC 2473); the backend has the VIP.
    pub const MODE_DSR_IPIP: u8 = 2;
    /// Inside of a UDP packet (draft-ietf-intarea-gue, variant 1); the backend has the VIP.
    pub const MODE_DSR_GUE: u8 = 3;
    /// (backend, port) does not tell this VIP on the way back, so every flow gets a `NAT_FLOWS`
    /// entry.
    pub const FLAG_TRACK_RETURN: u32 = 1;
    /// `SOURCES` has rules for [`policy_id`](Self::policy_id).
    pub const FLAG_SOURCES: u32 = 2;

    /// Port 80 of the terminator: clients of names in `HOSTS` are sent to HTTPS before the kernel has
    /// seen them.
    pub const FLAG_REDIRECT: u32 = 4;
    /// A port of the terminator whose SYNs may be answered with cookies before the kernel has seen them.
    pub const FLAG_SHIELD: u32 = 8;
    /// Highest [`vip_index`](Self::vip_index).
    pub const MAX_VIP_INDEX: u8 = 64;

    /// A port of the terminator. It is no one group's: many may share it, told apart by host name.
    pub const TERMINATED: Self = Self {
        vip_id: 0,
        table_offset: 0,
        table_len: 0,
        previous_offset: 0,
        previous_len: 0,
        destination_port: Port::new(0),
        disposition: Self::DISPOSITION_TERMINATE,
        forwarding_mode: 0,
        flags: 0,
        service_group: [0; 16],
        policy_id: 0,
        changed_at: 0,
        group_tag: 0,
        quic_server_id_len: 0,
        quic_config_rotation: 0,
        vip_index: 0,
        pad: [0; 5],
    };

    /// The bit of the VIP's address in [`crate::HostEntry`]; 0 where it has none.
    #[inline(always)]
    pub const fn bit(&self) -> u64 {
        match self.vip_index {
            index @ 1..=Self::MAX_VIP_INDEX => 1 << (index - 1),
            _ => 0,
        }
    }

    /// Whether packets go up to the terminator.
    #[inline(always)]
    pub const fn is_terminated(&self) -> bool {
        self.disposition == Self::DISPOSITION_TERMINATE
    }
}
