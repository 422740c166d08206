//! Settings of the kernel that the programs rely on. Forwarding of the agent's interfaces: without it the
//! kernel answers the programs' route lookups with "forwarding is off" and drops what they leave to it.
//! SYN cookies, where the programs hand some out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::DataplaneError;
use super::journal::Journal;

/// Where kernel settings live; shows the network namespace of the reading thread.
const ROOT: &str = "/proc/sys";

/// Turns forwarding on for these interfaces.
pub(super) fn ensure_forwarding<'a>(
    interfaces: impl Iterator<Item = &'a str>,
    journal: &mut Journal,
) -> Result<(), DataplaneError> {
    for interface in interfaces {
        let v4 = format!("net/ipv4/conf/{interface}");
        ensure(&format!("{v4}/forwarding"), "1", journal)?;
        let v6 = format!("net/ipv6/conf/{interface}");
        if !exists(&v6) {
            continue;
        }
        keep_router_advertisements(&v6, journal)?;
        ensure(&format!("{v6}/forwarding"), "1", journal)?;
        // Linux 6.17 lets one interface forward; before, the kernel's own IPv6 forwarding, which
        // resolves neighbours and answers "packet too big", hangs on the setting for all.
        if exists(&format!("{v6}/force_forwarding")) {
            ensure(&format!("{v6}/force_forwarding"), "1", journal)?;
        } else {
            ensure_all_v6(journal)?;
        }
    }
    Ok(())
}

/// Has every listening socket of the namespace answer SYNs with cookies, and accept them: the programs'
/// cookies are good only where the kernel's own are.
pub(super) fn ensure_syncookies(journal: &mut Journal) -> Result<(), DataplaneError> {
    ensure("net/ipv4/tcp_syncookies", "2", journal)
}

/// Writes the previous values back where nobody else has changed them since: the setting of an
/// interface that is gone, or that an operator decided on meanwhile, is left alone. Returns what
/// was tried.
pub(super) fn restore(journal: &Journal) -> Vec<(String, io::Result<()>)> {
    // Settings for all interfaces overwrite those of each, so they come first.
    let (all, each): (Vec<_>, Vec<_>) = journal
        .record()
        .sysctls
        .iter()
        .partition(|(name, _)| name.contains("/conf/all/"));
    let mut tried = Vec::new();
    let mut overwrote = false;
    for (is_all, (name, change)) in all
        .into_iter()
        .map(|all| (true, all))
        .chain(each.into_iter().map(|each| (false, each)))
    {
        let Ok(current) = read(name) else { continue };
        let is_ours = current == change.written || overwrote;
        if current != change.previous && is_ours {
            overwrote |= is_all;
            let setting = format!("{} = {}", name.replace('/', "."), change.previous);
            tried.push((setting, write(name, &change.previous)));
        }
    }
    tried
}

/// An interface that forwards ignores router advertisements unless it is told otherwise; the host
/// may have its default route from one.
fn keep_router_advertisements(v6: &str, journal: &mut Journal) -> Result<(), DataplaneError> {
    let name = format!("{v6}/accept_ra");
    if read(&name).is_ok_and(|value| value == "1") {
        ensure(&name, "2", journal)?;
    }
    Ok(())
}

/// Setting forwarding for all interfaces changes each of them, so each is put on record first.
fn ensure_all_v6(journal: &mut Journal) -> Result<(), DataplaneError> {
    let all = "net/ipv6/conf/all/forwarding";
    if read(all).is_ok_and(|value| value == "1") {
        return Ok(());
    }
    let entries = fs::read_dir(path("net/ipv6/conf"))
        .map_err(|source| failed("list", "net/ipv6/conf", source))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "all" {
            continue;
        }
        let v6 = format!("net/ipv6/conf/{name}");
        keep_router_advertisements(&v6, journal)?;
        let forwarding = format!("{v6}/forwarding");
        let previous = read(&forwarding).map_err(|source| failed("read", &forwarding, source))?;
        journal
            .sysctl_changed(&forwarding, &previous, "1")
            .map_err(|source| failed("record", &forwarding, source))?;
    }
    ensure(all, "1", journal)
}

fn ensure(name: &str, wanted: &str, journal: &mut Journal) -> Result<(), DataplaneError> {
    let current = read(name).map_err(|source| failed("read", name, source))?;
    if current == wanted {
        return Ok(());
    }
    journal
        .sysctl_changed(name, &current, wanted)
        .map_err(|source| failed("record", name, source))?;
    write(name, wanted).map_err(|source| failed("set", name, source))
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn exists(name: &str) -> bool {
    path(name).exists()
}

fn read(name: &str) -> io::Result<String> {
    fs::read_to_string(path(name)).map(|value| value.trim().to_owned())
}

fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

fn failed(operation: &'static str, name: &str, source: io::Error) -> DataplaneError {
    DataplaneError::Host {
        operation,
        object: format!("{ROOT}/{name}"),
        source: source.into(),
    }
}
