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

/// Limits are in milliseconds, and written down in seconds.
const SECOND: u32 = 1_000;

impl Checker<'_> {
    pub(super) fn serving(&mut self, mut settings: Serving) -> ServingSettings {
        let trusted = settings.trusted_proxies.take();
        let from = settings.proxy_protocol_from.take();
        ServingSettings {
            limits: self.bounds(settings),
            proxies: Proxies {
                trusted: self.prefixes("terminator.trusted_proxies", trusted),
                proxy_protocol: self.prefixes("terminator.proxy_protocol_from", from),
            },
        }
    }

    fn bounds(&mut self, settings: Serving) -> Limits {
        let mut limits = Limits::default();
        let it = &mut limits;
        let mut bound = |key, given, place: &mut u32, range| self.bound(key, given, place, range);
        let (key, place) = ("connections", &mut it.connections);
        bound(key, settings.connections, place, (1, 10_000_000));
        let (key, place) = ("connections_per_source", &mut it.connections_per_source);
        bound(key, settings.connections_per_source, place, (0, 10_000_000));
        let (key, place) = ("requests_per_source", &mut it.requests_per_source);
        bound(key, settings.requests_per_source, place, (0, 1_000_000));
        // The least that hyper takes.
        let (key, place) = ("head_bytes", &mut it.head_bytes);
        bound(key, settings.head_bytes, place, (8_192, 1_048_576));
        let mut time = |key, given, place: &mut u32, most| {
            let mut seconds = *place / SECOND;
            bound(key, given, &mut seconds, (1, most));
            *place = seconds * SECOND;
        };
        let (key, place) = ("handshake_timeout_s", &mut it.handshake_timeout_ms);
        time(key, settings.handshake_timeout_s, place, 300);
        let (key, place) = ("head_timeout_s", &mut it.head_timeout_ms);
        time(key, settings.head_timeout_s, place, 3_600);
        let (key, place) = ("idle_timeout_s", &mut it.idle_timeout_ms);
        time(key, settings.idle_timeout_s, place, 86_400);
        limits
    }

    /// Takes a number over, if one is given.
    fn bound(&mut self, key: &str, given: Value<u64>, place: &mut u32, (least, most): (u32, u32)) {
        let Some(Located { value, origin }) = given else {
            return;
        };
        let number = u32::try_from(value).ok();
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => *place = number,
            None => self.problem(
                &origin,
                format!("terminator.limits.{key}: {value} is not in the range {least} to {most}"),
            ),
        }
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
