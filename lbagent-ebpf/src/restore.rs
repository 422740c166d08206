//! The way back of NAT: which VIP a reply belongs to, and who its client is.

use lbagent_common::{
    Addr, BackendId, FragmentEntry, NatFlowKey, Outcome, Port, ReturnEntry, ReturnKey,
};

use crate::forward::rewrite::{self, Rewrite};
use crate::kernel::{self, Hop, Leg, Route};
use crate::outcome::{Egress, Packed, Stop};
use crate::packet::{Context, Packet};
use crate::{counters, fragments, maps};

/// What a reply is restored to.
pub struct Reply {
    /// The VIP that it comes from.
    pub vip: Addr,
    /// Its port.
    pub vip_port: Port,
    /// The client that it goes to.
    pub client: Addr,
    /// Its port.
    pub client_port: Port,
    /// Index into `VIP_COUNTERS`.
    pub vip_id: u32,
    /// Index into `BACKEND_COUNTERS`.
    pub backend_id: BackendId,
}

/// The reply's flow; `None` for a packet whose source is no backend's published port.
#[inline(always)]
pub fn lookup_reply(packet: &Packet) -> Result<Option<Reply>, Stop> {
    let key = ReturnKey::new(packet.source, packet.source_port, packet.protocol);
    let Some(entry) = maps::return_entry(&key) else {
        return Ok(None);
    };
    let to_gateway = packet.destination == entry.source;
    if to_gateway || entry.flags & ReturnEntry::FLAG_AMBIGUOUS != 0 {
        if let Some(reply) = lookup_stored(packet) {
            return Ok(Some(reply));
        }
        if to_gateway {
            return Err(Stop::Pass(Outcome::PassLocal));
        }
    }
    Ok(Some(Reply {
        vip: entry.vip,
        vip_port: entry.vip_port,
        client: packet.destination,
        client_port: packet.destination_port,
        vip_id: entry.vip_id,
        backend_id: entry.backend_id,
    }))
}

#[inline(always)]
fn lookup_stored(packet: &Packet) -> Option<Reply> {
    let key = NatFlowKey::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol,
    );
    let stored = maps::nat_flow(&key)?;
    let flow = stored.get();
    Some(Reply {
        vip: flow.vip,
        vip_port: flow.vip_port,
        client: flow.client,
        client_port: flow.client_port,
        vip_id: flow.vip_id,
        backend_id: flow.backend_id,
    })
}

/// Restores a reply and sends it to the client; [`Packed::ONWARDS`] for a packet that is no reply.
///
/// A function of its own because BPF programs have 512 bytes of stack, and the stages that balance
/// need most of it.
#[inline(never)]
pub fn send<C: Context>(ctx: &C, packet: &Packet) -> Packed {
    match lookup_reply(packet) {
        Ok(Some(reply)) => Packed::new(restore(ctx, packet, &reply)),
        Ok(None) => Packed::ONWARDS,
        Err(stop) => Packed::new(Err(stop)),
    }
}

/// Notes what the later fragments of a restored reply are restored to.
#[inline(never)]
pub fn remember(packet: &Packet) -> u32 {
    let Ok(Some(reply)) = lookup_reply(packet) else {
        return 0;
    };
    let mut entry = fragments::entry_of(packet);
    entry.source = reply.vip;
    entry.destination = reply.client;
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
    let leg = Leg {
        source: &entry.source,
        destination: &entry.destination,
        overhead: 0,
    };
    let mut hop = Hop::NONE;
    match kernel::route(ctx, packet, &leg, &mut hop) {
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
    let leg = Leg {
        source: &reply.vip,
        destination: &reply.client,
        overhead: 0,
    };
    let mut hop = Hop::NONE;
    match kernel::route(ctx, packet, &leg, &mut hop) {
        Route::Out => {}
        Route::Local => return Err(Stop::Pass(Outcome::PassLocal)),
        Route::TooBig => return Err(Stop::Pass(Outcome::PassTooBig)),
        Route::None => return Err(Stop::Drop(Outcome::DropNoRoute)),
    }
    let to = Rewrite {
        source: reply.vip,
        source_port: reply.vip_port,
        destination: reply.client,
        destination_port: reply.client_port,
    };
    rewrite::write(ctx, packet, &to, &hop).ok_or(Stop::Drop(Outcome::DropRewrite))?;
    counters::returned(reply.vip_id, reply.backend_id, ctx.len());
    Ok(hop.egress(ctx))
}
