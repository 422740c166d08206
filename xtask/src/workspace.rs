//! Where things lie.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pins;

/// The agent's BPF programs: name of the object and of the crate's binary.
pub const AGENT_OBJECT: &str = "lbagent-ebpf";
/// The decapsulating programs for backends.
pub const DECAP_OBJECT: &str = "lbagent-decap-ebpf";
/// The benchmark's BPF programs.
pub const BENCH_OBJECT: &str = "lbagent-bench-ebpf";

/// Root of the workspace.
pub fn root() -> &'static Path {
    // xtask is built where it runs, so the path that the compiler saw is still right.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Lets a cargo command work on all packages of the host. What a dependency is built with follows
/// from the packages that are chosen, so each other choice would build many of them once more.
pub fn choose_all(command: &mut Command) -> &mut Command {
    command.args(["--workspace", "--exclude", AGENT_OBJECT])
}

/// Where bpf-linker is installed.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Where the BPF programs are compiled: apart from the host's builds, whose lock cargo holds.
pub fn bpf_build() -> PathBuf {
    root().join("target/bpf-build")
}

/// Where the finished objects lie; `lbagent/build.rs` embeds the agent's from here.
pub fn bpf_objects() -> PathBuf {
    root().join("target/bpf")
}

/// The value of a variable that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The prebuilt object that replaces a build, if one is named.
pub fn prebuilt_object() -> Option<PathBuf> {
    variable(pins::OBJECT_OVERRIDE).map(PathBuf::from)
}
