//! Instances join, leave and change service groups, by `lbctl` and in raw HTTP.

use lbagent_tests::agent::Ended;
use lbagent_tests::ctl;
use lbagent_tests::gateway::{Gateway, service};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::topology::Shape;
use serde_json::{Value, json};

const PATH: &str = "/v1/x/instances/b1/service-group";

fn run(gateway: &Gateway, line: &str) -> Ended {
    let arguments: Vec<&str> = line.split(' ').collect();
    ctl::run(&gateway.topology.gateway, &arguments).unwrap()
}

#[track_caller]
fn check_told(gateway: &Gateway, line: &str, told: &str) {
    let ended = run(gateway, line);
    assert_eq!(ended.code, 0, "{line}: {}", ended.stderr);
    assert!(ended.stdout.contains(told), "{line}: {}", ended.stdout);
}

#[track_caller]
fn check_mistake(gateway: &Gateway, line: &str, told: &str) {
    let ended = run(gateway, line);
    assert_eq!(ended.code, 1, "{line}: {}", ended.stdout);
    assert!(ended.stderr.contains(told), "{line}: {}", ended.stderr);
}

/// Name of the group that `b1` serves by the contract's answer.
fn group(gateway: &Gateway) -> Value {
    let data = gateway.agent.call("GET", "/v1/instances?name=b1", None);
    data.unwrap()["instances"][0]["service_group"]["name"].clone()
}

#[test]
fn instances_are_attached_moved_and_detached() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let other = json!([service(81, 81, "tcp")]);
    gateway.create_service("other", &other).unwrap();
    check_mistake(
        &gateway,
        "instance attach b1 othre",
        "did you mean 'other'?",
    );
    check_mistake(
        &gateway,
        "instance attach b2 other",
        "No instance with name 'b2'",
    );
    check_mistake(&gateway, "instance detach b2", "did you mean 'b1'?");
    assert_eq!(group(&gateway), "web");

    check_told(
        &gateway,
        "instance attach b1 other",
        "b1 serves service group other, running",
    );
    assert_eq!(group(&gateway), "other");
    check_told(
        &gateway,
        "instance detach b1",
        "b1 serves no service group, running",
    );
    assert_eq!(group(&gateway), Value::Null);
    check_told(
        &gateway,
        "instance attach b1 web",
        "b1 serves service group web, running",
    );

    // The same from the group's side, and several at once: each has its line.
    let ended = run(&gateway, "service attach other b1 b2 b3");
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(ended.stdout, "b1 serves service group other, running\n");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let missing = |name: &str| {
        format!(
            "lbctl: No instance with name '{name}'; did you mean 'b1'? `lbctl instance ls` lists \
             them all"
        )
    };
    assert_eq!(lines, [missing("b2"), missing("b3")]);
    assert_eq!(group(&gateway), "other");
    check_told(
        &gateway,
        "service detach b1",
        "b1 serves no service group, running",
    );
    check_told(
        &gateway,
        "service attach web b1",
        "b1 serves service group web, running",
    );

    // With a drain it leaves later, and says when.
    check_told(
        &gateway,
        "instance attach b1 other --drain 1h",
        "then other; draining",
    );
    let membership = gateway.agent.call("GET", PATH, None).unwrap()["membership"].clone();
    let leaving = (
        &membership["service_group"]["name"],
        &membership["leaving"]["to"]["name"],
    );
    assert_eq!(leaving, (&"web".into(), &"other".into()), "{membership}");
    let soon = json!({"service_group": {"name": "other"}, "drain_timeout_ms": 300});
    gateway.agent.call("PUT", PATH, Some(&soon)).unwrap();
    poll_until("b1 serves other", SOON, || group(&gateway) == "other").unwrap();
    let membership = gateway.agent.call("GET", PATH, None).unwrap()["membership"].clone();
    assert_eq!(membership["state"], "running", "{membership}");
    assert_eq!(membership.get("leaving"), None);
}

#[test]
fn requests_are_refused_whole() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let check = |body: Value, status: u16, text: &str| {
        let response = gateway.agent.request("PUT", PATH, Some(&body)).unwrap();
        let message = response.json().unwrap()["message"].to_string();
        assert_eq!(response.status, status, "{body}: {message}");
        assert!(message.contains(text), "{body}: {message}");
        assert_eq!(group(&gateway), "web");
    };
    check(json!({}), 400, "Missing member 'service_group'");
    check(
        json!({"service_group": {}}),
        400,
        "Missing member 'uuid' or 'name'",
    );
    check(json!({"service_group": "web"}), 400, "service_group");
    check(
        json!({"service_group": null, "drain": 1}),
        400,
        "Unknown member 'drain'",
    );
    let drain = json!({"service_group": null, "drain_timeout_ms": 3_600_001});
    check(drain, 400, "'drain_timeout_ms' must be");
    check(
        json!({"service_group": {"name": "no"}}),
        404,
        "No service group with name 'no'",
    );
    let new = json!({"name": "other", "services": [service(81, 81, "tcp")]});
    gateway
        .agent
        .call("POST", "/v1/services", Some(&new))
        .unwrap();
    let backend = &gateway.topology.backends[0];
    gateway.attach("twin", "other", &backend.addresses).unwrap();
    let taken = "belongs to instance 'twin' of service group 'other'";
    check(json!({"service_group": {"name": "other"}}), 409, taken);
}
