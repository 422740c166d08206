//! Errors that are about no balanced flow, or that do not say about which, pass as they came.

use std::net::SocketAddr;

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    Segment, as_fragment, icmp, tcp, with_ipv6_fragment, with_ttl,
};
use lbagent_tests::prog_run::{Action, Rig, Side};
use lbagent_tests::require_root;

use super::{Family, Quote, REST, families, rig, start};
use crate::assert_untouched;

/// An error that ends anywhere: what has no ports passes as it came, and so does what is cut off
/// behind its own headers' back.
#[test]
fn truncated_errors_change_nothing() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let [quoted, known] = family.reply(Quote::plain(Transport::Tcp, 1000));
        let error = family.errors[0];
        for len in 0..quoted.len() {
            let known = start(&known, &quoted, len, Transport::Tcp);
            let [frame, expected] = family.to_backend(error, [&quoted[..len], &known]);
            let ran = rig.run(Side::Client, &frame).unwrap();
            if len < family.least_quote() {
                assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
            } else {
                family.assert_at_backend(&ran, expected);
            }
        }
        let [whole, _] = family.to_backend(error, [&quoted, &known]);
        for side in [Side::Client, Side::Backend] {
            // The kernel makes no test run of a TC program on less than an IPv6 header.
            for len in 54..whole.len() {
                let frame = &whole[..len];
                let ran = rig.run(side, frame).unwrap();
                assert_eq!(ran.action, Action::Pass, "{len} bytes: {:?}", ran.outcome);
                assert_eq!(ran.frame, frame, "{len} bytes");
            }
        }
    }
}

/// Checks that these frames pass untouched on both sides.
#[track_caller]
fn assert_all_pass(rig: &mut Rig, outcome: Outcome, frames: &[(&str, Vec<u8>)]) {
    for (name, frame) in frames {
        for side in [Side::Client, Side::Backend] {
            let ran = rig.run(side, frame).unwrap();
            println!("{name} {side:?}: {:?}", ran.outcome);
            assert_untouched(&ran, Action::Pass, outcome, frame);
        }
    }
}

/// Messages to the VIP whose quote is nothing that it sent.
fn strange_quotes(family: &Family) -> Vec<(&'static str, Vec<u8>)> {
    let (vip, client, error) = (family.vip, family.client, family.errors[0]);
    let (service, _) = family.service(Transport::Tcp);
    let [tcp_quote, udp_quote] =
        [Transport::Tcp, Transport::Udp].map(|transport| Quote::plain(transport, 1000));
    let good = tcp_quote.packet(service, client);
    let whole = tcp(service, client, Segment::Ack, &[7; 64]);
    let later = if vip.is_ipv4() {
        as_fragment(whole, 10, false)
    } else {
        with_ipv6_fragment(whole, 10, false)
    };
    let mut other_version = good.clone();
    other_version[0] ^= 0x20;
    let icmp_quote = icmp((vip, client.ip()), error, REST, &good)[14..].to_vec();
    let odd = SocketAddr::new(vip, 5433);
    let elsewhere = SocketAddr::new(family.backend, 5432);
    [
        ("a quoted later fragment", later[14..].to_vec()),
        ("an error about an error", icmp_quote),
        ("a quote of another version", other_version),
        ("an unpublished port", tcp_quote.packet(odd, client)),
        ("the other protocol", udp_quote.packet(service, client)),
        (
            "a quote that the VIP did not send",
            tcp_quote.packet(elsewhere, client),
        ),
        ("no quote at all", Vec::new()),
    ]
    .map(|(name, quoted)| (name, icmp((family.router, vip), error, REST, &quoted)))
    .into()
}

#[test]
fn errors_about_nothing_of_a_vip_are_left_to_the_kernel() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let mut frames = strange_quotes(&family);
        let [good, _] = family.reply(Quote::plain(Transport::Tcp, 1000));
        let is_v4 = family.vip.is_ipv4();
        let redirect = if is_v4 { [5, 1] } else { [137, 0] };
        let quench = if is_v4 { [4, 0] } else { [100, 0] };
        for (name, kind) in [
            ("a redirect", redirect),
            ("an error that nobody handles", quench),
        ] {
            frames.push((name, icmp((family.router, family.vip), kind, REST, &good)));
        }
        assert_all_pass(&mut rig, Outcome::PassIcmp, &frames);
        let message = icmp((family.router, family.vip), family.errors[0], REST, &good);
        let spent = with_ttl(message, 1);
        let ran = rig.run(Side::Client, &spent).unwrap();
        assert_untouched(&ran, Action::Pass, Outcome::PassTtl, &spent);
    }
}

/// About packets that are no balanced flow's, or to others than their sender.
#[test]
fn errors_for_others_are_left_to_the_kernel() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let (client, router, backend) = (family.client, family.router, family.backend);
        let (_, to_backend) = family.service(Transport::Tcp);
        let quote = Quote::plain(Transport::Tcp, 1000);
        let other = SocketAddr::new(router, 4000);
        let elsewhere = SocketAddr::new(backend, 5432);
        let frames = [
            ("a foreign connection", (router, client.ip()), other),
            (
                "another port of a backend",
                (backend, client.ip()),
                elsewhere,
            ),
            ("not to the sender", (backend, router), to_backend),
        ]
        .map(|(name, way, to)| {
            let quoted = quote.packet(client, to);
            (name, icmp(way, family.errors[0], REST, &quoted))
        });
        assert_all_pass(&mut rig, Outcome::PassProtocol, &frames);
    }
}
