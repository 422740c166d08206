//! Datagrams that do not fit into one packet, through the real daemon.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lbagent_api::paths;
use lbagent_tests::agent::Config;
use lbagent_tests::client::{exchange_on, receive_answer, udp_socket_here};
use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::packet_builder::{fragments, udp, with_ttl};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::syscalls::{FrameSocket, interface_index, link_address};
use lbagent_tests::topology::{Shape, VIPS};
use serde_json::Value;

/// Bytes behind the IP header of a fragment.
const MOST: usize = 1_400;

/// More than two packets take.
fn payload() -> Vec<u8> {
    (0..4_000_u32).map(|index| (index * 13) as u8).collect()
}

/// The fragments of a datagram of `socket`, and what sends them. For a thread in the client's
/// namespace.
fn pieces(gateway: &Gateway, socket: &UdpSocket, number: u16) -> (FrameSocket, Vec<Vec<u8>>) {
    let topology = &gateway.topology;
    let interface = topology.client_interface();
    let link = topology.gateway.run(|| link_address(interface).unwrap());
    let (from, to) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
    let own = link_address("eth0").unwrap();
    let wire = FrameSocket::open(interface_index("eth0").unwrap()).unwrap();
    let mut pieces = fragments(&udp(from, to, &payload()), MOST, number);
    assert_eq!(pieces.len(), 3);
    for frame in &mut pieces {
        frame[..6].copy_from_slice(&link);
        frame[6..12].copy_from_slice(&own);
    }
    (wire, pieces)
}

/// A whole datagram to a backend, and a whole one back, whichever way the fragments come.
#[track_caller]
fn check_exchange(gateway: &Gateway, vip: IpAddr) {
    let to = SocketAddr::new(vip, PORT);
    let held_before = gateway.agent.outcome("hold_fragment").unwrap();
    let in_order = gateway.topology.client.run(|| {
        let socket = udp_socket_here(to, None)?;
        exchange_on(&socket, &payload())
    });
    in_order.unwrap().with_source_kept().unwrap();
    let held_after = gateway.agent.outcome("hold_fragment").unwrap();
    assert_eq!(held_after, held_before, "nothing waits that comes in order");
    let reversed = gateway.topology.client.run(|| {
        let socket = udp_socket_here(to, None)?;
        // An order that no stack would choose.
        let (wire, pieces) = pieces(gateway, &socket, 77);
        for frame in pieces.iter().rev() {
            wire.send(frame)?;
        }
        receive_answer(&socket, &payload())
    });
    reversed.unwrap().with_source_kept().unwrap();
    let held = gateway.agent.outcome("hold_fragment").unwrap();
    assert_eq!(held - held_after, 2, "both later fragments waited");
}

#[track_caller]
fn check(shape: Shape, xdp_mode: &'static str) {
    let configure = |config: &mut Config| config.xdp_mode = Some(xdp_mode);
    let gateway = Gateway::start_with(shape, 2, configure).unwrap();
    gateway.publish_web().unwrap();
    gateway.probe().unwrap();
    for vip in VIPS {
        check_exchange(&gateway, vip);
    }
    assert_eq!(gateway.agent.outcome("drop_fragment").unwrap(), 0);
    // Counted when the fragments are sent: the client may have its answer before that.
    let mut fragments = Value::Null;
    let is_counted = || {
        let mut counters = gateway.agent.call("GET", paths::COUNTERS, None).unwrap();
        fragments = counters["counters"]["fragments"].take();
        fragments["released"] == 4 && fragments["waiting"] == 0
    };
    let counted = poll_until("four to be released and none to wait", SOON, is_counted);
    counted.unwrap_or_else(|error| panic!("{error:#}: {fragments}"));
}

#[test]
fn datagrams_larger_than_a_packet_arrive_whole_both_ways() {
    require_root!();
    check(Shape::Routed, "native");
    check(Shape::Bridged, "native");
}

#[test]
fn they_do_on_one_interface_too() {
    require_root!();
    check(Shape::OneArmed, "native");
}

#[test]
fn they_do_in_generic_mode() {
    require_root!();
    check(Shape::Routed, "generic");
    check(Shape::OneArmed, "generic");
}

/// Later fragments without a first one, as fast as they can be sent: most are dropped before the agent
/// sees them, it spends a part of a CPU on the others, and who sends whole datagrams is served.
#[test]
fn a_flood_of_fragments_is_bounded() {
    require_root!();
    const FLOOD: Duration = Duration::from_secs(2);
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    gateway.probe().unwrap();
    let [vip, _] = VIPS;
    let pid = gateway.agent.pid().unwrap();
    // The oldest go when there is no room, or when they have waited for too long, which is what happens
    // where the agent has little of a busy machine's time to take others in.
    let forgotten = || {
        let counters = gateway.agent.call("GET", paths::COUNTERS, None).unwrap();
        let counts = ["displaced", "expired"];
        let counts = counts.map(|name| counters["counters"]["fragments"][name].as_u64());
        counts.into_iter().flatten().sum::<u64>()
    };
    let (spent, elapsed) = gateway.topology.client.run(|| {
        let socket = udp_socket_here(SocketAddr::new(vip, PORT), None).unwrap();
        let (wire, pieces) = pieces(&gateway, &socket, 0);
        let (before, start, mut until) = (cpu_time(pid), Instant::now(), FLOOD);
        for number in (0..=u16::MAX).cycle() {
            let mut frame = pieces[1].clone();
            frame[18..20].copy_from_slice(&number.to_be_bytes());
            wire.send(&with_ttl(frame, 64)).unwrap();
            if start.elapsed() >= until {
                if forgotten() > 0 || until >= 10 * FLOOD {
                    break;
                }
                until += FLOOD;
            }
        }
        (cpu_time(pid) - before, start.elapsed())
    });
    let counters = gateway.agent.call("GET", paths::COUNTERS, None).unwrap();
    let fragments = &counters["counters"]["fragments"];
    println!("{spent:?} of {elapsed:?}, {fragments}");
    assert!(gateway.agent.outcome("drop_fragment").unwrap() > 0);
    assert!(forgotten() > 0, "{fragments}");
    assert!(fragments["waiting"].as_u64() <= Some(4_096), "{fragments}");
    // A quarter, and what it takes to wake up.
    assert!(spent * 2 < elapsed, "{spent:?} of {elapsed:?}");
    // While the flood's own fragments take all room, a datagram in reversed order is lost.
    poll_until("the flood's fragments to expire", SOON, || {
        let counters = gateway.agent.call("GET", paths::COUNTERS, None);
        counters.is_ok_and(|all| all["counters"]["fragments"]["waiting"] == 0)
    })
    .unwrap();
    check_exchange(&gateway, vip);
}

/// What a process has used of CPUs.
fn cpu_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name before these fields may have spaces: proc_pid_stat(5).
    let (_, fields) = text.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
