//! Instances come and go at any time, and each change has taken effect when its call returns.

use std::net::SocketAddr;
use std::time::Duration;

use lbagent_tests::client::{self, Connection, Transport};
use lbagent_tests::gateway::{Gateway, PORT, SERVER_PORT, everything, service, web_services};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIPS};
use serde_json::{Value, json};

/// Names that answer 100 connections.
fn names(gateway: &Gateway, transport: Transport, vip: std::net::IpAddr) -> Vec<String> {
    gateway
        .spread(transport, vip, 100)
        .unwrap()
        .into_keys()
        .collect()
}

#[test]
fn attaching_and_detaching_takes_effect_at_once() {
    require_root!();
    let gateway = Gateway::start(Shape::Routed, 3).unwrap();
    gateway.create_service("web", &web_services()).unwrap();
    let attach = |index: usize| {
        let backend = &gateway.topology.backends[index];
        gateway
            .attach(&backend.name, "web", &backend.addresses)
            .unwrap();
    };
    let check = |expected: &[&str]| {
        for (vip, transport) in everything() {
            assert_eq!(
                names(&gateway, transport, vip),
                expected,
                "{vip} {transport}"
            );
        }
    };
    attach(0);
    check(&["b1"]);
    attach(1);
    check(&["b1", "b2"]);
    attach(2);
    check(&["b1", "b2", "b3"]);
    gateway.delete_instance("b2").unwrap();
    check(&["b1", "b3"]);
    attach(1);
    check(&["b1", "b2", "b3"]);
}

#[test]
fn connections_to_surviving_backends_never_move() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let client = &gateway.topology.client;
    let open = |vip| Connection::open(client, SocketAddr::new(vip, PORT)).unwrap();
    let mut connections: Vec<_> = (0..30).flat_map(|_| VIPS.map(open)).collect();
    for connection in &mut connections {
        connection.command("echo").unwrap();
    }
    for round in 0..3 {
        gateway.delete_instance("b3").unwrap();
        let survivors = connections
            .iter_mut()
            .filter(|found| found.greeting.name != "b3");
        for connection in survivors {
            connection.echo("without b3").unwrap_or_else(|error| {
                panic!("round {round}, {}: {error:#}", connection.greeting.name)
            });
        }
        let b3 = &gateway.topology.backends[2];
        gateway.attach("b3", "web", &b3.addresses).unwrap();
        let survivors = connections
            .iter_mut()
            .filter(|found| found.greeting.name != "b3");
        for connection in survivors {
            connection.echo("with b3").unwrap_or_else(|error| {
                panic!("round {round}, {}: {error:#}", connection.greeting.name)
            });
        }
    }
}

#[test]
fn deleting_a_service_group_unpublishes_it() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    gateway.probe().unwrap();
    gateway.delete_instance("b1").unwrap();
    let data = gateway
        .agent
        .call("GET", "/v1/services?name=web", None)
        .unwrap();
    let uuid = data["service_groups"][0]["uuid"]
        .as_str()
        .unwrap()
        .to_owned();
    gateway
        .agent
        .call("DELETE", &format!("/v1/services/{uuid}"), None)
        .unwrap();
    assert_eq!(gateway.agent.vips().unwrap(), []);
    let before = gateway.agent.outcome("pass_not_vip").unwrap();
    for (vip, transport) in everything() {
        gateway.spread(transport, vip, 1).unwrap_err();
    }
    assert!(gateway.agent.outcome("pass_not_vip").unwrap() >= before + 4);
}

#[test]
fn a_moved_instance_takes_the_other_groups_traffic_and_keeps_none() {
    require_root!();
    const OTHER: u16 = PORT + 1;
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let other = json!([service(OTHER, SERVER_PORT, "tcp")]);
    gateway.create_service("other", &other).unwrap();
    let put = |group: Value, drain: Duration| {
        let body = json!({"service_group": group, "drain_timeout_ms": drain.as_millis() as u64});
        let path = "/v1/x/instances/b1/service-group";
        gateway.agent.call("PUT", path, Some(&body)).unwrap()
    };
    let client = &gateway.topology.client;
    let open = |port| Connection::open(client, SocketAddr::new(VIP4, port));
    let elsewhere = || {
        let to = SocketAddr::new(VIP4, OTHER);
        let spread = client::spread(client, Transport::Tcp, to, 20).unwrap();
        spread.into_keys().collect::<Vec<_>>()
    };
    let mut held: Vec<Connection> = (0..30).map(|_| open(PORT).unwrap()).collect();
    for connection in &mut held {
        connection.command("echo").unwrap();
    }
    let is_b1 = |connection: &Connection| connection.greeting.name == "b1";
    assert!(held.iter().any(is_b1));

    // First it keeps what is established, and takes nothing new.
    put(json!({"name": "other"}), Duration::from_secs(3600));
    assert_eq!(names(&gateway, Transport::Tcp, VIP4), ["b2"]);
    open(OTHER).unwrap_err();
    for connection in &mut held {
        connection.echo("while b1 drains").unwrap();
    }
    put(json!({"name": "other"}), Duration::ZERO);
    assert_eq!(names(&gateway, Transport::Tcp, VIP4), ["b2"]);
    assert_eq!(elsewhere(), ["b1"]);
    for connection in &mut held {
        let answer = connection.echo("after the move");
        assert_eq!(answer.is_ok(), !is_b1(connection), "{answer:?}");
    }

    put(Value::Null, Duration::ZERO);
    open(OTHER).unwrap_err();
    put(json!({"name": "web"}), Duration::ZERO);
    assert_eq!(names(&gateway, Transport::Tcp, VIP4), ["b1", "b2"]);
}
