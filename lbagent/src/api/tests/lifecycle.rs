//! Instances come and go, and what that does to their groups and to the data plane.

use serde_json::json;

use super::*;

fn instance(name: &str, host: u8, group: Value) -> Value {
    json!({"name": name, "autostart": true, "service_group": group,
           "network_interfaces": [{"ip": format!("10.0.0.{host}/24")}]})
}

fn described() -> Value {
    json!({"services": [{"port": 53, "destination_port": 5353, "protocol": "udp"}]})
}

/// The backends that the data plane has for each VIP, as (name, state).
async fn backends(server: &Server) -> Vec<(String, String)> {
    let (_, answer) = server.call("GET /v1/x/table", "").await;
    let rows = &answer["data"]["table"]["groups"][0]["vips"][0]["backends"];
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.as_array()
        .into_iter()
        .flatten()
        .map(|row| (text(row, "name"), text(row, "state")))
        .collect()
}

fn named(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter()
        .map(|(name, state)| ((*name).to_owned(), (*state).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_change_has_taken_effect_when_its_call_returns() {
    let server = Server::start();
    server
        .item(
            "POST /v1/services",
            json!({"name": "db", "services": [{"port": 5432, "protocol": "tcp"}]}),
        )
        .await;
    let group = json!({"name": "db"});
    let a = server
        .item("POST /v1/instances", instance("a", 1, group.clone()))
        .await;
    assert_eq!(a["state"], "running");
    assert_eq!(a["private_ip"], "10.0.0.1");
    assert_eq!(a["service_group"]["name"], "db");
    server
        .item("POST /v1/instances", instance("b", 2, group))
        .await;
    assert_eq!(
        backends(&server).await,
        named(&[("a", "running"), ("b", "running")])
    );

    let uuid = a["uuid"].as_str().unwrap();
    let stopped = server
        .item(
            &format!("PUT /v1/instances/{uuid}/stop"),
            json!({"drain_timeout_ms": 60_000}),
        )
        .await;
    assert_eq!(
        (&stopped["state"], &stopped["previous_state"]),
        (&"draining".into(), &"running".into())
    );
    assert_eq!(
        backends(&server).await,
        named(&[("a", "draining"), ("b", "running")])
    );

    let started = server
        .item(&format!("PUT /v1/instances/{uuid}/start"), json!({}))
        .await;
    assert_eq!(
        (&started["state"], &started["previous_state"]),
        (&"running".into(), &"draining".into())
    );
    assert_eq!(
        backends(&server).await,
        named(&[("a", "running"), ("b", "running")])
    );

    let both = json!([{"name": "a"}, {"name": "b", "force": true}]);
    server.items("PUT /v1/instances/stop", both).await;
    assert_eq!(backends(&server).await, []);
    server
        .items("PUT /v1/instances/start", json!([{"name": "b"}]))
        .await;
    server
        .items("DELETE /v1/instances", json!([{"uuid": uuid}]))
        .await;
    assert_eq!(backends(&server).await, named(&[("b", "running")]));
}

#[tokio::test]
async fn drains_end_at_their_deadline() {
    let server = Server::start();
    server
        .item("POST /v1/instances", instance("a", 1, described()))
        .await;
    let drain = json!([{"name": "a", "drain_timeout_ms": -1}]);
    server.items("PUT /v1/instances/stop", drain).await;
    let now = OffsetDateTime::now_utc();
    for (after, count, state) in [(3500, 0, "draining"), (3601, 1, "stopped")] {
        let at = now + Duration::from_secs(after);
        assert_eq!(server.desired.expire_drains(at).unwrap().outcome, count);
        let a = server.item("GET /v1/instances?name=a", json!([])).await;
        assert_eq!(a["state"], state, "after {after} s");
    }
}

#[tokio::test]
async fn stops_are_checked() {
    let server = Server::start();
    server
        .item("POST /v1/instances", instance("a", 1, described()))
        .await;
    let stop = "PUT /v1/instances/stop";
    server
        .refuses(stop, "", 400, "Missing member 'uuid' or 'name'")
        .await;
    server
        .refuses(
            stop,
            r#"{"name":"a","drain_timeout_ms":3600001}"#,
            400,
            "must be -1 or in the range",
        )
        .await;
    server
        .refuses(
            stop,
            r#"{"name":"a","drain_timeout_ms":5,"force":true}"#,
            400,
            "exclude each other",
        )
        .await;
    server
        .fails(
            stop,
            json!({"name": "a", "ifstate": "stopped"}),
            11,
            "Instance 'a' is running, not stopped",
        )
        .await;
}

#[tokio::test]
async fn a_group_made_for_an_instance_goes_with_it() {
    let server = Server::start();
    let a = server
        .item("POST /v1/instances", instance("a", 1, described()))
        .await;
    let group = server.item("GET /v1/services", json!([])).await;
    assert_eq!(group["persistent"], false);
    assert_eq!(
        group["instances"],
        json!([{"uuid": a["uuid"], "name": "a"}])
    );
    server
        .item("DELETE /v1/instances", json!({"name": "a"}))
        .await;
    assert!(server.items("GET /v1/services", json!([])).await.is_empty());
    // Its claims went with it.
    server
        .item("POST /v1/instances", instance("a", 1, described()))
        .await;
}

#[tokio::test]
async fn a_second_instance_makes_its_group_persistent() {
    let server = Server::start();
    server
        .item("POST /v1/instances", instance("a", 1, described()))
        .await;
    let group = server.item("GET /v1/services", json!([])).await;
    let uuid = json!({"uuid": group["uuid"]});
    server
        .item("POST /v1/instances", instance("b", 2, uuid))
        .await;
    server
        .items(
            "DELETE /v1/instances",
            json!([{"name": "a"}, {"name": "b"}]),
        )
        .await;
    let group = server.item("GET /v1/services", json!([])).await;
    assert_eq!(group["persistent"], true);
}

#[tokio::test]
async fn a_group_with_instances_is_not_deleted() {
    let server = Server::start();
    server
        .item(
            "POST /v1/services",
            json!({"name": "db", "services": [{"port": 1, "protocol": "tcp"}]}),
        )
        .await;
    server
        .item(
            "POST /v1/instances",
            instance("a", 1, json!({"name": "db"})),
        )
        .await;
    let delete = json!([{"name": "db"}]);
    server
        .fails(
            "DELETE /v1/services",
            delete,
            15,
            "Service group 'db' has instance 'a' attached",
        )
        .await;
    let twin = instance("b", 1, json!({"name": "db"}));
    server
        .fails(
            "POST /v1/instances",
            twin,
            23,
            "Address 10.0.0.1 belongs to instance 'a' of service group 'db'",
        )
        .await;
}

#[tokio::test]
async fn an_instance_that_is_nowhere_is_made_with_a_warning() {
    let server = Server::start();
    let spec = json!({"name": "lost", "autostart": true, "service_group": described(),
                      "memory_mb": 64, "network_interfaces": [{"ip": "10.9.9.9"}]});
    let (_, answer) = server.call("POST /v1/instances", spec.to_string()).await;
    assert_eq!(answer["status"], "success", "{answer}");
    let warnings = answer["warnings"].to_string();
    assert!(
        warnings.contains("Instance 'lost': no route to 10.9.9.9"),
        "{warnings}"
    );
    assert!(warnings.contains("memory_mb"), "{warnings}");
}
