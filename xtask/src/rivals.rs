//! What `bench traffic` and `bench terminator` compare lbagent with, and what loads it, from Debian's
//! packages. Nothing else needs them, so only those commands install them.

use std::path::Path;

use anyhow::{Result, bail};

use crate::setup;

/// Programs and their packages.
const TRAFFIC: [(&str, &str); 3] = [
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
];
const TERMINATOR: [(&str, &str); 4] = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
];
/// nginx's stream module: its file and its package.
const STREAM_MODULE: (&str, &str) = (
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "libnginx-mod-stream",
);

/// Installs what `bench traffic` needs and is missing. Benchmarks run the programs in namespaces; no
/// service of theirs is started or enabled on this host.
pub fn ensure() -> Result<()> {
    ensure_all(&TRAFFIC)
}

/// As [`ensure`], for `bench terminator`.
pub fn ensure_proxies() -> Result<()> {
    ensure_all(&TERMINATOR)
}

fn ensure_all(programs: &[(&str, &'static str)]) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    setup::ensure_packages("the benchmark's rivals", &missing)?;
    let still = self::missing(programs);
    if !still.is_empty() {
        bail!("the benchmark can't run without {}", still.join(" "));
    }
    Ok(())
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut missing = setup::missing_packages(programs);
    if !Path::new(STREAM_MODULE.0).is_file() {
        missing.push(STREAM_MODULE.1);
    }
    missing
}
