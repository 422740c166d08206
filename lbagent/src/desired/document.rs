//! The desired state as one document, for export and import.

mod accounts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lbagent_api::ContractError;
use lbagent_api::instance::parse_cidr;
use lbagent_api::request::{parse_body, validate_name};
use lbagent_api::service_group::{self as contract, Autokill};
use lbagent_api::state::{
    FORMAT, StateData, StateDocument, StateInstance, StateInstanceState, StatePath,
    StateServiceGroup, UnpublishedPorts as DocumentedPolicy,
};

use super::service_group::{self, Claimed};
use super::{
    AccountError, Claim, Desired, DesiredError, DesiredState, Instance, InstanceState,
    PolicyConflict, Service, ServiceGroup, Transport, Written, access, instance, keys, policy,
    ports, validate,
};
use crate::plan::{GatewaySettings, UnpublishedPorts};

/// Writes everything down. `paths` is how this host reaches the instances, for a replay elsewhere.
pub fn export(
    desired: &DesiredState,
    gateway: &GatewaySettings,
    paths: Option<BTreeMap<IpAddr, StatePath>>,
) -> StateDocument {
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
        accounts: desired
            .access
            .accounts
            .values()
            .map(accounts::export)
            .collect(),
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

/// Reads a document by the same rules as requests. Its first mistake refuses it.
pub fn import(
    document: &StateDocument,
    vips: &BTreeSet<IpAddr>,
) -> Result<DesiredState, ContractError> {
    if document.format != FORMAT {
        return Err(ContractError::invalid(format!(
            "The state document has format {}, this lbagent reads format {FORMAT}",
            document.format
        )));
    }
    let mut state = DesiredState {
        access: accounts::import(document)?,
        ..DesiredState::default()
    };
    for group in &document.service_groups {
        let group = import_group(group, vips)
            .map_err(|error| about(format!("Service group '{}'", group.name), error))?;
        policy::check_group(&group).map_err(conflict)?;
        add_group(&mut state, group, vips)?;
    }
    let mut addresses = BTreeMap::new();
    for instance in &document.instances {
        let of = || format!("Instance '{}'", instance.name);
        let instance =
            import_instance(instance, vips, &state).map_err(|error| about(of(), error))?;
        if let Some(group) = instance
            .service_group
            .and_then(|uuid| state.service_groups.get(&uuid))
        {
            policy::check_instance(&state, group, &instance).map_err(conflict)?;
        }
        let taken = state
            .claims
            .insert(instance::name_key(&instance), Claim::Owner(instance.uuid));
        if taken.is_some() || state.instances.contains_key(&instance.uuid) {
            return Err(ContractError::invalid(format!("{} occurs twice", of())));
        }
        for address in instance.addresses.iter().map(IpNetwork::ip) {
            if *addresses.entry(address).or_insert(instance.account) != instance.account {
                return Err(ContractError::invalid(format!(
                    "{}: Address {address} is in use by another account",
                    of()
                )));
            }
        }
        if let Some(group) = instance
            .service_group
            .and_then(|uuid| state.service_groups.get(&uuid))
            && group.empty_since.is_some()
        {
            let group = ServiceGroup {
                empty_since: None,
                ..group.clone()
            };
            state.put_group(group);
        }
        state.put_instance(instance);
    }
    Ok(state)
}

/// Tells its objects by itself.
fn conflict(error: PolicyConflict) -> ContractError {
    ContractError::invalid(error.to_string())
}

fn about(object: String, error: ContractError) -> ContractError {
    ContractError::new(error.code, format!("{object}: {}", error.message))
}

fn import_group(
    group: &StateServiceGroup,
    vips: &BTreeSet<IpAddr>,
) -> Result<ServiceGroup, ContractError> {
    validate_name(&group.name)?;
    let (soft, hard) = (i64::from(group.soft_limit), i64::from(group.hard_limit));
    let (soft_limit, hard_limit) = contract::validate_limits(Some(soft), Some(hard))?;
    let specs: Vec<_> = group
        .services
        .iter()
        .map(contract::ServiceSpec::from)
        .collect();
    let services = contract::validate_services(&specs)?
        .iter()
        .map(|service| validate::service(service, vips))
        .collect::<Result<_, _>>()?;
    Ok(ServiceGroup {
        uuid: group.uuid,
        account: group.account,
        name: group.name.clone(),
        created_at: group.created_at,
        persistent: group.persistent,
        soft_limit,
        hard_limit,
        services,
        domains: group.domains.clone(),
        autokill_ms: group.autokill.map_or(0, |autokill| autokill.time_ms),
        empty_since: group.empty_since,
        policy: group.policy.clone(),
    })
}

/// Takes up a group with its claims, unless another one has them.
fn add_group(
    state: &mut DesiredState,
    group: ServiceGroup,
    vips: &BTreeSet<IpAddr>,
) -> Result<(), ContractError> {
    let twice = |what: String| Err(ContractError::invalid(format!("{what} occurs twice")));
    let claims = &mut state.claims;
    if state.service_groups.contains_key(&group.uuid)
        || claims.contains_key(&keys::group_name(group.account, &group.name))
    {
        return twice(format!("Service group '{}'", group.name));
    }
    for domain in &group.domains {
        if claims.contains_key(&keys::domain(&domain.fqdn)) {
            return twice(format!("Domain '{}'", domain.fqdn));
        }
    }
    for service in &group.services {
        if ports::holder(|key| claims.get(key).copied(), service, vips, None).is_some() {
            let (port, protocol) = (service.port, service.protocol.name());
            return Err(ContractError::invalid(format!(
                "Port {port}/{protocol} of service group '{}' is published by another one, and a \
                 raw port belongs to one",
                group.name
            )));
        }
    }
    for claim in service_group::claims(&group) {
        let (key, claim) = match claim {
            Claimed::Alone(key) => (key, Claim::Owner(group.uuid)),
            Claimed::Shared(key) => {
                let terminated = match claims.get(&key) {
                    Some(Claim::Terminated { terminated }) => terminated + 1,
                    Some(Claim::Owner(_)) | None => 1,
                };
                (key, Claim::Terminated { terminated })
            }
        };
        claims.insert(key, claim);
    }
    state.put_group(group);
    Ok(())
}

fn import_instance(
    instance: &StateInstance,
    vips: &BTreeSet<IpAddr>,
    state: &DesiredState,
) -> Result<Instance, ContractError> {
    validate_name(&instance.name)?;
    if let Some(group) = instance.service_group
        && state
            .service_groups
            .get(&group)
            .is_none_or(|group| group.account != instance.account)
    {
        return Err(ContractError::invalid(format!(
            "No service group with uuid '{group}'"
        )));
    }
    let address = |text: &String| {
        let (address, prefix) = parse_cidr(text)?;
        validate::instance_address(address, prefix, vips)
    };
    Ok(Instance {
        uuid: instance.uuid,
        account: instance.account,
        name: instance.name.clone(),
        created_at: instance.created_at,
        state: match instance.state {
            StateInstanceState::Running => InstanceState::Running,
            StateInstanceState::Draining {
                since,
                deadline,
                then,
            } => InstanceState::Draining {
                since,
                deadline,
                then,
            },
            StateInstanceState::Stopped => InstanceState::Stopped,
            StateInstanceState::Standby => InstanceState::Standby,
        },
        service_group: instance.service_group,
        addresses: instance
            .addresses
            .iter()
            .map(address)
            .collect::<Result<_, _>>()?,
        image: instance.image.clone(),
        tags: instance.tags.clone(),
        annotations: instance.annotations.clone(),
        policy: instance.policy.clone(),
    })
}

impl Desired {
    /// Makes service groups and instances equal to these, all or nothing. Accounts are added or
    /// given other quotas; those that the document does not have stay, with their tokens.
    pub fn replace(
        &self,
        wanted: &DesiredState,
    ) -> Result<Written<Result<(), AccountError>>, DesiredError> {
        self.transact(|draft| {
            let old = draft.state().clone();
            for account in wanted.access.accounts.values() {
                let owner = draft.owner(&keys::account_name(&account.name));
                if owner.is_some_and(|owner| owner != account.uuid) {
                    let name = account.name.clone();
                    return Err(AccountError::NameTaken { name });
                }
            }
            for account in wanted.access.accounts.values() {
                if let Some(former) = draft.account(account.uuid) {
                    draft.release(keys::account_name(&former.name));
                }
                access::put(draft, account.clone());
            }
            let is_kept =
                |group: &&ServiceGroup| wanted.service_groups.get(&group.uuid) == Some(group);
            let is_same =
                |instance: &&Instance| wanted.instances.get(&instance.uuid) == Some(instance);
            // What goes releases its names and ports before others claim them.
            for instance in old.instances.values().filter(|instance| !is_same(instance)) {
                instance::remove(draft, instance.uuid);
            }
            for group in old.service_groups.values().filter(|group| !is_kept(group)) {
                service_group::remove(draft, group.uuid);
            }
            for group in wanted.service_groups.values() {
                if old.service_groups.get(&group.uuid) != Some(group) {
                    service_group::insert(draft, group.clone());
                }
            }
            for instance in wanted.instances.values() {
                if old.instances.get(&instance.uuid) != Some(instance) {
                    instance::insert(draft, instance.clone());
                }
            }
            Ok(())
        })
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
