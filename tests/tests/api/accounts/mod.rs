//! Accounts, tokens and roles, on a daemon with its default listeners.

mod isolation;
mod listeners;

use std::process::Command;

use lbagent_tests::agent::{Agent, Config, Ended, START, binary};
use lbagent_tests::http::{Request, Response};
use lbagent_tests::poll::{SOON, poll_until, retry};
use lbagent_tests::topology::{Shape, Topology};
use lbagent_tests::{ctl, require_root};
use serde_json::{Value, json};

/// A daemon that lets nobody in over TCP without a token.
struct Strict {
    agent: Agent,
    topology: Topology,
}

impl Strict {
    fn start(configure: impl FnOnce(&Topology, &mut Config)) -> Self {
        let topology = Topology::build(Shape::Routed, 1).unwrap();
        let mut config = Config::new(&topology);
        config.api.clear();
        configure(&topology, &mut config);
        let mut agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
        agent.spawn().unwrap();
        retry("the Unix socket", START, || {
            ctl::succeed(&topology.gateway, &["account", "ls"])
        })
        .unwrap();
        Self { agent, topology }
    }

    /// `lbctl` as root, by the Unix socket.
    fn ctl(&self, arguments: &[&str]) -> Value {
        let json = [arguments, &["-o", "json"]].concat();
        let printed = ctl::succeed(&self.topology.gateway, &json).unwrap();
        serde_json::from_str(&printed).unwrap()
    }

    fn token(&self, arguments: &[&str]) -> (String, String) {
        let made = self.ctl(&[&["token", "create"], arguments].concat());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["secret"]), text(&made["token"]["uuid"]))
    }

    fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Response {
        let request = Request {
            method,
            path,
            token: Some(token),
            body: body.map(|body| body.to_string()),
        };
        self.agent.send(&request).unwrap()
    }

    fn done(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(token, method, path, Some(body));
        let json = answer.json().unwrap();
        assert_eq!(json["status"], "success", "{method} {path}: {json}");
        json["data"].clone()
    }
}

fn service(name: &str, port: u16) -> Value {
    let service = json!({"port": port, "protocol": "tcp", "handlers": []});
    json!({"name": name, "services": [service]})
}

#[test]
fn roles_expiry_and_revocation_hold_at_once() {
    require_root!();
    let gateway = Strict::start(|_, _| {});
    gateway.ctl(&["account", "create", "a"]);
    let (member, member_id) = gateway.token(&["--for", "a", "--label", "ci"]);
    let (reader, _) = gateway.token(&["--for", "a", "--role", "reader"]);
    let (operator, _) = gateway.token(&["--role", "operator"]);
    let (brief, _) = gateway.token(&["--for", "a", "--expires", "1s"]);
    let status =
        |token: &str, method, path| gateway.call(token, method, path, Some(json!({}))).status;
    gateway.done(&member, "POST", "/v1/services", service("web", 5432));
    for (method, path) in [
        ("POST", "/v1/services"),
        ("DELETE", "/v1/services"),
        ("PATCH", "/v1/services"),
        ("POST", "/v1/instances"),
        ("PUT", "/v1/instances/stop"),
        ("PUT", "/v1/x/service-groups/web/policy"),
        ("PUT", "/v1/no/such/path"),
    ] {
        let refused = gateway.call(&reader, method, path, Some(json!({})));
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.body);
        assert_eq!(refused.json().unwrap()["errors"][0]["status"], 403);
        let told = refused.body.contains("use one with role 'member'");
        assert!(told, "{}", refused.body);
    }
    assert_eq!(
        gateway.call(&reader, "GET", "/v1/services", None).status,
        200
    );
    for path in [
        "status",
        "table",
        "counters",
        "trace",
        "monitor",
        "state",
        "state?private_keys=true",
        "accounts",
        "tokens",
    ] {
        let path = format!("/v1/x/{path}");
        for token in [&member, &reader] {
            assert_eq!(
                gateway.call(token, "GET", &path, None).status,
                403,
                "{path}"
            );
        }
    }
    assert_eq!(
        gateway.call(&operator, "GET", "/v1/x/status", None).status,
        200
    );
    // Metrics are for everybody, those of the gateway for operators.
    for (token, is_operator) in [(&reader, false), (&operator, true)] {
        let answer = gateway.call(token, "GET", "/v1/x/metrics", None);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let has_packets = answer.body.contains("lbagent_packets_total{");
        assert_eq!(has_packets, is_operator, "{}", answer.body);
        assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    }
    for (method, path) in [
        ("PUT", "/v1/x/state"),
        ("POST", "/v1/x/tokens"),
        ("POST", "/v1/x/accounts"),
    ] {
        assert_eq!(status(&member, method, path), 403, "{path}");
    }
    poll_until("the token to expire", SOON, || {
        gateway.call(&brief, "GET", "/v1/services", None).status == 401
    })
    .unwrap();
    gateway.ctl(&["token", "revoke", &member_id]);
    let refused = gateway.call(&member, "GET", "/v1/services", None);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json().unwrap()["errors"][0]["status"], 401);
    let log = gateway.agent.log().unwrap();
    assert!(
        log.contains("refused a request without a good token"),
        "{log}"
    );
    for secret in [&member, &reader, &operator, &brief] {
        assert!(!log.contains(secret.as_str()), "a token is in the log");
    }
    let status = gateway.call(&operator, "GET", "/v1/x/status", None);
    let refused = &status.json().unwrap()["data"]["status"]["agent"]["refused_requests"];
    assert!(refused.as_u64() >= Some(2), "{refused}");
}

