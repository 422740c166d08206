//! The ways that the agent finds: used without a look at the routing table, followed when they
//! move, and not trusted for long when the agent is gone.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lbagent_api::status::TableNextHop;
use lbagent_tests::client::{ask, identify_if_quick};
use lbagent_tests::gateway::{Gateway, PORT, everything};
use lbagent_tests::net_link::Netlink;
use lbagent_tests::poll::{SOON, poll_for, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::syscalls::{Offload, link_address, set_offload};
use lbagent_tests::topology::{BackendHost, Shape, Topology, VIP4};

/// How long the data plane uses next hops without the agent, and some time to notice.
const LEASE: Duration = Duration::from_secs(35);
/// What the agent takes at most on a busy machine, where it takes milliseconds on an idle one.
const FOLLOWED: Duration = Duration::from_secs(10);

fn text(link: [u8; 6]) -> String {
    link.map(|byte| format!("{byte:02x}")).join(":")
}

fn link_address_of(backend: &BackendHost) -> [u8; 6] {
    backend.ns.run(|| link_address("eth0").unwrap())
}

/// The next hops of both addresses of a backend; shorter while one is not known.
fn next_hops(gateway: &Gateway, backend: &str) -> Vec<TableNextHop> {
    let rows = gateway.agent.backend_rows(backend).unwrap();
    rows.into_iter().filter_map(|row| row.next_hop).collect()
}

/// Waits until every row of every backend has its next hop.
#[track_caller]
fn await_next_hops(gateway: &Gateway, interface: impl Fn(&BackendHost) -> String) {
    for backend in &gateway.topology.backends {
        let wanted = TableNextHop {
            interface: interface(backend),
            link_address: text(link_address_of(backend)),
            vlan: 0,
            mtu: 1500,
        };
        let what = format!("every way to {} to be {wanted:?}", backend.name);
        poll_until(&what, SOON, || {
            // A bridge knows the port of whoever has sent something.
            exchange(gateway);
            let found = next_hops(gateway, &backend.name);
            // TCP and UDP of two VIPs.
            found.len() == 4 && found.iter().all(|hop| *hop == wanted)
        })
        .unwrap();
    }
}

/// Twenty exchanges, of any source address: next hops are not about that.
fn exchange(gateway: &Gateway) {
    for (vip, transport) in everything() {
        for _ in 0..5 {
            let to = SocketAddr::new(vip, PORT);
            ask(&gateway.topology.client, transport, to).unwrap();
        }
    }
}

/// How many packets of these exchanges ended with each of these outcomes.
fn counted<const N: usize>(gateway: &Gateway, outcomes: [&str; N]) -> [u64; N] {
    let read = || outcomes.map(|outcome| gateway.agent.outcome(outcome).unwrap());
    let before = read();
    exchange(gateway);
    let after = read();
    std::array::from_fn(|index| after[index] - before[index])
}

#[test]
fn packets_leave_by_the_interface_that_sends() {
    #[track_caller]
    fn check(shape: Shape, interface: impl Fn(&BackendHost) -> String, outcome: &str) {
        let gateway = Gateway::publish(shape, 2).unwrap();
        await_next_hops(&gateway, interface);
        let [sent, by_kernel] = counted(&gateway, [outcome, "forward_kernel"]);
        assert!(sent >= 20, "{shape:?}: {sent} {outcome}");
        assert_eq!(by_kernel, 0, "{shape:?}");
    }
    require_root!();
    check(Shape::Routed, BackendHost::link_name, "forward_redirect");
    check(Shape::Bridged, BackendHost::link_name, "forward_redirect");
    check(Shape::OneArmed, |_| "eth0".into(), "forward_tx");
    check(Shape::SameSubnet, |_| "eth0".into(), "forward_tx");
}

#[test]
fn a_port_that_takes_nothing_from_xdp_is_left_to_the_kernel() {
    require_root!();
    let topology = Topology::build(Shape::Bridged, 1).unwrap();
    let far_end = &topology.backends[0].ns;
    far_end.run(|| set_offload("eth0", Offload::Gro, false).unwrap());
    let gateway = Gateway::publish_on(topology).unwrap();
    await_next_hops(&gateway, BackendHost::link_name);
    let [redirected, by_kernel] = counted(&gateway, ["forward_redirect", "forward_kernel"]);
    assert_eq!(redirected, 0);
    assert!(by_kernel >= 20, "{by_kernel} by the kernel");
}

#[test]
fn the_mtu_of_the_way_is_followed() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    await_next_hops(&gateway, BackendHost::link_name);
    let on_host = |change: &(dyn Fn(&Netlink) + Sync)| {
        gateway
            .topology
            .gateway
            .run(|| change(&Netlink::open().unwrap()));
    };
    let await_mtu = |mtu| {
        poll_until(&format!("an MTU of {mtu}"), SOON, || {
            let found = next_hops(&gateway, "b1");
            found.len() == 4 && found.iter().all(|hop| hop.mtu == mtu)
        })
        .unwrap();
    };
    on_host(&|net| net.set_mtu("be1", 1400).unwrap());
    await_mtu(1400);
    on_host(&|net| net.set_mtu("be1", 1500).unwrap());
    await_mtu(1500);
}

