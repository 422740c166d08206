use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::stub;

type Answers = Vec<(&'static str, String)>;

fn done(policy: &Value) -> (&'static str, String) {
    let body = json!({"status": "success", "data": {"policy": policy}});
    ("200 OK", body.to_string())
}

fn refusal(status: &'static str, message: &str) -> (&'static str, String) {
    (
        status,
        json!({"status": "error", "message": message}).to_string(),
    )
}

/// Runs `lbctl LINE` against an agent that gives these answers; returns its requests, (method and
/// path, body), and how it ended.
fn run(line: &str, answers: Answers) -> (Vec<(String, String)>, Result<(), CtlError>) {
    let (endpoint, server) = stub::start(answers);
    let endpoint = endpoint.to_string();
    let arguments = ["lbctl", "--endpoint", &endpoint].into_iter();
    let cli = crate::Cli::try_parse_from(arguments.chain(line.split(' '))).unwrap();
    let ended = crate::run(cli);
    let requests = server.join().unwrap().into_iter();
    let head = |head: String| head.split(" HTTP/").next().unwrap().to_owned();
    (
        requests.map(|(text, body)| (head(text), body)).collect(),
        ended,
    )
}

/// What `lbctl LINE` sends when the policy was `former`; `Err` with the mistake it finds itself.
#[track_caller]
fn check(line: &str, former: Value, expected: Result<Value, &str>) {
    let mut answers = vec![done(&former)];
    answers.extend(expected.is_ok().then(|| done(&former)));
    let (requests, ended) = run(line, answers);
    let sent = requests.get(1).map(|(head, body)| {
        assert!(head.starts_with("PUT /v1/x/"), "{head}");
        assert_eq!(head.strip_prefix("PUT"), requests[0].0.strip_prefix("GET"));
        serde_json::from_str::<Value>(body).unwrap()["policy"].clone()
    });
    match (ended, expected) {
        (Ok(()), Ok(policy)) => assert_eq!(sent, Some(policy), "{line}"),
        (Err(error), Err(message)) => {
            assert_eq!(
                (error.exit_code(), error.to_string()),
                (2, message.to_owned())
            );
            assert_eq!(sent, None);
        }
        (ended, _) => panic!("{line}: {ended:?}"),
    }
}

fn group(mode: &str, allow: &[&str], deny: &[&str], quic: Value) -> Value {
    json!({"forwarding_mode": mode, "sources": {"allow": allow, "deny": deny}, "quic": quic})
}

fn quic(server_id_length: u8, config_rotation: u8) -> Value {
    json!({"server_id_length": server_id_length, "config_rotation": config_rotation})
}

#[test]
fn what_is_not_named_stays() {
    let former = || group("dsr-gue", &["192.0.2.0/24"], &["10.0.0.0/8"], quic(8, 1));
    let check = |options: &str, expected| {
        check(
            &format!("service policy web {options}"),
            former(),
            Ok(expected),
        );
    };
    check(
        "--forwarding-mode nat",
        group("nat", &["192.0.2.0/24"], &["10.0.0.0/8"], quic(8, 1)),
    );
    check(
        "--allow 192.0.2.7,2001:db8::/32 --allow 198.51.100.0/24",
        group(
            "dsr-gue",
            &["192.0.2.7/32", "2001:db8::/32", "198.51.100.0/24"],
            &["10.0.0.0/8"],
            quic(8, 1),
        ),
    );
    check("--clear-sources", group("dsr-gue", &[], &[], quic(8, 1)));
    check(
        "--clear-sources --deny ::/0",
        group("dsr-gue", &[], &["::/0"], quic(8, 1)),
    );
    let with_quic = |quic| group("dsr-gue", &["192.0.2.0/24"], &["10.0.0.0/8"], quic);
    check("--quic-server-id-length 4", with_quic(quic(4, 1)));
    check("--quic-config-rotation 3", with_quic(quic(8, 3)));
    check("--no-quic", with_quic(Value::Null));
}

#[test]
fn a_first_policy() {
    check(
        "service policy web --quic-server-id-length 8 --deny 10.0.0.0/8",
        json!({}),
        Ok(group("nat", &[], &["10.0.0.0/8"], quic(8, 0))),
    );
    check(
        "service policy web --quic-config-rotation 1",
        json!({}),
        Err(
            "--quic-config-rotation alone says nothing, as the service group has no QUIC layout; \
             give --quic-server-id-length too",
        ),
    );
    check(
        "service policy web --deny 10.0.0.0/8",
        group("nat", &["10.0.0.0/8"], &[], Value::Null),
        Err("Source prefix '10.0.0.0/8' is in both 'allow' and 'deny'; remove it from one of them"),
    );
}

#[test]
fn instances() {
    let former = || json!({"weight": 7, "quic_server_id": "0a0b"});
    let check = |options: &str, expected| {
        check(
            &format!("instance policy a {options}"),
            former(),
            Ok(expected),
        );
    };
    check("--weight 0", json!({"weight": 0, "quic_server_id": "0a0b"}));
    check(
        "--quic-server-id FF00",
        json!({"weight": 7, "quic_server_id": "ff00"}),
    );
    check("--no-quic-server-id --weight 1000", json!({"weight": 1000}));
}

#[test]
fn without_options_it_is_shown() {
    for line in ["service policy web", "instance policy web -o json"] {
        let (requests, ended) = run(line, vec![done(&json!({}))]);
        ended.unwrap();
        assert_eq!(requests.len(), 1, "{requests:?}");
    }
    let policy: GroupPolicy =
        serde_json::from_value(group("dsr-l2", &["192.0.2.0/24", "::/0"], &[], quic(8, 0)))
            .unwrap();
    let expected = "\
forwarding mode:  dsr-l2
allow:            192.0.2.0/24 ::/0
deny:             -
quic:             server id length 8, config rotation 0";
    assert_eq!(record(&group_rows(&policy)), expected);
    assert_eq!(
        remark(&policy),
        " (allow 2 prefixes, quic server id length 8)"
    );
    assert_eq!(remark(&GroupPolicy::default()), "");
    let policy: InstancePolicy = serde_json::from_value(json!({"quic_server_id": "0A0B"})).unwrap();
    let expected = "weight:          100\nquic server id:  0a0b";
    assert_eq!(record(&instance_rows(&policy)), expected);
}

#[test]
fn records_show_what_was_asked_for() {
    let get = |policy: (&'static str, String)| {
        let (endpoint, server) = stub::start(vec![policy]);
        let rows = group_rows_asked_for(&Client::new(endpoint, None), "web");
        server.join().unwrap();
        rows
    };
    let rows = get(done(&group("nat", &[], &["10.0.0.0/8"], Value::Null)));
    assert_eq!(rows.unwrap(), [("deny", "10.0.0.0/8".to_owned())]);
    assert_eq!(get(done(&json!({}))).unwrap(), []);
    // An agent without policies has nothing to show, one that fails must not be believed.
    let no_path = refusal("404 Not Found", "No API endpoint with path '/v1/x'");
    assert_eq!(get(no_path).unwrap(), []);
    assert!(get(refusal("503 Service Unavailable", "no")).is_err());
}

#[test]
fn mistakes_of_the_command_line() {
    let check = |line: &str, words: &str| {
        let arguments = format!("lbctl {line}");
        let error = crate::Cli::try_parse_from(arguments.split(' ')).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words), "{line}: {text}");
    };
    check(
        "service policy web --forwarding-mode dsr",
        "[possible values: nat, dsr-l2, dsr-ipip, dsr-gue]",
    );
    check(
        "service policy web --allow 192.0.2.1/24",
        "write 192.0.2.0/24",
    );
    check("service policy web --quic-server-id-length 16", "1..=15");
    check("service policy web --quic-config-rotation 7", "0..=6");
    check(
        "service policy web --no-quic --quic-config-rotation 1",
        "cannot be used with",
    );
    check("service policy", "<NAME|UUID>");
    check("instance policy a --weight 1001", "0..=1000");
    check(
        "instance policy a --quic-server-id 0",
        "has an odd number of digits",
    );
    check(
        "instance policy a --quic-server-id 00 --no-quic-server-id",
        "cannot be used with",
    );
}

