//! Observation, lbagent's own extensions: `GET /v1/x/status`, `/v1/x/table`, `/v1/x/counters`.

mod counters;
mod shield;

use std::net::IpAddr;

pub use counters::{Counters, CountersData, HeldFragments, OutcomeCounter, Verdict};
use serde::{Deserialize, Serialize};
pub use shield::{SynShield, SynShieldMode};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::instance::InstanceState;
use crate::policy::GroupPolicy;
use crate::service_group::{Protocol, Service};
use crate::terminators::Terminator;

/// `data` of `GET /v1/x/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusData {
    /// The one member.
    pub status: AgentStatus,
}

/// How the agent is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStatus {
    /// The process.
    pub agent: AgentInfo,
    /// Generation of the desired state.
    pub generation_desired: u64,
    /// Generation that the data plane has; below the desired one while something is missing.
    pub generation_applied: u64,
    /// Which programs are attached; none when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<DataplaneInfo>,
    /// VIP addresses of the configuration.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub vips: Vec<IpAddr>,
    /// Interfaces of the configuration.
    pub interfaces: Vec<InterfaceStatus>,
    /// Fill of the maps that can run full.
    #[serde(default)]
    pub maps: Vec<MapStatus>,
    /// Who takes connections to ports with handlers.
    #[serde(default)]
    pub terminators: Vec<Terminator>,
    /// Whether SYNs to ports with handlers are answered with cookies.
    #[serde(default)]
    pub syn_shield: SynShield,
    /// What is not as it should be, or may soon not be; empty when all is well.
    pub conditions: Vec<Condition>,
}

/// The agent's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentInfo {
    /// Version of the agent.
    pub version: String,
    /// Version of the map layout.
    pub abi_version: u32,
    /// Process id.
    pub pid: u32,
    /// When the process started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Requests that were refused because nobody knows who asked.
    #[serde(default)]
    pub refused_requests: u64,
}

/// The BPF programs of this agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DataplaneInfo {
    /// File that the programs were read from, or `built in`.
    pub origin: String,
    /// The attached ones.
    pub active: ProgramsInfo,
    /// The ones before the last upgrade, which `lbagent rollback` attaches again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ProgramsInfo>,
}

/// A pair of BPF programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgramsInfo {
    /// Version of the lbagent that they belong to.
    pub version: String,
    /// Version of their map layout.
    pub abi_version: u32,
    /// The kernel's tag of `lb_ingress`, 16 hexadecimal digits as `bpftool prog` shows them.
    pub ingress_tag: String,
    /// The kernel's tag of `lb_return`.
    pub return_tag: String,
    /// When the kernel loaded them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub loaded_at: Option<OffsetDateTime>,
}

/// An interface that the data plane is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// What it is for.
    pub role: InterfaceRole,
    /// Index; none while the interface does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// How the program is attached; none when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AttachMode>,
    /// Why it is not attached, or not in the best mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum InterfaceRole {
    /// Clients come in: XDP `lb_ingress`.
    Client,
    /// Backends answer: TC `lb_return`.
    Backend,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// XDP in the driver.
    Native,
    /// XDP behind the driver.
    Generic,
    /// TC, through a tcx link.
    Tcx,
    /// TC, through a clsact filter on kernels before 6.6.
    Clsact,
}

/// Fill of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MapStatus {
    /// Name of the map.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries there are.
    pub capacity: u64,
}

/// One thing worth telling about one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub object: ObjectKind,
    /// Name of the object; the UUID, address or interface name where it has no other.
    pub name: String,
    /// UUID of the object, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// One word for programs, such as `no_route`.
    pub reason: String,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// Since when.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    pub since: Option<OffsetDateTime>,
}

/// How bad a condition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As asked for, and worth knowing: an instance is draining.
    Info,
    /// Works, not as well as it should.
    Warning,
    /// Does not work.
    Error,
}

impl Severity {
    /// The word that travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", schema(as = ConditionObject))]
pub enum ObjectKind {
    /// The agent itself.
    Agent,
    /// An interface.
    Interface,
    /// A VIP address.
    Vip,
    /// A service group.
    ServiceGroup,
    /// An instance.
    Instance,
    /// A certificate.
    Certificate,
    /// A map.
    Map,
}

/// `data` of `GET /v1/x/table`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableData {
    /// The one member.
    pub table: Table,
}

/// VIPs and backends as the data plane has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Table {
    /// When the counters were read; two tables give a rate.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// Generation that the data plane has.
    pub generation_applied: u64,
    /// Service groups, by name.
    pub groups: Vec<TableGroup>,
}

/// A service group with what it publishes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableGroup {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// What was asked for; a VIP's row tells the forwarding mode that is in force.
    #[serde(default, skip_serializing_if = "GroupPolicy::is_default")]
    pub policy: GroupPolicy,
    /// One row for each published port of each VIP address.
    pub vips: Vec<TableVip>,
    /// Ports with handlers, which are a terminator's and not the data plane's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terminated: Vec<Service>,
}

/// One published port of one VIP address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableVip {
    /// VIP address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ip: IpAddr,
    /// Published port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port that the instances listen on.
    pub destination_port: u16,
    /// How packets reach the backends, in the words of
    /// [`ForwardingMode`](crate::policy::ForwardingMode).
    pub forwarding_mode: String,
    /// Slots of the Maglev table; 0 when the group never had a backend of this family.
    pub slots: u32,
    /// What went through this VIP.
    pub traffic: Traffic,
    /// Backends of this VIP's family, by name.
    pub backends: Vec<TableBackend>,
}

/// One address of one instance, behind one VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableBackend {
    /// The instance.
    pub uuid: Uuid,
    /// The instance.
    pub name: String,
    /// Address that packets go to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ip: IpAddr,
    /// Whether it gets traffic.
    pub state: InstanceState,
    /// Weight that the table was built with.
    pub weight: u16,
    /// Slots of the table that it owns.
    pub slots: u32,
    /// How frames to it leave; absent where the routing table is asked for each packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<TableNextHop>,
    /// What went through this backend, for all VIPs of its group together.
    pub traffic: Traffic,
}

/// How frames to a backend leave the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableNextHop {
    /// The interface that sends them.
    pub interface: String,
    /// Link address of the backend, or of the router before it: `02:00:00:00:00:01`.
    pub link_address: String,
    /// VLAN that they are tagged with; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vlan: u16,
    /// Largest IP packet on this way, in bytes; 0 when unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtu: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// Traffic since the VIP or the backend was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// New flows.
    pub flows: u64,
    /// Packets towards backends.
    pub in_packets: u64,
    /// Packets towards clients.
    pub out_packets: u64,
    /// Bytes towards backends.
    pub in_bytes: u64,
    /// Bytes towards clients.
    pub out_bytes: u64,
}
