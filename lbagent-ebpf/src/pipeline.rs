//! The stages on one screen.

use lbagent_common::{BackendId, FragmentEntry, Outcome, Settings, VipEntry};

use crate::forward::Target;
use crate::outcome::{Direction, Egress, Packed, Stop};
use crate::packet::{self, Context, Packet};
use crate::{
    apart, backend, conntrack, counters, forward, fragments, maglev, policy, quic, restore, vip,
};

/// A packet that came in on a client-facing interface.
#[inline(always)]
pub fn from_client<C: Context>(ctx: &C, settings: &Settings) -> Result<Egress, Stop> {
    let mut packet = Packet::unread();
    match read(ctx, &mut packet) {
        Ok(()) => {}
        Err(LATER) => return ctx.follow(&mut packet).result().unwrap_or(Err(LATER)),
        Err(FOREIGN) => return ctx.icmp_to_vip().result().unwrap_or(Err(FOREIGN)),
        Err(stop) => return Err(stop),
    }
    balance(ctx, settings, &packet)
}

/// What is neither TCP nor UDP is foreign unless it is ICMP that concerns a VIP.
const FOREIGN: Stop = Stop::Pass(Outcome::PassProtocol);
/// A later fragment passes unless its first one was balanced.
const LATER: Stop = Stop::Pass(Outcome::PassFragment);

/// What is for a port with handlers is the terminator's.
const TERMINATED: Stop = Stop::Pass(Outcome::PassTerminate);

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
fn icmp_from_backend<C: Context>(ctx: &C) -> Result<(Direction, Egress), Stop> {
    if let Some(result) = ctx.icmp_to_vip().result() {
        return result.map(|egress| (Direction::Forward, egress));
    }
    let result = ctx.icmp_to_client().result().unwrap_or(Err(FOREIGN));
    result.map(|egress| (Direction::Return, egress))
}

/// A packet that came in on a backend-facing interface.
#[inline(always)]
pub fn from_backend<C: Context>(ctx: &C, settings: &Settings) -> Result<(Direction, Egress), Stop> {
    let mut packet = Packet::unread();
    match read(ctx, &mut packet) {
        Ok(()) => {}
        Err(LATER) => {
            let sent = ctx.follow(&mut packet);
            let result = sent.result().unwrap_or(Err(LATER));
            return result.map(|egress| (sent.direction(), egress));
        }
        Err(FOREIGN) => return icmp_from_backend(ctx),
        Err(stop) => return Err(stop),
    }
    if let Some(result) = restore::send(ctx, &packet).result() {
        if packet.is_first_fragment() {
            if result.is_ok() {
                restore::remember(&packet);
            } else {
                apart::let_fragments_pass(&packet);
            }
        }
        return result.map(|egress| (Direction::Return, egress));
    }
    match balance(ctx, settings, &packet) {
        Ok(egress) => Ok((Direction::Forward, egress)),
        Err(Stop::Pass(Outcome::PassNotVip)) => Err(Stop::Pass(Outcome::PassNotReply)),
        Err(stop) => Err(stop),
    }
}

/// Sends a later fragment after its first one.
#[inline(always)]
pub fn follow<C: Context>(ctx: &C, packet: &mut Packet) -> Packed {
    const LOST: Packed = Packed::dropped(Outcome::DropFragment);
    let mut entry = None;
    let found = fragments::find(ctx, packet, &mut entry);
    if found.result().is_some() {
        return found;
    }
    let Some(entry): Option<&FragmentEntry> = entry else {
        return LOST;
    };
    // Nothing that comes from clients is a reply.
    if !C::REDIRECTS_BY_XDP && entry.flags & FragmentEntry::FLAG_REPLY != 0 {
        restore::send_later(ctx, packet, entry).returning()
    } else {
        fragments::send(ctx, packet, entry)
    }
}

/// Sends a packet for a VIP to the backend that owns its flow.
#[inline(always)]
fn balance<C: Context>(ctx: &C, settings: &Settings, packet: &Packet) -> Result<Egress, Stop> {
    let result = balance_whole(ctx, settings, packet);
    if packet.is_first_fragment() && matches!(result, Err(Stop::Pass(_))) {
        apart::let_fragments_pass(packet);
    }
    result
}

#[inline(always)]
fn balance_whole<C: Context>(
    ctx: &C,
    settings: &Settings,
    packet: &Packet,
) -> Result<Egress, Stop> {
    let mut choice = Choice {
        vip: None,
        id: 0,
        is_new: false,
    };
    if C::IS_ROOMY {
        match (choose(ctx, settings, packet, &mut choice), choice.vip) {
            (Ok(()), _) => {}
            (Err(TERMINATED), Some(vip)) if vip::may_answer(vip, packet) => {
                return ctx.serve(packet, vip).result().unwrap_or(Err(TERMINATED));
            }
            (Err(stop), _) => return Err(stop),
        }
    } else {
        choose_apart(ctx, settings, packet, &mut choice)?;
    }
    const MISSING: Stop = Stop::Drop(Outcome::DropNotConfigured);
    let (id, is_new) = (choice.id, choice.is_new);
    let target = Target {
        settings,
        vip: choice.vip.ok_or(MISSING)?,
        id,
        backend: backend::lookup(id)?,
    };
    let egress = forward::send(ctx, packet, &target)?;
    if packet.is_first_fragment() {
        ctx.remember_fragment(packet, target.vip, id);
    }
    counters::forwarded(settings, target.vip.vip_id, id, is_new, ctx.len());
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
fn choose<C: Context>(
    ctx: &C,
    settings: &Settings,
    packet: &Packet,
    choice: &mut Choice,
) -> Result<(), Stop> {
    let vip = vip::lookup(settings, packet)?;
    choice.vip = Some(vip);
    if vip.is_terminated() {
        return Err(TERMINATED);
    }
    policy::admit(packet, vip)?;
    let hash = maglev::hash(settings, packet);
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
fn choose_apart<C: Context>(
    ctx: &C,
    settings: &Settings,
    packet: &Packet,
    choice: &mut Choice,
) -> Result<(), Stop> {
    choose(ctx, settings, packet, choice)
}
