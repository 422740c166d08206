//! `/v1/x/terminators`: who takes connections to ports with handlers. An extension of lbagent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::request::ContractError;
use crate::terminator::{Fault, ListenerFamily, Report};

/// `data` of `GET /v1/x/terminators`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminatorsData {
    /// The one member.
    pub terminators: Terminators,
}

/// All terminators, and what was steered to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Terminators {
    /// When the counters were read.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// Connections to ports with handlers by what became of them, as `to_terminator`.
    pub steering: BTreeMap<String, u64>,
    /// The snapshot that terminators are to serve; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What that snapshot leaves out, because a terminator refused it; tried again when it changes, and
    /// now and then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Fault>,
    /// Whether the sockets of a terminator that has gone wait for its successor.
    pub awaits_successor: bool,
    /// By id.
    pub all: Vec<Terminator>,
}

/// One terminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Terminator {
    /// Names it as long as the agent runs.
    pub id: u32,
    /// What it is, as `lbterm 0.1.0`; the process's name where it does not say.
    pub software: String,
    /// Its process.
    pub pid: u32,
    /// How it came to be registered.
    pub kind: TerminatorKind,
    /// Whether connections go to it.
    pub state: TerminatorState,
    /// Families that it takes connections of.
    pub families: Vec<ListenerFamily>,
    /// Its listening sockets.
    pub sockets: usize,
    /// The snapshot that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What it refused of the latest one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What it told of itself last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// How a terminator came to be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TerminatorKind {
    /// It speaks to the agent, and is fed by it.
    Connected,
    /// Another program, named by process and port; its configuration is its own.
    Named,
}

/// Whether connections go to a terminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TerminatorState {
    /// It has not taken a snapshot yet.
    Preparing,
    /// New connections go to it.
    Active,
    /// It is the active one's place when that goes.
    Standby,
    /// It finishes what it has.
    Draining,
}

impl TerminatorState {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Draining => "draining",
        }
    }
}

/// `POST /v1/x/terminators`: registers the listening sockets of another program, which must run on
/// the gateway's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterSpec {
    /// The process that listens.
    pub pid: u32,
    /// The TCP port that it listens on.
    pub port: u16,
}

impl RegisterSpec {
    /// Checks the numbers.
    pub fn validate(&self) -> Result<(), ContractError> {
        if self.pid == 0 {
            return Err(ContractError::invalid("Value of 'pid' must be above 0"));
        }
        if self.port == 0 {
            return Err(ContractError::invalid("Value of 'port' must be above 0"));
        }
        Ok(())
    }
}

/// `data` of answers about one terminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminatorData {
    /// The one member.
    pub terminator: Terminator,
}

/// `data` of `GET /v1/x/terminators/ca`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityData {
    /// The one member.
    pub authority: Authority,
}

/// The certificate authority of a development gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Authority {
    /// Its certificate in PEM: whoever trusts it trusts all that it signs.
    pub certificate: String,
    /// The name that the gateway's own certificate is for, as `*.lb.internal`.
    pub name: String,
}
