//! With DSR the message goes to the backend as it is: a backend that has the VIP finds its own packet
//! in the quote.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lbagent::desired::{ForwardingMode, Transport};
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Segment, icmp, tcp, udp};
use lbagent_tests::prog_run::{Action, Rig, Side};
use lbagent_tests::require_root;

use super::{Family, REST, families, quotes};
use crate::assert_untouched;

/// Name and addresses of the backends.
const BACKENDS: [(&str, [&str; 2]); 2] = [
    ("a", ["10.66.0.11", "fd66::11"]),
    ("b", ["10.66.0.12", "fd66::12"]),
];

/// A group whose instances have these of their addresses.
fn rig(mode: ForwardingMode, is_chosen: impl Fn(&str) -> bool) -> Rig {
    let mut rig = Rig::new().unwrap();
    let services = [(5432, 5432, Transport::Tcp), (53, 53, Transport::Udp)];
    let group = rig.group("web", &services);
    rig.set_mode(group, mode);
    for (name, addresses) in BACKENDS {
        let addresses = addresses.into_iter().filter(|address| is_chosen(address));
        let addresses: Vec<_> = addresses.collect();
        rig.instance(name, group, &addresses).unwrap();
    }
    rig.reconcile().unwrap();
    rig
}

/// Every error and quote, about flows of both backends: it goes where the flow's packets go.
#[track_caller]
fn check(rig: &mut Rig, mode: ForwardingMode, family: &Family) {
    let mut seen = BTreeSet::new();
    for (number, quote) in (0_u16..).zip(quotes()) {
        let (service, _) = family.service(quote.transport);
        let client = SocketAddr::new(family.client.ip(), 4000 + number);
        let packet = match quote.transport {
            Transport::Tcp => tcp(client, service, Segment::Ack, b""),
            Transport::Udp => udp(client, service, b""),
        };
        let forwarded = rig.run(Side::Client, &packet).unwrap();
        let quoted = quote.packet(service, client);
        for &error in family.errors {
            let frame = icmp((family.router, family.vip), error, REST, &quoted);
            let ran = rig.run(Side::Client, &frame).unwrap();
            println!("{mode:?} {error:?} {quote:?}: {:?}", ran.outcome);
            assert_eq!(ran.outcome, Outcome::ForwardRedirect);
            assert_eq!(ran.backend, forwarded.backend);
            assert_eq!(ran.frame[..6], forwarded.frame[..6]);
            // Behind the outer header, if there is one.
            assert!(ran.frame.ends_with(&frame[14..]), "the message was changed");
            let outer = ran.frame.len() - frame.len();
            assert_eq!(outer, forwarded.frame.len() - packet.len());
            assert_eq!(outer == 0, mode == ForwardingMode::DsrL2);
        }
        seen.extend(forwarded.backend);
    }
    assert_eq!(seen.len(), BACKENDS.len(), "one backend has all flows");
}

#[test]
fn errors_reach_the_backend_of_their_flow_in_every_mode() {
    require_root!();
    for mode in ForwardingMode::ALL {
        if mode == ForwardingMode::Nat {
            continue;
        }
        let mut rig = rig(mode, |_| true);
        for family in families() {
            check(&mut rig, mode, &family);
        }
    }
}

#[test]
fn errors_travel_inside_the_other_family() {
    require_root!();
    let [v4, v6] = families();
    for mode in [ForwardingMode::DsrIpip, ForwardingMode::DsrGue] {
        check(&mut rig(mode, |address| address.contains(':')), mode, &v4);
        check(&mut rig(mode, |address| address.contains('.')), mode, &v6);
    }
}

/// A backend's answers pass the gateway only by chance, and errors about requests even less so: what
/// comes from the backends' side for a client is none of the gateway's business.
#[test]
fn errors_from_backends_to_clients_pass() {
    require_root!();
    let mut rig = rig(ForwardingMode::DsrL2, |_| true);
    for family in families() {
        let (service, _) = family.service(Transport::Tcp);
        let quoted = tcp(family.client, service, Segment::Ack, b"")[14..].to_vec();
        for from in [family.vip, family.backend, family.inner_router] {
            let frame = icmp((from, family.client.ip()), family.errors[0], REST, &quoted);
            let ran = rig.run(Side::Backend, &frame).unwrap();
            assert_untouched(&ran, Action::Pass, Outcome::PassProtocol, &frame);
        }
    }
}
