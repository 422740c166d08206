//! Datagrams in the modes in which backends answer clients directly, and ways too narrow for the
//! outer headers. `modes.rs` has TCP.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use lbagent_tests::client::{Transport, exchange_on, identify, udp_socket_here};
use lbagent_tests::fleet::Fleet;
use lbagent_tests::path_mtu::{forbid_fragments, path_mtu};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::VIPS;
use lbagent_tests::transfer::{Direction, Transfer};
use serde_json::json;

/// Bytes of a datagram that fits into the client's packets, but not into the narrow way.
const LARGE: [u8; 1440] = [0x5a; 1440];
/// MTU of the narrow way.
const NARROW: u32 = 1400;

#[track_caller]
fn start(mode: &str) -> Fleet {
    let fleet = Fleet::start(mode, 2, 2, |_, _| {}).unwrap();
    fleet.route([1, 0]).unwrap();
    fleet
}

fn udp_socket(fleet: &Fleet, vip: IpAddr) -> UdpSocket {
    let connect = || udp_socket_here(Fleet::service(vip), None).unwrap();
    fleet.client.run(connect)
}

/// Both backends answer datagrams to a VIP, from the VIP, and see the client.
#[track_caller]
fn assert_both_answer(fleet: &Fleet, vip: IpAddr) {
    let mut seen = BTreeSet::new();
    poll_until(&format!("both to answer {vip}"), SOON, || {
        let name = identify(&fleet.client, Transport::Udp, Fleet::service(vip));
        seen.insert(name.unwrap());
        seen.len() == 2
    })
    .unwrap();
    let socket = udp_socket(fleet, vip);
    let answer = exchange_on(&socket, &LARGE[..1300]).unwrap();
    answer.with_source_kept().unwrap();
}

#[test]
fn datagrams_are_answered_from_the_vip() {
    require_root!();
    for mode in ["dsr-l2", "dsr-ipip", "dsr-gue"] {
        let fleet = start(mode);
        for vip in VIPS {
            assert_both_answer(&fleet, vip);
        }
        assert_eq!(fleet.returned().unwrap(), [0, 0], "{mode}: by a gateway");
    }
}

#[test]
fn datagrams_travel_inside_the_other_family() {
    require_root!();
    for mode in ["dsr-ipip", "dsr-gue"] {
        let mut fleet = start(mode);
        // An IPv4 VIP with IPv6 addresses behind it, and the other way round.
        for (family, vip) in [(1, VIPS[0]), (0, VIPS[1])] {
            for index in 0..2 {
                let address = fleet.backends[index].addresses[family].address;
                let len = if address.is_ipv4() { 32 } else { 128 };
                let addresses = json!([format!("{address}/{len}")]);
                fleet.edit(index, "addresses", addresses).unwrap();
            }
            assert_both_answer(&fleet, vip);
        }
    }
}

/// A fleet behind a way that is narrower than the backends' own links.
#[track_caller]
fn start_narrow(mode: &str) -> Fleet {
    let fleet = start(mode);
    fleet.set_inner_mtu(NARROW).unwrap();
    fleet
}

/// A datagram that must not be fragmented: its sender is told what fits, and then that fits.
#[track_caller]
fn assert_told(fleet: &Fleet, vip: IpAddr, expected: usize) {
    let whole = || {
        let socket = udp_socket(fleet, vip);
        forbid_fragments(&socket).unwrap();
        socket
    };
    let socket = whole();
    assert_eq!(path_mtu(&socket).unwrap(), 1500, "{vip}: known before");
    poll_until("a datagram to be too large", SOON, || {
        let Err(error) = socket.send(&LARGE) else {
            return false;
        };
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{vip}: {error}");
        true
    })
    .unwrap();
    assert_eq!(path_mtu(&socket).unwrap() as usize, expected, "{vip}");
    // On another socket: this one may hear again of what it sent before.
    let headers = if vip.is_ipv4() { 28 } else { 48 };
    let answer = exchange_on(&whole(), &LARGE[..expected - headers]).unwrap();
    answer.with_source_kept().unwrap();
    // A sender that may fragment goes on with what was learnt, and all fragments arrive.
    let answer = exchange_on(&udp_socket(fleet, vip), &LARGE).unwrap();
    answer.with_source_kept().unwrap();
}

#[test]
fn senders_of_datagrams_are_told_what_fits() {
    require_root!();
    for (mode, outer) in [("dsr-ipip", [20, 40]), ("dsr-gue", [28, 48])] {
        let fleet = start_narrow(mode);
        for (vip, outer) in VIPS.into_iter().zip(outer) {
            assert_told(&fleet, vip, NARROW as usize - outer);
        }
    }
}

#[test]
fn uploads_pass_a_narrow_way() {
    #[track_caller]
    fn upload(fleet: &Fleet, vip: IpAddr) -> u64 {
        let too_big = || fleet.agents[0].outcome("answer_too_big").unwrap();
        let before = too_big();
        let (to, pace) = (Fleet::service(vip), Duration::ZERO);
        let transfer = Transfer::start(&fleet.client, to, Direction::Upload, 4_000_000, pace);
        transfer.unwrap().finish().unwrap();
        too_big() - before
    }
    let decap = |fleet: &Fleet, arguments: &[&str]| {
        for backend in &fleet.backends {
            backend.decap(arguments).unwrap();
        }
    };
    require_root!();
    for mode in ["dsr-ipip", "dsr-gue"] {
        let fleet = start_narrow(mode);
        for vip in VIPS {
            // Backends that know the way tell clients an MSS that fits.
            decap(&fleet, &["--mtu", &NARROW.to_string()]);
            assert_eq!(upload(&fleet, vip), 0, "{mode} {vip}: a large segment");
            // One that fits their own links does not: clients learn it from the gateway.
            decap(&fleet, &[]);
            assert_ne!(upload(&fleet, vip), 0, "{mode} {vip}: nothing too large");
        }
    }
}
