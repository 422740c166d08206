//! The memory allocator, and how soon it gives memory back to the host.

use std::ffi::{c_int, c_long};

/// Gives the memory of a large pass back to the host, where the C library's keeps hundreds of MiB. It
/// does without huge pages: one that is half empty could not be given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many milliseconds free memory stays with the process; `mi_option_purge_delay` in `mimalloc.h`.
const PURGE_DELAY: c_int = 15;

// SAFETY: `mimalloc.h` declares these functions so, and they take every option and value.
unsafe extern "C" {
    safe fn mi_option_set(option: c_int, value: c_long);
    safe fn mi_collect(force: bool);
    #[cfg(test)]
    safe fn mi_option_get(option: c_int) -> c_long;
}

/// Gives free memory back, now and from now on at once. By default only allocations made a second later
/// do that, and the agent makes none while nothing changes: it would keep what its largest pass needed for
/// good. Its start does without: to give memory back and get it again takes a tenth of its time.
pub fn give_back_at_once() {
    // Nothing that waits to be given back is looked at once nothing is to wait any more.
    mi_collect(true);
    mi_option_set(PURGE_DELAY, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_has_this_number() {
        // Its default, which no other option has.
        assert_eq!(mi_option_get(PURGE_DELAY), 1_000);
        give_back_at_once();
        assert_eq!(mi_option_get(PURGE_DELAY), 0);
    }
}
