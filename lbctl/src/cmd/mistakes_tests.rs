//! An operator's mistakes, from the command line to the one line on stderr.

use clap::Parser;
use serde_json::{Value, json};

use crate::stub;

fn done(data: Value) -> (&'static str, String) {
    (
        "200 OK",
        json!({"status": "success", "data": data}).to_string(),
    )
}

fn failed(key: &str, item: Value) -> (&'static str, String) {
    let mut item = item;
    item["status"] = "error".into();
    let message = "Failed to perform all operations";
    let body = json!({"status": "error", "message": message, "data": {key: [item]}});
    ("200 OK", body.to_string())
}

fn group(name: &str, services: Value) -> Value {
    json!({"status": "success", "uuid": "6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001", "name": name,
           "created_at": "2026-01-02T03:04:05Z", "persistent": true, "soft_limit": 1,
           "hard_limit": 65535, "services": services})
}

fn groups() -> (&'static str, String) {
    let raw = json!([{"port": 5432, "destination_port": 5432, "protocol": "tcp", "handlers": []}]);
    done(json!({"service_groups": [group("web", json!([])), group("db", raw)]}))
}

fn missing(noun: &str, key: &str, name: &str) -> (&'static str, String) {
    let message = format!("No {noun} with name '{name}'");
    failed(key, json!({"name": name, "error": 8, "message": message}))
}

/// Runs `lbctl LINE` against an agent that gives these answers, and expects failure.
#[track_caller]
fn check(line: &str, answers: Vec<(&'static str, String)>, paths: &[&str], expected: &str) {
    let (endpoint, server) = stub::start(answers);
    let endpoint = endpoint.to_string();
    let arguments = ["lbctl", "--endpoint", &endpoint]
        .into_iter()
        .chain(line.split(' '));
    let error = crate::run(crate::Cli::try_parse_from(arguments).unwrap()).unwrap_err();
    let requests = server.join().unwrap();
    let heads: Vec<&str> = requests
        .iter()
        .map(|(head, _)| head.split(" HTTP/").next().unwrap())
        .collect();
    assert_eq!(heads, paths);
    assert_eq!(
        (error.exit_code(), error.lines()),
        (1, vec![expected.to_owned()])
    );
}

#[test]
fn unknown_names() {
    check(
        "service get wbe",
        vec![missing("service group", "service_groups", "wbe"), groups()],
        &["GET /v1/services?name=wbe", "GET /v1/services?count=1000"],
        "lbctl: No service group with name 'wbe'; did you mean 'web'? `lbctl service ls` lists \
         them all",
    );
    check(
        "service rm zzz",
        vec![missing("service group", "service_groups", "zzz"), groups()],
        &["DELETE /v1/services", "GET /v1/services?count=1000"],
        "lbctl: No service group with name 'zzz'; `lbctl service ls` lists them all",
    );
    let instances = json!({"instances": [group("backend-1", json!([]))]});
    check(
        "instance stop backend1 --drain 1s",
        vec![
            missing("instance", "instances", "backend1"),
            done(instances),
        ],
        &["PUT /v1/instances/stop", "GET /v1/instances?count=1000"],
        "lbctl: No instance with name 'backend1'; did you mean 'backend-1'? `lbctl instance ls` \
         lists them all",
    );
    check(
        "instance create -n a --ip 10.0.0.7 -g wbe",
        vec![
            failed(
                "instances",
                json!({"name": "a", "error": 8, "message": "no such group"}),
            ),
            missing("service group", "service_groups", "wbe"),
            groups(),
        ],
        &[
            "POST /v1/instances",
            "GET /v1/services?name=wbe",
            "GET /v1/services?count=1000",
        ],
        "lbctl: No service group with name 'wbe'; did you mean 'web'? `lbctl service ls` lists \
         them all",
    );
}

#[test]
fn a_port_or_a_name_that_is_taken() {
    let taken = |message: &str| {
        failed(
            "service_groups",
            json!({"name": "new", "error": 23, "message": message}),
        )
    };
    check(
        "service create -n new 5432/tcp",
        vec![taken("Port taken"), groups()],
        &["POST /v1/services", "GET /v1/services?count=1000"],
        "lbctl: port 5432/tcp is taken by service group 'db'; choose another port, or another \
         VIP with --ip, or remove that group with `lbctl service rm db`",
    );
    check(
        "service create -n new 5432/tcp",
        vec![taken("Port 5432/tcp belongs to 'db', says 'new'"), groups()],
        &["POST /v1/services", "GET /v1/services?count=1000"],
        "lbctl: Port 5432/tcp belongs to 'db', says 'new'",
    );
    check(
        "service create -n web 1/tcp",
        vec![taken("Name taken"), groups()],
        &["POST /v1/services", "GET /v1/services?count=1000"],
        "lbctl: the name 'web' is taken; choose another, or remove that service group with \
         `lbctl service rm web`",
    );
}

#[test]
fn an_address_that_is_nobodys() {
    let status = json!({"status": {
        "agent": {"version": "0.1.0", "abi_version": 1, "pid": 1,
                  "started_at": "2026-01-02T03:04:05Z"},
        "generation_desired": 1, "generation_applied": 1, "vips": ["192.0.2.1", "2001:db8::1"],
        "interfaces": [], "conditions": []}});
    let refusal = json!({"status": "error", "message": "Invalid ip", "errors": [{"status": 400}]});
    check(
        "service create --ip 192.0.2.9 1/tcp",
        vec![("400 Bad Request", refusal.to_string()), done(status)],
        &["POST /v1/services", "GET /v1/x/status"],
        "lbctl: 192.0.2.9 is no VIP of this gateway, whose VIPs are 192.0.2.1 2001:db8::1; add \
         it to `vips` in the agent's configuration, or leave --ip away",
    );
}

#[test]
fn a_group_that_is_still_in_use() {
    let item = json!({"name": "web", "error": 15, "message": "Service group 'web' has instances"});
    check(
        "service rm web",
        vec![failed("service_groups", item)],
        &["DELETE /v1/services"],
        "lbctl: Service group 'web' has instances; remove its instances first: `lbctl instance \
         ls` lists them, `lbctl instance rm` removes them",
    );
}
