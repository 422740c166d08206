//! Stage 6: rewrite for the backend and send.

mod nat;
pub mod rewrite;
pub mod way;

use lbagent_common::{BackendEntry, BackendId, FragmentEntry, Outcome, Settings, VipEntry};

use crate::outcome::{Egress, Packed, Stop};
use crate::packet::{Context, Packet};

/// Where a packet goes, and by which rules.
pub struct Target<'a> {
    /// Global settings.
    pub settings: &'a Settings,
    /// The published port.
    pub vip: &'a VipEntry,
    /// The backend.
    pub id: BackendId,
    /// Its entry.
    pub backend: &'a BackendEntry,
}

/// The modes in which the backend answers the client directly.
#[inline(never)]
pub fn send_dsr<C: Context>(_ctx: &C, _packet: &Packet, _target: &Target<'_>) -> Packed {
    Packed::new(Err(Stop::Drop(Outcome::DropNotConfigured)))
}

/// Sends a packet to its backend in its service group's forwarding mode.
#[inline(always)]
pub fn send<C: Context>(ctx: &C, packet: &Packet, target: &Target<'_>) -> Result<Egress, Stop> {
    match target.vip.forwarding_mode {
        VipEntry::MODE_NAT => nat::send(ctx, packet, target),
        _ => Err(Stop::Drop(Outcome::DropNotConfigured)),
    }
}

/// Sends a later fragment, which has no transport header, to the backend of its datagram. The packet
/// has the ports of the first fragment.
#[inline(always)]
pub fn send_later<C: Context>(
    ctx: &C,
    packet: &Packet,
    target: &Target<'_>,
    entry: &FragmentEntry,
) -> Result<Egress, Stop> {
    match target.vip.forwarding_mode {
        VipEntry::MODE_NAT => nat::send_later(ctx, packet, target, entry),
        _ => Err(Stop::Drop(Outcome::DropNotConfigured)),
    }
}
