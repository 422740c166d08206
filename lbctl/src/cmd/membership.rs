//! `attach` and `detach` of `lbctl instance` and `lbctl service`: which service group an instance serves.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use lbagent_api::membership::{Membership, MembershipData, MembershipSpec};
use lbagent_api::request::SelectorSpec;
use lbagent_api::{Selector, paths};
use ureq::http::Method;

use super::each::each;
use super::{Kind, advise_word, instance};
use crate::client::{Client, encode};
use crate::error::CtlError;
use crate::output::Format;

/// `lbctl instance attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Name or UUID of the instance
    #[arg(value_name = "INSTANCE", value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Name or UUID of the service group
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    group: String,
    #[command(flatten)]
    drain: Drain,
}

/// `lbctl service attach`.
#[derive(Debug, Args)]
pub struct AttachTo {
    /// Name or UUID of the service group
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    group: String,
    /// Names or UUIDs of the instances
    #[arg(required = true, value_name = "INSTANCE", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    #[command(flatten)]
    drain: Drain,
}

/// `lbctl instance detach` and `lbctl service detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// Names or UUIDs of the instances
    #[arg(required = true, value_name = "INSTANCE", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    #[command(flatten)]
    drain: Drain,
}

#[derive(Debug, Args)]
struct Drain {
    /// Leave the present service group after so long, and keep its established connections until
    /// then: 30s, 5m, or `max`
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = instance::parse_drain)]
    drain: Option<Duration>,
}

/// Runs `lbctl instance attach`.
pub fn attach(arguments: &Attach, client: &Client, format: Format) -> Result<(), CtlError> {
    let Attach { name, group, drain } = arguments;
    put_all(
        std::slice::from_ref(name),
        Some(group),
        drain,
        client,
        format,
    )
}

/// Runs `lbctl service attach`.
pub fn attach_to(arguments: &AttachTo, client: &Client, format: Format) -> Result<(), CtlError> {
    let AttachTo {
        names,
        group,
        drain,
    } = arguments;
    put_all(names, Some(group), drain, client, format)
}

/// Runs `lbctl instance detach` and `lbctl service detach`.
pub fn detach(arguments: &Detach, client: &Client, format: Format) -> Result<(), CtlError> {
    put_all(&arguments.names, None, &arguments.drain, client, format)
}

fn put_all(
    names: &[String],
    group: Option<&String>,
    drain: &Drain,
    client: &Client,
    format: Format,
) -> Result<(), CtlError> {
    let put = |name: &str| {
        let selector = group.map(|group| Selector::from_word(group));
        let done = put(name, selector.as_ref(), drain, client);
        done.map_err(|error| match group {
            Some(group) => advise_word(error, Kind::ServiceGroup, group, client),
            None => error,
        })
    };
    each(names, format, put, told, "\n")
}

fn put(
    name: &str,
    group: Option<&Selector>,
    drain: &Drain,
    client: &Client,
) -> Result<Membership, CtlError> {
    let path = format!("{}/{}/service-group", paths::X_INSTANCES, encode(name));
    let body = MembershipSpec {
        service_group: group.map(SelectorSpec::from),
        // The longest drain fits.
        drain_timeout_ms: drain
            .drain
            .and_then(|drain| i64::try_from(drain.as_millis()).ok()),
    };
    let answer: MembershipData = client
        .send(Method::PUT, &path, &body)
        .map_err(|error| advise_word(error, Kind::Instance, name, client))?;
    Ok(answer.membership)
}

fn told(name: &str, membership: &Membership) -> String {
    let group = membership.service_group.as_ref();
    let serves = match group {
        Some(group) => format!("serves service group {}", group.name),
        None => "serves no service group".to_owned(),
    };
    let state = membership.state.as_str();
    match &membership.leaving {
        None => format!("{name} {serves}, {state}"),
        Some(leaving) => {
            let then = leaving.to.as_ref().map_or("none", |group| &group.name);
            let at = crate::output::time(leaving.at);
            format!("{name} {serves} until {at}, then {then}; {state}")
        }
    }
}
