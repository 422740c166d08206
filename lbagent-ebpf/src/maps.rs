//! All maps, behind accessors that cannot be misused. One of the places that may hold `unsafe`.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_RB_NO_WAKEUP};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SockMap};
use aya_ebpf::programs::SkLookupContext;
use lbagent_common::{
    AnswerBudget, BackendEntry, BackendId, ConnBucket, ConnEntry, EventDraft, FlowEvent,
    FragmentEntry, FragmentKey, HeldFragment, HostEntry, HostKey, NatFlowEntry, NatFlowKey,
    Outcome, PacketCounter, QuicServerKey, ReturnEntry, ReturnKey, Settings, Slot, SourceEntry,
    SourceKey, Steered, TrafficCounter, VipEntry, VipKey, limits,
};

use crate::icmp::Work;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static VIPS: HashMap<VipKey, VipEntry> = HashMap::with_max_entries(limits::MAX_VIPS, 0);
/// Slots as words, because a word is loaded in one piece.
#[map]
static SLOTS: Array<u64> = Array::with_max_entries(limits::MAX_SLOTS, BPF_F_MMAPABLE);
#[map]
static BACKENDS: Array<BackendEntry> =
    Array::with_max_entries(limits::MAX_BACKENDS, BPF_F_MMAPABLE);
#[map]
static RETURNS: HashMap<ReturnKey, ReturnEntry> = HashMap::with_max_entries(limits::MAX_RETURNS, 0);
#[map]
static CONNS: Array<ConnBucket> = Array::with_max_entries(limits::MAX_CONN_BUCKETS, BPF_F_MMAPABLE);
#[map]
static REFUSALS: Array<u32> = Array::with_max_entries(limits::MAX_VIPS, 0);
#[map]
static NAT_FLOWS: LruHashMap<NatFlowKey, NatFlowEntry> =
    LruHashMap::with_max_entries(limits::MAX_NAT_FLOWS, 0);
#[map]
static UDP_SEEN: Array<u32> = Array::with_max_entries(limits::UDP_SEEN_LEN, 0);
#[map]
static OUTCOMES: PerCpuArray<PacketCounter> = PerCpuArray::with_max_entries(Outcome::COUNT, 0);
#[map]
static SOURCES: LpmTrie<[u32; 5], SourceEntry> =
    LpmTrie::with_max_entries(limits::MAX_SOURCES, BPF_F_NO_PREALLOC);
#[map]
static QUIC_SERVERS: HashMap<QuicServerKey, BackendId> =
    HashMap::with_max_entries(limits::MAX_QUIC_SERVERS, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(limits::MAX_FRAGMENTS, 0);
#[map]
static HELD: RingBuf = RingBuf::with_byte_size(limits::HELD_LEN, 0);
/// Not pinned: what the stages found out about the fragment that this CPU is about to hold.
#[map]
static HELD_KEY: PerCpuArray<FragmentKey> = PerCpuArray::with_max_entries(1, 0);
#[map]
static ANSWERS: PerCpuArray<AnswerBudget> = PerCpuArray::with_max_entries(1, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENTS_LEN, 0);
#[map]
static EVENT_DRAFTS: PerCpuArray<EventDraft> = PerCpuArray::with_max_entries(1, 0);
#[map]
static VIP_COUNTERS: PerCpuArray<TrafficCounter> =
    PerCpuArray::with_max_entries(limits::MAX_VIPS, 0);
#[map]
static BACKEND_COUNTERS: PerCpuArray<TrafficCounter> =
    PerCpuArray::with_max_entries(limits::MAX_BACKENDS, 0);
/// Only the agent writes, so an entry may take memory when it comes.
#[map]
static HOSTS: HashMap<HostKey, HostEntry> =
    HashMap::with_max_entries(limits::MAX_HOSTS, BPF_F_NO_PREALLOC);
#[map]
static TERMINATORS: SockMap = SockMap::with_max_entries(limits::MAX_TERMINATORS, 0);
#[map]
static STEER_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Steered::COUNT, 0);
/// Not pinned: what the ICMP stages note lives no longer than a packet.
#[map]
static ICMP_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Memory for the ICMP stages: this CPU's own while the program runs.
#[inline(always)]
pub fn icmp_work() -> Option<&'static mut Work> {
    let work = ICMP_WORK.get_ptr_mut(0)?;
    // SAFETY: all members are integers. Programs of one CPU do not interrupt each other: both run
    // with bottom halves off. Callers take it again only after they gave back what they had.
    Some(unsafe { &mut *work })
}

