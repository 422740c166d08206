//! Proxies in front of the gateway, and what each port allows a source.

use std::net::SocketAddr;

use lbagent_api::terminator::Limits;

use super::client::{Client, get};
use super::gateway::{Gateway, group};
use super::origin::{Origin, ok};

fn gateway(origin: SocketAddr, limits: Limits) -> Gateway {
    Gateway::with_limits(limits, |ports| {
        vec![
            group("a.example", ports[0], &[origin]),
            group("b.example", ports[1], &[origin]),
        ]
    })
}

/// Status of a request whose client a proxy may tell.
#[track_caller]
fn status(address: SocketAddr, host: &str, client: &str) -> u16 {
    let mut connection = Client::new(address);
    connection.send(format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {client}\r\n\r\n"
    ));
    connection.answer().status
}

#[test]
fn each_port_has_its_own_rate() {
    let origin = Origin::answering(ok("ok"));
    let mut gateway = gateway(origin.address, Limits::default());
    gateway.change(|snapshot| snapshot.groups[0].services[0].policy.requests_per_source = 2);
    let (limited, free) = (gateway.address(), gateway.second());
    let statuses = [(); 3].map(|()| status(limited, "a.example", "x"));
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!([(); 5].map(|()| status(free, "b.example", "x")), [200; 5]);
    assert_eq!(gateway.count("too_many_requests"), 1);
    // What is spent at one port is not spent at another one with a limit.
    gateway.change(|snapshot| snapshot.groups[1].services[0].policy.requests_per_source = 2);
    let statuses = [(); 3].map(|()| status(free, "b.example", "x"));
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn a_trusted_proxy_tells_the_client() {
    let origin = Origin::answering(ok("ok"));
    let mut gateway = gateway(
        origin.address,
        Limits {
            connections_per_source: 1,
            ..Limits::default()
        },
    );
    gateway.change(|snapshot| {
        snapshot.proxies.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        snapshot.groups[0].services[0].policy.requests_per_source = 1;
    });
    let address = gateway.address();
    // Many clients come through one proxy.
    let _held = Client::new(address);
    for (client, expected) in [
        ("203.0.113.1", 200),
        ("203.0.113.1", 429),
        // What the client wrote itself does not help it.
        ("6.6.6.6, 203.0.113.1", 429),
        ("203.0.113.2, 127.0.0.9", 200),
    ] {
        assert_eq!(status(address, "a.example", client), expected, "{client}");
    }
    let request = origin.requests().pop().unwrap();
    assert_eq!(
        request.fields("x-forwarded-for"),
        ["203.0.113.2, 127.0.0.9, 127.0.0.1"]
    );
    assert_eq!(
        request.fields("forwarded"),
        ["for=127.0.0.1;proto=http;host=a.example"]
    );
}

#[test]
fn a_proxy_that_speaks_the_proxy_protocol_tells_the_client_of_a_connection() {
    let origin = Origin::answering(ok("ok"));
    let mut gateway = gateway(
        origin.address,
        Limits {
            connections_per_source: 1,
            ..Limits::default()
        },
    );
    gateway.change(|snapshot| {
        snapshot.proxies.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let connect = |client: &str| {
        let mut connection = Client::new(gateway.address());
        connection.send(format!(
            "PROXY TCP4 {client} 198.51.100.1 50000 80\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
        ));
        connection
    };
    let mut first = connect("203.0.113.1");
    assert_eq!(first.answer().status, 200);
    let request = origin.requests().pop().unwrap();
    assert_eq!(request.fields("x-forwarded-for"), ["203.0.113.1"]);
    // Sources are those that are told.
    assert_eq!(connect("203.0.113.2").answer().status, 200);
    assert!(connect("203.0.113.1").is_closed());
    assert_eq!(gateway.count("refused_source"), 1);
    // Without a header nobody knows whom it is from.
    let mut bare = Client::new(gateway.address());
    bare.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert!(bare.is_closed());
    assert_eq!(gateway.count("proxy_header_invalid"), 1);
    gateway.change(|snapshot| snapshot.proxies = Default::default());
    assert_eq!(get(gateway.address(), "/").status, 200);
}

#[test]
fn a_proxy_that_speaks_for_itself_by_the_proxy_protocol_is_not_trusted() {
    let origin = Origin::answering(ok("ok"));
    let mut gateway = gateway(origin.address, Limits::default());
    gateway.change(|snapshot| {
        snapshot.proxies.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
        snapshot.groups[0].services[0].policy.requests_per_source = 1;
    });
    let status = |client: &str| {
        let mut connection = Client::new(gateway.address());
        connection.send(format!(
            "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\
             X-Forwarded-For: {client}\r\n\r\n"
        ));
        connection.answer().status
    };
    assert_eq!(status("203.0.113.1"), 200);
    let request = origin.requests().pop().unwrap();
    assert_eq!(request.fields("x-forwarded-for"), ["127.0.0.1"]);
    // Nor does another name give another share.
    assert_eq!(status("203.0.113.2"), 429);
}
