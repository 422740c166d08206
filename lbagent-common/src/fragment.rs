//! `FRAGMENTS`: where the later fragments of a datagram go; `HELD`: those that came too early.

use crate::{Addr, BackendId, Port, Protocol};

/// A fragmented datagram (RFC 791 section 3.2; RFC 8200 section 4.5). Size 40, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Identification as it lies in the packet (IPv4: 16 bits of it).
    pub identification: u32,
    /// Protocol of the datagram; in IPv6 the fragment header's next header.
    pub protocol: Protocol,
    #[doc(hidden)]
    pub pad: u8,
    /// Zero.
    pub pad_end: u16,
}

/// What the first fragment decided. Size 60, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentEntry {
    /// Source address that the datagram gets.
    pub source: Addr,
    /// Destination address that the datagram gets.
    pub destination: Addr,
    /// Backend that it goes to, or, with [`FLAG_REPLY`](Self::FLAG_REPLY), comes from.
    pub backend_id: BackendId,
    /// Index into `VIP_COUNTERS`.
    pub vip_id: u32,
    /// When the first fragment came, in ticks of 2^30 ns of the monotonic clock.
    pub seen: u32,
    /// Bits of `FLAG_*`.
    pub flags: u32,
    /// Source port that the datagram came with.
    pub source_port: Port,
    /// Destination port that it came with.
    pub destination_port: Port,
    /// Its transport protocol: what the key has may be an extension header.
    pub protocol: Protocol,
    #[doc(hidden)]
    pub pad: u8,
    /// Zero.
    pub pad_end: u16,
}

impl FragmentEntry {
    /// The datagram is a reply on its way to a client.
    pub const FLAG_REPLY: u32 = 1;
    /// The datagram is for a VIP address but for none of its published ports: it passes.
    pub const FLAG_PASS: u32 = 2;
}

/// A later fragment for a VIP that came before the first one of its datagram. Size 2104, alignment 8.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFragment {
    /// When it came, in ns of the monotonic clock.
    pub time_ns: u64,
    /// Its datagram.
    pub key: FragmentKey,
    /// Interface that it came by.
    pub ifindex: u32,
    /// Length of the frame.
    pub len: u32,
    /// The frame as it came, VLAN tags included; what lies behind it means nothing.
    pub frame: [u8; Self::LONGEST as usize],
}

impl HeldFragment {
    /// Bytes of the longest frame that is held: a power of two, because the programs mask with it.
    pub const LONGEST: u32 = 2_048;
}
