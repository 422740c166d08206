//! The curl examples of the services documentation of 2024, run as they are printed there, against a
//! listener that speaks its dialect. Only the host and the token are put in.

use lbagent_tests::agent::{Agent, Ended};
use lbagent_tests::gateway::Gateway;
use lbagent_tests::topology::Shape;
use lbagent_tests::{require_root, skip};
use serde_json::{Value, json};

const LISTEN: &str = "127.0.0.1:7481";

const CREATE: &str = r#"curl -X POST \
-H "Authorization: Bearer ${KRAFTCLOUD_TOKEN}" \
-H "Content-Type: application/json" \
"https://api.fra0.kraft.cloud/v1/services" \
-d '{
"services": [
{
"port": 443,
"destination_port": 8080,
"handlers": [
"tls",
"http"
]
}
]
}'"#;

const STATUS: &str = r#"curl -X GET \
-H "Authorization: Bearer ${KRAFTCLOUD_TOKEN}" \
"https://api.fra0.kraft.cloud/v1/services/3b5b4c36-2c9b-46e4-80c6-7e5b561938c2""#;

const DELETE: &str = r#"curl -X DELETE \
-H "Authorization: Bearer ${KRAFTCLOUD_TOKEN}" \
"https://api.fra0.kraft.cloud/v1/services/3b5b4c36-2c9b-46e4-80c6-7e5b561938c2""#;

const LIST: &str = r#"curl -X GET \
-H "Authorization: Bearer ${KRAFTCLOUD_TOKEN}" \
"https://api.fra0.kraft.cloud/v1/services/list""#;

const LOOKUP: &str = r#"curl -X GET \
-H "Authorization: Bearer ${KRAFTCLOUD_TOKEN}" \
-H "Content-Type: application/json" \
"https://api.fra0.kraft.cloud/v1/services/list" \
-d '{
"fqdn": "young-monkey-uq6dxq0u.fra0.kraft.host"
}'"#;

const UUID: &str = "3b5b4c36-2c9b-46e4-80c6-7e5b561938c2";
const INSTANCE: &str = "77d0316a-fbbe-488d-8618-5bf7a612477a";
const NAME: &str = "young-monkey-uq6dxq0u";
const FQDN: &str = "young-monkey-uq6dxq0u.fra0.kraft.host";

/// The objects that the documentation's answers are about.
fn documented_state() -> Value {
    let group = |uuid: &str, name: &str, persistent: bool| {
        json!({
            "uuid": uuid, "name": name, "created_at": "2023-08-21T16:38:15Z",
            "persistent": persistent, "domains": [format!("{name}.fra0.kraft.host")],
            "services": [{"port": 443, "destination_port": 8080, "handlers": ["tls", "http"]}],
        })
    };
    let second = "d3a7fe17-0a44-4862-836f-d5f9a6a0b2f8";
    json!({
        "format": 1,
        "service_groups": [group(UUID, NAME, false), group(second, "patient-butterfly-9br0p9e5", true)],
        "instances": [{
            "uuid": INSTANCE, "name": "one", "created_at": "2023-08-21T16:38:15Z",
            "state": "stopped", "service_group": UUID, "addresses": ["10.66.0.11/32"],
        }],
    })
}

/// Runs an example in the agent's namespace.
#[track_caller]
fn run(gateway: &Gateway, example: &str) -> Value {
    let here = example.replace("https://api.fra0.kraft.cloud", &format!("http://{LISTEN}"));
    assert_ne!(here, example, "no host to put in");
    let mut shell = gateway.topology.gateway.command("sh");
    let shell = shell.args(["-c", &here]).env("KRAFTCLOUD_TOKEN", "secret");
    let ended = Ended::of(shell).unwrap();
    assert_eq!(ended.code, 0, "{example}\n{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{example}\n{}", ended.stdout))
}

fn answer(items: Value) -> Value {
    json!({ "status": "success", "data": { "service_groups": items } })
}

fn import(agent: &Agent, state: &Value) {
    agent.call("PUT", "/v1/x/state", Some(state)).unwrap();
}

#[test]
fn every_example_gets_the_documented_answer() {
    require_root!();
    if std::process::Command::new("curl")
        .arg("--version")
        .output()
        .is_err()
    {
        skip!("curl is not installed");
    }
    let gateway = Gateway::start_with(Shape::Routed, 1, |config| {
        config.api.insert("listen_2024", LISTEN.into());
        config.api.insert("metro_domain", "fra0.kraft.host".into());
    })
    .unwrap();
    import(&gateway.agent, &documented_state());

    let group = json!({
        "status": "success", "uuid": UUID, "name": NAME, "created_at": "2023-08-21T16:38:15Z",
        "fqdn": FQDN, "instances": [INSTANCE], "persistent": false, "autoscale": false,
        "services": [{"port": 443, "destination_port": 8080, "handlers": ["tls", "http"]}],
    });
    assert_eq!(run(&gateway, STATUS), answer(json!([group])));

    let mut first = json!({ "uuid": UUID, "name": NAME });
    let second = json!({
        "uuid": "d3a7fe17-0a44-4862-836f-d5f9a6a0b2f8", "name": "patient-butterfly-9br0p9e5",
    });
    assert_eq!(run(&gateway, LIST), answer(json!([first, second])));
    assert_eq!(run(&gateway, LOOKUP), answer(json!([first])));

    // Deleting needs a group that nothing is attached to.
    let refused = run(&gateway, DELETE);
    assert_eq!(
        refused["data"]["service_groups"][0]["error"], 15,
        "{refused}"
    );
    let mut state = documented_state();
    state["instances"] = json!([]);
    import(&gateway.agent, &state);
    first["status"] = "success".into();
    assert_eq!(run(&gateway, DELETE), answer(json!([first])));

    let created = run(&gateway, CREATE);
    let item = created["data"]["service_groups"][0].as_object().unwrap();
    let name = item["name"].as_str().unwrap();
    let expected = json!({
        "status": "success", "uuid": item["uuid"], "name": name,
        "fqdn": format!("{name}.fra0.kraft.host"),
    });
    assert_eq!(created, answer(json!([expected])));
    let parts: Vec<&str> = name.split('-').collect();
    assert!(parts.len() == 3 && parts[2].len() == 8, "{name}");
}
