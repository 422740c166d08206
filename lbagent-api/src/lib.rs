//! The REST contract: what travels between the agent and its clients, and nothing that acts on it.
//!
//! * [`envelope`], [`error_code`], [`request`], [`listing`]: what every answer and every request share
//! * [`service_group`], [`patch`], [`instance`], [`lifecycle`], [`metrics`], [`certificate`]: the
//!   Services API v1
//! * [`access`], [`status`], [`state`], [`policy`], [`health`], [`health_report`],
//!   [`membership`], [`trace`], [`monitor`]: lbagent's own extensions below `/v1/x/`
//! * [`terminator`]: between the agent and the terminator of its host
//! * [`port_spec`]: the grammar in which people write published ports
//!
//! A type named `…Spec` is a request as received: its members are optional and wide, so that a
//! wrong value gets the contract's message rather than the parser's. The validated forms are the
//! types without the suffix.

pub mod access;
pub mod certificate;
pub mod dialect_2024;
pub mod domain;
pub mod envelope;
pub mod error_code;
pub mod events;
pub mod health;
pub mod health_report;
pub mod healthz;
pub mod instance;
pub mod lifecycle;
pub mod listing;
pub mod membership;
pub mod metrics;
pub mod monitor;
pub mod patch;
pub mod policy;
pub mod port_spec;
pub mod request;
#[cfg(feature = "openapi")]
pub mod schema;
pub mod service_group;
pub mod state;
pub mod status;
pub mod terminator;
pub mod terminators;
pub mod trace;

pub use envelope::{Envelope, Item, ItemError, ResponseStatus};
pub use error_code::ErrorCode;
pub use request::{ContractError, Selector};

/// Paths of the endpoints.
pub mod paths {
    /// Service groups; `/{uuid}` below it names one.
    pub const SERVICES: &str = "/v1/services";
    /// Listing of the 2024 contract; has to be routed before `/{uuid}`.
    pub const SERVICES_LIST: &str = "/v1/services/list";
    /// Instances; `/{uuid}` below it names one, `/{uuid}/stop` and `/{uuid}/start` act on it.
    pub const INSTANCES: &str = "/v1/instances";
    /// Stop several instances.
    pub const INSTANCES_STOP: &str = "/v1/instances/stop";
    /// Suspend several instances.
    pub const INSTANCES_SUSPEND: &str = "/v1/instances/suspend";
    /// Wait for several instances.
    pub const INSTANCES_WAIT: &str = "/v1/instances/wait";
    /// Counters of instances.
    pub const INSTANCES_METRICS: &str = "/v1/instances/metrics";
    /// Start several instances.
    pub const INSTANCES_START: &str = "/v1/instances/start";
    /// Certificates; `/{uuid}` below it names one.
    pub const CERTIFICATES: &str = "/v1/certificates";
    /// Extension: how the agent and every object are, [`crate::status::AgentStatus`].
    pub const STATUS: &str = "/v1/x/status";
    /// Extension: VIPs and backends as the data plane has them, [`crate::status::Table`].
    pub const TABLE: &str = "/v1/x/table";
    /// Extension: who takes connections to ports with handlers, [`crate::terminators`]; `/{id}/drain`
    /// and `/{id}/upgrade` below it act on one, `/ca` is the development gateway's authority.
    pub const TERMINATORS: &str = "/v1/x/terminators";
    /// Extension: packets by reason, [`crate::status::Counters`].
    pub const COUNTERS: &str = "/v1/x/counters";
    /// Extension: what collectors of metrics read, as text.
    pub const METRICS: &str = "/v1/x/metrics";
    /// Extension: why a flow goes where it goes, [`crate::trace::Trace`].
    pub const TRACE: &str = "/v1/x/trace";
    /// Extension: what becomes of packets, as a stream, [`crate::monitor::MonitorLine`].
    pub const MONITOR: &str = "/v1/x/monitor";
    /// Extension: service groups; `/{uuid|name}/policy` below it is a group's
    /// [`crate::policy::GroupPolicy`].
    pub const X_SERVICE_GROUPS: &str = "/v1/x/service-groups";
    /// Extension: instances; `/{uuid|name}/policy` below it is an instance's
    /// [`crate::policy::InstancePolicy`], `/{uuid|name}/service-group` its
    /// [`crate::membership::Membership`].
    pub const X_INSTANCES: &str = "/v1/x/instances";
    /// Extension: changes and applied generations, as server-sent events, [`crate::events`].
    pub const EVENTS: &str = "/v1/x/events";
    /// Changes of instances' states, as server-sent events, [`crate::events::AuditEvent`].
    pub const AUDIT: &str = "/v1/audit";
    /// Quotas of the caller's account; `/v1/users/{uuid}/quotas` names it.
    pub const QUOTAS: &str = "/v1/users/quotas";
    /// Extension: accounts; `/{uuid|name}` below it names one, `/{uuid|name}/quotas` its quotas.
    pub const ACCOUNTS: &str = "/v1/x/accounts";
    /// Extension: tokens; `/{uuid}` below it names one.
    pub const TOKENS: &str = "/v1/x/tokens";
    /// Extension: how the instances' health checks are, [`crate::health_report::HealthReport`].
    pub const HEALTH: &str = "/v1/x/health";
    /// Extension: the desired state as one document, [`crate::state::StateDocument`].
    pub const STATE: &str = "/v1/x/state";
}

/// The Unix socket that the agent listens on unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lbagent/api.sock";

/// Where the agent listens unless configured otherwise.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7480";
