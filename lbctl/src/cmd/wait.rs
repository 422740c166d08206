//! `lbctl … wait`: until an object is as described.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::{Kind, listing, query, watch};
use crate::client::Client;
use crate::error::CtlError;
use crate::filter::Filter;
use crate::output::{Format, print};

/// Explains `--until`.
pub const HELP: &str = "\
Conditions:
  state==running         the member has this value; also !=, ~= REGEX and !~= REGEX
  instances~=^web-1$     a list holds such a value
  deleted                there is no such object any more
  empty                  no instance is attached

  lbctl service wait web --until empty --timeout 5m
  lbctl instance wait web-1 --until state==stopped

Exit code 1 when the time is over before.";

/// How often the agent is asked.
const INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name or UUID
    #[arg(value_name = "NAME|UUID")]
    name: String,
    /// What to wait for
    #[arg(long, value_name = "EXPR", value_parser = parse)]
    until: Condition,
    /// How long at most
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = watch::parse_interval)]
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Condition {
    Deleted,
    Empty,
    Filter(Filter),
}

fn parse(text: &str) -> Result<Condition, String> {
    match text {
        "deleted" => Ok(Condition::Deleted),
        "empty" => Ok(Condition::Empty),
        text => listing::parse_filter(text).map(Condition::Filter),
    }
}

impl Condition {
    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (Self::Empty, Some(object)) => is_empty(object),
            (Self::Filter(filter), Some(object)) => filter.matches(object),
            (_, None) => false,
        }
    }
}

fn is_empty(object: &Value) -> bool {
    object["instances"].as_array().is_none_or(Vec::is_empty)
}

/// Runs the command.
pub fn run(
    kind: Kind,
    arguments: &Arguments,
    client: &Client,
    format: Format,
) -> Result<(), CtlError> {
    let Arguments {
        name,
        until,
        timeout,
    } = arguments;
    let object = poll(*timeout, || {
        let object = find(kind, name, client)?;
        if object.is_none() && !matches!(until, Condition::Deleted) {
            // What is not there will not become anything.
            let error = lbagent_api::ItemError::not_found(
                kind.noun(),
                &lbagent_api::Selector::from_word(name),
            );
            return Err(super::advise_names(
                CtlError::Items(vec![error]),
                client,
                kind,
            ));
        }
        Ok(until.holds(object.as_ref()).then_some(object))
    })?
    .ok_or_else(|| too_late(name, *timeout))?;
    match object {
        Some(object) if !format.is_table() => print(format, &object, String::new),
        _ => Ok(()),
    }
}

/// Waits until no instance is attached to any of these groups.
pub fn until_empty(names: &[String], timeout: Duration, client: &Client) -> Result<(), CtlError> {
    names.iter().try_for_each(|name| {
        poll(timeout, || {
            let object = find(Kind::ServiceGroup, name, client)?;
            Ok(object.as_ref().is_none_or(is_empty).then_some(()))
        })?
        .ok_or_else(|| too_late(name, timeout))
    })
}

/// Looks until something is found, or the time is over.
pub fn poll<T>(
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>, CtlError>,
) -> Result<Option<T>, CtlError> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        thread::sleep(INTERVAL.min(left));
    }
}

fn too_late(name: &str, timeout: Duration) -> CtlError {
    CtlError::Local(format!(
        "'{name}' is not so after {}; give it longer with a larger timeout",
        super::duration(timeout)
    ))
}

fn find(kind: Kind, name: &str, client: &Client) -> Result<Option<Value>, CtlError> {
    let path = format!("{}{}", kind.path(), query(&[name.to_owned()]));
    let data: Value = match client.get(&path) {
        Err(CtlError::Refused { status: 404, .. }) => return Ok(None),
        answer => answer?,
    };
    // The answer has one member, with one item, whose status tells whether it was found.
    let item = data
        .as_object()
        .and_then(|data| data.values().next()?.get(0));
    Ok(item.filter(|item| item["status"] != "error").cloned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions() {
        let full = json!({"name": "web", "instances": [{"name": "a"}]});
        let empty = json!({"name": "web", "instances": []});
        for (text, of_full, of_empty, of_none) in [
            ("deleted", false, false, true),
            ("empty", false, true, false),
            ("instances==a", true, false, false),
            ("name==web", true, true, false),
        ] {
            let condition = parse(text).unwrap();
            let found = [Some(&full), Some(&empty), None].map(|object| condition.holds(object));
            assert_eq!(found, [of_full, of_empty, of_none], "{text}");
        }
        assert!(parse("gone").is_err());
    }
}
