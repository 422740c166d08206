//! The stages on one screen.

use lbagent_common::{BackendId, Outcome, VipEntry};

use crate::forward::Target;
use crate::outcome::{Direction, Egress, Stop};
use crate::packet::{self, Context, Packet};
use crate::{
    backend, conntrack, counters, forward, icmp, maglev, maps, policy, quic, restore, vip,
};

/// A packet that came in on a client-facing interface.
#[inline(always)]
pub fn from_client<C: Context>(ctx: &C) -> Result<Egress, Stop> {
    let packet = match packet::parse(ctx) {
        Err(FOREIGN) => return icmp::to_vip(ctx).result().unwrap_or(Err(FOREIGN)),
        parsed => parsed?,
    };
    balance(ctx, &packet)
}

/// What is neither TCP nor UDP is foreign unless it is ICMP that concerns a VIP.
const FOREIGN: Stop = Stop::Pass(Outcome::PassProtocol);

/// ICMP from the backend side: for a VIP, or about a packet that a VIP's client sent.
#[inline(always)]
fn icmp_from_backend<C: Context>(ctx: &C) -> Result<(Direction, Egress), Stop> {
    if let Some(result) = icmp::to_vip(ctx).result() {
        return result.map(|egress| (Direction::Forward, egress));
    }
    let result = icmp::to_client(ctx).result().unwrap_or(Err(FOREIGN));
    result.map(|egress| (Direction::Return, egress))
}

/// A packet that came in on a backend-facing interface.
#[inline(always)]
pub fn from_backend<C: Context>(ctx: &C) -> Result<(Direction, Egress), Stop> {
    let packet = match packet::parse(ctx) {
        Err(FOREIGN) => return icmp_from_backend(ctx),
        parsed => parsed?,
    };
    if let Some(result) = restore::send(ctx, &packet).result() {
        return result.map(|egress| (Direction::Return, egress));
    }
    match balance(ctx, &packet) {
        Ok(egress) => Ok((Direction::Forward, egress)),
        Err(Stop::Pass(Outcome::PassNotVip)) => Err(Stop::Pass(Outcome::PassNotReply)),
        Err(stop) => Err(stop),
    }
}

/// Sends a packet for a VIP to the backend that owns its flow.
#[inline(always)]
fn balance<C: Context>(ctx: &C, packet: &Packet) -> Result<Egress, Stop> {
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