#[test]
fn the_agents_refusals() {
    let check = |line: &str, answers: Answers, expected: &str| {
        let (_, ended) = run(line, answers);
        let error = ended.unwrap_err();
        assert_eq!(
            (error.exit_code(), error.lines()),
            (1, vec![expected.to_owned()])
        );
    };
    let named = json!({"status": "success", "uuid": "6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001",
                       "name": "web"});
    let groups = json!({"status": "success", "data": {"service_groups": [named]}});
    check(
        "service policy wbe --no-quic",
        vec![
            refusal("404 Not Found", "No service group with name 'wbe'"),
            ("200 OK", groups.to_string()),
        ],
        "lbctl: No service group with name 'wbe'; did you mean 'web'? `lbctl service ls` lists \
         them all",
    );
    check(
        "service policy web --forwarding-mode dsr-l2",
        vec![
            done(&json!({})),
            refusal("409 Conflict", "Service group 'web' publishes …"),
        ],
        "lbctl: Service group 'web' publishes …",
    );
    check(
        "instance policy a",
        vec![refusal(
            "404 Not Found",
            "No API endpoint with path '/v1/x'",
        )],
        "lbctl: No API endpoint with path '/v1/x'",
    );
}

#[test]
fn vips_are_chosen_and_given_up() {
    let with = |vips: &[&str]| {
        let mut policy = group("nat", &[], &[], Value::Null);
        if !vips.is_empty() {
            policy["vips"] = json!(vips);
        }
        policy
    };
    let line = "service policy web --vip 2001:db8::1,192.0.2.1";
    let both = ["192.0.2.1", "2001:db8::1"];
    check(line, with(&["192.0.2.9"]), Ok(with(&both)));
    check("service policy web --all-vips", with(&both), Ok(with(&[])));
    let kept = "service policy web --forwarding-mode nat";
    check(kept, with(&both), Ok(with(&both)));
}
