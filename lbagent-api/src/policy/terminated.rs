//! How a terminator serves one published port of a group.

use serde::{Deserialize, Serialize};

use super::in_range;
use crate::request::ContractError;
use crate::terminator::{ServicePolicy, UpstreamProtocol};

/// Most published ports with settings of their own.
pub const MAX_TERMINATED: usize = 256;

/// How a terminator serves one published port with handlers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TerminatedPortSpec")]
pub struct TerminatedPort {
    /// The published port, TCP.
    pub port: u16,
    /// What is different there, or the defaults.
    #[serde(flatten)]
    pub policy: ServicePolicy,
}

impl TerminatedPort {
    /// Least and most milliseconds to connect to an instance.
    pub const CONNECT_MS: (u32, u32) = (10, 120_000);
    /// Least and most milliseconds of silence; the most is a week.
    pub const IDLE_MS: (u32, u32) = (1_000, 604_800_000);
    /// Least and most milliseconds for the head of an answer.
    pub const RESPONSE_MS: (u32, u32) = (10, 3_600_000);
    /// Most requests a second from a source.
    pub const MAX_REQUESTS: u32 = 1_000_000;

    /// The defaults for a port.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            policy: ServicePolicy::default(),
        }
    }
}

/// How a terminator serves one published port with handlers, as received. What is left out has its
/// default.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct TerminatedPortSpec {
    /// The published port, TCP. Each port once.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    port: i64,
    /// What instances are spoken to with; for ports with the handler `http`.
    #[serde(default)]
    upstream: UpstreamProtocol,
    /// Whether each connection to an instance begins with a header of the PROXY protocol, version 2;
    /// for ports with the handler `tls` alone.
    #[serde(default)]
    send_proxy: bool,
    /// Milliseconds to connect to an instance.
    #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 120_000))]
    connect_timeout_ms: Option<i64>,
    /// Milliseconds without a byte either way after which a connection of `tls` alone, or one that was
    /// upgraded, is closed.
    #[cfg_attr(feature = "openapi", schema(minimum = 1_000, maximum = 604_800_000))]
    idle_timeout_ms: Option<i64>,
    /// Milliseconds for the head of an instance's answer.
    #[cfg_attr(feature = "openapi", schema(minimum = 10, maximum = 3_600_000))]
    response_timeout_ms: Option<i64>,
    /// Requests a second from one IPv4 address or one IPv6 /64; 0 for no limit. For ports with the
    /// handler `http`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000))]
    requests_per_source: i64,
}

impl TryFrom<TerminatedPortSpec> for TerminatedPort {
    type Error = ContractError;

    fn try_from(received: TerminatedPortSpec) -> Result<Self, ContractError> {
        let TerminatedPortSpec {
            port,
            upstream,
            send_proxy,
            connect_timeout_ms,
            idle_timeout_ms,
            response_timeout_ms,
            requests_per_source,
        } = received;
        let defaults = ServicePolicy::default();
        let time = |member, value: Option<i64>, default: u32, (least, most)| {
            value.map_or(Ok(default), |value| in_range(member, value, least, most))
        };
        let requests = requests_per_source;
        Ok(Self {
            port: in_range("port", port, 1, u16::MAX)?,
            policy: ServicePolicy {
                upstream,
                send_proxy,
                connect_timeout_ms: time(
                    "connect_timeout_ms",
                    connect_timeout_ms,
                    defaults.connect_timeout_ms,
                    Self::CONNECT_MS,
                )?,
                idle_timeout_ms: time(
                    "idle_timeout_ms",
                    idle_timeout_ms,
                    defaults.idle_timeout_ms,
                    Self::IDLE_MS,
                )?,
                response_timeout_ms: time(
                    "response_timeout_ms",
                    response_timeout_ms,
                    defaults.response_timeout_ms,
                    Self::RESPONSE_MS,
                )?,
                requests_per_source: in_range(
                    "requests_per_source",
                    requests,
                    0,
                    Self::MAX_REQUESTS,
                )?,
            },
        })
    }
}

/// Ports with settings of their own, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TerminatedPort>", into = "Vec<TerminatedPort>")]
pub struct TerminatedPorts(Vec<TerminatedPort>);

impl TryFrom<Vec<TerminatedPort>> for TerminatedPorts {
    type Error = ContractError;

    fn try_from(mut ports: Vec<TerminatedPort>) -> Result<Self, ContractError> {
        if ports.len() > MAX_TERMINATED {
            return Err(ContractError::invalid(format!(
                "{} ports with settings of their own are more than the {MAX_TERMINATED} that there \
                 can be",
                ports.len()
            )));
        }
        ports.sort_by_key(|port| port.port);
        match ports.windows(2).find(|pair| pair[0].port == pair[1].port) {
            None => Ok(Self(ports)),
            Some(twins) => Err(ContractError::invalid(format!(
                "Port {} is given twice; give all of its settings at once",
                twins[0].port
            ))),
        }
    }
}

impl From<TerminatedPorts> for Vec<TerminatedPort> {
    fn from(ports: TerminatedPorts) -> Self {
        ports.0
    }
}

impl TerminatedPorts {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By port.
    pub fn iter(&self) -> impl Iterator<Item = &TerminatedPort> {
        self.0.iter()
    }

    /// What was asked for a port.
    pub fn get(&self, port: u16) -> Option<&ServicePolicy> {
        let index = self.0.binary_search_by_key(&port, |it| it.port).ok()?;
        self.0.get(index).map(|it| &it.policy)
    }
}
