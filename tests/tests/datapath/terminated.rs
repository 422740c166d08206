//! Packets for ports with handlers go up to the host, whole and in fragments, whatever becomes of
//! packets for ports that nobody published.

use std::net::SocketAddr;

use lbagent::desired::Transport;
use lbagent::plan::UnpublishedPorts;
use lbagent_api::service_group::Handler;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Segment, as_fragment, icmp, tcp, with_ipv6_fragment};
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;

use crate::{assert_untouched, at};

/// A raw port and a port with handlers, where unpublished ports are dropped.
fn rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    rig.gateway.unpublished_ports = UnpublishedPorts::Drop;
    let raw = rig.group("raw", &[(5432, 15432, Transport::Tcp)]);
    let web = rig.group("web", &[(443, 8080, Transport::Tcp)]);
    for group in [raw, web] {
        let name = format!("instance-of-{group}");
        rig.instance(&name, group, &["10.66.0.11", "fd66::11"])
            .unwrap();
    }
    let web = rig.desired.service_groups.get_mut(&web).unwrap();
    web.services[0].handlers = vec![Handler::Tls, Handler::Http];
    rig.reconcile().unwrap();
    rig
}

#[test]
fn they_pass_from_both_sides() {
    require_root!();
    let mut rig = rig();
    for (client, vip) in [(CLIENT_V4, VIP_V4), (CLIENT_V6, VIP_V6)] {
        let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
        let client = at(client, 4000);
        let vip = |port| at(vip, port);
        for segment in [Segment::Syn, Segment::Ack, Segment::Fin] {
            let frame = tcp(client, vip(443), segment, b"");
            for side in [Side::Client, Side::Backend] {
                let ran = rig.run(side, &frame).unwrap();
                assert_untouched(&ran, Action::Pass, Outcome::PassTerminate, &frame);
            }
        }
        let unpublished = tcp(client, vip(444), Segment::Syn, b"");
        let ran = rig.run(Side::Client, &unpublished).unwrap();
        assert_untouched(&ran, Action::Drop, Outcome::DropUnpublished, &unpublished);
        let raw = tcp(client, vip(5432), Segment::Syn, b"");
        let ran = rig.run(Side::Client, &raw).unwrap();
        assert_eq!(ran.action, Action::Redirect, "{ran:?}");
    }
}

#[test]
fn later_fragments_follow_the_first() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let vip = at(&format!("{VIP_V4}:443"));
    let whole = tcp(client, vip, Segment::Ack, &[7; 64]);
    let six = tcp(
        at(&format!("[{CLIENT_V6}]:4000")),
        at(&format!("[{VIP_V6}]:443")),
        Segment::Ack,
        &[7; 64],
    );
    for (first, later) in [
        (
            as_fragment(whole.clone(), 0, true),
            as_fragment(whole, 40, false),
        ),
        (
            with_ipv6_fragment(six.clone(), 0, true),
            with_ipv6_fragment(six, 40, false),
        ),
    ] {
        // Alone it waits for the first one.
        let ran = rig.run(Side::Client, &later).unwrap();
        assert_eq!(ran.outcome, Outcome::HoldFragment);
        let ran = rig.run(Side::Client, &first).unwrap();
        assert_untouched(&ran, Action::Pass, Outcome::PassTerminate, &first);
        let ran = rig.run(Side::Client, &later).unwrap();
        assert_untouched(&ran, Action::Pass, Outcome::PassFragment, &later);
    }
}

#[test]
fn errors_about_their_replies_pass() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let vip = at(&format!("{VIP_V4}:443"));
    let router = "198.51.100.1".parse().unwrap();
    // "Fragmentation needed", about a segment that the terminator sent.
    let quoted = tcp(vip, client, Segment::Ack, &[7; 8])[14..].to_vec();
    let frame = icmp((router, vip.ip()), [3, 4], 1400_u32.to_be_bytes(), &quoted);
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
}
