//! lbctl: the operator's command line of lbagent. Speaks only HTTP.

/// Writes a line to stderr. Unlike `eprintln!` it does not panic when nobody reads there, so that the
/// exit code stays the command's.
macro_rules! tell {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($argument)*);
    }};
}

mod apply;
mod client;
mod cmd;
mod complete;
mod connection;
mod ending;
mod endpoint;
mod error;
mod filter;
mod manifest;
mod news;
mod output;
mod paging;
mod pem;
mod profile;
mod screen;
#[cfg(test)]
mod stub;
mod table;
mod tls;
mod unix_socket;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::client::Client;
use crate::cmd::watch::Pace;
use crate::connection::Connection;
use crate::error::{CtlError, exit};
use crate::output::Format;
use crate::screen::Screen;

/// Explains exit codes below `--help`.
const AFTER_HELP: &str = "\
Examples:
  lbctl service create -n web 80:8080/tcp               # publish a port
  lbctl instance create -n web-1 -g web --ip 10.0.0.11  # somebody who serves it
  lbctl instance stop web-1 --drain 5m                  # no new connections, 5 min for the others
  lbctl status                                          # is something wrong?
  lbctl show -n --stats                                 # who gets how much
  lbctl trace tcp 203.0.113.7:40000 192.0.2.10:80       # why a connection goes where it goes
  lbctl service get web -o yaml > web.yaml              # edit, `lbctl diff -f`, `lbctl apply -f`

Exit codes:
  0  done
  1  the agent refused or failed, in whole or for some objects, or the time was over; `diff`:
     something differs; `status --check`: something is wrong
  2  the command line, or a file that it names, is wrong; nothing was changed
  3  no agent answers at the endpoint

Environment:
  LBCTL_PROFILE, LBCTL_ENDPOINT, LBCTL_TOKEN   as the options; an option wins
  UKC_METRO, UKC_TOKEN                         a URL and its token, if none of these is given
  NO_COLOR, CLICOLOR_FORCE                     colours never, always; else on a terminal";

/// Operate a load-balancing gateway: publish ports, attach and drain instances, see what goes
/// where.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = AFTER_HELP,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// Form of what is printed: table, wide (all columns), json, yaml (for `apply`), kv
    /// (member=value), raw (as the agent answered) or quiet (names)
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = connection::HEADING
    )]
    output: Format,
    /// Leave the tables' headings away
    #[arg(long, global = true, help_heading = connection::HEADING)]
    no_headers: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Service groups: published ports
    #[command(subcommand, visible_aliases = ["services", "svc"])]
    Service(cmd::service::Command),
    /// Instances: what the published ports lead to
    #[command(subcommand, visible_aliases = ["instances", "inst"])]
    Instance(cmd::instance::Command),
    /// Certificates that TLS is ended with; private keys only go in
    #[command(subcommand, visible_aliases = ["certificates", "cert", "certs"])]
    Certificate(cmd::certificate::Command),
    /// Accounts that share the gateway, and their quotas
    #[command(subcommand, visible_alias = "accounts")]
    Account(cmd::account::Command),
    /// Tokens: who may ask the agent for what
    #[command(subcommand, visible_alias = "tokens")]
    Token(cmd::token::Command),
    /// VIPs and backends as the data plane has them, in the look of ipvsadm
    Show(cmd::show::Arguments),
    /// The agent, its interfaces, and what is not as it should be
    Status(cmd::status::Arguments),
    /// What the health checks have found: lbctl health [SERVICE]
    Health(cmd::health::Arguments),
    /// Who takes connections to ports with handlers
    #[command(subcommand)]
    Terminator(cmd::terminator::Command),
    /// Packets by the reason that they ended with
    Counters(cmd::counters::Arguments),
    /// Why a flow goes where it goes: lbctl trace tcp 203.0.113.7:40000 192.0.2.10:443
    Trace(cmd::trace::Arguments),
    /// What becomes of packets, as it happens: a sample of them, while this runs
    Monitor(cmd::monitor::Arguments),
    /// What is changed and by whom, as it happens
    Events(cmd::events::Arguments),
    /// Make the agent have what files describe: lbctl apply -f web.yaml
    #[command(after_help = cmd::apply::HELP)]
    Apply(cmd::apply::Apply),
    /// Show what `apply` would change; exit code 1 if anything
    #[command(after_help = cmd::apply::HELP)]
    Diff(cmd::apply::Diff),
    /// Check files without asking an agent
    #[command(after_help = cmd::apply::HELP)]
    Check(cmd::apply::Files),
    /// Write the whole state to a file
    Save(cmd::state::Export),
    /// Replace the whole state by that of a file, after showing what changes
    Restore(cmd::save::Restore),
    /// The desired state as one document
    #[command(subcommand)]
    State(cmd::state::Command),
    /// Agents by name: endpoint, account and token in ~/.config/lbctl/config.yaml
    #[command(subcommand, visible_alias = "profiles")]
    Profile(cmd::profile::Command),
    /// Write the manual pages into a directory
    Man {
        /// Such as /usr/local/share/man/man1
        directory: PathBuf,
    },
    /// A completion script for a shell, also of objects' names: `source <(lbctl completions bash)`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    complete::answer();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                tell!("{line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), CtlError> {
    let format = cli.output;
    let screen = Screen::detect(!cli.no_headers);
    screen::set(match format {
        Format::Wide => Screen {
            width: None,
            ..screen
        },
        _ => screen,
    });
    // These need no agent.
    match &cli.command {
        Command::Completions { shell } => return complete::script(*shell),
        Command::Check(files) => return cmd::apply::check(files),
        Command::Man { directory } => return cmd::man(directory),
        Command::Profile(command) => {
            let path = profile::path(|name| std::env::var(name).ok());
            return cmd::profile::run(command, path, format);
        }
        _ => {}
    }
    let mut client = cli.connection.client()?;
    client.keeps_answers = format == Format::Raw;
    match cli.command.watch() {
        Some(pace) => cmd::watch::run(pace, &client, || dispatch(&cli.command, &client, format)),
        None => dispatch(&cli.command, &client, format),
    }
}

