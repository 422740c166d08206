//! The agent's own configuration: a TOML file, overridden by flags and the environment.
//!
//! Every problem is found in one go, and each names the key and where its value came from.

mod api;
mod reader;
mod reserved;
mod serving;
mod settings;
mod terminator;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lbagent_api::terminator::{Limits, Proxies};

use crate::dataplane::{Capacity, OpenOptions, VipMode, XdpMode};
use crate::plan::{GatewaySettings, SynShield, UnpublishedPorts, WithoutTerminator};

pub use settings::Overrides;
pub(crate) use validate::unusable_address;

/// Where the configuration is looked for unless `--config` names another file.
pub const DEFAULT_PATH: &str = "/etc/lbagent/lbagent.toml";

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interfaces that clients' packets come in on.
    pub client_interfaces: Vec<String>,
    /// Interfaces that backends' replies come in on.
    pub backend_interfaces: Vec<String>,
    /// Addresses that services are published on.
    pub vips: BTreeSet<IpAddr>,
    /// How the host comes to answer for VIPs.
    pub vip_mode: VipMode,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// What happens to packets for a VIP on a port that nobody published.
    pub unpublished_ports: UnpublishedPorts,
    /// Holds the store and the record of changed host settings.
    pub state_dir: PathBuf,
    /// Holds the pinned maps, programs and links.
    pub bpffs_dir: PathBuf,
    /// BPF object to load instead of the embedded one.
    pub bpf_object: Option<PathBuf>,
    /// The REST server.
    pub api: ApiConfig,
    /// Who takes connections to ports with handlers.
    pub terminator: TerminatorConfig,
    /// Map capacities.
    pub limits: Capacity,
    /// Key of the flow hash; the store holds a random one when absent.
    pub hash_seed: Option<u64>,
    /// Silence after which a UDP flow counts as new.
    pub udp_idle: Duration,
    /// Silence after which a connection of a changed slot counts as gone.
    pub settle_after: Duration,
    /// Echo replies and "too big" messages that each CPU may send in a second.
    pub answers_per_second: u32,
    /// Who answers clients of ports with the handler `redirect`.
    pub redirect_at_nic: AtNic,
    /// When SYNs to ports with handlers are answered with cookies.
    pub syn_shield: SynShield,
}

/// Whether something is done before the kernel has seen a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtNic {
    /// Where the kernel can, and answers are sure to arrive.
    #[default]
    Auto,
    /// Always: the agent does not start where the kernel cannot.
    On,
    /// Never.
    Off,
}

/// How the REST server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// TCP address to listen on.
    pub listen: Option<SocketAddr>,
    /// TCP address of a listener that answers in the words of 2024.
    pub listen_2024: Option<SocketAddr>,
    /// TCP address where metrics can be read without a token.
    pub metrics_listen: Option<SocketAddr>,
    /// Unix socket to listen on.
    pub unix_socket: Option<PathBuf>,
    /// Its members may use the socket, beside root and the agent's own user.
    pub unix_socket_group: Option<u32>,
    /// Whether clients on this host are operators over TCP without a token.
    pub loopback_without_token: bool,
    /// Holds a token of an operator, beside those in the store.
    pub token_file: Option<PathBuf>,
    /// What the TCP listener proves itself with; it speaks plain HTTP when absent.
    pub tls: Option<TlsFiles>,
    /// Domain below which unqualified domain names of service groups live.
    pub metro_domain: String,
    /// Labels below it that no service group can have.
    pub reserved_names: BTreeSet<String>,
    /// Domain below which the operator's name servers know instances by their names.
    pub private_domain: Option<String>,
}

/// Who takes connections to ports with handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminatorConfig {
    /// Unix socket where terminators come to.
    pub socket: Option<PathBuf>,
    /// May come there, beside root and the agent's own user.
    pub user: Option<u32>,
    /// What becomes of such connections while no terminator is registered.
    pub missing: WithoutTerminator,
    /// How long the predecessor of a terminator may take to finish what it has.
    pub drain: Duration,
    /// Whether this gateway signs a wildcard certificate for its metro domain itself.
    pub development_ca: bool,
    /// What holds for all that is served.
    pub serving: ServingSettings,
}

