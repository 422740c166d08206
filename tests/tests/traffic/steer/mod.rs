//! Connections to ports with handlers: from the client through XDP and the socket lookup to a listening
//! socket that is bound elsewhere.

mod snapshots;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lbagent_api::terminator::{Fault, FaultyObject};
use lbagent_tests::agent::CONFIG_PATH;
use lbagent_tests::ctl;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::kernel::listeners;
use lbagent_tests::poll::{SOON, poll_for, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::terminator::{Arrival, FakeTerminator, arrive};
use lbagent_tests::topology::{Shape, VIP4, VIP6, VIPS};
use serde_json::{Value, json};

/// A port with the handlers that it may have.
fn tls(port: u16) -> Value {
    let handlers: &[&str] = match port {
        443 => &["tls", "http"],
        _ => &["tls"],
    };
    json!({ "port": port, "destination_port": 8080, "handlers": handlers })
}

/// A gateway that drops packets for ports that nobody published, with group `web` on port 443.
fn gateway(configure: impl FnOnce(&mut lbagent_tests::agent::Config)) -> Gateway {
    let gateway = Gateway::start_with(Shape::Routed, 1, |config| {
        config.unpublished_ports = Some("drop");
        configure(config);
    });
    let gateway = gateway.unwrap();
    gateway.create_service("web", &json!([tls(443)])).unwrap();
    gateway
}

fn dial(gateway: &Gateway, vip: IpAddr, port: u16) -> anyhow::Result<Arrival> {
    let to = SocketAddr::new(vip, port);
    gateway.topology.client.run(|| arrive(to))
}

/// Waits until a terminator of this name takes connections to both VIPs.
#[track_caller]
fn wait_for(gateway: &Gateway, name: &str) {
    for vip in VIPS {
        let arrived = || dial(gateway, vip, 443).is_ok_and(|arrival| arrival.name == name);
        poll_until(&format!("{name} at {vip}"), SOON, arrived).unwrap();
    }
}

fn is_reset(gateway: &Gateway, vip: IpAddr) -> bool {
    let error = dial(gateway, vip, 443).err();
    let error = error.as_ref().and_then(|error| error.downcast_ref());
    error.is_some_and(|error: &std::io::Error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Waits until clients get a reset at both VIPs.
#[track_caller]
fn wait_for_reset(gateway: &Gateway) {
    for vip in VIPS {
        let what = format!("a reset at {vip}");
        poll_until(&what, Duration::from_secs(30), || is_reset(gateway, vip)).unwrap();
    }
}

fn steering(gateway: &Gateway, end: &str) -> u64 {
    let data = gateway.agent.call("GET", "/v1/x/counters", None).unwrap();
    data["counters"]["steering"][end].as_u64().unwrap()
}

fn has_condition(gateway: &Gateway, reason: &str) -> bool {
    let reasons = gateway.agent.condition_reasons().unwrap();
    reasons.iter().any(|found| found == reason)
}

/// Waits until the status says that nobody takes connections, or does not say it any more: connections
/// are steered first, and the status follows with the next pass.
#[track_caller]
fn wait_for_no_terminator(gateway: &Gateway, is_told: bool) {
    let what = format!("no_terminator: {is_told}");
    let holds = || has_condition(gateway, "no_terminator") == is_told;
    poll_until(&what, SOON, holds).unwrap();
}

#[test]
fn ten_thousand_pairs_need_no_bind_and_see_the_client() {
    /// By two VIPs: 10,000 pairs.
    const GROUPS: u16 = 50;
    const PORTS: u16 = 100;
    require_root!();
    let gateway = gateway(|config| {
        config.limits.insert("vips", 16_384);
    });
    let groups: Vec<Value> = (0..GROUPS)
        .map(|group| {
            let first = 10_000 + group * PORTS;
            let services: Vec<Value> = (first..first + PORTS).map(tls).collect();
            json!({ "name": format!("group-{group}"), "services": services })
        })
        .collect();
    gateway
        .agent
        .call("POST", "/v1/services", Some(&Value::Array(groups)))
        .unwrap();
    let _terminator = FakeTerminator::start(&gateway.topology.gateway, "one").unwrap();
    wait_for(&gateway, "one");
    wait_for_no_terminator(&gateway, false);
    let last = 10_000 + GROUPS * PORTS - 1;
    let reached = || dial(&gateway, VIP4, last).is_ok();
    poll_until("the last pair", SOON, reached).unwrap();
    let before = steering(&gateway, "to_terminator");
    // Every pair once: none is a stand-in for the others.
    let dialled = gateway.topology.client.run(|| {
        let mut dialled = 0_u64;
        for vip in VIPS {
            for port in 10_000..=last {
                let to = SocketAddr::new(vip, port);
                let arrival = arrive(to).unwrap_or_else(|error| panic!("{to}: {error:#}"));
                assert_eq!((arrival.local, arrival.peer), (to, arrival.client));
                dialled += 1;
            }
        }
        dialled
    });
    assert_eq!(dialled, 10_000);
    assert!(steering(&gateway, "to_terminator") - before >= dialled);
    // Beside the published ports nothing answers, though unpublished ones are dropped.
    assert!(gateway.agent.outcome("pass_terminate").unwrap() >= 2 * dialled);
    let sockets = listeners(&gateway.topology.gateway.net).len();
    assert!(sockets <= 4, "{sockets} listening sockets for 10,000 pairs");
}

#[test]
fn without_a_terminator_clients_meet_the_policy() {
    require_root!();
    let reset = gateway(|_| {});
    for vip in VIPS {
        assert!(is_reset(&reset, vip), "{vip}");
    }
    wait_for_no_terminator(&reset, true);
    assert!(steering(&reset, "missed_reset") >= 2);

    let pass = gateway(|config| drop(config.terminator.insert("missing", "pass".into())));
    // A program that is bound to the port on the host gets what is left to it.
    let bound = pass
        .topology
        .gateway
        .run(|| std::net::TcpListener::bind((VIP4, 443)));
    let bound = bound.unwrap();
    let to = SocketAddr::new(VIP4, 443);
    let client = &pass.topology.client;
    let connected =
        client.run(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5)));
    let (_, peer) = bound.accept().unwrap();
    assert_eq!(peer, connected.unwrap().local_addr().unwrap());
    assert!(steering(&pass, "missed_passed") >= 1);
    assert_eq!(steering(&pass, "missed_reset"), 0);
}

#[test]
fn successors_under_load_lose_no_connection() {
    const SUCCESSORS: usize = 10;
    require_root!();
    let gateway = gateway(|_| {});
    let host = &gateway.topology.gateway;
    let first = FakeTerminator::start(host, "t0").unwrap();
    assert!(!first.was_given_sockets);
    wait_for(&gateway, "t0");
    let stop = AtomicBool::new(false);
    let served: Vec<usize> = std::thread::scope(|scope| {
        let load = |vip| {
            let (gateway, stop) = (&gateway, &stop);
            scope.spawn(move || {
                let to = SocketAddr::new(vip, 443);
                gateway.topology.client.run(|| {
                    let mut served = 0;
                    while !stop.load(Ordering::Relaxed) {
                        arrive(to).unwrap_or_else(|error| {
                            panic!("after {served} connections to {to}: {error:#}")
                        });
                        served += 1;
                    }
                    served
                })
            })
        };
        let loads: Vec<_> = VIPS.into_iter().map(load).collect();
        let mut former = first;
        for round in 1..=SUCCESSORS {
            let next = FakeTerminator::start(host, &format!("t{round}")).unwrap();
            assert!(next.was_given_sockets, "round {round}");
            poll_until("the predecessor to drain", SOON, || former.was_drained()).unwrap();
            former.end();
            wait_for(&gateway, &format!("t{round}"));
            former = next;
        }
        // Killed: what waits in the sockets is the successor's, which comes a moment later.
        former.end();
        let last = FakeTerminator::start(host, "last").unwrap();
        assert!(last.was_given_sockets);
        wait_for(&gateway, "last");
        stop.store(true, Ordering::Relaxed);
        let served = loads.into_iter().map(|load| load.join().unwrap()).collect();
        last.end();
        served
    });
    assert!(served.iter().all(|served| *served > 50), "{served:?}");
    // Nobody comes for the last one's sockets.
    wait_for_reset(&gateway);
    wait_for_no_terminator(&gateway, true);
}

#[test]
fn another_program_serves_the_same_ports() {
    require_root!();
    let mut gateway = gateway(|_| {});
    let host = gateway.topology.gateway.clone();
    let mut python = host.command("python3");
    let port = "8099";
    python.args(["-m", "http.server", "--bind", "::", port]);
    python
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut python = python.spawn().unwrap();
    let pid = python.id().to_string();
    let register = ["terminator", "register", "--port", port, "--pid", &pid];
    let registered = || ctl::run(&host, &register).unwrap().code == 0;
    poll_until("the program to listen", SOON, registered).unwrap();
    let twice = ctl::run(&host, &register).unwrap();
    assert!(
        twice.code != 0 && twice.stderr.contains("registered already"),
        "{twice:?}"
    );
    // Python listens for both families on one socket.
    let answers = |gateway: &Gateway, vip| {
        let to = SocketAddr::new(vip, 443);
        gateway.topology.client.run(|| {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
            stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.0 200"))
        })
    };
    for vip in VIPS {
        assert!(answers(&gateway, vip).unwrap(), "{vip}");
    }
    assert!(
        ctl::succeed(&host, &["terminator", "ls"])
            .unwrap()
            .contains("active")
    );

    // It goes on without the agent, and is known again to the next one.
    gateway.agent.kill().unwrap();
    assert!(answers(&gateway, VIP4).unwrap(), "without an agent");
    gateway.agent.launch().unwrap();
    let known = || {
        let list = ctl::succeed(&host, &["terminator", "ls"]).unwrap();
        list.contains(&pid) && list.contains("active")
    };
    poll_until("the program to be known again", SOON, known).unwrap();
    assert!(answers(&gateway, VIP6).unwrap(), "after a restart");

    python.kill().unwrap();
    python.wait().unwrap();
    let is_gone = || {
        !ctl::succeed(&host, &["terminator", "ls"])
            .unwrap()
            .contains(&pid)
    };
    poll_until("the program to be forgotten", SOON, is_gone).unwrap();
    wait_for_reset(&gateway);
    for (arguments, expected) in [
        (["--pid", "999999", "--port", "80"], "no process 999999"),
        (
            ["--pid", "1", "--port", "9"],
            "has no listening TCP socket on port 9",
        ),
    ] {
        let refused = ctl::run(
            &host,
            &[&["terminator", "register"], &arguments[..]].concat(),
        );
        let refused = refused.unwrap();
        assert!(
            refused.code != 0 && refused.stderr.contains(expected),
            "{refused:?}"
        );
    }
}

#[test]
fn the_agent_may_go_and_detach_takes_all_away() {
    require_root!();
    let mut gateway = gateway(|_| {});
    let host = gateway.topology.gateway.clone();
    let one = FakeTerminator::start(&host, "one").unwrap();
    wait_for(&gateway, "one");
    gateway.agent.kill().unwrap();
    for vip in VIPS {
        assert_eq!(
            dial(&gateway, vip, 443).unwrap().name,
            "one",
            "without an agent"
        );
    }
    gateway.agent.launch().unwrap();
    assert_eq!(
        dial(&gateway, VIP4, 443).unwrap().name,
        "one",
        "after a restart"
    );
    // It does not come back, unlike lbterm: the agent lets go of it.
    wait_for_reset(&gateway);
    let two = FakeTerminator::start(&host, "two").unwrap();
    assert!(!two.was_given_sockets);
    wait_for(&gateway, "two");

    let drained = ctl::succeed(&host, &["terminator", "drain", "1"]).unwrap();
    assert!(drained.contains("is draining"), "{drained}");
    poll_until("it to hear of that", SOON, || two.was_drained()).unwrap();
    wait_for_reset(&gateway);
    let unknown = ctl::run(&host, &["terminator", "drain", "9"]).unwrap();
    assert!(
        unknown.code != 0 && unknown.stderr.contains("no terminator 9"),
        "{unknown:?}"
    );

    let three = FakeTerminator::start(&host, "three").unwrap();
    wait_for(&gateway, "three");
    gateway.agent.terminate().unwrap();
    assert_eq!(dial(&gateway, VIP4, 443).unwrap().name, "three");
    let detached = gateway
        .agent
        .run(&["detach", "--config", CONFIG_PATH])
        .unwrap();
    assert_eq!(detached.code, 0, "{detached:?}");
    assert!(detached.stdout.contains("link steer"), "{detached:?}");
    // The address is gone with the rest; with it put back, nothing steers any more.
    let lookup = host.run(|| std::net::TcpStream::connect("127.0.0.1:443"));
    assert_eq!(lookup.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    [one, two, three].into_iter().for_each(FakeTerminator::end);
}
