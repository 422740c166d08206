//! SYNs, and what proves that their senders get the answers.

use lbagent_common::Outcome;
use lbagent_common::redirect::Passed;
use lbagent_tests::netns::set_sysctl;
use lbagent_tests::packet_builder::{
    as_fragment, with_ipv4_options, with_ipv6_fragment, with_vlan,
};
use lbagent_tests::prog_run::Action;
use lbagent_tests::redirect_rig::OPTIONS;
use lbagent_tests::require_root;
use lbagent_tests::tcp_segment::{TcpSegment, flags};

use super::{ISN, REQUEST, Web, families};
use crate::at;

fn syn(flags: u8, options: &[u8], payload: &[u8]) -> TcpSegment {
    TcpSegment {
        sequence: ISN,
        flags,
        window: 64_240,
        options: options.to_vec(),
        payload: payload.to_vec(),
        ..TcpSegment::default()
    }
}

/// Options of a SYN, and what is answered: the largest segment only, and nothing that the kernel would
/// have to know of later. Where there is no room for it in as many bytes as came, not even that.
#[test]
fn options_are_declined_but_for_the_segment_size() {
    require_root!();
    let mut web = Web::new();
    let cases: [(&str, u8, &[u8], &[u8]); 11] = [
        ("none", 0, &[], b""),
        ("segment size", 0, &[2, 4, 0x05, 0xb4], b""),
        ("a small segment size", 0, &[2, 4, 0, 88], b""),
        ("a segment size of 0", 0, &[2, 4, 0, 0], b""),
        ("what clients send", 0, &OPTIONS, b""),
        ("window scale only", 0, &[1, 3, 3, 14], b""),
        (
            "timestamps only",
            0,
            &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
            b"",
        ),
        ("ECN", flags::ECE | flags::CWR, &OPTIONS, b""),
        (
            "Fast Open, which asks for a cookie",
            0,
            &[2, 4, 0x05, 0xb4, 34, 2, 1, 1],
            b"",
        ),
        (
            "Fast Open with data",
            0,
            &[2, 4, 0x05, 0xb4, 34, 6, 1, 2, 3, 4, 1, 1],
            REQUEST,
        ),
        ("40 bytes, broken", 0, &[255; 40], b""),
    ];
    for (port, (what, more, options, payload)) in (2000..).zip(cases) {
        for (client, vip) in families(port) {
            let frame = syn(flags::SYN | more, options, payload).frame(client, vip);
            let ran = web.run(&frame);
            assert_eq!(
                (ran.action, ran.outcome),
                (Action::Transmit, Outcome::AnswerCookie),
                "{what}"
            );
            assert!(ran.frame.len() <= frame.len(), "{what}: amplified");
            let answer = TcpSegment::of_answer(&ran.frame, client, vip).unwrap();
            assert_eq!(answer.flags, flags::SYN | flags::ACK, "{what}");
            assert_eq!(
                answer.acknowledged,
                ISN.wrapping_add(1),
                "{what}: data is not taken yet"
            );
            let headers = if client.is_ipv4() { 40 } else { 60 };
            let expected = (!options.is_empty()).then_some(1500 - headers);
            assert_eq!(answer.mss(), expected, "{what}");
            assert_eq!(
                answer.options.len(),
                if options.is_empty() { 0 } else { 4 },
                "{what}"
            );
            // The kernel's own check takes the cookie, also without options in the client's ACK.
            let ack = TcpSegment {
                sequence: ISN.wrapping_add(1),
                acknowledged: answer.sequence.wrapping_add(1),
                flags: flags::ACK,
                window: 64_240,
                ..TcpSegment::default()
            };
            let ran = web.run(&ack.frame(client, vip));
            assert_eq!(
                (ran.action, ran.outcome),
                (Action::Drop, Outcome::AbsorbAck),
                "{what}"
            );
            let ran = web.run(
                &TcpSegment {
                    payload: REQUEST.to_vec(),
                    ..ack
                }
                .frame(client, vip),
            );
            assert_eq!(ran.outcome, Outcome::AnswerRedirect, "{what}");
        }
    }
}

#[test]
fn tags_stay_on() {
    require_root!();
    let mut web = Web::new();
    for (client, vip) in families(2000) {
        let frame = with_vlan(syn(flags::SYN, &OPTIONS, b"").frame(client, vip), 7);
        let ran = web.run(&frame);
        assert_eq!(
            (ran.action, ran.outcome),
            (Action::Transmit, Outcome::AnswerCookie)
        );
        assert_eq!(ran.frame[12..16], [0x81, 0, 0, 7]);
        let untagged = [&ran.frame[..12], &ran.frame[16..]].concat();
        TcpSegment::of_answer(&untagged, client, vip).unwrap();
    }
}

