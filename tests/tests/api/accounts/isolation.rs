//! No account learns of another one's objects.

use super::*;

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
