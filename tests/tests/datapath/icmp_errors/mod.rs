//! ICMP errors about packets of balanced flows, to backends and to clients.
//!
//! Every expected frame is built from scratch, all its checksums computed in full, and compared byte
//! by byte: what the programs update incrementally must come to the same.

mod dsr;
mod flows;
mod nat;
mod nobody;
mod sources;

use std::net::{IpAddr, SocketAddr};

use lbagent::desired::Transport;
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{
    Segment, TTL, icmp, tcp, udp, with_ipv4_options, with_ipv6_fragment, with_ttl,
};
use lbagent_tests::prog_run::{
    Action, CLIENT_V4, CLIENT_V6, ROUTER_MAC, Ran, Rig, VIP_V4, VIP_V6, backend_mac,
};

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
    client: SocketAddr,
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
            client: SocketAddr::new(ip(CLIENT_V4), 4000),
            vip: ip(VIP_V4),
            backend: ip("10.66.0.11"),
            errors: &ERRORS_V4,
        },
        Family {
            router: ip("2001:db8:c::fe"),
            inner_router: ip("fd66::77"),
            client: SocketAddr::new(ip(CLIENT_V6), 4000),
            vip: ip(VIP_V6),
            backend: ip("fd66::11"),
            errors: &ERRORS_V6,
        },
    ]
}

impl Family {
    /// The published port and the backend's own.
    fn service(&self, transport: Transport) -> (SocketAddr, SocketAddr) {
        let (port, backend_port) = match transport {
            Transport::Tcp => (5432, 15432),
            Transport::Udp => (53, 5353),
        };
        (
            SocketAddr::new(self.vip, port),
            SocketAddr::new(self.backend, backend_port),
        )
    }

    /// A packet that the VIP sent to the client, as the client's side knows it and as the backend
    /// does.
    fn reply(&self, quote: Quote) -> [Vec<u8>; 2] {
        let (service, backend) = self.service(quote.transport);
        [service, backend].map(|from| quote.packet(from, self.client))
    }

    /// A packet that the client sent, as the backend's side knows it and as the client does.
    fn request(&self, quote: Quote) -> [Vec<u8>; 2] {
        let (service, backend) = self.service(quote.transport);
        [backend, service].map(|to| quote.packet(self.client, to))
    }

    /// An error of the router, as it comes for the VIP and as it must leave for the backend, about a
    /// reply that is known in two ways.
    fn to_backend(&self, error: [u8; 2], [quoted, known]: [&[u8]; 2]) -> [Vec<u8>; 2] {
        [
            icmp((self.router, self.vip), error, REST, quoted),
            icmp((self.router, self.backend), error, REST, known),
        ]
    }

    /// Bytes of a quote that has ports, and no more.
    fn least_quote(&self) -> usize {
        if self.vip.is_ipv4() { 28 } else { 48 }
    }

    /// Checks that an error was sent to the backend as it should be.
    #[track_caller]
    fn assert_at_backend(&self, ran: &Ran, expected: Vec<u8>) {
        let mac = backend_mac(self.backend);
        assert_sent(ran, Outcome::ForwardRedirect, expected, mac);
    }
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
    /// A quote of a packet without options.
    fn plain(transport: Transport, len: usize) -> Self {
        Self {
            transport,
            options: 0,
            len,
        }
    }

    /// The packet from its IP header on, cut off where the quote ends.
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

/// Checks that an error from the backends' side was sent to the client as it should be.
#[track_caller]
fn assert_at_client(ran: &Ran, expected: Vec<u8>) {
    assert_sent(ran, Outcome::ReturnRedirect, expected, ROUTER_MAC);
}
