//! Fragments: the first one has the ports and is balanced as any packet; the later ones of its
//! datagram follow it.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lbagent_common::{
    Addr, BackendId, FragmentEntry, FragmentKey, HeldFragment, Outcome, Protocol, VipEntry, VipKey,
    limits,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::forward::{Target, nat};
use crate::outcome::Packed;
use crate::packet::{self, Context, L3_OFFSET, Packet};
use crate::{backend, counters, kernel, maps};

/// Bytes of the transport headers. A later fragment that starts within one would overwrite what the
/// first was judged by (RFC 1858, section 3).
const TCP_LEN: u32 = 20;
const UDP_LEN: u32 = 8;

/// Finds what the first fragment of a later one decided, and gives the packet the ports of the first.
/// [`Packed::ONWARDS`] with `entry` filled; else how the packet ends.
///
/// Only what is for a VIP address is ever dropped.
#[inline(never)]
pub fn find<C: Context>(
    _ctx: &C,
    packet: &mut Packet,
    entry: &mut Option<&'static FragmentEntry>,
) -> Packed {
    const FOREIGN: Packed = Packed::passed(Outcome::PassFragment);
    // From clients nothing else is ever stored, so that a foreign fragment costs one lookup.
    let is_looked_up = !C::REDIRECTS_BY_XDP || is_for_vip(packet);
    if !is_looked_up || !packet::may_hold_transport(packet.protocol) {
        return FOREIGN;
    }
    let key = packet.fragment_key();
    let Some(found) = lookup(&key) else {
        if C::REDIRECTS_BY_XDP {
            maps::note_held(&key);
            return Packed::dropped(Outcome::HoldFragment);
        }
        return if is_for_vip(packet) { LOST } else { FOREIGN };
    };
    if found.flags & FragmentEntry::FLAG_PASS != 0 {
        return FOREIGN;
    }
    let header = if found.protocol == Protocol::TCP {
        TCP_LEN
    } else {
        UDP_LEN
    };
    if packet.fragment_offset() < header {
        return LOST;
    }
    packet.protocol = found.protocol;
    packet.source_port = found.source_port;
    packet.destination_port = found.destination_port;
    *entry = Some(found);
    Packed::ONWARDS
}

/// Hands a frame for which [`find`] said so to the agent, which sends it through this program again
/// when the first fragment has come. Returns the outcome's index: a fragment that is too long, or
/// for which the agent's ring has no room, is lost.
///
/// Visible from outside of the object, so that the verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn lb_hold_fragment(ctx: *mut xdp_md) -> u32 {
    let ctx = &XdpContext::new(ctx);
    let len = Context::len(ctx);
    let is_held = (1..=HeldFragment::LONGEST).contains(&len)
        && maps::put_held(kernel::now(), ctx.arrival_ifindex(), len, |frame| {
            kernel::copy_frame(ctx, len, frame)
        });
    let outcome = if is_held {
        Outcome::HoldFragment
    } else {
        Outcome::DropFragment
    };
    outcome as u32
}

/// Sends a later fragment to the backend that its first one went to.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, entry: &FragmentEntry) -> Packed {
    let Some(target) = target(packet, entry) else {
        return LOST;
    };
    let sent = if target.vip.forwarding_mode == VipEntry::MODE_NAT {
        send_nat(ctx, packet, entry)
    } else {
        ctx.send_around_nat(packet, target.vip, target.backend, packet)
    };
    if sent.is_sent() {
        counters::forwarded(
            target.settings,
            entry.vip_id,
            entry.backend_id,
            false,
            ctx.len(),
        );
    }
    sent
}

/// A stack frame of its own, because the other modes need as much at the same place.
#[inline(never)]
fn send_nat<C: Context>(ctx: &C, packet: &Packet, entry: &FragmentEntry) -> Packed {
    match target(packet, entry) {
        Some(target) => Packed::new(nat::send_later(ctx, packet, &target, entry)),
        None => LOST,
    }
}

/// A later fragment without a first one; or VIP or backend are gone since that came.
const LOST: Packed = Packed::dropped(Outcome::DropFragment);

/// The datagram's VIP and backend.
#[inline(always)]
fn target(packet: &Packet, entry: &FragmentEntry) -> Option<Target<'static>> {
    let key = VipKey::new(packet.destination, packet.destination_port, packet.protocol);
    Some(Target {
        settings: maps::settings()?,
        vip: maps::vip(&key)?,
        id: entry.backend_id,
        backend: backend::lookup(entry.backend_id).ok()?,
    })
}

/// What the first fragment decided, while that is not too long ago.
#[inline(always)]
fn lookup(key: &FragmentKey) -> Option<&'static FragmentEntry> {
    maps::fragment(key)
        .filter(|entry| kernel::tick().wrapping_sub(entry.seen) <= limits::FRAGMENT_TICKS)
}

#[inline(always)]
fn is_for_vip(packet: &Packet) -> bool {
    maps::vip(&VipKey::address(packet.destination)).is_some()
}

/// Notes where a first fragment went that was just sent to its backend.
#[inline(always)]
pub fn remember<C: Context>(ctx: &C, packet: &Packet, vip: &VipEntry, id: BackendId) -> u32 {
    let mut entry = entry_of(packet);
    entry.backend_id = id;
    entry.vip_id = vip.vip_id;
    if vip.forwarding_mode == VipEntry::MODE_NAT {
        // The stage that rewrote the packet does not say to what: the packet does.
        if read_addresses(ctx, packet, &mut entry.source, &mut entry.destination).is_none() {
            return 0;
        }
    }
    put(packet, &entry)
}

/// Reads the addresses that a packet of the same family as `packet` has now.
#[inline(always)]
fn read_addresses<C: Context>(
    ctx: &C,
    packet: &Packet,
    source: &mut Addr,
    destination: &mut Addr,
) -> Option<()> {
    if packet.destination.is_v4() {
        const OFFSET: usize = L3_OFFSET + core::mem::offset_of!(Ipv4Hdr, src_addr);
        *source = Addr::from_wire_v4(ctx.load(OFFSET)?);
        *destination = Addr::from_wire_v4(ctx.load(OFFSET + 4)?);
    } else {
        const OFFSET: usize = L3_OFFSET + core::mem::offset_of!(Ipv6Hdr, src_addr);
        *source = Addr::from_wire(ctx.load(OFFSET)?);
        *destination = Addr::from_wire(ctx.load(OFFSET + 16)?);
    }
    Some(())
}

/// Notes that the datagram of a first fragment passes, if it is for a VIP address: its later
/// fragments must not wait for an entry.
#[inline(always)]
pub fn let_pass(packet: &Packet) -> u32 {
    if !is_for_vip(packet) {
        return 0;
    }
    let mut entry = entry_of(packet);
    entry.flags = FragmentEntry::FLAG_PASS;
    put(packet, &entry)
}

/// An entry that changes nothing.
#[inline(always)]
pub fn entry_of(packet: &Packet) -> FragmentEntry {
    FragmentEntry {
        source: packet.source,
        destination: packet.destination,
        backend_id: 0,
        vip_id: 0,
        seen: kernel::tick(),
        flags: 0,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        pad: 0,
        pad_end: 0,
    }
}

/// Stores an entry. Without it the later fragments are lost, which the datagram's sender notices.
///
/// A stack frame of its own, for the key.
#[inline(never)]
pub fn put(packet: &Packet, entry: &FragmentEntry) -> u32 {
    u32::from(maps::put_fragment(&packet.fragment_key(), entry).is_ok())
}
