//! Policies of service groups and instances.

use serde_json::json;

use super::*;

const GROUP: &str = "/v1/x/service-groups/web/policy";
const INSTANCE: &str = "/v1/x/instances/a/policy";

async fn publish(server: &Server, services: Value) -> (String, String) {
    let group = json!({"name": "web", "services": services});
    let group = server.item("POST /v1/services", group).await;
    let instance = json!({"name": "a", "autostart": true, "service_group": {"name": "web"},
                          "network_interfaces": [{"ip": "10.0.0.1"}]});
    let instance = server.item("POST /v1/instances", instance).await;
    let uuid = |item: &Value| item["uuid"].as_str().unwrap().to_owned();
    (uuid(&group), uuid(&instance))
}

fn plain() -> Value {
    json!([{"port": 443, "protocol": "udp"}, {"port": 443, "protocol": "tcp"}])
}

impl Server {
    /// A request that must succeed; returns the policy and the warnings.
    async fn policy(&self, method: &str, path: &str, body: Value) -> (Value, Vec<String>) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, answer) = self.call(&format!("{method} {path}"), body).await;
        assert_eq!(
            (status, &answer["status"]),
            (200, &"success".into()),
            "{answer}"
        );
        let data = answer["data"].as_object().unwrap();
        assert_eq!(data.len(), 1, "data has one member: {answer}");
        let warnings = answer["warnings"].as_array().into_iter().flatten();
        let warnings = warnings.map(|warning| warning["message"].as_str().unwrap().to_owned());
        (data["policy"].clone(), warnings.collect())
    }
}

#[tokio::test]
async fn a_groups_policy_is_read_and_replaced() {
    let server = Server::start();
    let (uuid, _) = publish(&server, plain()).await;
    let by_uuid = format!("/v1/x/service-groups/{uuid}/policy");
    let default = json!({"forwarding_mode": "nat", "sources": {"allow": [], "deny": []},
                         "quic": null});
    assert_eq!(server.policy("GET", GROUP, Value::Null).await.0, default);
    assert_eq!(server.policy("GET", &by_uuid, Value::Null).await.0, default);
    let wanted = json!({"forwarding_mode": "dsr-gue",
                        "sources": {"allow": ["192.0.2.0/24"], "deny": ["2001:db8::/32"]},
                        "quic": null});
    let put = server
        .policy("PUT", &by_uuid, json!({"policy": wanted}))
        .await;
    assert_eq!(put, (wanted.clone(), vec![]));
    assert_eq!(server.policy("GET", GROUP, Value::Null).await.0, wanted);
    // Upstream's clients see nothing of it.
    let group = server
        .items("GET /v1/services", json!([{"name": "web"}]))
        .await;
    assert_eq!(group[0].get("policy"), None);
    let put = server.policy("PUT", GROUP, json!({"policy": {}})).await;
    assert_eq!(put, (default, vec![]));
}

#[tokio::test]
async fn an_instances_policy_reaches_the_data_plane() {
    let server = Server::start();
    let (_, uuid) = publish(&server, plain()).await;
    assert_eq!(
        server.policy("GET", INSTANCE, Value::Null).await.0,
        json!({"weight": 100})
    );
    let by_uuid = format!("/v1/x/instances/{uuid}/policy");
    let put = server
        .policy("PUT", &by_uuid, json!({"policy": {"weight": 0}}))
        .await;
    assert_eq!(put, (json!({"weight": 0}), vec![]));
    let (_, answer) = server.call("GET /v1/x/table", "").await;
    let row = &answer["data"]["table"]["groups"][0]["vips"][0]["backends"][0];
    assert_eq!(
        (&row["weight"], &row["slots"]),
        (&0.into(), &0.into()),
        "{answer}"
    );
    let instance = server
        .items("GET /v1/instances", json!([{"name": "a"}]))
        .await;
    assert_eq!(instance[0].get("policy"), None);
}

