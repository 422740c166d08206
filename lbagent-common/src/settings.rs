//! `SETTINGS`: one entry that holds for every packet.

/// Global settings of the data plane. Size 32, alignment 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Key of the flow hash; part of the shared state, so that gateways agree.
    pub hash_seed: u64,
    /// [`crate::ABI_VERSION`] of the agent that made the maps.
    pub abi_version: u32,
    /// What happens to a packet for a VIP address on a port that nobody published: one of the
    /// `UNPUBLISHED_*` constants.
    pub unpublished: u32,
    /// A UDP flow is new after this many ticks (2^30 ns) of silence.
    pub udp_idle_ticks: u32,
    /// First port used for rewritten sources, host order.
    pub source_port_first: u16,
    /// How many ports follow it.
    pub source_port_count: u16,
    #[doc(hidden)]
    pub pad: [u32; 2],
}

impl Settings {
    /// Hand the packet to the kernel, which refuses or serves it.
    pub const UNPUBLISHED_PASS: u32 = 0;
    /// Drop and count.
    pub const UNPUBLISHED_DROP: u32 = 1;
}
