//! From requests to typed values. What breaks a rule whatever else exists is refused here, in the
//! contract's words; what clashes with other objects is refused by the operation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use lbagent_api::instance::InstanceSpec;
use lbagent_api::patch;
use lbagent_api::request::{SelectorSpec, qualify_domain, validate_name};
use lbagent_api::service_group::{
    self as contract, DomainSpec, ServiceGroupSpec, validate_limits, validate_services,
};
use lbagent_api::{ContractError, ErrorCode, Selector};

use super::patch::Change;
use super::{Domain, Service, Transport};
use crate::config::unusable_address;

/// What requests are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Addresses that services can be published on.
    pub vips: BTreeSet<IpAddr>,
    /// Domain below which unqualified names live.
    pub metro_domain: String,
    /// Labels below the metro domain that no service group can have.
    pub reserved_names: Arc<BTreeSet<String>>,
}

impl Gateway {
    /// The name of a label below the metro domain.
    pub fn domain_below_metro(&self, label: &str) -> String {
        format!("{label}.{}", self.metro_domain.trim_matches('.')).to_ascii_lowercase()
    }
}

/// A valid request for a service group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewServiceGroup {
    /// Made up when absent.
    pub name: Option<String>,
    /// One at least.
    pub services: Vec<Service>,
    /// Fully qualified; derived from the name when absent.
    pub domains: Option<Vec<Domain>>,
    /// Instance concurrency at which another instance is wanted.
    pub soft_limit: u16,
    /// Instance concurrency that is not exceeded.
    pub hard_limit: u16,
    /// It is deleted so many milliseconds after it became empty; 0 for never.
    pub autokill_ms: u64,
}

/// A valid request for an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInstance {
    /// Made up when absent.
    pub name: Option<String>,
    /// One at least.
    pub addresses: Vec<IpNetwork>,
    /// The group that it serves.
    pub group: NewInstanceGroup,
    /// Whether it takes connections at once.
    pub running: bool,
    /// Recorded, not run.
    pub image: Option<String>,
    /// Recorded.
    pub tags: Vec<String>,
    /// Recorded.
    pub annotations: BTreeMap<String, String>,
}

/// The group of a new instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewInstanceGroup {
    /// It serves none.
    None,
    /// One that exists.
    Join(Selector),
    /// One that is made with it, and goes with it.
    Create(NewServiceGroup),
}

/// Checks a request for a service group.
pub fn service_group(
    spec: &ServiceGroupSpec,
    gateway: &Gateway,
) -> Result<NewServiceGroup, ContractError> {
    if let Some(name) = &spec.name {
        validate_name(name)?;
    }
    let services = services(spec.services.as_deref().unwrap_or_default(), gateway)?;
    let (soft_limit, hard_limit) = validate_limits(spec.soft_limit, spec.hard_limit)?;
    let domains = domains(spec, gateway)?;
    Ok(NewServiceGroup {
        name: spec.name.clone(),
        services,
        domains,
        soft_limit,
        hard_limit,
        autokill_ms: spec.autokill.map_or(0, |autokill| autokill.time_ms),
    })
}

fn not_supported(text: impl Into<String>) -> ContractError {
    ContractError::new(ErrorCode::NotSupported, text)
}

fn services(
    specs: &[contract::ServiceSpec],
    gateway: &Gateway,
) -> Result<Vec<Service>, ContractError> {
    validate_services(specs)?
        .iter()
        .map(|service| self::service(service, &gateway.vips))
        .collect()
}

/// A port on VIPs of this gateway.
pub(super) fn service(
    service: &contract::Service,
    vips: &BTreeSet<IpAddr>,
) -> Result<Service, ContractError> {
    let contract::Service {
        port,
        destination_port,
        protocol,
        ip,
        handlers,
    } = service;
    if let Some(ip) = ip
        && !vips.contains(ip)
    {
        let known: Vec<String> = vips.iter().map(ToString::to_string).collect();
        return Err(ContractError::invalid(format!(
            "Value '{ip}' of 'ip' in service port description is no VIP of this gateway; it has {}",
            known.join(", ")
        )));
    }
    Ok(Service {
        port: *port,
        destination_port: *destination_port,
        protocol: Transport::from(*protocol),
        ip: *ip,
        handlers: handlers.clone(),
    })
}

fn domains(
    spec: &ServiceGroupSpec,
    gateway: &Gateway,
) -> Result<Option<Vec<Domain>>, ContractError> {
    let domains = match (&spec.domains, &spec.dns_name) {
        (Some(_), Some(_)) => {
            return Err(ContractError::new(
                ErrorCode::NotBoth,
                "Members 'domains' and 'dns_name' exclude each other",
            ));
        }
        (None, None) => return Ok(None),
        (None, Some(name)) => vec![domain(name, None, gateway)?],
        (Some(specs), None) => domain_list(specs, gateway)?,
    };
    Ok((!domains.is_empty()).then_some(domains))
}

/// Domains of one group, each and together.
pub(super) fn domain_list(
    specs: &[DomainSpec],
    gateway: &Gateway,
) -> Result<Vec<Domain>, ContractError> {
    let domains = specs
        .iter()
        .map(|spec| domain(&spec.name, spec.certificate.as_ref(), gateway))
        .collect::<Result<Vec<_>, _>>()?;
    check_domains(&domains)?;
    Ok(domains)
}

