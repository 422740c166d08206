//! The official JavaScript client, unchanged, from npm.

use lbagent_tests::gateway::Gateway;
use lbagent_tests::topology::Shape;
use lbagent_tests::{require_root, skip};

use crate::clients;

/// The client depends on a version of a plug-in that npm does not have; the plug-in is for another
/// API than this one.
const MANIFEST: &str = r#"{
  "private": true,
  "dependencies": { "@unikraft/cloud": "0.2.0" },
  "overrides": { "@unikraft/cloud-plugin-sandbox-api": "1.0.0" }
}
"#;

#[test]
fn the_official_javascript_client_works() {
    require_root!();
    let node = match clients::node("js-sdk", MANIFEST) {
        Ok(node) => node,
        Err(reason) => skip!("{reason}"),
    };
    // Modules are looked for beside the script.
    let script = node.directory.join("sdk.mjs");
    std::fs::copy(clients::script("sdk.mjs"), &script).unwrap();
    let gateway = Gateway::start(Shape::Routed, 1).unwrap();
    let mut command = gateway.topology.gateway.command(node.program);
    clients::give_certificate(&mut command);
    clients::check_done(command.arg(script).arg("http://127.0.0.1:7480"));
}
