//! ICMP end to end: real kernels send the errors, and real kernels act on them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use lbagent_tests::client::{Transport, ask_here, exchange_on, udp_socket_here};
use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::kernel::counter;
use lbagent_tests::net_link::{Cidr, Netlink};
use lbagent_tests::netns::{NetNs, set_sysctl};
use lbagent_tests::ping::Pinger;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::syscalls::{attach_xdp_pass, interface_index};
use lbagent_tests::topology::{Shape, VIP4, VIP6, VIPS};
use lbagent_tests::transfer::{Direction, Transfer};

const ANSWER: Duration = Duration::from_secs(2);

/// What the gateway sends by XDP_TX arrives at a veth only with a program there.
fn take_transmitted(gateway: &Gateway) -> OwnedFd {
    gateway
        .topology
        .client
        .run(|| attach_xdp_pass(interface_index("eth0")?))
        .unwrap()
}

#[test]
fn vips_answer_pings() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let _program = take_transmitted(&gateway);
    let before = gateway.agent.outcome("answer_echo").unwrap();
    gateway.topology.client.run(|| {
        for vip in VIPS {
            let pinger = Pinger::open_here(vip).unwrap();
            for (sequence, length) in [(1, 0), (2, 1), (3, 56), (4, 1400)] {
                let payload = vec![0x5a; length];
                pinger.send(sequence, &payload).unwrap();
                let reply = pinger.receive(ANSWER).unwrap();
                assert_eq!(reply, Some((sequence, payload)), "{vip}, {length} bytes");
            }
        }
    });
    assert_eq!(gateway.agent.outcome("answer_echo").unwrap() - before, 8);
}

#[test]
fn a_flood_of_pings_is_answered_within_the_limit() {
    require_root!();
    let gateway = Gateway::start_with(Shape::Routed, 1, |config| {
        config.answers = [("per_second", 5)].into();
    })
    .unwrap();
    gateway.publish_web().unwrap();
    let _program = take_transmitted(&gateway);
    let counted = || {
        let outcomes = ["answer_echo", "drop_answer_limit"];
        outcomes.map(|outcome| gateway.agent.outcome(outcome).unwrap())
    };
    gateway.topology.client.run(|| {
        let pinger = Pinger::open_here(VIP4).unwrap();
        for sequence in 0..200 {
            pinger.send(sequence, b"flood").unwrap();
        }
        let all = || counted().iter().sum::<u64>() == 200;
        poll_until("every request to be counted", SOON, all).unwrap();
        let [answered, dropped] = counted();
        assert!(
            answered >= 5 && dropped > 0,
            "{answered} answered, {dropped} dropped"
        );
        for reply in 1..=answered {
            let received = pinger.receive(ANSWER).unwrap();
            assert!(received.is_some(), "answer {reply} of {answered} was lost");
        }
        let more = pinger.receive(Duration::from_millis(300)).unwrap();
        assert_eq!(more, None, "somebody else answered");
    });
    gateway.probe().unwrap();
}

/// A client behind a router, whose link to it takes less than all others: the client's own interface
/// does not know, so TCP believes that full segments fit.
struct FarClient {
    ns: NetNs,
    mtu: u32,
}

