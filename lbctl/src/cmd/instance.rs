//! `lbctl instance`: attach, drain, detach.

use std::time::Duration;

use clap::{Args, Subcommand};
use lbagent_api::envelope::Instances;
use lbagent_api::instance::Instance;
use lbagent_api::lifecycle::{MAX_DRAIN_MS, StartSpec, StateChange, StopSpec};
use lbagent_api::paths;
use serde::Serialize;
use time::OffsetDateTime;
use ureq::http::Method;

use super::instance_create::{self, Create};
use super::{
    Kind, advise_names, edit, listing, membership, parse_duration, policy, query, removal,
    selector, wait, watch,
};
use crate::client::{Client, all, split};
use crate::error::CtlError;
use crate::manifest;
use crate::output::{Column, Format, created, list, print, record, table, time};

/// What to do with instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register an instance, in a service group or in none
    #[command(visible_alias = "new", after_help = instance_create::HELP)]
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
    /// Take from traffic: no new connections; with --drain, established ones stay for so long
    Stop(Stop),
    /// Give traffic again
    Start {
        /// Names or UUIDs
        #[arg(required = true, value_name = "NAME|UUID")]
        names: Vec<String>,
    },
    /// Let an instance serve a service group, in place of the one that it serves
    Attach(membership::Attach),
    /// Let instances serve no service group
    Detach(membership::Detach),
    /// Show or set weight and QUIC server id
    Policy(policy::InstanceArguments),
    /// Change an instance: in an editor, or by --set, --add and --del
    #[command(after_help = edit::HELP)]
    Edit(edit::Arguments),
    /// Wait until an instance is as described
    #[command(after_help = wait::HELP)]
    Wait(wait::Arguments),
    /// Delete instances; what they still serve is cut off, so stop them with --drain before
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(removal::Chosen),
}

impl Command {
    /// When it is asked for again.
    pub const fn watch(&self) -> Option<watch::Pace> {
        match self {
            Self::Get { watch, .. } | Self::Ls { watch, .. } => watch.pace,
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

/// Reads a drain's duration.
pub fn parse_drain(text: &str) -> Result<Duration, String> {
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
        Command::Create(arguments) => instance_create::create(arguments, client, format),
        Command::Get { names, .. } => get(names, client, format),
        Command::Ls { listing, .. } => {
            let instances = listing.select(fetch(&[], client)?, MEMBERS)?;
            if format == Format::Yaml && !listing.has_fields() {
                return print_documents(&instances, client);
            }
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
        Command::Attach(arguments) => membership::attach(arguments, client, format),
        Command::Detach(arguments) => membership::detach(arguments, client, format),
        Command::Policy(arguments) => policy::instance(arguments, client, format),
        Command::Edit(arguments) => edit::run(Kind::Instance, arguments, client, format),
        Command::Wait(arguments) => wait::run(Kind::Instance, arguments, client, format),
        Command::Rm(chosen) => {
            let words = chosen.words(|| fetch(&[], client), MEMBERS)?;
            removal::remove(Kind::Instance, &words, client, format, |error| error)
        }
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

/// Prints an instance that was just made.
pub fn print_one(format: Format, instance: &Instance) -> Result<(), CtlError> {
    print(format, instance, || render(instance, &[]))
}

fn get(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    let instances =
        fetch(names, client).map_err(|error| advise_names(error, client, Kind::Instance))?;
    if format == Format::Yaml {
        return print_documents(&instances, client);
    }
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

/// What `lbctl apply` reads.
fn print_documents(instances: &[Instance], client: &Client) -> Result<(), CtlError> {
    let documents = instances
        .iter()
        .map(|instance| manifest::of_instance(instance, client));
    manifest::print(&documents.collect::<Result<Vec<_>, _>>()?)
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
