//! Domains that name their certificate, and what answers tell of the certificates of domains.

use serde_json::json;

use super::certificates::{body, pair};
use super::*;

fn group(name: &str, port: u16, domains: Value) -> Value {
    json!({"name": name, "domains": domains,
           "services": [{"port": port, "protocol": "tcp", "handlers": []}]})
}

/// The names of the certificates of a group's domains.
async fn served(server: &Server, group: &str) -> Vec<Option<String>> {
    let path = format!("GET /v1/services?name={group}");
    let shown = server.item(&path, json!([])).await;
    let name = |domain: &Value| domain["certificate"]["name"].as_str().map(str::to_owned);
    shown["domains"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect()
}

fn some(names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| Some((*name).to_owned())).collect()
}

#[tokio::test]
async fn the_named_certificate_wins_over_the_exact_one_and_that_over_the_wildcard() {
    let server = Server::start();
    for (name, names) in [
        ("exact", &["a.example.com"][..]),
        ("all", &["*.example.com"]),
        ("other", &["a.example.com", "*.example.com"]),
    ] {
        let made = body(Some(name), names[0], names);
        server.item("POST /v1/certificates", made).await;
    }
    let other = server
        .item("GET /v1/certificates?name=other", json!([]))
        .await;
    let uuid = other["uuid"].clone();
    let domains = json!([
        {"name": "a.example.com.", "certificate": {"name": "all"}},
        {"name": "b.example.com.", "certificate": {"uuid": uuid}},
        {"name": "c.other.org."},
    ]);
    let made = server
        .item("POST /v1/services", group("named", 5000, domains))
        .await;
    assert_eq!(
        made["domains"][1]["certificate"],
        json!({"uuid": uuid, "name": "other", "state": "valid"})
    );
    assert_eq!(made["domains"][2], json!({"fqdn": "c.other.org"}));
    assert_eq!(made["domains"][0]["certificate"]["name"], "all");
    // The same in the instances' answers.
    let instance = json!({"name": "i", "network_interfaces": [{"ip": "10.0.0.1"}],
                          "service_group": {"name": "named"}});
    let instance = server.item("POST /v1/instances", instance).await;
    assert_eq!(
        instance["service_group"]["domains"], made["domains"],
        "{instance}"
    );
    // Without a word: the exact name wins over the wildcard; of several the one that lasts longest.
    let (chain, pkey) = pair(&["a.example.com"], -1..99);
    let longer =
        json!({"name": "longer", "common_name": "a.example.com", "chain": chain, "pkey": pkey});
    server.item("POST /v1/certificates", longer).await;
    let free = json!([{"name": "x.example.com."}]);
    server
        .item("POST /v1/services", group("free", 5001, free))
        .await;
    server
        .item(
            "PATCH /v1/services",
            json!({"name": "named", "prop": "domains", "op": "del", "value": [{"name": "a.example.com."}]}),
        )
        .await;
    server
        .item(
            "PATCH /v1/services",
            json!({"name": "free", "prop": "domains", "op": "add", "value": [{"name": "a.example.com."}]}),
        )
        .await;
    let of_free = served(&server, "free").await;
    assert_eq!(of_free[1], Some("longer".into()));
    assert!(
        matches!(of_free[0].as_deref(), Some("all" | "other")),
        "{of_free:?}"
    );
}

#[tokio::test]
async fn a_named_certificate_stays_and_stays_fitting() {
    let server = Server::start();
    let both = body(
        Some("both"),
        "a.example.com",
        &["a.example.com", "b.example.com"],
    );
    let made = server.item("POST /v1/certificates", both).await;
    let better = body(Some("better"), "b.example.com", &["b.example.com"]);
    server.item("POST /v1/certificates", better).await;
    for (name, port, fqdn) in [
        ("one", 5000, "b.example.com."),
        ("two", 5001, "a.example.com."),
    ] {
        let domains = json!([{"name": fqdn, "certificate": {"name": "both"}}]);
        server
            .item("POST /v1/services", group(name, port, domains))
            .await;
    }
    assert_eq!(served(&server, "one").await, some(&["both"]));
    server
        .fails(
            "DELETE /v1/certificates",
            json!({"name": "both"}),
            15,
            "Certificate 'both' is used by service group 'one' and 1 more",
        )
        .await;
    // Its new chain leaves out a domain that names it.
    let (chain, pkey) = pair(&["a.example.com"], -1..30);
    server
        .fails(
            "PUT /v1/certificates",
            json!({"name": "both", "chain": chain, "pkey": pkey}),
            30,
            "service group 'one' names it for its domain 'b.example.com'",
        )
        .await;
    let (chain, pkey) = pair(&["b.example.com", "a.example.com"], -1..60);
    let rotated = server
        .item(
            "PUT /v1/certificates",
            json!({"name": "both", "chain": chain, "pkey": pkey}),
        )
        .await;
    assert_eq!(rotated["uuid"], made["uuid"]);
    assert_eq!(served(&server, "one").await, some(&["both"]));
    // Once nothing names it or is matched by it, it can go, and leaves nothing behind.
    server
        .items(
            "DELETE /v1/services",
            json!([{"name": "one"}, {"name": "two"}]),
        )
        .await;
    server
        .items(
            "DELETE /v1/certificates",
            json!([{"name": "both"}, {"name": "better"}]),
        )
        .await;
    assert!(server.desired.current().certificates.is_empty());
}

#[tokio::test]
async fn what_cannot_be_named_changes_nothing() {
    let server = Server::start();
    let a = body(Some("a"), "a.example.com", &["a.example.com"]);
    server.item("POST /v1/certificates", a).await;
    let naming = |fqdn: &str, certificate: Value| {
        group(
            "g",
            5000,
            json!([{"name": fqdn, "certificate": certificate}]),
        )
    };
    server
        .fails(
            "POST /v1/services",
            naming("a.example.com.", json!({"name": "x"})),
            8,
            "Domain 'a.example.com' names a certificate that does not exist: No certificate with \
             name 'x'",
        )
        .await;
    server
        .fails(
            "POST /v1/services",
            naming("b.example.com.", json!({"name": "a"})),
            30,
            "Certificate 'a' is for 'a.example.com', not for the domain 'b.example.com'",
        )
        .await;
    let made = naming("a.example.com.", json!({"name": "a"}));
    server.item("POST /v1/services", made).await;
    let wrong = json!([{"name": "b.example.com.", "certificate": {"name": "a"}}]);
    server
        .fails(
            "PATCH /v1/services",
            json!({"name": "g", "prop": "domains", "op": "add", "value": wrong}),
            30,
            "not for the domain 'b.example.com'",
        )
        .await;
    let implicit = json!({"name": "i", "network_interfaces": [{"ip": "10.0.0.1"}],
        "service_group": {"services": [{"port": 5001, "protocol": "tcp", "handlers": []}],
                          "domains": [{"name": "c.example.com.", "certificate": {"name": "a"}}]}});
    server
        .fails("POST /v1/instances", implicit, 30, "not for the domain")
        .await;
    server
        .refuses(
            "POST /v1/services",
            r#"{"services":[{"port":1,"protocol":"tcp"}],"domains":[{"name":"a","certificate":{"name":"a"}}]}"#,
            400,
            "must be fully qualified",
        )
        .await;
}
