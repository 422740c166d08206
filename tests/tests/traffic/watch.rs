//! `lbctl trace` and `lbctl monitor` on traffic that really flows.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use aya::maps::{Array, Map, MapData};
use lbagent_common::{Settings, limits};
use lbagent_tests::agent::BPFFS_DIR;
use lbagent_tests::client::Connection;
use lbagent_tests::ctl;
use lbagent_tests::gateway::{Gateway, PORT, SERVER_PORT};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4, VIP6};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The settings entry, from its pin.
fn settings(gateway: &Gateway) -> Settings {
    gateway.topology.gateway.run(|| {
        let directory = PathBuf::from(BPFFS_DIR).join(format!("v{}", lbagent_common::ABI_VERSION));
        let pin = directory.join("maps").join(limits::SETTINGS);
        let map = Map::Array(MapData::from_pin(pin).unwrap());
        let map: Array<MapData, Settings> = map.try_into().unwrap();
        map.get(&0, 0).unwrap()
    })
}

#[track_caller]
fn wait_for_sampling(gateway: &Gateway, is_on: bool) {
    poll_until("the sampling to change", SOON, || {
        (settings(gateway).sample_shift != 0) == is_on
    })
    .unwrap();
}

fn connect(gateway: &Gateway, vip: std::net::IpAddr) -> Connection {
    let to = SocketAddr::new(vip, PORT);
    let mut connection = Connection::open(&gateway.topology.client, to).unwrap();
    connection.command("echo").unwrap();
    connection
}

#[test]
fn a_trace_names_the_backend_that_a_connection_has() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 3).unwrap();
    let host = &gateway.topology.gateway;
    for (index, vip) in [VIP4, VIP6, VIP4, VIP6].into_iter().enumerate() {
        let mut connection = connect(&gateway, vip);
        if index == 2 {
            // From here on the slots of one backend are changed.
            gateway
                .stop("b1", std::time::Duration::from_secs(60))
                .unwrap();
        }
        connection.echo("still there").unwrap();
        let (from, to) = (connection.local, SocketAddr::new(vip, PORT));
        let arguments = ["trace", "tcp", &from.to_string(), &to.to_string()];
        let json = ctl::succeed(host, &[&arguments[..], &["-o", "json"]].concat()).unwrap();
        let trace: Value = serde_json::from_str(&json).unwrap();
        let chosen = trace["choice"]["instance"]["name"].as_str().unwrap();
        assert_eq!(chosen, connection.greeting.name, "{json}");
        assert_eq!(trace["verdict"], "forwarded", "{json}");
        let text = ctl::succeed(host, &arguments).unwrap();
        for word in ["service group 'web'", chosen, &format!(":{SERVER_PORT}")] {
            assert!(text.contains(word), "no {word} in\n{text}");
        }
    }
    let nobodys = ["trace", "tcp", "203.0.113.7:4000", "192.0.2.10:9"];
    let text = ctl::succeed(host, &nobodys).unwrap();
    assert!(text.contains("pass_not_vip"), "{text}");
    for (wrong, code) in [
        (["trace", "sctp", "203.0.113.7:4000", "192.0.2.10:9"], 2),
        (["trace", "tcp", "203.0.113.7", "192.0.2.10:9"], 2),
        (["trace", "tcp", "203.0.113.7:4000", "[2001:db8::1]:9"], 2),
    ] {
        let ended = ctl::run(host, &wrong).unwrap();
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{ended:?}");
    }
}

#[test]
fn a_monitor_shows_packets_and_leaves_nothing_on() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 2).unwrap();
    let host = &gateway.topology.gateway;
    assert_eq!(settings(&gateway).sample_shift, 0);
    let mut command = ctl::command(
        host,
        &[
            "monitor", "--sample", "1", "--group", "web", "--count", "20", "-o", "json",
        ],
    );
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_sampling(&gateway, true);
    let mut connection = connect(&gateway, VIP4);
    for _ in 0..10 {
        connection.echo("a packet, and one back").unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    let client = connection.local;
    let events: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 20, "{told}");
    let mut returned = 0;
    for event in &events {
        assert_eq!(event["service_group"], "web", "{event}");
        assert_eq!(event["instance"], connection.greeting.name, "{event}");
        assert_eq!(event["protocol"], "tcp", "{event}");
        assert!(event["bytes"].as_u64().unwrap() >= 54, "{event}");
        let ports = if event["outcome"].as_str().unwrap().starts_with("return") {
            returned += 1;
            ("destination", "source_port", SERVER_PORT)
        } else {
            ("source", "destination_port", PORT)
        };
        assert_eq!(event[ports.0], client.ip().to_string(), "{event}");
        assert_eq!(event[format!("{}_port", ports.0)], client.port(), "{event}");
        assert_eq!(event[ports.1], ports.2, "{event}");
    }
    assert!((1..20).contains(&returned), "{told}");
    wait_for_sampling(&gateway, false);
    assert_eq!(settings(&gateway).sample_outcomes, 0);
}

#[test]
fn sampling_ends_with_ctrl_c_and_with_the_agent() {
    require_root!();
    let mut gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let watch = |gateway: &Gateway| {
        let arguments = ["monitor", "--sample", "1", "--outcome", "drop"];
        let mut command = ctl::command(&gateway.topology.gateway, &arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut child = watch(&gateway);
    wait_for_sampling(&gateway, true);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    wait_for_sampling(&gateway, false);

    let mut child = watch(&gateway);
    wait_for_sampling(&gateway, true);
    // A stream without end must not keep the agent either.
    gateway.agent.terminate().unwrap();
    assert_eq!(settings(&gateway).sample_shift, 0);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(3), "the agent went away");
    gateway.agent.launch().unwrap();

    let mut child = watch(&gateway);
    wait_for_sampling(&gateway, true);
    gateway.agent.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(
        settings(&gateway).sample_shift,
        0,
        "nobody was left to end it"
    );
    gateway.agent.launch().unwrap();
    wait_for_sampling(&gateway, false);
    gateway.probe().unwrap();
}

#[test]
fn mistakes_are_told() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    for (arguments, code, word) in [
        (&["monitor", "--group", "nope"][..], 1, "nope"),
        (&["monitor", "--outcome", "dorp"], 1, "dorp"),
        (&["monitor", "--sample", "0"], 2, "1/N"),
        (
            &[
                "trace",
                "tcp",
                "1.2.3.4:5",
                "1.2.3.4:5",
                "--interface",
                "be1",
            ],
            1,
            "cl0",
        ),
    ] {
        let ended = ctl::run(&gateway.topology.gateway, arguments).unwrap();
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
}
