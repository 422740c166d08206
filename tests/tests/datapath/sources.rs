//! Sources that must be rewritten, and replies that need a stored flow.

use std::net::SocketAddr;

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Segment, describe, tcp};
use lbagent_tests::prog_run::{Action, CLIENT_V4, GATEWAY_V4, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;

use crate::{assert_rewritten, assert_untouched, at};

/// Sends a SYN and returns the 4-tuple that the backend sees.
fn forwarded(
    rig: &mut Rig,
    side: Side,
    from: SocketAddr,
    to: SocketAddr,
) -> (SocketAddr, SocketAddr) {
    let ran = rig.run(side, &tcp(from, to, Segment::Syn, b"")).unwrap();
    assert_ne!(ran.action, Action::Drop, "{:?}", ran.outcome);
    let described = describe(&ran.frame).unwrap();
    (described.source, described.destination)
}

/// Sends the backend's answer and returns where it arrives, and from whom.
fn answered(rig: &mut Rig, backend: SocketAddr, peer: SocketAddr) -> (SocketAddr, SocketAddr) {
    let frame = tcp(backend, peer, Segment::SynAck, b"hello");
    let ran = rig.run(Side::Backend, &frame).unwrap();
    let described = describe(&ran.frame).unwrap();
    assert_rewritten(
        &ran,
        Outcome::ReturnRedirect,
        described.source,
        described.destination,
        b"hello",
    );
    (described.source, described.destination)
}

#[test]
fn a_backend_that_calls_its_own_vip_sees_the_gateway() {
    require_root!();
    for (backend, vip, gateway) in [
        ("10.66.0.11", VIP_V4.to_owned(), GATEWAY_V4.to_owned()),
        ("[fd66::11]", format!("[{VIP_V6}]"), "[fd66::1]".to_owned()),
    ] {
        let mut rig = Rig::new().unwrap();
        let group = rig.group("web", &[(80, 8080, Transport::Tcp)]);
        rig.instance("a", group, &["10.66.0.11", "fd66::11"])
            .unwrap();
        rig.reconcile().unwrap();
        let caller = at(&format!("{backend}:40000"));
        let target = at(&format!("{vip}:80"));
        let (source, destination) = forwarded(&mut rig, Side::Backend, caller, target);
        assert_eq!(destination, at(&format!("{backend}:8080")));
        assert_eq!(source.ip(), at(&format!("{gateway}:0")).ip());
        assert!((61_000..=65_535).contains(&source.port()), "{source}");
        let again = forwarded(&mut rig, Side::Backend, caller, target);
        assert_eq!(again, (source, destination), "the flow kept its source");
        assert_eq!(answered(&mut rig, destination, source), (target, caller));
    }
}

#[test]
fn a_client_in_the_backends_subnet_sees_the_vip_answer() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    let group = rig.group("web", &[(80, 8080, Transport::Tcp)]);
    rig.instance("a", group, &["10.66.0.11"]).unwrap();
    let neighbour = "10.66.0.200".parse().unwrap();
    rig.add_neighbour(neighbour, "be0", [2, 0, 0, 0, 2, 200])
        .unwrap();
    rig.reconcile().unwrap();
    let client = at("10.66.0.200:40000");
    let vip = at(&format!("{VIP_V4}:80"));
    for side in [Side::Backend, Side::Client] {
        let (source, destination) = forwarded(&mut rig, side, client, vip);
        assert_eq!(source.ip(), at(&format!("{GATEWAY_V4}:0")).ip());
        assert_eq!(answered(&mut rig, destination, source), (vip, client));
    }
}

#[test]
fn two_groups_with_the_same_backend_port_answer_from_their_own_vip() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    for (name, port) in [("one", 81), ("two", 82)] {
        let group = rig.group(name, &[(port, 8080, Transport::Tcp)]);
        rig.instance(name, group, &["10.66.0.11"]).unwrap();
    }
    rig.reconcile().unwrap();
    let vip = |port: u16| at(&format!("{VIP_V4}:{port}"));
    let backend = at("10.66.0.11:8080");
    // One client port towards each: the client's address is kept and told apart by its port.
    let (first, second) = (
        at(&format!("{CLIENT_V4}:5001")),
        at(&format!("{CLIENT_V4}:5002")),
    );
    assert_eq!(
        forwarded(&mut rig, Side::Client, first, vip(81)),
        (first, backend)
    );
    assert_eq!(
        forwarded(&mut rig, Side::Client, second, vip(82)),
        (second, backend)
    );
    assert_eq!(answered(&mut rig, backend, first), (vip(81), first));
    assert_eq!(answered(&mut rig, backend, second), (vip(82), second));
    // The same client port towards both: the backend must see two connections.
    let (source, destination) = forwarded(&mut rig, Side::Client, first, vip(82));
    assert_eq!(destination, backend);
    assert_ne!(
        source, first,
        "two connections look like one at the backend"
    );
    assert_eq!(answered(&mut rig, backend, source), (vip(82), first));
    assert_eq!(answered(&mut rig, backend, first), (vip(81), first));
}

#[test]
fn a_closed_flow_makes_room_for_one_of_another_vip() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    for (name, port) in [("one", 81), ("two", 82)] {
        let group = rig.group(name, &[(port, 8080, Transport::Tcp)]);
        rig.instance(name, group, &["10.66.0.11"]).unwrap();
    }
    rig.reconcile().unwrap();
    let client = at(&format!("{CLIENT_V4}:5001"));
    let vip = |port: u16| at(&format!("{VIP_V4}:{port}"));
    forwarded(&mut rig, Side::Client, client, vip(81));
    rig.run(Side::Client, &tcp(client, vip(81), Segment::Fin, b""))
        .unwrap();
    let (source, _) = forwarded(&mut rig, Side::Client, client, vip(82));
    assert_eq!(
        source, client,
        "a closed connection still takes the client's port away"
    );
}

#[test]
fn a_rewritten_source_never_goes_through_the_kernel() {
    require_root!();
    let mut rig = Rig::new().unwrap();
    let group = rig.group("web", &[(80, 8080, Transport::Tcp)]);
    let uuid = rig.instance("silent", group, &[]).unwrap();
    rig.resolved = false;
    rig.desired.instances.get_mut(&uuid).unwrap().addresses = vec!["10.66.0.99".parse().unwrap()];
    rig.set_path("10.66.0.99".parse().unwrap(), "be0").unwrap();
    rig.reconcile().unwrap();
    let frame = tcp(
        at("10.66.0.200:40000"),
        at(&format!("{VIP_V4}:80")),
        Segment::Syn,
        b"",
    );
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Drop, Outcome::DropNoSource, &frame);
}
