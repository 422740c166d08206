//! Health checks against real servers that stop, hang and answer wrongly, and what becomes of
//! traffic.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lbagent_tests::client::{Connection, Transport};
use lbagent_tests::gateway::{Gateway, PORT, SERVER_PORT};
use lbagent_tests::netns::NetNs;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIP6};
use serde_json::{Value, json};

/// Where [`Probed`] listens.
const CHECK_PORT: u16 = 8080;

/// What [`Probed`] does when it is asked.
const RIGHT: u8 = 0;
const WRONG: u8 = 1;
const SILENT: u8 = 2;

/// A server beside that of the traffic, which is only checked: over TCP (HTTP, or `PING`) and UDP.
struct Probed {
    mood: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Probed {
    fn start(ns: &NetNs) -> Self {
        let (mood, stop) = (
            Arc::new(AtomicU8::new(RIGHT)),
            Arc::new(AtomicBool::new(false)),
        );
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), CHECK_PORT);
        let (tcp, udp) = ns.run(|| (TcpListener::bind(any), UdpSocket::bind(any)));
        let (tcp, udp) = (tcp.unwrap(), udp.unwrap());
        let pause = Some(Duration::from_millis(20));
        udp.set_read_timeout(pause).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (moods, stops) = ((mood.clone(), mood.clone()), (stop.clone(), stop.clone()));
        let answer_tcp = move || {
            let mut silent = Vec::new();
            while !stops.0.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    std::thread::park_timeout(Duration::from_millis(2));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                let mut asked = [0; 512];
                let len = stream.read(&mut asked).unwrap_or(0);
                let asked = &asked[..len];
                let answer = match (moods.0.load(Ordering::Relaxed), asked.starts_with(b"PING")) {
                    (SILENT, _) => {
                        silent.push(stream);
                        continue;
                    }
                    (RIGHT, true) => "+PONG\r\n",
                    (_, true) => "-LOADING\r\n",
                    (RIGHT, false) => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready",
                    (_, false) => "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy",
                };
                let _ = stream.write_all(answer.as_bytes());
            }
        };
        let answer_udp = move || {
            while !stops.1.load(Ordering::Relaxed) {
                let mut asked = [0; 512];
                let Ok((_, from)) = udp.recv_from(&mut asked) else {
                    continue;
                };
                let _ = match moods.1.load(Ordering::Relaxed) {
                    RIGHT => udp.send_to(b"right", from),
                    WRONG => udp.send_to(b"wrong", from),
                    _ => Ok(0),
                };
            }
        };
        let threads = vec![
            std::thread::spawn(answer_tcp),
            std::thread::spawn(answer_udp),
        ];
        Self {
            mood,
            stop,
            threads,
        }
    }

    fn set(&self, mood: u8) {
        self.mood.store(mood, Ordering::Relaxed);
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .for_each(|thread| drop(thread.join()));
    }
}

fn set_health(gateway: &Gateway, health: &Value) {
    let path = "/v1/x/service-groups/web/policy";
    let policy = json!({ "policy": { "health": health } });
    gateway.agent.call("PUT", path, Some(&policy)).unwrap();
}

/// A check that no healthy server fails, however busy the machine is: for tests that a false verdict
/// would spoil.
fn patient_check(members: Value) -> Value {
    let mut check = check(members);
    check["interval_ms"] = 1000.into();
    check["timeout_ms"] = 1000.into();
    check
}

/// A quick check with these members.
fn check(members: Value) -> Value {
    let mut check = json!({ "interval_ms": 200, "timeout_ms": 200, "rise": 2, "fall": 2 });
    let all = check.as_object_mut().unwrap();
    all.extend(members.as_object().unwrap().clone());
    check
}

