//! Segments that are not a connection's first one: after an answer, before the first one, and of
//! connections that are none of the programs' business.

use lbagent_common::Outcome;
use lbagent_common::redirect::Passed;
use lbagent_tests::prog_run::{Action, Ran};
use lbagent_tests::redirect_rig::OPTIONS;
use lbagent_tests::require_root;
use lbagent_tests::tcp_segment::{TcpSegment, flags};

use super::{Opened, REQUEST, Web, families, within_a_minute};

/// A request, answered; what its client then knows.
#[track_caller]
fn answered(web: &mut Web, connection: &Opened, flags: u8, request: &[u8]) -> Opened {
    let ran = web.run(&connection.frame(flags | flags::PSH, request));
    assert_eq!(ran.outcome, Outcome::AnswerRedirect, "{:?}", web.passed());
    let answer = TcpSegment::of_answer(&ran.frame, connection.client, connection.vip).unwrap();
    let fin = usize::from(flags & flags::FIN);
    assert_eq!(
        answer.acknowledged,
        connection
            .sequence
            .wrapping_add((request.len() + fin) as u32)
    );
    connection.after(request.len() + fin, answer.payload.len() + 1)
}

#[track_caller]
fn assert_absorbed(ran: &Ran) {
    assert_eq!(
        (ran.action, ran.outcome),
        (Action::Drop, Outcome::AbsorbAck)
    );
}

/// In both families, and with and without what the programs remember of a flow: nothing of the end
/// depends on it while a request is shorter than its answer.
fn with_and_without_hints(check: impl Fn(&mut Web, Opened, &dyn Fn(&mut Web))) {
    within_a_minute(|web| {
        for port in [2000, 2001] {
            for family in families(port) {
                let connection = web.open(family);
                let forget = |web: &mut Web| {
                    if port == 2001 {
                        web.rig.dataplane.forget_flows().unwrap();
                    }
                };
                check(web, connection, &forget);
            }
        }
    });
}

#[test]
fn an_answered_client_closes() {
    require_root!();
    with_and_without_hints(|web, connection, forget| {
        let client = answered(web, &connection, 0, REQUEST);
        forget(web);
        assert_absorbed(&web.run(&client.frame(0, b"")));
        for _ in 0..2 {
            let ran = web.run(&client.frame(flags::FIN, b""));
            let answer = client.assert_answer(&ran, Outcome::AnswerClose, 0, 1);
            assert_eq!(answer.payload, b"");
        }
        // It acknowledges the answer first and the end of the stream later.
        let mut half = client;
        half.acknowledged = half.acknowledged.wrapping_sub(1);
        assert_absorbed(&web.run(&half.frame(0, b"")));
        web.assert_passed(&client.frame(flags::RST, b""), Passed::CookieInvalid);
    });
}

#[test]
fn a_client_closes_with_its_request() {
    require_root!();
    with_and_without_hints(|web, connection, forget| {
        let client = answered(web, &connection, flags::FIN, REQUEST);
        forget(web);
        assert_absorbed(&web.run(&client.frame(0, b"")));
    });
}

#[test]
fn a_client_closes_before_it_has_the_answer() {
    require_root!();
    let mut web = Web::new();
    for family in families(2000) {
        let connection = web.open(family);
        answered(&mut web, &connection, 0, REQUEST);
        let client = connection.after(REQUEST.len(), 0);
        let ran = web.run(&client.frame(flags::FIN, b""));
        client.assert_answer(&ran, Outcome::AnswerClose, 0, 1);
    }
}

/// HTTP/1.1 lets a server close behind an answer, and a client send a second request elsewhere (RFC
/// 9112, section 9.3.1). Without an acknowledgement its kernel would repeat it for minutes; after a
/// reset it might lose the answer.
#[test]
fn requests_behind_the_answer_are_acknowledged() {
    require_root!();
    with_and_without_hints(|web, connection, forget| {
        let client = answered(web, &connection, 0, REQUEST);
        forget(web);
        let second = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let ran = web.run(&client.frame(flags::PSH, second));
        client.assert_answer(&ran, Outcome::AnswerClose, 0, second.len());
        let ran = web.run(&client.frame(flags::PSH | flags::FIN, second));
        client.assert_answer(&ran, Outcome::AnswerClose, 0, second.len() + 1);
    });
}

