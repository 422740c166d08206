//! Bounds-checked view of a packet. All packet-pointer `unsafe` is here.
//!
//! A packet lies between two addresses that the verifier tracks. Every access computes its
//! pointer from the start again and compares it with the end, so no pointer outlives a call that
//! may move the data.

mod extensions;
mod parse;
mod tc;
mod vlan;

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lbagent_common::checksum::Difference;
use lbagent_common::{Addr, Port, Protocol, VipEntry};
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

pub use self::extensions::may_hold_transport;
pub use self::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, parse_ip, parse_transport};
pub use self::vlan::Tags;
use crate::apart::{self, Stages};
use crate::kernel;
use crate::outcome::Packed;

/// Offset of the IP header: VLAN tags are taken off before the stages and put back after them.
pub const L3_OFFSET: usize = EthHdr::LEN;

/// What XDP and TC have in common. Offsets count from the Ethernet header; stores return `None`
/// when the packet is too short.
pub trait Context: Stages {
    /// Whether another interface gets the packet by XDP, which not every interface can.
    const REDIRECTS_BY_XDP: bool;
    /// Whether the stages may share one stack frame: a program has 512 bytes of stack over all its
    /// calls, and a frame more costs a nanosecond.
    const IS_ROOMY: bool;
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
    /// Makes the first bytes accessible where they may not be.
    fn make_accessible(&self);
    /// Makes so many bytes accessible, or all that there are.
    fn pull(&self, wanted: u32);
    /// Length for the route's MTU check; 0 where the kernel knows better (GSO).
    fn mtu_len(&self, packet: &Packet) -> u16;
    /// Length of the largest IP packet that this one leaves as; 0 where it can be cut to any size
    /// (GSO of TCP).
    fn segment_len(&self, packet: &Packet) -> u32;
    /// Makes room for outer headers in front of the IP header: an IP header, and a UDP header behind
    /// it if wanted. The Ethernet header is then to be written again: see
    /// [`keep_link_addresses`](Self::keep_link_addresses). `None` when there is no room; the packet is
    /// then as it was.
    fn insert_headers(&self, packet: &Packet, is_outer_v4: bool, has_udp: bool) -> Option<()>;
    /// After [`insert_headers`](Self::insert_headers) of so many bytes: puts the link addresses that the
    /// frame came with at its front.
    fn keep_link_addresses(&self, inserted: usize) -> Option<()>;
    /// Updates the transport checksum: `addresses` is in the pseudo-header, `ports` is not.
    fn update_l4_checksum(
        &self,
        packet: &Packet,
        addresses: Difference,
        ports: Difference,
    ) -> Option<()>;

    /// Updates the checksum of the TCP header at an offset, for a change within the segment.
    fn update_tcp_checksum(&self, l4_offset: usize, difference: Difference) -> Option<()>;

    /// Answers a packet for a port of the terminator, or leaves it to that.
    fn serve(&self, packet: &Packet, vip: &VipEntry) -> Packed;

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

    /// Writes both link addresses: the first 12 bytes.
    #[inline(always)]
    fn store_link_addresses(&self, link: [u32; 3]) -> Option<()> {
        self.store(0, link)
    }

    /// Writes the addresses of an IPv4 header (wire words), takes one from its TTL and updates its
    /// checksum; returns what the addresses add to other checksums.
    #[inline(always)]
    fn rewrite_v4(&self, source: u32, destination: u32) -> Option<Difference> {
        // TTL, protocol and checksum, then both addresses.
        const OFFSET: usize = L3_OFFSET + core::mem::offset_of!(Ipv4Hdr, ttl);
        let [counted, old_source, old_destination]: [u32; 3] = self.load(OFFSET)?;
        let addresses = Difference::NONE
            .word(old_source, source)
            .word(old_destination, destination);
        // The TTL is the first byte on the wire and the high one of its checksum word; it is not 0,
        // so nothing is borrowed from the protocol.
        let old = (u32::from_be(counted) >> 16) as u16;
        let new = old.wrapping_sub(0x0100);
        let check = (u32::from_be(counted) as u16).to_be();
        let check = addresses.half(old.to_be(), new.to_be()).apply(check);
        let counted = u32::from(new) << 16 | u32::from(u16::from_be(check));
        self.store(OFFSET, [counted.to_be(), source, destination])?;
        Some(addresses)
    }

    /// Writes the addresses of an IPv6 header and takes one from its hop limit; returns what the
    /// addresses add to other checksums.
    #[inline(always)]
    fn rewrite_v6(&self, packet: &Packet, source: &Addr, destination: &Addr) -> Option<Difference> {
        const HOP_LIMIT: usize = L3_OFFSET + core::mem::offset_of!(Ipv6Hdr, hop_limit);
        self.store(HOP_LIMIT, packet.ttl.wrapping_sub(1))?;
        let mut addresses = Difference::NONE;
        if *source != packet.source {
            let offset = L3_OFFSET + core::mem::offset_of!(Ipv6Hdr, src_addr);
            self.store(offset, source.wire())?;
            addresses = addresses.address(&packet.source, source);
        }
        if *destination != packet.destination {
            let offset = L3_OFFSET + core::mem::offset_of!(Ipv6Hdr, dst_addr);
            self.store(offset, destination.wire())?;
            addresses = addresses.address(&packet.destination, destination);
        }
        Some(addresses)
    }

    /// Writes both ports.
    #[inline(always)]
    fn store_ports(&self, l4_offset: usize, source: Port, destination: Port) -> Option<()> {
        self.store(l4_offset, [source.wire(), destination.wire()])
    }
}

