//! `lbctl service create`: publish ports.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use lbagent_api::envelope::{Reference, ServiceGroups};
use lbagent_api::request::SelectorSpec;
use lbagent_api::service_group::{
    Autokill, DomainSpec, Service, ServiceGroup, ServiceGroupSpec, ServiceSpec, collide,
    validate_limits, validate_services,
};
use lbagent_api::status::StatusData;
use lbagent_api::{ErrorCode, Selector, paths, port_spec};
use ureq::http::Method;

use super::parse_duration;
use crate::client::{Client, all};
use crate::error::CtlError;
use crate::output::{Format, list, print};

/// Explains the grammar below `service create --help`.
pub const PORT_HELP: &str = "\
Ports:
  443:8080               443:8080/tls+http, and 80:443/http+redirect
  443:8080/http+tls      TLS and HTTP, through the terminator; the order does not matter
  6379:6379/tls          TLS, through the terminator
  5432:5432/tcp          raw TCP: port 5432 of the VIPs to port 5432 of the instances
  53:5353/udp            raw UDP

  lbctl service create -n shop 443:8080 -d www.example.com
  lbctl service create -n db 5432:5432/tcp 53:5353/udp --ip 192.0.2.10";

/// `lbctl service create`.
#[derive(Debug, Args)]
pub struct Create {
    /// EXTERNAL[:INTERNAL][/tcp|/udp|/HANDLER[+HANDLER]]
    #[arg(required_unless_present = "services", value_name = "PORT")]
    ports: Vec<String>,
    /// The same, as an option
    #[arg(long = "service", value_name = "PORT")]
    services: Vec<String>,
    /// Name of the service group; made up when absent
    #[arg(short, long)]
    name: Option<String>,
    /// Domain name, with a trailing dot or a dot inside as it is, else below the metro domain
    #[arg(short, long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Domain name below the metro domain
    #[arg(short, long = "subdomain", value_name = "LABEL")]
    subdomains: Vec<String>,
    /// Certificate of a domain, by name or UUID: the first one is the first --domain's, and so on
    #[arg(short, long = "certificate", value_name = "CERTIFICATE")]
    certificates: Vec<String>,
    /// Publish on this VIP only
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Concurrency of an instance at which another is wanted
    #[arg(short = 'l', long, value_name = "N")]
    soft_limit: Option<i64>,
    /// Concurrency of an instance that is not exceeded
    #[arg(short = 'L', long, value_name = "N")]
    hard_limit: Option<i64>,
    /// Delete the service group so long after it became empty: 5m, or time=5m
    #[arg(long, value_name = "DURATION", value_parser = parse_autokill)]
    autokill: Option<Duration>,
    /// Print the request instead of sending it
    #[arg(long)]
    dry_run: bool,
}

/// Reads `5m` and `time=5m`.
pub fn parse_autokill(text: &str) -> Result<Duration, String> {
    parse_duration(text.strip_prefix("time=").unwrap_or(text))
}

