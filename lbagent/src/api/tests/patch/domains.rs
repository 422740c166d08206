//! Names of groups, and which are refused.

use super::*;

#[tokio::test]
async fn domains_that_cannot_be_had() {
    let server = Server::start();
    for (domains, message) in [
        (json!([{"name": "www"}]), "reserved"),
        (json!([{"name": "WWW.lb.internal."}]), "reserved"),
        (json!([{"name": "lb.internal."}]), "reserved"),
        (
            json!([{"name": "*.example.com."}]),
            "must be fully qualified",
        ),
        (
            json!([{"name": "*", "certificate": {"name": "c"}}]),
            "must be fully qualified",
        ),
        (
            json!([{"name": "x", "certificate": {"name": "c"}}]),
            "must be fully qualified",
        ),
        (json!([{"name": "x"}, {"name": "X"}]), "is given twice"),
    ] {
        let body = json!({"services": [raw(1)], "domains": domains});
        let (status, answer) = server.call("POST /v1/services", body.to_string()).await;
        assert_eq!(status, 400, "{answer}");
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{answer}");
    }
    let names = ["*.example.com"];
    let certificate = super::certificates::body(Some("c"), names[0], &names);
    let certificate = server.item("POST /v1/certificates", certificate).await;
    let body = json!({"services": [raw(1)],
        "domains": [{"name": "*.example.com.", "certificate": {"name": "c"}}]});
    let group = server.item("POST /v1/services", body).await;
    let certificate = json!({"uuid": certificate["uuid"], "name": "c", "state": "valid"});
    let expected = json!([{"fqdn": "*.example.com", "certificate": certificate}]);
    assert_eq!(group["domains"], expected);
}

#[tokio::test]
async fn a_made_up_name_is_the_domain_too() {
    let server = Server::start();
    let group = server
        .item("POST /v1/services", json!({"services": [raw(1)]}))
        .await;
    let name = group["name"].as_str().unwrap();
    let parts: Vec<_> = name.split('-').collect();
    assert_eq!((parts.len(), parts[2].len()), (3, 8), "{name}");
    assert_eq!(group["fqdn"], format!("{name}.lb.internal"));
}