/// Whether domains of one group go together.
pub(super) fn check_domains(domains: &[Domain]) -> Result<(), ContractError> {
    contract::check_number("domains", domains.len())?;
    let mut seen = BTreeSet::new();
    match domains.iter().find(|domain| !seen.insert(&domain.fqdn)) {
        None => Ok(()),
        Some(twice) => Err(ContractError::new(
            ErrorCode::AlreadyExists,
            format!("Domain '{}' is given twice", twice.fqdn),
        )),
    }
}

/// A domain that a group may ask for, with the certificate that it names.
fn domain(
    name: &str,
    certificate: Option<&SelectorSpec>,
    gateway: &Gateway,
) -> Result<Domain, ContractError> {
    let fqdn = qualify_domain(name, &gateway.metro_domain)?;
    let is_own = name.ends_with('.');
    if fqdn.starts_with("*.") && !(is_own && certificate.is_some()) {
        return Err(ContractError::invalid(format!(
            "Domain '{name}' is a wildcard, which must be fully qualified (with a trailing dot) and \
             have a 'certificate' of its own"
        )));
    }
    if certificate.is_some() && !is_own {
        return Err(ContractError::invalid(format!(
            "Domain '{name}' must be fully qualified (with a trailing dot) to have a 'certificate'"
        )));
    }
    let metro = gateway.metro_domain.trim_matches('.').to_ascii_lowercase();
    let label = fqdn
        .strip_suffix(&metro)
        .and_then(|rest| rest.strip_suffix('.'));
    if fqdn == metro || label.is_some_and(|label| gateway.reserved_names.contains(label)) {
        return Err(ContractError::new(
            ErrorCode::CannotBeUsed,
            format!("Domain name '{name}' is reserved; choose another one"),
        ));
    }
    certificate.map(SelectorSpec::required).transpose()?;
    Ok(Domain {
        fqdn,
        certificate: certificate.cloned(),
    })
}

/// Checks an operation on a service group.
pub fn patch_change(change: &patch::Change, gateway: &Gateway) -> Result<Change, ContractError> {
    let services = |services: &[contract::Service]| {
        let services = services.iter();
        services
            .map(|one| service(one, &gateway.vips))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match change {
        patch::Change::SetServices(given) => Change::SetServices(services(given)?),
        patch::Change::AddServices(given) => Change::AddServices(services(given)?),
        patch::Change::DelServices(given) => Change::DelServices(given.clone()),
        patch::Change::SetDomains(given) => Change::SetDomains(domain_list(given, gateway)?),
        patch::Change::AddDomains(given) => Change::AddDomains(domain_list(given, gateway)?),
        patch::Change::DelDomains(given) => {
            let fqdn = |spec: &DomainSpec| qualify_domain(&spec.name, &gateway.metro_domain);
            Change::DelDomains(given.iter().map(fqdn).collect::<Result<_, _>>()?)
        }
        patch::Change::SetSoftLimit(limit) => {
            Change::SetSoftLimit(validate_limits(*limit, None)?.0)
        }
        patch::Change::SetHardLimit(limit) => {
            Change::SetHardLimit(validate_limits(Some(1), *limit)?.1)
        }
        patch::Change::SetAutokill(time_ms) => Change::SetAutokill(*time_ms),
    })
}

/// Checks a request for an instance.
pub fn instance(spec: &InstanceSpec, gateway: &Gateway) -> Result<NewInstance, ContractError> {
    if let Some(name) = &spec.name {
        validate_name(name)?;
    }
    if spec.replicas.is_some_and(|replicas| replicas != 0) {
        return Err(not_supported(
            "'replicas' is not supported: create one instance for each address",
        ));
    }
    let addresses = spec
        .addresses()?
        .into_iter()
        .map(|(address, prefix)| instance_address(address, prefix, &gateway.vips))
        .collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(ContractError::invalid(
            "An instance needs an address: give 'network_interfaces' with an 'ip'",
        ));
    }
    Ok(NewInstance {
        name: spec.name.clone(),
        addresses,
        group: instance_group(spec, gateway)?,
        running: spec.autostart.unwrap_or(false),
        image: spec.image_name(),
        tags: spec.tags.clone().unwrap_or_default(),
        annotations: spec.annotations.clone().unwrap_or_default(),
    })
}

/// An address that packets can be sent to.
pub(super) fn instance_address(
    address: IpAddr,
    prefix: u8,
    vips: &BTreeSet<IpAddr>,
) -> Result<IpNetwork, ContractError> {
    let refuse = |why: &str| {
        Err(ContractError::invalid(format!(
            "Value '{address}' of 'ip' in network interface is {why}; give the address that the \
             instance listens on"
        )))
    };
    if let Some(kind) = unusable_address(address) {
        return refuse(kind);
    }
    if vips.contains(&address) {
        return refuse("a VIP of this gateway");
    }
    IpNetwork::new(address, prefix).map_err(|error| {
        ContractError::invalid(format!("Invalid address '{address}/{prefix}': {error}"))
    })
}

fn instance_group(
    spec: &InstanceSpec,
    gateway: &Gateway,
) -> Result<NewInstanceGroup, ContractError> {
    let Some(group) = &spec.service_group else {
        return Ok(NewInstanceGroup::None);
    };
    if let Some(selector) = group.joined()? {
        return Ok(NewInstanceGroup::Join(selector));
    }
    let spec = ServiceGroupSpec {
        services: group.services.clone(),
        domains: group.domains.clone(),
        soft_limit: group.soft_limit,
        hard_limit: group.hard_limit,
        ..ServiceGroupSpec::default()
    };
    service_group(&spec, gateway).map(NewInstanceGroup::Create)
}
