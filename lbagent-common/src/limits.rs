//! Names and default capacities of the maps: their only source.

/// Published ports and VIP addresses ([`crate::VipKey`] → [`crate::VipEntry`], HASH).
pub const VIPS: &str = "VIPS";
/// All Maglev tables ([`crate::Slot`], mmapable ARRAY).
pub const SLOTS: &str = "SLOTS";
/// Backends by id ([`crate::BackendEntry`], mmapable ARRAY).
pub const BACKENDS: &str = "BACKENDS";
/// Reply source to VIP ([`crate::ReturnKey`] → [`crate::ReturnEntry`], HASH).
pub const RETURNS: &str = "RETURNS";
/// Flows of changed slots ([`crate::ConnBucket`], mmapable ARRAY; the lower bits of a flow's tag
/// select the bucket).
pub const CONNS: &str = "CONNS";
/// When a flow of a VIP last found no room in `CONNS`, by VIP id (`u32` tick, ARRAY; 0 for never).
pub const REFUSALS: &str = "REFUSALS";
/// Flows whose reply needs an entry ([`crate::NatFlowKey`] → [`crate::NatFlowEntry`], LRU_HASH).
pub const NAT_FLOWS: &str = "NAT_FLOWS";
/// Tick of the last packet by flow hash (`u32`, ARRAY): tells new UDP flows from old ones.
pub const UDP_SEEN: &str = "UDP_SEEN";
/// Packets by [`crate::Outcome`] ([`crate::PacketCounter`], PERCPU_ARRAY).
pub const OUTCOMES: &str = "OUTCOMES";
/// Traffic by VIP id ([`crate::TrafficCounter`], PERCPU_ARRAY).
pub const VIP_COUNTERS: &str = "VIP_COUNTERS";
/// Traffic by backend id ([`crate::TrafficCounter`], PERCPU_ARRAY).
pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
/// Source prefixes that a service group admits or refuses ([`crate::SourceKey`] →
/// [`crate::SourceEntry`], LPM_TRIE).
pub const SOURCES: &str = "SOURCES";
/// Backends by QUIC server id ([`crate::QuicServerKey`] → `u32` backend id, HASH).
pub const QUIC_SERVERS: &str = "QUIC_SERVERS";
/// Where the fragments of a datagram go ([`crate::FragmentKey`] → [`crate::FragmentEntry`],
/// LRU_HASH).
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Later fragments that wait for the first one of their datagram ([`crate::HeldFragment`], RINGBUF).
pub const HELD: &str = "HELD";
/// Budget of the packets that the programs answer themselves ([`crate::AnswerBudget`],
/// PERCPU_ARRAY of one).
pub const ANSWERS: &str = "ANSWERS";
/// What became of sampled packets ([`crate::FlowEvent`], RINGBUF).
pub const EVENTS: &str = "EVENTS";
/// Each CPU's event under way ([`crate::EventDraft`], PERCPU_ARRAY of one).
pub const EVENT_DRAFTS: &str = "EVENT_DRAFTS";
/// Listening sockets that connections to terminated ports are steered to (SOCKMAP, by
/// [`crate::TERMINATOR_V4`] and [`crate::TERMINATOR_V6`]).
pub const TERMINATORS: &str = "TERMINATORS";
/// Connections to terminated ports by [`crate::Steered`] (`u64`, PERCPU_ARRAY).
pub const STEER_COUNTERS: &str = "STEER_COUNTERS";
/// Host names of port 80 ([`crate::HostKey`] → [`crate::HostEntry`], HASH).
pub const HOSTS: &str = "HOSTS";
/// Packets left to the terminator by [`crate::redirect::Passed`] (`u64`, PERCPU_ARRAY).
pub const REDIRECT_COUNTERS: &str = "REDIRECT_COUNTERS";
/// SYNs to shielded ports in the current tick ([`crate::AnswerBudget`], PERCPU_ARRAY by
/// [`crate::VipEntry::vip_index`]).
pub const SHIELD: &str = "SHIELD";
/// One [`crate::Settings`] (ARRAY).
pub const SETTINGS: &str = "SETTINGS";

