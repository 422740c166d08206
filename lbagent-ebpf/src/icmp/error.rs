//! Errors about packets of balanced flows: to the backend that sent the packet, or to the client.
//!
//! Nothing is answered and nothing stored, so errors cannot make loops, and a flood of them takes no
//! flow's place.

use lbagent_common::{NatFlowKey, Outcome, VipEntry, VipKey};

use super::{Work, rewrite};
use crate::forward::Target;
use crate::forward::way;
use crate::kernel::{Hop, Route};
use crate::outcome::{Egress, Packed, Stop};
use crate::packet::{Context, is_host};
use crate::restore::Reply;
use crate::{backend, conntrack, counters, maglev, maps, restore, sources};

/// About a packet of which the data plane knows nothing: the kernel's.
const UNKNOWN: Stop = Stop::Pass(Outcome::PassIcmp);

/// Sends an error about a packet that a VIP sent to the backend that sent it.
#[inline(always)]
pub fn to_backend<C: Context>(ctx: &C, work: &mut Work) -> Packed {
    // An error goes to the sender of what it quotes: everything else is forged.
    if work.flow.destination != work.message.destination || !is_host(&work.message.source) {
        return Packed::new(Err(UNKNOWN));
    }
    match choose(work) {
        Choice::Unknown => Packed::new(Err(UNKNOWN)),
        Choice::Nat if find_source(work) == 0 => Packed::new(Err(UNKNOWN)),
        Choice::Nat => Packed::new(send_nat(ctx, work)),
        Choice::Dsr => send_dsr(ctx, work),
    }
}

/// Who owns the flow.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Nobody.
    Unknown,
    /// A backend that sees rewritten packets.
    Nat,
    /// A backend that has the VIP.
    Dsr,
}

/// Finds the owner of the flow as for a packet that starts none, without a trace.
#[inline(never)]
fn choose(work: &mut Work) -> Choice {
    let flow = &work.flow;
    let key = VipKey::new(flow.destination, flow.destination_port, flow.protocol);
    let (Some(settings), Some(vip)) = (maps::settings(), maps::vip(&key)) else {
        return Choice::Unknown;
    };
    if vip.disposition != VipEntry::DISPOSITION_FORWARD {
        return Choice::Unknown;
    }
    let hash = maglev::hash(settings, flow);
    let Ok(owners) = maglev::lookup_owners(vip, hash) else {
        return Choice::Unknown;
    };
    work.backend = conntrack::lookup_owner(settings, vip, hash, owners);
    work.vip_id = vip.vip_id;
    match (backend::lookup(work.backend), vip.forwarding_mode) {
        (Err(_), _) => Choice::Unknown,
        (Ok(_), VipEntry::MODE_NAT) => Choice::Nat,
        (Ok(_), _) => Choice::Dsr,
    }
}

/// Fills in what a backend behind NAT knows the flow by; 0 where it does not know it.
#[inline(never)]
fn find_source(work: &mut Work) -> u32 {
    let Some(target) = target(work) else {
        return 0;
    };
    let flow = &work.flow;
    work.key = NatFlowKey::new(
        target.backend.addr,
        target.vip.destination_port,
        flow.source,
        flow.source_port,
        flow.protocol,
    );
    if !sources::find(flow, &target, &mut work.key) {
        return 0;
    }
    work.source = work.message.source;
    work.destination = target.backend.addr;
    work.quoted_source = target.backend.addr;
    work.quoted_source_port = target.vip.destination_port;
    work.quoted_destination = work.key.peer;
    work.quoted_destination_port = work.key.peer_port;
    1
}

/// The flow's VIP and backend, looked up again: references do not survive in a map's memory.
#[inline(always)]
fn target(work: &Work) -> Option<Target<'static>> {
    let flow = &work.flow;
    let key = VipKey::new(flow.destination, flow.destination_port, flow.protocol);
    Some(Target {
        settings: maps::settings()?,
        vip: maps::vip(&key)?,
        id: work.backend,
        backend: backend::lookup(work.backend).ok()?,
    })
}

