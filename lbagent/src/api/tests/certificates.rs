//! `/v1/certificates`.

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::*;

/// Chain and key for these names, valid for so many days around now.
pub(super) fn pair(names: &[&str], days: std::ops::Range<i64>) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    let now = OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::days(days.start);
    params.not_after = now + time::Duration::days(days.end);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub(super) fn body(name: Option<&str>, common_name: &str, names: &[&str]) -> Value {
    let (chain, pkey) = pair(names, -1..30);
    json!({"name": name, "common_name": common_name, "chain": chain, "pkey": pkey})
}

fn raw_service(name: &str, port: u16, domain: &str) -> Value {
    json!({"name": name, "domains": [{"name": domain}],
           "services": [{"port": port, "protocol": "tcp", "handlers": []}]})
}

#[tokio::test]
async fn a_certificate_is_stored_shown_and_deleted_without_its_key() {
    let server = Server::start();
    let names = ["www.example.com", "example.com"];
    let made = server
        .item(
            "POST /v1/certificates",
            body(None, "www.example.com.", &names),
        )
        .await;
    let name = made["name"].as_str().unwrap();
    let suffix = name.strip_prefix("www.example.com-").unwrap();
    assert_eq!(suffix.len(), 5, "{made}");
    assert_eq!(
        (&made["state"], &made["service_groups"]),
        (&"valid".into(), &json!([]))
    );
    assert_eq!(made["common_name"], "www.example.com");
    let uuid = made["uuid"].as_str().unwrap();
    for path in [
        "GET /v1/certificates".to_owned(),
        format!("GET /v1/certificates/{uuid}"),
        format!("GET /v1/certificates?name={name}"),
    ] {
        let (status, answer) = server.call(&path, "").await;
        let text = answer.to_string();
        assert!(status == 200 && text.contains(name), "{path}: {text}");
        assert!(
            !text.contains("PRIVATE") && !text.contains("pkey"),
            "{path}: {text}"
        );
    }
    let shown = format!("{:?}", server.desired.current());
    assert!(
        shown.contains(name) && !shown.contains("PRIVATE"),
        "{shown}"
    );
    let short = server
        .item("GET /v1/certificates?details=false", json!([]))
        .await;
    assert_eq!(short.as_object().unwrap().len(), 3, "{short}");
    let gone = server
        .item("DELETE /v1/certificates", json!([{"name": name}]))
        .await;
    assert_eq!(gone["uuid"], uuid);
    assert_eq!(
        server.items("GET /v1/certificates", json!([])).await.len(),
        0
    );
    let left = server.desired.current();
    for key in ["/certificates", "/certificate-keys"] {
        let key = format!("{key}/{uuid}");
        assert_eq!(left.revisions.get(&key), None, "{key} stays behind");
    }
}

#[tokio::test]
async fn mistakes_change_nothing() {
    let server = Server::start();
    server
        .item(
            "POST /v1/certificates",
            body(Some("a"), "a.example.com", &["a.example.com"]),
        )
        .await;
    let (chain, pkey) = pair(&["b.example.com"], -1..30);
    let other = pair(&["b.example.com"], -1..30).1;
    server
        .fails(
            "POST /v1/certificates",
            body(Some("a"), "a.example.com", &["a.example.com"]),
            23,
            "A certificate with name 'a' already exists",
        )
        .await;
    server
        .fails(
            "POST /v1/certificates",
            body(None, "a.example.com", &["b.example.com"]),
            30,
            "The certificate is for 'b.example.com', not for 'a.example.com'",
        )
        .await;
    server
        .fails(
            "DELETE /v1/certificates",
            json!({"name": "x"}),
            8,
            "No certificate with name 'x'",
        )
        .await;
    server
        .fails(
            "PUT /v1/certificates",
            json!({"name": "x", "chain": chain, "pkey": pkey}),
            8,
            "No certificate with name 'x'",
        )
        .await;
    server
        .fails(
            "PUT /v1/certificates",
            json!({"name": "a", "chain": chain, "pkey": pkey}),
            30,
            "not for 'a.example.com'",
        )
        .await;
    let wrong = json!({"cn": "b.example.com", "chain": chain, "pkey": other}).to_string();
    let before = server.desired.current();
    let (status, answer) = server.call("POST /v1/certificates", wrong).await;
    assert_eq!(status, 400, "{answer}");
    let text = "Value of 'pkey' is not the key of the first certificate of 'chain'";
    assert_eq!(answer["message"], text);
    assert_eq!(before, server.desired.current());
    server
        .refuses(
            "POST /v1/certificates",
            r#"{"cn":"b.example.com","chain":"x","pkey":"y"}"#,
            400,
            "Value of 'chain' holds no certificate in PEM",
        )
        .await;
    server
        .refuses(
            "POST /v1/certificates",
            r#"{"cn":"b.example.com","pkey":"y"}"#,
            400,
            "Missing member 'chain'",
        )
        .await;
    server
        .refuses(
            "PUT /v1/certificates",
            "[]",
            400,
            "Missing member 'uuid' or 'name'",
        )
        .await;
    server
        .refuses(
            "DELETE /v1/certificates/nope",
            "",
            400,
            "Invalid uuid 'nope'",
        )
        .await;
}

