use lbagent_api::instance::InstanceState;
use lbagent_api::service_group::Protocol;
use lbagent_api::status::Verdict;
use lbagent_api::trace::{
    ChoiceReason, TraceChoice, TraceName, TraceNextHop, TraceSourceRule, TraceStored,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::table::tests::check_fits;

fn instance(name: &str, id: u32) -> TraceInstance {
    TraceInstance {
        uuid: Uuid::from_u128(id.into()),
        name: name.into(),
        ip: format!("10.66.0.{id}").parse().unwrap(),
        state: InstanceState::Draining,
        is_alive: true,
        backend_id: id,
    }
}

fn trace() -> Trace {
    Trace {
        taken_at: OffsetDateTime::UNIX_EPOCH,
        protocol: Protocol::Tcp,
        source: "203.0.113.7:40000".parse().unwrap(),
        destination: "192.0.2.10:443".parse().unwrap(),
        is_new: false,
        interface: Some("eth0".into()),
        published: Published::Forward,
        service_group: Some(TraceName {
            uuid: Uuid::nil(),
            name: "web".into(),
        }),
        source_rule: Some(TraceSourceRule {
            is_admitted: true,
            prefix: Some("203.0.113.0/24".into()),
        }),
        quic_server_id_len: None,
        flow_hash: Some("00000000000000ff".into()),
        slot: Some(TraceSlot {
            index: 7,
            table_len: 509,
            table_offset: 1018,
            current: Some(instance("b2", 2)),
            previous: Some(instance("b1", 1)),
            is_settled: false,
        }),
        former_slot: None,
        changed_s_ago: Some(12),
        stored: Some(TraceStored {
            owner: Some(instance("b1", 1)),
            last_seen_s_ago: 3,
            is_established: true,
        }),
        choice: Some(TraceChoice {
            instance: Some(instance("b1", 1)),
            why: ChoiceReason::Stored,
            is_stored_now: false,
        }),
        forwarding: Some(TraceForwarding {
            mode: "nat".into(),
            source: "203.0.113.7:40000".into(),
            destination: "10.66.0.1:8443".into(),
            source_choice: SourceChoice::Client,
            next_hop: TraceNextHop {
                is_resolved: true,
                interface: Some("eth1".into()),
                link_address: Some("02:00:00:00:01:01".into()),
                vlan: None,
                mtu: Some(1500),
                is_via_kernel: false,
            },
        }),
        outcome: "forward_redirect".into(),
        verdict: Verdict::Forwarded,
        reason: "leaves by eth1".into(),
    }
}

#[test]
fn every_step_is_a_line() {
    let expected = "\
packet       tcp 203.0.113.7:40000 -> 192.0.2.10:443, of a flow that goes on, arrives by eth0
destination  published port of service group 'web' (00000000-0000-0000-0000-000000000000)
source       admitted by the rule for 203.0.113.0/24
slot         7 of 509 at 1018, by hash 00000000000000ff: changed: new flows to b2, flows that are not stored to b1; the table changed 12 s ago
stored       with b1, last packet 3 s ago, established
choice       b1: the flow is stored
backend      b1 (00000000-0000-0000-0000-000000000001) at 10.66.0.1, draining
forwarding   nat: leaves as 203.0.113.7:40000 -> 10.66.0.1:8443
next hop     02:00:00:00:01:01, by eth1, MTU 1500
outcome      forward_redirect (forwarded): leaves by eth1";
    assert_eq!(render(&trace()), expected);
}

#[test]
fn a_packet_that_ends_early_has_few_lines() {
    let early = Trace {
        published: Published::Foreign,
        service_group: None,
        source_rule: None,
        slot: None,
        choice: None,
        forwarding: None,
        outcome: "pass_not_vip".into(),
        verdict: Verdict::Passed,
        reason: "no VIP".into(),
        ..trace()
    };
    let lines = render(&early);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.ends_with("pass_not_vip (passed): no VIP"), "{lines}");
}

#[test]
fn wrong_flows_are_usage_mistakes() {
    #[track_caller]
    fn check(words: [&str; 3], expected: &str) {
        let [protocol, source, destination] = words.map(str::to_owned);
        let arguments = Arguments {
            protocol,
            source,
            destination,
            new: false,
            interface: None,
            host: None,
        };
        let error = arguments.query().unwrap_err();
        assert_eq!(error.exit_code(), crate::error::exit::USAGE);
        assert!(error.to_string().contains(expected), "{error}");
    }
    check(["sctp", "1.2.3.4:5", "1.2.3.4:5"], "expected tcp or udp");
    check(["tcp", "1.2.3.4", "1.2.3.4:5"], "Invalid source '1.2.3.4'");
    check(["tcp", "1.2.3.4:5", "::1:5"], "in brackets");
    check(
        ["udp", "1.2.3.4:5", "[::1]:5"],
        "one is IPv4, the other IPv6",
    );
}

#[test]
fn a_trace_fits_a_terminal() {
    let mut worst = trace();
    worst.reason = "because of what was said before ".repeat(6);
    let text = check_fits("trace", || render(&worst));
    assert!(text.contains("because"), "{text}");
}
