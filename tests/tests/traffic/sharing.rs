//! Two published ports that end at the same port of the same backend.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use lbagent_tests::client::{Connection, Transport, ask_here};
use lbagent_tests::gateway::{Gateway, PORT, SERVER_PORT, service};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIPS};

const SECOND_PORT: u16 = PORT + 1;

/// Both ports in one group, or in two groups whose instances have the same address.
fn publish_two(groups: &[&str]) -> Gateway {
    let gateway = Gateway::start(Shape::Routed, 1).unwrap();
    let both = |port| {
        [
            service(port, SERVER_PORT, "tcp"),
            service(port, SERVER_PORT, "udp"),
        ]
    };
    let ports = [both(PORT), both(SECOND_PORT)];
    let per_group = ports.len() / groups.len();
    for (group, ports) in groups.iter().zip(ports.chunks(per_group)) {
        gateway
            .create_service(group, &ports.concat().into())
            .unwrap();
        let addresses = gateway.topology.backends[0].addresses;
        gateway
            .attach(&format!("b1-{group}"), group, &addresses)
            .unwrap();
    }
    gateway
}

#[track_caller]
fn check(gateway: &Gateway) {
    let client = &gateway.topology.client;
    for vip in VIPS {
        let own = gateway.topology.client_addresses;
        let own = own
            .into_iter()
            .find(|own| own.is_ipv4() == vip.is_ipv4())
            .unwrap();
        client.run(|| {
            for port in [PORT, SECOND_PORT] {
                check_source_kept(own, SocketAddr::new(vip, port));
            }
            check_one_client_port(own, vip);
        });
    }
}

/// From client ports that were never used towards the other VIP port, nothing needs rewriting.
#[track_caller]
fn check_source_kept(client: IpAddr, to: SocketAddr) {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    for transport in [Transport::Tcp, Transport::Udp] {
        for _ in 0..20 {
            let from = SocketAddr::new(client, NEXT.fetch_add(1, Ordering::Relaxed));
            let answer = ask_here(transport, to, Some(from)).unwrap();
            assert_eq!(answer.with_source_kept().unwrap(), "b1", "{transport} {to}");
        }
    }
}

/// The backend could not tell two connections from one client port apart, so one source changes.
#[track_caller]
fn check_one_client_port(client: IpAddr, vip: IpAddr) {
    let from = Some(SocketAddr::new(client, 23_456));
    let open = |port| {
        let to = SocketAddr::new(vip, port);
        let mut connection = Connection::open_here(to, from).unwrap();
        connection.command("echo").unwrap();
        connection
    };
    let (mut first, mut second) = (open(PORT), open(SECOND_PORT));
    assert_ne!(first.greeting.seen, second.greeting.seen, "{vip}");
    for round in 0..3 {
        first.echo(&format!("first {round}")).unwrap();
        second.echo(&format!("second {round}")).unwrap();
    }
    for port in [PORT, SECOND_PORT, PORT] {
        ask_here(Transport::Udp, SocketAddr::new(vip, port), from).unwrap();
    }
}

#[test]
fn two_ports_of_one_group_share_a_backend_port() {
    require_root!();
    check(&publish_two(&["web"]));
}

#[test]
fn two_groups_share_a_backend_port() {
    require_root!();
    check(&publish_two(&["web", "api"]));
}

#[test]
fn a_port_belongs_to_one_group() {
    require_root!();
    let gateway = publish_two(&["web"]);
    let taken = serde_json::json!([service(PORT, SERVER_PORT, "tcp")]);
    let error = gateway
        .create_service("thief", &taken)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&PORT.to_string()) && error.contains("web"),
        "{error}"
    );
    check(&gateway);
}
