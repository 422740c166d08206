//! Takes the outer headers off: the Ethernet header, tags included, moves to the inner packet.

use aya_ebpf::programs::XdpContext;
use lbagent_common::checksum::Difference;
use lbagent_common::decap::DecapOutcome;

use crate::packet::{self, Bytes};
use crate::tunnel::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_OFFSET, Tunnel, VLAN_LEN};

/// Congestion experienced (RFC 3168, section 5).
const ECN_CE: u8 = 3;
/// Offset of the header checksum in an IPv4 header.
const IPV4_CHECK_OFFSET: usize = 10;
/// Offset of an IP header without tags before it.
const L3_UNTAGGED: usize = 14;

/// Takes the outer headers off. A packet that must not go on is left as it was.
#[inline(always)]
pub fn strip(ctx: &XdpContext, tunnel: &Tunnel) -> Result<(), DecapOutcome> {
    let congested = tunnel.outer_ecn == ECN_CE;
    if congested && inner_ecn(ctx, tunnel) == Some(0) {
        return Err(DecapOutcome::DropCongestion);
    }
    move_ethernet(ctx, tunnel).ok_or(DecapOutcome::DropFailed)?;
    if congested {
        mark_congestion(ctx, tunnel).ok_or(DecapOutcome::DropFailed)?;
    }
    Ok(())
}

#[inline(always)]
fn move_ethernet(ctx: &XdpContext, tunnel: &Tunnel) -> Option<()> {
    const FIRST_TAG: usize = ETHERTYPE_OFFSET;
    const SECOND_TAG: usize = FIRST_TAG + VLAN_LEN;
    let l3_offset = tunnel.l3_offset;
    let addresses: [u32; 3] = ctx.read(0)?;
    // What lies there without tags is the EtherType, which is written last.
    let first_tag: u32 = ctx.read(FIRST_TAG)?;
    let second_tag: u32 = ctx.read(SECOND_TAG)?;
    packet::shrink(ctx, tunnel.inner_offset - l3_offset)?;
    ctx.write(0, addresses)?;
    if l3_offset > L3_UNTAGGED {
        ctx.write(FIRST_TAG, first_tag)?;
    }
    if l3_offset > L3_UNTAGGED + VLAN_LEN {
        ctx.write(SECOND_TAG, second_tag)?;
    }
    let ethertype = if tunnel.inner_v4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    ctx.write(l3_offset - 2, ethertype)
}

/// Congestion bits of the inner header, before the outer one is gone.
#[inline(always)]
fn inner_ecn(ctx: &XdpContext, tunnel: &Tunnel) -> Option<u8> {
    let class: u8 = ctx.read(tunnel.inner_offset + 1)?;
    Some(if tunnel.inner_v4 { class } else { class >> 4 } & ECN_CE)
}

/// Hands the outer header's congestion mark on (RFC 6040, section 4.2).
#[inline(always)]
fn mark_congestion(ctx: &XdpContext, tunnel: &Tunnel) -> Option<()> {
    let offset = tunnel.l3_offset;
    let [first, class]: [u8; 2] = ctx.read(offset)?;
    if !tunnel.inner_v4 {
        return ctx.write(offset + 1, class | ECN_CE << 4);
    }
    let (old, new) = ([first, class], [first, class | ECN_CE]);
    let difference = Difference::NONE.half(u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    let check: u16 = ctx.read(offset + IPV4_CHECK_OFFSET)?;
    ctx.write(offset, new)?;
    ctx.write(offset + IPV4_CHECK_OFFSET, difference.apply(check))
}
