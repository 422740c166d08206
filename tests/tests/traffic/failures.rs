//! What goes wrong on a working gateway: who notices, and what is said about it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lbagent_tests::client::{
    ANSWER, Connection, Transport, Unanswered, ensure_unanswered, identify_if_quick,
};
use lbagent_tests::gateway::{Gateway, PORT, everything, web_services};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4};

/// How long nobody answers before that is silence. An answer that took longer on a busy machine would be
/// missed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks a port of both VIPs by both transports and expects the same silence or refusal everywhere;
/// an outcome counts every one of the packets.
#[track_caller]
fn check_unanswered(gateway: &Gateway, port: u16, expected: Unanswered, outcome: &str) {
    for (vip, transport) in everything() {
        let before = gateway.agent.outcome(outcome).unwrap();
        let to = SocketAddr::new(vip, port);
        // Silence takes all of the time; a refusal that is late is one all the same.
        let patience = match expected {
            Unanswered::Silent => PATIENCE,
            Unanswered::Refused | Unanswered::Unreachable => ANSWER,
        };
        let found = ensure_unanswered(&gateway.topology.client, transport, to, patience).unwrap();
        assert_eq!(found, expected, "{transport} {to}");
        let what = format!("{transport} {to}: {outcome} to be more than {before}");
        let is_counted = || gateway.agent.outcome(outcome).unwrap() > before;
        poll_until(&what, SOON, is_counted).unwrap();
    }
}

#[test]
fn a_group_without_instances_drops_and_says_so() {
    require_root!();
    let gateway = Gateway::start(Shape::Routed, 1).unwrap();
    gateway.create_service("web", &web_services()).unwrap();
    check_unanswered(&gateway, PORT, Unanswered::Silent, "drop_no_backend");
    let status = gateway.agent.status().unwrap();
    let about_web = |found: &&lbagent_api::status::Condition| found.name == "web";
    let condition = status
        .conditions
        .iter()
        .find(about_web)
        .expect("a condition of web");
    assert!(
        condition.message.contains("no running instance"),
        "{condition:?}"
    );

    let backend = &gateway.topology.backends[0];
    gateway.attach("b1", "web", &backend.addresses).unwrap();
    gateway.probe().unwrap();
    assert_eq!(gateway.agent.condition_reasons().unwrap(), [""; 0]);
}

#[test]
fn all_drained_keeps_what_is_established() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let to = SocketAddr::new(VIP4, PORT);
    let mut connection = Connection::open(&gateway.topology.client, to).unwrap();
    connection.command("echo").unwrap();
    gateway.stop("b1", Duration::from_secs(60)).unwrap();
    gateway.stop("b2", Duration::from_secs(60)).unwrap();
    check_unanswered(&gateway, PORT, Unanswered::Silent, "drop_no_backend");
    connection.echo("still served").unwrap();
    gateway.start_instance("b1").unwrap();
    gateway.probe().unwrap();
    connection.echo("and still").unwrap();
}

#[test]
fn an_unreachable_backend_harms_no_other() {
    #[track_caller]
    fn check(shape: Shape, address: &str) {
        let gateway = Gateway::publish(shape, 1).unwrap();
        gateway
            .attach("nowhere", "web", &[address.parse().unwrap()])
            .unwrap();
        let to = SocketAddr::new(VIP4, PORT);
        let client = &gateway.topology.client;
        poll_until("b1 to answer beside the unreachable backend", SOON, || {
            identify_if_quick(client, to).is_some_and(|name| name == "b1")
        })
        .unwrap();
        gateway.delete_instance("nowhere").unwrap();
        gateway.spread(Transport::Tcp, VIP4, 40).unwrap();
    }
    require_root!();
    // Nobody has the address, although there is a link to it.
    check(Shape::Bridged, "10.66.0.99");
}

