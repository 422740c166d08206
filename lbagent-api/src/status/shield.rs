//! Whether SYNs to ports with handlers are answered with cookies.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The SYN shield (`[syn_shield]` of the configuration): SYNs to ports with handlers that the
/// programs answer with cookies before the kernel has seen them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SynShield {
    /// What is in force.
    pub mode: SynShieldMode,
    /// With `auto`: SYNs for one VIP in a second on one CPU above which the others are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// With `auto`: VIPs that get more than that, now or in the second before.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub flooded: Vec<IpAddr>,
    /// SYNs answered so far.
    #[serde(default)]
    pub answered: u64,
    /// Why none are answered, though the configuration has nothing against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// When SYNs are answered with cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SynShieldMode {
    /// Never.
    #[default]
    Off,
    /// While a VIP gets many.
    Auto,
    /// Always.
    On,
}

impl SynShieldMode {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::On => "on",
        }
    }
}
