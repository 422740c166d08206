//! The official Python client, unchanged, from PyPI.

use lbagent_tests::gateway::Gateway;
use lbagent_tests::topology::Shape;
use lbagent_tests::{require_root, skip};

use crate::clients;

const PACKAGE: &str = "unikraft-cloud==0.3.0";

#[test]
fn the_official_python_client_works() {
    require_root!();
    let python = match clients::python("python-sdk", &[PACKAGE]) {
        Ok(programs) => programs.join("python"),
        Err(reason) => skip!("{reason}"),
    };
    let gateway = Gateway::start(Shape::Routed, 1).unwrap();
    let mut command = gateway.topology.gateway.command(python);
    let script = clients::script("sdk.py");
    clients::give_certificate(&mut command);
    clients::check_done(command.arg(script).arg("http://127.0.0.1:7480"));
}
