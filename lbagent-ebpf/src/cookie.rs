//! The kernel's SYN cookies, and its sockets. One of the places that may hold `unsafe`.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_sock_tuple;
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_map_lookup_elem, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie,
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
    bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
};
use aya_ebpf::programs::XdpContext;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::maps::terminators;
use crate::packet::{Context, L3_OFFSET, Packet};
use crate::web::copy::{Header, within};
use crate::web::maps::set_asking;

/// `TCP_LISTEN` of a socket's state (include/net/tcp_states.h).
const LISTEN: u32 = 10;
/// The namespace of the interface that the packet came in by.
const CURRENT_NETNS: u64 = u64::MAX;

type IpV4 = [u8; Ipv4Hdr::LEN];
type IpV6 = [u8; Ipv6Hdr::LEN];
const V4: usize = L3_OFFSET + Ipv4Hdr::LEN;
const V6: usize = L3_OFFSET + Ipv6Hdr::LEN;

/// A terminator's listening socket, held while the program looks at it.
pub struct Listener(*mut c_void);

/// Looks at the terminator's socket at an index, if there is one.
#[inline(always)]
pub fn with_listener<T>(index: u32, look: impl FnOnce(&Listener) -> Option<T>) -> Option<T> {
    // SAFETY: the map's values are sockets, which the helper takes a reference to; it is given back
    // before anything else happens.
    unsafe {
        let socket = bpf_map_lookup_elem(terminators(), (&raw const index).cast());
        if socket.is_null() {
            return None;
        }
        let found = look(&Listener(socket));
        bpf_sk_release(socket);
        found
    }
}

/// The cookie for a SYN, if a listening socket would have answered it with one. The socket takes
/// it from then on: for two minutes, as long as the cookie counts.
#[inline(always)]
pub fn answer(
    ctx: &XdpContext,
    is_v4: bool,
    listener: &Listener,
    header: &mut Header,
    len: u32,
) -> Option<u32> {
    let (ip, ip_len): (*mut c_void, u32) = if is_v4 {
        (ctx.at::<IpV4>(L3_OFFSET)?.cast(), 20)
    } else {
        (ctx.at::<IpV6>(L3_OFFSET)?.cast(), 40)
    };
    // SAFETY: `at` checked both ends of the IP header; the TCP header is as long as its type, and
    // `within` bounds what is read of it. The socket is held while `listener` lives.
    let value = unsafe {
        bpf_tcp_gen_syncookie(
            listener.0,
            ip,
            ip_len,
            header.as_mut_ptr().cast(),
            within::<64>(len),
        )
    };
    (value >= 0).then_some(value as u32)
}

/// Whether a segment acknowledges a cookie that is not older than two minutes.
#[inline(always)]
pub fn is_valid(ctx: &XdpContext, is_v4: bool) -> bool {
    type Tcp = [u8; TcpHdr::LEN];
    let result = if is_v4 {
        let (Some(ip), Some(tcp)) = (ctx.at::<IpV4>(L3_OFFSET), ctx.at::<Tcp>(V4)) else {
            return false;
        };
        // SAFETY: `at` checked both ends of both headers.
        unsafe { bpf_tcp_raw_check_syncookie_ipv4(ip.cast(), tcp.cast()) }
    } else {
        let (Some(ip), Some(tcp)) = (ctx.at::<IpV6>(L3_OFFSET), ctx.at::<Tcp>(V6)) else {
            return false;
        };
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_check_syncookie_ipv6(ip.cast(), tcp.cast()) }
    };
    result == 0
}

/// The cookie that a SYN without options would get now.
#[inline(always)]
pub fn current(ctx: &XdpContext, is_v4: bool, header: &mut Header) -> Option<u32> {
    const LEN: u32 = TcpHdr::LEN as u32;
    let header = header.as_mut_ptr().cast();
    let value = if is_v4 {
        let ip = ctx.at::<IpV4>(L3_OFFSET)?.cast();
        // SAFETY: `at` checked both ends of the IP header; the other one is longer than said.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip, header, LEN) }
    } else {
        let ip = ctx.at::<IpV6>(L3_OFFSET)?.cast();
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip, header, LEN) }
    };
    (value >= 0).then_some(value as u32)
}

/// Whether the kernel has a connection with a packet's addresses and ports, opening and closing
/// ones included. Needs memory.
#[inline(always)]
pub fn has_connection(ctx: &XdpContext, packet: &Packet, memory: &mut Header) -> bool {
    let source_port = u32::from(packet.source_port.get());
    let ports = (source_port << 16 | u32::from(packet.destination_port.get())).to_be();
    let [a, b, c, d] = packet.source.wire();
    let [e, f, g, h] = packet.destination.wire();
    // Word by word, because of a copy the compiler would make a call.
    let len = if packet.destination.is_v4() {
        (memory[0], memory[1], memory[2]) = (d, h, ports);
        12
    } else {
        (memory[0], memory[1], memory[2], memory[3]) = (a, b, c, d);
        (memory[4], memory[5], memory[6], memory[7]) = (e, f, g, h);
        memory[8] = ports;
        36
    };
    set_asking(1);
    // SAFETY: the memory is longer than said; the socket is released on every way on which there is
    // one, and its state is read before.
    let state = unsafe {
        let tuple: *mut bpf_sock_tuple = memory.as_mut_ptr().cast();
        let socket = bpf_skc_lookup_tcp(ctx.raw(), tuple, len, CURRENT_NETNS, 0);
        if socket.is_null() {
            LISTEN
        } else {
            let state = core::ptr::read_volatile(&raw const (*socket).state);
            bpf_sk_release(socket.cast());
            state
        }
    };
    set_asking(0);
    state != LISTEN
}

/// Largest IP packet that the interface takes which the packet came in by.
#[inline(always)]
pub fn mtu(ctx: &XdpContext) -> u32 {
    let mut mtu = 0;
    // SAFETY: writes one number; interface 0 is the packet's.
    unsafe { bpf_check_mtu(ctx.raw(), 0, &raw mut mtu, 0, 0) };
    mtu
}
