//! PATCH, shared ports, domains, autokill, filters, dialects, waiting, in process.

mod domains;
mod terminated;

use serde_json::json;

use super::*;

fn https() -> Value {
    json!({"port": 443, "destination_port": 8080, "handlers": ["tls", "http"]})
}

fn raw(port: u16) -> Value {
    json!({"port": port, "protocol": "tcp"})
}

async fn make(server: &Server, name: &str, services: Value) -> Value {
    let body = json!({"name": name, "services": services});
    server.item("POST /v1/services", body).await
}

/// Sends operations on group `a`; returns its services' ports and limits afterwards.
async fn patched(server: &Server, operations: Value) -> (Value, Value) {
    let (status, answer) = server
        .call("PATCH /v1/services", operations.to_string())
        .await;
    assert_eq!(status, 200, "{answer}");
    let group = server.item("GET /v1/services?name=a", json!([])).await;
    (answer, group)
}

fn op(id: &str, op: &str, prop: &str, value: Value) -> Value {
    json!({"name": "a", "id": id, "prop": prop, "op": op, "value": value})
}

#[tokio::test]
async fn operations_on_a_group_are_judged_by_their_end_state() {
    let server = Server::start();
    make(&server, "a", json!([https()])).await;
    // 443 cannot be there twice, and a group cannot be without services, on the way: both are.
    let operations = json!([
        op("1", "del", "services", json!([{"port": 443}])),
        op(
            "2",
            "add",
            "services",
            json!([{"port": 443, "destination_port": 9090, "handlers": ["tls", "http"]}])
        ),
        op("3", "set", "hard_limit", json!(10)),
        op("4", "set", "soft_limit", json!(10)),
        op("5", "set", "autokill", json!({"time_ms": 60_000})),
        op("6", "set", "domains", json!([{"name": "one"}])),
        op("7", "add", "domains", json!([{"name": "two.example.com."}])),
    ]);
    let (answer, group) = patched(&server, operations).await;
    let items = answer["data"]["service_groups"].as_array().unwrap();
    let ids: Vec<_> = items
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7"]);
    assert!(
        items
            .iter()
            .all(|item| item["name"] == "a" && item["status"] == "success")
    );
    assert_eq!(group["services"][0]["destination_port"], 9090);
    assert_eq!(
        (&group["soft_limit"], &group["hard_limit"]),
        (&json!(10), &json!(10))
    );
    assert_eq!(group["autokill"], json!({"time_ms": 60_000}));
    let fqdns = json!([{"fqdn": "one.lb.internal"}, {"fqdn": "two.example.com"}]);
    assert_eq!(group["domains"], fqdns);
    assert_eq!(group["fqdn"], "one.lb.internal");

    let (_, group) = patched(
        &server,
        json!([
            op("1", "set", "autokill", Value::Null),
            op("2", "set", "hard_limit", Value::Null),
            op("3", "del", "domains", json!([{"name": "two.example.com."}])),
        ]),
    )
    .await;
    assert_eq!(group.get("autokill"), None);
    assert_eq!(group["hard_limit"], 65535);
    assert_eq!(group["domains"], json!([{"fqdn": "one.lb.internal"}]));
    // What was given up is free.
    let again = json!({"services": [raw(1)], "domains": [{"name": "two.example.com."}]});
    server.item("POST /v1/services", again).await;
}

#[tokio::test]
async fn an_invalid_end_state_changes_nothing_of_its_group_and_all_of_the_others() {
    let server = Server::start();
    let a = make(&server, "a", json!([raw(1), raw(2)])).await;
    make(&server, "b", json!([raw(3)])).await;
    for (operations, code, message) in [
        (
            json!([op("1", "set", "services", Value::Null)]),
            7,
            "At least one service is required",
        ),
        (
            json!([op("1", "add", "services", json!([raw(1)]))]),
            23,
            "published twice",
        ),
        (
            json!([op("1", "add", "services", json!([raw(3)]))]),
            23,
            "published by service group 'b'",
        ),
        (
            json!([op("1", "del", "services", json!([{"port": 9}]))]),
            7,
            "does not publish port 9",
        ),
        (
            json!([op("1", "del", "domains", json!([{"name": "x"}]))]),
            7,
            "has no domain 'x.lb.internal'",
        ),
        (
            json!([
                op("1", "set", "hard_limit", json!(5)),
                op("2", "set", "soft_limit", json!(6))
            ]),
            7,
            "must not exceed",
        ),
        (
            json!([
                op("1", "set", "hard_limit", json!(5)),
                op("2", "del", "services", json!([{"port": 9}]))
            ]),
            7,
            "does not publish port 9",
        ),
    ] {
        let (answer, group) = patched(&server, operations.clone()).await;
        assert_eq!(answer["status"], "error", "{answer}");
        let items = answer["data"]["service_groups"].as_array().unwrap();
        for item in items {
            assert_eq!(item["error"], code, "{operations}: {answer}");
            let text = item["message"].as_str().unwrap();
            assert!(text.contains(message), "{operations}: {answer}");
        }
        assert_eq!(items[0]["id"], "1");
        assert_eq!(group, a, "{operations}");
    }
    let both = json!([
        op("1", "set", "services", Value::Null),
        {"name": "b", "prop": "hard_limit", "op": "set", "value": 9},
        {"name": "c", "prop": "hard_limit", "op": "set", "value": 9},
    ]);
    let (answer, _) = patched(&server, both).await;
    assert_eq!(answer["status"], "partial_success", "{answer}");
    let items = &answer["data"]["service_groups"];
    assert_eq!(
        (&items[0]["error"], &items[2]["error"]),
        (&json!(7), &json!(8)),
        "{answer}"
    );
    let b = server.item("GET /v1/services?name=b", json!([])).await;
    assert_eq!(b["hard_limit"], 9);
}

