//! `lbctl state`: the desired state as one document.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lbagent_api::state::{FORMAT, ImportData, Imported, StateData, StateDocument};
use lbagent_api::{paths, request};
use ureq::http::Method;

use crate::client::Client;
use crate::error::CtlError;
use crate::output::{Format, count, print, write_stdout};

/// What to do with the desired state.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write it as JSON: for a backup, another gateway, or `lbagent replay`
    Export(Export),
    /// Replace service groups and instances by those of a document, all or nothing
    Import {
        /// Where from; `-` is stdin
        file: PathBuf,
    },
}

/// `lbctl state export` and `lbctl save`.
#[derive(Debug, Args)]
pub struct Export {
    /// Where to; `-` is stdout
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// With the private keys of certificates and of the terminators: whoever reads the file has them
    #[arg(long)]
    pub private_keys: bool,
}

/// Runs the command.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Export(arguments) => export(arguments, client, format).map(drop),
        Command::Import { file } => import(file, client, format),
    }
}

/// Writes it to a file; returns it.
pub fn export(
    arguments: &Export,
    client: &Client,
    format: Format,
) -> Result<StateDocument, CtlError> {
    let Export { file, private_keys } = arguments;
    let path = match private_keys {
        true => format!("{}?private_keys=true", paths::STATE),
        false => paths::STATE.to_owned(),
    };
    let document = client.get::<StateData>(&path)?.state;
    // The document is data: a table of it could not be imported.
    let text = if format == Format::Yaml {
        serde_yaml_ng::to_string(&document).map_err(|error| error.to_string())
    } else {
        serde_json::to_string_pretty(&document).map_err(|error| error.to_string())
    };
    let text = text.map_err(|error| CtlError::Local(format!("cannot write the state: {error}")))?;
    let text = text.trim_end();
    if file == Path::new("-") {
        write_stdout(text)?;
        return Ok(document);
    }
    let text = format!("{text}\n");
    let written = match private_keys {
        true => write_private(file, &text),
        false => std::fs::write(file, text),
    };
    written
        .map_err(|error| CtlError::Local(format!("cannot write '{}': {error}", file.display())))?;
    Ok(document)
}

/// Writes a file that only its owner can read from its first byte on, whatever there was before.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    // One that somebody left there may be readable, or lead elsewhere.
    let _ = std::fs::remove_file(&part);
    let mut options = std::fs::File::options();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&part, file)
}

fn import(file: &Path, client: &Client, format: Format) -> Result<(), CtlError> {
    let document = read(file)?;
    let imported = client
        .send::<ImportData>(Method::PUT, paths::STATE, &document)?
        .imported;
    print(format, &imported, || told(&imported))
}

/// What an import did, for people.
pub fn told(imported: &Imported) -> String {
    format!(
        "{} and {} imported, generation {}",
        count(imported.service_groups, "service group"),
        count(imported.instances, "instance"),
        imported.generation
    )
}

/// Reads it from a file; `-` is stdin.
pub fn read(file: &Path) -> Result<StateDocument, CtlError> {
    let shown = file.display();
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| CtlError::Usage(format!("cannot read '{shown}': {error}")))?;
    parse(&text).map_err(|why| CtlError::Usage(format!("'{shown}' is no exported state: {why}")))
}

/// Reads JSON, or YAML as `state export -o yaml` writes it.
fn parse(text: &str) -> Result<StateDocument, String> {
    let json = if text.trim_start().starts_with('{') {
        text.to_owned()
    } else {
        let value: serde_json::Value =
            serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        value.to_string()
    };
    if !json.trim_start().starts_with('{') {
        return Err("it holds no document".to_owned());
    }
    let document: StateDocument =
        request::parse_body(json.as_bytes()).map_err(|error| error.to_string())?;
    if document.format == FORMAT {
        Ok(document)
    } else {
        Err(format!(
            "it has format {}, and this lbctl knows format {FORMAT}; use the lbctl of the agent \
             that exported it",
            document.format
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<usize, &str>) {
        let found = parse(text).map(|document| document.vips.len());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn documents() {
        check(r#"{"format":1,"vips":["192.0.2.1"]}"#, Ok(1));
        check("format: 1\nvips: [192.0.2.1, '2001:db8::1']\n", Ok(2));
        check(r#"{"format":1,"vip":[]}"#, Err("Unknown member 'vip'"));
        check(
            r#"{"format":2}"#,
            Err(
                "it has format 2, and this lbctl knows format 1; use the lbctl of the agent that \
                 exported it",
            ),
        );
        check("", Err("it holds no document"));
        check("[1]", Err("it holds no document"));
    }
}
