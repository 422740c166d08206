//! With NAT the quoted packet is rewritten, so that the receiver finds its own in it.

use std::net::SocketAddr;

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    Segment, TTL, icmp, tcp, udp, with_ipv4_options, with_ttl, with_vlan,
};
use lbagent_tests::prog_run::{Action, Side};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;

use super::{Quote, REST, assert_at_client, families, quotes, rig, start};
use lbagent_tests::random::Random;

#[test]
fn errors_about_a_vip_reach_the_backend() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        for quote in quotes() {
            let [quoted, known] = family.reply(quote);
            for &error in family.errors {
                for side in [Side::Client, Side::Backend] {
                    let [frame, expected] = family.to_backend(error, [&quoted, &known]);
                    let ran = rig.run(side, &frame).unwrap();
                    println!("{error:?} {quote:?} {side:?}: {:?}", ran.outcome);
                    family.assert_at_backend(&ran, expected);
                }
            }
        }
    }
}

#[test]
fn errors_about_a_client_reach_it() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let (client, router) = (family.client.ip(), family.inner_router);
        for quote in quotes() {
            let [quoted, known] = family.request(quote);
            for &error in family.errors {
                // A backend speaks as its VIP, a router on the way for itself.
                for (from, seen) in [(family.backend, family.vip), (router, router)] {
                    let frame = icmp((from, client), error, REST, &quoted);
                    let ran = rig.run(Side::Backend, &frame).unwrap();
                    println!("{error:?} {quote:?} from {from}: {:?}", ran.outcome);
                    assert_at_client(&ran, icmp((seen, client), error, REST, &known));
                }
            }
        }
    }
}

/// The outer header's options stay where they are.
#[test]
fn options_of_the_message_are_kept() {
    require_root!();
    let mut rig = rig();
    let [family, _] = families();
    let quote = Quote {
        options: 40,
        ..Quote::plain(Transport::Tcp, 20)
    };
    let [quoted, known] = family.reply(quote);
    for options in [4, 40] {
        let messages = family.to_backend([3, 4], [&quoted, &known]);
        let [frame, expected] =
            messages.map(|message| with_ipv4_options(message, &[1; 40][..options]));
        let ran = rig.run(Side::Client, &frame).unwrap();
        family.assert_at_backend(&ran, expected);
    }
}

/// VLAN tags stay, on what is sent on and on what is answered.
#[test]
fn answers_keep_the_tag_and_errors_lose_it() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let [quoted, known] = family.reply(Quote::plain(Transport::Tcp, 8));
        let [frame, expected] = family.to_backend(family.errors[0], [&quoted, &known]);
        let ran = rig.run(Side::Client, &with_vlan(frame, 7)).unwrap();
        assert_eq!(ran.outcome, Outcome::ForwardRedirect);
        let expected = with_ttl(expected, TTL - 1);
        assert_eq!(ran.frame[12..], expected[12..]);

        let (vip, router) = (family.vip, family.router);
        let (request, reply) = if vip.is_ipv4() { (8, 0) } else { (128, 129) };
        let frame = icmp((router, vip), [request, 0], REST, b"ping");
        let ran = rig.run(Side::Client, &with_vlan(frame, 7)).unwrap();
        assert_eq!(ran.outcome, Outcome::AnswerEcho);
        let expected = icmp((vip, router), [reply, 0], REST, b"ping");
        assert_eq!(ran.frame[12..], with_vlan(expected, 7)[12..]);
    }
}

/// A UDP checksum of 0 is none, in a quote as elsewhere.
#[test]
fn a_quote_without_a_udp_checksum_stays_without() {
    require_root!();
    let mut rig = rig();
    let [family, _] = families();
    let (service, backend) = family.service(Transport::Udp);
    let [quoted, known] = [service, backend].map(|from| {
        let mut frame = udp(from, family.client, b"plain");
        frame[40..42].fill(0);
        frame[14..].to_vec()
    });
    let [frame, expected] = family.to_backend([3, 3], [&quoted, &known]);
    let ran = rig.run(Side::Client, &frame).unwrap();
    family.assert_at_backend(&ran, expected);
}

#[test]
fn random_errors_come_to_the_same_as_a_full_recompute() {
    require_root!();
    let mut rig = rig();
    let mut random = Random::new(3);
    for number in 0..repetitions(20_000) {
        let [v4, v6] = families();
        let family = if random.below(2) == 0 { v4 } else { v6 };
        let transport = [Transport::Tcp, Transport::Udp][random.below(2)];
        let (service, backend) = family.service(transport);
        let client = SocketAddr::new(family.client.ip(), 1 + random.below(65_535) as u16);
        let payload: Vec<u8> = (0..random.below(200))
            .map(|_| random.below(256) as u8)
            .collect();
        let segment = [Segment::SynAck, Segment::Ack, Segment::Fin, Segment::Rst][random.below(4)];
        let packet = |from: SocketAddr, to: SocketAddr| match transport {
            Transport::Tcp => tcp(from, to, segment, &payload)[14..].to_vec(),
            Transport::Udp => udp(from, to, &payload)[14..].to_vec(),
        };
        let error = family.errors[random.below(family.errors.len())];
        let rest = (random.next_u64() as u32).to_be_bytes();
        let (side, [quoted, known], [from, to]) = if random.below(2) == 0 {
            let way = [service, backend].map(|known| (family.router, known.ip()));
            let packets = [service, backend].map(|known| packet(known, client));
            (Side::Client, packets, way)
        } else {
            let way = [backend, service].map(|known| (known.ip(), client.ip()));
            let packets = [backend, service].map(|known| packet(client, known));
            (Side::Backend, packets, way)
        };
        let len = (family.least_quote() + random.below(200)).min(quoted.len());
        let frame = icmp(from, error, rest, &quoted[..len]);
        let (action, out) = rig.run_uncounted(side, &frame).unwrap();
        assert_eq!(action, Action::Redirect, "packet {number}: {frame:02x?}");
        let known = start(&known, &quoted, len, transport);
        let expected = with_ttl(icmp(to, error, rest, &known), TTL - 1);
        assert_eq!(out[12..], expected[12..], "packet {number}: {frame:02x?}");
    }
}
