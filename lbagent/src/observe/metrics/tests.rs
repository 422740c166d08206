use std::time::Duration;

use lbagent_api::terminator::{Durations, GroupReport, InstanceReport, Report};
use lbagent_api::terminators::TerminatorKind;

use super::*;
use crate::desired::Role;
use crate::plan::testing::{World, group_uuid, instance_uuid, v4};
use crate::reconcile::WakeReason;

fn terminator(id: u32, counters: &[(&str, u64)], groups: Vec<GroupReport>) -> Terminator {
    let counters = counters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    Terminator {
        id,
        software: "lbterm 0".into(),
        pid: 7,
        kind: TerminatorKind::Connected,
        state: TerminatorState::Active,
        families: Vec::new(),
        sockets: 1,
        generation: Some(5),
        faults: Vec::new(),
        report: Some(Report {
            generation: Some(5),
            connections: 3,
            counters: counters.collect(),
            requests_took: took(&[200, 3_000, 40_000_000]),
            groups,
            gone: Vec::new(),
        }),
    }
}

fn took(micros: &[u64]) -> Durations {
    let mut durations = Durations::default();
    for micros in micros {
        durations.add(Duration::from_micros(*micros));
    }
    durations
}

fn group_report(number: u8) -> GroupReport {
    let counters = [("requests", 9), ("responses_5xx", 2), ("connect_failed", 4)];
    let instance = |number, in_flight, is_ejected| InstanceReport {
        uuid: instance_uuid(number),
        in_flight,
        served: 1,
        failed: 1,
        is_ejected,
    };
    GroupReport {
        uuid: group_uuid(number),
        counters: counters
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        instances: vec![instance(1, 3, false), instance(2, 4, true)],
    }
}

fn world() -> World {
    let mut world = World::new(&[v4(250)]);
    world.add_group(1, &[(443, 8080)]).name = "web \"1\"".into();
    world.add_group(2, &[(80, 8080)]).account = Uuid::from_u128(9);
    world
}

/// What an operator reads.
fn whole(world: &World, terminators: &[Terminator]) -> Vec<Family> {
    let result = ReconcileResult {
        pass: 1,
        generation: 0,
        applied_at: OffsetDateTime::UNIX_EPOCH,
        wake_reason: WakeReason::Start,
        steps: 0,
        conditions: Vec::new(),
        error: None,
    };
    let requests = RequestTimes::default();
    let took = Duration::from_millis(3);
    for status in [200, 201, 404] {
        requests.add("GET", "/v1/services/{uuid}", status, took);
    }
    requests.add("BREW", "/v1/services", 405, took);
    let counters = Counters {
        taken_at: OffsetDateTime::UNIX_EPOCH,
        outcomes: Vec::new(),
        steering: [("to_terminator".to_owned(), 8)].into(),
        passed_redirects: [("unknown_host".to_owned(), 9)].into(),
        flooded_vips: 3,
        fragments: Default::default(),
    };
    families(&Inputs {
        desired: &world.desired,
        terminators,
        gateway: Some(Gateway {
            started_at: OffsetDateTime::UNIX_EPOCH,
            result: &result,
            interfaces: &[],
            conditions: &[],
            counters: Some(&counters),
            refused_requests: 6,
            requests: &requests,
            snapshot: Some(5),
        }),
        account: None,
    })
}

#[track_caller]
fn check(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found == *line),
            "no {line}\n{text}"
        );
    }
}

