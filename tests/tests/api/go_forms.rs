//! The requests of the Go clients as raw HTTP: selectors in the body of a GET, single objects where
//! others send arrays, and what they reject: a status other than 200, a second key in `data`, items
//! that are null.

use lbagent_tests::gateway::{Gateway, service};
use lbagent_tests::require_root;
use lbagent_tests::topology::Shape;
use serde_json::{Value, json};

/// Sends a request; returns the items of its answer as a Go client would take them.
#[track_caller]
fn items(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Vec<Value> {
    let body = (!body.is_null()).then_some(body);
    let response = gateway.agent.request(method, path, body).unwrap();
    assert_eq!(response.status, 200, "{method} {path}: {}", response.body);
    let answer = response.json().unwrap();
    let data = answer["data"].as_object().unwrap();
    assert_eq!(data.len(), 1, "{method} {path}: {answer}");
    let items = data.values().next().unwrap().as_array().unwrap();
    assert!(
        items.iter().all(Value::is_object),
        "{method} {path}: {answer}"
    );
    items.clone()
}

#[test]
fn the_requests_of_the_go_clients() {
    require_root!();
    let gateway = Gateway::start(Shape::Routed, 1).unwrap();
    let create = json!({ "name": "web", "services": [service(5432, 7000, "tcp")] });
    let made = items(&gateway, "POST", "/v1/services", &create);
    let uuid = made[0]["uuid"].clone();

    for body in [
        json!([{ "uuid": uuid }]),
        json!([{ "name": "web" }]),
        json!({ "name": "web" }),
    ] {
        let found = items(&gateway, "GET", "/v1/services", &body);
        assert_eq!(found[0]["uuid"], uuid, "{body}");
    }
    assert_eq!(
        items(&gateway, "GET", "/v1/services", &Value::Null).len(),
        1
    );
    let missing = items(
        &gateway,
        "GET",
        "/v1/services",
        &json!([{ "name": "nope" }]),
    );
    assert_eq!(missing[0]["error"], 8);

    let one = json!({ "name": "web", "prop": "hard_limit", "op": "set", "value": 20 });
    let patched = items(&gateway, "PATCH", "/v1/services", &one);
    assert_eq!(
        (&patched[0]["status"], &patched[0]["uuid"]),
        (&json!("success"), &uuid)
    );
    let path = format!("/v1/services/{}", uuid.as_str().unwrap());
    let by_path = json!({ "id": "1", "prop": "soft_limit", "op": "set", "value": 20 });
    assert_eq!(items(&gateway, "PATCH", &path, &by_path)[0]["id"], "1");

    // "del 443 then add 443", in one request: traffic goes where the new one says.
    let moved = json!([
        { "name": "web", "prop": "services", "op": "del", "value": [{ "port": 5432 }] },
        { "name": "web", "prop": "services", "op": "add", "value": [service(5432, 7001, "tcp")] },
    ]);
    assert_eq!(items(&gateway, "PATCH", "/v1/services", &moved).len(), 2);
    let table = gateway.agent.call("GET", "/v1/x/table", None).unwrap();
    assert_eq!(
        table["table"]["groups"][0]["vips"][0]["destination_port"], 7001,
        "{table}"
    );

    let group = items(&gateway, "GET", "/v1/services", &json!([{ "name": "web" }]));
    assert_eq!(
        (&group[0]["soft_limit"], &group[0]["hard_limit"]),
        (&json!(20), &json!(20))
    );
    let deleted = items(
        &gateway,
        "DELETE",
        "/v1/services",
        &json!({ "name": "web" }),
    );
    assert_eq!(
        deleted[0],
        json!({ "status": "success", "uuid": uuid, "name": "web" })
    );
}

#[test]
fn an_empty_group_goes_by_itself_also_after_a_restart() {
    require_root!();
    let mut gateway = Gateway::start(Shape::Routed, 1).unwrap();
    let spec = json!({ "name": "web", "services": [service(5432, 7000, "tcp")],
                       "autokill": { "time_ms": 1500 } });
    items(&gateway, "POST", "/v1/services", &spec);
    gateway.agent.kill().unwrap();
    gateway.agent.launch().unwrap();
    let is_gone = || items(&gateway, "GET", "/v1/services", &Value::Null).is_empty();
    lbagent_tests::poll::poll_until("the group to go", lbagent_tests::poll::SOON, is_gone).unwrap();
}
