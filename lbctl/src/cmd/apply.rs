//! `lbctl apply`, `diff` and `check`: objects in files.

use std::collections::HashSet;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use lbagent_api::paths;
use lbagent_api::status::StatusData;
use serde::Serialize;
use similar::TextDiff;

use super::{duration, wait, watch};
use crate::apply::{Action, Change, State, execute, plan, rules};
use crate::client::Client;
use crate::error::CtlError;
use crate::manifest::read::{self, Object};
use crate::manifest::{Manifest, kind_word};
use crate::output::{Format, count, print, write_stdout};
use crate::screen;

/// Explains files and exit codes.
pub const HELP: &str = "\
A file holds YAML documents between lines `---`, or TOML tables [[ServiceGroup]] and [[Instance]]:

  kind: ServiceGroup
  name: web
  services: [443:8080/tls+http, 5432:5432/tcp]
  ---
  kind: Instance
  name: web-1
  service_group: web
  addresses: [10.0.0.11]

`lbctl service get NAME -o yaml` prints such documents. Nothing is changed unless all of them are
right.

Exit codes: 0 same, or applied; 1 different (diff), or the agent refused a change (apply); 2 a file
is wrong; 3 no agent answers";

/// Which files.
#[derive(Debug, Args)]
pub struct Files {
    /// File, directory, or `-` for stdin; can be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// `lbctl diff`.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
    /// Also what `apply --prune` would delete
    #[arg(long)]
    prune: bool,
}

/// `lbctl apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Delete the account's service groups, instances and certificates that no file describes; of
    /// kinds that no file has at all, nothing is deleted
    #[arg(long)]
    prune: bool,
    /// Do not ask before something is deleted
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Wait until the data plane has all of it, so long at most: 30s unless given
    #[arg(
        long,
        value_name = "TIMEOUT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30s",
        value_parser = watch::parse_interval
    )]
    wait: Option<std::time::Duration>,
}

/// Runs `lbctl check`.
pub fn check(files: &Files) -> Result<(), CtlError> {
    let objects = read::files(&files.files)?;
    let mistakes = rules::check(&objects, None, &HashSet::new());
    if mistakes.is_empty() {
        write_stdout(&format!(
            "{}, nothing wrong",
            count(objects.len(), "object")
        ))
    } else {
        Err(CtlError::Files(mistakes))
    }
}

/// Runs `lbctl diff`.
pub fn diff(arguments: &Diff, client: &Client, format: Format) -> Result<(), CtlError> {
    let (_, changes) = compare(&arguments.files, arguments.prune, client)?;
    let changes: Vec<Change> = changes
        .into_iter()
        .filter(|change| change.action() != Action::Unchanged)
        .collect();
    if format.is_table() {
        let texts: Vec<String> = changes.iter().map(unified).collect::<Result<_, _>>()?;
        write_stdout(texts.concat().trim_end())?;
    } else {
        report(changes.iter(), format)?;
    }
    if changes.is_empty() {
        Ok(())
    } else {
        Err(CtlError::Different)
    }
}

/// Runs `lbctl apply`.
pub fn apply(arguments: &Apply, client: &Client, format: Format) -> Result<(), CtlError> {
    let (_, changes) = compare(&arguments.files, arguments.prune, client)?;
    if arguments.dry_run {
        return report(changes.iter(), format);
    }
    let going: Vec<&Change> = changes
        .iter()
        .filter(|change| change.action() == Action::Pruned)
        .collect();
    if !going.is_empty() && !arguments.yes {
        let names = going.iter().filter_map(|change| change.manifest());
        let names: Vec<String> = names.map(Manifest::to_string).collect();
        confirm(&format!("no file describes {}; delete?", names.join(", ")))?;
    }
    make(&changes, client, format)?;
    match arguments.wait {
        Some(timeout) => settled(timeout, client),
        None => Ok(()),
    }
}

