//! Arguments, logging, exit code.

mod allocator;

use std::process::ExitCode;

use clap::Parser;
use lbagent::agent::{AgentError, Offline};
use lbagent::cli::{Cli, Command, ConfigArgs, DecapArgs, RunArgs, StateCommand, TokenCommand};
use lbagent::config::{Config, ConfigError};
use lbagent::dataplane::decap::DecapError;
use lbagent::dataplane::{DetachError, DetachOptions, LoadError, RollbackError, detach, rollback};
use lbagent::desired::NewToken;
use lbagent::{agent, api, decap, replay};
use lbagent_api::access::TokenSpec;
use tracing_subscriber::EnvFilter;

/// What an exit code of the help text stands for.
#[derive(Clone, Copy)]
enum Exit {
    Failed = 1,
    Config = 2,
    Running = 3,
    Privileges = 4,
    Dataplane = 5,
}

/// An error that ends the process, with its exit code.
struct Failure(Exit, anyhow::Error);

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.log_json);
    let done = match cli.command {
        Command::Run(args) => run(&args),
        Command::Check(args) => load(&args).map(|_| println!("{}: ok", args.config.display())),
        Command::State(args) => state(args.command),
        Command::Token(args) => token(args.command),
        Command::Detach(args) => remove(&args),
        Command::Rollback(args) => roll_back(&args),
        Command::Replay(args) => replay(args),
        Command::Decap(args) => decapsulate(&args),
        Command::Openapi { dialect_2024 } => {
            let dialect = match dialect_2024 {
                true => api::Dialect::Of2024,
                false => api::Dialect::Current,
            };
            print!("{}", api::document(dialect));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(exit, error)) => {
            match error.downcast_ref::<ConfigError>() {
                // Each problem names its place already.
                Some(error @ ConfigError::Invalid { .. }) => eprintln!("{error}"),
                _ => eprintln!("lbagent: {error:#}"),
            }
            ExitCode::from(exit as u8)
        }
    }
}

fn log_to_stderr(json: bool) {
    let filter = EnvFilter::try_from_env("LBAGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that nobody takes any more is told of on stderr otherwise, which panics: it is stderr.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    if json {
        log.json().init()
    } else {
        log.with_ansi(false).init()
    }
}

fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    Config::load(&args.config, &args.overrides).map_err(|error| Failure(Exit::Config, error.into()))
}

fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let import_state = args.import_state.as_deref();
    agent::run(config, import_state, allocator::give_back_at_once).map_err(failed)
}

fn failed(error: AgentError) -> Failure {
    let exit = match &error {
        AgentError::Running { .. } | AgentError::Dataplane(LoadError::PinsInUse { .. }) => {
            Exit::Running
        }
        AgentError::Privileges { .. } | AgentError::Dataplane(LoadError::NotPermitted) => {
            Exit::Privileges
        }
        AgentError::Dataplane(error) if error.is_of_host() => Exit::Failed,
        AgentError::Dataplane(_) | AgentError::Fill(_) => Exit::Dataplane,
        _ => Exit::Failed,
    };
    Failure(exit, error.into())
}

/// The store, which an agent that runs has for itself.
fn open_store(config: &ConfigArgs, instead: &str) -> Result<Offline, Failure> {
    let config = load(config)?;
    Offline::open(config).map_err(|error| match error {
        AgentError::Running { pid, .. } => {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let text = format!("lbagent is running{pid}; stop it, or use `{instead}`");
            Failure(Exit::Running, anyhow::anyhow!(text))
        }
        error => failed(error),
    })
}

fn state(command: StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::Export {
            config,
            private_keys,
            file,
        } => {
            let store = open_store(&config, "lbctl state export")?;
            store.export(&file, private_keys).map_err(failed)
        }
        StateCommand::Import { config, file } => {
            let store = open_store(&config, "lbctl state import")?;
            let written = store.import(&file).map_err(failed)?;
            if written.outcome.tokens_left_out {
                eprintln!("lbagent: the store has tokens: those of the document were left out");
            }
            println!("imported, generation {}", written.generation);
            Ok(())
        }
    }
}