/// `autokill` of a request.
pub fn autokill(time: Duration) -> Autokill {
    Autokill {
        time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Runs the command.
pub fn create(arguments: &Create, client: &Client, format: Format) -> Result<(), CtlError> {
    let (spec, services) = request(arguments)?;
    if arguments.dry_run {
        // A request is JSON whatever its reader prefers.
        let format = match format {
            Format::Yaml | Format::Kv => format,
            _ => Format::Json,
        };
        return print(format, &spec, String::new);
    }
    let created = client
        .send::<ServiceGroups<Reference>>(Method::POST, paths::SERVICES, &spec)
        .and_then(|answer| all(answer.service_groups))
        .map_err(|error| explain(error, arguments, &services, client))?;
    let uuids: Vec<String> = created.iter().map(|group| group.uuid.to_string()).collect();
    let mut groups = super::service::fetch(&uuids, client)?;
    match (groups.pop(), groups.is_empty()) {
        (Some(group), true) => super::service::print_one(format, &group),
        _ => Err(CtlError::Local(
            "the agent made no service group, or several".to_owned(),
        )),
    }
}

/// The request, checked as far as that is possible on this side.
fn request(arguments: &Create) -> Result<(ServiceGroupSpec, Vec<Service>), CtlError> {
    let usage = |error: &dyn std::fmt::Display| CtlError::Usage(error.to_string());
    let mut services = services(arguments.ports.iter().chain(&arguments.services))?;
    for service in &mut services {
        service.ip = arguments.ip;
    }
    let specs: Vec<ServiceSpec> = services.iter().map(ServiceSpec::from).collect();
    validate_services(&specs).map_err(|error| usage(&error))?;
    validate_limits(arguments.soft_limit, arguments.hard_limit).map_err(|error| usage(&error))?;
    if let Some(name) = &arguments.name {
        lbagent_api::request::validate_name(name).map_err(|error| usage(&error))?;
    }
    let domains = domains(arguments)?;
    let spec = ServiceGroupSpec {
        name: arguments.name.clone(),
        services: Some(specs),
        domains: (!domains.is_empty()).then_some(domains),
        soft_limit: arguments.soft_limit,
        hard_limit: arguments.hard_limit,
        autokill: arguments.autokill.map(autokill),
        ..ServiceGroupSpec::default()
    };
    Ok((spec, services))
}

/// Reads words of the ports' grammar.
pub fn services<'a>(words: impl IntoIterator<Item = &'a String>) -> Result<Vec<Service>, CtlError> {
    let mut services = Vec::new();
    for text in words {
        let parsed = port_spec::parse(text).map_err(|error| CtlError::Usage(error.to_string()))?;
        services.extend(parsed);
    }
    Ok(services)
}

fn domains(arguments: &Create) -> Result<Vec<DomainSpec>, CtlError> {
    let Create {
        domains,
        subdomains,
        certificates,
        ..
    } = arguments;
    if let Some(label) = subdomains.iter().find(|label| label.contains('.')) {
        return Err(CtlError::Usage(format!(
            "subdomain '{label}' has a dot; a whole name is given with --domain"
        )));
    }
    if certificates.len() > domains.len() {
        return Err(CtlError::Usage(format!(
            "certificate '{}' belongs to no domain; give a --domain for each --certificate",
            certificates[domains.len()]
        )));
    }
    let certificate = |index: usize| -> Option<SelectorSpec> {
        let word = certificates.get(index)?;
        Some((&Selector::from_word(word)).into())
    };
    let whole = domains.iter().enumerate().map(|(index, name)| DomainSpec {
        name: qualified(name),
        certificate: certificate(index),
    });
    let below = subdomains.iter().map(|label| DomainSpec {
        name: label.clone(),
        certificate: None,
    });
    Ok(whole.chain(below).collect())
}

/// A name with a dot is whole, which the API says by a dot at the end.
pub fn qualified(name: &str) -> String {
    let is_whole = name.contains('.') && !name.ends_with('.');
    format!("{name}{}", if is_whole { "." } else { "" })
}

/// Looks up who has the port or the name, and which addresses are VIPs, after the agent refused.
fn explain(error: CtlError, arguments: &Create, services: &[Service], client: &Client) -> CtlError {
    let text = error.to_string();
    if let Some(ip) = arguments.ip
        && let Ok(StatusData { status }) = client.get::<StatusData>(paths::STATUS)
        && !status.vips.contains(&ip)
    {
        return refused(format!(
            "{ip} is no VIP of this gateway, whose VIPs are {}; add it to `vips` in the agent's \
             configuration, or leave --ip away",
            list(&status.vips)
        ));
    }
    let taken = match &error {
        CtlError::Items(items) => items
            .iter()
            .any(|item| matches!(item.error, ErrorCode::AlreadyExists | ErrorCode::NoFree)),
        CtlError::Refused { status, .. } => *status == 409,
        _ => false,
    };
    if !taken {
        return error;
    }
    let groups = client.list(paths::SERVICES, |data: ServiceGroups<ServiceGroup>| {
        data.service_groups
    });
    let Ok(groups) = groups else {
        return error;
    };
    match who_has_it(arguments.name.as_deref(), services, &groups) {
        Some(owner) if !text.contains(&owner.mention) => refused(owner.text),
        _ => error,
    }
}

fn refused(message: String) -> CtlError {
    CtlError::Refused {
        status: 400,
        message,
    }
}

/// Who has what was asked for.
struct Owner {
    /// What the agent's own message would hold if it named the owner.
    mention: String,
    text: String,
}

fn who_has_it(name: Option<&str>, services: &[Service], groups: &[ServiceGroup]) -> Option<Owner> {
    if let Some(group) = groups
        .iter()
        .find(|group| Some(group.name.as_str()) == name)
    {
        return Some(Owner {
            mention: group.uuid.to_string(),
            text: format!(
                "the name '{0}' is taken; choose another, or remove that service group with \
                 `lbctl service rm {0}`",
                group.name
            ),
        });
    }
    groups.iter().find_map(|group| {
        let taken = services.iter().find(|wanted| {
            wanted.is_raw() && group.services.iter().any(|other| collide(wanted, other))
        })?;
        Some(Owner {
            mention: format!("'{}'", group.name),
            text: format!(
                "port {}/{} is taken by service group '{}'; choose another port, or another VIP \
                 with --ip, or remove that group with `lbctl service rm {2}`",
                taken.port, taken.protocol, group.name
            ),
        })
    })
}

#[cfg(test)]
#[path = "service_create_tests.rs"]
mod tests;
