//! `SETTINGS`: one entry that holds for every packet.

/// Global settings of the data plane. Size 80, alignment 8.
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
    /// Last tick at which the next hops of `BACKENDS` may be used without asking the routing table.
    /// The agent moves it on while it follows the host's neighbours; later the programs ask for
    /// each packet, so that a gateway whose agent is gone still follows a backend that moves.
    pub next_hops_until: u32,
    /// Number of buckets of `CONNS` less one.
    pub conn_mask: u32,
    /// Packets that each CPU may answer in a tick: echo replies and "too big".
    pub answers_per_tick: u32,
    /// A packet in 2^(n-1) is told to whoever watches, chosen at random; 0 is none.
    pub sample_shift: u32,
    /// A stored flow is forgotten after this many ticks of silence.
    pub conn_idle_ticks: u32,
    /// Last tick at which packets are sampled: the agent moves it on while somebody watches, so
    /// that sampling ends with an agent that is killed.
    pub sample_until: u32,
    /// Bits by [`crate::Outcome`] index: which of the sampled packets are told.
    pub sample_outcomes: u64,
    /// What happens to a connection to a terminated port while no terminator is registered: one of the
    /// `UNSTEERED_*` constants.
    pub unsteered: u32,
    /// When SYNs to ports with [`crate::VipEntry::FLAG_SHIELD`] are answered with cookies: one of the
    /// `SHIELD_*` constants.
    pub shield_mode: u32,
    /// Last tick at which SYNs are answered with cookies, by family ([`crate::TERMINATOR_V4`],
    /// [`crate::TERMINATOR_V6`]). The agent moves it on while it sees to it that the terminator's
    /// listening socket accepts them; later every SYN passes, and the kernel answers.
    pub cookies_until: [u32; 2],
    /// SYNs for one VIP in a tick above which `SHIELD_AUTO` answers them.
    pub shield_per_tick: u32,
    #[doc(hidden)]
    pub pad_end: u32,
}

impl Settings {
    /// Hand the packet to the kernel, which refuses or serves it.
    pub const UNPUBLISHED_PASS: u32 = 0;
    /// Drop and count.
    pub const UNPUBLISHED_DROP: u32 = 1;
    /// Never: the kernel answers.
    pub const SHIELD_OFF: u32 = 0;
    /// While a VIP gets more SYNs than [`shield_per_tick`](Self::shield_per_tick).
    pub const SHIELD_AUTO: u32 = 1;
    /// Always.
    pub const SHIELD_ON: u32 = 2;
    /// The client gets a reset.
    pub const UNSTEERED_RESET: u32 = 0;
    /// Whatever is bound to the port on the host gets it.
    pub const UNSTEERED_PASS: u32 = 1;
}
