//! One module for each command.

pub mod account;
pub mod apply;
pub mod certificate;
pub mod counters;
mod each;
pub mod edit;
pub mod events;
pub mod health;
pub mod instance;
pub mod instance_create;
pub mod listing;
mod membership;
#[cfg(test)]
mod mistakes_tests;
pub mod monitor;
pub mod policy;
pub mod profile;
mod removal;
pub mod save;
pub mod service;
pub mod service_create;
pub mod show;
pub mod state;
pub mod status;
mod terminated;
pub mod terminator;
pub mod token;
pub mod trace;
pub mod wait;
pub mod watch;

use std::time::Duration;

use clap::CommandFactory;
use lbagent_api::envelope::Reference;
use lbagent_api::{ErrorCode, ItemError, Selector, paths};

use crate::client::{Client, encode};
use crate::error::{CtlError, advise, near_matches};

/// Writes a manual page for each command.
pub fn man(directory: &std::path::Path) -> Result<(), CtlError> {
    clap_mangen::generate_to(crate::Cli::command(), directory).map_err(|error| {
        CtlError::Local(format!(
            "cannot write manual pages to '{}': {error}",
            directory.display()
        ))
    })
}

/// The query string that selects these objects; empty for all of them.
fn query(words: &[String]) -> String {
    let pairs: Vec<String> = words
        .iter()
        .map(|word| match Selector::from_word(word) {
            Selector::Uuid(uuid) => format!("uuid={uuid}"),
            Selector::Name(name) => format!("name={}", encode(&name)),
        })
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

/// A word as `uuid` or `name` of a request.
fn selector(word: &str) -> (Option<String>, Option<String>) {
    match Selector::from_word(word) {
        Selector::Uuid(uuid) => (Some(uuid.to_string()), None),
        Selector::Name(name) => (None, Some(name)),
    }
}

/// Advice for names that nobody has: the nearest that somebody has, and how to see them all.
/// Looked up only after the failure.
fn advise_names(error: CtlError, client: &Client, kind: Kind) -> CtlError {
    let wanted = |item: &ItemError| item.error == ErrorCode::NotFound && item.name.is_some();
    if !matches!(&error, CtlError::Items(items) if items.iter().any(wanted)) {
        return error;
    }
    // The first mistake is the one to tell, so a listing that fails only costs the suggestion.
    let names = kind.names(client).unwrap_or_default();
    advise(error, ErrorCode::NotFound, |item| {
        let wrong = item.name.as_deref().unwrap_or_default();
        let near = near_matches(wrong, names.iter().map(String::as_str));
        let all = format!("`lbctl {} ls` lists them all", kind.command());
        if near.is_empty() {
            all
        } else {
            let near: Vec<String> = near.iter().map(|name| format!("'{name}'")).collect();
            format!("did you mean {}? {all}", near.join(" or "))
        }
    })
}

/// What a name may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ServiceGroup,
    Instance,
    Certificate,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::ServiceGroup, Self::Instance, Self::Certificate];

    pub const fn command(self) -> &'static str {
        match self {
            Self::ServiceGroup => "service",
            Self::Instance => "instance",
            Self::Certificate => "certificate",
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::ServiceGroup => "service group",
            Self::Instance => "instance",
            Self::Certificate => "certificate",
        }
    }

    /// Path of the contract's endpoint for these objects.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ServiceGroup => paths::SERVICES,
            Self::Instance => paths::INSTANCES,
            Self::Certificate => paths::CERTIFICATES,
        }
    }

    pub fn names(self, client: &Client) -> Result<Vec<String>, CtlError> {
        use lbagent_api::certificate::Certificates;
        use lbagent_api::envelope::{Instances, ServiceGroups};
        let objects: Vec<Reference> = match self {
            Self::ServiceGroup => client.list(paths::SERVICES, |data: ServiceGroups<_>| {
                data.service_groups
            }),
            Self::Instance => client.list(paths::INSTANCES, |data: Instances<_>| data.instances),
            Self::Certificate => client.list(paths::CERTIFICATES, |data: Certificates<_>| {
                data.certificates
            }),
        }?;
        Ok(objects.into_iter().map(|object| object.name).collect())
    }
}

/// A name that nobody has gets the advice that it gets everywhere.
pub fn advise_word(error: CtlError, kind: Kind, word: &str, client: &Client) -> CtlError {
    let item = ItemError::not_found(kind.noun(), &Selector::from_word(word));
    match &error {
        CtlError::Refused { status, message } if *status == 404 && *message == item.message => {
            advise_names(CtlError::Items(vec![item]), client, kind)
        }
        _ => error,
    }
}

/// Does again what somebody else's change of the same object got in the way of.
fn retried<T>(mut act: impl FnMut() -> Result<T, CtlError>) -> Result<T, CtlError> {
    const ATTEMPTS: usize = 5;
    for _ in 1..ATTEMPTS {
        match act() {
            Err(error) if error.is_changed() => {}
            result => return result,
        }
    }
    act()
}

/// Reads a duration such as `30s`, `500ms`, `5m` or `1h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
    {
        Some(milliseconds) if unit > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err("expected a duration such as 30s, 500ms, 5m or 1h".to_owned()),
    }
}

/// A duration as [`parse_duration`] reads it, in the largest unit that has no fraction.
pub fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = units
        .into_iter()
        .find(|(_, unit)| milliseconds.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) if milliseconds > 0 => format!("{}{name}", milliseconds / unit),
        Some(_) => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("30", 30_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
            let printed = duration(Duration::from_millis(milliseconds));
            assert_eq!(parse_duration(&printed), parse_duration(text), "{printed}");
        }
        assert_eq!(duration(Duration::ZERO), "0s");
        for text in ["", "s", "-1s", "1d", "1.5s", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_uuids_become_a_query() {
        let uuid = "6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001".to_owned();
        assert_eq!(query(&[]), "");
        assert_eq!(
            query(&["a b".into(), uuid.clone()]),
            format!("?name=a%20b&uuid={uuid}")
        );
    }
}