#[tokio::test]
async fn a_forwarding_mode_that_keeps_ports_holds_for_the_end_state() {
    let server = Server::start();
    make(&server, "a", json!([raw(1)])).await;
    let policy = json!({"policy": {"forwarding_mode": "dsr-ipip"}});
    let (status, answer) = server
        .call("PUT /v1/x/service-groups/a/policy", policy.to_string())
        .await;
    assert_eq!(status, 200, "{answer}");
    let rewritten = json!([{"port": 2, "destination_port": 3, "protocol": "tcp"}]);
    let (answer, _) = patched(&server, json!(op("1", "add", "services", rewritten))).await;
    let item = &answer["data"]["service_groups"][0];
    assert_eq!(item["error"], 24, "{answer}");
}

#[tokio::test]
async fn patches_that_break_a_rule_are_refused_as_a_whole() {
    let server = Server::start();
    let patch = "PATCH /v1/services";
    server
        .refuses(patch, "[]", 400, "one operation at least")
        .await;
    server
        .refuses(
            patch,
            r#"{"prop":"services","op":"set"}"#,
            400,
            "Missing member 'uuid' or 'name'",
        )
        .await;
    server
        .refuses(
            patch,
            r#"{"name":"a","prop":"x","op":"set"}"#,
            400,
            "Invalid value 'x' in 'prop'",
        )
        .await;
    server
        .refuses(
            patch,
            r#"{"name":"a","prop":"soft_limit","op":"set","value":0}"#,
            400,
            "Value of 'soft_limit' must be in the range 1 to 65535",
        )
        .await;
    server
        .refuses(
            patch,
            r#"{"name":"a","prop":"domains","op":"add","value":[{"name":"www"}]}"#,
            400,
            "Domain name 'www' is reserved",
        )
        .await;
    server
        .refuses(
            "PATCH /v1/services/00000000-0000-4000-8000-000000000001",
            r#"{"name":"a","prop":"domains","op":"set"}"#,
            400,
            "not allowed here",
        )
        .await;
}

