//! Requests that a web page in a browser of this host could send.

use super::*;

#[track_caller]
fn check(told: (u16, Value), expected: u16, text: &str) {
    let (status, answer) = told;
    assert_eq!(status, expected, "{answer}");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.contains(text), "{text:?} is missing in {answer}");
}

async fn ask(server: &Server, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = Request::get("/v1/services");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    answered(server.router.clone(), request).await
}

#[tokio::test]
async fn without_a_token_only_programs_of_this_host_are_let_in() {
    let server = Server::start();
    for host in [
        "127.0.0.1:7480",
        "127.8.9.1",
        "localhost:7480",
        "LOCALHOST",
        "[::1]:7480",
        "[::ffff:127.0.0.1]",
    ] {
        check(ask(&server, &[("host", host)]).await, 200, "");
    }
    check(ask(&server, &[]).await, 200, "");
    for host in [
        "gateway.example:7480",
        "192.0.2.7",
        "127.0.0.1.example",
        "localhost.example",
        "[2001:db8::1]:7480",
        "",
        "a b",
    ] {
        let told = ask(&server, &[("host", host)]).await;
        check(told, 403, "use http://127.0.0.1");
    }
    let twice = [("host", "127.0.0.1"), ("host", "gateway.example")];
    check(ask(&server, &twice).await, 403, "send a token");
    for origin in ["https://shop.example", "http://127.0.0.1:7480", "null"] {
        let headers = [("host", "127.0.0.1:7480"), ("origin", origin)];
        check(ask(&server, &headers).await, 403, "Requests of web pages");
    }
    // A target with a name of its own, as for a proxy.
    let request = Request::get("http://gateway.example/v1/services");
    let told = answered(server.router.clone(), request.body(Body::empty()).unwrap());
    check(told.await, 403, "use http://127.0.0.1");
}

#[tokio::test]
async fn what_is_refused_changes_nothing_and_a_token_opens() {
    let server = Server::start();
    let body = r#"{"name":"web","services":[{"port":80,"protocol":"tcp"}]}"#;
    let page = Request::post("/v1/services").header("origin", "https://shop.example");
    let told = answered(server.router.clone(), page.body(body.into()).unwrap()).await;
    check(told, 403, "Requests of web pages");
    assert!(server.desired.current().is_empty());

    let server = Server::with_token(Some("secret"));
    let headers = [
        ("host", "gateway.example"),
        ("origin", "https://console.example"),
        ("authorization", "Bearer secret"),
    ];
    check(ask(&server, &headers).await, 200, "");
    check(
        ask(&server, &headers[..2]).await,
        401,
        "Missing or wrong token",
    );
}
