//! Long transfers at full segment sizes, with every offload of the backends left on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lbagent_tests::client::{Transport, ask_here, exchange_on, udp_socket_here};
use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIP6};
use lbagent_tests::transfer::{Direction, LONG, Transfer};

#[track_caller]
fn check(gateway: &Gateway, vip: IpAddr, direction: Direction, length: u64) {
    let to = SocketAddr::new(vip, PORT);
    let transfer = Transfer::start(
        &gateway.topology.client,
        to,
        direction,
        length,
        Duration::ZERO,
    )
    .unwrap();
    transfer.finish().unwrap_or_else(|error| {
        panic!(
            "{:?} {vip} {direction:?}: {error:#}",
            gateway.topology.shape
        )
    });
}

#[test]
fn bytes_arrive_whole_in_every_shape() {
    require_root!();
    for shape in [Shape::Routed, Shape::Bridged, Shape::OneArmed] {
        let gateway = Gateway::publish(shape, 1).unwrap();
        for vip in [VIP4, VIP6] {
            for direction in [Direction::Download, Direction::Upload] {
                check(&gateway, vip, direction, 40_000_003);
            }
        }
    }
}

#[test]
fn two_hundred_megabytes_each_way() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    check(&gateway, VIP4, Direction::Download, LONG);
    check(&gateway, VIP6, Direction::Upload, LONG);
}

#[test]
fn generic_xdp_carries_long_transfers() {
    require_root!();
    let gateway =
        Gateway::start_with(Shape::Routed, 1, |config| config.xdp_mode = Some("generic")).unwrap();
    gateway.publish_web().unwrap();
    check(&gateway, VIP4, Direction::Download, 40_000_003);
    check(&gateway, VIP6, Direction::Upload, 40_000_003);
}

#[test]
fn datagrams_of_every_size_come_back_unchanged() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    gateway.topology.client.run(|| {
        for vip in [VIP4, VIP6] {
            let to = SocketAddr::new(vip, PORT);
            let socket = udp_socket_here(to, None).unwrap();
            // The answer carries a greeting of up to 60 bytes and must fit one packet.
            for length in [0, 1, 2, 63, 64, 511, 512, 1300, 1370] {
                let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
                exchange_on(&socket, &payload)
                    .unwrap_or_else(|error| panic!("{to}, {length} bytes: {error:#}"));
            }
            ask_here(Transport::Udp, to, None).unwrap();
        }
    });
}
