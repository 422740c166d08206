//! The stages on one screen.

use lbagent_common::{BackendId, FragmentEntry, Outcome, VipEntry};

use crate::forward::Target;
use crate::kernel::Hop;
use crate::outcome::{Direction, Egress, Packed, Stop};
use crate::packet::{self, Context, Packet};
use crate::{
    backend, conntrack, counters, forward, fragments, icmp, maglev, maps, policy, quic, restore,
    vip,
};

/// A packet that came in on a client-facing interface; `vlan` as [`Packet::vlan`].
#[inline(always)]
pub fn from_client<C: Context>(ctx: &C, vlan: u32) -> Result<Egress, Stop> {
    let mut packet = Packet::unread(vlan);
    match read(ctx, &mut packet) {
        Ok(()) => {}
        Err(LATER) => return follow(ctx, &mut packet).map(|(_, egress)| egress),
        Err(FOREIGN) => return icmp::to_vip(ctx, vlan).result().unwrap_or(Err(FOREIGN)),
        Err(stop) => return Err(stop),
    }
    balance(ctx, &packet)
}

/// What is neither TCP nor UDP is foreign unless it is ICMP that concerns a VIP.
const FOREIGN: Stop = Stop::Pass(Outcome::PassProtocol);
/// A later fragment passes unless its first one was balanced.
const LATER: Stop = Stop::Pass(Outcome::PassFragment);

/// Reads the headers of a packet that has ports.
#[inline(always)]
fn read<C: Context>(ctx: &C, packet: &mut Packet) -> Result<(), Stop> {
    packet::parse_ip(ctx, packet)?;
    if packet.is_later_fragment() {
        return Err(LATER);
    }
    packet::parse_transport(ctx, packet)
}

/// ICMP from the backend side: for a VIP, or about a packet that a VIP's client sent.
#[inline(always)]
fn icmp_from_backend<C: Context>(ctx: &C, vlan: u32) -> Result<(Direction, Egress), Stop> {
    if let Some(result) = icmp::to_vip(ctx, vlan).result() {
        return result.map(|egress| (Direction::Forward, egress));
    }
    let result = icmp::to_client(ctx).result().unwrap_or(Err(FOREIGN));
    result.map(|egress| (Direction::Return, egress))
}

/// A packet that came in on a backend-facing interface.
#[inline(always)]
pub fn from_backend<C: Context>(ctx: &C, vlan: u32) -> Result<(Direction, Egress), Stop> {
    let mut packet = Packet::unread(vlan);
    match read(ctx, &mut packet) {
        Ok(()) => {}
        Err(LATER) => return follow(ctx, &mut packet),
        Err(FOREIGN) => return icmp_from_backend(ctx, vlan),
        Err(stop) => return Err(stop),
    }
    if let Some(result) = restore::send(ctx, &packet).result() {
        if packet.is_first_fragment() {
            if result.is_ok() {
                restore::remember(&packet);
            } else {
                fragments::let_pass(&packet);
            }
        }
        return result.map(|egress| (Direction::Return, egress));
    }
    match balance(ctx, &packet) {
        Ok(egress) => Ok((Direction::Forward, egress)),
        Err(Stop::Pass(Outcome::PassNotVip)) => Err(Stop::Pass(Outcome::PassNotReply)),
        Err(stop) => Err(stop),
    }
}

/// Sends a later fragment after its first one.
#[inline(always)]
fn follow<C: Context>(ctx: &C, packet: &mut Packet) -> Result<(Direction, Egress), Stop> {
    const LOST: Stop = Stop::Drop(Outcome::DropFragment);
    let mut entry = None;
    if let Some(Err(stop)) = fragments::find(ctx, packet, &mut entry).result() {
        return Err(stop);
    }
    let entry: &FragmentEntry = entry.ok_or(LOST)?;
    // Nothing that comes from clients is a reply.
    let (direction, packed) =
        if !C::REDIRECTS_BY_XDP && entry.flags & FragmentEntry::FLAG_REPLY != 0 {
            (Direction::Return, restore::send_later(ctx, packet, entry))
        } else {
            (Direction::Forward, follow_forward(ctx, packet, entry))
        };
    let result = packed.result().unwrap_or(Err(LOST));
    result.map(|egress| (direction, egress))
}

/// In steps, because each needs much of the stack.
#[inline(always)]
fn follow_forward<C: Context>(ctx: &C, packet: &Packet, entry: &FragmentEntry) -> Packed {
    let rewritten = fragments::send(ctx, packet, entry);
    if !rewritten.is_nothing() {
        return rewritten;
    }
    let mut hop = Hop::NONE;
    let found = fragments::find_dsr_way(ctx, packet, entry, &mut hop);
    if found.result().is_some() {
        return found;
    }
    fragments::send_dsr(ctx, packet, entry, &hop)
}

/// Sends a packet for a VIP to the backend that owns its flow.
#[inline(always)]
fn balance<C: Context>(ctx: &C, packet: &Packet) -> Result<Egress, Stop> {
    let result = balance_whole(ctx, packet);
    if packet.is_first_fragment() && matches!(result, Err(Stop::Pass(_))) {
        fragments::let_pass(packet);
    }
    result
}

#[inline(always)]
fn balance_whole<C: Context>(ctx: &C, packet: &Packet) -> Result<Egress, Stop> {
    let mut choice = Choice {
        vip: None,
        id: 0,
        is_new: false,
    };
    if C::IS_ROOMY {
        choose(ctx, packet, &mut choice)?;
    } else {
        choose_apart(ctx, packet, &mut choice)?;
    }
    const MISSING: Stop = Stop::Drop(Outcome::DropNotConfigured);
    let (id, is_new) = (choice.id, choice.is_new);
    let target = Target {
        settings: maps::settings().ok_or(MISSING)?,
        vip: choice.vip.ok_or(MISSING)?,
        id,
        backend: backend::lookup(id)?,
    };
    let egress = forward::send(ctx, packet, &target)?;
    if packet.is_first_fragment() {
        fragments::remember(ctx, packet, target.vip, id);
    }
    counters::forwarded(target.vip.vip_id, id, is_new, ctx.len());
    Ok(egress)
}

/// Which backend gets a packet. Made by its reader and filled by [`choose`]: the verifier follows a
/// pointer through memory only where it is stored and loaded whole, which it is not within a
/// `Result`.
struct Choice {
    vip: Option<&'static VipEntry>,
    id: BackendId,
    is_new: bool,
}

#[inline(always)]
fn choose<C: Context>(ctx: &C, packet: &Packet, choice: &mut Choice) -> Result<(), Stop> {
    let settings = maps::settings().ok_or(Stop::Drop(Outcome::DropNotConfigured))?;
    let vip = vip::lookup(settings, packet)?;
    policy::admit(packet, vip)?;
    let hash = maglev::hash(settings, packet);
    choice.vip = Some(vip);
    choice.is_new = conntrack::is_new(settings, packet, hash);
    choice.id = quic::select_server(ctx, packet, vip);
    if choice.id == 0 {
        let owners = maglev::lookup_owners(vip, hash)?;
        choice.id = conntrack::select_owner(settings, vip, hash, owners, choice.is_new)?;
    }
    Ok(())
}

/// [`choose`] with a stack frame of its own, given back before the packet is rewritten.
#[inline(never)]
fn choose_apart<C: Context>(ctx: &C, packet: &Packet, choice: &mut Choice) -> Result<(), Stop> {
    choose(ctx, packet, choice)
}
