//! Port 80 answered by `lb_ingress` itself: handshakes, requests, and the end of connections.

mod closing;
mod handshakes;
mod listeners;
mod requests;
mod shield;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use lbagent::dataplane::Dataplane as _;
use lbagent::desired::{Domain, Transport};
use lbagent::plan::Terminator;
use lbagent_api::service_group::Handler;
use lbagent_common::redirect::Passed;
use lbagent_common::{Outcome, TERMINATOR_V4, TERMINATOR_V6};
use lbagent_tests::netns::set_sysctl;
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Ran, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::tcp_segment::{TcpSegment, flags};

use crate::assert_untouched;

/// What a client offers that is used to talk to the whole world: its largest segment, that it can
/// acknowledge selectively, timestamps, and a window scale.
const OPTIONS: [u8; 20] = [
    2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// A client's first sequence number.
const ISN: u32 = 0xffff_ff00;

/// A gateway with a group that redirects and one that does not.
struct Web {
    rig: Rig,
    listeners: Vec<TcpListener>,
}

impl Web {
    fn new() -> Self {
        let mut rig = Rig::new().unwrap();
        set_sysctl("net/ipv4/tcp_syncookies", "2").unwrap();
        rig.terminator = Terminator { v4: true, v6: true };
        let ports = [(443, 8080, Transport::Tcp), (80, 443, Transport::Tcp)];
        let (https, redirect) = (
            [Handler::Tls, Handler::Http],
            [Handler::Http, Handler::Redirect],
        );
        let plain = [Handler::Http];
        for (name, port_80, domains) in [
            (
                "shop",
                &redirect[..],
                &["shop.example", "*.shop.example", "example"][..],
            ),
            (
                "plain",
                &plain[..],
                &["plain.shop.example", "*.plain.example"][..],
            ),
        ] {
            let group = rig.group(name, &ports);
            let group = rig.desired.service_groups.get_mut(&group).unwrap();
            group.services[0].handlers = https.to_vec();
            group.services[1].handlers = port_80.to_vec();
            group.domains = domains
                .iter()
                .map(|fqdn| Domain {
                    fqdn: (*fqdn).to_owned(),
                    certificate: None,
                })
                .collect();
        }
        let listeners = Vec::new();
        let mut web = Self { rig, listeners };
        web.rig.reconcile().unwrap();
        web.lend(u32::MAX);
        web.listen();
        web
    }

    /// Registers new listening sockets; those from before are closed.
    fn listen(&mut self) {
        let addresses = ["127.0.0.1:0", "[::1]:0"];
        self.listeners = addresses.map(|at| TcpListener::bind(at).unwrap()).into();
        let indexes = [TERMINATOR_V4, TERMINATOR_V6];
        for (index, listener) in indexes.into_iter().zip(&self.listeners) {
            let socket = OwnedFd::from(listener.try_clone().unwrap());
            self.rig
                .dataplane
                .set_terminator(index, Some(&socket))
                .unwrap();
        }
    }

    /// Says until when SYNs are answered, as the agent does while it looks after the kernel's settings.
    fn lend(&mut self, until: u32) {
        let settings = &mut self.rig.dataplane.maps_mut().settings;
        let mut written = settings.get(0).unwrap();
        written.cookies_until = [until; 2];
        settings.put(0, &written).unwrap();
    }

    fn run(&mut self, frame: &[u8]) -> Ran {
        self.rig.run(Side::Client, frame).unwrap()
    }

    /// Why packets were left to the terminator, and how many.
    fn passed(&mut self) -> BTreeMap<Passed, u64> {
        let counters = self.rig.dataplane.counters(&[], &[]).unwrap();
        let reasons = Passed::ALL.iter().copied();
        reasons.zip(counters.passed).collect()
    }

    /// Checks that a frame is left to the terminator as it is, for this reason.
    #[track_caller]
    fn assert_passed(&mut self, frame: &[u8], reason: Passed) {
        let before = self.passed();
        let ran = self.run(frame);
        let after = self.passed();
        let risen: Vec<_> = Passed::ALL
            .iter()
            .filter(|reason| after[reason] > before[reason])
            .collect();
        assert_eq!(
            (ran.outcome, &risen[..]),
            (Outcome::PassRedirect, &[&reason][..])
        );
        assert_untouched(&ran, Action::Pass, Outcome::PassRedirect, frame);
    }

    /// Opens a connection from one client port.
    #[track_caller]
    fn open(&mut self, (client, vip): (SocketAddr, SocketAddr)) -> Opened {
        let syn = TcpSegment {
            sequence: ISN,
            flags: flags::SYN,
            window: 64_240,
            options: OPTIONS.to_vec(),
            ..TcpSegment::default()
        };
        let ran = self.run(&syn.frame(client, vip));
        assert_eq!(
            (ran.action, ran.outcome),
            (Action::Transmit, Outcome::AnswerCookie)
        );
        let answer = TcpSegment::of_answer(&ran.frame, client, vip).unwrap();
        assert_eq!(answer.acknowledged, ISN.wrapping_add(1));
        Opened {
            client,
            vip,
            sequence: ISN.wrapping_add(1),
            acknowledged: answer.sequence.wrapping_add(1),
        }
    }
}

/// A connection, as its client sees it.
#[derive(Clone, Copy, Debug)]
struct Opened {
    client: SocketAddr,
    vip: SocketAddr,
    /// Of the next byte that the client sends.
    sequence: u32,
    /// The next byte that it expects.
    acknowledged: u32,
}

impl Opened {
    fn segment(&self, flags: u8, payload: &[u8]) -> TcpSegment {
        TcpSegment {
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            flags: flags | flags::ACK,
            window: 64_240,
            options: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    fn frame(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        self.segment(flags, payload).frame(self.client, self.vip)
    }

    /// After it sent and received so many bytes more, ends of streams included.
    fn after(mut self, sent: usize, received: usize) -> Self {
        self.sequence = self.sequence.wrapping_add(sent as u32);
        self.acknowledged = self.acknowledged.wrapping_add(received as u32);
        self
    }

    /// Checks an answer: it follows what was received, and acknowledges so many bytes.
    #[track_caller]
    fn assert_answer(
        &self,
        ran: &Ran,
        outcome: Outcome,
        flags: u8,
        acknowledged: usize,
    ) -> TcpSegment {
        assert_eq!((ran.action, ran.outcome), (Action::Transmit, outcome));
        let answer = TcpSegment::of_answer(&ran.frame, self.client, self.vip).unwrap();
        assert_eq!(answer.sequence, self.acknowledged);
        assert_eq!(
            answer.acknowledged,
            self.sequence.wrapping_add(acknowledged as u32)
        );
        assert_eq!(answer.flags, flags | flags::ACK, "{answer:?}");
        assert_eq!(answer.options, [0; 0]);
        answer
    }
}

/// A client and a VIP of each family; the client's port tells tests' connections apart.
fn families(port: u16) -> [(SocketAddr, SocketAddr); 2] {
    [(CLIENT_V4, VIP_V4), (CLIENT_V6, VIP_V6)].map(|(client, vip)| {
        let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
        (at(client, port), at(vip, 80))
    })
}

/// A request that is redirected, and what it is answered.
const REQUEST: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: www.shop.example\r\nAccept: */*\r\n\r\n";

fn answer_to(location: &str) -> String {
    format!(
        "HTTP/1.1 308 Permanent Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )
}
