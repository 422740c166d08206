//! Stage 4: the backend behind an id.

use lbagent_common::{BackendEntry, BackendId, Outcome};

use crate::maps;
use crate::outcome::Stop;

/// The backend's entry. An id that a table still names while its entry is gone has no backend.
#[inline(always)]
pub fn lookup(id: BackendId) -> Result<&'static BackendEntry, Stop> {
    match maps::backend(id) {
        Some(backend) if backend.is_alive() => Ok(backend),
        _ => Err(Stop::Drop(Outcome::DropNoBackend)),
    }
}
