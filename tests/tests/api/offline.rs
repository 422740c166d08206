//! What operators do while no agent runs: `lbagent token create`, `lbagent state`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use lbagent_tests::agent::{Agent, CONFIG_PATH, Config, START};
use lbagent_tests::http::Request;
use lbagent_tests::poll::retry;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, Topology};
use serde_json::{Value, json};

const FILE: &str = "/run/state.json";

/// What the holder of a token is answered, if the API is there.
fn ask(agent: &Agent, token: &str, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
    let request = Request {
        method,
        path,
        token: Some(token),
        body: body.map(|body| body.to_string()),
    };
    let answer = agent.send(&request)?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
    Ok(answer.json()?["data"].clone())
}

/// Starts the daemon, which lets in nobody without a token.
fn start(agent: &mut Agent, token: &str) {
    agent.spawn().unwrap();
    retry("the API", START, || {
        ask(agent, token, "GET", "/v1/x/tokens", None)
    })
    .unwrap();
    assert!(ask(agent, "wrong", "GET", "/v1/x/tokens", None).is_err());
}

#[test]
fn a_stopped_agents_store_is_worked_on_and_a_running_ones_is_not() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let mut config = Config::new(&topology);
    config.api.clear();
    let config = config.to_toml();
    let host = &topology.gateway;
    let mut agent = Agent::prepare(host, &config).unwrap();
    let run = |agent: &Agent, line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        agent
            .run(&[&arguments[..2], &["--config", CONFIG_PATH], &arguments[2..]].concat())
            .unwrap()
    };
    // Before the first start.
    let made = run(&agent, "token create --label first");
    assert_eq!(made.code, 0, "{made:?}");
    let token = made.stdout.trim().to_owned();
    assert!(token.starts_with("lbat_"), "{token}");
    let refused = run(&agent, "token create --role member --for nobody");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("No account with name 'nobody'"),
        "{refused:?}"
    );
    let refused = run(&agent, "token create --expires-in-s 0");
    assert_eq!(refused.code, 2, "{refused:?}");

    start(&mut agent, &token);
    let service = json!({"port": 5432, "protocol": "tcp", "handlers": []});
    let group = json!({"name": "web", "services": [service]});
    ask(&agent, &token, "POST", "/v1/services", Some(group)).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).unwrap();
    let certificate = json!({"name": "a", "common_name": "a.example.com", "chain": made.cert.pem(),
                             "pkey": made.signing_key.serialize_pem()});
    ask(
        &agent,
        &token,
        "POST",
        "/v1/certificates",
        Some(certificate),
    )
    .unwrap();
    for (line, instead) in [
        ("token create", "lbctl token create"),
        ("state export", "lbctl state export"),
        ("state import /run/none", "lbctl state import"),
    ] {
        let refused = run(&agent, line);
        assert_eq!(refused.code, 3, "{line}: {refused:?}");
        let said = &refused.stderr;
        assert!(
            said.contains("is running") && said.contains(instead),
            "{line}: {said}"
        );
    }
    agent.terminate().unwrap();

    // Elsewhere, and back: everything is there, whoever had a token has it still.
    let lines = [
        "state export",
        &format!("state export --private-keys {FILE}"),
    ];
    let [without, with] = lines.map(|line| run(&agent, line));
    assert_eq!((without.code, with.code), (0, 0), "{without:?} {with:?}");
    assert!(!without.stdout.contains("PRIVATE") && !without.stdout.contains(&token));
    let (text, mode) = host
        .run(|| -> std::io::Result<_> {
            let mode = fs::metadata(FILE)?.permissions().mode() & 0o777;
            let text = fs::read_to_string(FILE)?;
            fs::remove_file("/var/lib/lbagent/state.redb")?;
            fs::write("/run/wrong.json", text.replace("\"web\"", "\"-web\""))?;
            fs::write("/run/without.json", &without.stdout)?;
            Ok((text, mode))
        })
        .unwrap();
    assert!(text.contains("PRIVATE") && mode == 0o600, "{mode:o}");
    for (file, words) in [
        ("/run/without.json", "no private keys of these certificates"),
        ("/run/wrong.json", "Service group '-web': Invalid name"),
        ("/run/none", "cannot import the state document /run/none"),
    ] {
        let refused = run(&agent, &format!("state import {file}"));
        assert_eq!(refused.code, 1, "{file}: {refused:?}");
        assert!(refused.stderr.contains(words), "{file}: {refused:?}");
    }
    let done = run(&agent, &format!("state import {FILE}"));
    assert_eq!(done.code, 0, "{done:?}");
    let again = run(&agent, "state export --private-keys");
    let part = |text: &str| {
        let mut state: Value = serde_json::from_str(text).unwrap();
        state.as_object_mut().unwrap().remove("generation");
        state
    };
    assert_eq!(part(&again.stdout), part(&text));
    start(&mut agent, &token);
    let groups = ask(&agent, &token, "GET", "/v1/services", None).unwrap();
    assert_eq!(groups["service_groups"][0]["name"], "web");
}
