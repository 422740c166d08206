//! What terminators have told of themselves and of groups. Each is a source of its own, which begins at 0
//! and ends: hence the label `terminator`.

use std::collections::BTreeMap;

use lbagent_api::terminator::GroupReport;
use lbagent_api::terminators::Terminator;

use super::{Accounts, Family, Inputs};

/// Most groups with metrics of their own, each with some 15 lines.
const MAX_GROUPS: usize = 5_000;
/// Most names of counters of one terminator.
const MAX_EVENTS: usize = 128;
/// Longest such name.
const MAX_NAME: usize = 48;

/// Connections that are turned away at once, by their counter.
const REFUSALS: [(&str, &str); 4] = [
    ("refused_limit", "limit"),
    ("refused_source", "source"),
    ("refused_unpublished", "unpublished"),
    ("proxy_header_invalid", "proxy_header"),
];
/// Handshakes that fail, by their counter; what is in none of these is `other`.
const FAILURES: [(&str, &str); 3] = [
    ("handshake_timeout", "timeout"),
    ("handshake_unknown_name", "unknown_name"),
    ("handshake_no_name", "no_name"),
];
/// The others that have a family of their own.
const OWN: [&str; 4] = [
    "accepted",
    "handshakes",
    "handshakes_resumed",
    "handshake_failed",
];

/// What they have told of themselves.
pub(super) fn of_terminators(terminators: &[Terminator]) -> [Family; 7] {
    let mut open = Family::gauge("terminator_connections", "Connections of clients");
    let mut accepted = Family::counter("terminator_accepted_connections", "Accepted connections");
    let mut refused = Family::counter(
        "terminator_refused_connections",
        "Connections that were turned away at once",
    );
    let mut handshakes = Family::counter("terminator_handshakes", "TLS handshakes");
    let mut failures = Family::counter("terminator_handshake_failures", "Failed TLS handshakes");
    let mut events = Family::counter("terminator_events", "What else is counted");
    let mut took = Family::histogram(
        "terminator_request_duration_seconds",
        "From the head of a request to an instance to that of its answer",
    );
    for terminator in terminators {
        let Some(report) = &terminator.report else {
            continue;
        };
        let id = terminator.id.to_string();
        let id = ("terminator", id.as_str());
        let count = |name: &str| report.counters.get(name).copied().unwrap_or_default();
        open.add([id], report.connections);
        took.add_durations([id], &report.requests_took);
        accepted.add([id], count("accepted"));
        for (name, reason) in REFUSALS {
            refused.add([id, ("reason", reason)], count(name));
        }
        let resumed = count("handshakes_resumed");
        let new = count("handshakes").saturating_sub(resumed);
        handshakes.add([id, ("session", "new")], new);
        handshakes.add([id, ("session", "resumed")], resumed);
        let named: u64 = FAILURES.iter().map(|(name, _)| count(name)).sum();
        for (name, reason) in FAILURES {
            failures.add([id, ("reason", reason)], count(name));
        }
        let other = count("handshake_failed").saturating_sub(named);
        failures.add([id, ("reason", "other")], other);
        for (name, value) in others(&report.counters) {
            events.add([id, ("event", name)], value);
        }
    }
    [open, accepted, refused, handshakes, failures, took, events]
}

/// Counters without a family of their own. A terminator chooses the names, but not any.
fn others(counters: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    let is_sane = |name: &str| {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit();
        name.len() <= MAX_NAME && name.bytes().all(is_plain)
    };
    let has_own = |name: &str| {
        let mut listed = REFUSALS.iter().chain(&FAILURES).map(|(name, _)| *name);
        OWN.contains(&name) || listed.any(|other| other == name)
    };
    counters
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .filter(move |(name, _)| is_sane(name) && !has_own(name))
        .take(MAX_EVENTS)
}

struct Groups {
    requests: Family,
    responses: Family,
    streams: Family,
    errors: Family,
    over_soft_limit: Family,
    idle_timeouts: Family,
    bytes: Family,
    in_flight: Family,
    ejected: Family,
}

