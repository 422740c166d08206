//! Why a flow goes where it goes, an extension of lbagent's own: `GET /v1/x/trace`.

mod query;

use std::net::{IpAddr, SocketAddr};

pub use query::{TraceQuery, parse_address, parse_protocol};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::instance::InstanceState;
use crate::service_group::Protocol;
use crate::status::Verdict;

/// `data` of `GET /v1/x/trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceData {
    /// The one member.
    pub trace: Trace,
}

/// What the data plane looks up for a packet, in its order, and what comes of it. What it does not
/// come to is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trace {
    /// When the maps were read.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// Transport.
    pub protocol: Protocol,
    /// The client.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub source: SocketAddr,
    /// Where its packets go.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub destination: SocketAddr,
    /// Whether the packet starts the flow.
    pub is_new: bool,
    /// Interface that it arrives by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What the destination is.
    pub published: Published,
    /// Whose published port it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_group: Option<TraceName>,
    /// What the group's source rules say; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_rule: Option<TraceSourceRule>,
    /// Bytes of the server id in QUIC connection ids, where the group has them: a packet that
    /// carries one goes to the instance that it names, whatever follows here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_server_id_len: Option<u8>,
    /// Keyed hash of the flow, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_hash: Option<String>,
    /// The flow's slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<TraceSlot>,
    /// Its slot in the table from before the last change of size; absent without such a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_slot: Option<TraceSlot>,
    /// Seconds since the tables of this published port changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_s_ago: Option<u64>,
    /// The flow's own entry; absent when it is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<TraceStored>,
    /// Who gets the packet, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<TraceChoice>,
    /// The packet as it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<TraceForwarding>,
    /// The outcome that will be counted.
    pub outcome: String,
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Why it is this outcome, in a sentence.
    pub reason: String,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// A published port whose packets go to instances.
    Forward,
    /// A published port of the terminator.
    Terminate,
    /// A VIP address, on a port that nobody published.
    UnpublishedPort,
    /// No VIP address.
    Foreign,
}

/// An object by both of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceName {
    /// UUID.
    pub uuid: Uuid,
    /// Name; the UUID once more when nobody asks for the object any more.
    pub name: String,
}

/// What source rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceSourceRule {
    /// Whether the source is admitted.
    pub is_admitted: bool,
    /// The longest prefix that holds it; absent when none does, which admits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// An entry of a Maglev table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceSlot {
    /// Index within the table.
    pub index: u32,
    /// Slots of the table.
    pub table_len: u32,
    /// First slot of the table in the map.
    pub table_offset: u32,
    /// Owner of new flows; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<TraceInstance>,
    /// Owner of flows that are not stored; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<TraceInstance>,
    /// The slot has had one owner, so none of its flows is stored.
    pub is_settled: bool,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceInstance {
    /// The instance.
    pub uuid: Uuid,
    /// Its name; the UUID once more when nobody asks for it any more.
    pub name: String,
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ip: IpAddr,
    /// Whether it gets traffic.
    pub state: InstanceState,
    /// Whether the data plane sends it packets.
    pub is_alive: bool,
    /// Index into the backends' map.
    pub backend_id: u32,
}

/// A stored flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceStored {
    /// Its owner; absent when the backend is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<TraceInstance>,
    /// Seconds since its last packet, to about a second.
    pub last_seen_s_ago: u64,
    /// Whether it sent more than one packet.
    pub is_established: bool,
}

/// Who gets the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceChoice {
    /// The instance; absent when there is none that may have the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<TraceInstance>,
    /// Why.
    pub why: ChoiceReason,
    /// Whether the packet stores the flow with this choice.
    pub is_stored_now: bool,
}

/// Why a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChoiceReason {
    /// The slot's owner has not changed.
    Settled,
    /// The flow is stored.
    Stored,
    /// A new flow goes to the current owner.
    New,
    /// Not stored, so from before the slot's first change: the previous owner.
    Previous,
    /// The same, but the previous owner is gone: the current owner.
    Orphan,
    /// There is no room to store the flow, so it goes to the previous owner, now and later.
    NoRoom,
}

impl ChoiceReason {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Settled => "the slot has had one owner",
            Self::Stored => "the flow is stored",
            Self::New => "a new flow goes to the slot's current owner",
            Self::Previous => {
                "not stored, so from before the slot changed: it stays with the previous owner"
            }
            Self::Orphan => "the previous owner is gone, so the flow goes to the current owner",
            Self::NoRoom => "there is no room to store the flow, so it goes to the previous owner",
        }
    }
}

/// A packet as it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceForwarding {
    /// `nat`, `dsr-l2`, `dsr-ipip` or `dsr-gue`.
    pub mode: String,
    /// Source of the packet, of the outer one where it travels inside another.
    pub source: String,
    /// Destination likewise.
    pub destination: String,
    /// How the source was found.
    pub source_choice: SourceChoice,
    /// The way out.
    pub next_hop: TraceNextHop,
}

/// Which source the backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceChoice {
    /// The client's own, and nothing is stored for the way back.
    Client,
    /// The client's own; the flow is stored, because (backend, port) does not tell the VIP.
    ClientStored,
    /// The gateway's, because the backend would answer the client past it, or because the client's
    /// own is taken at the backend.
    Gateway,
    /// The gateway's, of an outer header around the packet, which stays as it is.
    Outer,
    /// No free one.
    None,
}

/// The way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceNextHop {
    /// Whether the agent resolved it; otherwise the kernel's routing table is asked for each packet,
    /// and the outcome is that of a packet with a route and a known neighbour.
    pub is_resolved: bool,
    /// Interface, by name where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Link address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_address: Option<String>,
    /// VLAN; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest IP packet; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Whether the kernel forwards the packet, because the interface takes none from XDP.
    pub is_via_kernel: bool,
}
