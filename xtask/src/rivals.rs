//! What `bench traffic` compares lbagent with, from Debian's packages. Nothing else needs them, so
//! only that command installs them.

use std::path::Path;

use anyhow::{Result, bail};

use crate::setup;

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

/// Installs what is missing. The benchmark runs the programs in namespaces; no service of theirs is
/// started or enabled on this host.
pub fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    setup::ensure_packages("the benchmark's rivals", &missing)?;
    let still = self::missing();
    if !still.is_empty() {
        bail!("the benchmark can't run without {}", still.join(" "));
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
