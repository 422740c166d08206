//! What a terminator is to serve: from desired state and verdicts to a snapshot. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbagent_api::certificate::Secret;
use lbagent_api::health::{InitialHealth, WhenAllUnhealthy};
use lbagent_api::service_group::Handler;
use lbagent_api::terminator::{
    Group, GroupDomain, Instance, InstanceState, Service, ServiceKind, ServicePolicy, Snapshot,
    TerminatorCertificate, TicketKey,
};
use uuid::Uuid;

use crate::config::ServingSettings;
use crate::desired::{self, DEFAULT_ACCOUNT, DesiredState, Domain, ServiceGroup};
use crate::plan::{CheckedAddress, Fitness, GatewaySettings, Health, vips_of};

/// What a snapshot is made of.
pub(super) struct Inputs<'a> {
    pub(super) desired: &'a DesiredState,
    pub(super) health: &'a Health,
    pub(super) gateway: &'a GatewaySettings,
    /// Domain below which the default account's wildcard certificate serves all accounts.
    pub(super) metro_domain: &'a str,
    /// Private keys by certificate.
    pub(super) keys: &'a BTreeMap<Uuid, Secret>,
    /// The newest first.
    pub(super) ticket_keys: &'a [Secret],
    pub(super) settings: &'a ServingSettings,
}

/// Everything that a terminator serves; the generation is for the caller to fill in.
pub(super) fn snapshot(inputs: &Inputs<'_>) -> Snapshot {
    let mut finder = Finder::new(inputs);
    let groups = inputs.desired.service_groups.values();
    let groups = groups.filter_map(|group| {
        let services = services(group, inputs.gateway);
        (!services.is_empty()).then(|| Group {
            uuid: group.uuid,
            name: group.name.clone(),
            soft_limit: group.soft_limit,
            hard_limit: group.hard_limit,
            domains: finder.domains(group),
            services,
            instances: instances(group, inputs),
        })
    });
    let groups: Vec<Group> = groups.collect();
    let default_certificate = finder.gateways_own();
    Snapshot {
        generation: 0,
        groups,
        default_certificate,
        certificates: finder.certificates(),
        ticket_keys: inputs
            .ticket_keys
            .iter()
            .map(|secret| TicketKey {
                secret: secret.clone(),
            })
            .collect(),
        limits: inputs.settings.limits.clone(),
        proxies: inputs.settings.proxies.clone(),
    }
}

/// Finds certificates, and notes which are used: others need not leave the agent.
struct Finder<'a> {
    inputs: &'a Inputs<'a>,
    used: BTreeSet<Uuid>,
}

impl<'a> Finder<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        Self {
            inputs,
            used: BTreeSet::new(),
        }
    }

    /// The certificate that a domain of an account is served with, if its key is there.
    fn find(&mut self, account: Uuid, domain: &Domain) -> Option<Uuid> {
        let uuid = self.inputs.desired.certificate_for(account, domain)?.uuid;
        self.use_key(uuid)
    }

    /// Notes that a certificate is used, if its key is there.
    fn use_key(&mut self, uuid: Uuid) -> Option<Uuid> {
        self.inputs.keys.contains_key(&uuid).then(|| {
            self.used.insert(uuid);
            uuid
        })
    }

    /// The default account's wildcard for the metro domain.
    fn gateways_own(&mut self) -> Option<Uuid> {
        let wildcard = Domain {
            fqdn: format!("*.{}", self.inputs.metro_domain),
            certificate: None,
        };
        self.find(DEFAULT_ACCOUNT, &wildcard)
    }

    fn domains(&mut self, group: &ServiceGroup) -> Vec<GroupDomain> {
        let below = format!(".{}", self.inputs.metro_domain);
        let domains = group.domains.iter().map(|domain| {
            let label = domain.fqdn.strip_suffix(&below);
            // A wildcard stands for one label.
            let is_metro = label.is_some_and(|label| !label.contains('.'));
            let own = self.find(group.account, domain);
            let desired = self.inputs.desired;
            let others = desired.alternatives_for(group.account, domain).into_iter();
            GroupDomain {
                name: domain.fqdn.clone(),
                certificate: own.or_else(|| self.gateways_own().filter(|_| is_metro)),
                alternatives: others
                    .filter_map(|certificate| self.use_key(certificate.uuid))
                    .collect(),
            }
        });
        domains.collect()
    }

    fn certificates(&self) -> Vec<TerminatorCertificate> {
        let certificates = self.used.iter().filter_map(|uuid| {
            let certificate = self.inputs.desired.certificates.get(uuid)?;
            Some(TerminatorCertificate {
                uuid: *uuid,
                name: certificate.name.clone(),
                names: certificate.names.clone(),
                chain: certificate.chain.clone(),
                key: self.inputs.keys.get(uuid)?.clone(),
            })
        });
        certificates.collect()
    }
}

