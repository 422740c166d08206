//! Reading a document: everything that can be judged by it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lbagent_api::ContractError;
use lbagent_api::instance::parse_cidr;
use lbagent_api::request::{SelectorSpec, qualify_domain, validate_name};
use lbagent_api::service_group as contract;
use lbagent_api::state::{
    FORMAT, StateDocument, StateInstance, StateInstanceState, StateServiceGroup, StateTerminator,
};

use super::super::service_group::{self, Claimed};
use super::super::{
    Claim, DesiredState, Domain, Instance, InstanceState, PolicyConflict, ServiceGroup, instance,
    keys, membership, policy, ports, terminator, validate,
};
use super::{PrivateKeys, access, certificates};

/// What a document asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The objects.
    pub state: DesiredState,
    /// Whether it tells which certificates there are; else those of the agent stay.
    pub(super) has_certificates: bool,
    /// The private keys that it holds.
    pub(super) keys: PrivateKeys,
    /// Secrets of terminators.
    pub(super) terminator: StateTerminator,
    /// Key of the flow hash.
    pub(super) hash_seed: Option<u64>,
}

impl From<DesiredState> for Wanted {
    /// Certificates stay as they are.
    fn from(state: DesiredState) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }
}

impl Wanted {
    /// For an agent that runs: its data plane chooses by its own key of the flow hash.
    pub fn for_running_agent(self) -> Self {
        Self {
            hash_seed: None,
            ..self
        }
    }
}

/// Reads a document by the same rules as requests. Its first mistake refuses it.
pub fn import(document: &StateDocument, vips: &BTreeSet<IpAddr>) -> Result<Wanted, ContractError> {
    if document.format != FORMAT {
        return Err(ContractError::invalid(format!(
            "The state document has format {}, this lbagent reads format {FORMAT}",
            document.format
        )));
    }
    let mut state = DesiredState {
        access: access::import(document)?,
        ..DesiredState::default()
    };
    let keys = certificates::import(&mut state, document)?;
    let secrets = document.terminator.clone().unwrap_or_default();
    terminator::check(&secrets)?;
    for group in &document.service_groups {
        let group = import_group(group, vips)
            .map_err(|error| about(format!("Service group '{}'", group.name), error))?;
        policy::check_group(&group).map_err(conflict)?;
        policy::check_vips(&group, vips).map_err(conflict)?;
        add_group(&mut state, group, vips)?;
    }
    let mut addresses = BTreeMap::new();
    for written in &document.instances {
        let of = || format!("Instance '{}'", written.name);
        let instance =
            import_instance(written, vips, &state).map_err(|error| about(of(), error))?;
        for address in instance.addresses.iter().map(IpNetwork::ip) {
            if *addresses.entry(address).or_insert(instance.account) != instance.account {
                let text = format!("Address {address} is in use by another account");
                return Err(about(of(), ContractError::invalid(text)));
            }
        }
        add_instance(&mut state, instance)?;
    }
    Ok(Wanted {
        state,
        has_certificates: document.certificates.is_some(),
        keys,
        terminator: secrets,
        hash_seed: (document.hash_seed != 0).then_some(document.hash_seed),
    })
}

/// Tells its objects by itself.
fn conflict(error: PolicyConflict) -> ContractError {
    ContractError::invalid(error.to_string())
}

pub(super) fn about(object: String, error: ContractError) -> ContractError {
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
        domains: domains(&group.domains)?,
        autokill_ms: group.autokill.map_or(0, |autokill| autokill.time_ms),
        empty_since: group.empty_since,
        policy: group.policy.clone(),
    })
}

fn domains(domains: &[Domain]) -> Result<Vec<Domain>, ContractError> {
    validate::check_domains(domains)?;
    for domain in domains {
        if qualify_domain(&format!("{}.", domain.fqdn), "")? != domain.fqdn {
            let text = format!("Domain '{}' must be in lower case", domain.fqdn);
            return Err(ContractError::invalid(text));
        }
        let certificate = domain.certificate.as_ref();
        certificate.map(SelectorSpec::required).transpose()?;
    }
    Ok(domains.to_vec())
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
    for service in group.placed().iter() {
        if ports::holder(|key| claims.get(key), service, vips, None).is_some() {
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
                let groups = match claims.get(&key) {
                    Some(Claim::Shared { groups }) => groups + 1,
                    Some(Claim::Owner(_)) | None => 1,
                };
                (key, Claim::Shared { groups })
            }
        };
        claims.insert(&key, claim);
    }
    state.put_group(group);
    Ok(())
}

/// Takes up an instance with its name, in the group that it serves.
fn add_instance(state: &mut DesiredState, instance: Instance) -> Result<(), ContractError> {
    let name = instance::name_key(&instance);
    let taken = state.claims.insert(&name, Claim::Owner(instance.uuid));
    if taken.is_some() || state.instances.contains_key(&instance.uuid) {
        let text = format!("Instance '{}' occurs twice", instance.name);
        return Err(ContractError::invalid(text));
    }
    let group = instance.service_group;
    if let Some(group) = group
        .and_then(|uuid| state.service_groups.get(&uuid))
        .cloned()
    {
        policy::check_instance(state, &group, &instance).map_err(conflict)?;
        membership::check_addresses(state, &group, &instance.addresses)
            .map_err(|error| ContractError::invalid(error.to_string()))?;
        if group.empty_since.is_some() {
            state.put_group(ServiceGroup {
                empty_since: None,
                ..group
            });
        }
    }
    state.put_instance(instance);
    Ok(())
}

fn import_instance(
    instance: &StateInstance,
    vips: &BTreeSet<IpAddr>,
    state: &DesiredState,
) -> Result<Instance, ContractError> {
    validate_name(&instance.name)?;
    if let Some(uuid) = instance.service_group
        && state
            .service_groups
            .get(&uuid)
            .is_none_or(|group| group.account != instance.account)
    {
        let text = format!("No service group with uuid '{uuid}'");
        return Err(ContractError::invalid(text));
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
