//! The kernel's helpers, typed. One of the places that may hold `unsafe`.

use core::ptr;

use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_FRAG_NEEDED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_adj_room_mode, bpf_fib_lookup as FibParams,
};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_vlan_pop,
    bpf_skb_vlan_push, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};
use lbagent_common::checksum::Difference;
use lbagent_common::{Addr, BackendEntry, Port, Protocol, VipKey};

use crate::apart::Scalar;
use crate::outcome::Egress;
use crate::packet::{Context, Packet, opaque, zero};

/// Address families as the kernel numbers them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the routing table says.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Through an interface: the hop is filled.
    Out,
    /// To the host itself.
    Local,
    /// Larger than the way allows.
    TooBig,
    /// Nowhere: no route, or forwarding is off.
    None,
}

impl Scalar for Route {
    const NONE: Self = Self::None;

    #[inline(always)]
    fn number(self) -> u64 {
        self as u64
    }

    #[inline(always)]
    fn from_number(number: u64) -> Self {
        const OUT: u64 = Route::Out as u64;
        const LOCAL: u64 = Route::Local as u64;
        const TOO_BIG: u64 = Route::TooBig as u64;
        match number {
            OUT => Self::Out,
            LOCAL => Self::Local,
            TOO_BIG => Self::TooBig,
            _ => Self::None,
        }
    }
}

/// The way out.
pub struct Hop {
    /// Interface.
    pub ifindex: u32,
    /// The first 12 bytes of a frame to the next hop: its link address, then the gateway's own.
    pub link: [u32; 3],
    /// 0 where the kernel has to send the frame; else [`Hop::DIRECT`] and the VLAN whose tag it
    /// leaves with. A whole word, because the verifier refuses to copy padding from where a pointer
    /// was stored before.
    pub direct: u32,
    /// Largest IP packet on the way, 0 when unknown. The routing table tells it only for lengths
    /// that it was asked about.
    pub mtu: u32,
    /// How many bytes longer the packet leaves than it came.
    pub overhead: u32,
}

impl Hop {
    /// To be filled, for a packet that leaves that much longer than it came.
    #[inline(always)]
    pub fn unknown(overhead: u32) -> Self {
        Self {
            ifindex: zero(),
            link: [zero(); 3],
            direct: zero(),
            mtu: zero(),
            overhead,
        }
    }

    /// The program itself sends the frame.
    pub const DIRECT: u32 = 1 << 16;

    /// Whether the program itself sends the frame.
    #[inline(always)]
    pub fn is_direct(&self) -> bool {
        self.direct != 0
    }

    /// How a packet takes this way.
    #[inline(always)]
    pub fn egress<C: Context>(&self, ctx: &C) -> Egress {
        let vlan = self.direct & (Self::DIRECT - 1);
        if !self.is_direct() {
            Egress::Resolve(self.ifindex)
        } else if self.ifindex == ctx.arrival_ifindex() {
            Egress::Transmit { vlan }
        } else {
            Egress::Redirect {
                ifindex: self.ifindex,
                vlan,
            }
        }
    }
}

/// Asks the kernel's routing table how a packet would go that leaves with these addresses.
#[inline(always)]
pub fn route<C: Context>(
    ctx: &C,
    packet: &Packet,
    source: &Addr,
    destination: &Addr,
    hop: &mut Hop,
) -> Route {
    let zero = u64::from(zero());
    // SAFETY: all-zero is a valid value of this struct of integers and unions of integers.
    let mut params: FibParams =
        unsafe { core::mem::transmute([zero; size_of::<FibParams>() / size_of::<u64>()]) };
    params.l4_protocol = packet.protocol.0;
    params.ifindex = ctx.arrival_ifindex();
    params.__bindgen_anon_1.tot_len = match ctx.mtu_len(packet) {
        0 => 0,
        len => len.saturating_add(hop.overhead as u16),
    };
    if destination.is_v4() {
        params.family = AF_INET;
        params.__bindgen_anon_3.ipv4_src = source.wire_v4();
        params.__bindgen_anon_4.ipv4_dst = destination.wire_v4();
    } else {
        params.family = AF_INET6;
        params.__bindgen_anon_3.ipv6_src = source.wire();
        params.__bindgen_anon_4.ipv6_dst = destination.wire();
    }
    // SAFETY: `params` is as large as said, and the context is the program's own.
    let result =
        unsafe { bpf_fib_lookup(ctx.raw(), &raw mut params, size_of::<FibParams>() as i32, 0) }
            as u32;
    // The length that was asked about has become the MTU.
    // SAFETY: both members of the union are 16-bit numbers.
    hop.mtu = u32::from(unsafe { params.__bindgen_anon_1.mtu_result });
    // Tags are for the interface to put on that the routing table names.
    hop.direct = match result {
        BPF_FIB_LKUP_RET_SUCCESS => Hop::DIRECT,
        BPF_FIB_LKUP_RET_NO_NEIGH => 0,
        BPF_FIB_LKUP_RET_NOT_FWDED => return Route::Local,
        BPF_FIB_LKUP_RET_FRAG_NEEDED => return Route::TooBig,
        _ => return Route::None,
    };
    hop.ifindex = params.ifindex;
    hop.link = BackendEntry::link_words(params.dmac, params.smac);
    Route::Out
}

