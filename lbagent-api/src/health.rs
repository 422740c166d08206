//! Health checks of a service group's instances: part of its [`GroupPolicy`](crate::policy::GroupPolicy).
//!
//! What can be read is valid, as with all policies: a check's members exclude each other by its
//! kind, and every number has bounds. Times are milliseconds.

mod check;
mod payload;
mod spec;

use serde::{Deserialize, Serialize};

pub use check::{Check, HttpProbe, Probe, StatusRange, TlsProbe};
pub use payload::Payload;
#[cfg(feature = "openapi")]
pub(crate) use payload::PayloadSpec;
pub use spec::CheckSpec;

use crate::request::ContractError;
use crate::service_group::Protocol;

/// How a group's instances are checked, and what follows from it. Without a check every running
/// instance counts as healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HealthPolicySpec")]
pub struct HealthPolicy {
    /// The check of every published port that has none of its own. With a [`Check::port`] it is
    /// made once for each address, else on the port that each service of the check's own protocol
    /// leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Published ports with a check of their own, or with none. Each port once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceCheck>,
    /// Who takes new connections while every instance is unhealthy.
    pub when_all_unhealthy: WhenAllUnhealthy,
    /// What becomes of an unhealthy instance's established connections.
    pub on_failure: OnFailure,
    /// What an instance counts as before its first result.
    pub initial: InitialHealth,
    /// So long a recovered instance takes to get back to its weight, in [`SLOW_START_STEPS`]
    /// steps; 0: at once.
    pub slow_start_ms: u32,
}

/// Steps of a slow start, the last one being the whole weight.
pub const SLOW_START_STEPS: u32 = 5;

/// How instances are checked, as received; everything may be left out.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthPolicySpec {
    /// The check of every published port that has none of its own.
    check: Option<Check>,
    /// Published ports with a check of their own, or with none. Each port once.
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    services: Vec<ServiceCheck>,
    /// Who takes new connections while every instance is unhealthy.
    when_all_unhealthy: WhenAllUnhealthy,
    /// What becomes of an unhealthy instance's established connections.
    on_failure: OnFailure,
    /// What an instance counts as before its first result.
    initial: InitialHealth,
    /// So long a recovered instance takes to get back to its weight; 0 for at once.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 3_600_000))]
    slow_start_ms: u32,
}

impl TryFrom<HealthPolicySpec> for HealthPolicy {
    type Error = ContractError;

    fn try_from(received: HealthPolicySpec) -> Result<Self, ContractError> {
        let HealthPolicySpec {
            check,
            services,
            when_all_unhealthy,
            on_failure,
            initial,
            slow_start_ms,
        } = received;
        let policy = Self {
            check,
            services,
            when_all_unhealthy,
            on_failure,
            initial,
            slow_start_ms,
        };
        policy.validate()?;
        Ok(policy)
    }
}

impl HealthPolicy {
    /// Longest slow start.
    pub const MAX_SLOW_START_MS: u32 = 3_600_000;
    /// Shortest slow start, other than none.
    pub const MIN_SLOW_START_MS: u32 = 1_000;
    /// Most published ports with a check of their own.
    pub const MAX_SERVICES: usize = 256;

    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether some port is checked.
    pub fn has_checks(&self) -> bool {
        self.check.is_some() || self.services.iter().any(|service| service.check.is_some())
    }

    /// Checks the rules that concern all members together.
    pub fn validate(&self) -> Result<(), ContractError> {
        if self.services.len() > Self::MAX_SERVICES {
            return Err(ContractError::invalid(format!(
                "{} services with health checks of their own are more than the {} that there can be",
                self.services.len(),
                Self::MAX_SERVICES
            )));
        }
        for (index, service) in self.services.iter().enumerate() {
            let is_twin = |other: &ServiceCheck| other.names(service.port, service.protocol);
            if self.services[..index].iter().any(is_twin) {
                return Err(ContractError::invalid(format!(
                    "The health check of port {}/{} is given twice",
                    service.port, service.protocol
                )));
            }
        }
        let range = Self::MIN_SLOW_START_MS..=Self::MAX_SLOW_START_MS;
        if self.slow_start_ms != 0 && !range.contains(&self.slow_start_ms) {
            return Err(ContractError::invalid(format!(
                "Value of 'slow_start_ms' must be 0 or in the range {} to {}",
                Self::MIN_SLOW_START_MS,
                Self::MAX_SLOW_START_MS
            )));
        }
        Ok(())
    }

    /// What was asked for the published port by itself: `None` leaves it to the group's check.
    pub fn of_service(&self, port: u16, protocol: Protocol) -> Option<&ServiceCheck> {
        let mut services = self.services.iter();
        services.find(|service| service.names(port, protocol))
    }
}

/// What one published port has in place of the group's check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceCheck {
    /// The published port.
    pub port: u16,
    /// Its protocol.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The check; without one the port is not checked.
    #[serde(default)]
    pub check: Option<Check>,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

impl ServiceCheck {
    fn names(&self, port: u16, protocol: Protocol) -> bool {
        self.port == port && self.protocol == protocol
    }
}

/// Gives an enumeration of words its text form.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ }) => {
        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that operators use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|known| known.name() == text)
                    .ok_or_else(|| format!("expected one of {:?}", [$($word),+]))
            }
        }
    };
}

/// Who takes new connections while every instance of a group is unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhenAllUnhealthy {
    /// All running instances, as if nothing was checked: a check that is wrong about all of them
    /// stops nothing.
    #[default]
    FailOpen,
    /// Nobody: new connections are dropped and counted.
    FailClosed,
}

words!(WhenAllUnhealthy { FailOpen = "fail_open", FailClosed = "fail_closed" });

/// What becomes of the connections that an instance has when it becomes unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They stay with it, as while it drains: a check that fails for a moment cuts nothing.
    #[default]
    Keep,
    /// They go to other instances, which reset them: clients of a dead server connect anew at once.
    Cut,
}

words!(OnFailure { Keep = "keep", Cut = "cut" });

/// What an instance counts as before its first result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InitialHealth {
    /// It takes new connections at once.
    #[default]
    Healthy,
    /// It takes none until [`Check::rise`] checks in a row have succeeded.
    Unhealthy,
}

words!(InitialHealth { Healthy = "healthy", Unhealthy = "unhealthy" });

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
