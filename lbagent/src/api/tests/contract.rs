//! What official clients send, and the contract's words for what is wrong.

use serde_json::json;

use super::*;

fn raw(port: u16) -> Value {
    json!({"services": [{"port": port, "protocol": "tcp"}]})
}

#[tokio::test]
async fn the_sdks_requests_work() {
    let server = Server::start();
    let made = server
        .item(
            "POST /v1/services",
            json!({"name": "web", "services": [{"port": 5432, "protocol": "tcp", "handlers": []}]}),
        )
        .await;
    let uuid = made["uuid"].as_str().unwrap();
    let got = server
        .item(
            &format!("GET /v1/services?uuid={uuid}&details=true"),
            json!([]),
        )
        .await;
    assert_eq!(got["name"], "web");
    assert_eq!(got["persistent"], true);
    assert_eq!(got["services"][0]["destination_port"], 5432);
    assert_eq!(got["services"][0]["handlers"], json!([]));
    assert_eq!(got["domains"][0]["fqdn"], got["fqdn"]);
    assert!(got["fqdn"].as_str().unwrap().starts_with("web-"), "{got}");
    assert!(
        got["fqdn"].as_str().unwrap().ends_with(".lb.internal"),
        "{got}"
    );
    let listed = server
        .items("GET /v1/services?details=true&count=100", json!([]))
        .await;
    assert_eq!(listed, [got]);
    let deleted = server
        .item("DELETE /v1/services", json!([{"name": "web"}]))
        .await;
    assert_eq!(
        deleted,
        json!({"status": "success", "uuid": uuid, "name": "web"})
    );
    assert!(server.items("GET /v1/services", json!([])).await.is_empty());
}

#[tokio::test]
async fn selectors_travel_in_query_and_body() {
    let server = Server::start();
    for (name, port) in [("a", 1), ("b", 2), ("c", 3)] {
        let mut spec = raw(port);
        spec["name"] = name.into();
        server.item("POST /v1/services", spec).await;
    }
    let uuid = server
        .desired
        .current()
        .service_groups
        .values()
        .find(|g| g.name == "a")
        .unwrap()
        .uuid;
    let by_uuid = format!("GET /v1/services/{uuid}");
    for (request, body, expected) in [
        ("GET /v1/services", "", vec!["a", "b", "c"]),
        ("GET /v1/services", "[]", vec!["a", "b", "c"]),
        ("GET /v1/services?name=b&name=a", "", vec!["b", "a"]),
        ("GET /v1/services?name=b,a", "", vec!["b", "a"]),
        ("GET /v1/services", r#"{"name":"c"}"#, vec!["c"]),
        (
            "GET /v1/services",
            r#"[{"name":"c"},{"name":"a"}]"#,
            vec!["c", "a"],
        ),
        ("GET /v1/services?order=desc", "", vec!["c", "b", "a"]),
        ("GET /v1/services?details=false", "", vec!["a", "b", "c"]),
        ("GET /v1/services/list", "", vec!["a", "b", "c"]),
        (&by_uuid, "", vec!["a"]),
    ] {
        let (status, answer) = server.call(request, body).await;
        assert_eq!(status, 200, "{request} {body}: {answer}");
        let names: Vec<_> = answer["data"]["service_groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{request} {body}");
    }
}

#[tokio::test]
async fn pages_begin_with_their_cursor() {
    let server = Server::start();
    for port in 1..=5 {
        server.item("POST /v1/services", raw(port)).await;
    }
    let all = server.items("GET /v1/services", json!([])).await;
    let cursor = all[2]["uuid"].as_str().unwrap();
    let page = server
        .items(
            &format!("GET /v1/services?count=2&from={cursor}"),
            json!([]),
        )
        .await;
    assert_eq!(page, all[2..4]);
    let created = all[3]["created_at"].as_str().unwrap();
    let page = server
        .items(&format!("GET /v1/services?from={created}"), json!([]))
        .await;
    assert_eq!(page, all[3..]);
}

#[tokio::test]
async fn requests_that_break_a_rule_are_refused_as_a_whole() {
    let server = Server::start();
    let post = "POST /v1/services";
    server.refuses(post, "{", 400, "Invalid JSON").await;
    server
        .refuses(post, "3", 400, "must be a JSON object")
        .await;
    server
        .refuses(post, r#"{"servces":[]}"#, 400, "Unknown member 'servces'")
        .await;
    server
        .refuses(post, r#"{}"#, 400, "At least one service is required")
        .await;
    server
        .refuses(
            post,
            r#"{"services":[]}"#,
            400,
            "At least one service is required",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"name":"a--b","services":[{"port":1,"protocol":"tcp"}]}"#,
            400,
            "Invalid name 'a--b'",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"services":[{"port":0,"protocol":"tcp"}]}"#,
            400,
            "Value of 'port' in service port description must be in the range 1 to 65535",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"services":[{"port":1,"destination_port":65536,"protocol":"tcp"}]}"#,
            400,
            "Value of 'destination_port' in service port description must be in the range 1 to 65535",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"services":[{"port":5432}]}"#,
            400,
            "must have the handler 'tls'",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"services":[{"port":1,"protocol":"tcp"}],"domains":[{"name":"a b"}]}"#,
            400,
            "Invalid DNS name",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"services":[{"port":1,"protocol":"tcp","ip":"192.0.2.9"}]}"#,
            400,
            "no VIP of this gateway; it has 192.0.2.1, 192.0.2.2",
        )
        .await;
    server
        .refuses(
            post,
            r#"{"services":[{"port":443,"handlers":["tls"]}]}"#,
            400,
            "Service port 443 must have the handlers 'tls' and 'http'",
        )
        .await;
    // One bad request among good ones.
    server
        .refuses(
            post,
            r#"[{"services":[{"port":1,"protocol":"tcp"}]},{"x":1}]"#,
            400,
            "Unknown member 'x'",
        )
        .await;
    server
        .refuses(
            "GET /v1/services?colour=red",
            "",
            400,
            "Unknown query parameter 'colour'",
        )
        .await;
    server
        .refuses("GET /v1/services/nope", "", 400, "Invalid uuid 'nope'")
        .await;
    server
        .refuses(
            "GET /v1/services/00000000-0000-4000-8000-000000000001",
            r#"{"name":"a"}"#,
            400,
            "not allowed here",
        )
        .await;
    server
        .refuses(
            "DELETE /v1/services",
            "",
            400,
            "Missing member 'uuid' or 'name'",
        )
        .await;
}

