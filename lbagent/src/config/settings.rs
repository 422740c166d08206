//! The settings as written down: from the file, with flags and environment laid over them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use toml::de::DeTable;

use super::api::ApiSettings;
use super::reader::{Located, Source, Table};
use super::terminator::TerminatorSettings;
use super::{Origin, Problem};

/// Settings that flags and the environment override. Lists replace the file's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Overrides of the configuration file")]
pub struct Overrides {
    /// Interface that clients' packets come in on; repeat it or separate several with commas
    #[arg(long = "client-interface", value_name = "NAME", env = "LBAGENT_CLIENT_INTERFACES",
          value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub client_interfaces: Vec<String>,
    /// Interface that backends' replies come in on; repeat it or separate several with commas
    #[arg(long = "backend-interface", value_name = "NAME", env = "LBAGENT_BACKEND_INTERFACES",
          value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub backend_interfaces: Vec<String>,
    /// Address that services are published on; repeat it or separate several with commas
    #[arg(
        long = "vip",
        value_name = "ADDRESS",
        env = "LBAGENT_VIPS",
        value_delimiter = ','
    )]
    pub vips: Vec<IpAddr>,
    /// How the host comes to answer for VIPs: l2 or routed
    #[arg(long, value_name = "MODE", env = "LBAGENT_VIP_MODE")]
    pub vip_mode: Option<String>,
    /// How the XDP program is attached: auto, native or generic
    #[arg(long, value_name = "MODE", env = "LBAGENT_XDP_MODE")]
    pub xdp_mode: Option<String>,
    /// What happens to packets for a VIP on a port that nobody published: pass or drop
    #[arg(long, value_name = "POLICY", env = "LBAGENT_UNPUBLISHED_PORTS")]
    pub unpublished_ports: Option<String>,
    /// Directory of the store and of the record of changed host settings
    #[arg(long, value_name = "DIR", env = "LBAGENT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the pins, on a BPF file system
    #[arg(long, value_name = "DIR", env = "LBAGENT_BPFFS_DIR")]
    pub bpffs_dir: Option<PathBuf>,
    /// BPF object to load instead of the one built in
    #[arg(long, value_name = "FILE", env = "LBAGENT_BPF_OBJECT")]
    pub bpf_object: Option<PathBuf>,
    /// TCP address of the REST server; `none` for none
    #[arg(long, value_name = "ADDRESS:PORT", env = "LBAGENT_API_LISTEN")]
    pub api_listen: Option<String>,
    /// Unix socket of the REST server; `none` for none
    #[arg(long, value_name = "PATH", env = "LBAGENT_API_UNIX_SOCKET")]
    pub api_unix_socket: Option<PathBuf>,
    /// File with the bearer token that clients must show
    #[arg(long, value_name = "FILE", env = "LBAGENT_API_TOKEN_FILE")]
    pub api_token_file: Option<PathBuf>,
    /// Domain below which unqualified domain names of service groups live
    #[arg(long, value_name = "DOMAIN", env = "LBAGENT_METRO_DOMAIN")]
    pub metro_domain: Option<String>,
}

pub(super) type Value<T> = Option<Located<T>>;

/// Everything as text and numbers; [`super::validate`] gives it meaning.
pub(super) struct Settings {
    /// The file, for what is missing.
    pub(super) file: Origin,
    pub(super) client_interfaces: Option<Vec<Located<String>>>,
    pub(super) backend_interfaces: Option<Vec<Located<String>>>,
    pub(super) vips: Option<Vec<Located<String>>>,
    pub(super) vip_mode: Value<String>,
    pub(super) xdp_mode: Value<String>,
    pub(super) unpublished_ports: Value<String>,
    pub(super) state_dir: Value<String>,
    pub(super) bpffs_dir: Value<String>,
    pub(super) bpf_object: Value<String>,
    pub(super) api: ApiSettings,
    pub(super) terminator: TerminatorSettings,
    pub(super) limits: Limits,
    pub(super) hash_seed: Value<u64>,
    pub(super) udp_idle_s: Value<u64>,
    pub(super) settle_after_s: Value<u64>,
    pub(super) answers_per_second: Value<u64>,
    pub(super) at_nic: Value<String>,
    pub(super) shield_mode: Value<String>,
    pub(super) shield_per_second: Value<u64>,
}

/// Map capacities as written down.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) vips: Value<u64>,
    pub(super) slots: Value<u64>,
    pub(super) backends: Value<u64>,
    pub(super) returns: Value<u64>,
    pub(super) conns: Value<u64>,
    pub(super) nat_flows: Value<u64>,
    pub(super) hosts: Value<u64>,
}

impl Limits {
    fn read(table: &mut Table<'_, '_>, problems: &mut Vec<Problem>) -> Self {
        Self {
            vips: table.number("vips", problems),
            slots: table.number("slots", problems),
            backends: table.number("backends", problems),
            returns: table.number("returns", problems),
            conns: table.number("conns", problems),
            nat_flows: table.number("nat_flows", problems),
            hosts: table.number("hosts", problems),
        }
    }
}

