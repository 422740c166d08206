//! A state document as the planner's input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lbagent_api::state::{StateDocument, UnpublishedPorts as DocumentedPolicy};
use lbagent_common::table_len;

use super::ReplayState;
use crate::dataplane::{self, Capacity};
use crate::desired::{DesiredState, HealthPolicy, document};
use crate::plan::{GatewaySettings, SynShield, UnpublishedPorts, WithoutTerminator};

/// Reads what `lbctl state export` wrote.
pub(super) fn read(path: &Path, client_side: BTreeSet<u32>) -> Result<ReplayState> {
    let read =
        || -> Result<ReplayState> { convert(&document::parse(&fs::read(path)?)?, client_side) };
    read().with_context(|| format!("cannot use the state document {}", path.display()))
}

fn convert(document: &StateDocument, client_side: BTreeSet<u32>) -> Result<ReplayState> {
    let gateway = GatewaySettings {
        vips: document.vips.iter().copied().collect(),
        unpublished_ports: match document.unpublished_ports {
            DocumentedPolicy::Pass => UnpublishedPorts::Pass,
            DocumentedPolicy::Drop => UnpublishedPorts::Drop,
        },
        hash_seed: document.hash_seed,
        udp_idle: Duration::from_secs(document.udp_idle_s.into()),
        settle_after: GatewaySettings::SETTLE_AFTER,
        source_port_first: GatewaySettings::SOURCE_PORT_FIRST,
        source_port_count: GatewaySettings::SOURCE_PORT_COUNT,
        without_terminator: WithoutTerminator::Reset,
        answers_per_second: GatewaySettings::ANSWERS_PER_SECOND,
        redirect_at_nic: true,
        not_at_nic: None,
        without_shield: None,
        syn_shield: SynShield::Off,
    };
    let mut desired = document::import(document, &gateway.vips)?.state;
    // Nobody checks anything here: all instances count as healthy.
    for group in desired.service_groups.values_mut() {
        group.policy.health = HealthPolicy::default();
    }
    let paths = paths(document, &desired);
    let capacity = capacity(&desired, gateway.vips.len());
    Ok(ReplayState {
        desired,
        gateway,
        capacity,
        paths,
        client_side,
    })
}

/// The paths of the document. One written by hand may have none: then every backend is taken to
/// be behind a router.
fn paths(document: &StateDocument, desired: &DesiredState) -> BTreeMap<IpAddr, dataplane::Path> {
    /// Any index that is not that of a client interface.
    const SOME_INTERFACE: u32 = u32::MAX;
    let from_document = |paths: &BTreeMap<IpAddr, lbagent_api::state::StatePath>| {
        paths
            .iter()
            .map(|(ip, path)| {
                let lbagent_api::state::StatePath {
                    ifindex,
                    source,
                    onlink_prefix,
                } = *path;
                (
                    *ip,
                    dataplane::Path {
                        ifindex,
                        source,
                        onlink_prefix,
                        takes_xdp: true,
                        mtu: 0,
                        next_hop: None,
                    },
                )
            })
            .collect()
    };
    let behind_router = || {
        crate::plan::backend_addresses(desired)
            .into_iter()
            .map(|ip| {
                let (source, onlink_prefix) = match ip {
                    IpAddr::V4(_) => (IpAddr::from([0_u8; 4]), 32),
                    IpAddr::V6(_) => (IpAddr::from([0_u8; 16]), 128),
                };
                (
                    ip,
                    dataplane::Path {
                        ifindex: SOME_INTERFACE,
                        source,
                        onlink_prefix,
                        takes_xdp: true,
                        mtu: 0,
                        next_hop: None,
                    },
                )
            })
            .collect()
    };
    document
        .paths
        .as_ref()
        .map_or_else(behind_router, from_document)
}

/// Room for everything, as the exporting host had: its capacities are not in the document.
fn capacity(desired: &DesiredState, vips: usize) -> Capacity {
    let default = Capacity::default();
    let at_least = |default: u32, needed: usize| {
        u32::try_from(needed).map_or(u32::MAX, |needed| needed.max(default))
    };
    let mut members: BTreeMap<_, usize> = BTreeMap::new();
    for group in desired
        .instances
        .values()
        .filter_map(|instance| instance.service_group)
    {
        *members.entry(group).or_default() += 1;
    }
    let (mut published, mut replies, mut slots) = (0, 0, 0);
    for group in desired.service_groups.values() {
        let members = members.get(&group.uuid).copied().unwrap_or_default();
        published += group.services.len() * vips;
        replies += group.services.len() * members * 2;
        slots += table_len(members) as usize * 2;
    }
    Capacity {
        // Ids begin at 1, and every address has an entry too.
        vips: at_least(default.vips, published + vips + 1),
        slots: at_least(default.slots, slots),
        backends: at_least(default.backends, desired.instances.len() * 2 + 1),
        returns: at_least(default.returns, replies),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Transport;

    const DOCUMENT: &str = r#"{
      "format": 1, "vips": ["192.0.2.1"], "hash_seed": 42, "unpublished_ports": "drop",
      "service_groups": [{"uuid": "00000000-0000-4000-8000-000000000001", "name": "web",
        "created_at": "2026-01-02T03:04:05Z",
        "services": [{"port": 53, "destination_port": 5353, "protocol": "udp"}]}],
      "instances": [{"uuid": "00000000-0000-4000-8000-000000000002", "name": "a",
        "created_at": "2026-01-02T03:04:05Z", "state": "running", "addresses": ["10.0.0.7/32"],
        "service_group": "00000000-0000-4000-8000-000000000001"}]
    }"#;

    fn converted(text: &str) -> Result<ReplayState> {
        convert(&document::parse(text.as_bytes())?, BTreeSet::new())
    }

    #[test]
    fn a_document_becomes_desired_state() {
        let state = converted(DOCUMENT).unwrap();
        assert_eq!(state.gateway.hash_seed, 42);
        assert_eq!(state.gateway.unpublished_ports, UnpublishedPorts::Drop);
        let group = state.desired.service_groups.values().next().unwrap();
        assert_eq!(group.services[0].protocol, Transport::Udp);
        assert_eq!(state.desired.instances.len(), 1);
        // Without paths, backends count as behind a router.
        assert_eq!(state.paths[&IpAddr::from([10, 0, 0, 7])].onlink_prefix, 32);
        let wrapped = format!(r#"{{"state": {DOCUMENT}}}"#);
        assert_eq!(converted(&wrapped).unwrap().desired, state.desired);
    }

    #[test]
    fn what_cannot_be_replayed_is_named() {
        #[track_caller]
        fn check(from: &str, to: &str, expected: &str) {
            let text = DOCUMENT.replace(from, to);
            assert_ne!(text, DOCUMENT, "the case changes nothing");
            let error = format!("{:#}", converted(&text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        check(r#""format": 1"#, r#""format": 9"#, "format 9");
        check("10.0.0.7/32", "ten", "Instance 'a': Invalid value 'ten'");
        check(r#""vips""#, r#""vip""#, "Unknown member 'vip'");
        check(
            r#""protocol": "udp""#,
            r#""handlers": ["http"]"#,
            "Service group 'web': Service port 53 must not have the handler 'http'",
        );
        check("{", "", "JSON");
    }
}
