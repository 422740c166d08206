//! The way back of NAT: which VIP a reply belongs to, and who its client is.

use lbagent_common::{BackendId, FragmentEntry, NatFlowKey, Outcome, ReturnEntry, ReturnKey};

use crate::forward::rewrite::{self, Rewrite};
use crate::kernel::{Hop, Route};
use crate::outcome::{Egress, Packed, Stop};
use crate::packet::{Context, Packet, zero};
use crate::{counters, fragments, maps};

/// What a reply is restored to: from the VIP to the client.
pub struct Reply {
    /// The 4-tuple that it gets.
    pub to: Rewrite,
    /// Index into `VIP_COUNTERS`.
    pub vip_id: u32,
    /// Index into `BACKEND_COUNTERS`.
    pub backend_id: BackendId,
}

impl Reply {
    /// To be filled.
    #[inline(always)]
    pub fn unknown() -> Self {
        Self {
            to: Rewrite::unknown(),
            vip_id: zero(),
            backend_id: zero(),
        }
    }
}

/// Finds the reply's flow; [`Packed::ONWARDS`] when there is one, and [`Packed::NOTHING`] for a packet
/// whose source is no backend's published port. A stack frame of its own, given back before the
/// packet is sent.
#[inline(never)]
pub fn lookup_reply(packet: &Packet, reply: &mut Reply) -> Packed {
    let key = ReturnKey::new(packet.source, packet.source_port, packet.protocol);
    let Some(entry) = maps::return_entry(&key) else {
        return Packed::NOTHING;
    };
    let to_gateway = packet.destination == entry.source;
    if to_gateway || entry.flags & ReturnEntry::FLAG_AMBIGUOUS != 0 {
        if lookup_stored(packet, reply).is_some() {
            return Packed::ONWARDS;
        }
        if to_gateway {
            return Packed::new(Err(Stop::Pass(Outcome::PassLocal)));
        }
    }
    // Field by field: as a whole it would be put together on the stack first.
    reply.to.source = entry.vip;
    reply.to.source_port = entry.vip_port;
    reply.to.destination = packet.destination;
    reply.to.destination_port = packet.destination_port;
    reply.vip_id = entry.vip_id;
    reply.backend_id = entry.backend_id;
    Packed::ONWARDS
}

#[inline(always)]
fn lookup_stored(packet: &Packet, reply: &mut Reply) -> Option<()> {
    let key = NatFlowKey::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol,
    );
    let stored = maps::nat_flow(&key)?;
    let flow = stored.get();
    reply.to.source = flow.vip;
    reply.to.source_port = flow.vip_port;
    reply.to.destination = flow.client;
    reply.to.destination_port = flow.client_port;
    reply.vip_id = flow.vip_id;
    reply.backend_id = flow.backend_id;
    Some(())
}

/// Restores a reply and sends it to the client; [`Packed::ONWARDS`] for a packet that is no reply.
///
/// A function of its own because BPF programs have 512 bytes of stack, and the stages that balance
/// need most of it.
#[inline(never)]
pub fn send<C: Context>(ctx: &C, packet: &Packet) -> Packed {
    let mut reply = Reply::unknown();
    let looked_up = lookup_reply(packet, &mut reply);
    if looked_up.is_nothing() {
        return Packed::ONWARDS;
    }
    if looked_up.result().is_some() {
        return looked_up;
    }
    Packed::new(restore(ctx, packet, &reply))
}

/// Notes what the later fragments of a restored reply are restored to.
#[inline(never)]
pub fn remember(packet: &Packet) -> u32 {
    let mut reply = Reply::unknown();
    let looked_up = lookup_reply(packet, &mut reply);
    if looked_up.is_nothing() || looked_up.result().is_some() {
        return 0;
    }
    let mut entry = fragments::entry_of(packet);
    entry.source = reply.to.source;
    entry.destination = reply.to.destination;
    entry.backend_id = reply.backend_id;
    entry.vip_id = reply.vip_id;
    entry.flags = FragmentEntry::FLAG_REPLY;
    fragments::put(packet, &entry)
}

/// Restores the source of a reply's later fragment and sends it to the client.
#[inline(never)]
pub fn send_later<C: Context>(ctx: &C, packet: &Packet, entry: &FragmentEntry) -> Packed {
    Packed::new(restore_later(ctx, packet, entry))
}

#[inline(always)]
fn restore_later<C: Context>(
    ctx: &C,
    packet: &Packet,
    entry: &FragmentEntry,
) -> Result<Egress, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let mut hop = Hop::unknown(0);
    match ctx.route(packet, &entry.source, &entry.destination, &mut hop) {
        Route::Out => {}
        Route::Local => return Err(Stop::Pass(Outcome::PassLocal)),
        Route::TooBig => return Err(Stop::Pass(Outcome::PassTooBig)),
        Route::None => return Err(Stop::Drop(Outcome::DropNoRoute)),
    }
    rewrite::write_addresses(ctx, packet, entry, &hop).ok_or(Stop::Drop(Outcome::DropRewrite))?;
    counters::returned(entry.vip_id, entry.backend_id, ctx.len());
    Ok(hop.egress(ctx))
}

#[inline(always)]
fn restore<C: Context>(ctx: &C, packet: &Packet, reply: &Reply) -> Result<Egress, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let mut hop = Hop::unknown(0);
    match ctx.route(packet, &reply.to.source, &reply.to.destination, &mut hop) {
        Route::Out => {}
        Route::Local => return Err(Stop::Pass(Outcome::PassLocal)),
        Route::TooBig => return Err(Stop::Pass(Outcome::PassTooBig)),
        Route::None => return Err(Stop::Drop(Outcome::DropNoRoute)),
    }
    rewrite::write(ctx, packet, &reply.to, &hop).ok_or(Stop::Drop(Outcome::DropRewrite))?;
    counters::returned(reply.vip_id, reply.backend_id, ctx.len());
    Ok(hop.egress(ctx))
}