/// Whether an address may be one host's (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5): only such
/// a sender is answered or believed.
#[inline(always)]
pub fn is_host(address: &Addr) -> bool {
    let [first, second, third, last] = address.wire();
    if address.is_v4() {
        let octet = u32::from_be(last) >> 24;
        octet != 0 && octet != 127 && octet < 224
    } else {
        // Not multicast, not `::` and not `::1`.
        u32::from_be(first) >> 24 != 0xff && (first | second | third != 0 || u32::from_be(last) > 1)
    }
}

/// Zero, but unknown to compiler and verifier, from a value that neither knows. The verifier then
/// checks what follows once for this zero and for any other value.
#[inline(always)]
pub fn unknown_zero(unknown: u32) -> u32 {
    unknown.wrapping_sub(opaque(unknown))
}

/// Zero, unknown to the compiler: zeros that it knows and that lie side by side, it makes a call of
/// `memset`, which goes byte by byte and costs more than all else that is done for a packet.
#[inline(always)]
pub fn zero() -> u32 {
    opaque(0)
}

/// An address to be filled, of such zeros.
#[inline(always)]
pub fn no_address() -> Addr {
    Addr::from_wire([zero(); 4])
}

/// The same value, which the compiler does not know to be the same.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = u64::from(value);
        // SAFETY: copies a register to itself.
        unsafe {
            core::arch::asm!(
                "{value} = {value}",
                value = inout(reg) value,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(value)
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
unsafe impl Wire for [u8; 22] {}
// SAFETY: as above.
unsafe impl Wire for [u8; 2] {}
// SAFETY: as above.
unsafe impl Wire for [u16; 6] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 2] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 3] {}
// SAFETY: as above.
unsafe impl Wire for [u16; 2] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 4] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 5] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 10] {}

/// Bytes of outer headers.
#[inline(always)]
fn outer_len(is_outer_v4: bool, has_udp: bool) -> i32 {
    let ip = if is_outer_v4 {
        Ipv4Hdr::LEN
    } else {
        Ipv6Hdr::LEN
    };
    (ip + if has_udp { UdpHdr::LEN } else { 0 }) as i32
}

/// Offset of the checksum field within the transport header.
#[inline(always)]
pub fn l4_checksum_offset(protocol: Protocol) -> usize {
    if protocol == Protocol::TCP {
        core::mem::offset_of!(TcpHdr, check)
    } else {
        core::mem::offset_of!(UdpHdr, check)
    }
}

/// Loads a packet pointer from the field at `OFFSET` of a kernel context.
///
/// The kernel declares `data` and `data_end` as 32-bit fields and replaces the loads by those of
/// whole pointers. A compiler that knows the 32 bits copies such a value between registers by a
/// 32-bit move, or has a caller load it and pass it on as such: both cut the pointer off. So the
/// load is an instruction that the compiler sees only the result of.
#[inline(always)]
fn pointer<const OFFSET: usize, T>(context: *const T) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let address: usize;
        // SAFETY: the verifier knows the type of the context and refuses any other load.
        unsafe {
            core::arch::asm!(
                "{address} = *(u32 *)({context} + {offset})",
                address = out(reg) address,
                context = in(reg) context,
                offset = const OFFSET,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        address
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = context;
        unreachable!("programs run in the kernel only")
    }
}

impl Context for XdpContext {
    #[inline(always)]
    fn serve(&self, packet: &Packet, vip: &VipEntry) -> Packed {
        apart::serve(self, packet, vip)
    }

    const REDIRECTS_BY_XDP: bool = true;
    const IS_ROOMY: bool = true;

    #[inline(always)]
    fn start(&self) -> usize {
        pointer::<{ core::mem::offset_of!(xdp_md, data) }, _>(self.ctx)
    }

    #[inline(always)]
    fn end(&self) -> usize {
        pointer::<{ core::mem::offset_of!(xdp_md, data_end) }, _>(self.ctx)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (Context::end(self) - Context::start(self)) as u32
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
    fn make_accessible(&self) {}

    #[inline(always)]
    fn pull(&self, _wanted: u32) {}

    #[inline(always)]
    fn mtu_len(&self, packet: &Packet) -> u16 {
        packet.ip_len
    }

    #[inline(always)]
    fn segment_len(&self, packet: &Packet) -> u32 {
        u32::from(packet.ip_len)
    }

    #[inline(always)]
    fn insert_headers(&self, _packet: &Packet, is_outer_v4: bool, has_udp: bool) -> Option<()> {
        kernel::grow_front(self, outer_len(is_outer_v4, has_udp))
    }

    #[inline(always)]
    fn keep_link_addresses(&self, inserted: usize) -> Option<()> {
        let link: [u32; 3] = self.load(inserted)?;
        // Of a plain copy the compiler would make a call of `memmove`, byte by byte.
        self.store_link_addresses(link.map(opaque))
    }

    #[inline(always)]
    fn update_l4_checksum(
        &self,
        packet: &Packet,
        addresses: Difference,
        ports: Difference,
    ) -> Option<()> {
        let offset = packet.l4_offset() + l4_checksum_offset(packet.protocol);
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

    #[inline(always)]
    fn update_tcp_checksum(&self, l4_offset: usize, difference: Difference) -> Option<()> {
        let offset = l4_offset + core::mem::offset_of!(TcpHdr, check);
        let check: u16 = self.load(offset)?;
        self.store(offset, difference.apply(check))
    }
}
