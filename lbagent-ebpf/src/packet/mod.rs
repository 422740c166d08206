//! Bounds-checked view of a packet. All packet-pointer `unsafe` is here.
//!
//! A packet lies between two addresses that the verifier tracks. Every access computes its
//! pointer from the start again and compares it with the end, so no pointer outlives a call that
//! may move the data.

mod parse;

use core::ffi::c_void;

use aya_ebpf::programs::{TcContext, XdpContext};
use lbagent_common::checksum::Difference;
use lbagent_common::{Port, Protocol};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

pub use self::parse::{Packet, parse};
use crate::kernel;

/// Offset of the IP header: frames with a VLAN tag are not balanced.
pub const L3_OFFSET: usize = EthHdr::LEN;

/// Which address of the IP header.
#[derive(Clone, Copy)]
pub enum Field {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
}

/// What XDP and TC have in common. Offsets count from the Ethernet header; stores return `None`
/// when the packet is too short.
pub trait Context {
    /// Whether another interface gets the packet by XDP, which not every interface can.
    const REDIRECTS_BY_XDP: bool;
    /// Address of the first byte.
    fn start(&self) -> usize;
    /// Address behind the last byte that can be accessed.
    fn end(&self) -> usize;
    /// Length in bytes, parts that cannot be accessed included.
    fn len(&self) -> u32;
    /// Interface that the packet came in by.
    fn arrival_ifindex(&self) -> u32;
    /// The kernel's context, for helpers.
    fn raw(&self) -> *mut c_void;
    /// Whether the network card took a VLAN tag off.
    fn has_vlan_tag(&self) -> bool;
    /// Makes the first bytes accessible where they may not be.
    fn make_accessible(&self);
    /// Length for the route's MTU check; 0 where the kernel knows better (GSO).
    fn mtu_len(&self, packet: &Packet) -> u16;
    /// Updates the transport checksum: `addresses` is in the pseudo-header, `ports` is not.
    fn update_l4_checksum(
        &self,
        packet: &Packet,
        addresses: Difference,
        ports: Difference,
    ) -> Option<()>;

    /// A pointer to a `T` at an offset, if it lies within the packet.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let pointer = self.start() + offset;
        if pointer + size_of::<T>() > self.end() {
            return None;
        }
        Some(pointer as *mut T)
    }

    /// Loads plain bytes at an offset.
    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        let pointer = self.at::<T>(offset)?;
        // SAFETY: `at` checked both ends, `Wire` types have no invalid bit pattern. Packet data
        // may be odd-aligned; the BPF instruction set defines such loads, and the verifier
        // refuses them on machines that cannot do them.
        Some(unsafe { pointer.read() })
    }

    /// Stores plain bytes at an offset.
    #[inline(always)]
    fn store<T: Wire>(&self, offset: usize, value: T) -> Option<()> {
        let pointer = self.at::<T>(offset)?;
        // SAFETY: as for `load`; the programs own the packet while they run.
        unsafe { pointer.write(value) };
        Some(())
    }

    /// Writes both link addresses.
    #[inline(always)]
    fn store_link_addresses(&self, destination: [u8; 6], source: [u8; 6]) -> Option<()> {
        self.store(0, destination)?;
        self.store(6, source)
    }

    /// Writes an IPv4 address (wire word).
    #[inline(always)]
    fn store_v4(&self, field: Field, address: u32) -> Option<()> {
        let offset = match field {
            Field::Source => core::mem::offset_of!(Ipv4Hdr, src_addr),
            Field::Destination => core::mem::offset_of!(Ipv4Hdr, dst_addr),
        };
        self.store(L3_OFFSET + offset, address)
    }

    /// Writes an IPv6 address (wire words).
    #[inline(always)]
    fn store_v6(&self, field: Field, address: [u32; 4]) -> Option<()> {
        let offset = match field {
            Field::Source => core::mem::offset_of!(Ipv6Hdr, src_addr),
            Field::Destination => core::mem::offset_of!(Ipv6Hdr, dst_addr),
        };
        self.store(L3_OFFSET + offset, address)
    }

    /// Takes one from the TTL or hop limit; in IPv4 also writes the header checksum, which covers
    /// the replaced `addresses`.
    #[inline(always)]
    fn decrement_ttl(&self, v4: bool, addresses: Difference) -> Option<()> {
        if !v4 {
            let offset = L3_OFFSET + core::mem::offset_of!(Ipv6Hdr, hop_limit);
            let hop_limit: u8 = self.load(offset)?;
            return self.store(offset, hop_limit.wrapping_sub(1));
        }
        let ttl_offset = L3_OFFSET + core::mem::offset_of!(Ipv4Hdr, ttl);
        let check_offset = L3_OFFSET + core::mem::offset_of!(Ipv4Hdr, check);
        // TTL and protocol share a word of the checksum; the TTL is its high byte on the wire.
        let old: u16 = self.load(ttl_offset)?;
        let new = old.wrapping_sub(0x0100_u16.to_be());
        self.store(ttl_offset, new)?;
        let check: u16 = self.load(check_offset)?;
        self.store(check_offset, addresses.half(old, new).apply(check))
    }

    /// Writes both ports.
    #[inline(always)]
    fn store_ports(&self, l4_offset: usize, source: Port, destination: Port) -> Option<()> {
        self.store(l4_offset, [source.wire(), destination.wire()])
    }
}

