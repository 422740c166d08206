//! Why a flow goes where it goes, an extension of lbagent's own: `GET /v1/x/trace`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::instance::InstanceState;
use crate::request::ContractError;
use crate::service_group::Protocol;
use crate::status::Verdict;

/// Which flow is asked about: the query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceQuery {
    /// Transport.
    pub protocol: Protocol,
    /// The client.
    pub source: SocketAddr,
    /// The VIP.
    pub destination: SocketAddr,
    /// Whether the packet starts the flow. Otherwise a TCP packet is one of a connection, and of a
    /// UDP packet the data plane tells.
    pub is_new: bool,
    /// Client-facing interface that the packet arrives by; one of them when not named.
    pub interface: Option<String>,
}

impl TraceQuery {
    /// Reads the pairs of a query string, already percent-decoded.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContractError> {
        let (mut protocol, mut source, mut destination) = (None, None, None);
        let (mut is_new, mut interface) = (false, None);
        for (key, value) in pairs {
            match key {
                "protocol" => protocol = Some(parse_protocol(value)?),
                "source" => source = Some(parse_address(key, value)?),
                "destination" => destination = Some(parse_address(key, value)?),
                "new" => {
                    is_new = value.parse().map_err(|_| {
                        ContractError::invalid(format!(
                            "Invalid value '{value}' of 'new': expected true or false"
                        ))
                    })?;
                }
                "interface" => interface = Some(value.to_owned()),
                _ => {
                    return Err(ContractError::new(
                        crate::ErrorCode::UnknownMember,
                        format!("Unknown parameter '{key}'"),
                    ));
                }
            }
        }
        let missing = |name: &str| ContractError::invalid(format!("Missing parameter '{name}'"));
        Self {
            protocol: protocol.ok_or_else(|| missing("protocol"))?,
            source: source.ok_or_else(|| missing("source"))?,
            destination: destination.ok_or_else(|| missing("destination"))?,
            is_new,
            interface,
        }
        .check()
    }

    /// Refuses what no packet can be.
    pub fn check(self) -> Result<Self, ContractError> {
        if self.source.is_ipv4() == self.destination.is_ipv4() {
            return Ok(self);
        }
        Err(ContractError::invalid(format!(
            "No packet goes from {} to {}: one is IPv4, the other IPv6",
            self.source, self.destination
        )))
    }
}

/// Reads `tcp` or `udp`.
pub fn parse_protocol(text: &str) -> Result<Protocol, ContractError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(ContractError::invalid(format!(
            "Invalid protocol '{text}': expected tcp or udp"
        ))),
    }
}

/// Reads `192.0.2.10:443` or `[2001:db8::10]:443`.
pub fn parse_address(what: &str, text: &str) -> Result<SocketAddr, ContractError> {
    text.parse().map_err(|_| {
        ContractError::invalid(format!(
            "Invalid {what} '{text}': expected ADDRESS:PORT, an IPv6 address in brackets"
        ))
    })
}

/// `data` of `GET /v1/x/trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceData {
    /// The one member.
    pub trace: Trace,
}

/// What the data plane looks up for a packet, in its order, and what comes of it. What it does not
/// come to is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// When the maps were read.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// Transport.
    pub protocol: Protocol,
    /// The client.
    pub source: SocketAddr,
    /// Where its packets go.
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
pub struct TraceName {
    /// UUID.
    pub uuid: Uuid,
    /// Name; the UUID once more when nobody asks for the object any more.
    pub name: String,
}

/// What source rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSourceRule {
    /// Whether the source is admitted.
    pub is_admitted: bool,
    /// The longest prefix that holds it; absent when none does, which admits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// An entry of a Maglev table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct TraceInstance {
    /// The instance.
    pub uuid: Uuid,
    /// Its name; the UUID once more when nobody asks for it any more.
    pub name: String,
    /// Its address.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<TraceQuery, String> {
        TraceQuery::parse(query.iter().copied()).map_err(|error| error.message)
    }

    #[test]
    fn a_flow_is_read() {
        let query = [
            ("protocol", "UDP"),
            ("source", "[2001:db8::7]:40000"),
            ("destination", "[2001:db8:a::10]:53"),
            ("new", "true"),
        ];
        let parsed = parse(&query).unwrap();
        assert_eq!(parsed.protocol, Protocol::Udp);
        assert_eq!(parsed.source.port(), 40_000);
        assert!(parsed.is_new && parsed.destination.is_ipv6());
    }

    #[test]
    fn mistakes_say_what_is_expected() {
        #[track_caller]
        fn check(key: &str, value: &str, words: &str) {
            let mut query = vec![
                ("protocol", "tcp"),
                ("source", "203.0.113.7:40000"),
                ("destination", "192.0.2.10:443"),
            ];
            query.retain(|(known, _)| *known != key);
            query.push((key, value));
            let message = parse(&query).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
        check("protocol", "sctp", "expected tcp or udp");
        check("source", "203.0.113.7", "expected ADDRESS:PORT");
        check("source", "[2001:db8::7]:1", "one is IPv4, the other IPv6");
        check("destination", "2001:db8::1:443", "in brackets");
        check("new", "perhaps", "true or false");
        check("colour", "red", "Unknown parameter 'colour'");
        let message = parse(&[("protocol", "tcp")]).unwrap_err();
        assert!(message.contains("Missing parameter 'source'"), "{message}");
    }
}