/// What a terminator is told beside the desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingSettings {
    /// Bounds of a terminator as a whole.
    pub limits: Limits,
    /// Proxies in front of the gateway.
    pub proxies: Proxies,
}

/// Files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and a root that clients know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Config {
    /// Reads the file, lays the overrides over it, and checks the whole.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text, overrides)
    }

    /// As [`load`](Self::load), with the file's text given.
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut settings = settings::read(&path.display().to_string(), text, &mut problems);
        settings.apply(overrides);
        let config = validate::validate(settings, &mut problems);
        // What seems to be missing may stand behind the mistake that nothing was read after.
        if toml::de::DeTable::parse(text).is_err() {
            let is_placed = |problem: &Problem| matches!(problem.origin, Origin::Line { .. });
            problems.retain(is_placed);
        }
        // In the order of the file; what is missing or came from elsewhere follows.
        problems.sort_by_key(|problem| match problem.origin {
            Origin::Line { line, .. } => line,
            Origin::File(_) | Origin::Flag(_) => usize::MAX,
        });
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { problems })
        }
    }

    /// What the data plane needs to open.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            client_interfaces: self.client_interfaces.clone(),
            backend_interfaces: self.backend_interfaces.clone(),
            xdp_mode: self.xdp_mode,
            vip_mode: self.vip_mode,
            state_dir: self.state_dir.clone(),
            bpffs_dir: self.bpffs_dir.clone(),
            capacity: self.limits,
            object: self.bpf_object.clone(),
        }
    }

    /// The setting that the kernel has to be able to answer SYNs with cookies for, if there is one.
    pub fn needs_cookies(&self) -> Option<&'static str> {
        if self.redirect_at_nic == AtNic::On {
            Some("redirect.at_nic")
        } else if self.syn_shield == SynShield::Always {
            Some("syn_shield.mode")
        } else {
            None
        }
    }

    /// What planning needs; `stored_seed` is the store's flow hash key.
    pub fn gateway_settings(&self, stored_seed: u64) -> GatewaySettings {
        GatewaySettings {
            vips: self.vips.clone(),
            unpublished_ports: self.unpublished_ports,
            hash_seed: self.hash_seed.unwrap_or(stored_seed),
            udp_idle: self.udp_idle,
            settle_after: self.settle_after,
            source_port_first: GatewaySettings::SOURCE_PORT_FIRST,
            source_port_count: GatewaySettings::SOURCE_PORT_COUNT,
            without_terminator: self.terminator.missing,
            answers_per_second: self.answers_per_second,
            redirect_at_nic: self.redirect_at_nic != AtNic::Off,
            not_at_nic: None,
            syn_shield: self.syn_shield,
            without_shield: None,
        }
    }

    /// The same, where answers of the programs may not arrive for a reason: what is left to the agent to
    /// decide is left to the kernel then.
    pub fn gateway_settings_in_doubt(
        &self,
        stored_seed: u64,
        doubts: Option<String>,
    ) -> GatewaySettings {
        let mut settings = self.gateway_settings(stored_seed);
        if doubts.is_some() {
            if self.redirect_at_nic == AtNic::Auto {
                settings.redirect_at_nic = false;
                settings.not_at_nic.clone_from(&doubts);
            }
            if matches!(self.syn_shield, SynShield::Above { .. }) {
                settings.syn_shield = SynShield::Off;
                settings.without_shield = doubts;
            }
        }
        settings
    }

    /// The store's file.
    pub fn store_path(&self) -> PathBuf {
        self.state_dir.join("state.redb")
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}; name another file with --config FILE", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What it says cannot be used.
    #[error("{}", list(problems))]
    Invalid {
        /// Everything that is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file.
    Line {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
    },
    /// The file as a whole: something is missing.
    File(String),
    /// A flag, or the environment variable that stands for it.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::File(file) => f.write_str(file),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}
