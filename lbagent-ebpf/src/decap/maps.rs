//! The maps, behind accessors that cannot be misused.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use lbagent_common::decap::{DecapOutcome, DecapSettings, MAX_ADDRESSES};
use lbagent_common::{Addr, PacketCounter};

#[map]
static DECAP_SETTINGS: Array<DecapSettings> = Array::with_max_entries(1, 0);
#[map]
static DECAP_ADDRESSES: HashMap<Addr, u32> = HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
static DECAP_OUTCOMES: PerCpuArray<PacketCounter> =
    PerCpuArray::with_max_entries(DecapOutcome::COUNT, 0);

/// The settings.
#[inline(always)]
pub fn settings() -> Option<&'static DecapSettings> {
    DECAP_SETTINGS.get(0)
}

/// Whether an address has a role.
#[inline(always)]
pub fn has_role(address: &Addr, role: u32) -> bool {
    // SAFETY: entries are written whole, by user space only; a reader can at worst see another
    // valid entry, for one packet.
    unsafe { DECAP_ADDRESSES.get(address) }.is_some_and(|roles| roles & role != 0)
}

/// Counts an outcome.
#[inline(always)]
pub fn count(outcome: DecapOutcome, bytes: u64) {
    if let Some(counter) = DECAP_OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the pointer is to this CPU's own value; only one of the two programs counts an
        // outcome, and a lost count is the worst that a nested run can do.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}
