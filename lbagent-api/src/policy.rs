//! Policies, lbagent's own: `GET` and `PUT /v1/x/service-groups/{uuid}/policy` and
//! `/v1/x/instances/{uuid}/policy`. Both take and answer a [`PolicyData`]; a `PUT` replaces the
//! whole policy, members that it leaves out get their defaults.
//!
//! What can be read is valid: the rules that concern one policy alone are checked while it is
//! read, from requests, from the store and from state documents alike.

mod instance;
mod terminated;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

#[cfg(feature = "openapi")]
pub(crate) use instance::InstanceNumbers;
pub use instance::{InstancePolicy, QuicServerId};
pub use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
pub(crate) use terminated::TerminatedPortSpec;
pub use terminated::{TerminatedPort, TerminatedPorts};

use crate::health::HealthPolicy;
use crate::request::ContractError;

/// Body of a `PUT` and `data` of every answer: `{"policy": {…}}`, with a [`GroupPolicy`] or an
/// [`InstancePolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyData<P> {
    /// The policy.
    pub policy: P,
}

/// How a service group's packets reach its instances, and which packets do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({
    "forwarding_mode": "nat", "sources": {"deny": ["198.51.100.0/24"]},
    "health": {"check": {"kind": "tcp", "interval_ms": 5_000}}
})))]
#[serde(default, deny_unknown_fields)]
pub struct GroupPolicy {
    /// How packets travel to the instances.
    pub forwarding_mode: ForwardingMode,
    /// Clients that are served.
    pub sources: SourcePolicy,
    /// Where QUIC connection ids tell the instance; absent, a QUIC flow is what any UDP flow is.
    pub quic: Option<QuicLayout>,
    /// How the instances are checked.
    #[serde(skip_serializing_if = "HealthPolicy::is_default")]
    pub health: HealthPolicy,
    /// VIPs to publish on; all when empty. A service's own `ip` is one of these.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub vips: BTreeSet<IpAddr>,
    /// How a terminator serves published ports with handlers; what is not named here has the
    /// defaults.
    #[serde(skip_serializing_if = "TerminatedPorts::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<TerminatedPort>, max_items = 256))]
    pub terminated: TerminatedPorts,
}

impl GroupPolicy {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a packet for a VIP travels to the instance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ForwardingMode {
    /// The destination becomes the instance's address and port, the client's address stays, and
    /// replies come back through the gateway. VIP and instance address are of one family.
    #[default]
    Nat,
    /// Only the link address changes: the instance has the VIP on an interface of its own and
    /// answers the client directly. Instances are on a link of the gateway. VIP and instance
    /// address are of one family; ports cannot be rewritten.
    DsrL2,
    /// The packet travels inside an IP packet to the instance, which has the VIP and answers the
    /// client directly. Families may differ: an instance's address of the VIP's own family is
    /// used if it has one, else the other one (4-in-6, 6-in-4). Ports cannot be rewritten.
    DsrIpip,
    /// As [`DsrIpip`](Self::DsrIpip), inside Generic UDP Encapsulation (variant 1: the IP packet
    /// follows the UDP header at once).
    DsrGue,
}

impl ForwardingMode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Nat, Self::DsrL2, Self::DsrIpip, Self::DsrGue];

    /// The word that operators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::DsrL2 => "dsr-l2",
            Self::DsrIpip => "dsr-ipip",
            Self::DsrGue => "dsr-gue",
        }
    }

    /// Whether the instance's port may differ from the published one.
    pub const fn rewrites_ports(self) -> bool {
        matches!(self, Self::Nat)
    }

    /// Whether an instance without an address of the VIP's family can be served by its other one.
    pub const fn crosses_families(self) -> bool {
        matches!(self, Self::DsrIpip | Self::DsrGue)
    }
}

impl fmt::Display for ForwardingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ForwardingMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| "expected nat, dsr-l2, dsr-ipip or dsr-gue".to_owned())
    }
}

/// Most prefixes of a group, allowed and denied ones together.
pub const MAX_PREFIXES: usize = 1024;

/// Which clients a service group serves, by source address. The longest prefix that holds the
/// address decides. An address that no prefix holds is denied if anything is allowed explicitly,
/// else it is allowed. An IPv6 prefix, `::/0` included, holds no IPv4 address.
///
/// Prefixes are canonical (no bit set past their length) and occur once in both lists together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SourcePrefixes")]
pub struct SourcePolicy {
    /// Clients that are served.
    pub allow: Vec<IpNetwork>,
    /// Clients that are not.
    pub deny: Vec<IpNetwork>,
}

