//! `lbctl service`: publish ports.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use lbagent_api::envelope::{Reference, ServiceGroups};
use lbagent_api::request::SelectorSpec;
use lbagent_api::service_group::{
    DomainSpec, Service, ServiceGroup, ServiceGroupSpec, ServiceSpec, collide, validate_limits,
    validate_services,
};
use lbagent_api::status::StatusData;
use lbagent_api::{ErrorCode, Selector, paths, port_spec};
use ureq::http::Method;

use super::{Kind, advise_names, policy, query};
use crate::client::{Client, all, split};
use crate::error::CtlError;
use crate::output::{Column, Format, list, print, record, table, time};

/// Explains the grammar below `service create --help`.
const PORT_HELP: &str = "\
Ports:
  5432:5432/tcp          raw TCP: port 5432 of the VIPs to port 5432 of the instances
  53:5353/udp            raw UDP
  443:8080/tls+http      TLS and HTTP, through the terminator
  6379:6379/tls          TLS, through the terminator
  443:8080               443:8080/tls+http, and 80:443/http+redirect";

/// What to do with service groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish ports
    #[command(visible_alias = "new", after_help = PORT_HELP)]
    Create(Create),
    /// Show service groups
    #[command(visible_alias = "gt")]
    Get {
        /// Names or UUIDs
        #[arg(required = true, value_name = "NAME|UUID")]
        names: Vec<String>,
    },
    /// List service groups
    #[command(visible_alias = "list")]
    Ls,
    /// Show or set forwarding mode, source prefixes and QUIC layout
    #[command(after_help = policy::GROUP_HELP)]
    Policy(policy::GroupArguments),
    /// Delete service groups that no instance is attached to
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Names or UUIDs
        #[arg(required_unless_present = "all", value_name = "NAME|UUID")]
        names: Vec<String>,
        /// All of them
        #[arg(short, long, conflicts_with = "names")]
        all: bool,
    },
}

/// `lbctl service create`.
#[derive(Debug, Args)]
pub struct Create {
    /// EXTERNAL[:INTERNAL][/tcp|/udp|/HANDLER[+HANDLER]]
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
    /// Name of the service group; made up when absent
    #[arg(short, long)]
    name: Option<String>,
    /// Domain name, with a trailing dot or a dot inside as it is, else below the metro domain
    #[arg(short, long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Publish on this VIP only
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Concurrency of an instance at which another is wanted
    #[arg(short = 'l', long, value_name = "N")]
    soft_limit: Option<i64>,
    /// Concurrency of an instance that is not exceeded
    #[arg(short = 'L', long, value_name = "N")]
    hard_limit: Option<i64>,
    /// Print the request instead of sending it
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(command: Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Create(arguments) => create(&arguments, client, format),
        Command::Get { names } => get(&names, client, format),
        Command::Ls => {
            let groups = all(client
                .get::<ServiceGroups<_>>(paths::SERVICES)?
                .service_groups)?;
            print(format, &groups, || render_list(&groups))
        }
        Command::Policy(arguments) => policy::group(&arguments, client, format),
        Command::Rm { names, all: false } => remove(&names, client, format),
        Command::Rm { all: true, .. } => remove(&Kind::ServiceGroup.names(client)?, client, format),
    }
}

fn create(arguments: &Create, client: &Client, format: Format) -> Result<(), CtlError> {
    let (spec, services) = request(arguments)?;
    if arguments.dry_run {
        // A request is JSON whatever its reader prefers.
        let format = if format == Format::Table {
            Format::Json
        } else {
            format
        };
        return print(format, &spec, String::new);
    }
    let created = client
        .send::<ServiceGroups<Reference>>(Method::POST, paths::SERVICES, &spec)
        .and_then(|answer| all(answer.service_groups))
        .map_err(|error| explain(error, arguments, &services, client))?;
    let uuids: Vec<String> = created.iter().map(|group| group.uuid.to_string()).collect();
    let mut groups = fetch(&uuids, client)?;
    match (groups.pop(), groups.is_empty()) {
        (Some(group), true) => print(format, &group, || render(&group, &[])),
        _ => Err(CtlError::Local(
            "the agent made no service group, or several".to_owned(),
        )),
    }
}

