//! What `bench traffic` compares lbagent with, from Debian's packages. Nothing else needs them, so
//! only that command installs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, setup};

/// Programs and their packages.
const PROGRAMS: [(&str, &str); 3] = [
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
];
/// nginx's stream module: its file and its package.
const STREAM_MODULE: (&str, &str) = (
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "libnginx-mod-stream",
);
/// What Debian's packages ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing. The benchmark runs the programs in namespaces; no service of theirs is
/// started or enabled on this host.
pub fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let forbids = !Path::new(POLICY).exists();
    if forbids {
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("can't write {POLICY}"))?;
    }
    let installed = setup::ensure_packages("the benchmark's rivals", &missing);
    if forbids {
        fs::remove_file(POLICY).with_context(|| format!("can't remove {POLICY}"))?;
    }
    installed?;
    let still = self::missing();
    if !still.is_empty() {
        bail!("the benchmark can't run without {}", still.join(" "));
    }
    if Path::new("/run/systemd/system").is_dir() {
        for service in missing.iter().filter(|name| **name != STREAM_MODULE.1) {
            process::run(Command::new("systemctl").args(["--quiet", "disable", service]))?;
        }
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let mut missing = setup::missing_packages(&PROGRAMS);
    if !Path::new(STREAM_MODULE.0).is_file() {
        missing.push(STREAM_MODULE.1);
    }
    missing
}
