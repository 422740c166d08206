//! The stages on one screen.

use lbagent_common::{Outcome, Settings};

use crate::outcome::{Direction, Egress, Stop};
use crate::packet::{self, Context, Packet};
use crate::{backend, conntrack, counters, forward, maglev, maps, restore, sources, vip};

/// A packet that came in on a client-facing interface.
#[inline(always)]
pub fn from_client<C: Context>(ctx: &C) -> Result<Egress, Stop> {
    let packet = packet::parse(ctx)?;
    balance(ctx, &packet)
}

/// A packet that came in on a backend-facing interface.
#[inline(always)]
pub fn from_backend<C: Context>(ctx: &C) -> Result<(Direction, Egress), Stop> {
    let packet = packet::parse(ctx)?;
    if let Some(reply) = restore::lookup_reply(&packet)? {
        return restore::send(ctx, &packet, &reply).map(|egress| (Direction::Return, egress));
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
    let settings: &Settings = maps::settings().ok_or(Stop::Drop(Outcome::DropNotConfigured))?;
    let vip = vip::lookup(settings, packet)?;
    let hash = maglev::hash(settings, packet);
    let is_new = conntrack::is_new(settings, packet, hash);
    let owners = maglev::lookup_owners(vip, hash)?;
    let id = conntrack::select_owner(packet, vip, owners, is_new)?;
    let backend = backend::lookup(id)?;
    let source = sources::select(settings, packet, vip, id, backend)?;
    let egress = forward::nat::send(ctx, packet, vip, backend, source)?;
    counters::forwarded(vip.vip_id, id, is_new, ctx.len());
    Ok(egress)
}