/// Sends the packet out of another interface; the value is the program's action.
#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: takes numbers only.
    (unsafe { bpf_redirect(ifindex, 0) }) as u32
}

/// Sends the packet out of an interface whose next hop the kernel looks up and resolves (TC only).
#[inline(always)]
pub fn redirect_resolving(ifindex: u32) -> i32 {
    // SAFETY: no parameters means that the kernel looks the next hop up from the packet.
    (unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) }) as i32
}

/// Moves the front of the packet: back for `bytes` more, which are to be written, forth for less
/// (XDP only).
#[inline(always)]
pub fn grow_front<C: Context>(ctx: &C, bytes: i32) -> Option<()> {
    // SAFETY: the helper checks that there is room, or that so many bytes are there.
    let result = unsafe { bpf_xdp_adjust_head(ctx.raw().cast(), bytes.wrapping_neg()) };
    (result == 0).then_some(())
}

/// Cuts the packet off at its end (XDP only).
#[inline(always)]
pub fn cut_end<C: Context>(ctx: &C, bytes: i32) -> Option<()> {
    // SAFETY: the helper checks that so many bytes are there.
    let result = unsafe { bpf_xdp_adjust_tail(ctx.raw().cast(), bytes.wrapping_neg()) };
    (result == 0).then_some(())
}

/// Makes room for outer headers behind the Ethernet header (TC only). Super-packets go on as such:
/// the segments that they are cut into get the outer headers too. Those of TCP become shorter by
/// as much; datagrams keep their size.
#[inline(always)]
pub fn insert_room<C: Context>(
    ctx: &C,
    bytes: i32,
    is_outer_v4: bool,
    has_udp: bool,
    keeps_segments: bool,
) -> Option<()> {
    let mut flags = if is_outer_v4 {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    };
    if has_udp {
        flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
    }
    if keeps_segments {
        flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
    }
    // SAFETY: the helper checks its arguments and makes the room.
    let result = unsafe {
        bpf_skb_adjust_room(
            ctx.raw().cast(),
            bytes,
            bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
            u64::from(flags),
        )
    };
    (result == 0).then_some(())
}

/// Sum of `LEN` bytes of the packet, a multiple of 4 and 512 at most, added to another one.
#[inline(always)]
pub fn sum<C: Context, const LEN: usize>(ctx: &C, offset: usize, seed: u32) -> Option<u32> {
    let bytes = ctx.at::<[u8; LEN]>(offset)?;
    // SAFETY: `at` checked both ends of what the helper reads; without `from` it adds only.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast(), LEN as u32, seed) };
    u32::try_from(sum).ok()
}

/// The monotonic clock in ticks of 2^30 ns, about a second; coarse, because it is cheap.
#[inline(always)]
pub fn tick() -> u32 {
    // SAFETY: takes nothing, returns a number.
    (unsafe { bpf_ktime_get_coarse_ns() } >> 30) as u32 & 0x7fff_ffff
}

/// The monotonic clock in ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_ktime_get_ns() }
}

/// A random number.
#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_get_prandom_u32() }
}

/// Adds a difference to a transport checksum, complete or partial (TC only).
#[inline(always)]
pub fn replace_l4_checksum<C: Context>(
    ctx: &C,
    offset: usize,
    difference: Difference,
    is_pseudo_header: bool,
    is_udp: bool,
) -> Option<()> {
    let mut flags = 0;
    if is_pseudo_header {
        flags |= u64::from(BPF_F_PSEUDO_HDR);
    }
    if is_udp {
        flags |= u64::from(BPF_F_MARK_MANGLED_0);
    }
    // SAFETY: the helper checks the offset; size 0 says that `to` is a difference.
    let result = unsafe {
        bpf_l4_csum_replace(
            ctx.raw().cast(),
            offset as u32,
            0,
            u64::from(difference.wsum()),
            flags,
        )
    };
    (result == 0).then_some(())
}

