//! Clients that a backend would answer past the gateway: in its subnet, or the backend itself. Their
//! source is rewritten, and only theirs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lbagent_tests::client::{Answer, Transport, ask};
use lbagent_tests::gateway::{Gateway, PORT, everything, web_services};
use lbagent_tests::netns::NetNs;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIPS};
use lbagent_tests::transfer::{Direction, Transfer};

/// What becomes of the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Kept,
    Rewritten,
}

/// Asks often enough to meet both backends; `source` tells what each of them must see.
#[track_caller]
fn check(gateway: &Gateway, client: &NetNs, source: impl Fn(&str) -> Source) {
    let shape = gateway.topology.shape;
    for (vip, transport) in everything() {
        let mut met = BTreeSet::new();
        for _ in 0..30 {
            let Answer { greeting, local } = ask(client, transport, SocketAddr::new(vip, PORT))
                .unwrap_or_else(|error| {
                    panic!(
                        "{shape:?}, {} to {vip} by {transport}: {error:#}",
                        client.label()
                    )
                });
            let kept = greeting.seen == local;
            let expected = source(&greeting.name) == Source::Kept;
            assert_eq!(
                kept,
                expected,
                "{shape:?}: {} from {local}: {greeting:?}",
                client.label()
            );
            if !kept {
                let own = gateway.topology.gateway_addresses();
                assert!(own.contains(&greeting.seen.ip()), "{shape:?}: {greeting:?}");
            }
            met.insert(greeting.name);
        }
        assert_eq!(met.len(), 2, "{shape:?} {vip} {transport}: {met:?}");
    }
}

#[track_caller]
fn check_bulk(client: &NetNs, vip: IpAddr) {
    for direction in [Direction::Download, Direction::Upload] {
        let to = SocketAddr::new(vip, PORT);
        let transfer = Transfer::start(client, to, direction, 10_000_000, Duration::ZERO).unwrap();
        transfer.finish().unwrap();
    }
}

#[test]
fn a_client_in_the_backends_subnet() {
    require_root!();
    let gateway = Gateway::publish(Shape::SameSubnet, 2).unwrap();
    check(&gateway, &gateway.topology.client, |_| Source::Rewritten);
    for vip in VIPS {
        check_bulk(&gateway.topology.client, vip);
    }
}

#[test]
fn a_client_on_the_backends_bridge() {
    require_root!();
    let gateway = Gateway::start(Shape::Bridged, 3).unwrap();
    gateway.create_service("web", &web_services()).unwrap();
    let [one, two, client] = &gateway.topology.backends[..] else {
        panic!("three hosts")
    };
    for backend in [one, two] {
        gateway
            .attach(&backend.name, "web", &backend.addresses)
            .unwrap();
    }
    check(&gateway, &client.ns, |_| Source::Rewritten);
    for vip in VIPS {
        check_bulk(&client.ns, vip);
    }
}

#[test]
fn a_backend_calls_its_own_vip() {
    #[track_caller]
    fn check_shape(shape: Shape, source_towards_others: Source) {
        let gateway = Gateway::publish(shape, 2).unwrap();
        for backend in &gateway.topology.backends {
            check(&gateway, &backend.ns, |answers| {
                if answers == backend.name {
                    Source::Rewritten
                } else {
                    source_towards_others
                }
            });
        }
        for vip in VIPS {
            check_bulk(&gateway.topology.backends[0].ns, vip);
        }
        // Ordinary clients are served as ever meanwhile.
        gateway.probe().unwrap();
    }
    require_root!();
    check_shape(Shape::Bridged, Source::Rewritten);
    check_shape(Shape::OneArmed, Source::Rewritten);
    // No link is shared, so replies to the other backend come back through the gateway.
    check_shape(Shape::Routed, Source::Kept);
}

#[test]
fn a_backend_is_reachable_beside_the_vip() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 2).unwrap();
    let [one, two] = &gateway.topology.backends[..] else {
        panic!("two backends")
    };
    for address in two.addresses {
        for transport in [Transport::Tcp, Transport::Udp] {
            let to = SocketAddr::new(address, 7000);
            let answer = ask(&one.ns, transport, to).unwrap();
            assert_eq!(answer.with_source_kept().unwrap(), "b2", "{transport} {to}");
            // The gateway's own connections are nobody's replies either.
            let answer = ask(&gateway.topology.gateway.net, transport, to).unwrap();
            assert_eq!(
                answer.greeting.name, "b2",
                "{transport} {to} from the gateway"
            );
        }
    }
}
