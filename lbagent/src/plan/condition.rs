//! What keeps an object from being as it was asked for: the `status` of the gateway.

use std::fmt;
use std::net::IpAddr;

use uuid::Uuid;

use super::Family;
use crate::desired::Transport;

/// The object that a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The gateway as a whole.
    Gateway,
    /// One VIP address.
    Vip(IpAddr),
    /// One service group.
    ServiceGroup(Uuid),
    /// One instance.
    Instance(Uuid),
    /// One certificate.
    Certificate(Uuid),
}

/// One object that is not (fully) as it was asked for, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// What it is about.
    pub object: Object,
    /// Why, with what to do in its `Display` form.
    pub reason: Reason,
}

impl Condition {
    /// A condition of an object.
    pub const fn new(object: Object, reason: Reason) -> Self {
        Self { object, reason }
    }
}

/// Why an object is not as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The group takes no new connections of this family.
    NoActiveBackend {
        /// Address family of the VIPs concerned.
        family: Family,
    },
    /// Health checks of some instances fail: the others take the new connections.
    SomeUnhealthy {
        /// Address family of the VIPs concerned.
        family: Family,
        /// Instances whose checks fail.
        unhealthy: u32,
        /// Instances that there are.
        of: u32,
    },
    /// Health checks of all instances fail.
    AllUnhealthy {
        /// Address family of the VIPs concerned.
        family: Family,
        /// Nobody takes new connections, by the group's policy; else all do.
        is_closed: bool,
    },
    /// The group is published on a VIP of a family that the instance has no address of.
    NoAddress {
        /// The family.
        family: Family,
    },
    /// The host has no route to the instance.
    NoRoute {
        /// The instance's address.
        address: IpAddr,
    },
    /// The group's mode is `dsr-l2`, and the instance is on no link of the gateway.
    NotOnLink {
        /// The instance's address.
        address: IpAddr,
    },
    /// The instance names a group that does not exist.
    UnknownServiceGroup {
        /// The name that it gives.
        group: Uuid,
    },
    /// A service names an address that is no VIP of this gateway.
    UnknownVip {
        /// The address.
        address: IpAddr,
    },
    /// Another group publishes this port; the one created first has it.
    PortTaken {
        /// VIP address.
        vip: IpAddr,
        /// VIP port.
        port: u16,
        /// Transport protocol.
        protocol: Transport,
        /// The group that has it.
        by: Uuid,
    },
    /// The group publishes ports with handlers, and no terminator is registered for their VIPs.
    NoTerminator {
        /// These ports.
        ports: Vec<u16>,
        /// Clients get a reset, by the configuration; else the kernel answers them.
        resets: bool,
    },
    /// The terminator cannot serve the object as it was asked for: it serves the rest.
    RefusedByTerminator {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The gateway has more VIPs than redirects can be answered for before the kernel has seen them.
    NoVipIndex,
    /// SYNs cannot be answered with cookies.
    NoCookies {
        /// What is missing, and what to do.
        reason: String,
    },
    /// A map has no room for the object, which stays as it was.
    MapFull {
        /// Map name.
        map: &'static str,
        /// Entries that the object needs beyond those it has.
        needed: u32,
        /// Entries that are free.
        free: u32,
        /// Capacity of the map.
        capacity: u32,
    },
    /// The data plane refused a write; it is tried again.
    StepFailed {
        /// What was tried.
        step: String,
        /// The chain of causes.
        error: String,
    },
}

