//! `GET /v1/healthz`: whether the agent is healthy, for whoever asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `data` of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeHealth {
    /// What was looked at.
    pub checks: Checks,
    /// Versions of what runs: `lbagent`.
    pub versions: BTreeMap<String, String>,
}

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checks {
    /// Whether the data plane has what is desired.
    pub dataplane: CheckResult,
    /// Whether the programs are attached to all interfaces.
    pub interfaces: CheckResult,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// As it should be.
    Healthy,
    /// Not as it should be.
    Degraded,
    /// Not looked at yet.
    Unknown,
}
