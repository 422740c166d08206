//! Policies of service groups and instances, by `lbctl` and in raw HTTP.

use std::net::SocketAddr;

use lbagent_tests::client::{Connection, Transport};
use lbagent_tests::ctl;
use lbagent_tests::gateway::{Gateway, PORT};
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4};
use serde_json::{Value, json};

#[track_caller]
fn lbctl(gateway: &Gateway, line: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    ctl::succeed(&gateway.topology.gateway, &arguments).unwrap()
}

/// A mistake: this code and one line with these words.
#[track_caller]
fn check_mistake(gateway: &Gateway, line: &str, code: i32, words: &[&str]) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let ended = ctl::run(&gateway.topology.gateway, &arguments).unwrap();
    assert_eq!(ended.code, code, "lbctl {line}: {}", ended.stderr);
    assert_eq!(
        ended.stderr.trim_end().lines().count(),
        1,
        "{}",
        ended.stderr
    );
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "lbctl {line}: no {word:?} in {}",
            ended.stderr
        );
    }
}

#[track_caller]
fn policy(gateway: &Gateway, path: &str) -> Value {
    gateway.agent.call("GET", path, None).unwrap()["policy"].clone()
}

/// New connections that each backend gets out of 200.
fn shares(gateway: &Gateway) -> [usize; 2] {
    let spread = gateway.spread(Transport::Tcp, VIP4, 200).unwrap();
    ["b1", "b2"].map(|name| spread.get(name).copied().unwrap_or(0))
}

#[test]
fn weights_share_new_connections_and_leave_old_ones() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 2).unwrap();
    let vip = SocketAddr::new(VIP4, PORT);
    let mut held: Vec<Connection> = (0..20)
        .map(|_| Connection::open(&gateway.topology.client, vip).unwrap())
        .collect();
    for connection in &mut held {
        connection.command("echo").unwrap();
    }
    assert!(
        held.iter()
            .any(|connection| connection.greeting.name == "b1")
    );
    // A flow's port decides its slot: of so many connections some go to either backend.
    lbctl(&gateway, "instance policy b1 --weight 300");
    let [b1, b2] = shares(&gateway);
    // Three quarters of 200, give or take five standard deviations.
    assert!((120..=180).contains(&b1), "{b1} of {}", b1 + b2);
    let shown = lbctl(&gateway, "show -n");
    let row = shown
        .lines()
        .find(|line| line.contains("10.66.0.11"))
        .unwrap();
    assert_eq!(row.split_whitespace().nth(3), Some("300"), "{shown}");

    lbctl(&gateway, "instance policy b1 --weight 0");
    assert_eq!(shares(&gateway), [0, 200]);
    for (index, connection) in held.iter_mut().enumerate() {
        connection.echo(&format!("still here {index}")).unwrap();
    }
    assert!(lbctl(&gateway, "instance get b1").contains("weight:"));
    assert!(!lbctl(&gateway, "instance get b2").contains("weight:"));

    lbctl(&gateway, "instance policy b2 --weight 0");
    let status = lbctl(&gateway, "status");
    assert!(status.contains("a weight above 0"), "{status}");
}

#[test]
fn a_groups_policy_survives_a_restart_and_travels_in_documents() {
    require_root!();
    let mut gateway = Gateway::start(Shape::Routed, 1).unwrap();
    lbctl(&gateway, "service create --name dns 53:53/udp 53:53/tcp");
    lbctl(
        &gateway,
        "service policy dns --forwarding-mode dsr-ipip --allow 192.0.2.0/24,2001:db8::/32 \
         --deny 192.0.2.128/25 --quic-server-id-length 8 --quic-config-rotation 2",
    );
    lbctl(
        &gateway,
        "instance create --name a --service dns --ip 10.66.0.11",
    );
    lbctl(
        &gateway,
        "instance policy a --quic-server-id 0a0b0c0d01020304",
    );
    let expected = json!({
        "forwarding_mode": "dsr-ipip",
        "sources": {"allow": ["192.0.2.0/24", "2001:db8::/32"], "deny": ["192.0.2.128/25"]},
        "quic": {"server_id_length": 8, "config_rotation": 2},
    });
    let path = "/v1/x/service-groups/dns/policy";
    assert_eq!(policy(&gateway, path), expected);
    let shown = lbctl(&gateway, "service get dns");
    for row in [
        "forwarding mode:  dsr-ipip",
        "192.0.2.128/25",
        "server id length 8",
    ] {
        assert!(shown.contains(row), "no {row} in\n{shown}");
    }
    let document = lbctl(&gateway, "state export");
    gateway.agent.terminate().unwrap();
    gateway.agent.launch().unwrap();
    assert_eq!(policy(&gateway, path), expected);

    lbctl(
        &gateway,
        "service policy dns --forwarding-mode nat --clear-sources --no-quic",
    );
    lbctl(&gateway, "instance policy a --no-quic-server-id");
    let document: Value = serde_json::from_str(&document).unwrap();
    gateway
        .agent
        .call("PUT", "/v1/x/state", Some(&document))
        .unwrap();
    assert_eq!(policy(&gateway, path), expected);
    let instance = policy(&gateway, "/v1/x/instances/a/policy");
    assert_eq!(instance["quic_server_id"], "0a0b0c0d01020304");
}

#[test]
fn mistakes_about_policies_get_one_line_that_helps() {
    require_root!();
    let gateway = Gateway::publish(Shape::Bridged, 1).unwrap();
    // `web` publishes port 5432 as the servers' port 7000.
    for mode in ["dsr-l2", "dsr-ipip", "dsr-gue"] {
        let line = format!("service policy web --forwarding-mode {mode}");
        let words = ["'web'", "5432", "7000", mode, "use the forwarding mode nat"];
        check_mistake(&gateway, &line, 1, &words);
    }
    check_mistake(&gateway, "service policy wbe", 1, &["did you mean 'web'?"]);
    check_mistake(
        &gateway,
        "service policy web --allow 192.0.2.1/24",
        2,
        &["192.0.2.0/24"],
    );
    check_mistake(&gateway, "instance policy b1 --weight 1001", 2, &["1000"]);
    lbctl(&gateway, "service policy web --quic-server-id-length 2");
    check_mistake(
        &gateway,
        "instance policy b1 --quic-server-id 01",
        1,
        &["'b1'", "'web'", "length of 2"],
    );
    let path = "/v1/x/service-groups/web/policy";
    let before = policy(&gateway, path);
    let wrong = json!({"policy": {"sources": {"allow": ["10.0.0.0/8"], "deny": ["10.0.0.0/8"]}}});
    let response = gateway.agent.request("PUT", path, Some(&wrong)).unwrap();
    assert_eq!(response.status, 400);
    let message = response.json().unwrap()["message"].to_string();
    assert!(message.contains("in both 'allow' and 'deny'"), "{message}");
    assert_eq!(policy(&gateway, path), before);
}
