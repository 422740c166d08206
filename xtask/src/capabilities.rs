//! What this process may do, and how to get what it lacks.

use std::fs;

use anyhow::{Result, bail};

/// Bit, name and use of every capability that the demo and rings 1 to 3 need.
const NEEDED: [(u32, &str, &str); 5] = [
    (
        12,
        "CAP_NET_ADMIN",
        "make interfaces and attach programs to them",
    ),
    (13, "CAP_NET_RAW", "send and see raw frames"),
    (
        21,
        "CAP_SYS_ADMIN",
        "make network namespaces and mount bpffs",
    ),
    (38, "CAP_PERFMON", "let the verifier follow packet pointers"),
    (39, "CAP_BPF", "load programs and make maps"),
];

/// Whether this process runs as root.
pub fn is_root() -> bool {
    status_field("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Fails with a list of what is missing.
pub fn require(purpose: &str, alternative: &str) -> Result<()> {
    let effective = status_field("CapEff:")
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let missing: String = NEEDED
        .iter()
        .filter(|(bit, ..)| effective & (1 << bit) == 0)
        .map(|(_, name, reason)| format!("\n  {name:<14} to {reason}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "for {purpose}, this process lacks capabilities:{missing}\n\
         Run it as root: sudo -E env \"PATH=$PATH\" cargo xtask …\n\
         In a container, start it with --privileged.{alternative}"
    )
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::to_owned)
}
