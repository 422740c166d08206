//! Packets as TC has them: bytes that may lie elsewhere, super-packets, partial checksums.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use lbagent_common::checksum::Difference;
use lbagent_common::{Outcome, Protocol, VipEntry};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use super::{Context, L3_OFFSET, Packet, l4_checksum_offset, outer_len, pointer};
use crate::kernel;
use crate::outcome::Packed;

impl Context for TcContext {
    #[inline(always)]
    fn serve(&self, _packet: &Packet, _vip: &VipEntry) -> Packed {
        Packed::passed(Outcome::PassTerminate)
    }

    const REDIRECTS_BY_XDP: bool = false;
    const IS_ROOMY: bool = false;

    #[inline(always)]
    fn start(&self) -> usize {
        pointer::<{ core::mem::offset_of!(__sk_buff, data) }, _>(self.skb.skb)
    }

    #[inline(always)]
    fn end(&self) -> usize {
        pointer::<{ core::mem::offset_of!(__sk_buff, data_end) }, _>(self.skb.skb)
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
    fn make_accessible(&self) {
        /// Ethernet, IPv4 with all options or IPv6, and TCP without options.
        const WANTED: u32 = 14 + 60 + 20;
        self.pull(WANTED);
    }

    #[inline(always)]
    fn pull(&self, wanted: u32) {
        let len = Context::len(self);
        let wanted = if len < wanted { len } else { wanted };
        if Context::end(self) - Context::start(self) < wanted as usize {
            // A failure leaves the packet short, which the next access notices.
            let _ = self.pull_data(wanted);
        }
    }

    #[inline(always)]
    fn mtu_len(&self, _packet: &Packet) -> u16 {
        0
    }

    #[inline(always)]
    fn segment_len(&self, packet: &Packet) -> u32 {
        // SAFETY: as in `arrival_ifindex`.
        let payload = unsafe { (*self.skb.skb).gso_size };
        if payload == 0 {
            u32::from(packet.ip_len)
        } else if packet.protocol == Protocol::TCP {
            0
        } else {
            payload + (packet.l4_offset() - L3_OFFSET + UdpHdr::LEN) as u32
        }
    }

    #[inline(always)]
    fn insert_headers(&self, packet: &Packet, is_outer_v4: bool, has_udp: bool) -> Option<()> {
        let bytes = outer_len(is_outer_v4, has_udp);
        let keeps_segments = packet.protocol == Protocol::UDP;
        kernel::insert_room(self, bytes, is_outer_v4, has_udp, keeps_segments)
    }

    #[inline(always)]
    fn keep_link_addresses(&self, _inserted: usize) -> Option<()> {
        // The room was made behind them.
        Some(())
    }

    #[inline(always)]
    fn update_l4_checksum(
        &self,
        packet: &Packet,
        addresses: Difference,
        ports: Difference,
    ) -> Option<()> {
        let offset = packet.l4_offset() + l4_checksum_offset(packet.protocol);
        let is_udp = packet.protocol == Protocol::UDP;
        // Ports first: a partial checksum (CHECKSUM_PARTIAL) covers the pseudo-header only, and
        // the helper knows which of the two differences it must leave alone.
        kernel::replace_l4_checksum(self, offset, ports, false, is_udp)?;
        kernel::replace_l4_checksum(self, offset, addresses, true, is_udp)
    }

    #[inline(always)]
    fn update_tcp_checksum(&self, l4_offset: usize, difference: Difference) -> Option<()> {
        let offset = l4_offset + core::mem::offset_of!(TcpHdr, check);
        kernel::replace_l4_checksum(self, offset, difference, false, false)
    }
}
