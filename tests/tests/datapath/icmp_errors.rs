//! ICMP errors about packets of balanced flows, to backends and to clients.
//!
//! Every expected frame is built from scratch, all its checksums computed in full, and compared byte
//! by byte: what the programs update incrementally must come to the same.

use std::net::{IpAddr, SocketAddr};

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    Segment, TTL, as_fragment, describe, icmp, tcp, udp, with_ipv4_options, with_ipv6_fragment,
    with_ttl, with_vlan,
};
use lbagent_tests::prog_run::{
    Action, CLIENT_V4, CLIENT_V6, GATEWAY_V4, ROUTER_MAC, Ran, Rig, Side, VIP_V4, VIP_V6,
    backend_mac,
};
use lbagent_tests::require_root;
use lbagent_tests::slowness::repetitions;

use crate::random::Random;
use crate::{assert_untouched, at};

/// Errors that are taken to the sender: type and code.
const ERRORS_V4: [[u8; 2]; 8] = [
    [3, 0],
    [3, 1],
    [3, 3],
    [3, 4],
    [3, 13],
    [11, 0],
    [11, 1],
    [12, 0],
];
const ERRORS_V6: [[u8; 2]; 6] = [[1, 0], [1, 4], [2, 0], [3, 0], [3, 1], [4, 1]];
/// The next hop's MTU of 1400 bytes, or whatever the bytes mean.
const REST: [u8; 4] = [0, 0, 0x05, 0x78];

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

/// Addresses of one family.
struct Family {
    router: IpAddr,
    inner_router: IpAddr,
    client: IpAddr,
    vip: IpAddr,
    backend: IpAddr,
    errors: &'static [[u8; 2]],
}

fn families() -> [Family; 2] {
    let ip = |text: &str| text.parse().unwrap();
    [
        Family {
            router: ip("203.0.113.254"),
            inner_router: ip("10.66.0.77"),
            client: ip(CLIENT_V4),
            vip: ip(VIP_V4),
            backend: ip("10.66.0.11"),
            errors: &ERRORS_V4,
        },
        Family {
            router: ip("2001:db8:c::fe"),
            inner_router: ip("fd66::77"),
            client: ip(CLIENT_V6),
            vip: ip(VIP_V6),
            backend: ip("fd66::11"),
            errors: &ERRORS_V6,
        },
    ]
}

/// How a quoted packet looks, whoever sent it.
#[derive(Clone, Copy, Debug)]
struct Quote {
    transport: Transport,
    /// Bytes of IPv4 options; in IPv6 any number stands for a fragment header.
    options: usize,
    /// Bytes behind the headers of the network layer.
    len: usize,
}

impl Quote {
    fn packet(self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let payload = b"a payload that is longer than any quote asks for";
        let frame = match self.transport {
            Transport::Tcp => tcp(from, to, Segment::Ack, payload),
            Transport::Udp => udp(from, to, payload),
        };
        let (frame, headers) = match (self.options, from.is_ipv4()) {
            (0, true) => (frame, 20),
            (0, false) => (frame, 40),
            (options, true) => (with_ipv4_options(frame, &[1; 40][..options]), 20 + options),
            (_, false) => (with_ipv6_fragment(frame, 0, true), 48),
        };
        let end = frame.len().min(14 + headers + self.len);
        frame[14..end].to_vec()
    }
}

/// Quotes of 8 bytes, of 20, and of all that there is.
fn quotes() -> Vec<Quote> {
    let mut quotes = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for options in [0, 4, 40] {
            for len in [8, 16, 18, 20, 1000] {
                quotes.push(Quote {
                    transport,
                    options,
                    len,
                });
            }
        }
    }
    quotes
}

/// Ports of the VIP and of the backend.
fn ports(transport: Transport) -> (u16, u16) {
    match transport {
        Transport::Tcp => (5432, 15432),
        Transport::Udp => (53, 5353),
    }
}

/// The start of a packet as it is known elsewhere. Half a checksum, which ends a quote of 17 bytes of
/// TCP, says nothing and stays.
fn start(known: &[u8], quoted: &[u8], len: usize, transport: Transport) -> Vec<u8> {
    let header_len = if quoted[0] >> 4 == 4 { 20 } else { 40 };
    let mut start = known[..len].to_vec();
    if transport == Transport::Tcp && len == header_len + 17 {
        start[len - 1] = quoted[len - 1];
    }
    start
}

