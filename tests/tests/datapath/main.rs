//! Ring 1: packets through the real BPF object by BPF_PROG_TEST_RUN, one table a subject.

mod corpus;
mod decap;
mod foreign;
mod fragments;
mod held_fragments;
mod icmp_damage;
mod icmp_echo;
mod icmp_errors;
mod modes;
mod overload;
mod owners;
mod owners_model;
mod policies;
mod reading;
mod redirect;
mod replay;
mod replies;
mod shapes;
mod sources;
mod terminated;
mod too_big;
mod trace;
mod verdicts;
mod verifier;

use std::net::SocketAddr;

use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Described, TTL, describe};
use lbagent_tests::prog_run::{Action, Ran};

/// An address and port from text.
#[track_caller]
fn at(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Checks that a packet was forwarded with this 4-tuple, its payload kept, its TTL one less and all
/// checksums right.
#[track_caller]
fn assert_rewritten(
    ran: &Ran,
    outcome: Outcome,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Described {
    assert_eq!(ran.outcome, outcome);
    let described = describe(&ran.frame).expect("a frame with right checksums");
    assert_eq!(
        (described.source, described.destination),
        (source, destination)
    );
    assert_eq!(described.ttl, TTL - 1);
    assert_eq!(described.payload, payload);
    described
}

/// Checks that a packet ended with this outcome and was not touched.
#[track_caller]
fn assert_untouched(ran: &Ran, action: Action, outcome: Outcome, frame: &[u8]) {
    assert_eq!((ran.action, ran.outcome), (action, outcome));
    assert_eq!(ran.frame, frame, "the frame was changed");
}
