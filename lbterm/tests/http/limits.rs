//! Clients that want too much, or do nothing; and the end of a worker.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lbagent_api::terminator::Limits;

use super::client::{Client, get};
use super::gateway::{Gateway, group, pause, poll_until};
use super::origin::{Origin, ok, read_block};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn limited(limits: Limits, instance: SocketAddr) -> Gateway {
    Gateway::with_limits(limits, |ports| {
        vec![group("a.example", ports[0], &[instance])]
    })
}

/// How long the connection has lasted, without anything coming, since a moment before the gateway's clock
/// began.
#[track_caller]
fn lasts(client: &mut Client, since: Instant) -> Duration {
    assert!(client.is_closed());
    since.elapsed()
}

#[test]
fn a_slow_head_ends_the_connection() {
    let origin = Origin::answering(ok("ok"));
    let limits = Limits {
        head_timeout_ms: 400,
        idle_timeout_ms: 20_000,
        ..Limits::default()
    };
    let gateway = limited(limits, origin.address);
    let mut client = Client::new(gateway.address());
    client.send(GET);
    assert_eq!(client.answer().status, 200);
    // Between requests there is more time than for a head.
    pause(Duration::from_millis(600));
    client.send(GET);
    assert_eq!(client.answer().status, 200);
    let began = Instant::now();
    // A byte now and then does not help.
    while client.try_send(b"G") {
        pause(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert!(began.elapsed() > Duration::from_millis(300));
    poll_until("it is counted", || gateway.count("head_timeout") == 1);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn an_idle_connection_ends() {
    const IDLE: Duration = Duration::from_millis(400);
    let origin = Origin::answering(ok("ok"));
    let limits = Limits {
        idle_timeout_ms: IDLE.as_millis() as u32,
        ..Limits::default()
    };
    let gateway = limited(limits, origin.address);
    let began = Instant::now();
    let mut silent = Client::new(gateway.address());
    let elapsed = lasts(&mut silent, began);
    assert!(elapsed >= IDLE && elapsed < Duration::from_secs(8));
    let mut once = Client::new(gateway.address());
    let began = Instant::now();
    once.send(GET);
    assert_eq!(once.answer().status, 200);
    assert!(lasts(&mut once, began) >= IDLE);
}

#[test]
fn a_body_that_does_not_come_ends_the_connection() {
    let origin = Origin::answering(ok("ok"));
    let limits = Limits {
        idle_timeout_ms: 400,
        ..Limits::default()
    };
    let gateway = limited(limits, origin.address);
    let mut client = Client::new(gateway.address());
    let began = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n01");
    assert!(lasts(&mut client, began) < Duration::from_secs(8));
    poll_until("it is counted", || gateway.count("http_idle") == 1);
    poll_until("nothing is in flight", || {
        gateway.load(origin.address).0 == 0
    });
}

#[test]
fn a_client_that_takes_nothing_ends() {
    let origin = Origin::new(|_, stream| {
        let body = vec![b'x'; 64 << 20];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let stream = stream.get_mut();
        stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&body).is_ok()
    });
    let limits = Limits {
        idle_timeout_ms: 400,
        ..Limits::default()
    };
    let gateway = limited(limits, origin.address);
    let mut client = Client::new(gateway.address());
    client.send(GET);
    assert_eq!(client.head().status, 200);
    poll_until("it is closed", || gateway.count("http_idle") == 1);
    poll_until("nothing is in flight", || {
        gateway.load(origin.address).0 == 0
    });
}

#[test]
fn a_quiet_answer_does_not_end() {
    // Server-sent events come when there is news.
    let origin = Origin::raw("127.0.0.1:0", |mut stream| {
        read_block(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
        stream.get_mut().write_all(head).unwrap();
        pause(Duration::from_millis(1500));
        stream
            .get_mut()
            .write_all(b"3\r\nnew\r\n0\r\n\r\n")
            .unwrap();
    });
    let limits = Limits {
        idle_timeout_ms: 300,
        head_timeout_ms: 300,
        ..Limits::default()
    };
    let gateway = limited(limits, origin);
    let mut client = Client::new(gateway.address());
    client.send(GET);
    assert_eq!(client.answer().text(), "oknew");
}

#[test]
fn a_source_has_so_many_requests_a_second() {
    let origin = Origin::answering(ok("ok"));
    let limits = Limits {
        requests_per_source: 20,
        ..Limits::default()
    };
    let gateway = limited(limits, origin.address);
    let mut client = Client::new(gateway.address());
    let began = Instant::now();
    let mut refused = 0;
    for _ in 0..200 {
        client.send(GET);
        let answer = client.answer();
        match answer.status {
            200 => {}
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    let most = 20.0 + 20.0 * began.elapsed().as_secs_f64() + 1.0;
    let passed = origin.requests().len();
    assert!(
        passed >= 20 && (passed as f64) <= most,
        "{passed} of at most {most}"
    );
    assert_eq!(gateway.count("too_many_requests"), refused);
}

#[test]
fn a_client_that_goes_frees_the_instance() {
    let (seen, wait) = mpsc::channel();
    let origin = Origin::raw("127.0.0.1:0", move |mut stream| {
        read_block(&mut stream);
        // Never answers, and sees the gateway go.
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
        seen.send(()).unwrap();
    });
    let gateway = Gateway::new(&[origin]);
    let mut client = Client::new(gateway.address());
    client.send(GET);
    poll_until("it is in flight", || gateway.load(origin).0 == 1);
    client.stream().get_ref().shutdown(Shutdown::Both).unwrap();
    wait.recv_timeout(Duration::from_secs(10)).unwrap();
    poll_until("it counts as neither", || gateway.load(origin) == (0, 0, 0));
}

#[test]
fn a_drain_finishes_what_there_is() {
    let (release, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::new(move |request, stream| {
        if request.head.contains("/slow") {
            let _: Result<(), _> = wait.lock().unwrap().recv();
        }
        stream.get_mut().write_all(&ok("ok")).is_ok()
    });
    let gateway = Gateway::new(&[origin.address]);
    assert_eq!(get(gateway.address(), "/").status, 200);
    let mut idle = Client::new(gateway.address());
    idle.send(GET);
    assert_eq!(idle.answer().fields("connection"), [""; 0]);
    let mut busy = Client::new(gateway.address());
    busy.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n");
    poll_until("it is in flight", || origin.requests().len() == 3);
    gateway.drain();
    assert!(idle.is_closed());
    assert!(!gateway.has_ended());
    release.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!(
        (answer.status, answer.fields("connection")),
        (200, vec!["close"])
    );
    assert!(busy.is_closed());
    poll_until("the worker has ended", || gateway.has_ended());
}

#[test]
fn requests_that_cross_a_drain_are_answered() {
    let origin = Origin::answering(ok("ok"));
    let gateway = Gateway::new(&[origin.address]);
    // Accepted, and nothing was sent; a half of a head; and between two requests.
    let mut clients = [(); 3].map(|()| Client::new(gateway.address()));
    let [new, halfway, kept] = &mut clients;
    let (half, rest) = GET.split_at(20);
    halfway.send(half);
    kept.send(GET);
    kept.answer();
    poll_until("all were accepted", || gateway.count("accepted") == 3);
    gateway.drain();
    new.send(GET);
    halfway.send(rest);
    kept.send(GET);
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.fields("connection")),
            (200, vec!["close"])
        );
        assert!(client.is_closed());
    }
    poll_until("the worker has ended", || gateway.has_ended());
}
