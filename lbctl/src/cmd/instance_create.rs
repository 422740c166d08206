//! `lbctl instance create`: attach an instance.

use clap::Args;
use lbagent_api::envelope::{Instances, Reference};
use lbagent_api::instance::{
    InstanceServiceGroupSpec, InstanceSpec, NetworkInterfaceSpec, parse_cidr,
};
use lbagent_api::paths;
use lbagent_api::service_group::{DomainSpec, ServiceSpec};
use ureq::http::Method;

use super::{Kind, advise_names, instance, query, selector, service_create};
use crate::client::{Client, all};
use crate::error::CtlError;
use crate::output::Format;

/// Explains where instances come from.
pub const HELP: &str = "\
The instance runs already, or soon will: lbctl starts nothing, it tells the gateway the address.

  lbctl instance create -n web-1 -g web --ip 10.0.0.11 --ip fd00::11
  lbctl instance create -p 5433:5432/tcp --ip 10.0.0.9   # with a service group of its own";

/// `lbctl instance create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the instance; made up when absent
    #[arg(short, long)]
    name: Option<String>,
    /// Address, at most one of each family
    #[arg(long = "ip", value_name = "ADDRESS", required = true)]
    addresses: Vec<String>,
    /// Service group to serve: name or UUID
    #[arg(short = 'g', long, value_name = "SERVICE")]
    service: Option<String>,
    /// Publish this port by a service group made with the instance: 443:8080, 5432:5432/tcp
    #[arg(
        short = 'p',
        long = "port",
        value_name = "PORT",
        conflicts_with = "service"
    )]
    ports: Vec<String>,
    /// Domain name of that service group
    #[arg(short, long = "domain", value_name = "DOMAIN", requires = "ports")]
    domains: Vec<String>,
    /// Recorded for people; nothing is started from it
    #[arg(long)]
    image: Option<String>,
    /// Do not give it traffic yet
    #[arg(long)]
    stopped: bool,
}

/// Runs the command.
pub fn create(arguments: &Create, client: &Client, format: Format) -> Result<(), CtlError> {
    let spec = request(arguments)?;
    let created = client
        .send::<Instances<Reference>>(Method::POST, paths::INSTANCES, &spec)
        .and_then(|answer| all(answer.instances))
        .map_err(|error| explain(error, arguments, client))?;
    let uuids: Vec<String> = created
        .iter()
        .map(|instance| instance.uuid.to_string())
        .collect();
    let mut instances = instance::fetch(&uuids, client)?;
    match (instances.pop(), instances.is_empty()) {
        (Some(instance), true) => instance::print_one(format, &instance),
        _ => Err(CtlError::Local(
            "the agent made no instance, or several".to_owned(),
        )),
    }
}

fn request(arguments: &Create) -> Result<InstanceSpec, CtlError> {
    let mut families = Vec::new();
    for text in &arguments.addresses {
        let (address, _) = parse_cidr(text).map_err(|_| {
            CtlError::Usage(format!(
                "'{text}' is no address; write --ip 10.0.0.7 or --ip 2001:db8::7"
            ))
        })?;
        if families.contains(&address.is_ipv4()) {
            return Err(CtlError::Usage(format!(
                "{address} is the second address of its family; an instance has one of each, so \
                 create another instance for it"
            )));
        }
        families.push(address.is_ipv4());
    }
    if let Some(name) = &arguments.name {
        lbagent_api::request::validate_name(name)
            .map_err(|error| CtlError::Usage(error.to_string()))?;
    }
    let interface = |ip: &String| NetworkInterfaceSpec {
        ip: Some(ip.clone()),
        ..NetworkInterfaceSpec::default()
    };
    Ok(InstanceSpec {
        name: arguments.name.clone(),
        image: arguments.image.clone().map(Into::into),
        service_group: group_request(arguments)?,
        network_interfaces: Some(arguments.addresses.iter().map(interface).collect()),
        autostart: Some(!arguments.stopped),
        ..InstanceSpec::default()
    })
}

/// The group to join, or to make.
fn group_request(arguments: &Create) -> Result<Option<InstanceServiceGroupSpec>, CtlError> {
    if let Some(word) = &arguments.service {
        let (uuid, name) = selector(word);
        return Ok(Some(InstanceServiceGroupSpec {
            uuid,
            name,
            ..InstanceServiceGroupSpec::default()
        }));
    }
    if arguments.ports.is_empty() {
        return Ok(None);
    }
    let services = service_create::services(&arguments.ports)?;
    let domains = arguments.domains.iter().map(|name| DomainSpec {
        name: service_create::qualified(name),
        certificate: None,
    });
    let domains: Vec<DomainSpec> = domains.collect();
    Ok(Some(InstanceServiceGroupSpec {
        services: Some(services.iter().map(ServiceSpec::from).collect()),
        domains: (!domains.is_empty()).then_some(domains),
        ..InstanceServiceGroupSpec::default()
    }))
}

/// What fails most often at a creation is the service group's name, and the agent may tell that
/// about the instance, so the name is looked up on this side.
fn explain(error: CtlError, arguments: &Create, client: &Client) -> CtlError {
    if !matches!(error, CtlError::Items(_) | CtlError::Refused { .. }) {
        return error;
    }
    let Some(word) = &arguments.service else {
        return error;
    };
    let path = format!("{}{}", paths::SERVICES, query(std::slice::from_ref(word)));
    let found = client
        .get::<lbagent_api::envelope::ServiceGroups<Reference>>(&path)
        .and_then(|answer| all(answer.service_groups));
    match found {
        Err(missing @ CtlError::Items(_)) => advise_names(missing, client, Kind::ServiceGroup),
        _ => error,
    }
}

#[cfg(test)]
#[path = "instance_create_tests.rs"]
mod tests;
