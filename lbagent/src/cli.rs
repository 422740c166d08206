//! The command line of `lbagent`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Overrides};
use crate::replay::{Ingress, ReplayOptions};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `run`: stopped by SIGTERM or SIGINT, the pinned data plane goes on forwarding
  1  failed while running
  2  the configuration or the command line cannot be used
  3  another lbagent runs on the same state or pins
  4  a privilege is missing";

/// eBPF/XDP load-balancing agent: keeps the pinned data plane equal to the desired state
#[derive(Debug, Parser)]
#[command(name = "lbagent", version, after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Write logs as JSON, one object a line. LBAGENT_LOG sets what is logged, as `info` or
    /// `lbagent=debug`
    #[arg(long, global = true, env = "LBAGENT_LOG_JSON")]
    pub log_json: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: load or take over the data plane, serve the API, reconcile
    Run(RunArgs),
    /// Check the configuration: exit 0 when it can be used, 2 with every problem when it cannot
    Check(ConfigArgs),
    /// Take programs, links, maps, addresses, routes and changed settings off this host again. The
    /// desired state in the store stays
    Detach(ConfigArgs),
    /// Run captured packets through the real BPF object, away from the host's network, and write
    /// what would happen to each
    Replay(ReplayArgs),
}

/// How to run.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Begin with this state document, written by `lbctl state export`, if the store is empty.
    /// After a loss of the store, what is in it stays published without a gap
    #[arg(long, value_name = "STATE.json", env = "LBAGENT_IMPORT_STATE")]
    pub import_state: Option<PathBuf>,
}

/// Which configuration.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "LBAGENT_CONFIG", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Settings laid over the file's.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The side that packets came in on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Side {
    /// From clients, through lb_ingress
    Client,
    /// From backends, through lb_return
    Return,
}

/// What to replay.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// State document, as `lbctl state export` writes it
    #[arg(long, value_name = "STATE.json")]
    pub state: PathBuf,
    /// Captured Ethernet frames, pcap or pcapng
    #[arg(long, value_name = "IN.pcap")]
    pub pcap_in: PathBuf,
    /// Gets the frames as the programs leave them; dropped ones are left out
    #[arg(long, value_name = "OUT.pcap")]
    pub pcap_out: PathBuf,
    /// Gets one JSON object a line: index, action, reason, service group, backend
    #[arg(long, value_name = "VERDICTS.jsonl")]
    pub verdicts: PathBuf,
    /// The side that the frames came in on
    #[arg(long, value_enum, default_value = "client")]
    pub ingress: Side,
    /// Index of an interface of the exporting host that faces clients: what leaves by it is `tx`.
    /// Repeat it for several
    #[arg(long, value_name = "IFINDEX")]
    pub client_ifindex: Vec<u32>,
    /// BPF object to use instead of the one built in
    #[arg(long, value_name = "FILE", env = "LBAGENT_BPF_OBJECT")]
    pub bpf_object: Option<PathBuf>,
}

impl From<ReplayArgs> for ReplayOptions {
    fn from(args: ReplayArgs) -> Self {
        Self {
            state: args.state,
            pcap_in: args.pcap_in,
            pcap_out: args.pcap_out,
            verdicts: args.verdicts,
            ingress: match args.ingress {
                Side::Client => Ingress::Client,
                Side::Return => Ingress::Return,
            },
            client_ifindexes: args.client_ifindex.into_iter().collect(),
            object: args.bpf_object,
        }
    }
}
