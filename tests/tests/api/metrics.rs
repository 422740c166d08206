//! Metrics where no token is asked for.

use std::net::SocketAddr;

use lbagent_tests::agent::{Agent, Config, START};
use lbagent_tests::http::Request;
use lbagent_tests::poll::retry;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, Topology};

const LISTEN: &str = "127.0.0.1:7482";

#[test]
fn an_address_of_their_own_asks_for_no_token() {
    require_root!();
    let topology = Topology::build(Shape::Routed, 1).unwrap();
    let mut config = Config::new(&topology);
    config.api = [("metrics_listen", LISTEN.into())].into();
    let mut agent = Agent::prepare(&topology.gateway, &config.to_toml()).unwrap();
    agent.spawn().unwrap();
    let get = |path| {
        let request = Request {
            method: "GET",
            path,
            token: None,
            body: None,
        };
        let address: SocketAddr = LISTEN.parse().unwrap();
        agent.on_host(|| request.send(address))
    };
    let answer = retry("metrics", START, || get("/v1/x/metrics")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.contains("lbagent_packets_total{") && answer.body.ends_with("# EOF\n"),
        "{}",
        answer.body
    );
    assert_eq!(get("/v1/services").unwrap().status, 404);
    // The API itself does ask.
    assert_eq!(agent.get("/v1/x/metrics").unwrap().status, 401);
}
