//! The gateway stands for a client that the backend would answer directly.

use std::net::SocketAddr;

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Segment, describe, icmp, tcp};
use lbagent_tests::prog_run::{Action, GATEWAY_V4, Side};
use lbagent_tests::require_root;

use super::{Family, Quote, REST, assert_sent, families, rig};
use crate::{assert_untouched, at};

#[test]
fn errors_find_their_way_through_a_rewritten_source() {
    require_root!();
    let mut rig = rig();
    let [v4, _] = families();
    let client = at("10.66.0.200:40000");
    let family = Family { client, ..v4 };
    let mac = [2, 0, 0, 0, 2, 200];
    rig.add_neighbour(client.ip(), "be0", mac).unwrap();
    let (service, _) = family.service(Transport::Tcp);
    let quote = Quote::plain(Transport::Tcp, 8);
    let [quoted, _] = family.reply(quote);
    let about_reply = |known: &[u8]| family.to_backend([3, 4], [&quoted, known]);
    let [frame, _] = about_reply(&[]);
    // Before the flow: nobody knows it, and nobody may after the error.
    for _ in 0..2 {
        let ran = rig.run(Side::Client, &frame).unwrap();
        assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
    }

    let syn = tcp(client, service, Segment::Syn, b"");
    let described = describe(&rig.run(Side::Client, &syn).unwrap().frame).unwrap();
    let (gateway, real): (SocketAddr, _) = (described.source, described.destination);
    assert_eq!(gateway.ip().to_string(), GATEWAY_V4);

    let ran = rig.run(Side::Client, &frame).unwrap();
    let [_, expected] = about_reply(&quote.packet(real, gateway));
    family.assert_at_backend(&ran, expected);

    // The other way the error is for the gateway's own address.
    let router = family.inner_router;
    for (from, seen) in [(family.backend, family.vip), (router, router)] {
        let quoted = quote.packet(gateway, real);
        let frame = icmp((from, gateway.ip()), [3, 1], REST, &quoted);
        let ran = rig.run(Side::Backend, &frame).unwrap();
        let known = quote.packet(client, service);
        let expected = icmp((seen, client.ip()), [3, 1], REST, &known);
        assert_sent(&ran, Outcome::ReturnRedirect, expected, mac);
    }
}