#[test]
fn an_address_without_a_route_is_reported_and_counted() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    gateway
        .attach("nowhere", "web", &["203.0.113.99".parse().unwrap()])
        .unwrap();
    let status = gateway.agent.status().unwrap();
    let reports = |address: &str| {
        status
            .conditions
            .iter()
            .any(|found| found.message.contains(&format!("route to {address}")))
    };
    assert!(reports("203.0.113.99"), "{:#?}", status.conditions);
    let before = gateway.agent.outcome("drop_no_route").unwrap();
    let (mut answered, mut silent) = (0, 0);
    let to = SocketAddr::new(VIP4, PORT);
    while answered == 0 || silent == 0 {
        match ensure_unanswered(&gateway.topology.client, Transport::Udp, to, PATIENCE) {
            Ok(found) => {
                assert_eq!(found, Unanswered::Silent);
                silent += 1;
            }
            Err(_) => answered += 1,
        }
        // Each of two backends has half of the table.
        assert!(
            answered + silent < 40,
            "{answered} answered, {silent} silent"
        );
    }
    // Every unanswered datagram has its reason.
    let counted = || gateway.agent.outcome("drop_no_route").unwrap() - before;
    let what = format!("{silent} datagrams to be counted");
    poll_until(&what, SOON, || counted() >= silent).unwrap();
    assert_eq!(counted(), silent);
}

#[test]
fn unpublished_ports_follow_the_policy() {
    #[track_caller]
    fn check(policy: &'static str, expected: Unanswered, outcome: &str) {
        let configure = |config: &mut lbagent_tests::agent::Config| {
            config.unpublished_ports = Some(policy);
        };
        let gateway = Gateway::start_with(Shape::Routed, 1, configure).unwrap();
        gateway.publish_web().unwrap();
        check_unanswered(&gateway, PORT + 1, expected, outcome);
        gateway.probe().unwrap();
    }
    require_root!();
    check("pass", Unanswered::Refused, "pass_not_vip");
    check("drop", Unanswered::Silent, "drop_unpublished");
}

#[test]
fn a_full_map_is_reported_and_leaves_the_rest_working() {
    #[track_caller]
    fn check(limit: &'static str, capacity: u32, map: &str) {
        let configure = |config: &mut lbagent_tests::agent::Config| {
            config.limits.insert(limit, capacity);
        };
        let gateway = Gateway::start_with(Shape::Routed, 2, configure).unwrap();
        gateway.create_service("web", &web_services()).unwrap();
        let b1 = &gateway.topology.backends[0];
        gateway.attach("b1", "web", &b1.addresses).unwrap();
        gateway.probe().unwrap();

        // Whether this call succeeds is not the question: nothing that worked may break.
        let address = |last: u8| IpAddr::from([10, 66, 0, last]);
        for number in 0..6 {
            let port = PORT + 100 + number;
            let group = format!("more-{number}");
            let services = serde_json::json!([lbagent_tests::gateway::service(port, 7000, "tcp")]);
            gateway.create_service(&group, &services).ok();
            gateway
                .attach(&format!("extra-{number}"), &group, &[address(12)])
                .ok();
        }
        let mut conditions = Vec::new();
        let told = poll_until("the full map to be told", SOON, || {
            conditions = gateway.agent.status().unwrap().conditions;
            let mut messages = conditions.iter().map(|found| &found.message);
            messages.any(|message| message.contains(&format!("map {map}")))
        });
        assert!(told.is_ok(), "{limit} = {capacity}: {conditions:#?}");
        gateway.probe().unwrap();

        for number in 0..6 {
            gateway.delete_instance(&format!("extra-{number}")).ok();
            gateway
                .agent
                .call(
                    "DELETE",
                    "/v1/services",
                    Some(&serde_json::json!([
                        { "name": format!("more-{number}") }
                    ])),
                )
                .ok();
        }
        poll_until("the conditions to go", SOON, || {
            gateway.agent.condition_reasons().unwrap().is_empty()
        })
        .unwrap();
        gateway.probe().unwrap();
    }
    require_root!();
    check("backends", 5, "BACKENDS");
    check("vips", 9, "VIPS");
    check("slots", 2048, "SLOTS");
}
