//! Packets by the reason that they ended with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// `data` of `GET /v1/x/counters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CountersData {
    /// The one member.
    pub counters: Counters,
}

/// Packets by the reason that they ended with; the sum is the packets seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counters {
    /// When they were read.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// All outcomes, those with no packet included.
    pub outcomes: Vec<OutcomeCounter>,
    /// Connections to ports with handlers by what became of them, as `to_terminator`: their packets
    /// are among those of outcome `pass_terminate`.
    #[serde(default)]
    pub steering: BTreeMap<String, u64>,
    /// Segments for ports that redirect that were left to the terminator, by reason, as `unknown_host`:
    /// those with outcome `pass_redirect`.
    #[serde(default)]
    pub passed_redirects: BTreeMap<String, u64>,
    /// VIPs with more SYNs than the SYN shield leaves to the kernel, now or in the second before.
    #[serde(default)]
    pub flooded_vips: u64,
    /// What became of the packets with outcome `hold_fragment`.
    #[serde(default)]
    pub fragments: HeldFragments,
}

/// Fragments that came before the first one of their datagram, since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldFragments {
    /// Wait for it now.
    pub waiting: u64,
    /// Sent on after it; counted again, by another outcome.
    pub released: u64,
    /// Forgotten, because it did not come in time.
    pub expired: u64,
    /// Forgotten, because newer ones needed the room.
    pub displaced: u64,
    /// Lost when they were to be sent on: their interface is gone, or takes no frames.
    pub failed: u64,
}

/// Packets that ended with one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutcomeCounter {
    /// The outcome's label, such as `drop_no_backend`.
    pub outcome: String,
    /// What became of them.
    pub verdict: Verdict,
    /// Packets (a GSO super-packet counts once).
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Sent on towards a backend or a client.
    Forwarded,
    /// Handed to the kernel.
    Passed,
    /// Answered by the data plane itself.
    Answered,
    /// Discarded.
    Dropped,
}

impl Verdict {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Passed => "passed",
            Self::Answered => "answered",
            Self::Dropped => "dropped",
        }
    }
}