fn token(command: TokenCommand) -> Result<(), Failure> {
    let TokenCommand::Create {
        config,
        role,
        of,
        label,
        expires_in_s,
    } = command;
    let spec = TokenSpec {
        role: role.into(),
        account: of,
        label,
        expires_in_s,
    };
    let new = NewToken::try_from(spec);
    let new = new.map_err(|error| Failure(Exit::Config, anyhow::anyhow!(error.message)))?;
    let store = open_store(&config, "lbctl token create")?;
    println!("{}", store.create_token(&new).map_err(failed)?);
    Ok(())
}

fn remove(args: &ConfigArgs) -> Result<(), Failure> {
    let config = load(args)?;
    agent::require_privileges().map_err(|error| Failure(Exit::Privileges, error.into()))?;
    let removed = detach(&places(config)).map_err(|error| {
        let exit = match &error {
            DetachError::Running { .. } => Exit::Running,
            _ => Exit::Failed,
        };
        Failure(exit, error.into())
    })?;
    if removed.is_empty() {
        println!("nothing to remove: no lbagent is attached here");
    }
    for line in removed {
        println!("removed {line}");
    }
    Ok(())
}

fn decapsulate(args: &DecapArgs) -> Result<(), Failure> {
    let options = decap::Options::from(args);
    let failed = |error: decap::RunError| {
        let exit = match &error {
            error if error.is_usage() => Exit::Config,
            decap::RunError::Kernel(DecapError::Load(LoadError::NotPermitted)) => Exit::Privileges,
            decap::RunError::Kernel(DecapError::Busy { .. }) => Exit::Running,
            _ => Exit::Failed,
        };
        Failure(exit, error.into())
    };
    if args.check {
        return decap::check(&options)
            .map_err(failed)?
            .map_err(|count| Failure(Exit::Failed, anyhow::anyhow!("{count} things to do")));
    }
    agent::require_privileges().map_err(|error| Failure(Exit::Privileges, error.into()))?;
    if args.status {
        decap::show(&options, args.json).map_err(failed)
    } else if args.detach {
        decap::stop(&options).map_err(failed)
    } else if args.foreground {
        decap::follow(&options, |done| println!("{done}")).map_err(failed)
    } else {
        let done = decap::start(&options).map_err(failed)?;
        done.iter().for_each(|done| println!("{done}"));
        Ok(())
    }
}

/// Where an agent left its traces.
fn places(config: Config) -> DetachOptions {
    DetachOptions {
        state_dir: config.state_dir,
        bpffs_dir: config.bpffs_dir,
        backend_interfaces: config.backend_interfaces,
    }
}

fn roll_back(args: &ConfigArgs) -> Result<(), Failure> {
    let config = load(args)?;
    agent::require_privileges().map_err(|error| Failure(Exit::Privileges, error.into()))?;
    let done = rollback(&places(config)).map_err(|error| {
        let exit = match &error {
            RollbackError::Running { .. } => Exit::Running,
            RollbackError::Pins(_) | RollbackError::Attach { .. } => Exit::Dataplane,
            RollbackError::Nothing { .. } => Exit::Failed,
        };
        Failure(exit, error.into())
    })?;
    println!("attached again: {}", done.now);
    if let Some(before) = &done.before {
        println!("in place of:    {before}");
    }
    println!("interfaces:     {}", done.interfaces.join(", "));
    if !done.gone.is_empty() {
        println!("gone:           {}", done.gone.join(", "));
    }
    println!(
        "start lbagent {} next: another version would attach its own programs again",
        done.now.version
    );
    Ok(())
}

fn replay(args: lbagent::cli::ReplayArgs) -> Result<(), Failure> {
    let summary = replay::replay(&args.into()).map_err(|error| Failure(Exit::Failed, error))?;
    for (reason, packets) in summary.reasons {
        println!("{packets:>10}  {reason}");
    }
    Ok(())
}
