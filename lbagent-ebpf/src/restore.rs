//! The way back of NAT: which VIP a reply belongs to, and who its client is.

use lbagent_common::{Addr, BackendId, NatFlowKey, Outcome, Port, ReturnEntry, ReturnKey};

use crate::forward::rewrite::{self, Refusal, Rewrite};
use crate::outcome::{Egress, Stop};
use crate::packet::{Context, Packet};
use crate::{counters, maps};

/// What a reply is restored to.
pub struct Reply {
    vip: Addr,
    vip_port: Port,
    client: Addr,
    client_port: Port,
    vip_id: u32,
    backend_id: BackendId,
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

/// Restores a reply and sends it to the client.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, reply: &Reply) -> Result<Egress, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let to = Rewrite {
        source: reply.vip,
        source_port: reply.vip_port,
        destination: reply.client,
        destination_port: reply.client_port,
        via_kernel: false,
    };
    let egress = rewrite::send(ctx, packet, &to).map_err(|refusal| match refusal {
        Refusal::Local => Stop::Pass(Outcome::PassLocal),
        Refusal::TooBig => Stop::Pass(Outcome::PassTooBig),
        Refusal::NoRoute => Stop::Drop(Outcome::DropNoRoute),
        Refusal::OwnSource => Stop::Drop(Outcome::DropNoSource),
        Refusal::OutOfBounds => Stop::Drop(Outcome::DropRewrite),
    })?;
    counters::returned(reply.vip_id, reply.backend_id, ctx.len());
    Ok(egress)
}
