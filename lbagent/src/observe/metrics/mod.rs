//! What collectors of metrics read: `/v1/x/metrics`. The names are in docs/metrics.md.
//!
//! Labels are words of ours, names of objects, and nothing that clients send: how many there are is
//! bounded by what is configured.

mod family;
mod requests;
mod served;

use std::collections::BTreeMap;

use lbagent_api::status::{Condition, Counters};
use lbagent_api::terminators::{Terminator, TerminatorState};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::dataplane::InterfaceStatus;
use crate::desired::{Caller, DEFAULT_ACCOUNT, DesiredState};
use crate::reconcile::ReconcileResult;
pub use family::{CONTENT_TYPE, Family, text};
pub use requests::RequestTimes;

/// What concerns the gateway as a whole.
pub struct Gateway<'a> {
    /// When the agent started.
    pub started_at: OffsetDateTime,
    /// What the last pass left behind.
    pub result: &'a ReconcileResult,
    /// How the programs are attached.
    pub interfaces: &'a [InterfaceStatus],
    /// What is not as it was asked for.
    pub conditions: &'a [Condition],
    /// Packets, and steered connections; none if they cannot be read.
    pub counters: Option<&'a Counters>,
    /// Requests to the API without a known caller.
    pub refused_requests: u64,
    /// How long requests to the API took.
    pub requests: &'a RequestTimes,
    /// The snapshot that terminators are to serve.
    pub snapshot: Option<u64>,
}

/// What metrics are made of.
pub struct Inputs<'a> {
    /// What was asked for.
    pub desired: &'a DesiredState,
    /// Who takes connections to ports with handlers.
    pub terminators: &'a [Terminator],
    /// For operators.
    pub gateway: Option<Gateway<'a>>,
    /// Whose objects are told; all if none is named.
    pub account: Option<Caller>,
}

/// All metrics.
pub fn families(inputs: &Inputs<'_>) -> Vec<Family> {
    let accounts = Accounts::of(inputs.desired);
    let mut families = Vec::new();
    if let Some(gateway) = &inputs.gateway {
        families.extend(of_agent(gateway, inputs.desired));
        families.push(gateway.requests.family());
        families.extend(of_conditions(gateway.conditions));
        families.extend(gateway.counters.into_iter().flat_map(of_packets));
        families.extend(of_terminators(gateway, inputs.terminators));
        families.extend(served::of_terminators(inputs.terminators));
    }
    families.push(of_certificates(inputs, &accounts));
    families.extend(served::of_groups(inputs, &accounts));
    families
}

/// Names of accounts.
struct Accounts<'a>(BTreeMap<Uuid, &'a str>);

impl<'a> Accounts<'a> {
    fn of(desired: &'a DesiredState) -> Self {
        let accounts = desired.access.accounts.values();
        Self(accounts.map(|it| (it.uuid, it.name.as_str())).collect())
    }

    fn name(&self, account: Uuid) -> &'a str {
        match self.0.get(&account) {
            Some(name) => name,
            None if account == DEFAULT_ACCOUNT => "default",
            None => "",
        }
    }
}

fn of_agent(gateway: &Gateway<'_>, desired: &DesiredState) -> Vec<Family> {
    let mut build = Family::gauge("build_info", "The agent's version");
    build.add([("version", env!("CARGO_PKG_VERSION"))], 1);
    let started = u64::try_from(gateway.started_at.unix_timestamp()).unwrap_or_default();
    let mut objects = Family::gauge("objects", "Objects of the desired state");
    for (kind, count) in [
        ("account", desired.access.accounts.len()),
        ("certificate", desired.certificates.len()),
        ("instance", desired.instances.len()),
        ("service_group", desired.service_groups.len()),
    ] {
        objects.add([("kind", kind)], count as u64);
    }
    let mut attached = Family::gauge("interface_attached", "Whether a program is attached");
    for interface in gateway.interfaces {
        let name = interface.interface.as_str();
        attached.add([("interface", name)], interface.mode.is_some().into());
    }
    let result = gateway.result;
    let applied = match result.error {
        None => result.generation,
        Some(_) => result.generation.saturating_sub(1),
    };
    vec![
        build,
        Family::gauge("start_time_seconds", "When the agent started, Unix time").of(started),
        Family::gauge("generation_desired", "Generation of the desired state")
            .of(desired.generation),
        Family::gauge("generation_applied", "Generation that the data plane has").of(applied),
        Family::counter("passes", "Passes of the reconciler").of(result.pass),
        Family::counter(
            "api_refused_requests",
            "Requests to the API of nobody known",
        )
        .of(gateway.refused_requests),
        objects,
        attached,
    ]
}

