//! Names and default capacities of the maps: their only source.

/// Published ports and VIP addresses ([`crate::VipKey`] → [`crate::VipEntry`], HASH).
pub const VIPS: &str = "VIPS";
/// All Maglev tables ([`crate::Slot`], mmapable ARRAY).
pub const SLOTS: &str = "SLOTS";
/// Backends by id ([`crate::BackendEntry`], ARRAY).
pub const BACKENDS: &str = "BACKENDS";
/// Reply source to VIP ([`crate::ReturnKey`] → [`crate::ReturnEntry`], HASH).
pub const RETURNS: &str = "RETURNS";
/// Flows of changed slots ([`crate::ConnKey`] → [`crate::ConnEntry`], LRU_HASH).
pub const CONNS: &str = "CONNS";
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
/// One [`crate::Settings`] (ARRAY).
pub const SETTINGS: &str = "SETTINGS";

/// Every map, in the order in which an operator would read them.
pub const ALL_MAPS: [&str; 11] = [
    SETTINGS,
    VIPS,
    SLOTS,
    BACKENDS,
    RETURNS,
    CONNS,
    NAT_FLOWS,
    UDP_SEEN,
    OUTCOMES,
    VIP_COUNTERS,
    BACKEND_COUNTERS,
];

/// XDP program on the client-facing interface.
pub const PROGRAM_INGRESS: &str = "lb_ingress";
/// TC program on the ingress of backend-facing interfaces.
pub const PROGRAM_RETURN: &str = "lb_return";

/// Default number of VIP entries and of VIP ids.
pub const MAX_VIPS: u32 = 4096;
/// Default number of slots, over all tables: 8 bytes each.
pub const MAX_SLOTS: u32 = 1 << 20;
/// Default number of backend ids, 0 included.
pub const MAX_BACKENDS: u32 = 16_384;
/// Default number of (backend, port, protocol) triples.
pub const MAX_RETURNS: u32 = 32_768;
/// Default number of flows stored for changed slots.
pub const MAX_CONNS: u32 = 1 << 18;
/// Default number of flows stored for the way back.
pub const MAX_NAT_FLOWS: u32 = 1 << 16;
/// Entries of the UDP filter: a power of two, fixed because programs mask with it.
pub const UDP_SEEN_LEN: u32 = 1 << 20;