#[test]
fn a_client_without_a_request_closes() {
    require_root!();
    with_and_without_hints(|web, connection, forget| {
        assert_absorbed(&web.run(&connection.frame(0, b"")));
        forget(web);
        for _ in 0..2 {
            let ran = web.run(&connection.frame(flags::FIN, b""));
            connection.assert_answer(&ran, Outcome::AnswerClose, flags::FIN, 1);
        }
        assert_absorbed(&web.run(&connection.after(1, 1).frame(0, b"")));
    });
}

/// Without a word a client may ask whether the connection lives: by an old sequence number.
#[test]
fn probes_are_absorbed() {
    require_root!();
    let mut web = Web::new();
    for family in families(2000) {
        let connection = web.open(family);
        let client = answered(&mut web, &connection, 0, REQUEST);
        let mut probe = client;
        probe.sequence = probe.sequence.wrapping_sub(1);
        assert_absorbed(&web.run(&probe.frame(0, b"")));
    }
}

/// The second part of a request overtakes the first, or the first is lost. The kernel knows of no
/// connection yet and would reset it, so the part is dropped: the client sends it again, behind the
/// first.
#[test]
fn parts_wait_for_the_first() {
    require_root!();
    within_a_minute(|web| {
        for (port, has_handshake) in [(2000, true), (2001, false)] {
            for family in families(port) {
                let connection = web.open(family);
                if has_handshake {
                    assert_absorbed(&web.run(&connection.frame(0, b"")));
                }
                let (first, second) = REQUEST.split_at(20);
                let client = connection.after(first.len(), 0);
                for more in [flags::PSH, flags::PSH | flags::FIN] {
                    let ran = web.run(&client.frame(more, second));
                    assert_eq!(
                        (ran.action, ran.outcome),
                        (Action::Drop, Outcome::DropUnordered)
                    );
                }
                // Now both, in order: the kernel gets them.
                web.assert_passed(&connection.frame(flags::PSH, first), Passed::Segmented);
                web.assert_passed(&client.frame(flags::PSH, second), Passed::CookieInvalid);
                // Nor is what it gets answered here later on.
                web.assert_passed(&connection.frame(flags::PSH, REQUEST), Passed::Segmented);
            }
        }
    });
}

/// A whole request that overtakes nothing is answered after a part of it was dropped.
#[test]
fn a_request_sent_again_as_a_whole_is_answered() {
    require_root!();
    within_a_minute(|web| {
        for family in families(2000) {
            let connection = web.open(family);
            let client = connection.after(20, 0);
            let ran = web.run(&client.frame(flags::PSH, &REQUEST[20..]));
            assert_eq!(ran.outcome, Outcome::DropUnordered);
            answered(web, &connection, 0, REQUEST);
        }
    });
}

/// Flows that began elsewhere, or before this host did: the kernel resets them.
#[test]
fn unknown_connections_are_the_kernels() {
    require_root!();
    let mut web = Web::new();
    for (client, vip) in families(2000) {
        let stranger = Opened {
            client,
            vip,
            sequence: 0x1234_5678,
            acknowledged: 0x9abc_def0,
        };
        for (flags, payload) in [(0, &b""[..]), (flags::FIN, b""), (flags::PSH, REQUEST)] {
            web.assert_passed(&stranger.frame(flags, payload), Passed::CookieInvalid);
        }
    }
}

/// A client's port is used again at once: what is remembered of the connection before says nothing
/// about the new one.
#[test]
fn ports_are_used_again() {
    require_root!();
    within_a_minute(|web| {
        for family in families(2000) {
            let connection = web.open(family);
            answered(web, &connection, 0, REQUEST);
            let syn = TcpSegment {
                sequence: 0x4000_0000,
                flags: flags::SYN,
                window: 64_240,
                options: OPTIONS.to_vec(),
                ..TcpSegment::default()
            };
            let ran = web.run(&syn.frame(family.0, family.1));
            let cookie = TcpSegment::of_answer(&ran.frame, family.0, family.1).unwrap();
            let again = Opened {
                sequence: 0x4000_0001,
                acknowledged: cookie.sequence.wrapping_add(1),
                ..connection
            };
            let second = again.after(20, 0);
            let ran = web.run(&second.frame(flags::PSH, &REQUEST[20..]));
            assert_eq!(ran.outcome, Outcome::DropUnordered);
            answered(web, &again, 0, REQUEST);
        }
    });
}