fn of_conditions(conditions: &[Condition]) -> [Family; 1] {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for condition in conditions {
        *counts
            .entry((condition.severity.as_str(), &condition.reason))
            .or_default() += 1;
    }
    let mut family = Family::gauge("conditions", "Objects that are not as they were asked for");
    for ((severity, reason), count) in counts {
        family.add([("severity", severity), ("reason", reason)], count);
    }
    [family]
}

fn of_packets(counters: &Counters) -> [Family; 5] {
    let mut packets = Family::counter("packets", "Packets by what became of them");
    let mut bytes = Family::counter("packet_bytes", "Their bytes");
    for outcome in &counters.outcomes {
        packets.add([("outcome", &outcome.outcome)], outcome.packets);
        bytes.add([("outcome", &outcome.outcome)], outcome.bytes);
    }
    let mut steered = Family::counter(
        "steered_connections",
        "Connections to ports with handlers by what became of them",
    );
    for (end, count) in &counters.steering {
        steered.add([("end", end)], *count);
    }
    let mut passed = Family::counter(
        "passed_redirects",
        "Segments for redirecting ports that were left to the terminator",
    );
    for (reason, count) in &counters.passed_redirects {
        passed.add([("reason", reason)], *count);
    }
    let flooded = Family::gauge(
        "flooded_vips",
        "VIPs with more SYNs than the shield leaves to the kernel",
    )
    .of(counters.flooded_vips);
    [packets, bytes, steered, passed, flooded]
}

fn of_terminators(gateway: &Gateway<'_>, terminators: &[Terminator]) -> [Family; 3] {
    let mut states = Family::gauge("terminators", "Terminators by state");
    for state in [
        TerminatorState::Preparing,
        TerminatorState::Active,
        TerminatorState::Standby,
        TerminatorState::Draining,
    ] {
        let count = terminators.iter().filter(|it| it.state == state).count();
        states.add([("state", state.as_str())], count as u64);
    }
    let mut serves = Family::gauge("terminator_generation", "Snapshot that a terminator serves");
    for terminator in terminators {
        if let Some(generation) = terminator.generation {
            serves.add([("terminator", &terminator.id.to_string())], generation);
        }
    }
    let latest = gateway.snapshot.unwrap_or_default();
    let help = "Snapshot that terminators are to serve";
    [
        states,
        serves,
        Family::gauge("snapshot_generation", help).of(latest),
    ]
}

fn of_certificates(inputs: &Inputs<'_>, accounts: &Accounts<'_>) -> Family {
    let mut ends = Family::gauge(
        "certificate_not_after_timestamp_seconds",
        "When a certificate ends, Unix time",
    );
    for certificate in inputs.desired.certificates.values() {
        if inputs
            .account
            .is_none_or(|it| it.account == certificate.account)
        {
            let labels = [
                ("account", accounts.name(certificate.account)),
                ("certificate", &certificate.name),
            ];
            let end = u64::try_from(certificate.not_after.unix_timestamp());
            ends.add(labels, end.unwrap_or_default());
        }
    }
    ends
}

#[cfg(test)]
mod tests;
