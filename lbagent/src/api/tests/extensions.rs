//! Status, counters, export and import.

use serde_json::json;

use super::*;

async fn publish(server: &Server) {
    let group = json!({"name": "db", "services": [{"port": 5432, "protocol": "tcp"}]});
    server.item("POST /v1/services", group).await;
    let lost = json!({"name": "lost", "autostart": true, "service_group": {"name": "db"},
                      "network_interfaces": [{"ip": "10.9.9.9"}]});
    let here = json!({"name": "here", "autostart": true, "service_group": {"name": "db"},
                      "network_interfaces": [{"ip": "10.0.0.1"}]});
    server
        .items("POST /v1/instances", json!([lost, here]))
        .await;
}

#[tokio::test]
async fn the_status_names_what_is_wrong() {
    let server = Server::start();
    publish(&server).await;
    let (_, answer) = server.call("GET /v1/x/status", "").await;
    let status = &answer["data"]["status"];
    assert_eq!(status["generation_desired"], status["generation_applied"]);
    assert_eq!(status["vips"], json!(["192.0.2.1", "192.0.2.2"]));
    assert_eq!(status["interfaces"][0]["mode"], "native");
    assert_eq!(status["agent"]["pid"], std::process::id());
    let first = &status["conditions"][0];
    assert_eq!(
        (&first["name"], &first["severity"]),
        (&"lost".into(), &"error".into()),
        "{status}"
    );
    assert!(
        first["message"]
            .as_str()
            .unwrap()
            .contains("no route to 10.9.9.9"),
        "{first}"
    );
}

#[tokio::test]
async fn counters_list_every_outcome() {
    let server = Server::start();
    let (_, answer) = server.call("GET /v1/x/counters", "").await;
    let outcomes = answer["data"]["counters"]["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), lbagent_common::Outcome::ALL.len());
}

#[tokio::test]
async fn health_is_told() {
    let server = Server::start();
    publish(&server).await;
    let (_, answer) = server.call("GET /v1/healthz", "").await;
    assert_eq!(
        answer["data"]["checks"],
        json!({"dataplane": "healthy", "interfaces": "healthy"})
    );
}

#[tokio::test]
async fn what_was_exported_can_be_imported() {
    let server = Server::start();
    publish(&server).await;
    let before = server.desired.current();
    let (_, answer) = server.call("GET /v1/x/state", "").await;
    let document = answer["data"]["state"].clone();
    assert_eq!(document["paths"]["10.0.0.1"]["onlink_prefix"], 24);
    assert_eq!(document["hash_seed"], server.desired.hash_seed());

    // Elsewhere, in place of something else that has the same port.
    let other = Server::start();
    let group = json!({"name": "x", "services": [{"port": 5432, "protocol": "tcp"}]});
    other.item("POST /v1/services", group).await;
    let (status, answer) = other.call("PUT /v1/x/state", document.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["data"]["imported"]["instances"], 2);
    let after = other.desired.current();
    assert_eq!(after.service_groups, before.service_groups);
    assert_eq!(after.instances, before.instances);
    // Its claims are in force, and those of what went are not.
    let taken = json!({"services": [{"port": 5432, "protocol": "tcp"}]});
    other
        .fails("POST /v1/services", taken, 23, "by service group 'db'")
        .await;
    other
        .item(
            "POST /v1/services",
            json!({"name": "x", "services": [{"port": 1, "protocol": "tcp"}]}),
        )
        .await;

    // The same again changes nothing but what was added.
    let generation = server.desired.current().generation;
    let (_, answer) = server.call("PUT /v1/x/state", document.to_string()).await;
    assert_eq!(answer["data"]["imported"]["generation"], generation);
}

#[tokio::test]
async fn an_import_is_all_or_nothing() {
    let server = Server::start();
    publish(&server).await;
    let (_, answer) = server.call("GET /v1/x/state", "").await;
    let document = answer["data"]["state"].clone();
    let before = server.desired.current();
    let mut wrong = vec![];
    let mut change = |message: &str, edit: &dyn Fn(&mut Value)| {
        let mut document = document.clone();
        edit(&mut document);
        wrong.push((message.to_owned(), document));
    };
    change("format 2", &|d| d["format"] = 2.into());
    change("Instance 'lost': ", &|d| {
        let position = d["instances"][0]["name"] == "lost";
        let index = usize::from(!position);
        d["instances"][index]["addresses"] = json!(["127.0.0.1/8"]);
    });
    change("No service group with uuid", &|d| {
        d["service_groups"] = json!([])
    });
    change("Invalid name ''", &|d| {
        d["service_groups"][0]["name"] = "".into()
    });
    change("occurs twice", &|d| {
        let twin = d["instances"][0].clone();
        d["instances"].as_array_mut().unwrap().push(twin);
    });
    change("Unknown member 'extra'", &|d| d["extra"] = 1.into());
    for (message, document) in wrong {
        let (status, answer) = server.call("PUT /v1/x/state", document.to_string()).await;
        assert_eq!(status, 400, "{message}: {answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(&message),
            "{message}: {answer}"
        );
        assert_eq!(server.desired.current(), before, "{message}");
    }
}

#[tokio::test]
async fn private_keys_leave_only_when_they_are_asked_for() {
    let server = Server::start();
    let names = ["a.example.com"];
    let made = super::certificates::body(Some("a"), names[0], &names);
    server.item("POST /v1/certificates", made).await;
    let (_, answer) = server.call("GET /v1/x/state", "").await;
    assert!(!answer.to_string().contains("PRIVATE"));
    let without = answer["data"]["state"].clone();
    assert_eq!(without["certificates"][0]["name"], "a", "{without}");
    let (_, answer) = server.call("GET /v1/x/state?private_keys=true", "").await;
    let with = answer["data"]["state"].clone();
    assert!(with.to_string().contains("PRIVATE"));

    let other = Server::start();
    let before = other.desired.current();
    let (status, answer) = other.call("PUT /v1/x/state", without.to_string()).await;
    assert_eq!(status, 400, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("no private keys of these certificates"),
        "{answer}"
    );
    assert!(message.contains(": 'a';"), "{answer}");
    assert_eq!(other.desired.current(), before);
    let (status, answer) = other.call("PUT /v1/x/state", with.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["data"]["imported"]["certificates"], 1);
    let keys = |server: &Server| server.desired.with_private_keys().unwrap().1;
    assert_eq!(keys(&other), keys(&server));
    // Now it has the key.
    let (status, _) = other.call("PUT /v1/x/state", without.to_string()).await;
    assert_eq!((status, keys(&other)), (200, keys(&server)));
    for (request, words) in [
        ("GET /v1/x/state?private_keys=1", "expected true or false"),
        (
            "GET /v1/x/state?keys=true",
            "Unknown query parameter 'keys'",
        ),
    ] {
        server.refuses(request, "", 400, words).await;
    }
}
