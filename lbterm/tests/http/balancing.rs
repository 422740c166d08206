//! Which instance gets a request, and what happens when it does not answer.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use lbagent_api::terminator::{InstanceState, ServiceKind};

use super::client::{Client, get};
use super::gateway::{Gateway, domain, group, instance, pause, poll_until, service};
use super::origin::{Origin, ok};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Instances of one port and several addresses, each of which answers with its address when it is
/// released.
fn held(count: u8) -> (Vec<Origin>, Sender<()>) {
    let (release, wait) = channel();
    let wait = Arc::new(Mutex::new(wait));
    (on_one_port(count, Some(&wait)), release)
}

fn on_one_port(count: u8, wait: Option<&Arc<Mutex<Receiver<()>>>>) -> Vec<Origin> {
    let mut port = 0;
    (1..=count)
        .map(|last| {
            let address = format!("127.0.0.{last}:{port}");
            let (wait, name) = (wait.cloned(), format!("127.0.0.{last}"));
            let origin = Origin::on(&address, move |_, stream| {
                if let Some(wait) = &wait {
                    let _ = wait.lock().unwrap().recv();
                }
                stream.get_mut().write_all(&ok(&name)).is_ok()
            });
            port = origin.address.port();
            origin
        })
        .collect()
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

#[test]
fn the_instance_with_the_fewest_gets_the_next() {
    let (origins, release) = held(3);
    let gateway = Gateway::new(&addresses(&origins));
    let clients: Vec<_> = (1..=9)
        .map(|count| {
            let mut client = Client::new(gateway.address());
            client.send(GET);
            let in_flight = || addresses(&origins).into_iter().map(|a| gateway.load(a).0);
            poll_until("it is in flight", || in_flight().sum::<u64>() == count);
            let (least, most) = (in_flight().min().unwrap(), in_flight().max().unwrap());
            assert!(most - least <= 1, "{:?}", in_flight().collect::<Vec<_>>());
            client
        })
        .collect();
    for _ in &clients {
        release.send(()).unwrap();
    }
    for mut client in clients {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn the_hard_limit_is_not_exceeded() {
    let (origins, release) = held(2);
    let mut gateway = Gateway::new(&addresses(&origins));
    gateway.change(|snapshot| {
        snapshot.groups[0].soft_limit = 1;
        snapshot.groups[0].hard_limit = 2;
    });
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Client::new(gateway.address());
            client.send(GET);
            client
        })
        .collect();
    let seen = || {
        origins
            .iter()
            .map(|origin| origin.requests().len())
            .sum::<usize>()
    };
    poll_until("four are in flight", || seen() == 4);
    let answer = get(gateway.address(), "/");
    assert_eq!(
        (answer.status, answer.fields("retry-after")),
        (503, vec!["1"])
    );
    assert!(answer.text().contains("busy"));
    assert_eq!(gateway.count("over_hard_limit"), 1);
    assert_eq!(gateway.count("all_busy"), 1);
    assert_eq!(gateway.count("over_soft_limit"), 2);
    for _ in &waiting {
        release.send(()).unwrap();
    }
    for mut client in waiting {
        assert_eq!(client.answer().status, 200);
    }
    release.send(()).unwrap();
    assert_eq!(get(gateway.address(), "/").status, 200);
}

#[test]
fn a_draining_instance_finishes_and_gets_nothing_new() {
    let (origins, release) = held(2);
    let mut gateway = Gateway::new(&addresses(&origins[..1]));
    let mut waiting = Client::new(gateway.address());
    waiting.send(GET);
    poll_until("it is in flight", || origins[0].requests().len() == 1);
    gateway.change(|snapshot| {
        let instances = &mut snapshot.groups[0].instances;
        instances[0].state = InstanceState::Draining;
        instances.push(instance(origins[1].address));
    });
    for _ in 0..5 {
        let mut client = Client::new(gateway.address());
        client.send(GET);
        release.send(()).unwrap();
        poll_until("one has been answered", || {
            origins[1].requests().len() + usize::from(gateway.load(origins[0].address).0 == 0) > 0
        });
        drop(client);
    }
    release.send(()).unwrap();
    let answer = waiting.answer();
    assert_eq!(answer.text(), "127.0.0.1");
    assert_eq!(origins[0].requests().len(), 1);
    // Taken out altogether, also from the connections that are open.
    gateway.change(|snapshot| snapshot.groups[0].instances.clear());
    waiting.send(GET);
    assert_eq!(waiting.answer().status, 503);
}

#[test]
fn another_instance_is_asked_when_one_cannot_be_reached() {
    let origins = on_one_port(1, None);
    let port = origins[0].address.port();
    let dead: SocketAddr = format!("127.0.0.9:{port}").parse().unwrap();
    let gateway = Gateway::new(&[origins[0].address, dead]);
    for _ in 0..50 {
        let mut client = Client::new(gateway.address());
        // Nothing was sent, so a body and a method that is not idempotent do no harm.
        client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.answer().status, 200);
    }
    poll_until("all to be counted", || {
        gateway.load(origins[0].address) == (0, 50, 0)
    });
    let failed = gateway.load(dead).2;
    assert!(
        (5..20).contains(&failed),
        "{failed}: it is left out after five failures"
    );
    assert_eq!(gateway.count("retried"), failed);
    let only = Gateway::new(&[dead]);
    for _ in 0..10 {
        assert_eq!(
            get(only.address(), "/").status,
            502,
            "the last one is never left out"
        );
    }
    assert_eq!(only.load(dead).2, 10);
}