/// Checks that the program sent the frame that was expected, one hop further.
#[track_caller]
fn assert_sent(ran: &Ran, outcome: Outcome, expected: Vec<u8>, mac: [u8; 6]) {
    assert_eq!(ran.outcome, outcome);
    assert_eq!(ran.action, Action::Redirect);
    assert_eq!(ran.frame[..6], mac);
    let expected = with_ttl(expected, TTL - 1);
    assert_eq!(ran.frame[12..], expected[12..], "not the expected packet");
    assert_eq!(ran.backend.as_deref(), Some("a"), "counted for nobody");
}

#[test]
fn errors_about_a_vip_reach_the_backend() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let Family {
            router,
            client,
            vip,
            backend,
            errors,
            ..
        } = family;
        let client = SocketAddr::new(client, 4000);
        for quote in quotes() {
            let (port, backend_port) = ports(quote.transport);
            let quoted = quote.packet(SocketAddr::new(vip, port), client);
            let known = quote.packet(SocketAddr::new(backend, backend_port), client);
            for &error in errors {
                for side in [Side::Client, Side::Backend] {
                    let frame = icmp((router, vip), error, REST, &quoted);
                    let ran = rig.run(side, &frame).unwrap();
                    println!("{error:?} {quote:?} {side:?}: {:?}", ran.outcome);
                    let expected = icmp((router, backend), error, REST, &known);
                    assert_sent(
                        &ran,
                        Outcome::ForwardRedirect,
                        expected,
                        backend_mac(backend),
                    );
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
        let Family {
            inner_router,
            client,
            vip,
            backend,
            errors,
            ..
        } = family;
        let source = SocketAddr::new(client, 4000);
        for quote in quotes() {
            let (port, backend_port) = ports(quote.transport);
            let quoted = quote.packet(source, SocketAddr::new(backend, backend_port));
            let known = quote.packet(source, SocketAddr::new(vip, port));
            for &error in errors {
                // A backend speaks as its VIP, a router on the way for itself.
                for (from, seen) in [(backend, vip), (inner_router, inner_router)] {
                    let frame = icmp((from, client), error, REST, &quoted);
                    let ran = rig.run(Side::Backend, &frame).unwrap();
                    println!("{error:?} {quote:?} from {from}: {:?}", ran.outcome);
                    let expected = icmp((seen, client), error, REST, &known);
                    assert_sent(&ran, Outcome::ReturnRedirect, expected, ROUTER_MAC);
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
    let client = SocketAddr::new(family.client, 4000);
    let quote = Quote {
        transport: Transport::Tcp,
        options: 40,
        len: 20,
    };
    let quoted = quote.packet(SocketAddr::new(family.vip, 5432), client);
    let known = quote.packet(SocketAddr::new(family.backend, 15432), client);
    for options in [4, 40] {
        let options = &[1; 40][..options];
        let message = |to, quoted: &[u8]| {
            with_ipv4_options(icmp((family.router, to), [3, 4], REST, quoted), options)
        };
        let ran = rig
            .run(Side::Client, &message(family.vip, &quoted))
            .unwrap();
        let expected = message(family.backend, &known);
        assert_sent(
            &ran,
            Outcome::ForwardRedirect,
            expected,
            backend_mac(family.backend),
        );
    }
}

/// VLAN tags stay, on what is sent on and on what is answered.
#[test]
fn tags_of_the_message_are_kept() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let Family {
            router,
            client,
            vip,
            backend,
            errors,
            ..
        } = family;
        let client = SocketAddr::new(client, 4000);
        let quote = Quote {
            transport: Transport::Tcp,
            options: 0,
            len: 8,
        };
        let quoted = quote.packet(SocketAddr::new(vip, 5432), client);
        let known = quote.packet(SocketAddr::new(backend, 15432), client);
        let frame = icmp((router, vip), errors[0], REST, &quoted);
        let ran = rig.run(Side::Client, &with_vlan(frame, 7)).unwrap();
        let expected = with_ttl(icmp((router, backend), errors[0], REST, &known), TTL - 1);
        assert_eq!(ran.outcome, Outcome::ForwardRedirect);
        assert_eq!(ran.frame[12..], with_vlan(expected, 7)[12..]);

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
    let client = SocketAddr::new(family.client, 4000);
    let without = |from| {
        let mut frame = udp(from, client, b"plain");
        frame[40..42].fill(0);
        frame[14..].to_vec()
    };
    let quoted = without(SocketAddr::new(family.vip, 53));
    let known = without(SocketAddr::new(family.backend, 5353));
    let frame = icmp((family.router, family.vip), [3, 3], REST, &quoted);
    let ran = rig.run(Side::Client, &frame).unwrap();
    let expected = icmp((family.router, family.backend), [3, 3], REST, &known);
    assert_sent(
        &ran,
        Outcome::ForwardRedirect,
        expected,
        backend_mac(family.backend),
    );
}

/// The gateway stands for a client that the backend would answer directly.
#[test]
fn errors_find_their_way_through_a_rewritten_source() {
    require_root!();
    let mut rig = rig();
    let [
        Family {
            router,
            inner_router,
            vip,
            backend,
            ..
        },
        _,
    ] = families();
    let client = at("10.66.0.200:40000");
    rig.add_neighbour(client.ip(), "be0", [2, 0, 0, 0, 2, 200])
        .unwrap();
    let service = SocketAddr::new(vip, 5432);
    let quote = Quote {
        transport: Transport::Tcp,
        options: 0,
        len: 8,
    };
    let about_reply = icmp((router, vip), [3, 4], REST, &quote.packet(service, client));
    // Before the flow: nobody knows it, and nobody may after the error.
    let ran = rig.run(Side::Client, &about_reply).unwrap();
    assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &about_reply);
    let ran = rig.run(Side::Client, &about_reply).unwrap();
    assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &about_reply);

    let syn = tcp(client, service, Segment::Syn, b"");
    let described = describe(&rig.run(Side::Client, &syn).unwrap().frame).unwrap();
    let (gateway, real) = (described.source, described.destination);
    assert_eq!(gateway.ip().to_string(), GATEWAY_V4);

    let ran = rig.run(Side::Client, &about_reply).unwrap();
    let expected = icmp(
        (router, backend),
        [3, 4],
        REST,
        &quote.packet(real, gateway),
    );
    assert_sent(
        &ran,
        Outcome::ForwardRedirect,
        expected,
        backend_mac(backend),
    );

    // The other way the error is for the gateway's own address.
    for (from, seen) in [(backend, vip), (inner_router, inner_router)] {
        let quoted = quote.packet(gateway, real);
        let frame = icmp((from, gateway.ip()), [3, 1], REST, &quoted);
        let ran = rig.run(Side::Backend, &frame).unwrap();
        let known = quote.packet(client, service);
        let expected = icmp((seen, client.ip()), [3, 1], REST, &known);
        assert_sent(
            &ran,
            Outcome::ReturnRedirect,
            expected,
            [2, 0, 0, 0, 2, 200],
        );
    }
}

/// An error that ends anywhere: what has no ports passes as it came, and so does what is cut off
/// behind its own headers' back.
#[test]
fn truncated_errors_change_nothing() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let Family {
            router,
            client,
            vip,
            backend,
            errors,
            ..
        } = family;
        let client = SocketAddr::new(client, 4000);
        let quote = Quote {
            transport: Transport::Tcp,
            options: 0,
            len: 1000,
        };
        let quoted = quote.packet(SocketAddr::new(vip, 5432), client);
        let known = quote.packet(SocketAddr::new(backend, 15432), client);
        let least = if vip.is_ipv4() { 28 } else { 48 };
        for len in 0..quoted.len() {
            let frame = icmp((router, vip), errors[0], REST, &quoted[..len]);
            let ran = rig.run(Side::Client, &frame).unwrap();
            if len < least {
                assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
            } else {
                let expected = icmp(
                    (router, backend),
                    errors[0],
                    REST,
                    &start(&known, &quoted, len, Transport::Tcp),
                );
                assert_sent(
                    &ran,
                    Outcome::ForwardRedirect,
                    expected,
                    backend_mac(backend),
                );
            }
        }
        let whole = icmp((router, vip), errors[0], REST, &quoted);
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

#[test]
fn everything_else_is_left_to_the_kernel() {
    require_root!();
    let mut rig = rig();
    for family in families() {
        let Family {
            router,
            client,
            vip,
            backend,
            errors,
            ..
        } = family;
        let (from, to) = (SocketAddr::new(vip, 5432), SocketAddr::new(client, 4000));
        let full = |transport| Quote {
            transport,
            options: 0,
            len: 1000,
        };
        let good = full(Transport::Tcp).packet(from, to);
        let later = if vip.is_ipv4() {
            as_fragment(tcp(from, to, Segment::Ack, &[7; 64]), 10, false)
        } else {
            with_ipv6_fragment(tcp(from, to, Segment::Ack, &[7; 64]), 10, false)
        };
        let mut other_version = good.clone();
        other_version[0] ^= 0x20;
        let error = errors[0];
        let icmp_quote = icmp((vip, client), error, REST, &good)[14..].to_vec();
        let message = |quoted: &[u8]| icmp((router, vip), error, REST, quoted);
        let redirect = if vip.is_ipv4() { [5, 1] } else { [137, 0] };
        let quench = if vip.is_ipv4() { [4, 0] } else { [100, 0] };
        let odd = SocketAddr::new(vip, 5433);
        let elsewhere = SocketAddr::new(backend, 5432);
        for (name, frame) in [
            ("a quoted later fragment", message(&later[14..])),
            ("an error about an error", message(&icmp_quote)),
            ("a quote of another version", message(&other_version)),
            (
                "an unpublished port",
                message(&full(Transport::Tcp).packet(odd, to)),
            ),
            (
                "the other protocol",
                message(&full(Transport::Udp).packet(from, to)),
            ),
            (
                "a quote that the VIP did not send",
                message(&full(Transport::Tcp).packet(elsewhere, to)),
            ),
            ("a redirect", icmp((router, vip), redirect, REST, &good)),
            (
                "an error that nobody handles",
                icmp((router, vip), quench, REST, &good),
            ),
            ("no quote at all", message(&[])),
        ] {
            for side in [Side::Client, Side::Backend] {
                let ran = rig.run(side, &frame).unwrap();
                println!("{name} {side:?}: {:?}", ran.outcome);
                assert_untouched(&ran, Action::Pass, Outcome::PassIcmp, &frame);
            }
        }
        // About packets that are no balanced flow's, or to others than their sender.
        let other = SocketAddr::new(router, 4000);
        let to_backend = SocketAddr::new(backend, 15432);
        for (name, frame) in [
            (
                "a foreign connection",
                icmp(
                    (router, client),
                    error,
                    REST,
                    &full(Transport::Tcp).packet(to, other),
                ),
            ),
            (
                "another port of a backend",
                icmp(
                    (backend, client),
                    error,
                    REST,
                    &full(Transport::Tcp).packet(to, elsewhere),
                ),
            ),
            (
                "not to the sender",
                icmp(
                    (backend, router),
                    error,
                    REST,
                    &full(Transport::Tcp).packet(to, to_backend),
                ),
            ),
        ] {
            for side in [Side::Client, Side::Backend] {
                let ran = rig.run(side, &frame).unwrap();
                println!("{name} {side:?}: {:?}", ran.outcome);
                assert_untouched(&ran, Action::Pass, Outcome::PassProtocol, &frame);
            }
        }
        let spent = with_ttl(message(&good), 1);
        let ran = rig.run(Side::Client, &spent).unwrap();
        assert_untouched(&ran, Action::Pass, Outcome::PassTtl, &spent);
    }
}

#[test]
fn random_errors_come_to_the_same_as_a_full_recompute() {
    require_root!();
    let mut rig = rig();
    let mut random = Random(3);
    for number in 0..repetitions(20_000) {
        let [v4, v6] = families();
        let family = if random.below(2) == 0 { v4 } else { v6 };
        let transport = if random.below(2) == 0 {
            Transport::Tcp
        } else {
            Transport::Udp
        };
        let (port, backend_port) = ports(transport);
        let client = SocketAddr::new(family.client, 1 + random.below(65_535) as u16);
        let payload: Vec<u8> = (0..random.below(200))
            .map(|_| random.below(256) as u8)
            .collect();
        let segment = [Segment::SynAck, Segment::Ack, Segment::Fin, Segment::Rst][random.below(4)];
        let packet = |from: SocketAddr, to: SocketAddr| match transport {
            Transport::Tcp => tcp(from, to, segment, &payload)[14..].to_vec(),
            Transport::Udp => udp(from, to, &payload)[14..].to_vec(),
        };
        let error = family.errors[random.below(family.errors.len())];
        let rest = (random.next() as u32).to_be_bytes();
        let (vip, backend) = (
            SocketAddr::new(family.vip, port),
            SocketAddr::new(family.backend, backend_port),
        );
        let (side, quoted, known, from, to) = if random.below(2) == 0 {
            let (from, to) = ((family.router, vip.ip()), (family.router, backend.ip()));
            (
                Side::Client,
                packet(vip, client),
                packet(backend, client),
                from,
                to,
            )
        } else {
            let (from, to) = ((backend.ip(), client.ip()), (vip.ip(), client.ip()));
            (
                Side::Backend,
                packet(client, backend),
                packet(client, vip),
                from,
                to,
            )
        };
        let least = if family.vip.is_ipv4() { 28 } else { 48 };
        let len = (least + random.below(200)).min(quoted.len());
        let frame = icmp(from, error, rest, &quoted[..len]);
        let (action, out) = rig.run_uncounted(side, &frame).unwrap();
        assert_eq!(action, Action::Redirect, "packet {number}: {frame:02x?}");
        let expected = with_ttl(
            icmp(to, error, rest, &start(&known, &quoted, len, transport)),
            TTL - 1,
        );
        assert_eq!(out[12..], expected[12..], "packet {number}: {frame:02x?}");
    }
}

/// A flow whose slot changed hands: its errors go where it goes, and leave no trace.
#[test]
fn errors_follow_a_flow_of_a_changed_slot() {
    require_root!();
    let mut rig = rig();
    let group = *rig.desired.service_groups.keys().next().unwrap();
    rig.instance("b", group, &["10.66.0.12", "fd66::12"])
        .unwrap();
    rig.reconcile().unwrap();
    for family in families() {
        let vip = SocketAddr::new(family.vip, 5432);
        let mut owners = std::collections::BTreeMap::<String, u32>::new();
        for port in 20_000..20_064 {
            let client = SocketAddr::new(family.client, port);
            let quoted = tcp(vip, client, Segment::Ack, b"")[14..].to_vec();
            let error = icmp((family.router, vip.ip()), family.errors[0], REST, &quoted);
            // As of a flow from before the change; had it been stored, a SYN would be the same flow's.
            let ran = rig.run(Side::Client, &error).unwrap();
            assert_eq!(ran.backend.as_deref(), Some("a"), "port {port}");
            let syn = rig
                .run(Side::Client, &tcp(client, vip, Segment::Syn, b""))
                .unwrap();
            let owner = syn.backend.unwrap();
            let ran = rig.run(Side::Client, &error).unwrap();
            assert_eq!(ran.backend.as_ref(), Some(&owner), "port {port}");
            *owners.entry(owner).or_default() += 1;
        }
        assert_eq!(owners.len(), 2, "no slot changed hands: {owners:?}");
    }
}

/// An error is no packet of the flow: a UDP flow that starts after it is new.
#[test]
fn an_error_starts_no_udp_flow() {
    require_root!();
    let mut rig = rig();
    let [family, _] = families();
    let (vip, client) = (
        SocketAddr::new(family.vip, 53),
        SocketAddr::new(family.client, 4000),
    );
    let quoted = udp(vip, client, b"answer")[14..].to_vec();
    let error = icmp((family.router, vip.ip()), [3, 3], REST, &quoted);
    rig.run(Side::Client, &error).unwrap();
    assert_eq!(rig.backends().unwrap()["a"].flows, 0);
    rig.run(Side::Client, &udp(client, vip, b"query")).unwrap();
    assert_eq!(rig.backends().unwrap()["a"].flows, 1);
}
