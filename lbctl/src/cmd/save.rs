//! `lbctl save` and `lbctl restore`: the whole state in a file.

use std::path::PathBuf;

use clap::Args;
use lbagent_api::paths;
use lbagent_api::state::{ImportData, StateData, StateDocument};
use serde_json::Value;
use ureq::http::Method;

use super::apply::{confirm, diff_text};
use super::state::{self, Export};
use crate::client::Client;
use crate::error::CtlError;
use crate::output::{Format, count, print, write_stdout};

/// `lbctl restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Where from; `-` is stdin
    file: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

/// Runs `lbctl save`.
pub fn save(arguments: &Export, client: &Client, format: Format) -> Result<(), CtlError> {
    let document = state::export(arguments, client, format)?;
    let certificates = document.certificates.map_or(0, |all| all.len());
    if certificates > 0 && !arguments.private_keys {
        tell!(
            "lbctl: {} saved without private keys: only an agent that has the keys takes them back; \
             --private-keys saves the keys, too",
            count(certificates, "certificate")
        );
    }
    Ok(())
}

/// Runs `lbctl restore`.
pub fn restore(arguments: &Restore, client: &Client, format: Format) -> Result<(), CtlError> {
    let document = state::read(&arguments.file)?;
    let present = client.get::<StateData>(paths::STATE)?.state;
    let difference = difference(&present, &document)?;
    if difference.is_empty() {
        tell!("lbctl: the agent has this state already; nothing was changed");
        return Ok(());
    }
    if format.is_table() {
        write_stdout(difference.trim_end())?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes {
        confirm(&format!(
            "replace the whole state by {} and {}?",
            count(document.service_groups.len(), "service group"),
            count(document.instances.len(), "instance")
        ))?;
    }
    let imported = client
        .send::<ImportData>(Method::PUT, paths::STATE, &document)?
        .imported;
    print(format, &imported, || state::told(&imported))
}

/// A unified diff of what an import replaces.
fn difference(present: &StateDocument, wanted: &StateDocument) -> Result<String, CtlError> {
    let text = |document: &StateDocument| {
        let mut value = serde_json::to_value(document).map_err(|error| error.to_string())?;
        if let Some(members) = value.as_object_mut() {
            for unchanged in [
                "generation",
                "vips",
                "hash_seed",
                "unpublished_ports",
                "udp_idle_s",
                "paths",
                // Taken only by an agent that has none.
                "tokens",
            ] {
                members.remove(unchanged);
            }
            // Nobody's terminal shows a private key.
            let certificates = members.get_mut("certificates");
            for certificate in certificates
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                certificate
                    .as_object_mut()
                    .map(|it| it.remove("private_key"));
            }
            for list in members
                .values_mut()
                .filter_map(|value| value.as_array_mut())
            {
                list.sort_by_key(|object| object["uuid"].to_string());
            }
        }
        serde_yaml_ng::to_string(&value).map_err(|error| error.to_string())
    };
    let failed = |error| CtlError::Local(format!("cannot compare the states: {error}"));
    // Where the document says nothing of certificates they stay.
    let certificates = present.certificates.clone();
    let present = &StateDocument {
        certificates: certificates.filter(|_| wanted.certificates.is_some()),
        ..present.clone()
    };
    let (present, wanted) = (
        text(present).map_err(failed)?,
        text(wanted).map_err(failed)?,
    );
    if present == wanted {
        return Ok(String::new());
    }
    Ok(diff_text(
        &present,
        &wanted,
        ("state (agent)", "state (file)"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_import_replaces_is_compared() {
        let parse = |text: &str| serde_json::from_str::<StateDocument>(text).unwrap();
        let instance = |name: &str| {
            format!(
                r#"{{"uuid": "00000000-0000-4000-8000-000000000002", "name": "{name}",
                    "created_at": "2026-01-02T03:04:05Z", "state": "running",
                    "addresses": ["10.0.0.7/32"]}}"#
            )
        };
        let present = parse(&format!(
            r#"{{"format": 1, "generation": 7, "vips": ["192.0.2.1"], "instances": [{}]}}"#,
            instance("a")
        ));
        let same = parse(&format!(
            r#"{{"format": 1, "instances": [{}]}}"#,
            instance("a")
        ));
        let other = parse(&format!(
            r#"{{"format": 1, "instances": [{}]}}"#,
            instance("b")
        ));
        assert_eq!(difference(&present, &same).unwrap(), "");
        let text = difference(&present, &other).unwrap();
        assert!(text.contains("\n-  name: a\n+  name: b\n"), "{text}");
    }
}
