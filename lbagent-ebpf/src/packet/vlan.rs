//! VLAN tags: taken off before the stages, so that these see the IP header at one offset. What the
//! program sends leaves with the tag of its next hop; what it answers or passes, with those that it
//! came with.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use network_types::eth::EthHdr;

use super::{Context, opaque, unknown_zero};
use crate::kernel;

/// IEEE 802.1Q and 802.1ad, as they lie in a packet.
const CUSTOMER: u16 = 0x8100_u16.to_be();
const SERVICE: u16 = 0x88a8_u16.to_be();
/// A whole tag of no VLAN, in host order.
const CUSTOMER_TAG: u32 = 0x8100 << 16;
/// Offset of the first tag: behind the link addresses.
const TAG_OFFSET: usize = 12;
const TAG_LEN: usize = 4;
/// What a tag says beside its VLAN: priority, and whether the frame may be dropped before others.
const PRIORITY_MASK: u32 = 0xf000;

/// The tags that were taken off a frame.
pub struct Tags {
    /// As they lay in the packet, the outer one first; 0 for none. In TC the EtherType and the content
    /// of the outer one.
    words: [u32; 2],
}

impl Tags {
    /// No tags, for a frame of this length.
    #[inline(always)]
    pub fn none(len: u32) -> Self {
        let none = unknown_zero(len);
        Self { words: [none; 2] }
    }

    /// Instead of a VLAN: the frame keeps the tags that it came with.
    pub const KEPT: u32 = 1 << 16;

    /// Takes one or two tags off. A frame with more of them stays as it is.
    #[inline(always)]
    pub fn take_off(&mut self, ctx: &XdpContext) {
        const ETHERTYPE: usize = core::mem::offset_of!(EthHdr, ether_type);
        if ctx.load::<u16>(ETHERTYPE).is_some_and(is_tag) {
            self.words[0] = take_off(ctx, &mut self.words[1]);
        }
    }

    /// Puts in front of whatever the frame is now the tag of the next hop's VLAN, none for 0, or those
    /// that it came with ([`KEPT`](Self::KEPT)); false where there is no room, which can only be after
    /// something else took it.
    #[inline(always)]
    pub fn put_on(&mut self, ctx: &XdpContext, vlan: u32) -> bool {
        let [first, second] = core::mem::take(&mut self.words);
        // One comparison, because the verifier follows each.
        opaque(first | vlan & !Self::KEPT) == 0 || lb_put_on_tags(ctx.ctx, first, second, vlan) != 0
    }

    /// [`take_off`](Self::take_off) for TC, where the kernel keeps the outer tag beside the frame: only
    /// a second tag lies in its bytes.
    #[inline(always)]
    pub fn pop(&mut self, ctx: &TcContext) {
        if kernel::has_tag_beside(ctx) != 0 && is_tag(kernel::ethertype(ctx)) {
            self.words[0] = pop(ctx, &mut self.words[1]);
        }
    }

    /// [`put_on`](Self::put_on) for TC. An interface in a VLAN would add its tag to one that still lies
    /// beside the frame.
    #[inline(always)]
    pub fn push(&mut self, ctx: &TcContext, vlan: u32) -> bool {
        let [ethertype, outer] = self.words;
        let is_kept = vlan / Self::KEPT;
        let is_to_go = kernel::has_tag_beside(ctx) & !is_kept;
        opaque(ethertype | vlan & !Self::KEPT | is_to_go) == 0
            || lb_push_tags(ctx.skb.skb, ethertype, outer, vlan) != 0
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER || ethertype == SERVICE
}

/// Returns the outer tag, 0 for none. (A function without a result returns whatever was in the register,
/// which the verifier refuses where it is a pointer.)
#[inline(never)]
fn take_off(ctx: &XdpContext, inner: &mut u32) -> u32 {
    let Some(link) = ctx.load::<[u32; 3]>(0) else {
        return 0;
    };
    let Some([first, second, third]) = ctx.load::<[u32; 3]>(TAG_OFFSET) else {
        return 0;
    };
    // A tag starts with the EtherType that says that it is one.
    let ethertype = |word: u32| {
        let [a, b, ..] = word.to_ne_bytes();
        u16::from_ne_bytes([a, b])
    };
    let is_double = is_tag(ethertype(second));
    if is_double && is_tag(ethertype(third)) {
        return 0;
    }
    let len = if is_double { 2 * TAG_LEN } else { TAG_LEN };
    if !kernel::move_start(ctx, len as i32) {
        return 0;
    }
    // The room was checked before the start moved.
    let _ = ctx.store(0, link);
    // Unknown to the verifier either way, which then checks the stages once for all frames.
    *inner = if is_double {
        second
    } else {
        unknown_zero(second)
    };
    first
}

/// [`Tags::put_on`], checked by the verifier on its own (`apart.rs`); 0 where there is no room.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn lb_put_on_tags(ctx: *mut xdp_md, first: u32, second: u32, vlan: u32) -> u64 {
    let ctx = XdpContext::new(ctx);
    let priority = u32::from_be(first) & PRIORITY_MASK;
    let done = match vlan {
        0 => Some(()),
        Tags::KEPT => insert(&ctx, first, second),
        _ => insert(&ctx, (CUSTOMER_TAG | priority | vlan).to_be(), 0),
    };
    u64::from(done.is_some())
}

/// `second` is 0 for a single tag.
#[inline(always)]
fn insert(ctx: &XdpContext, first: u32, second: u32) -> Option<()> {
    let link: [u32; 3] = ctx.load(0)?;
    let is_double = second != 0;
    let len = if is_double { 2 * TAG_LEN } else { TAG_LEN };
    if !kernel::move_start(ctx, -(len as i32)) {
        return None;
    }
    ctx.store(0, link)?;
    ctx.store(TAG_OFFSET, first)?;
    if is_double {
        ctx.store(TAG_OFFSET + TAG_LEN, second)?;
    }
    Some(())
}

#[inline(never)]
fn pop(ctx: &TcContext, content: &mut u32) -> u32 {
    let Some([ethertype, tag]) = kernel::tag_beside(ctx) else {
        return 0;
    };
    if !kernel::pop_vlan(ctx) {
        return 0;
    }
    *content = tag;
    ethertype
}

/// [`Tags::push`], likewise.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn lb_push_tags(ctx: *mut __sk_buff, ethertype: u32, mut outer: u32, vlan: u32) -> u64 {
    let ctx = TcContext::new(ctx);
    if vlan == Tags::KEPT {
        return u64::from(kernel::push_vlan(&ctx, ethertype as u16, outer as u16));
    }
    if let Some([_, beside]) = kernel::tag_beside(&ctx) {
        if ethertype == 0 {
            outer = beside;
        }
        // Taking off what lies beside the bytes cannot fail.
        kernel::pop_vlan(&ctx);
    }
    let tag = outer & PRIORITY_MASK | vlan;
    u64::from(vlan == 0 || kernel::push_vlan(&ctx, CUSTOMER, tag as u16))
}
