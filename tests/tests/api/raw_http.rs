//! The contract, request by request, as the documents and the legacy clients write them.

use lbagent_tests::agent::Agent;
use lbagent_tests::gateway::{Gateway, service};
use lbagent_tests::http::Response;
use lbagent_tests::require_root;
use lbagent_tests::topology::Shape;
use serde_json::{Value, json};

fn start() -> Gateway {
    Gateway::start(Shape::Routed, 1).unwrap()
}

#[track_caller]
fn send(agent: &Agent, method: &str, path: &str, body: Value) -> (Response, Value) {
    let body = (!body.is_null()).then_some(&body);
    let response = agent.request(method, path, body).unwrap();
    assert_eq!(
        response.header("content-type"),
        Some("application/json"),
        "{response:?}"
    );
    let json = response.json().unwrap();
    (response, json)
}

/// One request that fails as a whole: nothing is applied.
#[track_caller]
fn check_refused(agent: &Agent, method: &str, path: &str, body: Value, message: &str) {
    let (response, json) = send(agent, method, path, body);
    assert_eq!(response.status, 400, "{json}");
    assert_eq!(json["status"], "error", "{json}");
    assert_eq!(json["errors"][0]["status"], 400, "{json}");
    let found = json["message"].as_str().unwrap_or_default();
    assert!(found.contains(message), "{message:?} is missing in {json}");
}

/// One item that fails in an answer of status 200.
#[track_caller]
fn check_item(agent: &Agent, method: &str, path: &str, body: Value, code: u64, message: &str) {
    let (response, json) = send(agent, method, path, body);
    assert_eq!(
        (response.status, &json["status"]),
        (200, &json!("error")),
        "{json}"
    );
    let (_, items) = json["data"]
        .as_object()
        .and_then(|data| data.iter().next())
        .unwrap();
    let item = &items[0];
    assert_eq!(
        (&item["status"], &item["error"]),
        (&json!("error"), &json!(code)),
        "{json}"
    );
    let found = item["message"].as_str().unwrap_or_default();
    assert!(found.contains(message), "{message:?} is missing in {json}");
}

#[track_caller]
fn create(agent: &Agent, name: &str, port: u16) -> Value {
    let body = json!({ "name": name, "services": [service(port, port, "tcp")] });
    agent.call("POST", "/v1/services", Some(&body)).unwrap()["service_groups"][0].clone()
}

#[test]
fn a_service_group_lives_and_dies() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    let created = create(agent, "web", 5432);
    let uuid = created["uuid"].as_str().unwrap();
    for path in [
        "/v1/services".to_owned(),
        "/v1/services?name=web".to_owned(),
        format!("/v1/services?uuid={uuid}&details=true"),
        format!("/v1/services/{uuid}"),
    ] {
        let data = agent.call("GET", &path, None).unwrap();
        let groups = data["service_groups"].as_array().unwrap();
        assert_eq!(
            data.as_object().unwrap().len(),
            1,
            "one key in data: {data}"
        );
        assert_eq!(groups.len(), 1, "{path}: {data}");
        assert_eq!(groups[0]["uuid"], created["uuid"], "{path}");
        assert_eq!(groups[0]["persistent"], true, "{path}");
        let expected = json!({ "port": 5432, "destination_port": 5432 });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&groups[0]["services"][0][key], value, "{path}: {data}");
        }
    }
    // Selectors in the body of a GET, as the first clients send them.
    for body in [json!([{ "name": "web" }]), json!({ "uuid": uuid })] {
        let data = agent.call("GET", "/v1/services", Some(&body)).unwrap();
        assert_eq!(data["service_groups"][0]["name"], "web", "{body}");
    }
    agent
        .call("DELETE", "/v1/services", Some(&json!([{ "name": "web" }])))
        .unwrap();
    let data = agent.call("GET", "/v1/services", None).unwrap();
    assert_eq!(data["service_groups"], json!([]));
}

#[test]
fn an_instance_lives_and_dies() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    create(agent, "web", 5432);
    let body = lbagent_tests::gateway::instance("one", "web", &["10.66.0.11".parse().unwrap()]);
    agent.call("POST", "/v1/instances", Some(&body)).unwrap();
    let uuid = gateway.uuid("one").unwrap();
    let read = || {
        let data = agent
            .call("GET", &format!("/v1/instances/{uuid}"), None)
            .unwrap();
        data["instances"][0].clone()
    };
    assert_eq!(
        (&read()["state"], &read()["private_ip"]),
        (&json!("running"), &json!("10.66.0.11"))
    );
    assert_eq!(read()["service_group"]["name"], "web");
    let attached = agent.call("GET", "/v1/services?name=web", None).unwrap();
    assert_eq!(
        attached["service_groups"][0]["instances"],
        json!([{ "uuid": uuid, "name": "one" }])
    );
    check_item(
        agent,
        "DELETE",
        "/v1/services",
        json!([{ "name": "web" }]),
        15,
        "web",
    );

    let stop = format!("/v1/instances/{uuid}/stop");
    let drain = json!({ "drain_timeout_ms": 60_000 });
    let data = agent.call("PUT", &stop, Some(&drain)).unwrap();
    assert_eq!(data["instances"][0]["state"], "draining", "{data}");
    assert_eq!(data["instances"][0]["previous_state"], "running", "{data}");
    agent
        .call("PUT", &format!("/v1/instances/{uuid}/start"), None)
        .unwrap();
    assert_eq!(read()["state"], "running");
    agent.call("PUT", &stop, None).unwrap();
    assert_eq!(read()["state"], "stopped");
    agent
        .call("DELETE", &format!("/v1/instances/{uuid}"), None)
        .unwrap();
    check_item(
        agent,
        "GET",
        &format!("/v1/instances/{uuid}"),
        Value::Null,
        8,
        &uuid,
    );
    agent
        .call("DELETE", "/v1/services", Some(&json!([{ "name": "web" }])))
        .unwrap();
}

