//! `ip` of iproute2, for devices of which netlink libraries know too little.

use anyhow::{Result, ensure};

use crate::agent::Ended;
use crate::netns::NetNs;

/// `ip ARGUMENTS…` in a namespace, which must succeed.
pub fn ip(ns: &NetNs, arguments: &str) -> Result<()> {
    let ended = run(ns, arguments)?;
    ensure!(ended.code == 0, "ip {arguments}: {}", ended.stderr);
    Ok(())
}

fn run(ns: &NetNs, arguments: &str) -> Result<Ended> {
    let mut command = ns.command("ip");
    Ended::of(command.args(arguments.split_whitespace()))
}

/// Why the kernel can't make these devices, or nothing.
pub fn missing_device(kinds: &[&str]) -> Result<Option<String>> {
    let ns = NetNs::new("device-try")?;
    for kind in kinds {
        let ended = run(&ns, &format!("link add try type {kind}"))?;
        if ended.stderr.contains("Unknown device type") {
            return Ok(Some(format!("this kernel has no {kind} devices")));
        }
    }
    Ok(None)
}

/// Why the kernel can't receive UDP encapsulation, or nothing.
pub fn missing_fou() -> Result<Option<String>> {
    let ended = run(&NetNs::new("fou-try")?, "fou add port 6080 gue")?;
    Ok((ended.code != 0).then(|| format!("this kernel has no fou: {}", ended.stderr.trim())))
}