#[test]
fn quotas_are_enforced_and_told() {
    require_root!();
    let gateway = Strict::start(|_, _| {});
    gateway.ctl(&["account", "create", "a", "--service-groups", "5"]);
    let (token, _) = gateway.token(&["--for", "a"]);
    let create = |port: u16| {
        let new = service(&format!("g{port}"), port);
        gateway
            .call(&token, "POST", "/v1/services", Some(new))
            .json()
            .unwrap()
    };
    for port in 1..=4 {
        assert_eq!(create(port)["status"], "success");
    }
    let fifth = create(5);
    let item = &fifth["data"]["service_groups"][0];
    assert_eq!(
        (fifth["status"].as_str(), &item["error"]),
        (Some("error"), &json!(19)),
        "{fifth}"
    );
    gateway.ctl(&["account", "quota", "a", "--raw-ports", "none"]);
    assert_eq!(create(5)["status"], "success");
    assert_eq!(create(6)["data"]["service_groups"][0]["error"], 19);
    let told = gateway
        .call(&token, "GET", "/v1/users/quotas", None)
        .json()
        .unwrap();
    let quotas = &told["data"]["quotas"][0];
    assert_eq!(
        (
            &quotas["used"]["service_groups"],
            &quotas["hard"]["service_groups"]
        ),
        (&json!(5), &json!(5))
    );
    assert_eq!(
        (&quotas["used"]["services"], &quotas["hard"]["services"]),
        (&json!(5), &json!(253))
    );
    let path = format!("/v1/users/{}/quotas", quotas["uuid"].as_str().unwrap());
    let by_uuid = gateway.call(&token, "GET", &path, None).json().unwrap();
    assert_eq!(by_uuid["data"], told["data"]);
}

#[test]
fn the_log_tells_who_changed_what_and_no_secret() {
    require_root!();
    let strict = Strict::start(|_, _| {});
    strict.ctl(&["account", "create", "shop"]);
    let (secret, uuid) = strict.token(&["--for", "shop", "--label", "ci"]);
    strict.done(&secret, "POST", "/v1/services", service("web", 8080));
    let log = strict.agent.log().unwrap();
    let changes: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("changed the desired state"))
        .collect();
    let [.., token_made, group_made] = changes[..] else {
        panic!("{log}");
    };
    assert!(
        token_made.contains("by=uid 0 ") && token_made.contains("account=\"default\""),
        "{token_made}"
    );
    let by = format!("by=token {uuid} \"ci\" ");
    assert!(
        group_made.contains(&by) && group_made.contains("account=\"shop\""),
        "{group_made}"
    );
    let generation = strict.ctl(&["status"])["generation_desired"].to_string();
    let generation = format!("generation={generation}");
    assert!(group_made.contains(&generation), "{group_made}");
    assert!(!log.contains(&secret), "{log}");
}
