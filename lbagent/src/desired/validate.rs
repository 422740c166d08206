//! From requests to typed values. What breaks a rule whatever else exists is refused here, in the
//! contract's words; what clashes with other objects is refused by the operation.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lbagent_api::instance::InstanceSpec;
use lbagent_api::request::{qualify_domain, validate_name};
use lbagent_api::service_group::{
    self as contract, ServiceGroupSpec, validate_limits, validate_services,
};
use lbagent_api::{ContractError, ErrorCode, Selector};

use super::{Service, Transport};
use crate::config::unusable_address;

/// What requests are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Addresses that services can be published on.
    pub vips: BTreeSet<IpAddr>,
    /// Domain below which unqualified names live.
    pub metro_domain: String,
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
    pub domains: Option<Vec<String>>,
    /// Instance concurrency at which another instance is wanted.
    pub soft_limit: u16,
    /// Instance concurrency that is not exceeded.
    pub hard_limit: u16,
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
    if spec.autokill.is_some_and(|autokill| autokill.time_ms > 0) {
        return Err(not_supported(
            "'autokill' is not supported by this version of lbagent",
        ));
    }
    let domains = domains(spec, gateway)?;
    Ok(NewServiceGroup {
        name: spec.name.clone(),
        services,
        domains,
        soft_limit,
        hard_limit,
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
        .map(|service| raw_service(service, &gateway.vips))
        .collect()
}

/// A port that the data plane can serve by itself.
pub(super) fn raw_service(
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
    if !handlers.is_empty() {
        let words: Vec<String> = handlers
            .iter()
            .map(|handler| format!("'{handler}'"))
            .collect();
        return Err(not_supported(format!(
            "Service port {port} asks for the handlers {}, which this version of lbagent cannot \
             serve; publish it as a raw port, with \"protocol\" (\"tcp\" or \"udp\") and no handlers",
            words.join(" and ")
        )));
    }
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
    })
}

fn domains(
    spec: &ServiceGroupSpec,
    gateway: &Gateway,
) -> Result<Option<Vec<String>>, ContractError> {
    let given = match (&spec.domains, &spec.dns_name) {
        (Some(_), Some(_)) => {
            return Err(ContractError::new(
                ErrorCode::NotBoth,
                "Members 'domains' and 'dns_name' exclude each other",
            ));
        }
        (None, None) => return Ok(None),
        (None, Some(name)) => vec![name.as_str()],
        (Some(domains), None) => {
            if let Some(domain) = domains.iter().find(|domain| domain.certificate.is_some()) {
                return Err(not_supported(format!(
                    "Domain '{}' names a certificate, which this version of lbagent cannot use",
                    domain.name
                )));
            }
            domains.iter().map(|domain| domain.name.as_str()).collect()
        }
    };
    let mut valid = Vec::new();
    for name in given {
        let fqdn = qualify_domain(name, &gateway.metro_domain)?;
        if fqdn.starts_with("*.") {
            return Err(not_supported(format!(
                "Domain '{name}' needs a certificate of its own, which this version of lbagent \
                 cannot use"
            )));
        }
        if valid.contains(&fqdn) {
            return Err(ContractError::invalid(format!(
                "Domain '{fqdn}' is given twice"
            )));
        }
        valid.push(fqdn);
    }
    Ok((!valid.is_empty()).then_some(valid))
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