impl Reason {
    /// One word for programs, the API's `reason`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoActiveBackend { .. } => "no_active_backend",
            Self::SomeUnhealthy { .. } => "unhealthy",
            Self::AllUnhealthy { .. } => "all_unhealthy",
            Self::NoAddress { .. } => "no_address",
            Self::NoRoute { .. } => "no_route",
            Self::NotOnLink { .. } => "not_on_link",
            Self::UnknownServiceGroup { .. } => "unknown_service_group",
            Self::UnknownVip { .. } => "unknown_vip",
            Self::PortTaken { .. } => "port_taken",
            Self::NoTerminator { .. } => "no_terminator",
            Self::RefusedByTerminator { .. } => "refused_by_terminator",
            Self::NoVipIndex => "redirect_at_terminator",
            Self::NoCookies { .. } => "no_syn_cookies",
            Self::MapFull { .. } => "map_full",
            Self::StepFailed { .. } => "step_failed",
        }
    }

    /// Whether room in a map is all that is missing.
    pub const fn is_capacity(&self) -> bool {
        matches!(self, Self::MapFull { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoActiveBackend { family } => write!(
                f,
                "no running instance with an {family} address and a weight above 0: new connections are dropped; start or create one, or raise a weight"
            ),
            Self::SomeUnhealthy { .. } | Self::AllUnhealthy { .. } => self.fmt_health(f),
            Self::NoTerminator { .. }
            | Self::NoVipIndex
            | Self::NoCookies { .. }
            | Self::RefusedByTerminator { .. } => self.fmt_terminated(f),
            Self::NoAddress { family } => write!(
                f,
                "the group has an {family} VIP, but the instance has no {family} address: it gets none of that traffic"
            ),
            Self::NoRoute { address } => write!(
                f,
                "no route to {address}; check the gateway's interfaces and routes"
            ),
            Self::NotOnLink { address } => write!(
                f,
                "{address} is on no link of the gateway, which the forwarding mode dsr-l2 needs: its packets are dropped; use dsr-ipip or dsr-gue, or give the gateway an address on the instance's link"
            ),
            Self::UnknownServiceGroup { group } => write!(
                f,
                "service group {group} does not exist; create it or delete the instance"
            ),
            Self::UnknownVip { address } => write!(
                f,
                "{address} is not a VIP of this gateway; add it to `vips` in the configuration"
            ),
            Self::PortTaken {
                vip,
                port,
                protocol,
                by,
            } => {
                let protocol = protocol.name();
                write!(
                    f,
                    "{vip} port {port}/{protocol} is published by service group {by} already; choose another port or VIP"
                )
            }
            Self::MapFull {
                map,
                needed,
                free,
                capacity,
            } => write!(
                f,
                "map {map} is full: {needed} more entries needed, {free} of {capacity} free; raise its capacity under [limits]"
            ),
            Self::StepFailed { step, error } => write!(f, "{step}: {error}"),
        }
    }
}

fn listed(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(", ")
}

impl Reason {
    /// What concerns ports with handlers, in words; nothing for the other reasons.
    fn fmt_terminated(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTerminator { ports, resets } => write!(
                f,
                "no terminator takes connections to the ports with handlers ({}), {}; start lbterm, or name another program with `lbctl terminator register`",
                listed(ports),
                if *resets {
                    "so clients get a reset"
                } else {
                    "so they go to whatever is bound to these ports on the host"
                }
            ),
            Self::NoVipIndex => f.write_str(
                "redirects are answered at the network card for 64 VIPs; the terminator answers those of this one",
            ),
            Self::NoCookies { reason } => write!(
                f,
                "the terminator answers redirects, and nothing shields it from SYN floods: {reason}"
            ),
            Self::RefusedByTerminator { reason } => {
                write!(f, "the terminator cannot serve it: {reason}")
            }
            _ => Ok(()),
        }
    }

    /// What health checks found, in words; nothing for the other reasons.
    fn fmt_health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SomeUnhealthy {
                family,
                unhealthy,
                of,
            } => write!(
                f,
                "health checks of {unhealthy} of {of} instances fail over {family}: they get no new connections; `lbctl health` says why"
            ),
            Self::AllUnhealthy { family, is_closed } => {
                let consequence = match is_closed {
                    true => "new connections are dropped (fail_closed)",
                    false => "all of them get new connections all the same (fail_open)",
                };
                write!(
                    f,
                    "health checks of all instances fail over {family}: {consequence}; `lbctl health` says why"
                )
            }
            _ => Ok(()),
        }
    }
}
