//! Everything that a terminator serves, at one generation.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::certificate::Secret;

/// Everything that a terminator serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Generation of the desired state, and of what is known of health: rises with every snapshot.
    pub generation: u64,
    /// Service groups with ports for a terminator.
    pub groups: Vec<Group>,
    /// Certificates whose keys the agent has.
    pub certificates: Vec<TerminatorCertificate>,
    /// For clients that name no server, which are refused where it is absent, and for groups' host
    /// names without a certificate.
    pub default_certificate: Option<Uuid>,
    /// Keys of session tickets, the newest first: it makes tickets, the others still open them.
    pub ticket_keys: Vec<TicketKey>,
    /// Bounds of the terminator as a whole.
    pub limits: Limits,
    /// Proxies in front of the gateway.
    #[serde(default)]
    pub proxies: Proxies,
}

/// Proxies in front of the gateway, by their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxies {
    /// What they say of the clients behind them (`X-Forwarded-…`) is believed.
    pub trusted: Vec<IpNetwork>,
    /// Each of their connections begins with a header of the PROXY protocol, version 1 or 2.
    pub proxy_protocol: Vec<IpNetwork>,
}

/// A chain and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminatorCertificate {
    /// Identity.
    pub uuid: Uuid,
    /// Name, for messages.
    pub name: String,
    /// Domain names that it is valid for, in lower case, a wildcard as `*.example.com`.
    pub names: Vec<String>,
    /// PEM, the server's certificate first.
    pub chain: String,
    /// PEM.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub key: Secret,
}

/// A secret that session tickets are sealed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    /// 32 bytes in lower-case hexadecimal; whatever a terminator needs is derived from them.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub secret: Secret,
}

/// Bounds of a terminator as a whole; each is generous by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections of clients at one time.
    pub connections: u32,
    /// Connections at one time from one IPv4 address or one IPv6 /64; 0 for no limit.
    pub connections_per_source: u32,
    /// New requests a second from one IPv4 address or one IPv6 /64; 0 for no limit.
    pub requests_per_source: u32,
    /// Milliseconds for a TLS handshake.
    pub handshake_timeout_ms: u32,
    /// Milliseconds for the head of a request.
    pub head_timeout_ms: u32,
    /// Milliseconds without a byte after which an idle client's connection is closed.
    pub idle_timeout_ms: u32,
    /// Bytes of a request's head.
    pub head_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_source: 0,
            requests_per_source: 0,
            handshake_timeout_ms: 10_000,
            head_timeout_ms: 15_000,
            idle_timeout_ms: 60_000,
            head_bytes: 64 << 10,
        }
    }
}

/// A service group as a terminator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Identity.
    pub uuid: Uuid,
    /// Name, for the access log.
    pub name: String,
    /// Requests (connections, for `tls` alone) in flight at an instance at which another instance
    /// is wanted.
    pub soft_limit: u16,
    /// Requests (connections) in flight at an instance that are not exceeded.
    pub hard_limit: u16,
    /// Host names. Groups share ports; a name belongs to one group.
    pub domains: Vec<GroupDomain>,
    /// Ports with handlers.
    pub services: Vec<Service>,
    /// Who answers.
    pub instances: Vec<Instance>,
}

/// A host name of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDomain {
    /// In lower case without a trailing dot; a wildcard as `*.example.com`.
    pub name: String,
    /// Its certificate. Without one, it is shown the default: what else there may be for such a name
    /// can be another account's.
    pub certificate: Option<Uuid>,
    /// Further certificates that are as good, for clients that cannot use the first kind of key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Uuid>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Addresses that it is published on.
    pub vips: Vec<IpAddr>,
    /// Published TCP port.
    pub port: u16,
    /// TCP port of the instances; without meaning for [`ServiceKind::Redirect`].
    pub destination_port: u16,
    /// What is done with connections.
    pub kind: ServiceKind,
    /// How connections to instances are made.
    #[serde(default)]
    pub policy: ServicePolicy,
}

/// What a terminator does with the connections of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Handler `tls`: ends TLS and passes the bytes on.
    Tls,
    /// Handlers `tls` and `http`: ends TLS and balances requests.
    Https,
    /// Handler `http`: balances requests.
    Http,
    /// Handlers `http` and `redirect`: sends clients to HTTPS.
    Redirect,
}

/// Where the clients of a redirect go, of the ports that its group has for HTTPS on some of the same
/// addresses.
pub fn https_port(near: impl Iterator<Item = u16>) -> u16 {
    near.min_by_key(|port| (*port != 443, *port)).unwrap_or(443)
}

/// How connections to instances are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServicePolicy {
    /// What instances are spoken to with, for [`ServiceKind::Https`] and [`ServiceKind::Http`].
    pub upstream: UpstreamProtocol,
    /// Whether each connection to an instance begins with a header of the PROXY protocol, version
    /// 2, for [`ServiceKind::Tls`].
    pub send_proxy: bool,
    /// Milliseconds to connect to an instance.
    pub connect_timeout_ms: u32,
    /// Milliseconds without a byte either way after which a connection is closed, for
    /// [`ServiceKind::Tls`] and upgraded connections.
    pub idle_timeout_ms: u32,
    /// Milliseconds for the head of an instance's answer.
    pub response_timeout_ms: u32,
    /// New requests a second from one IPv4 address or one IPv6 /64; 0 for no limit.
    pub requests_per_source: u32,
}

impl Default for ServicePolicy {
    fn default() -> Self {
        Self {
            upstream: UpstreamProtocol::Http1,
            send_proxy: false,
            connect_timeout_ms: 5_000,
            idle_timeout_ms: 3_600_000,
            response_timeout_ms: 60_000,
            requests_per_source: 0,
        }
    }
}

/// What instances are spoken to with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte on (RFC 9113, section 3.3).
    H2c,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Identity.
    pub uuid: Uuid,
    /// Name, for the access log.
    pub name: String,
    /// The first that can be reached is used.
    pub addresses: Vec<IpAddr>,
    /// Share of the new requests relative to the others'; 0 for none.
    pub weight: u32,
    /// Whether it gets new requests.
    pub state: InstanceState,
}

/// Whether an instance gets new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// It does.
    Active,
    /// It finishes what it has.
    Draining,
    /// Its health checks fail; the group's policy says to leave it out.
    Unhealthy,
}
