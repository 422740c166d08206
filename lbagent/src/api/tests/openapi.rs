//! The description against the router, path by path and method by method.

use std::collections::BTreeSet;

use axum::response::Response;

use super::*;

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

fn described() -> Value {
    described_in(Dialect::Current)
}

fn described_in(dialect: Dialect) -> Value {
    serde_json::from_str(document(dialect)).unwrap()
}

/// Every path with its methods.
fn paths(document: &Value) -> Vec<(String, BTreeSet<String>)> {
    let methods = |item: &Value| {
        let methods = item.as_object().unwrap().keys();
        methods.map(|method| method.to_uppercase()).collect()
    };
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, item)| (path.clone(), methods(item)))
        .collect()
}

#[test]
fn the_files_in_docs_are_what_the_code_says() {
    for (name, dialect) in [
        ("openapi.json", Dialect::Current),
        ("openapi-2024.json", Dialect::Of2024),
    ] {
        let file = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let written = std::fs::read_to_string(file).unwrap_or_default();
        // Not compared by `assert_eq!`, which would print both.
        assert!(
            written == document(dialect),
            "docs/{name} is out of date; run `cargo xtask openapi` and commit it"
        );
    }
}

#[tokio::test]
async fn the_listener_of_2024_describes_its_own_words() {
    let server = Server::start();
    let request = Request::get("/v1/openapi.json")
        .body(Body::empty())
        .unwrap();
    let (_, served) = answered(server.router_2024.clone(), request).await;
    assert_eq!(served, described_in(Dialect::Of2024));
    let (ours, its) = (described(), served);
    assert_eq!(paths(&ours), paths(&its));
    let group = &its["components"]["schemas"]["Group2024"]["properties"];
    assert!(group["fqdn"].is_object() && group["domains"].is_null());
    let mut differing = BTreeSet::new();
    for (path, item) in its["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ours["paths"][path][method] != *operation {
                differing.insert(format!("{method} {path}"));
            }
        }
    }
    let expected = [
        "get /v1/services",
        "get /v1/services/list",
        "get /v1/services/{uuid}",
        "post /v1/services",
    ];
    assert_eq!(differing, expected.map(str::to_owned).into());
    for word in ["\"warnings\":", "\"op_time_us\":"] {
        let text = document(Dialect::Of2024);
        let place = text
            .find(word)
            .map(|place| &text[place.saturating_sub(300)..]);
        assert!(place.is_none(), "{word} at {}", &place.unwrap()[..400]);
    }
}

async fn ask(server: &Server, method: &str, path: &str) -> Response {
    let path = path.replace("{uuid}", &uuid::Uuid::nil().to_string());
    let request = Request::builder()
        .method(method)
        .uri(path.replace("{name}", "x"));
    let request = request.body(Body::empty()).unwrap();
    server.router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn what_is_not_described_is_not_served() {
    let server = Server::start();
    for (path, mut methods) in paths(&described()) {
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        for method in METHODS.iter().filter(|method| !methods.contains(**method)) {
            let response = ask(&server, method, &path).await;
            assert_eq!(response.status(), 405, "{method} {path}");
            let allowed = response.headers()[header::ALLOW].to_str().unwrap();
            let allowed: BTreeSet<_> = allowed
                .split(',')
                .map(|word| word.trim().to_owned())
                .collect();
            assert_eq!(allowed, methods, "{method} {path}");
            if *method != "HEAD" {
                let body: Value = serde_json::from_str(&text(response).await).unwrap();
                assert_eq!(body["errors"][0]["status"], 405, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_described_asks_for_a_token_or_is_no_secret() {
    let server = Server::with_token(Some("s3cret"));
    let document = described();
    for (path, methods) in paths(&document) {
        for method in methods {
            let operation = &document["paths"][&path][method.to_lowercase()];
            let is_public = operation["security"] == serde_json::json!([]);
            let response = ask(&server, &method, &path).await;
            let status = response.status();
            assert_eq!(status, if is_public { 200 } else { 401 }, "{method} {path}");
            let challenge = response.headers().get(header::WWW_AUTHENTICATE);
            assert_eq!(challenge.is_none(), is_public, "{method} {path}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.contains_key(status.as_str()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn references_lead_somewhere_and_names_are_unique() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = described();
    for document in [&document, &described_in(Dialect::Of2024)] {
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(found.len() > 100, "{found:?}");
        for reference in found {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
        }
    }
    let mut names = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} twice");
        }
    }
}

#[tokio::test]
async fn the_page_has_everything_and_loads_nothing_from_elsewhere() {
    let server = Server::with_token(Some("s3cret"));
    let response = ask(&server, "GET", "/v1/docs").await;
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self';"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = text(response).await;
    let document = described();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
        }
    }
    for name in document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(
            page.contains(&format!("<section id=\"schema-{name}\">")),
            "{name}"
        );
    }
    for attribute in ["src=", "style=", "<script", "<style", "@import", "url("] {
        assert!(!page.contains(attribute), "{attribute}");
    }
    for (place, _) in page.match_indices("href=\"") {
        let target = &page[place + 6..];
        assert!(
            target.starts_with('#') || target.starts_with("/v1/"),
            "{}",
            &target[..40]
        );
    }
    let style = text(ask(&server, "GET", "/v1/docs/style.css").await).await;
    assert!(!style.contains("url(") && !style.contains("@import"));
}
