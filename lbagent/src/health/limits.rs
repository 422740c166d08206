//! How many checks may be under way: each has a socket.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Most checks under way at once, whatever the host allows.
const MOST: u64 = 16_384;
/// File descriptors that are left to everything else that the agent does.
const RESERVED: u64 = 1_024;
/// With less, checks of a large gateway may begin late while many instances hang.
const WISHED: u64 = 8_192;

/// Raises the process's limit of file descriptors as far as it may, and tells how many checks it
/// leaves room for.
pub(super) fn raise() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                warn!(%error, soft, hard, "cannot raise the limit of file descriptors");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(error) => {
            warn!(%error, "cannot tell the limit of file descriptors");
            RESERVED
        }
    };
    // However few there are, some are for checks.
    let room = limit.saturating_sub(RESERVED).max(limit / 4).clamp(1, MOST);
    if room < WISHED {
        warn!(
            limit,
            room, "few health checks can be under way at once; raise LimitNOFILE"
        );
    } else {
        info!(limit, room, "room for health checks");
    }
    usize::try_from(room).unwrap_or(1)
}
