//! `GET /v1/x/health`: what the health checks have found. `?name=` or `?uuid=` of a service group
//! leaves out the others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::health::WhenAllUnhealthy;

/// `data` of `GET /v1/x/health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthData {
    /// The one member.
    pub health: HealthReport,
}

/// How checked instances are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthReport {
    /// When this was told.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// Of all checks of the gateway since the agent's start; absent for those who may see only a
    /// part of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<HealthCounters>,
    /// Service groups with checks, by name.
    pub groups: Vec<GroupHealth>,
}

/// What all checks together did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthCounters {
    /// Checks configured now.
    pub configured: u64,
    /// Checks under way now.
    pub running: u64,
    /// Checks that ended.
    pub checks: u64,
    /// Those that failed, by kind: `timeout`, `refused`, `unreachable`, `closed`, `status`,
    /// `content`, `tls`, `protocol`; and `local`, which is the gateway's own trouble (no file
    /// descriptor or port was free) and counts against no instance.
    pub failures: BTreeMap<String, u64>,
    /// Addresses that became healthy.
    pub became_healthy: u64,
    /// Addresses that became unhealthy.
    pub became_unhealthy: u64,
    /// Checks that began more than a tenth of their interval late, because too many were under
    /// way or the gateway is overloaded.
    pub late: u64,
}

/// A service group with checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupHealth {
    /// Identity.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Who takes new connections while all are unhealthy.
    pub when_all_unhealthy: WhenAllUnhealthy,
    /// Checked addresses of its instances, by the instances' names.
    pub instances: Vec<InstanceHealth>,
}

/// One address of an instance, with its checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceHealth {
    /// The instance.
    pub uuid: Uuid,
    /// The instance.
    pub name: String,
    /// The address that is checked, to which packets go.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ip: IpAddr,
    /// What all its checks together say.
    pub state: HealthState,
    /// Part of its weight that it takes: below 100 in a slow start.
    pub weight_percent: u8,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What is checked.
    pub checks: Vec<CheckHealth>,
}

/// Whether an instance takes new connections, as far as its checks decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It does.
    Healthy,
    /// It does not, while another one is healthy.
    Unhealthy,
    /// It recovered, and gets back to its weight step by step.
    Warming,
}

impl HealthState {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Warming => "warming",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckHealth {
    /// `tcp`, `http`, `https` or `udp`.
    pub kind: String,
    /// Port of the instance that is asked.
    pub port: u16,
    /// What this check says by itself.
    pub state: HealthState,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When the last result came; absent before the first one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub checked_at: Option<OffsetDateTime>,
    /// How long the last check took that succeeded, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Why the last check failed; absent when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Successes in a row, up to `rise`, while unhealthy.
    pub successes: u8,
    /// Failures in a row, up to `fall`, while healthy.
    pub failures: u8,
    /// Successes in a row that make it healthy.
    pub rise: u8,
    /// Failures in a row that make it unhealthy.
    pub fall: u8,
}