/// Types that any bytes are a valid value of.
///
/// # Safety
///
/// Every bit pattern must be valid and there must be no padding.
pub unsafe trait Wire: Copy {}

// SAFETY: integers, arrays of integers, and header structs made of byte arrays only.
unsafe impl Wire for u8 {}
// SAFETY: as above.
unsafe impl Wire for u16 {}
// SAFETY: as above.
unsafe impl Wire for u32 {}
// SAFETY: as above.
unsafe impl Wire for [u8; 6] {}
// SAFETY: as above.
unsafe impl Wire for [u16; 2] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 4] {}

/// Offset of the checksum field within the transport header.
#[inline(always)]
fn l4_checksum_offset(protocol: Protocol) -> usize {
    if protocol == Protocol::TCP {
        core::mem::offset_of!(TcpHdr, check)
    } else {
        core::mem::offset_of!(UdpHdr, check)
    }
}

impl Context for XdpContext {
    const REDIRECTS_BY_XDP: bool = true;

    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    #[inline(always)]
    fn arrival_ifindex(&self) -> u32 {
        XdpContext::ingress_ifindex(self) as u32
    }

    #[inline(always)]
    fn raw(&self) -> *mut c_void {
        self.ctx.cast()
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        false
    }

    #[inline(always)]
    fn make_accessible(&self) {}

    #[inline(always)]
    fn mtu_len(&self, packet: &Packet) -> u16 {
        packet.ip_len
    }

    #[inline(always)]
    fn update_l4_checksum(
        &self,
        packet: &Packet,
        addresses: Difference,
        ports: Difference,
    ) -> Option<()> {
        let offset = packet.l4_offset + l4_checksum_offset(packet.protocol);
        let check: u16 = self.load(offset)?;
        let is_udp = packet.protocol == Protocol::UDP;
        // RFC 768: a UDP checksum of 0 means that there is none, and one that computes to 0 is
        // sent as all ones.
        if is_udp && check == 0 {
            return Some(());
        }
        let updated = addresses.plus(ports).apply(check);
        self.store(
            offset,
            if is_udp && updated == 0 {
                0xffff
            } else {
                updated
            },
        )
    }
}

impl Context for TcContext {
    const REDIRECTS_BY_XDP: bool = false;

    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        TcContext::len(self)
    }

    #[inline(always)]
    fn arrival_ifindex(&self) -> u32 {
        // SAFETY: the context is valid while the program runs; the verifier checks the field.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn raw(&self) -> *mut c_void {
        self.skb.skb.cast()
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        // SAFETY: as in `arrival_ifindex`.
        unsafe { (*self.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn make_accessible(&self) {
        /// Ethernet, IPv4 with all options or IPv6, and TCP without options.
        const WANTED: u32 = 14 + 60 + 20;
        let len = Context::len(self);
        let wanted = if len < WANTED { len } else { WANTED };
        if self.data_end() - self.data() < wanted as usize {
            // A failure leaves the packet short, which the next access notices.
            let _ = self.pull_data(wanted);
        }
    }

    #[inline(always)]
    fn mtu_len(&self, _packet: &Packet) -> u16 {
        0
    }

    #[inline(always)]
    fn update_l4_checksum(
        &self,
        packet: &Packet,
        addresses: Difference,
        ports: Difference,
    ) -> Option<()> {
        let offset = packet.l4_offset + l4_checksum_offset(packet.protocol);
        let is_udp = packet.protocol == Protocol::UDP;
        // Ports first: a partial checksum (CHECKSUM_PARTIAL) covers the pseudo-header only, and
        // the helper knows which of the two differences it must leave alone.
        kernel::replace_l4_checksum(self, offset, ports, false, is_udp)?;
        kernel::replace_l4_checksum(self, offset, addresses, true, is_udp)
    }
}
