//! Interfaces that go away and come back.

use lbagent_tests::client::Transport;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::net_link::Netlink;
use lbagent_tests::poll::{SOON, poll_until};
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
    gateway.probe().unwrap();
    delete(&gateway, "be2");
    poll_until("all traffic to go to b1", SOON, || {
        let spread = gateway.spread(Transport::Tcp, VIP4, 20);
        spread.is_ok_and(|spread| spread["b1"] == 20)
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
