//! Do no harm: what is not for a VIP goes its way, and arrives as it was sent.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::netns::{NetNs, set_sysctl};
use lbagent_tests::poll::{SOON, poll_for};
use lbagent_tests::require_root;
use lbagent_tests::syscalls::{FrameSocket, attach_xdp_pass, interface_index, link_address};
use lbagent_tests::topology::{Shape, Topology, VIP4};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ICMP: u8 = 1;
const UDP: u8 = 17;
/// An address of no host here.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Found in every packet of these tests and in no other.
const MARK: &[u8; 16] = b"foreign traffic!";

fn v4(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else {
        panic!("{address} is not IPv4")
    };
    address
}

/// The one's complement sum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// An IPv4 packet with options and fragment fields of choice.
fn ipv4(
    protocol: u8,
    addresses: [Ipv4Addr; 2],
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(addresses.iter().flat_map(Ipv4Addr::octets));
    packet.extend(options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A UDP datagram without a checksum, which IPv4 allows.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let fields = [40_000u16, port, length, 0];
    let mut datagram: Vec<u8> = fields
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    datagram.extend(payload);
    datagram
}

fn echo_request(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x77, 0x77, 0, 1];
    message.extend(payload);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn frame(to: [u8; 6], from: [u8; 6], kind: &[u8], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], kind, payload].concat()
}

fn listen(ns: &NetNs, interface: &str) -> FrameSocket {
    ns.run(|| FrameSocket::open(interface_index(interface).unwrap()).unwrap())
}

/// The first frame that holds [`MARK`] and that `wanted` likes.
fn await_frame(socket: &FrameSocket, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let holds_mark = |frame: &[u8]| frame.windows(MARK.len()).any(|window| window == MARK);
    let next = || socket.receive(Duration::from_millis(200)).unwrap();
    poll_for("the frame", SOON, || {
        next().filter(|frame| holds_mark(frame) && wanted(frame))
    })
    .ok()
}

/// Link addresses of the client and of the gateway towards it.
fn macs(topology: &Topology) -> ([u8; 6], [u8; 6]) {
    let client = topology.client.run(|| link_address("eth0").unwrap());
    let host = topology.gateway.net.run(|| link_address("cl0").unwrap());
    (client, host)
}

/// Has the gateway learn the backend's link address: what comes first would otherwise wait for it.
fn ping_backend(topology: &Topology) {
    check_ping(topology, topology.backends[0].addresses[0]);
}

#[track_caller]
fn check_ping(topology: &Topology, target: IpAddr) {
    let (client_mac, gateway_mac) = macs(topology);
    let socket = listen(&topology.client, "eth0");
    let (own, target) = (v4(topology.client_addresses[0]), v4(target));
    let packet = ipv4(ICMP, [own, target], &[], 0, &echo_request(MARK));
    socket
        .send(&frame(gateway_mac, client_mac, &ETHERTYPE_IPV4, &packet))
        .unwrap();
    let answered = await_frame(&socket, |frame| {
        frame[26..30] == target.octets() && frame[30..34] == own.octets() && frame[34] == 0
    });
    assert!(answered.is_some(), "no echo reply from {target}");
}