/// What `[redirect]` and `[syn_shield]` say: where redirects are answered, and the shield's mode and
/// threshold.
fn read_cookies(
    root: &mut Table<'_, '_>,
    problems: &mut Vec<Problem>,
) -> (Value<String>, Value<String>, Value<u64>) {
    let mut redirect = root.table("redirect", problems);
    let mut shield = root.table("syn_shield", problems);
    let said = (
        redirect.string("at_nic", problems),
        shield.string("mode", problems),
        shield.number("per_second", problems),
    );
    redirect.finish(problems);
    shield.finish(problems);
    said
}

/// Takes the file apart. What cannot be read is reported and left out.
pub(super) fn read(file: &str, text: &str, problems: &mut Vec<Problem>) -> Settings {
    let source = Source { file, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    problems.extend(errors.iter().map(|error| {
        Problem {
            origin: error
                .span()
                .map_or_else(|| Origin::File(file.into()), |span| source.origin(&span)),
            text: error.message().to_owned(),
        }
    }));
    let mut root = Table::root(source, table.get_ref());
    let client_interfaces = root.strings("client_interfaces", problems);
    let backend_interfaces = root.strings("backend_interfaces", problems);
    let vips = root.strings("vips", problems);
    let vip_mode = root.string("vip_mode", problems);
    let xdp_mode = root.string("xdp_mode", problems);
    let unpublished_ports = root.string("unpublished_ports", problems);
    let state_dir = root.string("state_dir", problems);
    let bpffs_dir = root.string("bpffs_dir", problems);
    let bpf_object = root.string("bpf_object", problems);
    let mut api = root.table("api", problems);
    let api_settings = ApiSettings::read(&mut api, problems);
    let mut terminator = root.table("terminator", problems);
    let terminator_settings = TerminatorSettings::read(&mut terminator, problems);
    let mut limits = root.table("limits", problems);
    let capacities = Limits::read(&mut limits, problems);
    let mut flow = root.table("flow", problems);
    let hash_seed = flow.number("hash_seed", problems);
    let udp_idle_s = flow.number("udp_idle_s", problems);
    let settle_after_s = flow.number("settle_after_s", problems);
    let mut answers = root.table("answers", problems);
    let answers_per_second = answers.number("per_second", problems);
    let (at_nic, shield_mode, shield_per_second) = read_cookies(&mut root, problems);
    for table in [root, api, terminator, limits, flow, answers] {
        table.finish(problems);
    }
    Settings {
        file: Origin::File(file.to_owned()),
        client_interfaces,
        backend_interfaces,
        vips,
        vip_mode,
        xdp_mode,
        unpublished_ports,
        state_dir,
        bpffs_dir,
        bpf_object,
        api: api_settings,
        terminator: terminator_settings,
        limits: capacities,
        hash_seed,
        udp_idle_s,
        settle_after_s,
        answers_per_second,
        at_nic,
        shield_mode,
        shield_per_second,
    }
}

impl Settings {
    /// Lays flags and environment over what the file says.
    pub(super) fn apply(&mut self, overrides: &Overrides) {
        let Overrides {
            client_interfaces,
            backend_interfaces,
            vips,
            vip_mode,
            xdp_mode,
            unpublished_ports,
            state_dir,
            bpffs_dir,
            bpf_object,
            api_listen,
            api_unix_socket,
            api_token_file,
            metro_domain,
        } = overrides;
        replace_list(
            &mut self.client_interfaces,
            "--client-interface",
            client_interfaces,
        );
        replace_list(
            &mut self.backend_interfaces,
            "--backend-interface",
            backend_interfaces,
        );
        replace_list(&mut self.vips, "--vip", vips);
        replace(&mut self.vip_mode, "--vip-mode", vip_mode.clone());
        replace(&mut self.xdp_mode, "--xdp-mode", xdp_mode.clone());
        replace(
            &mut self.unpublished_ports,
            "--unpublished-ports",
            unpublished_ports.clone(),
        );
        replace(&mut self.state_dir, "--state-dir", path_text(state_dir));
        replace(&mut self.bpffs_dir, "--bpffs-dir", path_text(bpffs_dir));
        replace(&mut self.bpf_object, "--bpf-object", path_text(bpf_object));
        replace(&mut self.api.listen, "--api-listen", api_listen.clone());
        replace(
            &mut self.api.unix_socket,
            "--api-unix-socket",
            path_text(api_unix_socket),
        );
        replace(
            &mut self.api.token_file,
            "--api-token-file",
            path_text(api_token_file),
        );
        replace(
            &mut self.api.metro_domain,
            "--metro-domain",
            metro_domain.clone(),
        );
    }
}

fn path_text(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.display().to_string())
}

fn replace(setting: &mut Value<String>, flag: &'static str, given: Option<String>) {
    if let Some(value) = given {
        *setting = Some(Located {
            value,
            origin: Origin::Flag(flag),
        });
    }
}

fn replace_list<T: ToString>(
    setting: &mut Option<Vec<Located<String>>>,
    flag: &'static str,
    given: &[T],
) {
    if !given.is_empty() {
        let located = |value: &T| Located {
            value: value.to_string(),
            origin: Origin::Flag(flag),
        };
        *setting = Some(given.iter().map(located).collect());
    }
}