/// The global settings.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// A published port or a VIP address.
#[inline(always)]
pub fn vip(key: &VipKey) -> Option<&'static VipEntry> {
    // SAFETY: entries are only written by the agent, whole. The kernel may reuse an element that
    // was replaced while this program runs, so a reader can at worst see another valid entry, for
    // one packet; every field of it is checked again where it is used as an index.
    unsafe { VIPS.get(key) }
}

/// Where a host name is served, whose key is given in words.
#[inline(always)]
pub fn host(name: &[u64; HostKey::MAX_LEN / 8]) -> Option<&'static HostEntry> {
    let key: *const HostKey = name.as_ptr().cast();
    // SAFETY: a key is as many bytes, and may lie anywhere. As for `vip`; a bit set that is mixed of two
    // leads to a name that is served.
    unsafe {
        let key: &HostKey = &*key;
        HOSTS.get(key)
    }
}

/// One slot of the Maglev tables.
#[inline(always)]
pub fn slot(index: u32) -> Option<Slot> {
    let word = SLOTS.get_ptr(index)?;
    // SAFETY: the lookup returned a pointer to an aligned 8-byte value of a map that lives as
    // long as the program; volatile, because the agent writes through its own mapping.
    Some(Slot::from_word(unsafe { ptr::read_volatile(word) }))
}

/// A backend's entry, in use or not.
#[inline(always)]
pub fn backend(id: BackendId) -> Option<&'static BackendEntry> {
    BACKENDS.get(id)
}

/// The VIP of a reply's source.
#[inline(always)]
pub fn return_entry(key: &ReturnKey) -> Option<&'static ReturnEntry> {
    // SAFETY: as for `vip`.
    unsafe { RETURNS.get(key) }
}

/// The bucket of `CONNS` that a flow may be in.
pub struct Bucket(*mut ConnBucket);

impl Bucket {
    /// One of its entries; programs on other CPUs may be replacing it.
    #[inline(always)]
    pub fn entry(&self, way: usize) -> ConnEntry {
        // SAFETY: the pointer came from a lookup in this run, callers stay below CONN_WAYS, and
        // every bit pattern of an entry's integers is valid.
        unsafe { ptr::read_volatile(&raw const (*self.0).ways[way]) }
    }

    /// Replaces an entry. Not one store: [`ConnEntry::tag`] tells a reader a mixture.
    #[inline(always)]
    pub fn put(&self, way: usize, entry: ConnEntry) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*self.0).ways[way], entry) }
    }

    /// Notes when a flow was last seen.
    #[inline(always)]
    pub fn set_last_seen(&self, way: usize, last_seen: u32) {
        // SAFETY: as above; an aligned 4-byte field.
        unsafe { ptr::write_volatile(&raw mut (*self.0).ways[way].last_seen, last_seen) }
    }
}

/// Looks a flow's bucket up.
#[inline(always)]
pub fn conn_bucket(index: u32) -> Option<Bucket> {
    CONNS.get_ptr_mut(index).map(Bucket)
}

/// When a flow of a VIP last found no room in its bucket.
#[inline(always)]
pub fn refusal(vip_id: u32) -> Option<Seen> {
    REFUSALS.get_ptr_mut(vip_id).map(Seen)
}

