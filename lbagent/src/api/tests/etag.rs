//! `ETag`, `If-Match`, `If-None-Match`.

use axum::http::HeaderMap;
use serde_json::json;

use super::*;

async fn send(
    server: &Server,
    request: &str,
    header: (&str, &str),
    body: Value,
) -> (u16, HeaderMap, String) {
    let (method, path) = request.split_once(' ').unwrap();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut builder = Request::builder().method(method).uri(path);
    if !header.0.is_empty() {
        builder = builder.header(header.0, header.1);
    }
    let request = builder.body(Body::from(body)).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn tag(server: &Server, path: &str) -> String {
    let (status, headers, body) = send(server, &format!("GET {path}"), ("", ""), Value::Null).await;
    assert_eq!(status, 200, "{body}");
    headers["etag"].to_str().unwrap().to_owned()
}

async fn publish(server: &Server) -> (String, String) {
    let group = json!({"name": "web", "services": [{"port": 5432, "protocol": "tcp"}]});
    let group = server.item("POST /v1/services", group).await;
    let instance = json!({"name": "a", "autostart": true, "service_group": {"name": "web"},
                          "network_interfaces": [{"ip": "10.0.0.1"}]});
    let instance = server.item("POST /v1/instances", instance).await;
    let path = |base: &str, item: &Value| format!("{base}/{}", item["uuid"].as_str().unwrap());
    (
        path("/v1/services", &group),
        path("/v1/instances", &instance),
    )
}

#[tokio::test]
async fn a_change_is_made_only_on_what_was_read() {
    let server = Server::start();
    let (_, instance) = publish(&server).await;
    let policy = "/v1/x/instances/a/policy";
    let read = tag(&server, policy).await;
    let put = async |tag: &str, weight: u16| {
        let body = json!({"policy": {"weight": weight, "quic_server_id": null}});
        send(&server, &format!("PUT {policy}"), ("if-match", tag), body).await
    };
    assert_eq!(put(&read, 50).await.0, 200);
    let before = server.desired.current();
    for stale in [
        read.as_str(),
        "\"1\"",
        "\"other\"",
        "W/\"1\"",
        "",
        "nonsense",
    ] {
        let (status, _, body) = put(stale, 70).await;
        assert_eq!(status, 412, "{stale}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["status"], &answer["errors"][0]["status"]),
            (&"error".into(), &412.into())
        );
        assert!(
            body.contains("The instance changed since it was read"),
            "{body}"
        );
    }
    let stop = format!("PUT {instance}/stop");
    assert_eq!(
        send(&server, &stop, ("if-match", &read), Value::Null)
            .await
            .0,
        412
    );
    let delete = format!("DELETE {instance}");
    assert_eq!(
        send(&server, &delete, ("if-match", &read), Value::Null)
            .await
            .0,
        412
    );
    assert_eq!(before, server.desired.current(), "something was changed");
    // Any of several tags will do, and `*` asks only that the object exists.
    let now = tag(&server, &instance).await;
    // A weak one does not: it does not say that nothing differs.
    assert_eq!(put(&format!("W/{now}"), 70).await.0, 412);
    assert_eq!(put(&format!("\"1\", {now}"), 70).await.0, 200);
    assert_eq!(put("*", 80).await.0, 200);
    let now = tag(&server, &instance).await;
    assert_eq!(
        send(&server, &delete, ("if-match", &now), Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        send(&server, &delete, ("if-match", "*"), Value::Null)
            .await
            .0,
        412
    );
    let (status, _, body) = send(
        &server,
        "DELETE /v1/services",
        ("if-match", "*"),
        json!({"name": "web"}),
    )
    .await;
    assert_eq!(status, 400);
    assert!(
        body.contains("'If-Match' needs a path that names one object"),
        "{body}"
    );
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let server = Server::start();
    let (group, instance) = publish(&server).await;
    for path in [group.as_str(), &instance, "/v1/x/service-groups/web/policy"] {
        let known = tag(&server, path).await;
        let get = format!("GET {path}");
        let (status, headers, body) =
            send(&server, &get, ("if-none-match", &known), Value::Null).await;
        assert_eq!((status, body.as_str()), (304, ""));
        assert_eq!(headers["etag"], known);
        assert_eq!(
            send(&server, &get, ("if-none-match", "\"1\""), Value::Null)
                .await
                .0,
            200
        );
    }
    // The group's answer names its instances: it changes with them.
    let known = tag(&server, &group).await;
    server
        .item("DELETE /v1/instances", json!({"name": "a"}))
        .await;
    let get = format!("GET {group}");
    assert_eq!(
        send(&server, &get, ("if-none-match", &known), Value::Null)
            .await
            .0,
        200
    );
    let generation = server.desired.current().generation;
    let (_, headers, _) = send(&server, "GET /v1/services", ("", ""), Value::Null).await;
    assert_eq!(headers["lbagent-generation"], generation.to_string());
    assert!(!headers.contains_key("etag"), "a list is no object");
}

#[tokio::test]
async fn of_many_writers_with_one_tag_one_wins() {
    let server = Server::start();
    publish(&server).await;
    let policy = "/v1/x/instances/a/policy";
    let read = tag(&server, policy).await;
    let put = |weight: u16| {
        let body = json!({"policy": {"weight": weight, "quic_server_id": null}});
        let (server, read) = (&server, read.as_str());
        async move {
            send(server, &format!("PUT {policy}"), ("if-match", read), body)
                .await
                .0
        }
    };
    let mut statuses = futures_util::future::join_all((1..20).map(put)).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200], vec![412; 18]].concat());
}
