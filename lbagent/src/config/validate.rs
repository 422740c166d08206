//! What the settings mean, and which make no sense.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lbagent_common::limits;

use super::reader::{Located, nearest};
use super::settings::{Limits, Settings};
use super::{AtNic, Config, Origin, Problem};
use crate::dataplane::{Capacity, VipMode, XdpMode};
use crate::plan::{GatewaySettings, SynShield, UnpublishedPorts};

/// Longest interface name (`IFNAMSIZ` less the closing zero).
const MAX_INTERFACE_NAME: usize = 15;
/// Most entries of any map: a wrong digit should not take the host's memory.
const MAX_ENTRIES: u64 = 1 << 26;
/// Most answers that each CPU may give in a second: about what one can send.
const MAX_ANSWERS: u32 = 10_000_000;
/// Slots of the smallest table, twice: a change writes the new one beside the old one.
const MIN_SLOTS: u64 = 2 * 509;

/// Silence in seconds that a connection may be asked to bear: a minute, as TCP may pause for that
/// long while it sends again what was lost, to a week.
const SETTLE_AFTER: std::ops::RangeInclusive<u64> = 60..=604_800;

/// Collects problems while it goes through the settings.
pub(super) struct Checker<'a> {
    file: Origin,
    problems: &'a mut Vec<Problem>,
}

/// The configuration, with every problem reported; good for nothing if there is one.
pub(super) fn validate(settings: Settings, problems: &mut Vec<Problem>) -> Config {
    let mut check = Checker {
        file: settings.file.clone(),
        problems,
    };
    let client_interfaces = check.interfaces(
        settings.client_interfaces,
        "client_interfaces: name at least one interface that clients' packets come in on, \
         such as [\"eth0\"]",
    );
    let backend_interfaces = check.interfaces(
        settings.backend_interfaces,
        "backend_interfaces: name at least one interface that backends' replies come in on; \
         with one network card it is the client interface again",
    );
    let vips = check.vips(settings.vips);
    let limits = check.limits(settings.limits, &vips);
    let api = check.api(settings.api);
    let terminator = check.terminator(settings.terminator);
    Config {
        client_interfaces,
        backend_interfaces,
        vips,
        vip_mode: check.choice(
            "vip_mode",
            settings.vip_mode,
            &[("l2", VipMode::L2), ("routed", VipMode::Routed)],
        ),
        xdp_mode: check.xdp_mode(settings.xdp_mode),
        unpublished_ports: check.choice(
            "unpublished_ports",
            settings.unpublished_ports,
            &[
                ("pass", UnpublishedPorts::Pass),
                ("drop", UnpublishedPorts::Drop),
            ],
        ),
        state_dir: check.directory("state_dir", settings.state_dir, "/var/lib/lbagent"),
        bpffs_dir: check.directory("bpffs_dir", settings.bpffs_dir, "/sys/fs/bpf/lbagent"),
        bpf_object: settings.bpf_object.map(|path| PathBuf::from(path.value)),
        api,
        terminator,
        limits,
        hash_seed: settings.hash_seed.map(|seed| seed.value),
        udp_idle: check.udp_idle(settings.udp_idle_s),
        settle_after: check.settle_after(settings.settle_after_s),
        answers_per_second: check.answers(settings.answers_per_second),
        redirect_at_nic: check.at_nic(settings.at_nic),
        syn_shield: check.syn_shield(settings.shield_mode, settings.shield_per_second),
    }
}

