//! The official Python client, unchanged, from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbagent_tests::agent::Ended;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::topology::Shape;
use lbagent_tests::{require_root, skip};

const PACKAGE: &str = "unikraft-cloud==0.3.0";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/sdk.py");

#[test]
fn the_official_python_client_works() {
    require_root!();
    let python = match environment() {
        Ok(python) => python,
        Err(reason) => skip!("{reason}"),
    };
    let gateway = Gateway::start(Shape::Routed, 1).unwrap();
    let mut command = gateway.topology.gateway.command(python);
    let ended = Ended::of(command.args([SCRIPT, "http://127.0.0.1:7480"])).unwrap();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.ends_with("all done\n"), "{}", ended.stdout);
}

/// The interpreter of an environment with the client, made beside the build on first use.
fn environment() -> Result<PathBuf, String> {
    let built = std::env::current_exe().expect("a running process has a path");
    let target = built.ancestors().nth(3).expect("target/PROFILE/deps/NAME");
    let directory = target.join("python-sdk");
    let python = directory.join("bin/python");
    if has_package(&python) {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        PACKAGE,
    ];
    run(Command::new(&python).args(install))?;
    Ok(python)
}

fn has_package(python: &Path) -> bool {
    let import = ["-c", "import unikraft_cloud"];
    Ended::of(Command::new(python).args(import)).is_ok_and(|ended| ended.code == 0)
}

fn run(command: &mut Command) -> Result<(), String> {
    let ended = Ended::of(command).map_err(|error| format!("{error:#}"))?;
    let last = ended.stderr.lines().last().unwrap_or("no message");
    if ended.code == 0 {
        Ok(())
    } else {
        Err(format!("{command:?}: {last}"))
    }
}
