//! Forwarding mode `nat`: destination becomes the backend, the client's address stays.

use lbagent_common::{Addr, BackendEntry, Outcome, Port, VipEntry};

use crate::forward::rewrite::{self, Refusal, Rewrite};
use crate::outcome::{Egress, Stop};
use crate::packet::{Context, Packet};

/// Rewrites a packet for its backend and sends it.
#[inline(always)]
pub fn send<C: Context>(
    ctx: &C,
    packet: &Packet,
    vip: &VipEntry,
    backend: &BackendEntry,
    source: (Addr, Port),
) -> Result<Egress, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Pass(Outcome::PassTtl));
    }
    let to = Rewrite {
        source: source.0,
        source_port: source.1,
        destination: backend.addr,
        destination_port: vip.destination_port,
        via_kernel: backend.is_via_kernel(),
    };
    rewrite::send(ctx, packet, &to).map_err(|refusal| match refusal {
        Refusal::Local | Refusal::NoRoute => Stop::Drop(Outcome::DropNoRoute),
        Refusal::TooBig => Stop::Drop(Outcome::DropTooBig),
        Refusal::OwnSource => Stop::Drop(Outcome::DropNoSource),
        Refusal::OutOfBounds => Stop::Drop(Outcome::DropRewrite),
    })
}