#[test]
fn mistakes_are_answered_in_the_words_of_the_contract() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    create(agent, "web", 5432);
    let nowhere = "00000000-0000-4000-8000-000000000000";
    check_item(
        agent,
        "GET",
        "/v1/services?name=nope",
        Value::Null,
        8,
        "No service group with name 'nope'",
    );
    check_item(
        agent,
        "GET",
        &format!("/v1/services/{nowhere}"),
        Value::Null,
        8,
        nowhere,
    );
    check_item(
        agent,
        "DELETE",
        "/v1/services",
        json!([{ "name": "nope" }]),
        8,
        "'nope'",
    );
    check_refused(
        agent,
        "GET",
        "/v1/services/not-a-uuid",
        Value::Null,
        "not-a-uuid",
    );
}

#[test]
fn a_request_that_is_refused_applies_nothing() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    let post = |body: Value, message: &str| {
        check_refused(agent, "POST", "/v1/services", body, message);
    };
    post(json!({ "nmae": "x" }), "Unknown member 'nmae'");
    post(json!({ "services": [] }), "service");
    post(
        json!({ "services": [service(0, 80, "tcp")] }),
        "Value of 'port' in service port description must be in the range 1 to 65535",
    );
    post(
        json!({ "name": "bad..name", "services": [service(90, 90, "tcp")] }),
        "Invalid name 'bad..name'",
    );
    // Without a protocol the port rules apply.
    post(
        json!({ "services": [{ "port": 443, "handlers": ["tls"] }] }),
        "443",
    );
    post(
        json!({ "services": [{ "port": 9000, "destination_port": 9000 }] }),
        "tls",
    );
    let data = agent.call("GET", "/v1/services", None).unwrap();
    assert_eq!(data["service_groups"], json!([]), "something was applied");
}

#[test]
fn a_batch_may_succeed_in_part() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    create(agent, "web", 5432);
    let body = json!([{ "name": "web" }, { "name": "nope" }]);
    let (response, json) = send(agent, "DELETE", "/v1/services", body);
    assert_eq!(
        (response.status, &json["status"]),
        (200, &json!("partial_success")),
        "{json}"
    );
    assert_eq!(
        json["data"]["service_groups"][0]["status"], "success",
        "{json}"
    );
    assert_eq!(json["data"]["service_groups"][1]["error"], 8, "{json}");
}

#[test]
fn taken_names_and_ports_are_refused() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    create(agent, "web", 5432);
    let refused = |name: &str, port: u16, word: &str| {
        let body = json!({ "name": name, "services": [service(port, port, "tcp")] });
        let (_, json) = send(agent, "POST", "/v1/services", body);
        assert_eq!(json["status"], "error", "{json}");
        assert!(
            json.to_string().contains(word),
            "{word:?} is missing in {json}"
        );
    };
    refused("web", 5433, "web");
    refused("other", 5432, "5432");
}

#[test]
fn pages_overlap_by_no_entry_and_lose_none() {
    require_root!();
    let gateway = start();
    let agent = &gateway.agent;
    let names: Vec<String> = (0..5).map(|number| format!("group-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        create(agent, name, 6000 + number as u16);
    }
    let mut seen = Vec::new();
    let mut from = String::new();
    loop {
        // The cursor is inclusive: it names the first entry of the page.
        let path = format!("/v1/services?count=2{from}");
        let data = agent.call("GET", &path, None).unwrap();
        let page = data["service_groups"].as_array().unwrap().clone();
        assert!(page.len() <= 2, "{path}: {data}");
        let skip = usize::from(!from.is_empty());
        let names = page
            .iter()
            .skip(skip)
            .map(|group| group["name"].as_str().unwrap().to_owned());
        seen.extend(names);
        if page.len() < 2 {
            break;
        }
        from = format!("&from={}", page[1]["uuid"].as_str().unwrap());
    }
    seen.sort();
    assert_eq!(seen, names);
}

#[test]
fn state_is_exported_and_imported_whole() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let agent = &gateway.agent;
    let exported = agent.call("GET", "/v1/x/state", None).unwrap()["state"].clone();
    gateway.delete_instance("b1").unwrap();
    agent
        .call("DELETE", "/v1/services", Some(&json!([{ "name": "web" }])))
        .unwrap();
    gateway.probe().unwrap_err();

    let mut broken = exported.clone();
    broken["instances"][0]["addresses"] = json!(["300.0.0.1/32"]);
    let (response, json) = send(agent, "PUT", "/v1/x/state", broken);
    assert_eq!(
        (response.status, &json["status"]),
        (400, &json!("error")),
        "{json}"
    );
    assert_eq!(
        agent.vips().unwrap(),
        [],
        "a broken document was applied in part"
    );

    agent.call("PUT", "/v1/x/state", Some(&exported)).unwrap();
    gateway.probe().unwrap();
}

#[test]
fn unknown_paths_and_methods_are_answered_in_the_envelope() {
    require_root!();
    let gateway = start();
    for (method, path, status) in [
        ("GET", "/v1/nowhere", 404),
        ("GET", "/", 404),
        ("PUT", "/v1/services", 405),
    ] {
        let (response, json) = send(&gateway.agent, method, path, Value::Null);
        assert_eq!(response.status, status, "{method} {path}: {json}");
        assert_eq!(json["status"], "error", "{method} {path}: {json}");
    }
}
