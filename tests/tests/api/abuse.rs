//! Clients that are broken, slow or hostile: each is answered or cut off, nothing changes, and the
//! agent goes on answering everybody else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lbagent_tests::agent::Agent;
use lbagent_tests::gateway::{Gateway, PORT, service};
use lbagent_tests::http::Request;
use lbagent_tests::poll::poll_until;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);
/// Connections that say nothing.
const IDLE: usize = 10_000;
/// Connections that send a byte of their head now and then.
const SLOW: usize = 100;
/// What the health of the agent may take, 99 of 100 times, on a machine with nothing else to do.
const PROMPT: Duration = Duration::from_millis(50);

/// Everything that is desired, without what changes by itself.
fn state(agent: &Agent) -> Value {
    agent.call("GET", "/v1/x/state", None).unwrap()["state"].clone()
}

/// Sends bytes as they are and returns the status of the answer; `None` if there is none.
fn send_raw(bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(API).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    // The agent may answer, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1)?.parse().ok()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[track_caller]
fn check(path: &str, body: impl AsRef<[u8]>, status: u16) {
    let body = body.as_ref();
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
    assert_eq!(send_raw(&post(path, body)), Some(status), "{path} {shown}");
}

/// An item of the answer failed with a code, in an answer of status 200, or the request did.
#[track_caller]
fn check_refused(agent: &Agent, path: &str, body: Value, message: &str) {
    let response = agent.request("POST", path, Some(&body)).unwrap();
    let json = response.json().unwrap();
    assert_eq!(json["status"], "error", "{body} {json}");
    let said = json.to_string();
    assert!(said.contains(message), "{message:?} is missing in {json}");
}

fn bad_bytes() {
    let name_of = |length: usize| json!({ "name": "n".repeat(length), "services": [] }).to_string();
    for path in ["/v1/services", "/v1/instances"] {
        for body in [
            "{",
            "null",
            "7",
            "\"text\"",
            "[[]]",
            "[null]",
            "{\"name\": 7}",
            "{\"nonsense\": 1}",
            "{\"name\": \"a\", \"name\": \"b\"}",
            "{\"name\": \"a\\u0000b\", \"services\": [{\"port\": 443}]}",
        ] {
            check(path, body, 400);
        }
        check(path, b"{\"name\": \"\xff\xfe\"}", 400);
        check(path, [0; 64], 400);
        check(path, "[".repeat(100_000), 400);
        check(path, name_of(64), 400);
        check(path, name_of(1 << 20), 400);
        check(path, vec![b' '; 10 << 20], 413);
    }
    // Heads that no client of good faith sends. Whether they are answered or cut off is the
    // server's choice; that they end is what counts.
    for head in [
        b"\r\n\r\n\r\n".to_vec(),
        b"GET".to_vec(),
        [b"GET /".to_vec(), vec![b'a'; 1 << 20]].concat(),
        [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /v1/services HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"
            .to_vec(),
        b"POST /v1/services HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(),
    ] {
        let mut stream = TcpStream::connect(API).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let _ = stream.write_all(&head);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

fn bad_objects(agent: &Agent) {
    let raw = |port: u16| service(port, port, "tcp");
    let group = |name: &str, services: Value| json!({ "name": name, "services": services });
    let refuse = |body: Value, message: &str| check_refused(agent, "/v1/services", body, message);
    refuse(group("twice", json!([raw(7000), raw(7000)])), "7000");
    refuse(group("zero", json!([raw(0)])), "Value of 'port'");
    refuse(group("taken", json!([raw(PORT)])), "5432");
    refuse(group(&"n".repeat(64), json!([raw(7000)])), "Invalid name");
    refuse(group("a..b", json!([raw(7000)])), "Invalid name");
    refuse(group("-", json!([raw(7000)])), "Invalid name");
    let instance = |address: &str| {
        json!({ "name": "bad", "autostart": true, "service_group": { "name": "web" },
                "network_interfaces": [{ "ip": address }] })
    };
    for address in [
        VIP4.to_string().as_str(),
        "127.0.0.1",
        "::1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "255.255.255.255",
        "fe80::1",
        // The address of the instance that there is.
        "10.66.0.11",
    ] {
        let message = address;
        check_refused(agent, "/v1/instances", instance(address), message);
    }
    check_refused(
        agent,
        "/v1/instances",
        instance("10.66.0.300"),
        "10.66.0.300",
    );
}

/// Sets the flag when dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks for the agent's health until told to stop; returns how long each answer took, and how long each
/// answer of a server took that nobody abuses, which tells how busy the machine is.
fn probe(stop: &AtomicBool) -> [Vec<Duration>; 2] {
    let idle_server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let places = [API, idle_server.local_addr().unwrap()];
    // Ends with the process: nobody closes its listening socket.
    thread::spawn(move || idle_server.incoming().for_each(answer_ok));
    let mut took = [Vec::new(), Vec::new()];
    while !stop.load(Ordering::Acquire) {
        for (to, took) in places.into_iter().zip(&mut took) {
            let start = Instant::now();
            let request = Request {
                method: "GET",
                path: "/v1/healthz",
                token: None,
                body: None,
            };
            let response = request.send(to).unwrap();
            assert_eq!(response.status, 200, "{}", response.body);
            took.push(start.elapsed());
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    took
}

/// Answers one request, whatever it is.
fn answer_ok(stream: std::io::Result<TcpStream>) {
    let mut stream = BufReader::new(stream.unwrap());
    // All of it: closing with bytes unread would be a reset.
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0);
    }
    let stream = stream.get_mut();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
}

/// What 99 of 100 took at most.
fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Opens connections and leaves them alone.
fn idle() -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(IDLE);
    while streams.len() < IDLE {
        match TcpStream::connect_timeout(&API, Duration::from_secs(5)) {
            Ok(stream) => streams.push(stream),
            Err(error) => panic!("connection {} failed: {error}", streams.len()),
        }
    }
    streams
}

/// Heads that arrive byte by byte, and bodies that never end: all are cut off.
fn slow() {
    let heads = (0..SLOW).map(|number| {
        let mut stream = TcpStream::connect(API).unwrap();
        let head: &[u8] = if number % 2 == 0 {
            b"GET /v1/healthz HTTP/1.1\r\nx: "
        } else {
            b"POST /v1/services HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n{"
        };
        stream.write_all(head).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    });
    let mut open: Vec<TcpStream> = heads.collect();
    poll_until("slow clients are cut off", Duration::from_secs(120), || {
        open.retain_mut(|stream| {
            let fed = stream.write_all(b"a").is_ok();
            let mut answer = [0; 1024];
            let ended = match stream.read(&mut answer) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            fed && !ended
        });
        open.is_empty()
    })
    .unwrap();
}

#[test]
fn abuse_changes_nothing_and_slows_nobody() {
    require_root!();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(1 << 16), most).unwrap();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let agent = &gateway.agent;
    let _guard = gateway.topology.gateway.net.enter().unwrap();
    let before = state(agent);
    let stop = AtomicBool::new(false);
    let [mut took, mut idle_took] = thread::scope(|scope| {
        let prober = scope.spawn(|| probe(&stop));
        // Also when one of these fails.
        let end = End(&stop);
        bad_bytes();
        bad_objects(agent);
        let held = idle();
        slow();
        drop(held);
        drop(end);
        prober.join().unwrap()
    });
    assert_eq!(state(agent), before);
    let [p99, idle_p99] = [&mut took, &mut idle_took].map(|took| p99(took));
    println!(
        "{} probes, median {:?}, 99 of 100 {p99:?}, longest {:?}; of an idle server {idle_p99:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    // Where an idle server is slow too, it is the machine.
    assert!(
        p99 < PROMPT + 4 * idle_p99,
        "99 of 100 answers took {p99:?}, those of an idle server {idle_p99:?}"
    );
    gateway.probe().unwrap();
}
