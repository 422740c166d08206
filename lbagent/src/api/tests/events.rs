//! `/v1/x/events` and `/v1/audit`.

use axum::body::BodyDataStream;
use futures_util::StreamExt;
use lbagent_api::Selector;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::desired::{Caller, DEFAULT_ACCOUNT, NewToken, Role, StopRequest};

/// An open stream of events.
struct Stream {
    body: BodyDataStream,
    text: String,
}

/// One event: its name, its id, its data.
type Told = (String, Option<u64>, Value);

impl Stream {
    async fn open(server: &Server, path: &str, last: Option<u64>) -> Self {
        let mut builder = Request::builder().uri(path);
        if let Some(last) = last {
            builder = builder.header("last-event-id", last);
        }
        let request = builder.body(Body::empty()).unwrap();
        let response = server.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response.into_body().into_data_stream();
        let text = String::new();
        Self { body, text }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let mut lines = block.lines();
                    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                // Comments have no data.
                let Some(data) = field("data") else { continue };
                let id = field("id").map(|id| id.parse().unwrap());
                let name = field("event").unwrap().to_owned();
                return Some((name, id, serde_json::from_str(data).unwrap()));
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.body.next());
            let chunk = chunk.await.expect("nothing happened")?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event that tells a change: an operator's stream also tells what was applied.
    async fn change(&mut self) -> (String, Option<u64>, String) {
        loop {
            let (name, id, data) = self.next().await.unwrap();
            if name != "applied" {
                let what = format!(
                    "{} {}",
                    data["kind"].as_str().unwrap(),
                    data["name"].as_str().unwrap()
                );
                return (name, id, what);
            }
        }
    }
}

async fn publish(server: &Server) {
    let instance = json!({"name": "a", "autostart": true, "network_interfaces": [{"ip": "10.0.0.1"}],
        "service_group": {"services": [{"port": 5432, "protocol": "tcp"}]}});
    server.item("POST /v1/instances", instance).await;
}

#[tokio::test]
async fn changes_are_told_in_order_and_again_from_where_a_client_was() {
    let server = Server::start();
    let before = server.desired.current().generation;
    let mut stream = Stream::open(&server, "/v1/x/events", None).await;
    publish(&server).await;
    let group = server
        .desired
        .current()
        .service_groups
        .values()
        .next()
        .unwrap()
        .name
        .clone();
    let group = format!("service_group {group}");
    // One transaction: only its last event has the id to come back with.
    let made = before + 1;
    assert_eq!(
        stream.change().await,
        ("created".into(), None, group.clone())
    );
    assert_eq!(
        stream.change().await,
        ("created".into(), Some(made), "instance a".into())
    );
    server
        .item("PUT /v1/instances/stop", json!({"name": "a"}))
        .await;
    assert_eq!(
        stream.change().await,
        ("changed".into(), Some(made + 1), "instance a".into())
    );
    server
        .item("DELETE /v1/instances", json!({"name": "a"}))
        .await;
    assert_eq!(
        stream.change().await,
        ("deleted".into(), None, group.clone())
    );
    assert_eq!(
        stream.change().await,
        ("deleted".into(), Some(made + 2), "instance a".into())
    );

    let mut again = Stream::open(&server, "/v1/x/events", Some(made)).await;
    assert_eq!(
        again.change().await,
        ("changed".into(), Some(made + 1), "instance a".into())
    );
    let path = format!("/v1/x/events?from={made}&kind=service_group");
    let mut groups = Stream::open(&server, &path, None).await;
    assert_eq!(
        groups.change().await,
        ("created".into(), Some(made), group.clone())
    );
    assert_eq!(
        groups.change().await,
        ("deleted".into(), Some(made + 2), group)
    );

    server.stop.send_replace(true);
    while stream.next().await.is_some() {}
}