/// Which clients a service group serves, as received. The longest prefix that holds the address
/// decides; an address that no prefix holds is denied if anything is allowed explicitly.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SourcePrefixes {
    /// Prefixes of clients that are served, such as `192.0.2.0/24`.
    #[cfg_attr(feature = "openapi", schema(max_items = 1024))]
    allow: Vec<String>,
    /// Prefixes of clients that are not.
    #[cfg_attr(feature = "openapi", schema(max_items = 1024))]
    deny: Vec<String>,
}

impl TryFrom<SourcePrefixes> for SourcePolicy {
    type Error = ContractError;

    fn try_from(received: SourcePrefixes) -> Result<Self, ContractError> {
        let parse = |texts: &[String]| -> Result<Vec<IpNetwork>, ContractError> {
            texts.iter().map(|text| parse_prefix(text)).collect()
        };
        let policy = Self {
            allow: parse(&received.allow)?,
            deny: parse(&received.deny)?,
        };
        policy.check()?;
        Ok(policy)
    }
}

impl SourcePolicy {
    /// Whether every client is served.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Checks the rules that concern all prefixes together.
    pub fn check(&self) -> Result<(), ContractError> {
        let count = self.allow.len() + self.deny.len();
        if count > MAX_PREFIXES {
            return Err(ContractError::invalid(format!(
                "{count} source prefixes are more than the {MAX_PREFIXES} that a service group can \
                 have; merge neighbouring ones"
            )));
        }
        let mut lists: [BTreeSet<IpNetwork>; 2] = Default::default();
        for (prefixes, (list, word)) in [&self.allow, &self.deny]
            .into_iter()
            .zip(lists.iter_mut().zip(["allow", "deny"]))
        {
            if let Some(twin) = prefixes.iter().find(|prefix| !list.insert(**prefix)) {
                return Err(ContractError::invalid(format!(
                    "Source prefix '{twin}' is given twice in '{word}'"
                )));
            }
        }
        match lists[0].intersection(&lists[1]).next() {
            None => Ok(()),
            Some(both) => Err(ContractError::invalid(format!(
                "Source prefix '{both}' is in both 'allow' and 'deny'; remove it from one of them"
            ))),
        }
    }
}

/// Reads a canonical prefix, such as `192.0.2.0/24`; an address alone is the prefix that holds
/// nothing else.
pub fn parse_prefix(text: &str) -> Result<IpNetwork, ContractError> {
    let prefix: IpNetwork = text.parse().map_err(|_| {
        ContractError::invalid(format!(
            "'{text}' is no source prefix; write one such as 192.0.2.0/24 or 2001:db8::/32"
        ))
    })?;
    if let IpAddr::V6(address) = prefix.ip()
        && address.to_ipv4_mapped().is_some()
    {
        return Err(ContractError::invalid(format!(
            "Source prefix '{text}' is the mapped form of an IPv4 prefix; write it as IPv4"
        )));
    }
    if prefix.network() != prefix.ip() {
        return Err(ContractError::invalid(format!(
            "Source prefix '{text}' has bits set past its length; write {}/{}",
            prefix.network(),
            prefix.prefix()
        )));
    }
    Ok(prefix)
}

/// Where the instance's server id is in a connection id, after draft-ietf-quic-load-balancers
/// without encryption: the first byte's three high bits are the configuration's number, the server
/// id follows the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QuicNumbers")]
pub struct QuicLayout {
    /// Bytes of the server id: 1 to 15.
    pub server_id_length: u8,
    /// Number of the configuration: 0 to 6. Connection ids with another one are balanced as if
    /// they were none.
    pub config_rotation: u8,
}

/// Where the instance's server id is in QUIC connection ids, as received.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct QuicNumbers {
    /// Bytes of the server id.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 15))]
    server_id_length: i64,
    /// Number of the configuration; connection ids with another one are balanced as if they were
    /// none.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 6))]
    config_rotation: i64,
}

impl TryFrom<QuicNumbers> for QuicLayout {
    type Error = ContractError;

    fn try_from(received: QuicNumbers) -> Result<Self, ContractError> {
        let QuicNumbers {
            server_id_length,
            config_rotation,
        } = received;
        Ok(Self {
            server_id_length: in_range("server_id_length", server_id_length, 1, 15)?,
            config_rotation: in_range("config_rotation", config_rotation, 0, 6)?,
        })
    }
}

fn in_range<T: TryFrom<i64> + PartialOrd + fmt::Display + Copy>(
    member: &str,
    value: i64,
    least: T,
    most: T,
) -> Result<T, ContractError> {
    match T::try_from(value) {
        Ok(value) if least <= value && value <= most => Ok(value),
        _ => Err(ContractError::invalid(format!(
            "Value of '{member}' must be in the range {least} to {most}"
        ))),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