#[test]
fn operators_read_all_of_it() {
    let counters = [
        ("accepted", 20),
        ("handshakes", 10),
        ("handshakes_resumed", 4),
        ("handshake_failed", 5),
        ("handshake_timeout", 2),
        ("refused_limit", 1),
        ("upstream_late", 7),
        ("Not a name", 1),
    ];
    let terminators = [terminator(
        1,
        &counters,
        vec![group_report(1), group_report(2)],
    )];
    let text = text(whole(&world(), &terminators)).unwrap();
    let term_took = "lbagent_terminator_request_duration_seconds";
    let api_took = "lbagent_api_request_duration_seconds";
    let path = "path=\"/v1/services/{uuid}\"";
    let group = "account=\"default\",group=\"web \\\"1\\\"\",terminator=\"1\"";
    check(
        &text,
        &[
            "# TYPE lbagent_group_requests counter",
            "lbagent_steered_connections_total{end=\"to_terminator\"} 8",
            "lbagent_passed_redirects_total{reason=\"unknown_host\"} 9",
            "lbagent_flooded_vips 3",
            "lbagent_terminators{state=\"active\"} 1",
            "lbagent_terminators{state=\"draining\"} 0",
            "lbagent_snapshot_generation 5",
            "lbagent_terminator_connections{terminator=\"1\"} 3",
            "lbagent_terminator_refused_connections_total{terminator=\"1\",reason=\"limit\"} 1",
            "lbagent_terminator_handshakes_total{terminator=\"1\",session=\"new\"} 6",
            "lbagent_terminator_handshake_failures_total{terminator=\"1\",reason=\"timeout\"} 2",
            "lbagent_terminator_handshake_failures_total{terminator=\"1\",reason=\"other\"} 3",
            "lbagent_terminator_events_total{terminator=\"1\",event=\"upstream_late\"} 7",
            &format!("lbagent_group_requests_total{{{group}}} 9"),
            &format!("lbagent_group_responses_total{{{group},class=\"5xx\"}} 2"),
            &format!("lbagent_group_upstream_errors_total{{{group},reason=\"connect_failed\"}} 4"),
            &format!("lbagent_group_in_flight{{{group}}} 7"),
            &format!("lbagent_group_ejected_instances{{{group}}} 1"),
            "# TYPE lbagent_terminator_request_duration_seconds histogram",
            &format!("{term_took}_bucket{{le=\"0.00025\",terminator=\"1\"}} 1"),
            &format!("{term_took}_bucket{{le=\"0.0025\",terminator=\"1\"}} 1"),
            &format!("{term_took}_bucket{{le=\"0.005\",terminator=\"1\"}} 2"),
            &format!("{term_took}_bucket{{le=\"30.0\",terminator=\"1\"}} 2"),
            &format!("{term_took}_bucket{{le=\"+Inf\",terminator=\"1\"}} 3"),
            &format!("{term_took}_count{{terminator=\"1\"}} 3"),
            &format!("{term_took}_sum{{terminator=\"1\"}} 40.0032"),
            &format!("{api_took}_count{{method=\"GET\",{path},class=\"2xx\"}} 2"),
            &format!("{api_took}_count{{method=\"GET\",{path},class=\"4xx\"}} 1"),
            &format!("{api_took}_count{{method=\"other\",path=\"/v1/services\",class=\"4xx\"}} 1"),
            "lbagent_objects{kind=\"service_group\"} 2",
            "lbagent_metrics_groups_left_out 0",
            "# EOF",
        ],
    );
    assert!(!text.contains("Not a name"), "{text}");
}

#[test]
fn others_read_what_their_account_has() {
    let terminators = [terminator(
        1,
        &[("accepted", 20)],
        vec![group_report(1), group_report(2)],
    )];
    let world = world();
    let caller = Caller {
        role: Role::Reader,
        account: Uuid::from_u128(9),
    };
    let text = text(families(&Inputs {
        desired: &world.desired,
        terminators: &terminators,
        gateway: None,
        account: Some(caller),
    }))
    .unwrap();
    let groups = text
        .lines()
        .filter(|line| line.starts_with("lbagent_group_requests_total"));
    assert_eq!(groups.count(), 1, "{text}");
    assert!(
        !text.contains("web") && !text.contains("accepted"),
        "{text}"
    );
}

#[test]
fn series_are_bounded() {
    let mut world = World::new(&[v4(250)]);
    let group = world.add_group(1, &[(443, 8080)]).clone();
    let reports = (1..=6_000).map(|number| {
        let uuid = Uuid::from_u128(number);
        let group = crate::desired::ServiceGroup {
            uuid,
            name: number.to_string(),
            ..group.clone()
        };
        world.desired.put_group(group);
        GroupReport {
            uuid,
            ..group_report(1)
        }
    });
    let reports = reports.collect();
    let names: Vec<String> = (0..1_000).map(|number| format!("event_{number}")).collect();
    let counters: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let text = text(whole(&world, &[terminator(1, &counters, reports)])).unwrap();
    check(&text, &["lbagent_metrics_groups_left_out 1000"]);
    let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("lbagent_group_requests_total{"), 5_000);
    assert_eq!(count("lbagent_terminator_events_total{"), 128);
}

#[test]
fn each_metric_is_documented() {
    let documented = include_str!("../../../../docs/metrics.md");
    let families = whole(&world(), &[terminator(1, &[], vec![group_report(1)])]);
    for family in &families {
        let row = format!("| `{}` |", family.full_name());
        assert!(
            documented.contains(&row),
            "docs/metrics.md has no row {row}"
        );
    }
    let rows = documented
        .lines()
        .filter(|line| line.starts_with("| `lbagent_"));
    assert_eq!(rows.count(), families.len(), "a row too many");
}