/// A stored flow of the way back.
pub struct NatFlow(*mut NatFlowEntry);

impl NatFlow {
    /// The entry. Programs on other CPUs may change `last_seen` while it is read.
    #[inline(always)]
    pub fn get(&self) -> &NatFlowEntry {
        // SAFETY: the pointer came from a lookup in this run, so it points to an entry of
        // NAT_FLOWS; an evicted element stays memory of the map, and every bit pattern of its
        // integers is valid.
        unsafe { &*self.0 }
    }

    /// Notes when the flow was last seen, and whether it is closing.
    #[inline(always)]
    pub fn set_last_seen(&self, last_seen: u32) {
        // SAFETY: as above; an aligned 4-byte field.
        unsafe {
            if ptr::read_volatile(&raw const (*self.0).last_seen) != last_seen {
                ptr::write_volatile(&raw mut (*self.0).last_seen, last_seen);
            }
        }
    }
}

/// Looks a flow of the way back up.
#[inline(always)]
pub fn nat_flow(key: &NatFlowKey) -> Option<NatFlow> {
    NAT_FLOWS.get_ptr_mut(key).map(NatFlow)
}

/// Stores a flow of the way back.
#[inline(always)]
pub fn put_nat_flow(key: &NatFlowKey, entry: &NatFlowEntry) -> Result<(), i32> {
    NAT_FLOWS.insert(key, entry, u64::from(BPF_ANY))
}

/// When something last happened: flows with a hash sent a UDP packet or were left to the kernel, a VIP's flow
/// found no room.
pub struct Seen(pub(crate) *mut u32);

impl Seen {
    /// The tick; 0 for never.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        // SAFETY: the pointer came from a lookup in this run; an aligned 4-byte value.
        unsafe { ptr::read_volatile(self.0) }
    }

    /// Notes a tick.
    #[inline(always)]
    pub fn set(&self, tick: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0, tick) }
    }
}

/// The filter's entry for a flow hash.
#[inline(always)]
pub fn udp_seen(hash: u32) -> Option<Seen> {
    UDP_SEEN
        .get_ptr_mut(hash & (limits::UDP_SEEN_LEN - 1))
        .map(Seen)
}

/// Counts an outcome.
#[inline(always)]
pub fn count_outcome(outcome: Outcome, bytes: u64) {
    if let Some(counter) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the pointer is to this CPU's own value; a program is not preempted by another
        // one that counts the same outcome on this CPU but between softirq levels, where a lost
        // count is the worst that can happen.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

/// Counts traffic of a VIP.
#[inline(always)]
pub fn count_vip(vip_id: u32, add: impl FnOnce(&mut TrafficCounter)) {
    if let Some(counter) = VIP_COUNTERS.get_ptr_mut(vip_id) {
        // SAFETY: as in `count_outcome`.
        add(unsafe { &mut *counter });
    }
}

/// Counts traffic of a backend.
#[inline(always)]
pub fn count_backend(id: BackendId, add: impl FnOnce(&mut TrafficCounter)) {
    if let Some(counter) = BACKEND_COUNTERS.get_ptr_mut(id) {
        // SAFETY: as in `count_outcome`.
        add(unsafe { &mut *counter });
    }
}

/// What the longest prefix says that holds a source.
#[inline(always)]
pub fn source_verdict(key: &SourceKey) -> Option<u32> {
    let key = Key::new(key.prefix_len, key.data());
    SOURCES.get(&key).map(|entry| entry.verdict)
}

/// The backend that chose a connection id.
#[inline(always)]
pub fn quic_server(key: &QuicServerKey) -> Option<BackendId> {
    // SAFETY: as for `vip`.
    unsafe { QUIC_SERVERS.get(key) }.copied()
}

/// Where the fragments of a datagram go.
#[inline(always)]
pub fn fragment(key: &FragmentKey) -> Option<&'static FragmentEntry> {
    // SAFETY: as for `nat_flow`; entries are written whole and never changed in place.
    unsafe { FRAGMENTS.get(key) }
}

