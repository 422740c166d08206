//! Port 80 answered by `lb_ingress` itself: handshakes, requests, and the end of connections.

mod closing;
mod handshakes;
mod listeners;
mod requests;
mod shield;
mod told;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use lbagent::dataplane::Dataplane as _;
use lbagent_common::Outcome;
use lbagent_common::redirect::Passed;
use lbagent_tests::prog_run::{Action, CLIENT_V4, CLIENT_V6, Ran, Side, VIP_V4, VIP_V6};
use lbagent_tests::redirect_rig::{ISN, RedirectRig, syn};
use lbagent_tests::tcp_segment::{TcpSegment, flags};

use crate::assert_untouched;

/// A gateway whose port 80 redirects.
struct Web(RedirectRig);

impl Deref for Web {
    type Target = RedirectRig;

    fn deref(&self) -> &RedirectRig {
        &self.0
    }
}

impl DerefMut for Web {
    fn deref_mut(&mut self) -> &mut RedirectRig {
        &mut self.0
    }
}

impl Web {
    fn new() -> Self {
        Self(RedirectRig::new().unwrap())
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
        let ran = self.run(&syn().frame(client, vip));
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

/// Does something within one minute of the cookies' clock, again if a minute ended meanwhile: without a
/// hint a cookie of the minute before tells nothing about later segments.
fn within_a_minute(mut act: impl FnMut(&mut Web)) {
    for _ in 0..3 {
        let mut web = Web::new();
        let [family, _] = families(1999);
        let minute = web.open(family).acknowledged;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&mut web)));
        match result {
            Ok(()) => return,
            Err(_) if web.open(family).acknowledged != minute => {}
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    panic!("three minutes ended, each within a second's work");
}
