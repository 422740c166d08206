//! Which listening socket gets a connection: for a terminated port that of the terminator, whichever
//! address and port it is bound to.

use aya_ebpf::programs::SkLookupContext;
use lbagent_common::{Settings, Steered, TERMINATOR_V4, TERMINATOR_V6};

use crate::{kernel, maps, web};

/// Steers a connection; `None` for what is not for a terminated port.
///
/// Ports of the data plane's own come here too, after a packet that XDP passed for want of a route to
/// the backend, say. They are the host's then.
#[inline(always)]
pub fn steer(ctx: &SkLookupContext) -> Option<Steered> {
    // A program asks whether there is a connection: it wants no listening socket.
    if web::maps::is_asking() {
        return None;
    }
    let key = kernel::dialled(ctx)?;
    let vip = maps::vip(&key)?;
    if !vip.is_terminated() {
        return None;
    }
    let index = if key.addr.is_v4() {
        TERMINATOR_V4
    } else {
        TERMINATOR_V6
    };
    Some(match maps::assign_terminator(ctx, index) {
        Ok(()) => Steered::ToTerminator,
        Err(maps::NO_TERMINATOR) => miss(),
        Err(_) => Steered::Refused,
    })
}

#[inline(always)]
fn miss() -> Steered {
    match maps::settings() {
        Some(settings) if settings.unsteered == Settings::UNSTEERED_PASS => Steered::MissedPassed,
        _ => Steered::MissedReset,
    }
}