/// Notes where the fragments of a datagram go.
#[inline(always)]
pub fn put_fragment(key: &FragmentKey, entry: &FragmentEntry) -> Result<(), i32> {
    FRAGMENTS.insert(key, entry, u64::from(BPF_ANY))
}

/// Notes whose fragment this CPU is about to hold.
#[inline(always)]
pub fn note_held(key: &FragmentKey) {
    if let Some(noted) = HELD_KEY.get_ptr_mut(0) {
        // SAFETY: as in `icmp_work`.
        unsafe { *noted = *key };
    }
}

/// Hands a frame to the agent, with the key that was noted last; whether there was room. `fill`
/// writes the frame and tells whether it could.
#[inline(always)]
pub fn put_held(
    time_ns: u64,
    ifindex: u32,
    len: u32,
    fill: impl FnOnce(*mut [u8; HeldFragment::LONGEST as usize]) -> bool,
) -> bool {
    let Some(key) = HELD_KEY.get(0) else {
        return false;
    };
    let Some(mut room) = HELD.reserve::<HeldFragment>(0) else {
        return false;
    };
    let held = room.as_mut_ptr();
    // SAFETY: the ring reserved as many bytes as the type has, for this program alone, and aligned
    // to 8; every member is written before the agent sees it, the frame as far as `len` says.
    let is_whole = unsafe {
        (&raw mut (*held).time_ns).write(time_ns);
        ptr::copy_nonoverlapping(key, &raw mut (*held).key, 1);
        (&raw mut (*held).ifindex).write(ifindex);
        (&raw mut (*held).len).write(len);
        fill(&raw mut (*held).frame)
    };
    if is_whole {
        room.submit(0);
    } else {
        // Wakes the agent as well: it is woken only for what it finds next.
        room.discard(0);
    }
    is_whole
}

/// Takes one answer from this CPU's budget, if there is one left.
#[inline(always)]
pub fn take_answer(now: u32, per_tick: u32) -> bool {
    let Some(budget) = ANSWERS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as in `count_outcome`.
    unsafe { &mut *budget }.take(now, per_tick)
}

/// This CPU's event under way. Made of plain stores by one program at a time; where another one
/// comes between, an event mixes two packets, which is the worst that can happen.
#[inline(always)]
pub fn with_event_draft(change: impl FnOnce(&mut EventDraft)) {
    if let Some(draft) = EVENT_DRAFTS.get_ptr_mut(0) {
        // SAFETY: as in `count_outcome`.
        change(unsafe { &mut *draft });
    }
}

/// Tells an event to whoever watches; whether there was room.
#[inline(always)]
pub fn put_event(event: &FlowEvent) -> bool {
    // The reader looks by itself, so nobody is woken from within the handling of a packet.
    EVENTS
        .output::<FlowEvent>(event, u64::from(BPF_RB_NO_WAKEUP))
        .is_ok()
}

/// What [`assign_terminator`] says while no socket is registered: `-ENOENT`.
pub const NO_TERMINATOR: i32 = -2;

/// Gives a connection to the terminator's socket at an index. Where that is one of a reuseport group,
/// the kernel chooses within the group.
#[inline(always)]
pub fn assign_terminator(ctx: &SkLookupContext, index: u32) -> Result<(), i32> {
    TERMINATORS.redirect_sk_lookup(ctx, index, 0)
}

/// Counts a connection to a terminated port.
#[inline(always)]
pub fn count_steered(end: Steered) {
    if let Some(counter) = STEER_COUNTERS.get_ptr_mut(end as u32) {
        // SAFETY: as in `count_outcome`.
        unsafe { *counter += 1 };
    }
}

/// The terminator's sockets, for a helper.
#[inline(always)]
pub fn terminators() -> *mut c_void {
    (&raw const TERMINATORS).cast_mut().cast()
}