#[tokio::test]
async fn an_applied_generation_is_told() {
    let server = Server::start();
    let mut stream = Stream::open(&server, "/v1/x/events?kind=certificate", None).await;
    publish(&server).await;
    let wanted = server.desired.current().generation;
    loop {
        let (name, _, data) = stream.next().await.unwrap();
        assert_eq!(name, "applied", "{data}");
        if data["generation"] == wanted {
            assert!(data.get("error").is_none(), "{data}");
            return;
        }
    }
}

#[tokio::test]
async fn a_gap_is_told_and_the_stream_goes_on() {
    let server = Server::start();
    publish(&server).await;
    let start = server.desired.current().generation;
    let us = Caller::operator(DEFAULT_ACCOUNT);
    let selector = Selector::Name("a".into());
    let stop = StopRequest {
        selector: selector.clone(),
        drain: Duration::ZERO,
        only_if: None,
    };
    // Past the API, whose answers wait for the data plane.
    for _ in 0..550 {
        let now = OffsetDateTime::now_utc();
        let stop = std::slice::from_ref(&stop);
        server.desired.stop_instances(us, stop, now).unwrap();
        let selector = std::slice::from_ref(&selector);
        server.desired.start_instances(us, selector).unwrap();
    }
    let path = format!("/v1/x/events?from={start}&kind=instance");
    let mut stream = Stream::open(&server, &path, None).await;
    let (name, id, gap) = loop {
        let told = stream.next().await.unwrap();
        if told.0 != "applied" {
            break told;
        }
    };
    let next = gap["next"].as_u64().unwrap();
    assert_eq!((name.as_str(), &gap["from"]), ("gap", &start.into()));
    assert!(next > start && id == Some(next - 1), "{gap}");
    let (name, id, _) = stream.change().await;
    assert_eq!((name.as_str(), id), ("changed", Some(next)));
}

#[tokio::test]
async fn the_audit_tells_states_of_instances() {
    let server = Server::start();
    let mut audit = Stream::open(&server, "/v1/audit?events=vm.state_change", None).await;
    publish(&server).await;
    server
        .item("PUT /v1/instances/stop", json!({"name": "a"}))
        .await;
    server
        .item("DELETE /v1/instances", json!({"name": "a"}))
        .await;
    for data in [
        json!({"new": "running"}),
        json!({"prev": "running", "new": "stopped"}),
        json!({"prev": "stopped", "new": "deleted"}),
    ] {
        let (name, _, told) = audit.next().await.unwrap();
        assert_eq!(
            (name.as_str(), &told["type"]),
            ("vm.state_change", &"vm.state_change".into())
        );
        assert_eq!(
            (&told["data"], &told["object"]["type"]),
            (&data, &"i".into())
        );
    }
    server
        .refuses(
            "GET /v1/audit?since=1",
            "",
            400,
            "Unknown query parameter 'since'",
        )
        .await;
    server
        .refuses("GET /v1/x/events?from=x", "", 400, "expected a generation")
        .await;
    server
        .refuses(
            "GET /v1/x/events?from=999999",
            "",
            400,
            "does not exist yet",
        )
        .await;
}

