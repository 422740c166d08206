//! A service group on some of the gateway's VIPs.

use lbagent_tests::client::Transport;
use lbagent_tests::gateway::{Gateway, PORT, SERVER_PORT, service};
use lbagent_tests::topology::{Shape, VIPS};
use lbagent_tests::{ctl, require_root};
use serde_json::json;

#[test]
fn a_group_is_served_on_the_vips_that_it_chose_and_nowhere_else() {
    require_root!();
    let gateway = Gateway::publish(Shape::Routed, 1).unwrap();
    let choose = |group: &str, flags: &[&str]| {
        let line = [&["service", "policy", group], flags].concat();
        ctl::succeed(&gateway.topology.gateway, &line).unwrap()
    };
    #[track_caller]
    fn check(gateway: &Gateway, served: [bool; 2]) {
        for (vip, is_served) in VIPS.into_iter().zip(served) {
            let asked = gateway.spread(Transport::Tcp, vip, 3);
            assert_eq!(asked.is_ok(), is_served, "{vip}: {asked:?}");
        }
    }
    let [v4, v6] = VIPS.map(|vip| vip.to_string());
    check(&gateway, [true, true]);
    let shown = choose("web", &["--vip", &v4]);
    assert!(shown.contains(&v4) && !shown.contains(&v6), "{shown}");
    check(&gateway, [true, false]);
    choose("web", &["--vip", &v6]);
    check(&gateway, [false, true]);

    // The port is free on the other one.
    let other = json!({"name": "other", "services": [
        {"port": PORT, "destination_port": SERVER_PORT, "protocol": "tcp", "ip": v4}
    ]});
    let agent = &gateway.agent;
    agent.call("POST", "/v1/services", Some(&other)).unwrap();
    let line = ["service", "policy", "web", "--all-vips"];
    let refused = ctl::run(&gateway.topology.gateway, &line).unwrap();
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("'other'"), "{refused:?}");
    check(&gateway, [false, true]);
    let gone = json!({"name": "other"});
    agent.call("DELETE", "/v1/services", Some(&gone)).unwrap();
    choose("web", &["--all-vips"]);
    check(&gateway, [true, true]);

    // Another port is another matter.
    let more = json!({"name": "more", "services": [service(PORT + 1, SERVER_PORT, "tcp")]});
    agent.call("POST", "/v1/services", Some(&more)).unwrap();
    choose("more", &["--vip", &v6]);
    check(&gateway, [true, true]);
}