/// To a backend behind NAT: all is rewritten, the quoted packet too.
#[inline(always)]
fn send_nat<C: Context>(ctx: &C, work: &mut Work) -> Result<Egress, Stop> {
    find_way(ctx, work)
        .result()
        .unwrap_or(Ok(Egress::Transmit { vlan: 0 }))?;
    if rewrite::write(ctx, work) == 0 {
        return Err(Stop::Drop(Outcome::DropRewrite));
    }
    let settings = maps::settings().ok_or(UNKNOWN)?;
    counters::forwarded(settings, work.vip_id, work.backend, false, ctx.len());
    Ok(work.hop.egress(ctx))
}

/// The way to the backend; [`Packed::ONWARDS`] when there is one.
#[inline(never)]
fn find_way<C: Context>(ctx: &C, work: &mut Work) -> Packed {
    if work.message.ttl <= 1 {
        return Packed::new(Err(Stop::Pass(Outcome::PassTtl)));
    }
    let Some(target) = target(work) else {
        return Packed::new(Err(UNKNOWN));
    };
    let Target {
        settings, backend, ..
    } = target;
    work.hop = Hop::unknown(0);
    let Work {
        message,
        source,
        hop,
        ..
    } = work;
    match way::to_backend(ctx, message, settings, backend, source, hop) {
        Ok(()) => Packed::ONWARDS,
        Err(stop) => Packed::new(Err(stop)),
    }
}

/// To a backend that has the VIP: the message goes as it is, the way that the flow's packets go.
#[inline(always)]
fn send_dsr<C: Context>(ctx: &C, work: &Work) -> Packed {
    let Some(target) = target(work) else {
        return Packed::new(Err(UNKNOWN));
    };
    let sent = ctx.send_around_nat(&work.message, target.vip, target.backend, &work.flow);
    if sent.is_sent() {
        counters::forwarded(target.settings, work.vip_id, work.backend, false, ctx.len());
    }
    sent
}

/// Sends an error about a client's packet to the client: from a backend, or from a router on the way
/// to it. After [`super::to_vip`]; [`Packed::ONWARDS`] for what is not such an error.
#[inline(always)]
pub fn to_client<C: Context>(ctx: &C) -> Packed {
    let Some(work) = maps::icmp_work() else {
        return Packed::ONWARDS;
    };
    if work.is_return == 0 || work.flow.destination != work.message.destination {
        return Packed::ONWARDS;
    }
    let found = find_client(work);
    if found.result().is_some() {
        return found;
    }
    if work.is_return == 0 {
        return Packed::ONWARDS;
    }
    Packed::new(restore(ctx, work))
}

/// Fills in what the client knows the flow by; `is_return` tells whether it is a flow's.
#[inline(never)]
fn find_client(work: &mut Work) -> Packed {
    let mut reply = Reply::unknown();
    let looked_up = restore::lookup_reply(&work.flow, &mut reply);
    if looked_up.is_nothing() {
        work.is_return = 0;
        return Packed::ONWARDS;
    }
    if looked_up.result().is_some() {
        return looked_up;
    }
    let to = reply.to;
    // A router on the way speaks for itself, a backend through its VIP.
    work.source = if work.message.source == work.flow.source {
        to.source
    } else {
        work.message.source
    };
    work.destination = to.destination;
    work.quoted_source = to.destination;
    work.quoted_source_port = to.destination_port;
    work.quoted_destination = to.source;
    work.quoted_destination_port = to.source_port;
    work.vip_id = reply.vip_id;
    work.backend = reply.backend_id;
    Packed::ONWARDS
}

#[inline(always)]
fn restore<C: Context>(ctx: &C, work: &mut Work) -> Result<Egress, Stop> {
    if work.message.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    work.hop = Hop::unknown(0);
    match ctx.route(
        &work.message,
        &work.source,
        &work.destination,
        &mut work.hop,
    ) {
        Route::Out => {}
        Route::Local => return Err(Stop::Pass(Outcome::PassLocal)),
        Route::TooBig => return Err(Stop::Drop(Outcome::DropTooBig)),
        Route::None => return Err(Stop::Drop(Outcome::DropNoRoute)),
    }
    if rewrite::write(ctx, work) == 0 {
        return Err(Stop::Drop(Outcome::DropRewrite));
    }
    counters::returned(work.vip_id, work.backend, ctx.len());
    Ok(work.hop.egress(ctx))
}