/// Gives b1 another link address, of which the gateway learns when b1 sends something next.
fn move_backend(gateway: &Gateway, link: [u8; 6]) {
    let backend = &gateway.topology.backends[0];
    let routers = gateway.topology.gateway_addresses();
    backend.ns.run(|| {
        Netlink::open()
            .unwrap()
            .set_link_address("eth0", link)
            .unwrap();
        for router in routers {
            let any: IpAddr = if router.is_ipv4() {
                [0, 0, 0, 0].into()
            } else {
                [0_u16; 8].into()
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
            // The router is asked for its link address first, by one who tells its own.
            let _ = socket.send_to(b"moved", SocketAddr::new(router, 9));
        }
    });
}

fn answers(gateway: &Gateway) -> bool {
    let to = SocketAddr::new(VIP4, PORT);
    identify_if_quick(&gateway.topology.client, to).is_some()
}

#[test]
fn a_backend_that_moves_is_followed() {
    #[track_caller]
    fn check(shape: Shape) {
        let gateway = Gateway::publish(shape, 1).unwrap();
        let old = link_address_of(&gateway.topology.backends[0]);
        poll_until("the next hop", SOON, || {
            answers(&gateway) && next_hops(&gateway, "b1").len() == 4
        })
        .unwrap();
        let new = [0x02, 0x77, 0, 0, 0, 0x01];
        assert_ne!(old, new);
        let moved_at = Instant::now();
        move_backend(&gateway, new);
        poll_until("answers from the new link address", SOON, || {
            answers(&gateway)
        })
        .unwrap();
        // Not by the end of the lease, which is what a gateway without an agent waits for.
        let silence = moved_at.elapsed();
        assert!(silence < FOLLOWED, "{shape:?}: {silence:?}");
        poll_until("the new link address", SOON, || {
            let found = next_hops(&gateway, "b1");
            found.iter().any(|hop| hop.link_address == text(new))
        })
        .unwrap();
    }
    require_root!();
    check(Shape::Routed);
    check(Shape::Bridged);
}

#[test]
fn without_the_agent_a_backend_that_moves_comes_back_within_the_lease() {
    #[track_caller]
    fn check(shape: Shape) {
        let mut gateway = Gateway::publish(shape, 1).unwrap();
        poll_until("the next hop", SOON, || {
            answers(&gateway) && next_hops(&gateway, "b1").len() == 4
        })
        .unwrap();
        gateway.agent.kill().unwrap();
        move_backend(&gateway, [0x02, 0x77, 0, 0, 0, 0x02]);
        assert!(
            !answers(&gateway),
            "{shape:?}: the entry is not used at all"
        );
        poll_for("answers when the lease is over", LEASE, || {
            answers(&gateway).then_some(())
        })
        .unwrap();
        // What the routing table names is not taken for something that it is not.
        gateway.probe().unwrap();
    }
    require_root!();
    check(Shape::Routed);
    check(Shape::Bridged);
}

#[test]
fn rules_that_look_at_more_than_the_destination_are_obeyed() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    await_next_hops(&gateway, BackendHost::link_name);
    let network = std::net::Ipv4Addr::new(203, 0, 113, 0);
    let on_host = |change: &(dyn Fn(&Netlink) + Sync)| {
        gateway
            .topology
            .gateway
            .run(|| change(&Netlink::open().unwrap()));
    };
    on_host(&|net| net.add_source_rule(network, 24).unwrap());
    poll_until("every packet's way to be looked up", SOON, || {
        next_hops(&gateway, "b1").is_empty()
    })
    .unwrap();
    gateway.probe().unwrap();
    on_host(&|net| net.delete_source_rule(network, 24).unwrap());
    await_next_hops(&gateway, BackendHost::link_name);
}
