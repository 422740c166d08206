//! Metrics without a token, and how long requests took.

use super::*;

/// Status and body of a request to a listener for metrics.
async fn read(server: &Server, readers: MetricsReaders, request: Request<Body>) -> (u16, String) {
    let router = metrics_router(server.context.clone(), readers);
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.into()).unwrap())
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let add = |request: axum::http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    headers
        .iter()
        .fold(request, add)
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_listener_for_metrics_asks_for_no_token_and_has_nothing_else() {
    use MetricsReaders::{Anybody, ThisHost};
    let server = Server::with_token(Some("secret"));
    let (local, other) = (("host", "127.0.0.1:7482"), ("host", "gateway.example:7482"));
    let page = ("origin", "https://shop.example");
    for (readers, method, path, headers, expected) in [
        (ThisHost, "GET", "/v1/x/metrics", &[local][..], 200),
        (ThisHost, "HEAD", "/v1/x/metrics", &[local], 200),
        (ThisHost, "GET", "/v1/x/metrics", &[other], 403),
        (ThisHost, "GET", "/v1/x/metrics", &[local, page], 403),
        (Anybody, "GET", "/v1/x/metrics", &[other], 200),
        (Anybody, "POST", "/v1/x/metrics", &[other], 405),
        (Anybody, "GET", "/v1/x/state", &[other], 404),
        (Anybody, "GET", "/v1/services", &[other], 404),
        (Anybody, "POST", "/v1/services", &[other], 404),
    ] {
        let (status, body) = read(&server, readers, request(method, path, headers)).await;
        assert_eq!(status, expected, "{readers:?} {method} {path} {body}");
        let is_all = body.contains("lbagent_generation_desired ");
        assert_eq!(is_all, method == "GET" && status == 200, "{body}");
        // No token would help, so none is advised.
        let is_told = body.contains("api.metrics_public") && !body.contains("send a token");
        assert!(status != 403 || is_told, "{body}");
    }
}

#[tokio::test]
async fn the_time_of_requests_is_told_by_path() {
    let server = Server::with_token(Some("secret"));
    let token = Some("Bearer secret");
    let uuid = uuid::Uuid::nil();
    let names = "GET /v1/services";
    assert_eq!(server.call_as(token, names, "").await.0, 200);
    assert_eq!(server.call_as(token, names, "").await.0, 200);
    assert_eq!(server.call_as(None, names, "").await.0, 401);
    for path in [format!("GET /v1/services/{uuid}"), "GET /nowhere".into()] {
        server.call_as(token, &path, "").await;
    }
    let asked = request("GET", "/v1/x/metrics", &[]);
    let (_, text) = read(&server, MetricsReaders::Anybody, asked).await;
    for (labels, count) in [
        ("method=\"GET\",path=\"/v1/services\",class=\"2xx\"", 2),
        ("method=\"GET\",path=\"/v1/services\",class=\"4xx\"", 1),
        (
            "method=\"GET\",path=\"/v1/services/{uuid}\",class=\"2xx\"",
            1,
        ),
        ("method=\"GET\",path=\"other\",class=\"4xx\"", 1),
    ] {
        let line = format!("lbagent_api_request_duration_seconds_count{{{labels}}} {count}\n");
        assert!(text.contains(&line), "no {line} in\n{text}");
    }
}
