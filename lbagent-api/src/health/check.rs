//! One check: what it does, how often, and how often in a row before it counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::payload::Payload;
use super::spec::CheckSpec;
use crate::request::ContractError;
use crate::service_group::Protocol;

/// A check, made from the gateway to an instance's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CheckSpec", into = "CheckSpec")]
pub struct Check {
    /// What is sent and expected.
    pub probe: Probe,
    /// Port of the instance; that which the service leads to unless given.
    pub port: Option<u16>,
    /// Time between the beginnings of two checks; each varies by up to a tenth.
    pub interval_ms: u32,
    /// A check that takes longer has failed. Not above the interval.
    pub timeout_ms: u32,
    /// So many successes in a row make an unhealthy instance healthy.
    pub rise: u8,
    /// So many failures in a row make a healthy instance unhealthy.
    pub fall: u8,
}

/// What a check sends and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection is accepted; then, if asked for, bytes are sent and bytes come back that hold
    /// what is expected.
    Tcp {
        /// Sent once connected.
        send: Option<Payload>,
        /// Must come within the first [`Check::MAX_ANSWER`] bytes.
        expect: Option<Payload>,
    },
    /// A request is answered.
    Http(HttpProbe),
    /// A datagram is answered by one that holds what is expected. Without an expectation only a
    /// refusal (ICMP) within the timeout is a failure.
    Udp {
        /// The datagram.
        send: Payload,
        /// Must be in an answer.
        expect: Option<Payload>,
    },
}

/// An HTTP/1.1 request and its expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Over TLS.
    pub tls: Option<TlsProbe>,
    /// `GET`, `HEAD` or `OPTIONS`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Host` header; address and port of the instance unless given.
    pub host: Option<String>,
    /// Statuses that are right.
    pub statuses: Vec<StatusRange>,
    /// Must be in the first [`Check::MAX_BODY`] bytes of the body.
    pub body: Option<Payload>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsProbe {
    /// Whether the certificate must be valid for the server name, by the host's root certificates.
    /// Off by default: instances are addressed by IP, and few have a certificate for that.
    pub verify: bool,
    /// Name for SNI and for verification; the host's, if that is a name and no address.
    pub server_name: Option<String>,
}

/// Statuses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Check {
    /// Default of [`interval_ms`](Self::interval_ms).
    pub const INTERVAL_MS: u32 = 5_000;
    /// Default of [`timeout_ms`](Self::timeout_ms), where the interval is not shorter.
    pub const TIMEOUT_MS: u32 = 2_000;
    /// Default of [`rise`](Self::rise).
    pub const RISE: u8 = 2;
    /// Default of [`fall`](Self::fall).
    pub const FALL: u8 = 3;
    /// Most bytes of an answer that are looked at by a TCP check.
    pub const MAX_ANSWER: usize = 4 << 10;
    /// Most bytes of a body that are looked at.
    pub const MAX_BODY: usize = 64 << 10;

    /// A check with everything else left to the defaults.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            port: None,
            interval_ms: Self::INTERVAL_MS,
            timeout_ms: Self::TIMEOUT_MS,
            rise: Self::RISE,
            fall: Self::FALL,
        }
    }

    /// The transport that the check itself uses.
    pub const fn protocol(&self) -> Protocol {
        match self.probe {
            Probe::Tcp { .. } | Probe::Http(_) => Protocol::Tcp,
            Probe::Udp { .. } => Protocol::Udp,
        }
    }
}

impl Probe {
    /// The kind's word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http(HttpProbe { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Udp { .. } => "udp",
        }
    }
}

impl HttpProbe {
    /// Default of [`method`](Self::method).
    pub const METHOD: &str = "GET";
    /// Default of [`path`](Self::path).
    pub const PATH: &str = "/";
    /// Default of [`statuses`](Self::statuses).
    pub const STATUSES: StatusRange = StatusRange {
        first: 200,
        last: 399,
    };
}

impl StatusRange {
    /// Whether it holds the status.
    pub const fn holds(&self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl FromStr for StatusRange {
    type Err = ContractError;

    fn from_str(text: &str) -> Result<Self, ContractError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| {
            let status = text.parse::<u16>().ok();
            status.filter(|status| (100..=599).contains(status))
        };
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(ContractError::invalid(format!(
                "'{text}' is no HTTP status; write one such as 200, or a range such as 200-299"
            ))),
        }
    }
}

impl TryFrom<String> for StatusRange {
    type Error = ContractError;

    fn try_from(text: String) -> Result<Self, ContractError> {
        text.parse()
    }
}

impl From<StatusRange> for String {
    fn from(range: StatusRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}