/// Sends a packet through the gateway and compares what arrives.
#[track_caller]
fn check_routed(topology: &Topology, what: &str, packet: Vec<u8>) {
    let (client_mac, gateway_mac) = macs(topology);
    let receiver = listen(&topology.backends[0].ns, "eth0");
    let sent = frame(gateway_mac, client_mac, &ETHERTYPE_IPV4, &packet);
    listen(&topology.client, "eth0").send(&sent).unwrap();
    let came = await_frame(&receiver, |frame| frame[12..14] == ETHERTYPE_IPV4)
        .unwrap_or_else(|| panic!("{what}: nothing arrived"));
    let mut expected = packet;
    // A router takes one off the TTL, and nothing else.
    expected[8] -= 1;
    expected[10..12].fill(0);
    let header = usize::from(expected[0] & 0xf) * 4;
    let sum = checksum(&expected[..header]);
    expected[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(came[14..14 + expected.len()], expected, "{what}");
}

fn check_all_routed(topology: &Topology) {
    const MORE_FRAGMENTS: u16 = 1 << 13;
    ping_backend(topology);
    let addresses = [
        v4(topology.client_addresses[0]),
        v4(topology.backends[0].addresses[0]),
    ];
    let check = |what, packet| check_routed(topology, what, packet);
    // Four bytes of "no operation": options that every router passes on.
    let options = [1; 4];
    check("plain", ipv4(UDP, addresses, &[], 0, &udp(9, MARK)));
    check("options", ipv4(UDP, addresses, &options, 0, &udp(9, MARK)));
    check(
        "first fragment",
        ipv4(UDP, addresses, &[], MORE_FRAGMENTS, &udp(9, MARK)),
    );
    check("last fragment", ipv4(UDP, addresses, &[], 3, MARK));
    check("unknown protocol", ipv4(253, addresses, &[], 0, MARK));
}

/// Sends a tagged frame for nobody in particular and compares what the gateway's stack gets.
#[track_caller]
fn check_tagged(topology: &Topology, tags: &[[u8; 4]]) {
    let (client_mac, gateway_mac) = macs(topology);
    let addresses = [v4(topology.client_addresses[0]), NOBODY];
    let packet = ipv4(UDP, addresses, &[], 0, &udp(PORT, MARK));
    let kind = [tags.concat(), ETHERTYPE_IPV4.to_vec()].concat();
    let sent = frame(gateway_mac, client_mac, &kind, &packet);
    let receiver = listen(&topology.gateway.net, "cl0");
    listen(&topology.client, "eth0").send(&sent).unwrap();
    let came = await_frame(&receiver, |_| true).expect("the frame arrives at the gateway");
    assert_eq!(came, sent, "{tags:x?}");
}

/// Sends a tagged frame with a VIP's packet inside: the backend, whose link has no tags, gets it
/// without them.
#[track_caller]
fn check_balanced(topology: &Topology, tags: &[[u8; 4]]) {
    let (client_mac, gateway_mac) = macs(topology);
    let client = v4(topology.client_addresses[0]);
    let packet = ipv4(UDP, [client, v4(VIP4)], &[], 0, &udp(PORT, MARK));
    let kind = [tags.concat(), ETHERTYPE_IPV4.to_vec()].concat();
    let sent = frame(gateway_mac, client_mac, &kind, &packet);
    let receiver = listen(&topology.backends[0].ns, "eth0");
    listen(&topology.client, "eth0").send(&sent).unwrap();
    let came = await_frame(&receiver, |_| true).expect("the frame arrives at the backend");
    let header = 12 + ETHERTYPE_IPV4.len();
    assert_eq!(came[12..header], ETHERTYPE_IPV4);
    let backend = v4(topology.backends[0].addresses[0]);
    assert_eq!(came[header + 12..header + 16], client.octets());
    assert_eq!(came[header + 16..header + 20], backend.octets());
    assert_eq!(checksum(&came[header..header + 20]), 0);
}

fn check_all_tagged(topology: &Topology) {
    check_tagged(topology, &[[0x81, 0x00, 0x20, 0x64]]);
    check_tagged(
        topology,
        &[[0x88, 0xa8, 0x00, 0x07], [0x81, 0x00, 0x00, 0x64]],
    );
}

#[test]
fn without_the_agent_foreign_packets_go_their_way() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    topology
        .gateway
        .run(|| set_sysctl("net/ipv4/ip_forward", "1").unwrap());
    check_all_routed(&topology);
    check_all_tagged(&topology);
}

#[test]
fn routed_packets_pass_with_options_and_as_fragments() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    check_all_routed(&gateway.topology);
}

#[test]
fn tagged_frames_pass_unchanged() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    check_all_tagged(&gateway.topology);
}

#[test]
fn tagged_frames_for_a_vip_reach_an_untagged_backend_without_tags() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    ping_backend(&gateway.topology);
    check_balanced(&gateway.topology, &[[0x81, 0x00, 0x20, 0x64]]);
    check_balanced(
        &gateway.topology,
        &[[0x88, 0xa8, 0x00, 0x07], [0x81, 0x00, 0x00, 0x64]],
    );
}

#[test]
fn ping_reaches_backends_and_vips() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    check_ping(&gateway.topology, gateway.topology.backends[0].addresses[0]);
    // What the gateway sends by XDP_TX arrives at a veth only with a program there.
    let client = &gateway.topology.client;
    let _program = client.run(|| attach_xdp_pass(interface_index("eth0").unwrap()).unwrap());
    check_ping(&gateway.topology, VIP4);
}