/// What they have told of groups.
pub(super) fn of_groups(inputs: &Inputs<'_>, accounts: &Accounts<'_>) -> Vec<Family> {
    let mut groups = Groups {
        requests: Family::counter("group_requests", "Requests"),
        responses: Family::counter("group_responses", "Answers of instances by class of status"),
        streams: Family::counter("group_streams", "Connections of tls alone"),
        errors: Family::counter(
            "group_upstream_errors",
            "Requests and connections without an instance, and attempts to connect that failed",
        ),
        over_soft_limit: Family::counter(
            "group_over_soft_limit",
            "Requests and connections while each instance had its soft limit",
        ),
        idle_timeouts: Family::counter("group_idle_timeouts", "Streams closed for silence"),
        bytes: Family::counter("group_bytes", "Bytes from (in) and to (out) clients"),
        in_flight: Family::gauge("group_in_flight", "Requests and connections under way"),
        ejected: Family::gauge(
            "group_ejected_instances",
            "Instances that get nothing for now because they failed",
        ),
    };
    let mut left_out = 0;
    for terminator in inputs.terminators {
        let reports = terminator.report.iter().flat_map(|report| &report.groups);
        let id = terminator.id.to_string();
        let mut told = 0;
        for report in reports {
            let group = inputs.desired.service_groups.get(&report.uuid);
            let is_visible = |account| inputs.account.is_none_or(|it| it.account == account);
            // Of one that was deleted there is nothing left to tell.
            let Some(group) = group.filter(|group| is_visible(group.account)) else {
                continue;
            };
            if told == MAX_GROUPS {
                left_out += 1;
                continue;
            }
            told += 1;
            let labels = [
                ("account", accounts.name(group.account)),
                ("group", group.name.as_str()),
                ("terminator", id.as_str()),
            ];
            groups.add(labels, report);
        }
    }
    let help = "Groups without metrics, because there are too many";
    let mut families: Vec<Family> = groups.into();
    families.push(Family::gauge("metrics_groups_left_out", help).of(left_out));
    families
}

impl Groups {
    fn add(&mut self, labels: [(&'static str, &str); 3], report: &GroupReport) {
        let [account, group, terminator] = labels;
        let count = |name: &str| report.counters.get(name).copied().unwrap_or_default();
        self.requests.add(labels, count("requests"));
        for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            let value = count(&format!("responses_{class}"));
            let labels = [account, group, terminator, ("class", class)];
            self.responses.add(labels, value);
        }
        self.streams.add(labels, count("streams"));
        for reason in [
            "connect_failed",
            "no_instance",
            "over_hard_limit",
            "unreachable",
        ] {
            let labels = [account, group, terminator, ("reason", reason)];
            self.errors.add(labels, count(reason));
        }
        self.over_soft_limit.add(labels, count("over_soft_limit"));
        self.idle_timeouts.add(labels, count("idle_timeout"));
        for (direction, name) in [("in", "bytes_in"), ("out", "bytes_out")] {
            let labels = [account, group, terminator, ("direction", direction)];
            self.bytes.add(labels, count(name));
        }
        let instances = &report.instances;
        let in_flight = instances.iter().map(|instance| instance.in_flight).sum();
        self.in_flight.add(labels, in_flight);
        let ejected = instances.iter().filter(|it| it.is_ejected).count();
        self.ejected.add(labels, ejected as u64);
    }
}

impl From<Groups> for Vec<Family> {
    fn from(groups: Groups) -> Self {
        let Groups {
            requests,
            responses,
            streams,
            errors,
            over_soft_limit,
            idle_timeouts,
            bytes,
            in_flight,
            ejected,
        } = groups;
        vec![
            requests,
            responses,
            streams,
            errors,
            over_soft_limit,
            idle_timeouts,
            bytes,
            in_flight,
            ejected,
        ]
    }
}
