//! `lbctl` on a gateway, with files beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use lbagent_tests::ctl;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::topology::Shape;
use tempfile::TempDir;

/// A service group and its two instances.
pub(super) const WEB: &str = "\
kind: ServiceGroup
name: web
services: [5432:7000/tcp, 5432:7000/udp]
domains: [web.example.com]
---
kind: Instance
name: b1
service_group: web
addresses: [10.66.0.11, 'fd66::b']
---
kind: Instance
name: b2
service_group: web
addresses: [10.66.0.12]
policy: {weight: 50}
";

/// A gateway, and a directory with files.
pub(super) struct Desk {
    pub(super) gateway: Gateway,
    files: TempDir,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            gateway: Gateway::start(Shape::Bridged, 2).unwrap(),
            files: TempDir::new().unwrap(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Runs `lbctl LINE` in the directory: (exit code, stdout, stderr).
    #[track_caller]
    pub(super) fn run(&self, line: &str) -> (i32, String, String) {
        self.run_with(line, &[])
    }

    #[track_caller]
    pub(super) fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
        // Entering the host's mounts forgets the directory, so a shell goes there.
        let host = &self.gateway.topology.gateway;
        let lbctl = ctl::command(host, &[]);
        let mut command = host.command("sh");
        command.args(["-c", "cd \"$0\" && exec \"$@\""]);
        command.arg(self.files.path()).arg(lbctl.get_program());
        command.args(line.split(' ')).env_remove("RUST_BACKTRACE");
        // A draft that nobody corrects is kept: here.
        command.env("TMPDIR", self.files.path());
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }

    /// Runs `lbctl LINE`, which must end with this code, and returns what it printed.
    #[track_caller]
    pub(super) fn check(&self, line: &str, code: i32) -> String {
        let (ended, stdout, stderr) = self.run(line);
        assert_eq!(ended, code, "lbctl {line}: {stdout}{stderr}");
        stdout
    }

    /// Runs `lbctl LINE`, which must fail with this code and these lines.
    #[track_caller]
    pub(super) fn check_mistake(&self, line: &str, code: i32, lines: &[&str]) {
        let (ended, stdout, stderr) = self.run(line);
        assert_eq!(ended, code, "lbctl {line}: {stdout}{stderr}");
        let found: Vec<&str> = stderr.lines().collect();
        assert_eq!(found, lines, "lbctl {line}");
    }
}
