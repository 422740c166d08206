//! Memory of the stages that answer for the terminator. One of the places that may hold `unsafe`.
//!
//! But for the counters none of it outlives the programs: what it holds are drafts and hints.

use core::ptr;

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use lbagent_common::redirect::Passed;
use lbagent_common::{AnswerBudget, VipEntry};

use super::Work;
use super::notes::Note;
use crate::maps::Seen;

/// A power of two, fixed because programs mask with it: 1 MiB.
const NOTES_LEN: u32 = 1 << 16;

/// Of the hash of a client.
const LEFT_BITS: u32 = 14;

#[map]
static REDIRECT_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Passed::COUNT, 0);
#[map]
static REDIRECT_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
#[map]
static REDIRECT_NOTES: Array<Note> = Array::with_max_entries(NOTES_LEN, 0);
/// When clients' packets were last left to the kernel, by a hash of address and port: 64 KiB.
#[map]
static REDIRECT_LEFT: Array<u32> = Array::with_max_entries(1 << LEFT_BITS, 0);
#[map]
static SHIELD: PerCpuArray<AnswerBudget> =
    PerCpuArray::with_max_entries(VipEntry::MAX_VIP_INDEX as u32 + 1, 0);
#[map]
static ASKING: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// 0 where the kernel lacks the helpers: the agent writes it before it loads the object, and the
/// verifier then looks at nothing that needs them.
#[unsafe(no_mangle)]
static COOKIES: u32 = 1;

/// Whether the kernel has the helpers.
#[inline(always)]
pub fn has_cookies() -> bool {
    // SAFETY: a static of this type; volatile, because its value is not the compiler's to know.
    (unsafe { ptr::read_volatile(&raw const COOKIES) }) != 0
}

/// This CPU's memory, for as long as the program runs.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    let work = REDIRECT_WORK.get_ptr_mut(0)?;
    // SAFETY: all members are integers. One program at a time uses it: others of this CPU that run
    // meanwhile, `lb_steer`, do not.
    Some(unsafe { &mut *work })
}

/// A place for what is known of a flow.
pub struct Place(*mut Note);

impl Place {
    /// What is noted; programs on other CPUs may be replacing it.
    #[inline(always)]
    pub fn get(&self) -> Note {
        // SAFETY: the pointer came from a lookup in this run, and every bit pattern is valid.
        unsafe { ptr::read_volatile(self.0) }
    }

    /// Replaces it. Not one store: a mixture is a hint that fits no flow.
    #[inline(always)]
    pub fn put(&self, note: Note) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0, note) }
    }
}

/// The place for flows with this hash.
#[inline(always)]
pub fn place(hash: u64) -> Option<Place> {
    REDIRECT_NOTES
        .get_ptr_mut(hash as u32 & (NOTES_LEN - 1))
        .map(Place)
}

/// When a client with this hash, whose highest bits count, was last left to the kernel.
#[inline(always)]
pub fn left(hash: u32) -> Option<Seen> {
    REDIRECT_LEFT
        .get_ptr_mut(hash >> (32 - LEFT_BITS))
        .map(Seen)
}

/// The count of a VIP's SYNs on this CPU.
#[inline(always)]
pub fn syns(vip_index: u8) -> Option<&'static mut AnswerBudget> {
    let budget = SHIELD.get_ptr_mut(u32::from(vip_index))?;
    // SAFETY: this CPU's own value, as in `take_answer`.
    Some(unsafe { &mut *budget })
}

/// Counts why a packet is left to the terminator.
#[inline(always)]
pub fn count(reason: Passed) {
    if let Some(counter) = REDIRECT_COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: as in `count_outcome`.
        unsafe { *counter += 1 };
    }
}

/// Says whether the next lookup of a socket on this CPU is a program's question.
#[inline(always)]
pub fn set_asking(asking: u32) {
    if let Some(value) = ASKING.get_ptr_mut(0) {
        // SAFETY: this CPU's own value, and the lookup is within this run of the program.
        unsafe { ptr::write_volatile(value, asking) };
    }
}

/// Whether a lookup of a socket is a program's question.
#[inline(always)]
pub fn is_asking() -> bool {
    // SAFETY: as above.
    ASKING
        .get_ptr(0)
        .is_some_and(|value| unsafe { ptr::read_volatile(value) } != 0)
}
