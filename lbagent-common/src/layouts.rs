//! Which maps survive a change of the ABI version.

use crate::limits;

/// The ABI version that a map's key, value or meaning changed in last; 2 is where this record
/// begins. Two versions of lbagent that agree on this number read each other's entries of that map.
pub fn layout_since(map: &str) -> u32 {
    match map {
        // An object of another version may number outcomes otherwise.
        limits::OUTCOMES => crate::ABI_VERSION,
        limits::SETTINGS
        | limits::TERMINATORS
        | limits::STEER_COUNTERS
        | limits::HOSTS
        | limits::REDIRECT_COUNTERS
        | limits::SHIELD => 3,
        _ => 2,
    }
}
