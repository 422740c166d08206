//! What is passed up reaches a terminator: the kernel makes connections of cookies that XDP gave, on
//! whichever listening socket there is by then.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use lbagent_common::redirect::Passed;
use lbagent_common::{Outcome, TERMINATOR_V4, TERMINATOR_V6};
use lbagent_tests::net_link::{Cidr, Netlink};
use lbagent_tests::poll::{SOON, poll_for, poll_until};
use lbagent_tests::prog_run::{VIP_V4, VIP_V6};
use lbagent_tests::require_root;
use lbagent_tests::tcp_segment::{TcpSegment, flags};

use super::{Opened, Web, families};

/// A gateway whose terminator listens on the VIPs themselves, because `lb_steer` is not attached here.
fn web() -> Web {
    let mut web = Web::new();
    let netlink = Netlink::open().unwrap();
    for (vip, len) in [(VIP_V4, 32), (VIP_V6, 128)] {
        netlink
            .add_address("lo", Cidr::new(&format!("{vip}/{len}")))
            .unwrap();
        // The kernel adds the route of an IPv6 address later, and sockets may be bound to it before.
        poll_until("the way to the VIP", SOON, || has_route(vip)).unwrap();
    }
    listen(&mut web);
    web
}

/// Whether the kernel has the route that what comes for an address of its own takes.
fn has_route(address: &str) -> bool {
    let IpAddr::V6(address) = address.parse().unwrap() else {
        return true;
    };
    let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
    routes.contains(&format!("{:032x} 80 ", address.to_bits()))
}

/// Closes the listening sockets and registers new ones, as after a crash of all that held them.
fn listen(web: &mut Web) {
    web.listeners.clear();
    for (index, vip) in [(TERMINATOR_V4, VIP_V4), (TERMINATOR_V6, VIP_V6)] {
        let vip: IpAddr = vip.parse().unwrap();
        let bind = || TcpListener::bind(SocketAddr::new(vip, 80)).ok();
        let listener = poll_for("the VIP's port", SOON, bind).unwrap();
        listener.set_nonblocking(true).unwrap();
        web.register(index, listener).unwrap();
    }
}

/// Hands a segment to the kernel and reads it from the connection that comes of it.
#[track_caller]
fn assert_accepted(web: &mut Web, connection: &Opened, payload: &[u8]) -> std::net::TcpStream {
    web.rig
        .deliver(&connection.frame(flags::PSH, payload))
        .unwrap();
    let listener = &web.listeners[usize::from(connection.vip.is_ipv6())];
    let accepted = poll_for("a connection", SOON, || listener.accept().ok());
    let (mut stream, peer) = accepted.unwrap();
    assert_eq!(peer, connection.client);
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut read = vec![0; payload.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, payload);
    stream
}

#[test]
fn the_kernel_takes_over_from_the_cookie() {
    require_root!();
    let mut web = web();
    for family in families(2000) {
        let connection = web.open(family);
        let stream = assert_accepted(&mut web, &connection, b"POST / HT");
        // From then on everything is the kernel's, because it has the connection.
        web.rig.dataplane.forget_flows().unwrap();
        let client = connection.after(9, 0);
        web.assert_passed(&client.frame(0, b""), Passed::CookieInvalid);
        web.assert_passed(
            &client.frame(flags::PSH, b"TP/1.1\r\n"),
            Passed::CookieInvalid,
        );
        web.assert_passed(&client.frame(flags::FIN, b""), Passed::CookieInvalid);
        drop(stream);
    }
}

/// A client that comes again from a port of which the kernel still has the former connection gets its
/// answer from there: data behind a cookie would meet the old connection, and never be answered.
#[test]
fn a_port_that_the_kernel_has_not_forgotten_is_left_to_it() {
    require_root!();
    let mut web = web();
    for family in families(2000) {
        let connection = web.open(family);
        drop(assert_accepted(&mut web, &connection, b"POST / HT"));
        // The terminator has closed first, so its end waits for a minute.
        let closing = connection.after(9, 1).frame(flags::FIN, b"");
        web.rig.deliver(&closing).unwrap();
        let syn = TcpSegment {
            sequence: connection.sequence.wrapping_add(1 << 20),
            flags: flags::SYN,
            ..TcpSegment::default()
        };
        let frame = syn.frame(connection.client, connection.vip);
        web.assert_passed(&frame, Passed::SynUnanswered);
        let mut other = family;
        other.0.set_port(2001);
        web.open(other);
    }
}

/// Cookies that one socket gave are taken by the next, which never saw a SYN.
#[test]
fn a_new_listening_socket_takes_them_too() {
    require_root!();
    let mut web = web();
    for family in families(2000) {
        let connection = web.open(family);
        listen(&mut web);
        assert_accepted(&mut web, &connection, b"POST / HT");
    }
}

/// The kernel's clock of 32 bits starts at 300 s before 0 (`INITIAL_JIFFIES`), and 0 is when a new
/// socket says that it was last flooded: so five to seven minutes after the boot it takes any cookie.
fn new_sockets_seem_flooded() -> bool {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (280.0..423.0).contains(&seconds)
}

/// The control for the test above: without the programs' help the kernel refuses. The segment is one
/// that they do not look into.
#[test]
fn the_kernel_alone_refuses_cookies_of_another_socket() {
    require_root!();
    let patience = Duration::from_secs(160);
    poll_until("new sockets to be as new", patience, || {
        !new_sockets_seem_flooded()
    })
    .unwrap();
    let mut web = web();
    for family in families(2000) {
        let connection = web.open(family);
        listen(&mut web);
        let odd = connection.segment(flags::PSH | flags::URG, b"POST / HT");
        let odd = odd.frame(connection.client, connection.vip);
        web.assert_passed(&odd, Passed::OddSegment);
        web.rig.deliver(&odd).unwrap();
        // Something else that does arrive, behind it.
        let mut other = family;
        other.0.set_port(2001);
        let other = web.open(other);
        let stream = assert_accepted(&mut web, &other, b"POST / HT");
        let listener = &web.listeners[usize::from(connection.vip.is_ipv6())];
        assert!(listener.accept().is_err(), "the first one was taken");
        drop(stream);
    }
}

/// As long as nobody accepts, the queue fills up; then SYNs are the kernel's again, which drops them.
#[test]
fn a_full_queue_gets_no_more_cookies() {
    require_root!();
    let mut web = web();
    let [family, _] = families(2000);
    // Two connections fill a queue of one.
    let listener = rustix::net::listen(&web.listeners[0], 1);
    listener.unwrap();
    for port in [3000, 3001] {
        let mut family = family;
        family.0.set_port(port);
        let connection = web.open(family);
        web.rig
            .deliver(&connection.frame(flags::PSH, b"POST / HT"))
            .unwrap();
    }
    let mut last = family;
    last.0.set_port(3002);
    let syn = TcpSegment {
        sequence: 7,
        flags: flags::SYN,
        ..Default::default()
    };
    let frame = syn.frame(last.0, last.1);
    let is_full = || {
        let outcome = web.run(&frame).outcome;
        (outcome == Outcome::PassRedirect).then_some(())
    };
    poll_for("a full queue", SOON, is_full).unwrap();
}
