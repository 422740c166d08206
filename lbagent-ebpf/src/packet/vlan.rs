//! VLAN tags: taken off before the stages and put back after them, so that these see the IP header
//! at one offset.

use aya_ebpf::programs::{TcContext, XdpContext};
use network_types::eth::EthHdr;

use super::{Context, unknown_zero};
use crate::kernel;

/// IEEE 802.1Q and 802.1ad, as they lie in a packet.
const CUSTOMER: u16 = 0x8100_u16.to_be();
const SERVICE: u16 = 0x88a8_u16.to_be();
/// Offset of the first tag: behind the link addresses.
const TAG_OFFSET: usize = 12;
const TAG_LEN: usize = 4;
/// The identifier in a tag; the rest is priority.
const ID_MASK: u32 = 0x0fff;
/// Parts of [`Tags::state`].
const COUNT_MASK: u32 = 0xffff;
const VLAN_SHIFT: u32 = 16;

/// The tags that were taken off a frame.
pub struct Tags {
    /// Tags as they lay in the packet, the outer one first.
    words: [u32; 2],
    /// How many were taken off the frame's bytes, and in the upper half the VLAN of a frame with
    /// exactly one tag. One word, because the stack is short.
    state: u32,
}

impl Tags {
    /// No tags, for a frame of this length.
    #[inline(always)]
    pub fn none(len: u32) -> Self {
        let none = unknown_zero(len);
        Self {
            words: [none; 2],
            state: none,
        }
    }

    /// Whether [`put_back`](Self::put_back) or [`push_back`](Self::push_back) has something to do.
    #[inline(always)]
    pub fn is_off(&self) -> bool {
        self.state & COUNT_MASK != 0
    }

    /// VLAN of a frame with exactly one tag; 0 for all others.
    #[inline(always)]
    pub fn vlan(&self) -> u32 {
        self.state >> VLAN_SHIFT
    }

    /// Takes one or two tags off. A frame with more of them stays as it is.
    #[inline(always)]
    pub fn take_off(&mut self, ctx: &XdpContext) {
        const ETHERTYPE: usize = core::mem::offset_of!(EthHdr, ether_type);
        if ctx.load::<u16>(ETHERTYPE).is_some_and(is_tag) {
            self.state = take_off(ctx, self);
        }
    }

    /// Puts the tags back in front of whatever the frame is now; false where there is no room, which
    /// can only be after something else took it.
    #[inline(never)]
    pub fn put_back(&mut self, ctx: &XdpContext) -> bool {
        put_back(ctx, self).is_some()
    }

    /// The same for TC, where the kernel keeps the outer tag beside the frame: only a second tag
    /// lies in its bytes.
    #[inline(always)]
    pub fn pop(&mut self, ctx: &TcContext) {
        let Some([_, tag]) = kernel::tag_beside(ctx) else {
            return;
        };
        self.state = (tag & ID_MASK) << VLAN_SHIFT;
        if is_tag(kernel::ethertype(ctx)) {
            self.state = pop(ctx, self);
        }
    }

    /// Undoes [`pop`](Self::pop).
    #[inline(never)]
    pub fn push_back(&mut self, ctx: &TcContext) -> bool {
        let [ethertype, tag] = self.words;
        self.state = 0;
        kernel::push_vlan(ctx, ethertype as u16, tag as u16)
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER || ethertype == SERVICE
}

/// Returns [`Tags::state`]; unknown to the verifier, which then checks the stages once for all frames.
#[inline(never)]
fn take_off(ctx: &XdpContext, tags: &mut Tags) -> u32 {
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
    tags.words = [first, second];
    let state = if is_double {
        2
    } else {
        1 | (u32::from_be(first) & ID_MASK) << VLAN_SHIFT
    };
    state + unknown_zero(first)
}

#[inline(always)]
fn put_back(ctx: &XdpContext, tags: &mut Tags) -> Option<()> {
    let link: [u32; 3] = ctx.load(0)?;
    let [first, second] = tags.words;
    let is_double = tags.state & COUNT_MASK == 2;
    tags.state = 0;
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
fn pop(ctx: &TcContext, tags: &mut Tags) -> u32 {
    let Some(words) = kernel::tag_beside(ctx) else {
        return 0;
    };
    if !kernel::pop_vlan(ctx) {
        return 0;
    }
    let [_, tag] = words;
    tags.words = words;
    1 + unknown_zero(tag)
}
