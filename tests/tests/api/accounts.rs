//! Accounts, tokens and roles, on a daemon with its default listeners.

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

/// Every way to name a service group or an instance; `*` is its UUID or its name.
const BY_UUID: &[(&str, &str, &str)] = &[
    ("GET", "/v1/services/*", ""),
    ("GET", "/v1/services?uuid=*", ""),
    ("GET", "/v1/services", r#"[{"uuid":"*"}]"#),
    ("GET", "/v1/services/list?uuid=*", ""),
    (
        "PATCH",
        "/v1/services/*",
        r#"{"prop":"soft_limit","op":"set","value":2}"#,
    ),
    ("DELETE", "/v1/services/*", ""),
    ("DELETE", "/v1/services", r#"[{"uuid":"*"}]"#),
    (
        "POST",
        "/v1/instances",
        r#"{"name":"spy","network_interfaces":[{"ip":"10.66.0.12/32"}],"service_group":{"uuid":"*"}}"#,
    ),
    ("GET", "/v1/instances/*", ""),
    ("GET", "/v1/instances?uuid=*", ""),
    ("DELETE", "/v1/instances/*", ""),
    ("DELETE", "/v1/instances", r#"[{"uuid":"*"}]"#),
    ("PUT", "/v1/instances/*/stop", ""),
    ("PUT", "/v1/instances/*/start", ""),
    ("PUT", "/v1/instances/stop", r#"[{"uuid":"*"}]"#),
    ("PUT", "/v1/instances/start", r#"[{"uuid":"*"}]"#),
    ("GET", "/v1/users/*/quotas", ""),
    ("GET", "/v1/certificates/*", ""),
    ("GET", "/v1/certificates?uuid=*", ""),
    ("GET", "/v1/certificates", r#"[{"uuid":"*"}]"#),
    ("DELETE", "/v1/certificates/*", ""),
    ("DELETE", "/v1/certificates", r#"[{"uuid":"*"}]"#),
    ("PUT", "/v1/certificates/*", ROTATION),
    ("POST", "/v1/services", NAMES_CERTIFICATE),
    ("GET", "/v1/x/events?account=*", ""),
];
/// Chain and key are put in below.
const ROTATION: &str = r#"{"chain":"CHAIN","pkey":"PKEY"}"#;
const NAMES_CERTIFICATE: &str = r#"{"name":"spy","services":[{"port":1,"protocol":"tcp"}],
    "domains":[{"name":"hidden.example.com.","certificate":{"uuid":"*"}}]}"#;
const BY_WORD: &[(&str, &str, &str)] = &[
    ("GET", "/v1/services?name=*", ""),
    ("GET", "/v1/services", r#"[{"name":"*"}]"#),
    ("DELETE", "/v1/services", r#"[{"name":"*"}]"#),
    (
        "POST",
        "/v1/instances",
        r#"{"name":"spy","network_interfaces":[{"ip":"10.66.0.12/32"}],"service_group":{"name":"*"}}"#,
    ),
    ("GET", "/v1/instances?name=*", ""),
    ("DELETE", "/v1/instances", r#"[{"name":"*"}]"#),
    ("PUT", "/v1/instances/stop", r#"[{"name":"*"}]"#),
    ("PUT", "/v1/instances/start", r#"[{"name":"*"}]"#),
    ("GET", "/v1/x/service-groups/*/policy", ""),
    ("PUT", "/v1/x/service-groups/*/policy", r#"{"policy":{}}"#),
    ("GET", "/v1/x/instances/*/policy", ""),
    (
        "PUT",
        "/v1/x/instances/*/policy",
        r#"{"policy":{"weight":0}}"#,
    ),
    ("GET", "/v1/certificates?name=*", ""),
    ("DELETE", "/v1/certificates", r#"[{"name":"*"}]"#),
    (
        "PUT",
        "/v1/certificates",
        r#"{"name":"*","chain":"CHAIN","pkey":"PKEY"}"#,
    ),
    (
        "POST",
        "/v1/services",
        r#"{"name":"spy","services":[{"port":1,"protocol":"tcp"}],
            "domains":[{"name":"hidden.example.com.","certificate":{"name":"*"}}]}"#,
    ),
];

/// A certificate in the form of a request.
fn certificate(name: &str) -> Value {
    let made = rcgen::generate_simple_self_signed(vec!["hidden.example.com".to_owned()]).unwrap();
    json!({"name": name, "common_name": "hidden.example.com", "chain": made.cert.pem(),
           "pkey": made.signing_key.serialize_pem()})
}

#[test]
fn an_object_of_another_account_answers_as_one_that_does_not_exist() {
    require_root!();
    let gateway = Strict::start(|_, _| {});
    let account = gateway.ctl(&["account", "create", "a"]);
    gateway.ctl(&["account", "create", "b"]);
    let a_uuid = account["uuid"].as_str().unwrap().to_owned();
    let (a, _) = gateway.token(&["--for", "a"]);
    let (b, _) = gateway.token(&["--for", "b"]);
    let group = gateway.done(&a, "POST", "/v1/services", service("secret", 5432));
    let new = json!({"name": "secret", "autostart": true,
        "network_interfaces": [{"ip": "10.66.0.11/32"}], "service_group": {"name": "secret"}});
    let instance = gateway.done(&a, "POST", "/v1/instances", new);
    let uuid = |data: &Value, kind: &str| data[kind][0]["uuid"].as_str().unwrap().to_owned();
    let stored = gateway.done(&a, "POST", "/v1/certificates", certificate("secret"));
    let stored = uuid(&stored, "certificates");
    let (group, instance) = (uuid(&group, "service_groups"), uuid(&instance, "instances"));
    let seen = |token: &str| {
        [
            "/v1/services",
            "/v1/instances",
            "/v1/certificates",
            "/v1/x/service-groups/secret/policy",
        ]
        .map(|path| {
            let mut answer = gateway.call(token, "GET", path, None).json().unwrap();
            answer.as_object_mut().unwrap().remove("op_time_us");
            answer
        })
    };
    let before = seen(&a);
    let other = certificate("other");
    let ask = |(method, path, body): (&str, &str, &str), word: &str| {
        let mut body = body.replace('*', word);
        for (place, member) in [("CHAIN", "chain"), ("PKEY", "pkey")] {
            let text = other[member].to_string();
            body = body.replace(place, text.trim_matches('"'));
        }
        let body = (!body.is_empty()).then(|| serde_json::from_str(&body).unwrap());
        let answer = gateway.call(&b, method, &path.replace('*', word), body);
        let mut json = answer.json().unwrap();
        json.as_object_mut().unwrap().remove("op_time_us");
        (answer.status, json.to_string().replace(word, "*"))
    };
    let unknown = "0dead000-0000-4000-8000-00000000dead";
    for &request in BY_UUID {
        let expected = ask(request, unknown);
        for theirs in [&group, &instance, &stored, &a_uuid] {
            assert_eq!(ask(request, theirs), expected, "{request:?}");
        }
    }
    for &request in BY_WORD {
        let expected = ask(request, "nobody");
        assert_eq!(ask(request, "secret"), expected, "{request:?}");
        let expected = ask(request, unknown);
        assert_eq!(ask(request, &group), expected, "{request:?}");
        assert_eq!(ask(request, &instance), expected, "{request:?}");
        assert_eq!(ask(request, &stored), expected, "{request:?}");
    }
    assert_eq!(seen(&a), before, "nothing of theirs has changed");
    for (path, kind) in [
        ("/v1/services", "service_groups"),
        ("/v1/instances", "instances"),
        ("/v1/certificates", "certificates"),
    ] {
        let listing = gateway.call(&b, "GET", path, None).json().unwrap();
        assert_eq!(listing["data"][kind], json!([]), "{path}");
    }
    // What both cannot have is refused without a word about who has it.
    let taken = gateway.call(&b, "POST", "/v1/services", Some(service("mine", 5432)));
    assert!(
        taken.body.contains("is in use") && !taken.body.contains("secret"),
        "{}",
        taken.body
    );
    let new = json!({"name": "mine", "network_interfaces": [{"ip": "10.66.0.11/32"}]});
    let taken = gateway.call(&b, "POST", "/v1/instances", Some(new));
    assert!(
        taken.body.contains("is in use") && !taken.body.contains("secret"),
        "{}",
        taken.body
    );
    // An operator sees either, by the account that it names.
    let as_account = |account| {
        gateway
            .ctl(&["--account", account, "service", "ls"])
            .to_string()
    };
    assert!(as_account("a").contains("secret") && !as_account("b").contains("secret"));
    let ended = ctl::run(&gateway.topology.gateway, &["account", "rm", "a"]).unwrap();
    assert!(
        ended.code == 1 && ended.stderr.contains("1 service groups"),
        "{ended:?}"
    );
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

/// `lbctl account ls` as another user.
fn as_user(gateway: &Strict, user: &str, group: &str) -> Ended {
    let mut command: Command = gateway.topology.gateway.command("setpriv");
    command
        .args(["--reuid", user, "--regid", group, "--clear-groups"])
        .arg(binary("LBCTL_BIN", "lbctl"))
        .args(["account", "ls"])
        // The other user's, who has no profiles.
        .env("HOME", "/nonexistent");
    Ended::of(&mut command).unwrap()
}

#[test]
fn the_unix_socket_is_for_root_and_its_group() {
    require_root!();
    let alone = Strict::start(|_, _| {});
    let ended = as_user(&alone, "65534", "65534");
    assert!(
        ended.code != 0 && ended.stderr.contains("ermission denied"),
        "{ended:?}"
    );
    // Wrong permissions on the socket open nothing.
    alone.topology.gateway.run(|| {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions("/run/lbagent/api.sock", open).unwrap();
    });
    let ended = as_user(&alone, "65534", "65534");
    assert!(
        ended.code == 1 && ended.stderr.contains("User 65534 may not"),
        "{ended:?}"
    );
    drop(alone);
    let shared = Strict::start(|_, config| {
        config.api.insert("unix_socket_group", "nogroup".into());
    });
    let ended = as_user(&shared, "65533", "65534");
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = as_user(&shared, "65533", "65533");
    assert!(ended.code != 0, "{ended:?}");
}

#[test]
fn tls_proves_the_agent_and_its_certificate_can_be_replaced() {
    require_root!();
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write("/run/api.crt", made.cert.pem()).unwrap();
        std::fs::write("/run/api.key", made.signing_key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let secret = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions("/run/api.key", secret).unwrap();
    };
    let gateway = Strict::start(|topology, config| {
        topology.gateway.run(write);
        config.api.insert("tls_certificate", "/run/api.crt".into());
        config.api.insert("tls_key", "/run/api.key".into());
    });
    let (token, _) = gateway.token(&["--role", "operator"]);
    let host = &gateway.topology.gateway;
    let ask = |ca: &str| {
        let endpoint = ["--endpoint", "https://127.0.0.1:7480", "--ca-file", ca];
        let rest = ["--token", &token, "service", "ls"];
        ctl::run(host, &[&endpoint[..], &rest[..]].concat()).unwrap()
    };
    assert_eq!(ask("/run/api.crt").code, 0, "{:?}", ask("/run/api.crt"));
    host.run(|| std::fs::copy("/run/api.crt", "/run/former.crt"))
        .unwrap();
    let plain = Request {
        method: "GET",
        path: "/v1/services",
        token: Some(&token),
        body: None,
    };
    assert!(
        gateway.agent.send(&plain).is_err(),
        "plain HTTP is not served"
    );
    host.run(write);
    let hang_up = || {
        let pid = i32::try_from(gateway.agent.pid().unwrap()).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGHUP,
        )
    };
    hang_up().unwrap();
    poll_until("the new certificate", SOON, || {
        ask("/run/api.crt").code == 0
    })
    .unwrap();
    let former = ask("/run/former.crt");
    assert!(
        former.code == 3 && former.stderr.contains("certificate"),
        "{former:?}"
    );
    // Files that cannot be used change nothing.
    host.run(|| std::fs::write("/run/api.key", "nonsense"))
        .unwrap();
    hang_up().unwrap();
    poll_until("the refusal", SOON, || {
        let log = gateway.agent.log().unwrap();
        log.contains("goes on with its former certificate")
    })
    .unwrap();
    assert_eq!(ask("/run/api.crt").code, 0);
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