/// What the agent says of an instance's addresses: state and error of the first check.
fn states(gateway: &Gateway, instance: &str) -> Vec<(String, String)> {
    let data = gateway.agent.call("GET", "/v1/x/health", None).unwrap();
    let groups = data["health"]["groups"].as_array().unwrap().iter();
    let instances = groups.flat_map(|group| group["instances"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    instances
        .filter(|found| found["name"] == instance)
        .map(|found| (text(&found["state"]), text(&found["checks"][0]["error"])))
        .collect()
}

#[track_caller]
fn wait(gateway: &Gateway, instance: &str, state: &str) -> Vec<(String, String)> {
    let is_it = || {
        let found = states(gateway, instance);
        !found.is_empty() && found.iter().all(|(found, _)| found == state)
    };
    if let Err(error) = poll_until(&format!("{instance} {state}"), SOON, is_it) {
        panic!("{error:#}: {:?}", states(gateway, instance));
    }
    states(gateway, instance)
}

/// Who answers; nobody, while some connection still goes to who does not listen.
fn names(gateway: &Gateway, vip: IpAddr) -> Vec<String> {
    let spread = gateway.spread(Transport::Tcp, vip, 60);
    spread.unwrap_or_default().into_keys().collect()
}

#[test]
fn a_server_that_stops_gets_no_new_connections_until_it_is_back() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let client = gateway.topology.client.clone();
    set_health(
        &gateway,
        &json!({ "check": check(json!({ "kind": "tcp" })) }),
    );
    wait(&gateway, "b2", "healthy");
    drop(gateway.servers.remove(1));
    let found = wait(&gateway, "b2", "unhealthy");
    assert_eq!(found.len(), 2, "one of each family: {found:?}");
    // The last error is told: on a busy machine that may be a late answer, until the next one.
    poll_until("the refusals to be told", SOON, || {
        let found = states(&gateway, "b2");
        found.iter().all(|(_, error)| error.contains("refused"))
    })
    .unwrap();
    for vip in [VIP4, VIP6] {
        let expected = ["b1", "b3"];
        poll_until("new connections elsewhere", SOON, || {
            names(&gateway, vip) == expected
        })
        .unwrap();
    }
    poll_until("the status to say so", SOON, || {
        let status = gateway.agent.call("GET", "/v1/x/status", None).unwrap();
        let conditions = status["status"]["conditions"].to_string();
        conditions.contains("health checks of 1 of 3 instances fail over IPv4")
    })
    .unwrap();
    // Those that others have stay where they are when it comes back.
    let mut connections: Vec<Connection> = (0..30)
        .map(|_| Connection::open(&client, SocketAddr::new(VIP4, PORT)).unwrap())
        .collect();
    for connection in &mut connections {
        connection.command("echo").unwrap();
    }
    let backend = &gateway.topology.backends[1];
    let server = lbagent_tests::server::Server::start(&backend.ns, "b2", &[SERVER_PORT], &[]);
    gateway.servers.push(server.unwrap());
    wait(&gateway, "b2", "healthy");
    poll_until("b2 among the others", SOON, || {
        names(&gateway, VIP4).len() == 3
    })
    .unwrap();
    for connection in &mut connections {
        connection.echo("still there").unwrap();
    }
}

/// Whatever a server does wrong, its established connections are left alone.
#[test]
fn servers_that_hang_or_answer_wrongly_are_unhealthy() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 2).unwrap();
    let probed: Vec<Probed> = gateway
        .topology
        .backends
        .iter()
        .map(|backend| Probed::start(&backend.ns))
        .collect();
    let mut connections: Vec<Connection> = (0..20)
        .map(|_| {
            let to = SocketAddr::new(VIP4, PORT);
            Connection::open(&gateway.topology.client, to).unwrap()
        })
        .collect();
    for connection in &mut connections {
        connection.command("echo").unwrap();
    }
    let http = json!({ "kind": "http", "port": CHECK_PORT, "path": "/up", "host": "a.example",
        "statuses": ["200"], "body": { "text": "ready" } });
    let ping = json!({ "kind": "tcp", "port": CHECK_PORT, "send": { "text": "PING\r\n" },
        "expect": { "text": "+PONG" } });
    let udp = json!({ "kind": "udp", "port": CHECK_PORT, "send": { "hex": "00ff" },
        "expect": { "text": "right" } });
    for (members, wrong, silent) in [
        (http, "status 503", "no answer came within"),
        (ping, "-LOADING", "within 200 ms"),
        (udp, "wrong", "no answer came within"),
    ] {
        set_health(&gateway, &json!({ "check": check(members.clone()) }));
        wait(&gateway, "b1", "healthy");
        for (mood, expected) in [(WRONG, wrong), (SILENT, silent)] {
            probed[0].set(mood);
            let found = wait(&gateway, "b1", "unhealthy");
            poll_until(&format!("{members} {mood}: {found:?}"), SOON, || {
                states(&gateway, "b1")
                    .iter()
                    .all(|(_, error)| error.contains(expected))
            })
            .unwrap();
            poll_until("b2 alone", SOON, || names(&gateway, VIP6) == ["b2"]).unwrap();
            probed[0].set(RIGHT);
            wait(&gateway, "b1", "healthy");
        }
    }
    for connection in &mut connections {
        connection.echo("still there").unwrap();
    }
    // Nothing waits for the end of connections that are over.
    let sockets = gateway
        .topology
        .gateway
        .run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
    let to = format!(":{CHECK_PORT:04X} 06 ");
    let sockets = sockets.unwrap();
    let waiting: Vec<&str> = sockets.lines().filter(|line| line.contains(&to)).collect();
    assert!(waiting.is_empty(), "sockets in TIME_WAIT: {waiting:#?}");
}