/// The group's ports with handlers, on VIPs of this gateway.
fn services(group: &ServiceGroup, gateway: &GatewaySettings) -> Vec<Service> {
    let placed = group.placed();
    let services = placed.iter().filter_map(|service| {
        let kind = kind(&service.handlers)?;
        let vips = vips_of(service, gateway).into_iter();
        let vips: Vec<IpAddr> = vips.filter(|vip| gateway.vips.contains(vip)).collect();
        (!vips.is_empty()).then(|| Service {
            vips,
            port: service.port,
            destination_port: service.destination_port,
            kind,
            policy: match group.policy.terminated.get(service.port) {
                Some(policy) => policy.clone(),
                None => ServicePolicy::default(),
            },
        })
    });
    services.collect()
}

/// What handlers come to; `None` for a raw port.
fn kind(handlers: &[Handler]) -> Option<ServiceKind> {
    let has = |handler| handlers.contains(&handler);
    Some(match (has(Handler::Tls), has(Handler::Http)) {
        _ if has(Handler::Redirect) => ServiceKind::Redirect,
        (true, true) => ServiceKind::Https,
        (true, false) => ServiceKind::Tls,
        (false, true) => ServiceKind::Http,
        (false, false) => return None,
    })
}

/// Those of the group's instances that may have connections.
fn instances(group: &ServiceGroup, inputs: &Inputs<'_>) -> Vec<Instance> {
    let members = inputs.desired.members(group.uuid);
    let mut instances: Vec<Instance> = members
        .filter_map(|member| instance(group, member, inputs.health))
        .collect();
    let policy = &group.policy.health;
    let mut eligible = instances
        .iter_mut()
        .filter(|it| it.state != InstanceState::Draining && it.weight > 0)
        .peekable();
    let is_open =
        policy.when_all_unhealthy == WhenAllUnhealthy::FailOpen && eligible.peek().is_some();
    let eligible: Vec<&mut Instance> = eligible.collect();
    if is_open
        && eligible
            .iter()
            .all(|it| it.state == InstanceState::Unhealthy)
    {
        eligible
            .into_iter()
            .for_each(|it| it.state = InstanceState::Active);
    }
    instances
}

fn instance(group: &ServiceGroup, member: &desired::Instance, health: &Health) -> Option<Instance> {
    let is_draining = match member.state {
        desired::InstanceState::Running => false,
        desired::InstanceState::Draining { .. } => true,
        desired::InstanceState::Stopped | desired::InstanceState::Standby => return None,
    };
    let addresses = [true, false]
        .into_iter()
        .filter_map(|v4| member.address(v4));
    let judged: Vec<(IpAddr, Fitness)> = addresses
        .map(|address| (address, fitness(group, member, address, health)))
        .collect();
    let fit = |it: &&(IpAddr, Fitness)| it.1 != Fitness::Unhealthy;
    let is_unhealthy = !judged.is_empty() && !judged.iter().any(|it| fit(&it));
    // An address that fails its checks is none while another one passes.
    let used: Vec<&(IpAddr, Fitness)> =
        judged.iter().filter(|it| is_unhealthy || fit(it)).collect();
    let weight = used
        .iter()
        .map(|(_, fitness)| fitness.share_of(member.policy.weight))
        .min();
    Some(Instance {
        uuid: member.uuid,
        name: member.name.clone(),
        addresses: used.iter().map(|(address, _)| *address).collect(),
        weight: u32::from(weight.unwrap_or(member.policy.weight)),
        state: match (is_draining, is_unhealthy) {
            (true, _) => InstanceState::Draining,
            (false, true) => InstanceState::Unhealthy,
            (false, false) => InstanceState::Active,
        },
    })
    .filter(|instance| !instance.addresses.is_empty())
}

/// A verdict, or what the group's policy says before the first one.
fn fitness(
    group: &ServiceGroup,
    member: &desired::Instance,
    address: IpAddr,
    health: &Health,
) -> Fitness {
    let policy = &group.policy.health;
    let key = CheckedAddress {
        instance: member.uuid,
        group: group.uuid,
        address,
    };
    match health.get(&key) {
        _ if !policy.has_checks() => Fitness::Healthy,
        Some(verdict) => *verdict,
        None if policy.initial == InitialHealth::Unhealthy => Fitness::Unhealthy,
        None => Fitness::Healthy,
    }
}