/// Moves the start of an XDP frame by that many bytes; positive makes it shorter. False where there
/// is no room.
#[inline(always)]
pub fn move_start(ctx: &XdpContext, by: i32) -> bool {
    // SAFETY: the context is the program's own; every access to the packet computes its pointer
    // anew.
    (unsafe { bpf_xdp_adjust_head(ctx.ctx, by) }) == 0
}

/// Copies the first `len` bytes of an XDP frame, of 1 to `LEN` of them, to memory outside of it.
#[inline(always)]
pub fn copy_frame<const LEN: usize>(ctx: &XdpContext, len: u32, to: *mut [u8; LEN]) -> bool {
    const { assert!(LEN.is_power_of_two()) };
    // Masked, because the verifier wants to see that it fits, and hidden from the compiler, which
    // knows that it does.
    let len = (opaque(len.wrapping_sub(1)) & (LEN as u32 - 1)) + 1;
    // SAFETY: the helper writes `len` bytes, which are `LEN` at most; the caller owns them.
    (unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, to.cast(), len) }) == 0
}

/// 1 where the kernel keeps a VLAN tag beside the frame, else 0.
#[inline(always)]
pub fn has_tag_beside(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs; the verifier checks the field.
    unsafe { (*ctx.skb.skb).vlan_present }
}

/// EtherType and content of the VLAN tag that the kernel keeps beside the frame: the first as it lies
/// in a packet, the second in host order.
#[inline(always)]
pub fn tag_beside(ctx: &TcContext) -> Option<[u32; 2]> {
    let skb = ctx.skb.skb;
    // SAFETY: as above.
    (has_tag_beside(ctx) != 0).then(|| unsafe { [(*skb).vlan_proto, (*skb).vlan_tci] })
}

/// EtherType of the frame's bytes, as it lies in a packet.
#[inline(always)]
pub fn ethertype(ctx: &TcContext) -> u16 {
    // SAFETY: as in `tag_beside`.
    (unsafe { (*ctx.skb.skb).protocol }) as u16
}

/// Takes the outer VLAN tag off; a second one then lies beside the frame instead.
#[inline(always)]
pub fn pop_vlan(ctx: &TcContext) -> bool {
    // SAFETY: as in `move_start`.
    (unsafe { bpf_skb_vlan_pop(ctx.skb.skb) }) == 0
}

/// Puts a VLAN tag in front; `ethertype` as it lies in a packet.
#[inline(always)]
pub fn push_vlan(ctx: &TcContext, ethertype: u16, tag: u16) -> bool {
    // SAFETY: as in `move_start`.
    (unsafe { bpf_skb_vlan_push(ctx.skb.skb, ethertype, tag) }) == 0
}

/// Where a TCP connection goes for which the kernel looks for a socket; `None` for other protocols.
#[inline(always)]
pub fn dialled(ctx: &SkLookupContext) -> Option<VipKey> {
    let lookup = ctx.lookup;
    // SAFETY: the kernel hands the program a context of this type, alive while it runs; members of
    // the other family read as zeros. Volatile, each member at a place of its own: the verifier
    // refuses loads that the compiler would join.
    let (protocol, family, v4, v6, port) = unsafe {
        let words = &raw const (*lookup).local_ip6;
        (
            ptr::read_volatile(&raw const (*lookup).protocol),
            ptr::read_volatile(&raw const (*lookup).family),
            ptr::read_volatile(&raw const (*lookup).local_ip4),
            [
                ptr::read_volatile(&raw const (*words)[0]),
                ptr::read_volatile(&raw const (*words)[1]),
                ptr::read_volatile(&raw const (*words)[2]),
                ptr::read_volatile(&raw const (*words)[3]),
            ],
            ptr::read_volatile(&raw const (*lookup).local_port),
        )
    };
    if protocol != u32::from(Protocol::TCP.0) {
        return None;
    }
    let addr = if family == u32::from(AF_INET) {
        Addr::from_wire_v4(v4)
    } else {
        Addr::from_wire(v6)
    };
    Some(VipKey::new(addr, Port::new(port as u16), Protocol::TCP))
}