#[tokio::test]
async fn instances_need_an_address_that_packets_can_go_to() {
    let server = Server::start();
    let post = "POST /v1/instances";
    server
        .refuses(post, r#"{"name":"a"}"#, 400, "An instance needs an address")
        .await;
    for (address, why) in [
        ("0.0.0.0", "the unspecified address"),
        ("127.0.0.1", "a loopback address"),
        ("224.0.0.1", "a multicast address"),
        ("192.0.2.1", "a VIP of this gateway"),
        ("nonsense", "expected an address"),
    ] {
        let body = json!({"network_interfaces": [{"ip": address}]}).to_string();
        let (status, answer) = server.call(post, body).await;
        assert_eq!(status, 400, "{address}: {answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(why),
            "{address}: {answer}"
        );
    }
}

#[tokio::test]
async fn clashes_and_missing_objects_fail_as_items() {
    let server = Server::start();
    let mut first = raw(80);
    first["name"] = "first".into();
    first["domains"] = json!([{"name": "web"}]);
    server.item("POST /v1/services", first).await;

    let post = "POST /v1/services";
    let named = json!({"name": "first", "services": [{"port": 1, "protocol": "tcp"}]});
    server
        .fails(
            post,
            named,
            23,
            "A service group with name 'first' already exists",
        )
        .await;
    let port = "Port 80/tcp is published by service group 'first' already; choose another port";
    server.fails(post, raw(80), 23, port).await;
    let on_one_vip = json!({"services": [{"port": 80, "protocol": "tcp", "ip": "192.0.2.2"}]});
    server
        .fails(post, on_one_vip, 23, "published by service group 'first'")
        .await;
    let domain = json!({"services": [{"port": 1, "protocol": "tcp"}], "dns_name": "WEB"});
    server
        .fails(
            post,
            domain,
            23,
            "Domain 'web.lb.internal' is in use by service group 'first'",
        )
        .await;
    let selector = json!([{"name": "nope"}]);
    let missing = "No service group with name 'nope'";
    server
        .fails("GET /v1/services", selector.clone(), 8, missing)
        .await;
    server
        .fails("DELETE /v1/services", selector, 8, missing)
        .await;
    let unknown = "GET /v1/services/00000000-0000-4000-8000-000000000001";
    server
        .fails(unknown, json!([]), 8, "No service group with uuid")
        .await;
    let both = json!({"network_interfaces": [{"ip": "10.0.0.1"}],
        "service_group": {"name": "first", "services": [{"port": 1, "protocol": "tcp"}]}});
    server
        .fails("POST /v1/instances", both, 17, "cannot both name")
        .await;
    let orphan =
        json!({"network_interfaces": [{"ip": "10.0.0.1"}], "service_group": {"name": "no"}});
    server
        .fails(
            "POST /v1/instances",
            orphan,
            8,
            "No service group with name 'no'",
        )
        .await;
    server
        .fails(
            "PUT /v1/instances/stop",
            json!([{"name": "no"}]),
            8,
            "No instance with name 'no'",
        )
        .await;

    // The same port of the other protocol, and on different VIPs, is free.
    server
        .item(
            post,
            json!({"services": [{"port": 80, "protocol": "udp", "ip": "192.0.2.1"}]}),
        )
        .await;
    server
        .item(
            post,
            json!({"services": [{"port": 80, "protocol": "udp", "ip": "192.0.2.2"}]}),
        )
        .await;
    let everywhere = json!({"services": [{"port": 80, "protocol": "udp"}]});
    server.fails(post, everywhere, 23, "Port 80/udp").await;
}

#[tokio::test]
async fn part_of_a_batch_may_fail() {
    let server = Server::start();
    let specs = json!([raw(80), raw(80), raw(81)]);
    let (status, answer) = server.call("POST /v1/services", specs.to_string()).await;
    assert_eq!(
        (status, &answer["status"]),
        (200, &"partial_success".into()),
        "{answer}"
    );
    let items = answer["data"]["service_groups"].as_array().unwrap();
    let states: Vec<_> = items
        .iter()
        .map(|item| item["status"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["success", "error", "success"]);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_say_so() {
    let server = Server::start();
    server
        .refuses(
            "GET /v2/services",
            "",
            404,
            "No API endpoint with path '/v2/services'",
        )
        .await;
    server
        .refuses("PUT /v1/services", "", 405, "has no method PUT")
        .await;
    server
        .refuses(
            "GET /v1/services/00000000-0000-4000-8000-000000000000/autoscale",
            "",
            501,
            "is not supported",
        )
        .await;
    server
        .refuses("POST /v1/volumes", "{}", 501, "not supported")
        .await;
    server
        .refuses("GET /v1/services/autoscale", "", 501, "not supported")
        .await;
    server
        .refuses("GET /v1/instances/log", "", 501, "not supported")
        .await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = Server::start();
    let (status, answer) = server
        .call("POST /v1/services", vec![b' '; MAX_BODY + 1])
        .await;
    assert_eq!(status, 413, "{answer}");
    assert_eq!(answer["errors"][0]["status"], 413);
}

#[tokio::test]
async fn the_token_is_asked_for() {
    let server = Server::with_token(Some("s3cret"));
    for (shown, status) in [
        (None, 401),
        (Some("Bearer wrong!"), 401),
        (Some("Bearer s3cre"), 401),
        (Some("Bearer s3cretX"), 401),
        (Some("Basic s3cret"), 401),
        (Some("s3cret"), 401),
        (Some("Bearer s3cret"), 200),
        (Some("bearer s3cret"), 200),
    ] {
        let (found, answer) = server.call_as(shown, "GET /v1/services", "").await;
        assert_eq!(found, status, "{shown:?}: {answer}");
        assert!(
            !answer.to_string().contains("s3cret"),
            "the token is shown: {answer}"
        );
    }
    assert_eq!(server.call("GET /v1/healthz", "").await.0, 200);
}

#[tokio::test]
async fn a_panic_is_answered() {
    async fn broken() {
        panic!("this test breaks an endpoint on purpose");
    }
    let router: Router = Router::new()
        .fallback(broken)
        .layer(axum::middleware::from_fn(respond::catch_panics));
    let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), 500);
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["errors"][0]["status"], 500);
}