/// The request, checked as far as that is possible on this side.
fn request(arguments: &Create) -> Result<(ServiceGroupSpec, Vec<Service>), CtlError> {
    let usage = |error: &dyn std::fmt::Display| CtlError::Usage(error.to_string());
    let mut services = Vec::new();
    for text in &arguments.ports {
        services.extend(port_spec::parse(text).map_err(|error| usage(&error))?);
    }
    for service in &mut services {
        service.ip = arguments.ip;
    }
    let specs: Vec<ServiceSpec> = services.iter().map(ServiceSpec::from).collect();
    validate_services(&specs).map_err(|error| usage(&error))?;
    validate_limits(arguments.soft_limit, arguments.hard_limit).map_err(|error| usage(&error))?;
    if let Some(name) = &arguments.name {
        lbagent_api::request::validate_name(name).map_err(|error| usage(&error))?;
    }
    let domain = |name: &String| {
        let dot = if name.contains('.') && !name.ends_with('.') {
            "."
        } else {
            ""
        };
        DomainSpec {
            name: format!("{name}{dot}"),
            certificate: None,
        }
    };
    let domains: Vec<DomainSpec> = arguments.domains.iter().map(domain).collect();
    let spec = ServiceGroupSpec {
        name: arguments.name.clone(),
        services: Some(specs),
        domains: (!domains.is_empty()).then_some(domains),
        soft_limit: arguments.soft_limit,
        hard_limit: arguments.hard_limit,
        ..ServiceGroupSpec::default()
    };
    Ok((spec, services))
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
    let Ok(answer) = client.get::<ServiceGroups<ServiceGroup>>(paths::SERVICES) else {
        return error;
    };
    let groups = split(answer.service_groups).0;
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

fn fetch(names: &[String], client: &Client) -> Result<Vec<ServiceGroup>, CtlError> {
    let path = format!("{}{}", paths::SERVICES, query(names));
    all(client
        .get::<ServiceGroups<ServiceGroup>>(&path)?
        .service_groups)
}

fn get(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    let groups =
        fetch(names, client).map_err(|error| advise_names(error, client, Kind::ServiceGroup))?;
    let records = match format {
        Format::Table => render_all(&groups, client)?,
        // Data is what the contract has.
        Format::Json | Format::Yaml => String::new(),
    };
    match &groups[..] {
        [group] => print(format, group, || records),
        groups => print(format, &groups, || records),
    }
}

fn render_all(groups: &[ServiceGroup], client: &Client) -> Result<String, CtlError> {
    let shown = |group: &ServiceGroup| {
        let rows = policy::group_rows_asked_for(client, &group.uuid.to_string())?;
        Ok(render(group, &rows))
    };
    let records: Vec<String> = groups.iter().map(shown).collect::<Result<_, CtlError>>()?;
    Ok(records.join("\n\n"))
}

fn remove(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    if names.is_empty() {
        return Ok(());
    }
    let selectors: Vec<SelectorSpec> = names
        .iter()
        .map(|name| (&Selector::from_word(name)).into())
        .collect();
    let answer =
        client.send::<ServiceGroups<Reference>>(Method::DELETE, paths::SERVICES, &selectors)?;
    let (done, failed) = split(answer.service_groups);
    print(format, &done, || {
        done.iter()
            .map(|group| format!("{} removed", group.name))
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    let error = crate::error::advise(CtlError::Items(failed), ErrorCode::Attached, |_| {
        "remove its instances first: `lbctl instance ls` lists them, `lbctl instance rm` removes \
         them"
            .to_owned()
    });
    Err(advise_names(error, client, Kind::ServiceGroup))
}

fn render_list(groups: &[ServiceGroup]) -> String {
    let columns = [
        Column::Left("NAME"),
        Column::Left("FQDN"),
        Column::Left("SERVICES"),
        Column::Left("INSTANCES"),
        Column::Left("CREATED AT"),
        Column::Left("PERSISTENT"),
    ];
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|group| {
            vec![
                group.name.clone(),
                list(group.domains.iter().map(|domain| &domain.fqdn)),
                list(group.services.iter().map(describe)),
                list(group.instances.iter().map(|instance| &instance.name)),
                time(group.created_at),
                group.persistent.to_string(),
            ]
        })
        .collect();
    table(&columns, &rows)
}

fn describe(service: &Service) -> String {
    match service.ip {
        Some(ip) => format!("{service}@{ip}"),
        None => service.to_string(),
    }
}

/// One group; `policy` is what it has beyond the contract.
fn render(group: &ServiceGroup, policy: &[policy::Row]) -> String {
    let rows = [
        ("uuid", group.uuid.to_string()),
        ("name", group.name.clone()),
        (
            "fqdn",
            list(group.domains.iter().map(|domain| &domain.fqdn)),
        ),
        ("services", list(group.services.iter().map(describe))),
        (
            "instances",
            list(group.instances.iter().map(|instance| &instance.name)),
        ),
        ("soft limit", group.soft_limit.to_string()),
        ("hard limit", group.hard_limit.to_string()),
        ("created at", time(group.created_at)),
        ("persistent", group.persistent.to_string()),
    ];
    record(&[&rows, policy].concat())
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
