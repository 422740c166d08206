//! Snapshots for tests.

use std::net::SocketAddr;

use lbagent_api::certificate::Secret;
use lbagent_api::terminator::{
    Group, GroupDomain, Instance, InstanceState, Service, ServiceKind, Snapshot,
    TerminatorCertificate, TicketKey,
};
use uuid::Uuid;

/// A snapshot with these groups and certificates, and one key for tickets. As the agent does, it gives
/// each domain that has none the certificates with its name, else those with the wildcard above it.
pub fn snapshot(
    generation: u64,
    groups: &[Group],
    certificates: &[&TerminatorCertificate],
) -> Snapshot {
    let mut groups = groups.to_vec();
    for domain in groups.iter_mut().flat_map(|group| &mut group.domains) {
        let name = domain.name.to_lowercase();
        let wildcard = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let with = |name: &str| {
            let names = |it: &&&TerminatorCertificate| it.names.iter().any(|its| its == name);
            let found = certificates.iter().filter(names).map(|it| it.uuid);
            found.collect::<Vec<_>>()
        };
        let mut found = with(&name);
        if let Some(wildcard) = wildcard.filter(|_| found.is_empty()) {
            found = with(&wildcard);
        }
        if domain.certificate.is_none() && !found.is_empty() {
            domain.certificate = Some(found.remove(0));
            domain.alternatives = found;
        }
    }
    Snapshot {
        generation,
        groups,
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
        alternatives: Vec::new(),
    }
}
