//! Stage 1: which VIP, and what it does with its packets.

use lbagent_common::{Outcome, Settings, VipEntry, VipKey};

use crate::maps;
use crate::outcome::Stop;
use crate::packet::Packet;

/// The published port that a packet is for.
#[inline(always)]
pub fn lookup(settings: &Settings, packet: &Packet) -> Result<&'static VipEntry, Stop> {
    let key = VipKey::new(packet.destination, packet.destination_port, packet.protocol);
    match maps::vip(&key) {
        Some(vip) => Ok(vip),
        None => Err(unpublished(settings, packet)),
    }
}

/// Whether the programs may answer a packet for a port of the terminator.
#[inline(always)]
pub fn may_answer(vip: &VipEntry, packet: &Packet) -> bool {
    const SHIELD: u32 = VipEntry::FLAG_SHIELD;
    vip.flags & VipEntry::FLAG_REDIRECT != 0
        || vip.flags & SHIELD != 0 && packet.starts_connection()
}

/// Foreign packets cost no second lookup unless the policy asks for the difference.
#[inline(always)]
fn unpublished(settings: &Settings, packet: &Packet) -> Stop {
    if settings.unpublished == Settings::UNPUBLISHED_PASS {
        return Stop::Pass(Outcome::PassNotVip);
    }
    match maps::vip(&VipKey::address(packet.destination)) {
        Some(_) => Stop::Drop(Outcome::DropUnpublished),
        None => Stop::Pass(Outcome::PassNotVip),
    }
}