impl FarClient {
    /// Makes the topology's client the router.
    fn behind(gateway: &Gateway, mtu: u32) -> Self {
        let ns = NetNs::new("far").unwrap();
        let router = &gateway.topology.client;
        router.run(|| {
            let net = Netlink::open().unwrap();
            net.add_veth("leg0", &ns, "eth0").unwrap();
            net.add_address("leg0", Cidr::new("203.0.113.1/24"))
                .unwrap();
            net.add_address("leg0", Cidr::new("2001:db8:c::1/64"))
                .unwrap();
            net.set_mtu("leg0", mtu).unwrap();
            set_sysctl("net/ipv4/ip_forward", "1").unwrap();
            set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        ns.run(|| {
            let net = Netlink::open().unwrap();
            net.add_address("eth0", Cidr::new("203.0.113.9/24"))
                .unwrap();
            net.add_address("eth0", Cidr::new("2001:db8:c::9/64"))
                .unwrap();
            let routers = ["203.0.113.1", "2001:db8:c::1"].map(|text| text.parse().unwrap());
            net.add_default_routes("eth0", &routers).unwrap();
        });
        let routers = gateway.topology.client_addresses;
        gateway.topology.gateway.run(|| {
            let net = Netlink::open().unwrap();
            for (to, via) in ["203.0.113.0/24", "2001:db8:c::/64"]
                .into_iter()
                .zip(routers)
            {
                net.add_route(Cidr::new(to), "cl0", Some(via)).unwrap();
            }
        });
        Self { ns, mtu }
    }
}

#[test]
fn a_narrow_link_is_found_by_path_mtu_discovery() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let far = FarClient::behind(&gateway, 1400);
    let backend = &gateway.topology.backends[0].ns;
    for (vip, protocol, name) in [
        (VIP4, "Icmp", "InDestUnreachs"),
        (VIP6, "Icmp6", "Icmp6InPktTooBigs"),
    ] {
        let before = counter(backend, protocol, name);
        let to = SocketAddr::new(vip, PORT);
        let transfer =
            Transfer::start(&far.ns, to, Direction::Download, 3_000_001, Duration::ZERO).unwrap();
        // Without the errors nothing larger than the link would ever come.
        transfer.wait_for(1.0).unwrap();
        transfer.finish().unwrap();
        let heard = counter(backend, protocol, name) - before;
        assert!(
            heard > 0,
            "{vip}: nobody told the backend of {} bytes",
            far.mtu
        );
    }
}

#[test]
fn a_backend_hears_that_its_packets_expired() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let far = FarClient::behind(&gateway, 1500);
    let backend = &gateway.topology.backends[0].ns;
    let ask = |vip: IpAddr| {
        far.ns.run(|| {
            let socket = udp_socket_here(SocketAddr::new(vip, PORT), None)?;
            exchange_on(&socket, b"how far?")
        })
    };
    for vip in VIPS {
        ask(vip).unwrap();
    }
    // Far enough for the gateway and the router, which is one hop short of the client.
    backend.run(|| {
        set_sysctl("net/ipv4/ip_default_ttl", "2").unwrap();
        set_sysctl("net/ipv6/conf/all/hop_limit", "2").unwrap();
        set_sysctl("net/ipv6/conf/eth0/hop_limit", "2").unwrap();
    });
    for (vip, protocol, name) in [
        (VIP4, "Icmp", "InTimeExcds"),
        (VIP6, "Icmp6", "Icmp6InTimeExcds"),
    ] {
        let before = counter(backend, protocol, name);
        far.ns.run(|| {
            let socket = udp_socket_here(SocketAddr::new(vip, PORT), None).unwrap();
            socket.send(b"how far?").unwrap();
        });
        poll_until(&format!("{vip}: {name} of the backend"), SOON, || {
            counter(backend, protocol, name) > before
        })
        .unwrap();
    }
}

/// Also where the client shares the backend's link, so that the error is for the gateway itself.
#[test]
fn a_clients_socket_hears_that_a_backend_does_not_listen() {
    require_root!();
    for shape in [
        Shape::Routed,
        Shape::Bridged,
        Shape::OneArmed,
        Shape::SameSubnet,
    ] {
        let mut gateway = Gateway::publish(shape, 1).unwrap();
        gateway.servers.clear();
        gateway.topology.client.run(|| {
            for vip in VIPS {
                let to = SocketAddr::new(vip, PORT);
                let socket = udp_socket_here(to, None).unwrap();
                socket.set_read_timeout(Some(ANSWER)).unwrap();
                socket.send(b"are you there?").unwrap();
                let error = socket.recv(&mut [0; 16]).unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionRefused,
                    "{shape:?} {to}: {error}"
                );
                assert!(
                    ask_here(Transport::Udp, to, None).is_err(),
                    "nobody listens"
                );
            }
        });
    }
}
