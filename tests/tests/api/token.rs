//! Who may speak to the API.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lbagent_tests::agent::{Agent, CONFIG_PATH, Config, START};
use lbagent_tests::http::Request;
use lbagent_tests::poll::retry;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, Topology};

const TOKEN_FILE: &str = "/run/token";
const TOKEN: &str = "correct-horse-battery-staple";

#[test]
fn a_token_file_keeps_strangers_out() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    topology.gateway.run(|| {
        fs::write(TOKEN_FILE, format!("{TOKEN}\n")).unwrap();
        // The agent refuses a token that every user of the host can read.
        fs::set_permissions(TOKEN_FILE, fs::Permissions::from_mode(0o600)).unwrap();
    });
    let mut config = Config::new(&topology);
    config.api = [("token_file", TOKEN_FILE.into())].into();
    let mut agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
    agent.spawn().unwrap();
    let status = |token| {
        let request = Request {
            method: "GET",
            path: "/v1/services",
            token,
            body: None,
        };
        agent.send(&request).map(|response| response.status)
    };
    retry("the API", START, || status(None)).unwrap();
    for (token, expected) in [
        (None, 401),
        (Some("wrong"), 401),
        (Some(""), 401),
        (Some(TOKEN), 200),
    ] {
        assert_eq!(status(token).unwrap(), expected, "{token:?}");
    }
}

#[test]
fn a_public_api_cannot_do_without_tokens() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let mut config = Config::new(&topology);
    config.api.insert("listen", "0.0.0.0:7480".into());
    let agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
    let ended = agent.run(&["check", "--config", CONFIG_PATH]).unwrap();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("loopback_without_token"), "{ended:?}");
}
