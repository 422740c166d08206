//! Maps of the decapsulating programs, which run on backend hosts: an ABI of its own, apart from
//! the gateway's.

use crate::Port;

/// Version of every layout in this file, written into the settings entry. Raised by any change of
/// a key, a value or the meaning of a field.
pub const ABI_VERSION: u32 = 1;

/// One [`DecapSettings`] (ARRAY).
pub const SETTINGS: &str = "DECAP_SETTINGS";
/// Addresses that decide ([`crate::Addr`] → roles, a `u32` of `ROLE_*`, HASH).
pub const ADDRESSES: &str = "DECAP_ADDRESSES";
/// Packets by [`DecapOutcome`] ([`crate::PacketCounter`], PERCPU_ARRAY).
pub const OUTCOMES: &str = "DECAP_OUTCOMES";

/// XDP program that takes the outer header off.
pub const PROGRAM_DECAP: &str = "lb_decap";
/// TC egress program that lowers the MSS of SYNs and SYN-ACKs of VIPs.
pub const PROGRAM_CLAMP: &str = "lb_clamp";

/// Capacity of `DECAP_ADDRESSES`.
pub const MAX_ADDRESSES: u32 = 8192;

/// An address of the host: outer headers may name it as their destination.
pub const ROLE_HOST: u32 = 1;
/// A VIP: inner headers may name it as their destination.
pub const ROLE_VIP: u32 = 2;

/// What holds for every packet of one interface. Size 16, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecapSettings {
    /// [`ABI_VERSION`] of whoever made the maps.
    pub abi_version: u32,
    /// Which encapsulations are taken off: `MODE_*`.
    pub modes: u32,
    /// UDP destination port of GUE.
    pub gue_port: Port,
    /// Largest MSS that IPv4 clients are told, host order; 0 leaves it alone.
    pub mss_v4: u16,
    /// The same for IPv6 clients.
    pub mss_v6: u16,
    /// What was changed on the host besides: `HOST_*`. Programs don't read it.
    pub host: u16,
}

impl DecapSettings {
    /// IP in IP: protocols 4 and 41.
    pub const MODE_IPIP: u32 = 1;
    /// GUE, variants 0 and 1.
    pub const MODE_GUE: u32 = 2;
    /// The queueing discipline `clsact` was added to the interface.
    pub const HOST_CLSACT: u16 = 1;
}

macro_rules! decap_outcomes {
    ($( $(#[$doc:meta])+ $name:ident = $index:literal, $label:literal; )+) => {
        /// The one reason that a packet ends with; the discriminant indexes `DECAP_OUTCOMES`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DecapOutcome { $( $(#[$doc])+ $name = $index, )+ }

        impl DecapOutcome {
            /// All outcomes, ordered by index.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// What `lbagent decap --status` calls it.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$name => $label, )+ }
            }
        }
    };
}

decap_outcomes! {
    /// IP-in-IP header taken off.
    DecapIpip = 0, "decap_ipip";
    /// Outer IP, UDP and GUE headers taken off.
    DecapGue = 1, "decap_gue";
    /// No encapsulated packet, or an encapsulation that is switched off.
    PassForeign = 2, "pass_foreign";
    /// A fragment of what may be an encapsulated packet.
    PassFragment = 3, "pass_fragment";
    /// Encapsulated, for an address that the host does not have.
    PassOtherHost = 4, "pass_other_host";
    /// Shorter than one of its headers says.
    PassTruncated = 5, "pass_truncated";
    /// GUE with a control message, flags, or another payload than IP.
    PassGueUnknown = 6, "pass_gue_unknown";
    /// What is encapsulated is not the IP version that was announced.
    PassNotIp = 7, "pass_not_ip";
    /// The inner destination is no VIP.
    PassNotVip = 8, "pass_not_vip";
    /// The network signalled congestion to a flow that cannot be told (RFC 6040, section 4.2).
    DropCongestion = 9, "drop_congestion";
    /// The headers could not be moved.
    DropFailed = 10, "drop_failed";
    /// Outgoing: SYN or SYN-ACK of a VIP, its MSS lowered.
    ClampLowered = 11, "clamp_lowered";
    /// Outgoing: SYN or SYN-ACK of a VIP, its MSS small enough or absent.
    ClampKept = 12, "clamp_kept";
    /// Outgoing: anything else.
    ClampForeign = 13, "clamp_foreign";
}

impl DecapOutcome {
    /// Number of outcomes, the length of `DECAP_OUTCOMES`.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}
