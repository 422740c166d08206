//! Interfaces that go away and come back.

use std::net::SocketAddr;

use lbagent_tests::client::{Connection, Transport, identify_if_quick};
use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::net_link::Netlink;
use lbagent_tests::poll::{SOON, poll_for, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIP6};

fn delete(gateway: &Gateway, interface: &str) {
    gateway
        .topology
        .gateway
        .run(|| Netlink::open().unwrap().delete_link(interface).unwrap());
    poll_until("the agent to notice", SOON, || {
        let found = gateway.agent.interface(interface).unwrap();
        found.mode.is_none() && found.reason.is_some()
    })
    .unwrap();
}

fn wait_until_attached(gateway: &Gateway, interface: &str) {
    poll_until("the programs to be attached again", SOON, || {
        gateway.agent.interface(interface).unwrap().mode.is_some()
    })
    .unwrap();
}

#[test]
fn a_backend_interface_comes_back() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let to = SocketAddr::new(VIP4, PORT);
    let open = || Connection::open(&gateway.topology.client, to).unwrap();
    let is_of_b1 = |found: &Connection| found.greeting.name == "b1";
    let mut connection =
        poll_for("a connection to b1", SOON, || Some(open()).filter(is_of_b1)).unwrap();
    connection.command("echo").unwrap();
    delete(&gateway, "be2");
    // One for each address of b2, one for the interface; the routes may go a moment after it.
    poll_until("b2 to be without a way", SOON, || {
        let reasons = gateway.agent.condition_reasons().unwrap();
        reasons == ["no_route", "no_route", "not_attached"]
    })
    .unwrap();
    // Flows of b1 go on; those of b2 have nowhere to go.
    connection.echo("without be2").unwrap();
    poll_until("b1 to take new connections", SOON, || {
        identify_if_quick(&gateway.topology.client, to).is_some_and(|name| name == "b1")
    })
    .unwrap();
    gateway
        .topology
        .wire_backend(&gateway.topology.backends[1])
        .unwrap();
    wait_until_attached(&gateway, "be2");
    for vip in [VIP4, VIP6] {
        poll_until("b2 to take part again", SOON, || {
            let spread = gateway.spread(Transport::Tcp, vip, 40);
            spread.is_ok_and(|spread| spread.len() == 2)
        })
        .unwrap();
    }
}

#[test]
fn the_client_interface_comes_back() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    gateway.probe().unwrap();
    delete(&gateway, "cl0");
    gateway.topology.wire_client().unwrap();
    wait_until_attached(&gateway, "cl0");
    poll_until("traffic through the new interface", SOON, || {
        gateway.probe().is_ok()
    })
    .unwrap();
    for vip in [VIP4, VIP6] {
        assert_eq!(gateway.spread(Transport::Udp, vip, 40).unwrap().len(), 2);
    }
}
