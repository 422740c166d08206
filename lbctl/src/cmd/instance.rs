//! `lbctl instance`: attach, drain, detach.

use std::time::Duration;

use clap::{Args, Subcommand};
use lbagent_api::envelope::{Instances, Reference};
use lbagent_api::instance::{
    Instance, InstanceServiceGroupSpec, InstanceSpec, NetworkInterfaceSpec, parse_cidr,
};
use lbagent_api::lifecycle::{DeleteInstanceSpec, MAX_DRAIN_MS, StartSpec, StateChange, StopSpec};
use lbagent_api::service_group::{DomainSpec, ServiceSpec};
use lbagent_api::{Selector, paths};
use serde::Serialize;
use time::OffsetDateTime;
use ureq::http::Method;

use super::{
    Kind, advise_names, listing, parse_duration, policy, query, service_create, wait, watch,
};
use crate::client::{Client, all, split};
use crate::error::CtlError;
use crate::output::{Column, Format, created, list, print, record, table, time};

/// What to do with instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach an instance to a service group
    #[command(visible_alias = "new")]
    Create(Create),
    /// Show instances
    #[command(visible_aliases = ["gt", "inspect", "show"])]
    Get {
        /// Names or UUIDs
        #[arg(required = true, value_name = "NAME|UUID")]
        names: Vec<String>,
        #[command(flatten)]
        watch: watch::Arguments,
    },
    /// List instances
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        listing: listing::Arguments,
        #[command(flatten)]
        watch: watch::Arguments,
    },
    /// Give no new connections; with --drain, established ones stay for so long
    Stop(Stop),
    /// Give traffic again
    Start {
        /// Names or UUIDs
        #[arg(required = true, value_name = "NAME|UUID")]
        names: Vec<String>,
    },
    /// Show or set weight and QUIC server id
    Policy(policy::InstanceArguments),
    /// Wait until an instance is as described
    #[command(after_help = wait::HELP)]
    Wait(wait::Arguments),
    /// Detach and delete
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm {
        /// Names or UUIDs
        #[arg(required_unless_present_any = ["all", "filters"], value_name = "NAME|UUID")]
        names: Vec<String>,
        /// All of them
        #[arg(short, long, conflicts_with = "names")]
        all: bool,
        /// All with these members, as `ls --filter` lists them
        #[arg(long = "filter", value_name = "EXPR", conflicts_with_all = ["names", "all"])]
        filters: Vec<String>,
    },
}

impl Command {
    /// How often it is asked for again.
    pub const fn watch(&self) -> Option<Duration> {
        match self {
            Self::Get { watch, .. } | Self::Ls { watch, .. } => watch.every,
            _ => None,
        }
    }
}

/// What an instance's answer may hold.
pub const MEMBERS: &[&str] = &[
    "uuid",
    "name",
    "created_at",
    "state",
    "image",
    "service_group",
    "network_interfaces",
    "private_ip",
];

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
    #[arg(short = 'g', long, value_name = "NAME|UUID")]
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

/// `lbctl instance stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Names or UUIDs
    #[arg(required = true, value_name = "NAME|UUID")]
    names: Vec<String>,
    /// Keep established connections for so long at most: 30s, 5m, or `max`
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = parse_drain)]
    drain: Option<Duration>,
    /// The same in milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "drain", value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN_MS))]
    drain_ms: Option<u64>,
    /// Cut off at once, also an instance that drains already
    #[arg(long, conflicts_with_all = ["drain", "drain_ms"])]
    force: bool,
}

fn parse_drain(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_millis(MAX_DRAIN_MS);
    if text == "max" {
        return Ok(longest);
    }
    match parse_duration(text)? {
        duration if duration > longest => Err("the longest drain is 1h".to_owned()),
        duration => Ok(duration),
    }
}

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Create(arguments) => create(arguments, client, format),
        Command::Get { names, .. } => get(names, client, format),
        Command::Ls { listing, .. } => {
            let instances = listing.select(fetch(&[], client)?, MEMBERS)?;
            let now = OffsetDateTime::now_utc();
            listing.print(format, &instances, || render_list(&instances, format, now))
        }
        Command::Stop(arguments) => {
            let body = stop_request(arguments);
            change(paths::INSTANCES_STOP, &body, client, format)
        }
        Command::Start { names } => {
            let body: Vec<StartSpec> = names
                .iter()
                .map(|word| {
                    let (uuid, name) = selector(word);
                    StartSpec {
                        uuid,
                        name,
                        ..StartSpec::default()
                    }
                })
                .collect();
            change(paths::INSTANCES_START, &body, client, format)
        }
        Command::Policy(arguments) => policy::instance(arguments, client, format),
        Command::Wait(arguments) => wait::run(Kind::Instance, arguments, client, format),
        Command::Rm { names, filters, .. } if names.is_empty() => {
            let listing = listing::Arguments::filtered(filters)?;
            let instances: Vec<Instance> = listing.select(fetch(&[], client)?, MEMBERS)?;
            let uuids = instances.iter().map(|instance| instance.uuid.to_string());
            remove(&uuids.collect::<Vec<_>>(), client, format)
        }
        Command::Rm { names, .. } => remove(names, client, format),
    }
}

fn selector(word: &str) -> (Option<String>, Option<String>) {
    match Selector::from_word(word) {
        Selector::Uuid(uuid) => (Some(uuid.to_string()), None),
        Selector::Name(name) => (None, Some(name)),
    }
}

