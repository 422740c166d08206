//! The command line of `lbagent`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Overrides};
use crate::dataplane::XdpMode;
use crate::dataplane::decap::TcMode;
use crate::decap::{self, MssSource};
use crate::desired::Role;
use crate::replay::{Ingress, ReplayOptions};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `run`: stopped by SIGTERM or SIGINT, the pinned data plane goes on forwarding
  1  failed while running
  2  the configuration or the command line cannot be used
  3  another lbagent runs on the same state or pins
  4  a privilege is missing
  5  the data plane could not be loaded, filled or attached; the one that was attached goes on";

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
    /// Write down or replace what was asked for, while no agent runs: `lbctl state` does it with one
    /// that runs
    State(StateArgs),
    /// Make tokens while no agent runs: `lbctl token` does it with one that runs
    Token(TokenArgs),
    /// Take programs, links, maps, addresses, routes and changed settings off this host again. The
    /// desired state in the store stays
    Detach(ConfigArgs),
    /// Attach the programs from before the last upgrade again, each interface in one step. The agent
    /// must be stopped; start the lbagent that they belong to afterwards
    Rollback(ConfigArgs),
    /// Run captured packets through the real BPF object, away from the host's network, and write
    /// what would happen to each
    Replay(ReplayArgs),
    /// On a backend host: take the gateway's outer header (IPIP, GUE) off packets for VIPs, and tell
    /// clients an MSS that leaves room for it. Pinned, so the process need not stay
    Decap(DecapArgs),
    /// Print the description of the API (OpenAPI 3.1), which a running agent serves at
    /// /v1/openapi.json
    Openapi {
        /// That of the listener at api.listen_2024
        #[arg(long)]
        dialect_2024: bool,
    },
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

/// What to do with the state.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StateCommand,
}

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Write the state document, JSON, to a file of mode 0600
    Export {
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// With the private keys of certificates
        #[arg(long)]
        private_keys: bool,
        /// Where to; `-` is stdout
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Replace the state by that of a document, all or nothing
    Import {
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// Where from; `-` is stdin
        file: PathBuf,
    },
}

/// What to do with tokens.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it: it is shown this once and kept nowhere
    Create {
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// What its holder may do
        #[arg(long, value_enum, default_value = "operator")]
        role: RoleWord,
        /// The account that it acts for, by name or UUID; the default account without it
        #[arg(long = "for", value_name = "ACCOUNT")]
        of: Option<String>,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// So many seconds it is good for; until it is revoked without it
        #[arg(long, value_name = "SECONDS")]
        expires_in_s: Option<u64>,
    },
}

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleWord {
    /// Everything, for every account
    Operator,
    /// Read and write within the account
    Member,
    /// Read within the account
    Reader,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Operator => Self::Operator,
            RoleWord::Member => Self::Member,
            RoleWord::Reader => Self::Reader,
        }
    }
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

/// What to decapsulate.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("instead").multiple(false))]
pub struct DecapArgs {
    /// Interface that encapsulated packets come in by and answers leave by. Repeat it for several
    #[arg(long, value_name = "NAME", required = true)]
    pub iface: Vec<String>,
    /// VIP, as the inner destination. Repeat it for several. Without it: every address of lo but
    /// 127.0.0.0/8 and ::1
    #[arg(long, value_name = "ADDR")]
    pub vip: Vec<IpAddr>,
    /// Which encapsulations to take off
    #[arg(long, value_enum, default_value = "both")]
    pub mode: decap::Mode,
    /// UDP destination port of GUE
    #[arg(long, value_name = "PORT", default_value_t = decap::GUE_PORT,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub gue_port: u16,
    /// MTU of the way from the gateway, to compute the MSS from. Without it: the interface's
    #[arg(long, value_name = "BYTES", conflicts_with = "mss")]
    pub mtu: Option<u16>,
    /// Largest MSS that clients are told, in both families, instead of a computed one
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(536..))]
    pub mss: Option<u16>,
    /// Attach in the driver (native), in the stack (generic), or in the driver if it can (auto)
    #[arg(long, value_enum, default_value = "auto")]
    pub xdp_mode: DecapXdpMode,
    /// Attach the MSS clamp by a link (tcx, Linux 6.6), by a filter (clsact), or as the kernel can
    #[arg(long, value_enum, default_value = "auto")]
    pub tc_mode: DecapTcMode,
    /// Stay, and follow changes of addresses, MTUs and interfaces. What is attached stays when the
    /// process ends
    #[arg(long, group = "instead")]
    pub foreground: bool,
    /// Take everything off again
    #[arg(long, group = "instead")]
    pub detach: bool,
    /// Show what is attached, and packets by outcome
    #[arg(long, group = "instead")]
    pub status: bool,
    /// Attach nothing; say what else the host needs, with the commands. Exit code 1 if anything
    #[arg(long, group = "instead")]
    pub check: bool,
    /// With --status: JSON, one object a line
    #[arg(long, requires = "status")]
    pub json: bool,
    /// Directory for the pins, on a BPF file system
    #[arg(long, value_name = "DIR", default_value = decap::BPFFS_DIR)]
    pub bpffs_dir: PathBuf,
}

/// How to attach `lb_decap`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DecapXdpMode {
    /// In the driver if it can
    Auto,
    /// In the driver
    Native,
    /// In the stack
    Generic,
}

/// How to attach `lb_clamp`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DecapTcMode {
    /// By a link if the kernel has them
    Auto,
    /// By a link
    Tcx,
    /// By a filter
    Clsact,
}

impl From<&DecapArgs> for decap::Options {
    fn from(args: &DecapArgs) -> Self {
        Self {
            interfaces: args.iface.clone(),
            vips: args.vip.iter().map(IpAddr::to_canonical).collect(),
            mode: args.mode,
            gue_port: args.gue_port,
            mss: match (args.mss, args.mtu) {
                (Some(mss), _) => MssSource::Fixed(mss),
                (None, Some(mtu)) => MssSource::Mtu(mtu),
                (None, None) => MssSource::Interface,
            },
            xdp_mode: match args.xdp_mode {
                DecapXdpMode::Auto => XdpMode::Auto,
                DecapXdpMode::Native => XdpMode::Native,
                DecapXdpMode::Generic => XdpMode::Generic,
            },
            tc_mode: match args.tc_mode {
                DecapTcMode::Auto => TcMode::Auto,
                DecapTcMode::Tcx => TcMode::Tcx,
                DecapTcMode::Clsact => TcMode::Clsact,
            },
            bpffs_dir: args.bpffs_dir.clone(),
        }
    }
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