fn dispatch(command: &Command, client: &Client, format: Format) -> Result<(), CtlError> {
    match command {
        Command::Service(command) => cmd::service::run(command, client, format),
        Command::Instance(command) => cmd::instance::run(command, client, format),
        Command::Certificate(command) => cmd::certificate::run(command, client, format),
        Command::Account(command) => cmd::account::run(command, client, format),
        Command::Token(command) => cmd::token::run(command, client, format),
        Command::Show(arguments) => cmd::show::run(arguments, client, format),
        Command::Status(arguments) => cmd::status::run(arguments, client, format),
        Command::Health(arguments) => cmd::health::run(arguments, client, format),
        Command::Terminator(command) => cmd::terminator::run(command, client, format),
        Command::Counters(arguments) => cmd::counters::run(arguments, client, format),
        Command::Trace(arguments) => cmd::trace::run(arguments, client, format),
        Command::Monitor(arguments) => cmd::monitor::run(arguments, client, format),
        Command::Events(arguments) => cmd::events::run(arguments, client, format),
        Command::Apply(arguments) => cmd::apply::apply(arguments, client, format),
        Command::Diff(arguments) => cmd::apply::diff(arguments, client, format),
        Command::Save(arguments) => cmd::save::save(arguments, client, format),
        Command::Restore(arguments) => cmd::save::restore(arguments, client, format),
        Command::State(command) => cmd::state::run(command, client, format),
        // Done before there was a client.
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Profile(_)
        | Command::Check(_) => Ok(()),
    }
}

impl Command {
    /// When it is asked for again.
    const fn watch(&self) -> Option<Pace> {
        match self {
            Self::Service(command) => command.watch(),
            Self::Instance(command) => command.watch(),
            Self::Certificate(command) => command.watch(),
            Self::Show(arguments) => arguments.watch.pace,
            Self::Status(arguments) => arguments.watch.pace,
            Self::Counters(arguments) => arguments.watch.pace,
            Self::Health(arguments) => arguments.watch.pace,
            _ => None,
        }
    }
}

/// Help goes to stdout as it is; a mistake becomes one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be told to a reader that is gone.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    tell!("{}", usage_line(error, std::env::args_os()));
    ExitCode::from(exit::USAGE)
}

/// What clap says in paragraphs, on one line: the mistake, the tip, and where the help is.
fn usage_line<I>(error: &clap::Error, arguments: I) -> String
where
    I: IntoIterator<Item: Into<OsString> + Clone>,
{
    let mut line = String::from("lbctl: ");
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        line.push_str("a command is missing");
    } else {
        let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = error.to_string();
        for (index, paragraph) in text.split("\n\n").map(words).enumerate() {
            if index == 0 {
                line.push_str(paragraph.strip_prefix("error: ").unwrap_or(&paragraph));
            } else if let Some(tip) = paragraph.strip_prefix("tip: ") {
                line.push_str("; ");
                line.push_str(tip);
            }
        }
    }
    format!("{line}; see `{} --help`", command_of(arguments))
}

/// The command that a command line with a mistake is about, such as `lbctl service`: clap names it for
/// some mistakes only.
fn command_of<I>(arguments: I) -> String
where
    I: IntoIterator<Item: Into<OsString> + Clone>,
{
    let read = Cli::command().ignore_errors(true);
    let read = read.try_get_matches_from(arguments);
    let mut words = vec!["lbctl"];
    let mut matches = read.as_ref().ok();
    while let Some((word, below)) = matches.and_then(clap::ArgMatches::subcommand) {
        words.push(word);
        matches = Some(below);
    }
    words.join(" ")
}

#[cfg(test)]
#[path = "main_tests.rs"]
mod tests;