#[tokio::test]
async fn what_has_no_effect_is_a_warning() {
    let server = Server::start();
    publish(&server, json!([{"port": 80, "protocol": "tcp"}])).await;
    let id = json!({"policy": {"quic_server_id": "01"}});
    let (_, warnings) = server.policy("PUT", INSTANCE, id).await;
    assert!(
        warnings[0].contains("'web' has no QUIC layout"),
        "{warnings:?}"
    );
    let quic = json!({"policy": {"quic": {"server_id_length": 1}}});
    let (_, warnings) = server.policy("PUT", GROUP, quic).await;
    assert!(
        warnings[0].contains("'web' publishes no UDP port"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn what_breaks_a_rule_changes_nothing() {
    let server = Server::start();
    publish(
        &server,
        json!([{"port": 80, "destination_port": 8080, "protocol": "tcp"}]),
    )
    .await;
    let group = "PUT /v1/x/service-groups/web/policy";
    server
        .refuses(
            group,
            r#"{"policy": {"forwarding_mode": "dsr-l2"}}"#,
            409,
            "port 80/tcp as port 8080",
        )
        .await;
    server
        .refuses(group, "{}", 400, "Missing member 'policy'")
        .await;
    server
        .refuses(group, "[]", 400, "must be a JSON object")
        .await;
    server.refuses(group, "", 400, "Invalid JSON").await;
    server
        .refuses(
            group,
            r#"{"policy": {"weight": 1}}"#,
            400,
            "Unknown member 'weight'",
        )
        .await;
    server
        .refuses(
            group,
            r#"{"policy": {"sources": {"allow": ["192.0.2.1/24"]}}}"#,
            400,
            "write 192.0.2.0/24",
        )
        .await;
    server
        .refuses(
            "PUT /v1/x/instances/a/policy",
            r#"{"policy": {"weight": 1001}}"#,
            400,
            "0 to 1000",
        )
        .await;
    let nobody = "No service group with name 'no'";
    server
        .refuses("GET /v1/x/service-groups/no/policy", "", 404, nobody)
        .await;
    server
        .refuses(
            "PUT /v1/x/service-groups/no/policy",
            r#"{"policy": {}}"#,
            404,
            nobody,
        )
        .await;
    let uuid = "GET /v1/x/instances/00000000-0000-4000-8000-000000000000/policy";
    server
        .refuses(uuid, "", 404, "No instance with uuid '00000000")
        .await;
    server
        .refuses(
            "PUT /v1/x/instances/no/policy",
            r#"{"policy": {}}"#,
            404,
            "'no'",
        )
        .await;
    server
        .refuses("DELETE /v1/x/instances/a/policy", "", 405, "DELETE")
        .await;
}

#[tokio::test]
async fn a_group_chooses_its_vips() {
    let server = Server::start();
    let raw = json!([{"port": 443, "protocol": "tcp"}]);
    publish(&server, raw.clone()).await;
    let published = async || {
        let (_, answer) = server.call("GET /v1/x/table", "").await;
        let vips = answer["data"]["table"]["groups"][0]["vips"].clone();
        let ip = |row: &Value| row["ip"].as_str().unwrap().to_owned();
        vips.as_array().unwrap().iter().map(ip).collect::<Vec<_>>()
    };
    assert_eq!(published().await, ["192.0.2.1", "192.0.2.2"]);
    let choose = |vips: Value| json!({"policy": {"vips": vips}});
    let one = json!(["192.0.2.1"]);
    let (policy, _) = server.policy("PUT", GROUP, choose(one.clone())).await;
    assert_eq!(policy["vips"], one);
    assert_eq!(published().await, ["192.0.2.1"]);
    // The other VIP's port is free for others, and only there.
    let other = json!({"name": "other", "services": raw});
    server
        .fails(
            "POST /v1/services",
            other.clone(),
            23,
            "by service group 'web'",
        )
        .await;
    let there = json!([{"port": 443, "protocol": "tcp", "handlers": [], "ip": "192.0.2.2"}]);
    let other = json!({"name": "other", "services": there});
    server.item("POST /v1/services", other).await;
    let before = server.desired.current();
    for (vips, status, message) in [
        (json!([]), 409, "published by service group 'other' already"),
        (
            json!(["192.0.2.1", "192.0.2.2"]),
            409,
            "service group 'other'",
        ),
        (json!(["192.0.2.9"]), 400, "Value '192.0.2.9' of 'vips'"),
        (json!(["x"]), 400, ""),
    ] {
        let body = choose(vips.clone()).to_string();
        let (found, answer) = server.call(&format!("PUT {GROUP}"), body).await;
        assert_eq!(found, status, "{vips}: {answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(message),
            "{answer}"
        );
        assert_eq!(server.desired.current(), before);
    }
    // A service keeps to the group's choice.
    let elsewhere = json!([{"port": 80, "protocol": "tcp", "ip": "192.0.2.2"}]);
    let add = json!({"name": "web", "prop": "services", "op": "add", "value": elsewhere});
    server
        .fails("PATCH /v1/services", add, 24, "none of its policy's 'vips'")
        .await;
    // Given up, it is free; what is gone leaves no claims.
    server
        .item("DELETE /v1/services", json!({"name": "other"}))
        .await;
    server.policy("PUT", GROUP, choose(json!([]))).await;
    assert_eq!(published().await, ["192.0.2.1", "192.0.2.2"]);
    server.policy("PUT", GROUP, choose(one)).await;
    server
        .item("DELETE /v1/instances", json!({"name": "a"}))
        .await;
    server
        .item("DELETE /v1/services", json!({"name": "web"}))
        .await;
    let left = server.desired.current();
    assert!(left.claims.is_empty());
}
