//! Completion on the command line: the shell's script asks lbctl, and lbctl asks the agent for the
//! names of its objects. What goes wrong is silence, as nobody asked for an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use clap::{Command, CommandFactory, FromArgMatches};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use lbagent_api::access::AccountsData;
use lbagent_api::paths;

use crate::client::Client;
use crate::cmd::Kind;
use crate::connection::Connection;
use crate::error::CtlError;
use crate::output::write_stdout;
use crate::profile::{self, Profiles};

/// Names the shell that asks.
const VARIABLE: &str = "LBCTL_COMPLETE";
/// Nobody waits longer for a list of names.
const PATIENCE: Duration = Duration::from_millis(700);

/// Answers a shell's question, if one asks, and ends the process then.
pub fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Prints the script that makes a shell ask.
pub fn script(shell: Shell) -> Result<(), CtlError> {
    let shells = Shells::builtins();
    let failed = || CtlError::Local(format!("cannot write a script for {shell}"));
    let completer = shells.completer(&shell.to_string()).ok_or_else(failed)?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "lbctl", "lbctl", "lbctl", &mut script)
        .map_err(|_| failed())?;
    write_stdout(String::from_utf8_lossy(&script).trim_end())
}

/// The command line, whose arguments know where their values come from: the names of their values
/// tell.
fn command() -> Command {
    let kinds = [
        ("service", Kind::ServiceGroup),
        ("instance", Kind::Instance),
        ("certificate", Kind::Certificate),
    ];
    let command = kinds.into_iter().fold(crate::Cli::command(), named);
    with_candidates(command, None)
}

/// Tells what a `NAME|UUID` is below one command.
fn named(command: Command, (name, kind): (&'static str, Kind)) -> Command {
    command.mut_subcommand(name, |command| with_candidates(command, Some(kind)))
}

fn with_candidates(command: Command, kind: Option<Kind>) -> Command {
    let command = command.mut_args(|argument| {
        let value = argument.get_value_names().and_then(|names| names.first());
        let kind = match value.map(|name| name.as_str()) {
            Some("NAME|UUID") => kind,
            Some("SERVICE") => Some(Kind::ServiceGroup),
            Some("INSTANCE") => Some(Kind::Instance),
            Some("CERTIFICATE") => Some(Kind::Certificate),
            Some("ACCOUNT") => return argument.add(candidates(accounts)),
            Some("PROFILE") => return argument.add(candidates(profiles)),
            _ => None,
        };
        match kind {
            Some(kind) => argument.add(candidates(move || kind.names(&client()?).ok())),
            None => argument,
        }
    });
    command.mut_subcommands(|command| with_candidates(command, kind))
}

fn candidates(
    names: impl Fn() -> Option<Vec<String>> + Send + Sync + 'static,
) -> ArgValueCandidates {
    ArgValueCandidates::new(move || {
        let names = names().unwrap_or_default().into_iter();
        names.map(CompletionCandidate::new).collect()
    })
}

/// The agent that the unfinished line is about.
fn client() -> Option<Client> {
    let line = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let line: Vec<OsString> = line.collect();
    let read = crate::Cli::command().ignore_errors(true);
    let matches = read.try_get_matches_from(line).ok()?;
    let connection = Connection::from_arg_matches(&matches).ok()?;
    let mut client = connection.client().ok()?;
    client.patience = PATIENCE;
    Some(client)
}

fn accounts() -> Option<Vec<String>> {
    let answer: AccountsData = client()?.get(paths::ACCOUNTS).ok()?;
    Some(answer.accounts.into_iter().map(|it| it.name).collect())
}

fn profiles() -> Option<Vec<String>> {
    let path = profile::path(|name| std::env::var(name).ok())?;
    let profiles: BTreeMap<_, _> = Profiles::load(&path).ok()?.profiles;
    Some(profiles.into_keys().collect())
}
