//! A snapshot compiled for lookup: (address, port) → host name → group and service. Pure: no clock,
//! no I/O. What counts outlives the snapshot that it began with: the successor of a group or an
//! instance goes on with the same [`Load`] and [`GroupCounters`].

mod compile;
mod hosts;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lbagent_api::terminator::{InstanceState, Limits, Proxies, ServiceKind, ServicePolicy};
use uuid::Uuid;

use crate::balance::Load;
use crate::metrics::GroupCounters;

pub use hosts::{HostTable, canonical_host};

/// Everything that is served at one generation.
#[derive(Debug, Default)]
pub struct Routes {
    /// Of the snapshot; none before the first.
    pub generation: Option<u64>,
    /// Bounds of the terminator as a whole.
    pub limits: Limits,
    /// Proxies in front of the gateway.
    pub proxies: Proxies,
    ports: foldhash::HashMap<(IpAddr, u16), Port>,
    groups: HashMap<Uuid, Arc<Group>>,
}

impl Routes {
    /// What is published on the address that a client dialled.
    pub fn port(&self, dialled: SocketAddr) -> Option<&Port> {
        self.ports
            .get(&(dialled.ip().to_canonical(), dialled.port()))
    }

    /// All groups, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// A group as it is now, for what has outlived its snapshot.
    pub fn group(&self, uuid: Uuid) -> Option<&Arc<Group>> {
        self.groups.get(&uuid)
    }
}

/// A published (address, port), which any number of groups share.
#[derive(Debug)]
pub struct Port {
    /// Whether connections begin with a TLS handshake.
    pub is_tls: bool,
    kind_without_name: Option<ServiceKind>,
    hosts: HostTable<Arc<Target>>,
    targets: Vec<Arc<Target>>,
}

impl Port {
    /// The target of a host name as [`canonical_host`] writes it: the group with exactly this name,
    /// else the one with the longest wildcard above it.
    pub fn lookup(&self, host: &str) -> Option<&Arc<Target>> {
        self.hosts.lookup(host)
    }

    /// The target of a client that named no host: there is no doubt when there is one only.
    pub fn only(&self) -> Option<&Arc<Target>> {
        match &self.targets[..] {
            [target] => Some(target),
            _ => None,
        }
    }

    /// What is done with a connection whose name is not known here: the host of a request can still
    /// tell where there is HTTP.
    pub fn kind_without_name(&self) -> Option<ServiceKind> {
        self.kind_without_name
    }
}

/// A group's service at a published port.
#[derive(Debug)]
pub struct Target {
    /// Whose it is.
    pub group: Arc<Group>,
    /// Published TCP port.
    pub port: u16,
    /// TCP port of the instances.
    pub destination_port: u16,
    /// Where the group is published with HTTPS on an address of this service: 443 if it can be
    /// chosen, or if it is nowhere.
    pub https_port: u16,
    /// What is done with connections.
    pub kind: ServiceKind,
    /// How connections to instances are made.
    pub policy: ServicePolicy,
}

/// A service group.
pub struct Group {
    /// Identity.
    pub uuid: Uuid,
    /// Name, for the access log.
    pub name: String,
    /// In flight at an instance, from which on another one is wanted.
    pub soft_limit: u64,
    /// In flight at an instance, not exceeded.
    pub hard_limit: u64,
    /// Who answers.
    pub instances: Vec<Instance>,
    /// What has happened to it, whatever the snapshot.
    pub counters: Arc<GroupCounters>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} {})", self.name, self.uuid)
    }
}

/// Who answers.
#[derive(Debug)]
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
    /// What it has to do, whatever the snapshot.
    pub load: Arc<Load>,
}
