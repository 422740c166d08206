//! Connections spread over the backends and arrive with the client's address on the right port.

use std::net::{IpAddr, SocketAddr};

use lbagent_api::service_group::Protocol;
use lbagent_tests::client::{Transport, spread};
use lbagent_tests::gateway::{Gateway, PORT, SERVER_PORT, everything};
use lbagent_tests::kernel::retransmitted;
use lbagent_tests::require_root;
use lbagent_tests::syscalls::{Offload, set_offload};
use lbagent_tests::topology::Shape;

/// Connections of one case. Of three equal backends, one gets fewer than 30 of 300 connections less
/// than once in 10^20 runs.
const COUNT: usize = 300;
const FEWEST: usize = 30;

#[test]
fn connections_spread_with_their_source_kept() {
    #[track_caller]
    fn check(shape: Shape) {
        let gateway = Gateway::publish(shape, 3).unwrap();
        // The services lead from PORT to SERVER_PORT, so an answer proves the rewrite.
        const { assert!(PORT != SERVER_PORT) };
        for (vip, transport) in everything() {
            let spread = gateway.spread(transport, vip, COUNT).unwrap();
            let fewest = spread.values().min();
            assert_eq!(spread.len(), 3, "{shape:?} {transport} {vip}: {spread:?}");
            assert!(
                fewest >= Some(&FEWEST),
                "{shape:?} {transport} {vip}: {spread:?}"
            );
        }
        let forwarded = gateway.agent.outcome("forward_redirect").unwrap()
            + gateway.agent.outcome("forward_tx").unwrap()
            + gateway.agent.outcome("forward_kernel").unwrap();
        assert!(
            forwarded >= 4 * COUNT as u64,
            "{forwarded} packets forwarded by the data plane"
        );
    }
    require_root!();
    for shape in [Shape::Routed, Shape::Bridged, Shape::OneArmed] {
        check(shape);
    }
}

#[test]
fn the_fast_path_is_taken() {
    #[track_caller]
    fn check(shape: Shape, outcome: &str) {
        let gateway = Gateway::publish(shape, 2).unwrap();
        gateway.probe().unwrap();
        let before = gateway.agent.outcome(outcome).unwrap();
        gateway.probe().unwrap();
        let after = gateway.agent.outcome(outcome).unwrap();
        assert!(after > before, "{shape:?}: {outcome} stayed at {before}");
    }
    require_root!();
    check(Shape::Routed, "forward_redirect");
    check(Shape::OneArmed, "forward_tx");
    check(Shape::Routed, "return_redirect");
}

/// A container's veth as it comes: neither an XDP program nor GRO at its end. What XDP redirects
/// into it vanishes without a counter, so the kernel has to send it.
#[test]
fn backends_behind_a_plain_veth_are_reached_through_the_kernel() {
    require_root!();
    let gateway = Gateway::start(Shape::Routed, 2).unwrap();
    for backend in &gateway.topology.backends {
        backend
            .ns
            .run(|| set_offload("eth0", Offload::Gro, false))
            .unwrap();
    }
    gateway.publish_web().unwrap();
    let before = gateway.agent.outcome("forward_kernel").unwrap();
    for (vip, transport) in everything() {
        let spread = gateway.spread(transport, vip, 40).unwrap();
        assert_eq!(
            spread.values().sum::<usize>(),
            40,
            "{transport} {vip}: {spread:?}"
        );
    }
    let after = gateway.agent.outcome("forward_kernel").unwrap();
    assert!(
        after >= before + 160,
        "forward_kernel went from {before} to {after}"
    );
    assert_eq!(gateway.agent.outcome("forward_redirect").unwrap(), 0);
}

#[test]
fn slots_are_even_and_counters_add_up() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    for (vip, transport) in everything() {
        gateway.spread(transport, vip, 30).unwrap();
    }
    // A SYN that was answered late is sent again, and counts as another flow.
    let most_flows = 30 + retransmitted(&gateway.topology.client);
    for vip in gateway.agent.vips().unwrap() {
        let slots: Vec<u32> = vip.backends.iter().map(|row| row.slots).collect();
        let (least, most) = (slots.iter().min().unwrap(), slots.iter().max().unwrap());
        assert!(
            most - least <= 1 && slots.iter().sum::<u32>() == vip.slots,
            "{vip:?}"
        );
        // The kernel chooses UDP ports at random and may choose one twice, which is one flow.
        let least = match vip.protocol {
            Protocol::Tcp => 30,
            Protocol::Udp => 27,
        };
        assert!((least..=most_flows).contains(&vip.traffic.flows), "{vip:?}");
        assert!(
            vip.traffic.in_packets >= 30 && vip.traffic.out_packets >= 30,
            "{vip:?}"
        );
    }
    for name in ["b1", "b2", "b3"] {
        let rows = gateway.agent.backend_rows(name).unwrap();
        assert_eq!(
            rows.len(),
            4,
            "{name}: one row for each VIP, port and protocol"
        );
        assert!(
            rows.iter().all(|row| row.traffic.in_packets > 0),
            "{name}: {rows:?}"
        );
    }
}

#[test]
fn vips_on_the_wire_are_answered_for() {
    #[track_caller]
    fn check(vip_mode: &'static str, vips: [&str; 2]) {
        let vips: Vec<IpAddr> = vips.iter().map(|text| text.parse().unwrap()).collect();
        let gateway = Gateway::start_with(Shape::Routed, 2, |config| {
            config.vips = vips.clone();
            config.vip_mode = Some(vip_mode);
        })
        .unwrap();
        gateway.publish_web().unwrap();
        for vip in vips {
            for transport in [Transport::Tcp, Transport::Udp] {
                let to = SocketAddr::new(vip, PORT);
                let spread = spread(&gateway.topology.client, transport, to, 40).unwrap();
                assert_eq!(spread.len(), 2, "{vip_mode} {to}: {spread:?}");
            }
        }
    }
    require_root!();
    // In the client's own subnet: somebody must answer ARP and neighbour discovery.
    check("l2", ["198.51.100.77", "2001:db8:1::77"]);
    check("routed", ["203.0.113.77", "2001:db8:b::77"]);
}

#[test]
fn generic_xdp_carries_everything_too() {
    require_root!();
    let gateway =
        Gateway::start_with(Shape::Routed, 2, |config| config.xdp_mode = Some("generic")).unwrap();
    gateway.publish_web().unwrap();
    let interface = gateway.agent.interface("cl0").unwrap();
    assert_eq!(
        interface.mode,
        Some(lbagent_api::status::AttachMode::Generic),
        "{interface:?}"
    );
    for (vip, transport) in everything() {
        let spread = gateway.spread(transport, vip, 40).unwrap();
        assert_eq!(spread.len(), 2, "{transport} {vip}: {spread:?}");
    }
}

#[test]
fn the_mode_of_attachment_is_reported() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let client = gateway.agent.interface("cl0").unwrap();
    assert_eq!(
        client.mode,
        Some(lbagent_api::status::AttachMode::Native),
        "{client:?}"
    );
    let backend = gateway.agent.interface("be1").unwrap();
    assert!(backend.mode.is_some(), "{backend:?}");
}