/// Whoever made a number up gets no answer, and neither does who got a cookie for other ports.
#[test]
fn made_up_cookies_are_the_kernels() {
    require_root!();
    let mut web = Web::new();
    for family in families(2000) {
        let connection = web.open(family);
        for wrong in [1 << 24, 1 << 31, 5, 0x1234_5678] {
            let mut guess = connection;
            guess.acknowledged = guess.acknowledged.wrapping_add(wrong);
            // Nothing else is known of the client: the kernel resets it.
            let ran = web.run(&guess.frame(flags::PSH, REQUEST));
            let is_answered =
                matches!(ran.outcome, Outcome::AnswerRedirect | Outcome::AnswerCookie);
            assert!(!is_answered, "{wrong:#x}: {:?}", ran.outcome);
        }
        let mut other = connection;
        other.client.set_port(2001);
        web.assert_passed(&other.frame(flags::PSH, REQUEST), Passed::CookieInvalid);
    }
}

/// Where the agent does not say that cookies are taken, or there is nobody to take them, the kernel has
/// the connection from the beginning.
#[test]
fn nobody_is_answered_whom_the_kernel_would_not_take() {
    require_root!();
    let mut web = Web::new();
    let frames =
        families(2000).map(|(client, vip)| syn(flags::SYN, &OPTIONS, b"").frame(client, vip));
    let check = |web: &mut Web, outcome| {
        for frame in &frames {
            match outcome {
                Outcome::AnswerCookie => assert_eq!(web.run(frame).outcome, outcome),
                _ => web.assert_passed(frame, Passed::SynUnanswered),
            }
        }
    };
    check(&mut web, Outcome::AnswerCookie);
    web.lend(0).unwrap();
    check(&mut web, Outcome::PassRedirect);
    let now = web.rig.tick().unwrap();
    web.lend(now + 60).unwrap();
    check(&mut web, Outcome::AnswerCookie);
    for (setting, outcome) in [
        ("0", Outcome::PassRedirect),
        ("1", Outcome::PassRedirect),
        ("2", Outcome::AnswerCookie),
    ] {
        set_sysctl("net/ipv4/tcp_syncookies", setting).unwrap();
        check(&mut web, outcome);
    }
    web.listeners.clear();
    check(&mut web, Outcome::PassRedirect);
    web.listen().unwrap();
    check(&mut web, Outcome::AnswerCookie);
}

#[test]
fn odd_segments_are_the_kernels() {
    require_root!();
    let mut web = Web::new();
    let [four, six] = families(2000);
    for (client, vip) in [four, six] {
        let frame = |more| syn(flags::SYN | more, &OPTIONS, b"").frame(client, vip);
        web.assert_passed(&frame(flags::FIN), Passed::SynUnanswered);
        web.assert_passed(&frame(flags::RST), Passed::SynUnanswered);
        web.assert_passed(&frame(flags::ACK), Passed::CookieInvalid);
    }
    for family in [four, six] {
        let connection = web.open(family);
        let mut segment = connection.segment(flags::PSH, REQUEST);
        for odd in [flags::URG, flags::ECE, flags::CWR] {
            segment.flags = flags::ACK | odd;
            web.assert_passed(&segment.frame(family.0, family.1), Passed::OddSegment);
        }
        segment.flags = flags::PSH;
        web.assert_passed(&segment.frame(family.0, family.1), Passed::OddSegment);
        segment.flags = flags::ACK | flags::RST;
        web.assert_passed(&segment.frame(family.0, family.1), Passed::CookieInvalid);
        segment.flags = flags::ACK;
        segment.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1];
        web.assert_passed(&segment.frame(family.0, family.1), Passed::CookieInvalid);
    }
    let (client, vip) = four;
    let whole = syn(flags::SYN, &OPTIONS, b"").frame(client, vip);
    web.assert_passed(
        &with_ipv4_options(whole.clone(), &[1; 4]),
        Passed::SynUnanswered,
    );
    let mut to_many = whole.clone();
    to_many[0] |= 1;
    web.assert_passed(&to_many, Passed::SynUnanswered);
    web.assert_passed(&as_fragment(whole, 0, true), Passed::SynUnanswered);
    let (client, vip) = six;
    let whole = syn(flags::SYN, &OPTIONS, b"").frame(client, vip);
    web.assert_passed(&with_ipv6_fragment(whole, 0, true), Passed::SynUnanswered);
    let loopback = at("127.0.0.1:2000");
    let frame = syn(flags::SYN, &OPTIONS, b"").frame(loopback, four.1);
    web.assert_passed(&frame, Passed::SynUnanswered);
}