/// Every map, in the order in which an operator would read them.
pub const ALL_MAPS: [&str; 24] = [
    SETTINGS,
    VIPS,
    SLOTS,
    BACKENDS,
    RETURNS,
    CONNS,
    REFUSALS,
    NAT_FLOWS,
    UDP_SEEN,
    OUTCOMES,
    VIP_COUNTERS,
    BACKEND_COUNTERS,
    SOURCES,
    QUIC_SERVERS,
    FRAGMENTS,
    HELD,
    ANSWERS,
    EVENTS,
    EVENT_DRAFTS,
    HOSTS,
    TERMINATORS,
    STEER_COUNTERS,
    REDIRECT_COUNTERS,
    SHIELD,
];

/// XDP program on the client-facing interface.
pub const PROGRAM_INGRESS: &str = "lb_ingress";
/// TC program on the ingress of backend-facing interfaces.
pub const PROGRAM_RETURN: &str = "lb_return";
/// Socket lookup program of the network namespace.
pub const PROGRAM_STEER: &str = "lb_steer";

/// Default number of VIP entries and of VIP ids.
pub const MAX_VIPS: u32 = 4096;
/// Entries of `TERMINATORS`: one for each family.
pub const MAX_TERMINATORS: u32 = 2;
/// Default number of host names; memory is taken for those that there are.
pub const MAX_HOSTS: u32 = 1 << 17;
/// Default number of slots, over all tables: 8 bytes each.
pub const MAX_SLOTS: u32 = 1 << 20;
/// Default number of backend ids, 0 included.
pub const MAX_BACKENDS: u32 = 16_384;
/// Default number of (backend, port, protocol) triples.
pub const MAX_RETURNS: u32 = 32_768;
/// Default number of buckets of [`crate::CONN_WAYS`] flows stored for changed slots: a power of
/// two, because the lower bits of a flow's tag select the bucket. 8 MiB for 2^19 flows.
pub const MAX_CONN_BUCKETS: u32 = 1 << 17;
/// Default number of source prefixes, over all service groups.
pub const MAX_SOURCES: u32 = 16_384;
/// Default number of QUIC server ids.
pub const MAX_QUIC_SERVERS: u32 = 16_384;
/// Default number of datagrams whose fragments are followed.
pub const MAX_FRAGMENTS: u32 = 8_192;
/// How long later fragments follow a first one, in ticks of 2^30 ns: as long as Linux keeps an
/// unfinished datagram (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TICKS: u32 = 30;
/// Bytes of the ring of fragments that wait: some 490 of them.
pub const HELD_LEN: u32 = 1 << 20;
/// Bytes of the ring of events: some 3,200 of them.
pub const EVENTS_LEN: u32 = 256 << 10;
/// Default number of flows stored for the way back.
pub const MAX_NAT_FLOWS: u32 = 1 << 16;
/// Entries of the UDP filter: a power of two, fixed because programs mask with it.
pub const UDP_SEEN_LEN: u32 = 1 << 20;
/// Silence, in ticks of 2^30 ns, after which the place of a stored flow that sent one packet only
/// may be taken over. For others it is [`crate::Settings::conn_idle_ticks`].
pub const CONN_EMBRYONIC_TICKS: u32 = 4;
/// How many ports are tried for a rewritten source.
pub const SOURCE_PORT_ATTEMPTS: u32 = 4;
/// Silence after which the entry of a TCP flow on its way back may be taken over, in ticks: 2 h
/// 4 min (RFC 5382, REQ-5).
pub const NAT_TCP_IDLE_TICKS: u32 = 6_930;
/// The same for UDP: 5 min (RFC 4787, REQ-5).
pub const NAT_UDP_IDLE_TICKS: u32 = 280;
