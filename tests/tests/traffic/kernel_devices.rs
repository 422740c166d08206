//! The daemon among the kernel's own devices: backends whose tunnel devices take off what the gateway
//! puts on, and VLAN devices on both sides. `cargo xtask vm` runs this on kernels that have them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use lbagent_tests::client::{Transport, ask, identify, identify_if_quick};
use lbagent_tests::fleet::{Fleet, FleetBackend};
use lbagent_tests::ip::{ip, missing_device, missing_fou};
use lbagent_tests::netns::NetNs;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::syscalls::{Offload, set_offload};
use lbagent_tests::topology::VIPS;
use lbagent_tests::transfer::{Direction, Transfer};
use lbagent_tests::{require_root, skip};
use serde_json::json;

/// Talks to a VIP by TCP until both backends have answered, then by UDP, then moves a lot.
#[track_caller]
fn assert_served(fleet: &Fleet, vip: IpAddr, what: &str) {
    let (client, to) = (&fleet.client, Fleet::service(vip));
    let mut seen = BTreeSet::new();
    poll_until(&format!("{what}, {vip}: both to answer"), SOON, || {
        seen.extend(identify(client, Transport::Tcp, to).ok());
        seen.len() == 2
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", outcomes(fleet)));
    ask(client, Transport::Udp, to).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let transfer = Transfer::start(client, to, direction, 1_000_001, Duration::ZERO);
        let moved = transfer.and_then(Transfer::finish);
        moved.unwrap_or_else(|error| panic!("{what}, {vip}, {direction:?}: {error:#}"));
    }
}

/// What the first gateway counted, for messages.
fn outcomes(fleet: &Fleet) -> String {
    let data = fleet.agents[0].call("GET", "/v1/x/counters", None);
    let mut rows = data.unwrap()["counters"]["outcomes"].take();
    let rows = rows.as_array_mut().expect("a list");
    rows.retain(|row| row["packets"] != 0);
    let row = |row: &serde_json::Value| format!("{} {}", row["outcome"], row["packets"]);
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

/// Gives the backends' instances one address each.
fn publish_at(fleet: &mut Fleet, address: impl Fn(usize) -> IpAddr) {
    for index in 0..2 {
        let address = address(index);
        let len = if address.is_ipv4() { 32 } else { 128 };
        let addresses = json!([format!("{address}/{len}")]);
        fleet.edit(index, "addresses", addresses).unwrap();
    }
}

/// Devices that take off whatever comes for a backend's own two addresses.
fn add_tunnels(backend: &FleetBackend) {
    let net = &backend.host.net;
    let [v4, v6] = backend.addresses.map(|cidr| cidr.address);
    for device in [
        format!("tun4 type ipip local {v4}"),
        format!("tun64 type sit local {v4}"),
        format!("tun6 type ip6tnl mode any local {v6}"),
    ] {
        ip(net, &format!("link add {device}")).unwrap();
        let name = device.split(' ').next().unwrap_or_default();
        ip(net, &format!("link set {name} up")).unwrap();
    }
}

#[test]
fn backends_tunnel_devices_take_off_what_the_gateway_puts_on() {
    require_root!();
    if let Some(reason) = missing_device(&["ipip", "sit", "ip6tnl"]).unwrap() {
        skip!("{reason}");
    }
    if let Some(reason) = missing_fou().unwrap() {
        skip!("{reason}");
    }
    for mode in ["dsr-ipip", "dsr-gue"] {
        let mut fleet = Fleet::start(mode, 2, 2, |_, _| {}).unwrap();
        fleet.route([1, 0]).unwrap();
        for backend in &fleet.backends {
            // The MSS stays lowered, by the kernel's own clamp: nothing of lbagent is on the backend.
            backend.decap(&["--detach"]).unwrap();
            clamp(backend);
        }
        let nobody = identify_if_quick(&fleet.client, Fleet::service(VIPS[0]));
        assert_eq!(nobody, None, "{mode}: decapsulated without a device");
        for backend in &fleet.backends {
            add_tunnels(backend);
            if mode == "dsr-gue" {
                ip(&backend.host.net, "fou add port 6080 gue").unwrap();
                ip(&backend.host.net, "fou add port 6080 gue -6").unwrap();
            }
        }
        for family in 0..2 {
            let all: Vec<_> = fleet.backends.iter().map(|it| it.addresses).collect();
            publish_at(&mut fleet, |index| all[index][family].address);
            for vip in VIPS {
                assert_served(&fleet, vip, &format!("{mode} over family {family}"));
            }
        }
    }
}

/// Routes to clients whose MSS leaves room for any outer header.
fn clamp(backend: &FleetBackend) {
    let net = &backend.host.net;
    ip(net, "route replace default via 10.66.0.254 advmss 1412").unwrap();
    ip(net, "-6 route replace default via fd66::fe advmss 1392").unwrap();
}

/// VLAN of the way between router and gateway, and of the one between gateway and backends.
const CLIENTS_VLAN: u16 = 7;
const BACKENDS_VLAN: u16 = 8;

/// Adds a VLAN device to an interface, with an address of each family. Its frames carry their tags
/// in them, as on a wire.
fn add_tagged(ns: &NetNs, below: &str, vlan: u16, addresses: [&str; 2]) {
    let switch = || set_offload(below, Offload::TxVlan, false).unwrap();
    ns.run(switch);
    let device = format!("{below}.{vlan}");
    let add = format!("link add link {below} name {device} type vlan id {vlan}");
    ip(ns, &add).unwrap();
    for address in addresses {
        ip(ns, &format!("address add {address} dev {device} nodad")).unwrap();
    }
    ip(ns, &format!("link set {device} up")).unwrap();
}

/// Sends what leaves a host for clients to these routers.
fn route_default(ns: &NetNs, [v4, v6]: [&str; 2]) {
    ip(ns, &format!("route replace default via {v4}")).unwrap();
    ip(ns, &format!("-6 route replace default via {v6}")).unwrap();
}

/// Puts the way between the router and the first gateway into a VLAN.
fn tag_clients(fleet: &Fleet) {
    let gateway = &fleet.gateways[0].net;
    let (router_side, gateway_side) = (
        ["10.78.7.254/24", "fd78:7::fe/64"],
        ["10.78.7.1/24", "fd78:7::1/64"],
    );
    add_tagged(&fleet.router, "gw1", CLIENTS_VLAN, router_side);
    add_tagged(gateway, "cl0", CLIENTS_VLAN, gateway_side);
    route_default(gateway, ["10.78.7.254", "fd78:7::fe"]);
    for (family, way) in ["10.78.7.1", "fd78:7::1"].into_iter().enumerate() {
        let ways = [(way.parse().unwrap(), 1)];
        fleet.route_vip(family, &ways).unwrap();
    }
}

/// Takes it out again.
fn untag_clients(fleet: &Fleet) {
    route_default(&fleet.gateways[0].net, ["10.77.1.254", "fd77:1::fe"]);
    fleet.route([1, 0]).unwrap();
}

/// Puts the way between the gateway and the backends into a VLAN. Answers take it too, unless they
/// take the way past the gateway.
fn tag_backends(fleet: &mut Fleet, mode: &str) {
    let gateway = &fleet.gateways[0].net;
    add_tagged(
        gateway,
        "be0",
        BACKENDS_VLAN,
        ["10.66.8.1/24", "fd66:8::1/64"],
    );
    for (number, backend) in (11..).zip(&fleet.backends) {
        let addresses = [
            format!("10.66.8.{number}/24"),
            format!("fd66:8::{number}/64"),
        ];
        let net = &backend.host.net;
        let addresses = addresses.each_ref().map(String::as_str);
        add_tagged(net, "eth0", BACKENDS_VLAN, addresses);
        if mode == "nat" {
            route_default(net, ["10.66.8.1", "fd66:8::1"]);
        } else {
            // The addresses are new.
            backend.decap(&[]).unwrap();
        }
    }
    for index in 0..2 {
        let number = 11 + index;
        let addresses = json!([
            format!("10.66.8.{number}/32"),
            format!("fd66:8::{number}/128")
        ]);
        fleet.edit(index, "addresses", addresses).unwrap();
    }
}

/// Each frame leaves with the tag of its own next hop.
#[test]
fn clients_and_backends_may_be_in_different_vlans() {
    require_root!();
    if let Some(reason) = missing_device(&["vlan"]).unwrap() {
        skip!("{reason}");
    }
    for mode in ["dsr-ipip", "nat"] {
        let mut fleet = Fleet::start(mode, 2, 2, |_, _| {}).unwrap();
        let assert_all_served = |fleet: &Fleet, what: &str| {
            for vip in VIPS {
                assert_served(fleet, vip, &format!("{mode}, {what}"));
            }
        };
        tag_clients(&fleet);
        assert_all_served(&fleet, "tagged clients only");
        tag_backends(&mut fleet, mode);
        assert_all_served(&fleet, "both tagged");
        untag_clients(&fleet);
        assert_all_served(&fleet, "tagged backends only");
        // By the port below the VLAN device, without the kernel.
        let count = |outcome| fleet.agents[0].outcome(outcome).unwrap();
        assert!(count("forward_redirect") > 600, "{}", outcomes(&fleet));
        if mode == "nat" {
            assert!(count("return_redirect") > 200, "{}", outcomes(&fleet));
        }
    }
}