/// Makes changes and tells what became of each.
pub fn make(changes: &[Change], client: &Client, format: Format) -> Result<(), CtlError> {
    let done = execute::execute(changes, client);
    let went_well = done.iter().filter(|(_, result)| result.is_ok());
    report(went_well.map(|(change, _)| *change), format)?;
    let mut failed = Vec::new();
    for (change, result) in done {
        match (change.manifest(), result) {
            (_, Ok(())) | (None, _) => {}
            (_, Err(error @ CtlError::Unreachable { .. })) => return Err(error),
            (Some(manifest), Err(error)) => failed.push(format!("{manifest}: {error}")),
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(CtlError::Changes(failed))
    }
}

/// What files and agent have, and how they differ. What the agent refuses here is no difference.
fn compare(
    files: &Files,
    prune: bool,
    client: &Client,
) -> Result<(Vec<Object>, Vec<Change>), CtlError> {
    let objects = read::files(&files.files)?;
    let kinds = rules::kinds(&objects);
    let state = State::fetch(&kinds, client)?;
    let prunes = if prune { kinds } else { HashSet::new() };
    let mistakes = rules::check(&objects, Some(&state), &prunes);
    if !mistakes.is_empty() {
        return Err(CtlError::Files(mistakes));
    }
    let changes = plan(&objects, &state, prune, client)?;
    Ok((objects, changes))
}

/// What is said about one change.
#[derive(Serialize)]
struct Line<'a> {
    kind: &'static str,
    name: &'a str,
    action: Action,
    /// For people.
    #[serde(skip)]
    object: &'a Manifest,
}

/// Tells what was done, or would be.
pub fn report<'a>(
    changes: impl Iterator<Item = &'a Change>,
    format: Format,
) -> Result<(), CtlError> {
    let lines: Vec<Line<'_>> = changes
        .filter_map(|change| {
            let manifest = change.manifest()?;
            Some(Line {
                kind: kind_word(manifest.kind()),
                name: manifest.name(),
                action: change.action(),
                object: manifest,
            })
        })
        .collect();
    print(format, &lines, || {
        let text = |line: &Line<'_>| format!("{} {}", line.object, line.action.word());
        lines.iter().map(text).collect::<Vec<_>>().join("\n")
    })
}

/// One object's documents, as a unified diff.
fn unified(change: &Change) -> Result<String, CtlError> {
    let text = |manifest: Option<&Manifest>| match manifest {
        Some(manifest) => manifest.to_yaml(),
        None => Ok(String::new()),
    };
    let from = change.from.as_ref().map(|present| &present.manifest);
    let (from, to) = (text(from)?, text(change.to.as_ref())?);
    let name = change
        .manifest()
        .map(Manifest::to_string)
        .unwrap_or_default();
    let headers = (format!("{name} (agent)"), format!("{name} (file)"));
    Ok(diff_text(&from, &to, (&headers.0, &headers.1)))
}

/// A unified diff; in colours on a terminal.
pub fn diff_text(from: &str, to: &str, headers: (&str, &str)) -> String {
    let diff = TextDiff::from_lines(from, to);
    let text = diff.unified_diff().header(headers.0, headers.1).to_string();
    if !screen::current().color {
        return text;
    }
    let paint = |line: &str| match line.as_bytes().first() {
        Some(b'+') => format!("\u{1b}[32m{line}\u{1b}[0m\n"),
        Some(b'-') => format!("\u{1b}[31m{line}\u{1b}[0m\n"),
        Some(b'@') => format!("\u{1b}[36m{line}\u{1b}[0m\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(paint).collect()
}

/// Asks a person; a program has to say it by `--yes`.
pub fn confirm(question: &str) -> Result<(), CtlError> {
    if !io::stdin().is_terminal() {
        return Err(CtlError::Usage(format!("{question} Say so with --yes")));
    }
    eprint!("lbctl: {question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(CtlError::Local("nothing was changed".to_owned())),
    }
}

/// Waits until the data plane has what is desired now.
fn settled(timeout: std::time::Duration, client: &Client) -> Result<(), CtlError> {
    let status = client.get::<StatusData>(paths::STATUS)?.status;
    let desired = status.generation_desired;
    let is_applied = || -> Result<Option<()>, CtlError> {
        let status = client.get::<StatusData>(paths::STATUS)?.status;
        Ok((status.generation_applied >= desired).then_some(()))
    };
    wait::poll(timeout, is_applied)?.ok_or_else(|| {
        CtlError::Local(format!(
            "generation {desired} is not applied after {}; `lbctl status` tells why",
            duration(timeout)
        ))
    })
}
