//! What travels between the agent and the terminator of its host, over a Unix stream socket that
//! the agent listens on: not part of the REST contract.
//!
//! A message is a frame: its length in bytes as a big-endian `u32`, then as many bytes of JSON,
//! [`FromTerminator`] one way and [`FromAgent`] the other. File descriptors ride as `SCM_RIGHTS`
//! with the first byte of the frame that speaks of them. A connection begins with
//! [`Hello`], which [`Welcome`] or [`FromAgent::Refused`] answers; then the agent sends a
//! [`Snapshot`] whenever the desired state has changed, and the terminator answers each with a
//! [`Verdict`]. Whole snapshots rather than changes: whoever reconnects needs nothing but the next
//! one, and a snapshot that was refused leaves no gap. What leaves out the objects that were refused
//! comes next.
//!
//! `link` (a feature, as clients of the REST contract need none of it) is the framing.

#[cfg(feature = "link")]
pub mod link;
mod report;
mod snapshot;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use report::{
    DURATION_BOUNDS_US, Durations, GroupReport, InstanceReport, Report, duration_part,
};
pub use snapshot::{
    Group, GroupDomain, Instance, InstanceState, Limits, Proxies, Service, ServiceKind,
    ServicePolicy, Snapshot, TerminatorCertificate, TicketKey, UpstreamProtocol, https_port,
};

/// Version of this protocol. Raised by any change that the other side of the former version would
/// misread; each side refuses another version by name.
pub const PROTOCOL_VERSION: u32 = 1;

/// The socket of the agent unless configured otherwise.
pub const DEFAULT_TERMINATOR_SOCKET: &str = "/run/lbagent/terminator.sock";

/// Longest frame from the agent in bytes: a snapshot of the largest state, several times over.
pub const MAX_FRAME_FROM_AGENT: usize = 512 << 20;

/// Longest frame from a terminator in bytes.
pub const MAX_FRAME_FROM_TERMINATOR: usize = 16 << 20;

/// Most file descriptors with one frame: the kernel takes 253 (`SCM_MAX_FD`).
pub const MAX_LISTENERS: usize = 252;

/// What a terminator says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromTerminator {
    /// First of all.
    Hello(Hello),
    /// The listening sockets, one file descriptor each, that connections are to be steered to:
    /// the terminator accepts on them. Sent when [`Welcome::listeners`] was empty.
    Listeners(Listeners),
    /// What became of a snapshot.
    Verdict(Verdict),
    /// How things are, about once a second.
    Report(Report),
    /// It accepts no more, and finishes what it has: a successor accepts on the same sockets.
    Draining,
}

/// What the agent says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromAgent {
    /// The terminator is taken.
    Welcome(Welcome),
    /// It is not; the agent closes the connection after it.
    Refused {
        /// What was wrong and what to do.
        reason: String,
    },
    /// The whole state to serve from now on.
    Snapshot(Box<Snapshot>),
    /// A successor accepts on the listening sockets: accept no more, tell clients to go
    /// (`Connection: close`, GOAWAY), and end when the last is gone or the deadline has passed.
    Drain {
        /// Milliseconds from now.
        deadline_ms: u64,
    },
}

/// A terminator introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] that it speaks.
    pub protocol: u32,
    /// What it is, as `lbterm 0.1.0`.
    pub software: String,
    /// Workers that accept.
    pub workers: usize,
    /// The snapshot that it serves already, if any.
    pub generation: Option<u64>,
    /// It has listening sockets of its own already, and sends them: it was there before the agent.
    pub has_listeners: bool,
}

/// The agent takes a terminator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The agent's [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Listening sockets of the predecessor, one file descriptor each: connections that wait in
    /// them are not lost when a terminator is replaced or dies, because the agent holds them too.
    /// Empty for the first one, or when the terminator has its own.
    pub listeners: Listeners,
}

/// Which listening sockets come with a frame, in the order of its file descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// One for each worker and family, those of a family in one `SO_REUSEPORT` group.
    pub sockets: Vec<ListenerFamily>,
}

/// Family of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ListenerFamily {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`, for IPv6 only.
    Ipv6,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The snapshot.
    pub generation: u64,
    /// What of it cannot be served, by object. Nothing of the snapshot is in force if it is not
    /// empty: the former one is.
    pub faults: Vec<Fault>,
}

/// An object that a terminator cannot serve as the snapshot wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// Which object.
    pub object: FaultyObject,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// The object of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", content = "uuid", rename_all = "snake_case")]
pub enum FaultyObject {
    /// The snapshot as a whole.
    Gateway,
    /// A service group.
    ServiceGroup(Uuid),
    /// An instance.
    Instance(Uuid),
    /// A certificate.
    Certificate(Uuid),
}
