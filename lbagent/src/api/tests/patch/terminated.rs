//! Ports with handlers.

use super::*;

#[tokio::test]
async fn a_terminated_port_is_shared_and_a_raw_one_is_not() {
    let server = Server::start();
    make(&server, "a", json!([https()])).await;
    make(&server, "b", json!([https()])).await;
    let raw_443 = json!({"name": "c", "services": [raw(443)]});
    let text = "Port 443/tcp is published with handlers already";
    server
        .fails("POST /v1/services", raw_443.clone(), 23, text)
        .await;
    make(&server, "d", json!([raw(9000)])).await;
    let tls = json!({"name": "e", "services": [{"port": 9000, "handlers": ["tls"]}]});
    let text = "published by service group 'd' already";
    server.fails("POST /v1/services", tls, 23, text).await;
    // The port is free when the last of its groups has gone.
    server
        .item("DELETE /v1/services", json!({"name": "a"}))
        .await;
    let text = "Port 443/tcp is published with handlers already";
    server
        .fails("POST /v1/services", raw_443.clone(), 23, text)
        .await;
    server
        .item("DELETE /v1/services", json!({"name": "b"}))
        .await;
    server.item("POST /v1/services", raw_443).await;
}

#[tokio::test]
async fn a_terminated_port_is_remarked_on() {
    let server = Server::start();
    let body = json!({"name": "a", "services": [https()]});
    let (_, answer) = server.call("POST /v1/services", body.to_string()).await;
    let warning = answer["warnings"][0]["message"].as_str().unwrap();
    assert!(
        warning.contains("'a' publishes with handlers: 443"),
        "{answer}"
    );
    assert!(answer["op_time_us"].is_u64(), "{answer}");
    let (_, answer) = server.call("GET /v1/x/status", "").await;
    let conditions = answer["data"]["status"]["conditions"].as_array().unwrap();
    let found: Vec<_> = conditions
        .iter()
        .map(|one| (one["reason"].as_str(), one["severity"].as_str()))
        .collect();
    assert_eq!(
        found,
        [(Some("no_terminator"), Some("warning"))],
        "{answer}"
    );
    let (_, answer) = server.call("GET /v1/x/table", "").await;
    let group = &answer["data"]["table"]["groups"][0];
    assert_eq!(group["terminated"][0]["port"], 443, "{answer}");
    assert_eq!(group["vips"], json!([]), "{answer}");
}
