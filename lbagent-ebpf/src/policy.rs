//! Stage 1, second half: whether the service group admits the source.

use lbagent_common::{Addr, Outcome, SourceEntry, SourceKey, VipEntry};

use crate::maps;
use crate::outcome::Stop;
use crate::packet::Packet;

/// Refuses sources that the group's rules refuse.
#[inline(always)]
pub fn admit(packet: &Packet, vip: &VipEntry) -> Result<(), Stop> {
    if vip.flags & VipEntry::FLAG_SOURCES != 0 && is_denied(&packet.source, vip.policy_id) {
        return Err(Stop::Drop(Outcome::DropSource));
    }
    Ok(())
}

/// What the longest prefix says that holds the source; where none does, it is admitted. A function
/// of its own because only some groups have rules, and its key takes stack.
#[inline(never)]
fn is_denied(source: &Addr, policy_id: u32) -> bool {
    let key = SourceKey::new(policy_id, *source, 128);
    maps::source_verdict(&key) == Some(SourceEntry::DENY)
}