#[tokio::test]
async fn groups_are_filtered_by_persistence_and_domain() {
    let server = Server::start();
    let a = make(&server, "a", json!([raw(1)])).await;
    let implicit = json!({"name": "i", "service_group": {"services": [raw(2)]},
                          "network_interfaces": [{"ip": "10.0.0.1"}]});
    let made = server.item("POST /v1/instances", implicit).await;
    let b = made["service_group"]["name"].as_str().unwrap();
    let fqdn = a["fqdn"].as_str().unwrap();
    let by_query = format!("GET /v1/services/list?fqdn={fqdn}");
    let neither = format!("GET /v1/services/list?fqdn={fqdn}&persistent=false");
    for (request, body, expected) in [
        (
            "GET /v1/services/list?persistent=true",
            json!([]),
            vec!["a"],
        ),
        (
            "GET /v1/services/list",
            json!({"persistent": false}),
            vec![b],
        ),
        (&by_query, json!([]), vec!["a"]),
        (
            "GET /v1/services/list",
            json!({"fqdn": format!("{fqdn}.")}),
            vec!["a"],
        ),
        (&neither, json!([]), vec![]),
        (
            "GET /v1/services/list?fqdn=nobody.example.com",
            json!([]),
            vec![],
        ),
    ] {
        let items = server.items(request, body).await;
        let names: Vec<_> = items
            .iter()
            .map(|item| item["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{request}");
    }
}

#[tokio::test]
async fn an_empty_group_goes_after_its_time_unless_an_instance_comes() {
    let server = Server::start();
    let spec = |name: &str, port: u16| json!({"name": name, "services": [raw(port)], "autokill": {"time_ms": 1000}});
    server.item("POST /v1/services", spec("a", 1)).await;
    server.item("POST /v1/services", spec("b", 2)).await;
    let instance = json!({"name": "i", "service_group": {"name": "b"},
                          "network_interfaces": [{"ip": "10.0.0.1"}]});
    server.item("POST /v1/instances", instance).await;
    let groups: Vec<_> = server
        .desired
        .current()
        .service_groups
        .keys()
        .copied()
        .collect();
    let later = OffsetDateTime::now_utc() + Duration::from_secs(2);
    let expire = |when| server.desired.expire_groups(&groups, when).unwrap().outcome;
    assert_eq!(expire(later - Duration::from_secs(2)), 0, "too early");
    assert_eq!(expire(later), 1, "a was empty, b was not");
    let left = server.items("GET /v1/services", json!([])).await;
    assert_eq!(left[0]["name"], "b");
    server
        .item("DELETE /v1/instances", json!({"name": "i"}))
        .await;
    assert_eq!(expire(later + Duration::from_secs(2)), 1, "b became empty");
}

#[tokio::test]
async fn the_words_of_2024() {
    let server = Server::start();
    let mut made = server
        .item_2024("POST /v1/services", json!({"services": [https()]}))
        .await;
    let (uuid, name) = (made["uuid"].clone(), made["name"].clone());
    let fqdn = format!("{}.lb.internal", name.as_str().unwrap());
    assert_eq!(
        made,
        json!({"status": "success", "uuid": uuid, "name": name, "fqdn": fqdn})
    );
    made = server
        .item_2024("GET /v1/services", json!({"uuid": uuid}))
        .await;
    made.as_object_mut().unwrap().remove("created_at").unwrap();
    assert_eq!(
        made,
        json!({"status": "success", "uuid": uuid, "name": name, "fqdn": fqdn,
        "instances": [], "persistent": true, "autoscale": false,
        "services": [{"port": 443, "destination_port": 8080, "handlers": ["tls", "http"]}]})
    );
    made = server
        .item_2024("GET /v1/services/list", json!({"fqdn": fqdn}))
        .await;
    assert_eq!(made, json!({"uuid": uuid, "name": name}));
}

#[tokio::test]
async fn waiting_ends_with_the_state_or_with_the_time() {
    let server = Server::start();
    let instance =
        json!({"name": "i", "network_interfaces": [{"ip": "10.0.0.1"}], "autostart": true});
    server.item("POST /v1/instances", instance).await;
    let waited = server
        .item("GET /v1/instances/wait", json!([{"name": "i"}]))
        .await;
    assert_eq!(waited["state"], "running");
    let (status, answer) = server
        .call(
            "PUT /v1/instances/wait?state=stopped&timeout_s=0&name=i",
            "",
        )
        .await;
    let item = &answer["data"]["instances"][0];
    assert_eq!(
        (status, &item["error"], &item["state"]),
        (200, &json!(12), &json!("running")),
        "{answer}"
    );
    assert!(
        answer["message"].as_str().unwrap().contains("timed out"),
        "{answer}"
    );
    let body = json!([{"name": "i", "state": "standby", "timeout_s": 30}]);
    let wait = server.item("GET /v1/instances/wait", body);
    let suspend = server.item("PUT /v1/instances/suspend", json!([{"name": "i"}]));
    let (waited, suspended) = tokio::join!(wait, suspend);
    assert_eq!(
        (&waited["state"], &suspended["previous_state"]),
        (&json!("standby"), &json!("running"))
    );
    server
        .fails(
            "GET /v1/instances/wait",
            json!([{"name": "nope"}]),
            8,
            "No instance",
        )
        .await;
}

#[tokio::test]
async fn instances_keep_tags_and_are_found_by_them() {
    let server = Server::start();
    for (name, host, tags) in [("i", 1, json!(["x", "y"])), ("j", 2, json!(["x"]))] {
        let body = json!({"name": name, "tags": tags, "annotations": {"k": "v"},
                          "network_interfaces": [{"ip": format!("10.0.0.{host}")}]});
        server.item("POST /v1/instances", body).await;
    }
    let found = server.items("GET /v1/instances?tags=x,y", json!([])).await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["name"], &found[0]["annotations"]),
        (&json!("i"), &json!({"k": "v"}))
    );
    let (_, answer) = server.call_as_json("GET /v1/instances/metrics").await;
    assert_eq!(answer["data"]["instances"][1]["ntotal"], 0, "{answer}");
}
