//! What the settings of `[terminator.limits]` and of proxies mean: what a terminator is told beside the
//! desired state.

use lbagent_api::policy::{IpNetwork, parse_prefix};
use lbagent_api::terminator::{Limits, Proxies};

use super::reader::{Located, Table};
use super::settings::Value;
use super::validate::Checker;
use super::{Problem, ServingSettings};

/// `[terminator.limits]` and the lists of proxies, as written down.
#[derive(Default)]
pub(super) struct Serving {
    connections: Value<u64>,
    connections_per_source: Value<u64>,
    requests_per_source: Value<u64>,
    handshake_timeout_s: Value<u64>,
    head_timeout_s: Value<u64>,
    idle_timeout_s: Value<u64>,
    head_bytes: Value<u64>,
    trusted_proxies: Option<Vec<Located<String>>>,
    proxy_protocol_from: Option<Vec<Located<String>>>,
}

impl Serving {
    pub(super) fn read(table: &mut Table<'_, '_>, problems: &mut Vec<Problem>) -> Self {
        let mut limits = table.table("limits", problems);
        let read = Self {
            connections: limits.number("connections", problems),
            connections_per_source: limits.number("connections_per_source", problems),
            requests_per_source: limits.number("requests_per_source", problems),
            handshake_timeout_s: limits.number("handshake_timeout_s", problems),
            head_timeout_s: limits.number("head_timeout_s", problems),
            idle_timeout_s: limits.number("idle_timeout_s", problems),
            head_bytes: limits.number("head_bytes", problems),
            trusted_proxies: table.strings("trusted_proxies", problems),
            proxy_protocol_from: table.strings("proxy_protocol_from", problems),
        };
        limits.finish(problems);
        read
    }
}

impl Checker<'_> {
    pub(super) fn serving(&mut self, settings: Serving) -> ServingSettings {
        let mut limits = Limits::default();
        let seconds = 1_000;
        for (key, given, place, (least, most), scale) in [
            (
                "connections",
                settings.connections,
                &mut limits.connections,
                (1, 10_000_000),
                1,
            ),
            (
                "connections_per_source",
                settings.connections_per_source,
                &mut limits.connections_per_source,
                (0, 10_000_000),
                1,
            ),
            (
                "requests_per_source",
                settings.requests_per_source,
                &mut limits.requests_per_source,
                (0, 1_000_000),
                1,
            ),
            (
                "handshake_timeout_s",
                settings.handshake_timeout_s,
                &mut limits.handshake_timeout_ms,
                (1, 300),
                seconds,
            ),
            (
                "head_timeout_s",
                settings.head_timeout_s,
                &mut limits.head_timeout_ms,
                (1, 3_600),
                seconds,
            ),
            (
                "idle_timeout_s",
                settings.idle_timeout_s,
                &mut limits.idle_timeout_ms,
                (1, 86_400),
                seconds,
            ),
            // The least that hyper takes.
            (
                "head_bytes",
                settings.head_bytes,
                &mut limits.head_bytes,
                (8_192, 1_048_576),
                1,
            ),
        ] {
            let Some(Located { value, origin }) = given else {
                continue;
            };
            let number = u32::try_from(value).ok();
            match number.filter(|number| (least..=most).contains(number)) {
                Some(number) => *place = number * scale,
                None => self.problem(
                    &origin,
                    format!(
                        "terminator.limits.{key}: {value} is not in the range {least} to {most}"
                    ),
                ),
            }
        }
        let proxies = Proxies {
            trusted: self.prefixes("terminator.trusted_proxies", settings.trusted_proxies),
            proxy_protocol: self.prefixes(
                "terminator.proxy_protocol_from",
                settings.proxy_protocol_from,
            ),
        };
        ServingSettings { limits, proxies }
    }

    fn prefixes(&mut self, key: &str, texts: Option<Vec<Located<String>>>) -> Vec<IpNetwork> {
        let mut prefixes = Vec::new();
        for Located { value, origin } in texts.unwrap_or_default() {
            match parse_prefix(&value) {
                Ok(prefix) => prefixes.push(prefix),
                Err(error) => self.problem(&origin, format!("{key}: {error}")),
            }
        }
        prefixes
    }
}