#[tokio::test]
async fn domains_choose_their_certificate() {
    let server = Server::start();
    let all = body(Some("all"), "*.example.com", &["*.example.com"]);
    server.item("POST /v1/certificates", all).await;
    for (name, port, domain) in [
        ("shop", 5000, "shop.example.com."),
        ("deep", 5001, "a.b.example.com."),
    ] {
        server
            .item("POST /v1/services", raw_service(name, port, domain))
            .await;
    }
    let users = async |certificate: &str| {
        let path = format!("GET /v1/certificates?name={certificate}");
        let shown = server.item(&path, json!([])).await;
        let groups = shown["service_groups"].as_array().unwrap().clone();
        let name = |group: &Value| group["name"].as_str().unwrap().to_owned();
        groups.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(users("all").await, ["shop"]);
    server
        .fails(
            "DELETE /v1/certificates",
            json!({"name": "all"}),
            15,
            "Certificate 'all' is used by service group 'shop'",
        )
        .await;
    // The exact name wins over the wildcard.
    let exact = body(Some("exact"), "shop.example.com", &["shop.example.com"]);
    server.item("POST /v1/certificates", exact).await;
    assert_eq!(
        (users("exact").await, users("all").await),
        (vec!["shop".into()], vec![])
    );
    server
        .item("DELETE /v1/certificates", json!({"name": "all"}))
        .await;
    server
        .item("DELETE /v1/services", json!({"name": "shop"}))
        .await;
    server
        .item("DELETE /v1/certificates", json!({"name": "exact"}))
        .await;
}

#[tokio::test]
async fn a_rotation_keeps_the_identity_and_dates_are_told() {
    let server = Server::start();
    let (chain, pkey) = pair(&["a.example.com"], -9..-2);
    let expired =
        json!({"name": "a", "common_name": "a.example.com", "chain": chain, "pkey": pkey});
    let (_, answer) = server
        .call("POST /v1/certificates", expired.to_string())
        .await;
    let made = answer["data"]["certificates"][0].clone();
    assert_eq!(made["state"], "error", "{answer}");
    let warning = answer["warnings"][0]["message"].as_str().unwrap();
    assert!(warning.contains("Certificate 'a' expired on"), "{warning}");
    let (chain, pkey) = pair(&["a.example.com", "b.example.com"], -1..9);
    let path = format!("PUT /v1/certificates/{}", made["uuid"].as_str().unwrap());
    let rotated = server
        .item(&path, json!({"chain": chain, "pkey": pkey}))
        .await;
    assert_eq!(
        (&rotated["uuid"], &rotated["state"]),
        (&made["uuid"], &"valid".into())
    );
    assert_ne!(rotated["serial_number"], made["serial_number"]);
    let (chain, pkey) = pair(&["a.example.com"], 1..9);
    let later = json!([{"name": "a", "chain": chain, "pkey": pkey}]).to_string();
    let (_, answer) = server.call("PUT /v1/certificates", later).await;
    let warning = answer["warnings"][0]["message"].as_str().unwrap();
    assert!(warning.contains("is not valid before"), "{warning}");
}

#[tokio::test]
async fn certificates_that_end_soon_are_conditions() {
    let server = Server::start();
    for (name, days) in [
        ("over", -9..-2),
        ("now", -9..6),
        ("soon", -9..29),
        ("later", -9..31),
    ] {
        let domain = format!("{name}.example.com");
        let (chain, pkey) = pair(&[&domain], days);
        let body = json!({"name": name, "common_name": domain, "chain": chain, "pkey": pkey});
        server.call("POST /v1/certificates", body.to_string()).await;
    }
    let (_, answer) = server.call("GET /v1/x/status", "").await;
    let conditions = answer["data"]["status"]["conditions"].as_array().unwrap();
    let found: std::collections::BTreeSet<_> = conditions
        .iter()
        .map(|it| ["name", "severity", "reason"].map(|member| it[member].as_str().unwrap()))
        .collect();
    let expected = [
        ["now", "error", "certificate_expires"],
        ["over", "error", "certificate_expired"],
        ["soon", "warning", "certificate_expires"],
    ];
    assert_eq!(found, expected.into(), "{answer}");
}