fn create(arguments: &Create, client: &Client, format: Format) -> Result<(), CtlError> {
    let spec = request(arguments)?;
    let created = client
        .send::<Instances<Reference>>(Method::POST, paths::INSTANCES, &spec)
        .and_then(|answer| all(answer.instances))
        .map_err(|error| explain(error, arguments, client))?;
    let uuids: Vec<String> = created
        .iter()
        .map(|instance| instance.uuid.to_string())
        .collect();
    let mut instances = fetch(&uuids, client)?;
    match (instances.pop(), instances.is_empty()) {
        (Some(instance), true) => print(format, &instance, || render(&instance, &[])),
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

/// The instances of these names; all of them when there are none.
pub fn fetch(names: &[String], client: &Client) -> Result<Vec<Instance>, CtlError> {
    if names.is_empty() {
        return client.list(paths::INSTANCES, |data: Instances<_>| data.instances);
    }
    let path = format!("{}{}", paths::INSTANCES, query(names));
    all(client.get::<Instances<Instance>>(&path)?.instances)
}

fn get(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    let instances =
        fetch(names, client).map_err(|error| advise_names(error, client, Kind::Instance))?;
    let records = if format.is_table() {
        render_all(&instances, client)?
    } else {
        // Data is what the contract has.
        String::new()
    };
    match &instances[..] {
        [instance] => print(format, instance, || records),
        instances => print(format, &instances, || records),
    }
}

fn render_all(instances: &[Instance], client: &Client) -> Result<String, CtlError> {
    let shown = |instance: &Instance| {
        let rows = policy::instance_rows_asked_for(client, &instance.uuid.to_string())?;
        Ok(render(instance, &rows))
    };
    let records: Vec<String> = instances
        .iter()
        .map(shown)
        .collect::<Result<_, CtlError>>()?;
    Ok(records.join("\n\n"))
}

fn stop_request(arguments: &Stop) -> Vec<StopSpec> {
    let drain_ms = arguments.drain_ms.map(i64::try_from).or_else(|| {
        arguments
            .drain
            .map(|duration| i64::try_from(duration.as_millis()))
    });
    // Both ways in are checked against the longest drain, so the number fits.
    let drain_timeout_ms = drain_ms.and_then(Result::ok);
    arguments
        .names
        .iter()
        .map(|word| {
            let (uuid, name) = selector(word);
            let force = arguments.force.then_some(true);
            StopSpec {
                uuid,
                name,
                force,
                drain_timeout_ms,
                ..StopSpec::default()
            }
        })
        .collect()
}

fn change(
    path: &str,
    body: &impl Serialize,
    client: &Client,
    format: Format,
) -> Result<(), CtlError> {
    let answer = client.send::<Instances<StateChange>>(Method::PUT, path, body)?;
    let (done, failed) = split(answer.instances);
    print(format, &done, || {
        let line = |change: &StateChange| {
            let (was, is) = (change.previous_state.as_str(), change.state.as_str());
            format!("{} {is}, was {was}", change.name)
        };
        done.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(advise_names(
        CtlError::Items(failed),
        client,
        Kind::Instance,
    ))
}

fn remove(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    if names.is_empty() {
        return Ok(());
    }
    let body: Vec<DeleteInstanceSpec> = names
        .iter()
        .map(|word| {
            let (uuid, name) = selector(word);
            DeleteInstanceSpec {
                uuid,
                name,
                ..DeleteInstanceSpec::default()
            }
        })
        .collect();
    let answer = client.send::<Instances<Reference>>(Method::DELETE, paths::INSTANCES, &body)?;
    let (done, failed) = split(answer.instances);
    print(format, &done, || {
        done.iter()
            .map(|instance| format!("{} removed", instance.name))
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(advise_names(
        CtlError::Items(failed),
        client,
        Kind::Instance,
    ))
}

fn addresses(instance: &Instance) -> String {
    list(
        instance
            .network_interfaces
            .iter()
            .map(|interface| &interface.private_ip),
    )
}

fn group(instance: &Instance) -> String {
    list(instance.service_group.iter().map(|group| &group.name))
}

fn render_list(instances: &[Instance], format: Format, now: OffsetDateTime) -> String {
    let mut columns = vec![
        Column::Left("NAME"),
        Column::State("STATE"),
        Column::Left("SERVICE"),
        Column::Wrap("ADDRESSES"),
        Column::Left("CREATED AT"),
    ];
    let is_wide = format == Format::Wide;
    if is_wide {
        columns.extend(["IMAGE", "UUID"].map(Column::Left));
    }
    let row = |instance: &Instance| {
        let mut row = vec![
            instance.name.clone(),
            instance.state.as_str().to_owned(),
            group(instance),
            addresses(instance),
            created(instance.created_at, format, now),
        ];
        if is_wide {
            row.extend([list(&instance.image), instance.uuid.to_string()]);
        }
        row
    };
    table(&columns, &instances.iter().map(row).collect::<Vec<_>>())
}

/// One instance; `policy` is what it has beyond the contract.
fn render(instance: &Instance, policy: &[policy::Row]) -> String {
    let rows = [
        ("uuid", instance.uuid.to_string()),
        ("name", instance.name.clone()),
        ("state", instance.state.as_str().to_owned()),
        ("service", group(instance)),
        ("addresses", addresses(instance)),
        ("image", list(&instance.image)),
        ("created at", time(instance.created_at)),
    ];
    record(&[&rows, policy].concat())
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