#[tokio::test]
async fn accounts_and_tokens_are_told() {
    let server = Server::start();
    let before = server.desired.current().generation;
    let kinds = "/v1/x/events?kind=account,token";
    let mut stream = Stream::open(&server, kinds, None).await;
    let mut audit = Stream::open(&server, "/v1/audit", None).await;
    let send = async |request: &str, body: Value| {
        let (status, answer) = server.call(request, body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"].clone()
    };
    send("POST /v1/x/accounts", json!({"name": "a"})).await;
    let made = json!({"role": "member", "account": "a", "label": "ci"});
    let made = send("POST /v1/x/tokens", made).await;
    let quotas = json!({"quotas": {"instances": 1}});
    send("PUT /v1/x/accounts/a/quotas", quotas).await;
    let uuid = made["token"]["uuid"].as_str().unwrap();
    send(&format!("DELETE /v1/x/tokens/{uuid}"), json!({})).await;
    let secret = made["secret"].as_str().unwrap();
    let told = [
        ("created", "account a"),
        ("created", "token ci"),
        ("changed", "account a"),
        ("deleted", "token ci"),
    ];
    for (generation, (what, object)) in (before + 1..).zip(told) {
        let expected = (what.to_owned(), Some(generation), object.to_owned());
        assert_eq!(stream.change().await, expected);
        let (name, id, data) = audit.next().await.unwrap();
        let kind = object.split(' ').next().unwrap();
        assert_eq!(
            (name, id, &data["data"]["new"]),
            (format!("x.{kind}_change"), Some(generation), &what.into())
        );
        assert_eq!(data["object"]["type"], format!("x.{kind}"));
        assert_eq!(data["x.by"], json!({"kind": "loopback"}));
        assert!(!data.to_string().contains(secret));
    }
    let path = "/v1/audit?events=x.token_change";
    let mut again = Stream::open(&server, path, Some(before)).await;
    let (_, id, data) = again.next().await.unwrap();
    assert_eq!(
        (id, &data["object"]["uuid"]),
        (Some(before + 2), &uuid.into())
    );
}

#[tokio::test]
async fn who_made_a_change_is_told_and_when() {
    let server = Server::start();
    let before = OffsetDateTime::now_utc();
    let us = Caller::operator(DEFAULT_ACCOUNT);
    let new = NewToken {
        role: Role::Member,
        account: Selector::Uuid(DEFAULT_ACCOUNT),
        label: "ci".into(),
        lifetime: None,
    };
    let made = server.desired.create_token(&new, before).unwrap();
    let (token, secret) = made.outcome.unwrap();
    let start = made.generation;
    let ask = async |request: &str, body: Value, secret: Option<&str>| {
        let (method, path) = request.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if let Some(secret) = secret {
            request = request.header("authorization", format!("Bearer {secret}"));
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let response = server.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
    };
    let instance = json!({"name": "a", "network_interfaces": [{"ip": "10.0.0.1"}]});
    ask("POST /v1/instances", instance, Some(&secret)).await;
    let named = json!({"name": "a"});
    ask("PUT /v1/instances/start", named.clone(), None).await;
    // Nobody's word: as when a drain's deadline is over.
    let stop = StopRequest {
        selector: Selector::Name("a".into()),
        drain: Duration::ZERO,
        only_if: None,
    };
    let now = OffsetDateTime::now_utc();
    server.desired.stop_instances(us, &[stop], now).unwrap();
    let (uuid, account) = (token.uuid, DEFAULT_ACCOUNT);
    let told = [
        json!({"kind": "token", "uuid": uuid, "label": "ci", "account": account, "role": "member"}),
        json!({"kind": "loopback"}),
        json!({"kind": "agent"}),
    ];
    let path = format!("/v1/x/events?kind=instance&from={start}");
    let mut stream = Stream::open(&server, &path, None).await;
    let mut audit = Stream::open(&server, "/v1/audit", Some(start)).await;
    for by in told {
        let data = loop {
            let (name, _, data) = stream.next().await.unwrap();
            if name != "applied" {
                break data;
            }
        };
        assert_eq!(data["by"], by, "{data}");
        assert!(!data.to_string().contains(&secret));
        let (_, _, audited) = audit.next().await.unwrap();
        assert_eq!(audited["x.by"], by, "{audited}");
        // Both tell the time of the change, however much later they tell it.
        assert_eq!(audited["timestamp"], data["at"]);
        let at = OffsetDateTime::parse(data["at"].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(before <= at && at <= OffsetDateTime::now_utc(), "{at}");
    }
}

#[tokio::test]
async fn there_are_places_for_so_many_streams() {
    let server = Server::start();
    let mut streams = Vec::new();
    for _ in 0..MAX_SUBSCRIBERS {
        streams.push(Stream::open(&server, "/v1/audit", None).await);
    }
    let request = Request::builder()
        .uri("/v1/x/events")
        .body(Body::empty())
        .unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    streams.pop();
    Stream::open(&server, "/v1/x/events", None).await;
}