impl Checker<'_> {
    pub(super) fn problem(&mut self, origin: &Origin, text: impl Into<String>) {
        self.problems.push(Problem {
            origin: origin.clone(),
            text: text.into(),
        });
    }

    fn xdp_mode(&mut self, word: Option<Located<String>>) -> XdpMode {
        self.choice(
            "xdp_mode",
            word,
            &[
                ("auto", XdpMode::Auto),
                ("native", XdpMode::Native),
                ("generic", XdpMode::Generic),
            ],
        )
    }

    fn at_nic(&mut self, word: Option<Located<String>>) -> AtNic {
        self.choice(
            "redirect.at_nic",
            word,
            &[
                ("auto", AtNic::Auto),
                ("on", AtNic::On),
                ("off", AtNic::Off),
            ],
        )
    }

    fn interfaces(&mut self, names: Option<Vec<Located<String>>>, missing: &str) -> Vec<String> {
        let key = missing.split(':').next().unwrap_or_default().to_owned();
        let mut valid = Vec::new();
        for Located { value, origin } in names.unwrap_or_default() {
            let strange = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
            if value.is_empty() || value.len() > MAX_INTERFACE_NAME || value.contains(strange) {
                self.problem(
                    &origin,
                    format!("{key}: `{value}` cannot be an interface's name"),
                );
            } else if valid.contains(&value) {
                self.problem(&origin, format!("{key}: `{value}` is named twice"));
            }
            valid.push(value);
        }
        if valid.is_empty() {
            self.problem(&self.file.clone(), missing);
        }
        valid
    }

    fn vips(&mut self, vips: Option<Vec<Located<String>>>) -> BTreeSet<IpAddr> {
        let mut valid = BTreeSet::new();
        let mut named = false;
        for Located { value, origin } in vips.unwrap_or_default() {
            named = true;
            let refusal = match value.parse::<IpAddr>() {
                Err(_) if value.contains('/') => Some("is a prefix; name single addresses".into()),
                Err(_) => Some("is no IPv4 or IPv6 address".into()),
                Ok(address) => match unusable_address(address) {
                    Some(kind) => Some(format!("is {kind} and cannot be a VIP")),
                    None if !valid.insert(address) => Some("is named twice".into()),
                    None => None,
                },
            };
            if let Some(refusal) = refusal {
                self.problem(&origin, format!("vips: `{value}` {refusal}"));
            }
        }
        if !named {
            let text = "vips: name at least one address that services are published on, such as \
                        [\"192.0.2.10\"]";
            self.problem(&self.file.clone(), text);
        }
        valid
    }

    pub(super) fn choice<T: Copy + Default>(
        &mut self,
        key: &str,
        word: Option<Located<String>>,
        choices: &[(&str, T)],
    ) -> T {
        let Some(Located { value, origin }) = word else {
            return T::default();
        };
        if let Some((_, choice)) = choices.iter().find(|(known, _)| *known == value) {
            return *choice;
        }
        let words: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
        let hint = nearest(&value, &words).map(|word| format!("; did you mean `{word}`?"));
        let hint = hint.unwrap_or_default();
        let text = format!("{key}: `{value}` is none of {}{hint}", words.join(", "));
        self.problem(&origin, text);
        T::default()
    }

    fn directory(&mut self, key: &str, path: Option<Located<String>>, default: &str) -> PathBuf {
        let Some(Located { value, origin }) = path else {
            return PathBuf::from(default);
        };
        let path = PathBuf::from(&value);
        if !path.is_absolute() {
            self.problem(
                &origin,
                format!("{key}: `{value}` must be an absolute path"),
            );
        }
        path
    }

    fn udp_idle(&mut self, seconds: Option<Located<u64>>) -> Duration {
        let Some(Located { value, origin }) = seconds else {
            return Duration::from_secs(60);
        };
        if !(1..=86_400).contains(&value) {
            let text = format!("flow.udp_idle_s: {value} is not in the range 1 to 86400");
            self.problem(&origin, text);
        }
        Duration::from_secs(value)
    }

    fn settle_after(&mut self, seconds: Option<Located<u64>>) -> Duration {
        let Some(Located { value, origin }) = seconds else {
            return GatewaySettings::SETTLE_AFTER;
        };
        if !SETTLE_AFTER.contains(&value) {
            let (first, last) = (SETTLE_AFTER.start(), SETTLE_AFTER.end());
            let text =
                format!("flow.settle_after_s: {value} is not in the range {first} to {last}");
            self.problem(&origin, text);
        }
        Duration::from_secs(value)
    }

    fn answers(&mut self, per_second: Option<Located<u64>>) -> u32 {
        let Some(Located { value, origin }) = per_second else {
            return GatewaySettings::ANSWERS_PER_SECOND;
        };
        match u32::try_from(value) {
            Ok(answers) if answers <= MAX_ANSWERS => answers,
            _ => {
                let text =
                    format!("answers.per_second: {value} is not in the range 0 to {MAX_ANSWERS}");
                self.problem(&origin, text);
                0
            }
        }
    }

    fn syn_shield(
        &mut self,
        mode: Option<Located<String>>,
        given: Option<Located<u64>>,
    ) -> SynShield {
        let mut per_second = SynShield::PER_SECOND;
        if let Some(Located { value, origin }) = given {
            match u32::try_from(value) {
                Ok(syns) if (1..=MAX_ANSWERS).contains(&syns) => per_second = syns,
                _ => {
                    let text = format!(
                        "syn_shield.per_second: {value} is not in the range 1 to {MAX_ANSWERS}"
                    );
                    self.problem(&origin, text);
                }
            }
        }
        let mode = self.choice(
            "syn_shield.mode",
            mode,
            &[
                ("auto", AtNic::Auto),
                ("on", AtNic::On),
                ("off", AtNic::Off),
            ],
        );
        match mode {
            AtNic::Auto => SynShield::Above { per_second },
            AtNic::On => SynShield::Always,
            AtNic::Off => SynShield::Off,
        }
    }

    fn limits(&mut self, limits: Limits, vips: &BTreeSet<IpAddr>) -> Capacity {
        // One entry for each VIP's address, and one port at least.
        let min_vips = 1 + vips.len() as u64;
        Capacity {
            vips: self.limit("vips", limits.vips, min_vips, limits::MAX_VIPS),
            slots: self.limit("slots", limits.slots, MIN_SLOTS, limits::MAX_SLOTS),
            // Id 0 means none.
            backends: self.limit("backends", limits.backends, 2, limits::MAX_BACKENDS),
            returns: self.limit("returns", limits.returns, 1, limits::MAX_RETURNS),
            conns: self.limit(
                "conns",
                limits.conns,
                1,
                limits::MAX_CONN_BUCKETS * lbagent_common::CONN_WAYS as u32,
            ),
            nat_flows: self.limit("nat_flows", limits.nat_flows, 1, limits::MAX_NAT_FLOWS),
            hosts: self.limit("hosts", limits.hosts, 1, limits::MAX_HOSTS),
        }
    }

    fn limit(&mut self, key: &str, given: Option<Located<u64>>, min: u64, default: u32) -> u32 {
        let Some(Located { value, origin }) = given else {
            if u64::from(default) < min {
                let text = format!("limits.{key}: must be {min} at least here");
                self.problem(&self.file.clone(), text);
            }
            return default;
        };
        match u32::try_from(value) {
            Ok(entries) if (min..=MAX_ENTRIES).contains(&value) => entries,
            _ => {
                let text =
                    format!("limits.{key}: {value} is not in the range {min} to {MAX_ENTRIES}");
                self.problem(&origin, text);
                default
            }
        }
    }
}

/// Why an address cannot be a VIP, or a backend's: nobody could send packets to it.
pub(crate) fn unusable_address(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    if address.to_canonical().is_loopback() {
        return Some("a loopback address");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an address of 0.0.0.0/8"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("an IPv4 address in its IPv6-mapped form")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local IPv6 address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
