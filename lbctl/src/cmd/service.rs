//! `lbctl service`: service groups.

use std::time::Duration;

use clap::{Args, Subcommand};
use lbagent_api::envelope::ServiceGroups;
use lbagent_api::service_group::{Service, ServiceGroup};
use lbagent_api::{ErrorCode, paths};
use time::OffsetDateTime;

use super::removal::{self, Chosen};
use super::service_create::{self, Create, PORT_HELP};
use super::{Kind, advise_names, edit, listing, membership, policy, query, wait, watch};
use crate::client::{Client, all};
use crate::error::{CtlError, advise};
use crate::manifest;
use crate::output::{Column, Format, created, list, print, record, table, time};

/// What to do with service groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish ports
    #[command(visible_alias = "new", after_help = PORT_HELP)]
    Create(Create),
    /// Show service groups
    #[command(visible_aliases = ["gt", "inspect", "show"])]
    Get {
        /// Names or UUIDs
        #[arg(required = true, value_name = "NAME|UUID")]
        names: Vec<String>,
        #[command(flatten)]
        watch: watch::Arguments,
    },
    /// List service groups
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        listing: listing::Arguments,
        #[command(flatten)]
        watch: watch::Arguments,
    },
    /// Let instances serve a service group, in place of the one that they serve
    Attach(membership::AttachTo),
    /// Let instances serve no service group
    Detach(membership::Detach),
    /// Show or set forwarding mode, source prefixes and QUIC layout
    #[command(after_help = policy::GROUP_HELP)]
    Policy(policy::GroupArguments),
    /// Change a service group: in an editor, or by --set, --add and --del
    #[command(after_help = edit::HELP)]
    Edit(edit::Arguments),
    /// Wait until a service group is as described
    #[command(after_help = wait::HELP)]
    Wait(wait::Arguments),
    /// Delete service groups that no instance is attached to
    #[command(visible_aliases = ["remove", "delete", "del"])]
    Rm(Remove),
}

/// `lbctl service rm`.
#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    chosen: Chosen,
    /// Wait until the last instance has left, so long at most: 5m unless given
    #[arg(
        long,
        value_name = "TIMEOUT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5m",
        value_parser = super::parse_duration
    )]
    wait_empty: Option<Duration>,
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

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Create(arguments) => service_create::create(arguments, client, format),
        Command::Get { names, .. } => get(names, client, format),
        Command::Ls { listing, .. } => {
            let groups = listing.select(fetch(&[], client)?, MEMBERS)?;
            if format == Format::Yaml && !listing.has_fields() {
                return print_documents(&groups, client);
            }
            let now = OffsetDateTime::now_utc();
            listing.print(format, &groups, || render_list(&groups, format, now))
        }
        Command::Attach(arguments) => membership::attach_to(arguments, client, format),
        Command::Detach(arguments) => membership::detach(arguments, client, format),
        Command::Policy(arguments) => policy::group(arguments, client, format),
        Command::Edit(arguments) => edit::run(Kind::ServiceGroup, arguments, client, format),
        Command::Wait(arguments) => wait::run(Kind::ServiceGroup, arguments, client, format),
        Command::Rm(arguments) => remove(arguments, client, format),
    }
}

/// What a service group's answer may hold.
pub const MEMBERS: &[&str] = &[
    "uuid",
    "name",
    "created_at",
    "persistent",
    "autoscale",
    "soft_limit",
    "hard_limit",
    "services",
    "domains",
    "instances",
    "autokill",
    "fqdn",
];

/// The groups of these names; all of them when there are none.
pub fn fetch(names: &[String], client: &Client) -> Result<Vec<ServiceGroup>, CtlError> {
    if names.is_empty() {
        return client.list(paths::SERVICES, |data: ServiceGroups<_>| {
            data.service_groups
        });
    }
    let path = format!("{}{}", paths::SERVICES, query(names));
    all(client
        .get::<ServiceGroups<ServiceGroup>>(&path)?
        .service_groups)
}

fn get(names: &[String], client: &Client, format: Format) -> Result<(), CtlError> {
    let groups =
        fetch(names, client).map_err(|error| advise_names(error, client, Kind::ServiceGroup))?;
    if format == Format::Yaml {
        return print_documents(&groups, client);
    }
    let records = if format.is_table() {
        render_all(&groups, client)?
    } else {
        // Data is what the contract has.
        String::new()
    };
    match &groups[..] {
        [group] => print(format, group, || records),
        groups => print(format, &groups, || records),
    }
}

/// What `lbctl apply` reads.
fn print_documents(groups: &[ServiceGroup], client: &Client) -> Result<(), CtlError> {
    let documents = groups.iter().map(|group| manifest::of_group(group, client));
    manifest::print(&documents.collect::<Result<Vec<_>, _>>()?)
}

/// Prints a group that was just made.
pub fn print_one(format: Format, group: &ServiceGroup) -> Result<(), CtlError> {
    print(format, group, || render(group, &[]))
}

fn render_all(groups: &[ServiceGroup], client: &Client) -> Result<String, CtlError> {
    let shown = |group: &ServiceGroup| {
        let rows = policy::group_rows_asked_for(client, &group.uuid.to_string())?;
        Ok(render(group, &rows))
    };
    let records: Vec<String> = groups.iter().map(shown).collect::<Result<_, CtlError>>()?;
    Ok(records.join("\n\n"))
}

fn remove(arguments: &Remove, client: &Client, format: Format) -> Result<(), CtlError> {
    let words = arguments.chosen.words(|| fetch(&[], client), MEMBERS)?;
    if let Some(timeout) = arguments.wait_empty {
        wait::until_empty(&words, timeout, client)?;
    }
    removal::remove(Kind::ServiceGroup, &words, client, format, |error| {
        advise(error, ErrorCode::Attached, |_| {
            "remove its instances first: `lbctl instance ls` lists them, `lbctl instance rm` \
             removes them"
                .to_owned()
        })
    })
}

fn render_list(groups: &[ServiceGroup], format: Format, now: OffsetDateTime) -> String {
    let mut columns = vec![
        Column::Left("NAME"),
        Column::Wrap("FQDN"),
        Column::Wrap("SERVICES"),
        Column::Wrap("INSTANCES"),
        Column::Left("CREATED AT"),
        Column::Left("PERSISTENT"),
    ];
    let is_wide = format == Format::Wide;
    if is_wide {
        columns.extend(["SOFT LIMIT", "HARD LIMIT"].map(Column::Right));
        columns.extend(["AUTOKILL", "UUID"].map(Column::Left));
    }
    let row = |group: &ServiceGroup| {
        let mut row = vec![
            group.name.clone(),
            list(group.domains.iter().map(|domain| &domain.fqdn)),
            list(group.services.iter().map(describe)),
            list(group.instances.iter().map(|instance| &instance.name)),
            created(group.created_at, format, now),
            group.persistent.to_string(),
        ];
        if is_wide {
            row.extend([
                group.soft_limit.to_string(),
                group.hard_limit.to_string(),
                autokill(group),
                group.uuid.to_string(),
            ]);
        }
        row
    };
    table(&columns, &groups.iter().map(row).collect::<Vec<_>>())
}

fn autokill(group: &ServiceGroup) -> String {
    match group.autokill {
        Some(autokill) if autokill.time_ms > 0 => {
            super::duration(Duration::from_millis(autokill.time_ms))
        }
        _ => "-".to_owned(),
    }
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
        ("autokill", autokill(group)),
        ("created at", time(group.created_at)),
        ("persistent", group.persistent.to_string()),
    ];
    record(&[&rows, policy].concat())
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
