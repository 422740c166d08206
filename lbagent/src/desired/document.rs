//! The desired state as one document, for export and import.

mod access;
mod certificates;
mod import;
mod replace;

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbagent_api::ContractError;
use lbagent_api::certificate::Secret;
use lbagent_api::request::parse_body;
use lbagent_api::service_group::{self as contract, Autokill};
use lbagent_api::state::{
    FORMAT, StateData, StateDocument, StateInstance, StateInstanceState, StatePath,
    StateServiceGroup, StateTerminator, UnpublishedPorts as DocumentedPolicy,
};
use uuid::Uuid;

use super::{Access, DesiredState, Instance, InstanceState, Service, ServiceGroup, Transport};
use crate::plan::{GatewaySettings, UnpublishedPorts};

pub use import::{Wanted, import};
pub use replace::{ReplaceError, Replaced};

/// Private keys by their certificates.
pub type PrivateKeys = BTreeMap<Uuid, Secret>;

/// What a document holds only where it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Of certificates.
    pub keys: PrivateKeys,
    /// Of terminators.
    pub terminator: Option<StateTerminator>,
}

/// Writes everything down. `paths` is how this host reaches the instances, for a replay elsewhere.
/// Secrets are written down where they are given.
pub fn export(
    desired: &DesiredState,
    gateway: &GatewaySettings,
    paths: Option<BTreeMap<IpAddr, StatePath>>,
    secrets: &Secrets,
) -> StateDocument {
    let certificates = desired.certificates.values();
    let certificates = certificates.map(|it| certificates::export(it, secrets.keys.get(&it.uuid)));
    let Access {
        accounts, tokens, ..
    } = &desired.access;
    StateDocument {
        format: FORMAT,
        generation: desired.generation,
        vips: gateway.vips.iter().copied().collect(),
        hash_seed: gateway.hash_seed,
        unpublished_ports: match gateway.unpublished_ports {
            UnpublishedPorts::Pass => DocumentedPolicy::Pass,
            UnpublishedPorts::Drop => DocumentedPolicy::Drop,
        },
        udp_idle_s: u32::try_from(gateway.udp_idle.as_secs()).unwrap_or(u32::MAX),
        accounts: accounts.values().map(access::export_account).collect(),
        tokens: tokens.values().map(access::export_token).collect(),
        certificates: Some(certificates.collect()),
        terminator: secrets.terminator.clone(),
        service_groups: desired.service_groups.values().map(export_group).collect(),
        instances: desired.instances.values().map(export_instance).collect(),
        paths,
    }
}

fn export_group(group: &ServiceGroup) -> StateServiceGroup {
    StateServiceGroup {
        uuid: group.uuid,
        account: group.account,
        name: group.name.clone(),
        created_at: group.created_at,
        persistent: group.persistent,
        soft_limit: group.soft_limit,
        hard_limit: group.hard_limit,
        services: group.services.iter().map(contract::Service::from).collect(),
        domains: group.domains.clone(),
        autokill: (group.autokill_ms > 0).then_some(Autokill {
            time_ms: group.autokill_ms,
        }),
        empty_since: group.empty_since,
        policy: group.policy.clone(),
    }
}

fn export_instance(instance: &Instance) -> StateInstance {
    StateInstance {
        uuid: instance.uuid,
        account: instance.account,
        name: instance.name.clone(),
        created_at: instance.created_at,
        state: match instance.state {
            InstanceState::Running => StateInstanceState::Running,
            InstanceState::Draining {
                since,
                deadline,
                then,
            } => StateInstanceState::Draining {
                since,
                deadline,
                then,
            },
            InstanceState::Stopped => StateInstanceState::Stopped,
            InstanceState::Standby => StateInstanceState::Standby,
        },
        service_group: instance.service_group,
        addresses: instance.addresses.iter().map(ToString::to_string).collect(),
        image: instance.image.clone(),
        tags: instance.tags.clone(),
        annotations: instance.annotations.clone(),
        policy: instance.policy.clone(),
    }
}

/// Reads a document, bare or as the API answers it.
pub fn parse(bytes: &[u8]) -> Result<StateDocument, ContractError> {
    match parse_body::<StateDocument>(bytes) {
        Ok(document) => Ok(document),
        Err(error) => match serde_json::from_slice::<StateData>(bytes) {
            Ok(data) => Ok(data.state),
            Err(_) => Err(error),
        },
    }
}

impl From<&Service> for contract::Service {
    fn from(service: &Service) -> Self {
        Self {
            port: service.port,
            destination_port: service.destination_port,
            protocol: service.protocol.into(),
            ip: service.ip,
            handlers: service.handlers.clone(),
        }
    }
}

impl From<Transport> for contract::Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

impl From<contract::Protocol> for Transport {
    fn from(protocol: contract::Protocol) -> Self {
        match protocol {
            contract::Protocol::Tcp => Self::Tcp,
            contract::Protocol::Udp => Self::Udp,
        }
    }
}
