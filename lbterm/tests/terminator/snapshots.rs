//! Snapshots for tests.

use std::net::SocketAddr;

use lbagent_api::certificate::Secret;
use lbagent_api::terminator::{
    Group, GroupDomain, Instance, InstanceState, Service, ServiceKind, Snapshot,
    TerminatorCertificate, TicketKey,
};
use uuid::Uuid;

/// A snapshot with these groups and certificates, and one key for tickets.
pub fn snapshot(
    generation: u64,
    groups: &[Group],
    certificates: &[&TerminatorCertificate],
) -> Snapshot {
    Snapshot {
        generation,
        groups: groups.to_vec(),
        certificates: certificates.iter().map(|it| (*it).clone()).collect(),
        ticket_keys: vec![ticket_key(1)],
        ..Snapshot::default()
    }
}

/// One of many keys.
pub fn ticket_key(number: u8) -> TicketKey {
    TicketKey {
        secret: Secret::new(format!("{number:02x}").repeat(32)),
    }
}

/// A group with one name, published at one address, in front of these instances.
pub fn group(
    name: &str,
    kind: ServiceKind,
    published: SocketAddr,
    instances: &[SocketAddr],
) -> Group {
    let instance = |(index, address): (usize, &SocketAddr)| Instance {
        uuid: Uuid::new_v4(),
        name: format!("instance-{index}"),
        addresses: vec![address.ip()],
        weight: 1,
        state: InstanceState::Active,
    };
    Group {
        uuid: Uuid::new_v4(),
        name: name.to_owned(),
        soft_limit: 100,
        hard_limit: 1000,
        domains: vec![domain(name)],
        services: vec![Service {
            vips: vec![published.ip()],
            port: published.port(),
            destination_port: instances.first().map_or(9, SocketAddr::port),
            kind,
            policy: Default::default(),
        }],
        instances: instances.iter().enumerate().map(instance).collect(),
    }
}

/// A domain that is bound to no certificate.
pub fn domain(name: &str) -> GroupDomain {
    GroupDomain {
        name: name.to_owned(),
        certificate: None,
    }
}