#[test]
fn a_host_that_swallows_everything_is_unhealthy() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    set_health(
        &gateway,
        &json!({ "check": check(json!({ "kind": "tcp" })) }),
    );
    wait(&gateway, "b1", "healthy");
    gateway.topology.backends[0].ns.run(|| {
        let netlink = lbagent_tests::net_link::Netlink::open().unwrap();
        netlink.set_down("eth0").unwrap();
    });
    wait(&gateway, "b1", "unhealthy");
    poll_until("the reason", SOON, || {
        let found = states(&gateway, "b1");
        let is_told = |error: &str| {
            error.contains("not connected within 200 ms") || error.contains("No route")
        };
        found.iter().any(|(_, error)| is_told(error))
    })
    .unwrap();
    poll_until("b2 alone", SOON, || names(&gateway, VIP4) == ["b2"]).unwrap();
}

#[test]
fn when_all_are_unhealthy_the_policy_decides_and_a_restart_changes_nothing() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    // Nobody listens there.
    let fails = check(json!({ "kind": "tcp", "port": 9999 }));
    set_health(&gateway, &json!({ "check": fails }));
    for name in ["b1", "b2"] {
        wait(&gateway, name, "unhealthy");
    }
    poll_until("both, though unhealthy", SOON, || {
        names(&gateway, VIP4) == ["b1", "b2"]
    })
    .unwrap();
    poll_until("the status to say so", SOON, || {
        let status = gateway.agent.call("GET", "/v1/x/status", None).unwrap();
        status.to_string().contains("all_unhealthy") && status.to_string().contains("fail_open")
    })
    .unwrap();
    set_health(
        &gateway,
        &json!({ "check": fails, "when_all_unhealthy": "fail_closed" }),
    );
    let refused = |gateway: &Gateway| gateway.spread(Transport::Udp, VIP4, 1).is_err();
    poll_until("nobody answers", SOON, || refused(&gateway)).unwrap();
    assert!(gateway.agent.outcome("drop_no_backend").unwrap() > 0);
    // Carried over a restart: nothing is written before the first results.
    let before = gateway.agent.vips().unwrap();
    gateway.agent.kill().unwrap();
    gateway.agent.launch().unwrap();
    let after = gateway.agent.vips().unwrap();
    let slots = |vips: &[lbagent_api::status::TableVip]| -> Vec<Vec<u32>> {
        let backends = |vip: &lbagent_api::status::TableVip| {
            vip.backends.iter().map(|backend| backend.slots).collect()
        };
        vips.iter().map(backends).collect()
    };
    assert_eq!(slots(&before), slots(&after));
    assert!(
        states(&gateway, "b1")
            .iter()
            .all(|(state, _)| state == "unhealthy")
    );
    assert!(refused(&gateway));
}

#[test]
fn a_recovered_server_gets_its_share_step_by_step() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let probed: Vec<Probed> = gateway
        .topology
        .backends
        .iter()
        .map(|backend| Probed::start(&backend.ns))
        .collect();
    let http = patient_check(json!({ "kind": "http", "port": CHECK_PORT }));
    // A step takes two seconds: a look at the table comes often enough to see each of them.
    set_health(&gateway, &json!({ "check": http, "slow_start_ms": 10_000 }));
    wait(&gateway, "b1", "healthy");
    probed[0].set(WRONG);
    wait(&gateway, "b1", "unhealthy");
    let slots = || {
        let vips = gateway.agent.vips().unwrap();
        let vip = vips.iter().find(|vip| vip.ip == VIP4).unwrap();
        vip.backends
            .iter()
            .find(|backend| backend.name == "b1")
            .unwrap()
            .slots
    };
    poll_until("no slots", SOON, || slots() == 0).unwrap();
    probed[0].set(RIGHT);
    let mut seen = vec![0];
    poll_until("an even share", SOON, || {
        let now = slots();
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        now >= 254
    })
    .unwrap();
    // 20, 40, 60, 80 of 100 against 100, of 509 slots.
    assert_eq!(seen.len(), 6, "{seen:?}");
    for (found, exact) in seen[1..].iter().zip([84.8, 145.4, 190.9, 226.2, 254.5]) {
        assert!((f64::from(*found) - exact).abs() <= 1.0, "{seen:?}");
    }
}

#[test]
fn connections_of_a_failed_server_are_cut_if_asked_for() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let probed: Vec<Probed> = gateway
        .topology
        .backends
        .iter()
        .map(|backend| Probed::start(&backend.ns))
        .collect();
    let http = patient_check(json!({ "kind": "http", "port": CHECK_PORT }));
    set_health(&gateway, &json!({ "check": http, "on_failure": "cut" }));
    let to = SocketAddr::new(VIP4, PORT);
    let mut connection = Connection::open(&gateway.topology.client, to).unwrap();
    connection.command("echo").unwrap();
    let number = usize::from(connection.greeting.name == "b2");
    let name = connection.greeting.name.clone();
    wait(&gateway, &name, "healthy");
    // A failure within the fall changes nothing.
    connection.echo("before").unwrap();
    probed[number].set(WRONG);
    wait(&gateway, &name, "unhealthy");
    poll_until("the connection to be cut", SOON, || {
        connection.echo("after").is_err()
    })
    .unwrap();
    gateway.probe().unwrap();
}
