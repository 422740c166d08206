//! The way back: what `lb_return` restores and what it leaves alone.

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Segment, as_fragment, tcp, udp, with_ttl};
use lbagent_tests::prog_run::{
    Action, CLIENT_V4, CLIENT_V6, GATEWAY_V4, ROUTER_MAC, Rig, Side, VIP_V4, VIP_V6,
};
use lbagent_tests::require_root;

use crate::{assert_rewritten, assert_untouched, at};

fn rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group(
        "web",
        &[(5432, 15432, Transport::Tcp), (53, 5353, Transport::Udp)],
    );
    rig.instance("a", group, &["10.66.0.11", "fd66::11"])
        .unwrap();
    rig.reconcile().unwrap();
    rig
}

#[test]
fn replies_come_from_the_vip() {
    require_root!();
    let mut rig = rig();
    let (client4, client6) = (
        at(&format!("{CLIENT_V4}:4000")),
        at(&format!("[{CLIENT_V6}]:4000")),
    );
    let vip4 = |port: u16| at(&format!("{VIP_V4}:{port}"));
    let vip6 = |port: u16| at(&format!("[{VIP_V6}]:{port}"));
    for (frame, source, client, payload) in [
        (
            tcp(at("10.66.0.11:15432"), client4, Segment::SynAck, b""),
            vip4(5432),
            client4,
            &b""[..],
        ),
        (
            tcp(at("10.66.0.11:15432"), client4, Segment::Ack, b"row"),
            vip4(5432),
            client4,
            b"row",
        ),
        (
            tcp(at("[fd66::11]:15432"), client6, Segment::Ack, b"row"),
            vip6(5432),
            client6,
            b"row",
        ),
        (
            udp(at("10.66.0.11:5353"), client4, b"answer"),
            vip4(53),
            client4,
            b"answer",
        ),
        (
            udp(at("[fd66::11]:5353"), client6, b"answer"),
            vip6(53),
            client6,
            b"answer",
        ),
    ] {
        let ran = rig.run(Side::Backend, &frame).unwrap();
        assert_eq!(ran.action, Action::Redirect);
        let described = assert_rewritten(&ran, Outcome::ReturnRedirect, source, client, payload);
        assert_eq!(described.mac_destination, ROUTER_MAC);
        assert_eq!(ran.backend.as_deref(), Some("a"));
    }
}

#[test]
fn everything_else_from_backends_is_left_alone() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    let backend = at("10.66.0.11:15432");
    let reply = tcp(backend, client, Segment::Ack, b"x");
    for (name, frame, outcome) in [
        (
            "another port of the backend",
            tcp(at("10.66.0.11:22"), client, Segment::Ack, b""),
            Outcome::PassNotReply,
        ),
        (
            "the backend's own connection",
            tcp(
                at("10.66.0.11:40000"),
                at("203.0.113.80:443"),
                Segment::Syn,
                b"",
            ),
            Outcome::PassNotReply,
        ),
        (
            "another host's port of the same number",
            tcp(at("10.66.0.99:15432"), client, Segment::Ack, b""),
            Outcome::PassNotReply,
        ),
        (
            "the published port of the other protocol",
            udp(at("10.66.0.11:15432"), client, b""),
            Outcome::PassNotReply,
        ),
        (
            "a reply to the gateway's own connection",
            tcp(
                backend,
                at(&format!("{GATEWAY_V4}:40000")),
                Segment::SynAck,
                b"",
            ),
            Outcome::PassLocal,
        ),
        (
            "a reply to another address of the gateway",
            tcp(backend, at("198.51.100.1:40000"), Segment::SynAck, b""),
            Outcome::PassLocal,
        ),
        (
            "a reply with TTL 1",
            with_ttl(reply.clone(), 1),
            Outcome::PassTtl,
        ),
        (
            "a later fragment of a reply whose first one did not come",
            as_fragment(reply.clone(), 100, false),
            Outcome::PassFragment,
        ),
    ] {
        let ran = rig.run(Side::Backend, &frame).unwrap();
        println!("{name}: {:?}", ran.outcome);
        assert_untouched(&ran, Action::Pass, outcome, &frame);
    }
}

#[test]
fn a_reply_to_an_unknown_link_address_is_resolved_by_the_kernel() {
    require_root!();
    let mut rig = rig();
    // On the client interface's own network, where nobody said who has it.
    let client = at("198.51.100.99:4000");
    let frame = tcp(at("10.66.0.11:15432"), client, Segment::SynAck, b"");
    let ran = rig.run(Side::Backend, &frame).unwrap();
    assert_eq!(ran.action, Action::Redirect);
    let vip = at(&format!("{VIP_V4}:5432"));
    assert_rewritten(&ran, Outcome::ReturnKernel, vip, client, b"");
}

#[test]
fn a_reply_larger_than_the_way_to_the_client_is_left_to_the_kernel() {
    require_root!();
    let mut rig = rig();
    let client = at(&format!("{CLIENT_V4}:4000"));
    // 1500 bytes are 1460 of payload. The kernel's check leaves room for a VLAN tag, so the next four
    // count as forwardable (is_skb_forwardable() in include/linux/netdevice.h).
    for (len, outcome) in [(1460, Outcome::ReturnRedirect), (1465, Outcome::PassTooBig)] {
        let frame = tcp(at("10.66.0.11:15432"), client, Segment::Ack, &vec![7; len]);
        let ran = rig.run(Side::Backend, &frame).unwrap();
        assert_eq!(ran.outcome, outcome, "{len} bytes of payload");
        assert_eq!(ran.frame == frame, outcome == Outcome::PassTooBig);
    }
}