#[test]
fn only_requests_that_may_be_repeated_are() {
    // Each takes a request and closes.
    let origins: Vec<_> = {
        let mut port = 0;
        let close = move |last: u8| {
            let origin = Origin::on(&format!("127.0.0.{last}:{port}"), |_, _| false);
            port = origin.address.port();
            origin
        };
        (1..=2).map(close).collect()
    };
    let seen = || {
        origins
            .iter()
            .map(|origin| origin.requests().len())
            .sum::<usize>()
    };
    let mut before = 0;
    let body = "Content-Length: 2\r\n\r\nhi";
    for (request, times) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), 2),
        ("DELETE / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), 2),
        ("POST / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), 1),
        ("PATCH / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), 1),
        (format!("PUT / HTTP/1.1\r\nHost: a.example\r\n{body}"), 1),
        (format!("POST / HTTP/1.1\r\nHost: a.example\r\n{body}"), 1),
    ] {
        let gateway = Gateway::new(&addresses(&origins));
        let mut client = Client::new(gateway.address());
        client.send(&request);
        assert_eq!(client.answer().status, 502, "{request}");
        assert_eq!(seen() - before, times, "{request}");
        before = seen();
    }
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_no_fault() {
    // Closes each connection after the first answer without saying so.
    let origin = Origin::new(|_, stream| {
        let _ = stream.get_mut().write_all(&ok("ok"));
        false
    });
    let gateway = Gateway::new(&[origin.address]);
    let mut client = Client::new(gateway.address());
    for i in 0..200 {
        // As soon as possible, and a while later.
        pause(std::time::Duration::from_millis(u64::from(i % 20 == 0) * 5));
        client.send(GET);
        assert_eq!(client.answer().status, 200);
    }
    poll_until("all to be counted", || {
        gateway.load(origin.address) == (0, 200, 0)
    });
}

#[test]
fn an_instance_that_does_not_accept_is_late() {
    // A full backlog: connecting takes for ever.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    let backlog: Vec<_> = (0..300)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let mut gateway = Gateway::new(&[address]);
    gateway.change(|snapshot| snapshot.groups[0].services[0].policy.connect_timeout_ms = 200);
    assert_eq!(get(gateway.address(), "/").status, 502);
    assert_eq!(gateway.count("connect_failed"), 1);
    drop(backlog);
}

#[test]
fn redirects_lead_to_https_of_owned_names() {
    let gateway = Gateway::with(|ports| {
        let mut group = group("a.example", 8443, &[]);
        group.domains.push(domain("*.b.example"));
        group.services[0].kind = ServiceKind::Https;
        group
            .services
            .push(service(ports[0], &[], ServiceKind::Redirect));
        vec![group]
    });
    let ask = |host: &str, target: &str| {
        let mut client = Client::new(gateway.address());
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
        ));
        let answer = client.answer();
        (answer.status, answer.fields("location").join(" "))
    };
    let to = |location: &str| (308, location.to_owned());
    assert_eq!(
        ask("a.example:80", "/b?c"),
        to("https://a.example:8443/b?c")
    );
    assert_eq!(
        ask("x.y.b.example", "//evil"),
        to("https://x.y.b.example:8443//evil")
    );
    assert_eq!(ask("evil.example", "/"), (404, String::new()));
    assert_eq!(gateway.count("redirected"), 2);
}
