//! Draining: no new connections, existing ones go on until they end or the time is over.

use std::net::SocketAddr;
use std::time::Duration;

use lbagent_tests::client::{Connection, Transport, exchange_on, udp_socket_here};
use lbagent_tests::gateway::{Gateway, PORT, everything};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIP6};
use lbagent_tests::transfer::{Direction, LONG, Transfer};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_transfer_survives_the_drain_of_its_backend() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let to = SocketAddr::new(VIP4, PORT);
    let pace = Duration::from_secs(4);
    let transfer = Transfer::start(
        &gateway.topology.client,
        to,
        Direction::Download,
        LONG,
        pace,
    )
    .unwrap();
    transfer.wait_for(0.2).unwrap();
    gateway.stop(&transfer.backend, MINUTE).unwrap();
    for (vip, transport) in everything() {
        let spread = gateway.spread(transport, vip, 60).unwrap();
        assert!(
            !spread.contains_key(&transfer.backend),
            "{vip} {transport}: {spread:?}"
        );
    }
    transfer.ensure_running().unwrap();
    transfer.finish().unwrap();
}

#[test]
fn established_flows_stay_with_a_draining_backend() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let client = &gateway.topology.client;
    for vip in [VIP4, VIP6] {
        let to = SocketAddr::new(vip, PORT);
        let mut connections: Vec<_> = (0..30)
            .map(|_| Connection::open(client, to).unwrap())
            .collect();
        for connection in &mut connections {
            connection.command("echo").unwrap();
        }
        let sockets: Vec<_> = (0..30)
            .map(|_| client.run(|| udp_socket_here(to, None).unwrap()))
            .collect();
        let who = |socket| {
            exchange_on(socket, b"x")
                .unwrap()
                .with_source_kept()
                .unwrap()
        };
        let before: Vec<String> = sockets.iter().map(who).collect();

        gateway.stop("b2", MINUTE).unwrap();
        for connection in &mut connections {
            connection.echo("still there").unwrap();
        }
        let after: Vec<String> = sockets.iter().map(who).collect();
        assert_eq!(before, after, "{vip}: UDP flows moved");
        assert!(
            after.iter().any(|name| name == "b2"),
            "{vip}: none of 30 flows was b2's"
        );

        gateway.start_instance("b2").unwrap();
        for connection in &mut connections {
            connection.echo("and after its return").unwrap();
        }
        let spread = gateway.spread(Transport::Tcp, vip, 100).unwrap();
        assert_eq!(spread.len(), 3, "{vip}: {spread:?}");
    }
}

#[test]
fn the_deadline_ends_what_is_left() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let to = SocketAddr::new(VIP4, PORT);
    let mut connection = Connection::open(&gateway.topology.client, to).unwrap();
    connection.command("echo").unwrap();
    let backend = connection.greeting.name.clone();
    // Long enough for an echo on a busy machine.
    gateway.stop(&backend, Duration::from_secs(5)).unwrap();
    connection.echo("draining").unwrap();
    poll_until("the instance to stop", SOON, || {
        let data = gateway
            .agent
            .call("GET", &format!("/v1/instances?name={backend}"), None);
        data.unwrap()["instances"][0]["state"] == "stopped"
    })
    .unwrap();
    // The flow goes to the other backend now, which knows nothing of it and resets it.
    poll_until("the connection to be cut", SOON, || {
        connection.echo("stopped").is_err()
    })
    .unwrap();
    gateway.probe().unwrap();
}

#[test]
fn stopping_without_a_drain_time_is_immediate() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    gateway.stop("b1", Duration::ZERO).unwrap();
    for (vip, transport) in everything() {
        let spread = gateway.spread(transport, vip, 40).unwrap();
        assert_eq!(
            spread.into_keys().collect::<Vec<_>>(),
            ["b2"],
            "{vip} {transport}"
        );
    }
}
