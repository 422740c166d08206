//! The harness by itself: without it nothing else here means anything.

use std::net::SocketAddr;

use lbagent_tests::client::{Transport, identify};
use lbagent_tests::netns::set_sysctl;
use lbagent_tests::require_root;
use lbagent_tests::server::Server;
use lbagent_tests::topology::{Shape, Topology};
use lbagent_tests::transfer::{Direction, Transfer};

#[test]
fn every_shape_carries_traffic_without_the_agent() {
    #[track_caller]
    fn check(shape: Shape) {
        let topology = Topology::build(shape, 2).unwrap();
        topology.gateway.run(|| {
            set_sysctl("net/ipv4/ip_forward", "1").unwrap();
            set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        for backend in &topology.backends {
            let _server = Server::start(&backend.ns, &backend.name, &[7000], &[7000]).unwrap();
            for address in backend.addresses {
                let to = SocketAddr::new(address, 7000);
                for transport in [Transport::Tcp, Transport::Udp] {
                    let name = identify(&topology.client, transport, to).unwrap();
                    assert_eq!(name, backend.name, "{shape:?} {transport} {to}");
                }
                for direction in [Direction::Download, Direction::Upload] {
                    let pace = std::time::Duration::ZERO;
                    let transfer =
                        Transfer::start(&topology.client, to, direction, 3_000_001, pace).unwrap();
                    transfer.finish().unwrap();
                }
            }
        }
    }
    require_root!();
    for shape in [
        Shape::Routed,
        Shape::Bridged,
        Shape::OneArmed,
        Shape::SameSubnet,
    ] {
        check(shape);
    }
}
