//! Attaches `lb_steer` to the network namespace, by a pinned link that outlives the agent and whose
//! program is replaced in one step.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use aya::programs::links::FdLink;

use super::load::{Loaded, remove_if_there};
use super::syscalls::{self, pinned_link_namespace};

/// The network namespace of this thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Attaches the program, or puts it in the place of a former agent's: `program` is where it is
/// pinned, `link` where the link is or is to be.
pub(super) fn attach(loaded: &mut Loaded, program: &Path, link: &Path) -> anyhow::Result<()> {
    if is_attached_here(link) {
        return syscalls::update_link(link, program)
            .with_context(|| format!("cannot replace the program of {}", link.display()));
    }
    // Of a namespace that is gone, or where an agent ran before.
    remove_if_there(link).with_context(|| format!("cannot remove {}", link.display()))?;
    let namespace = File::open(NAMESPACE).with_context(|| format!("cannot open {NAMESPACE}"))?;
    let program = loaded.steer()?;
    let id = program.attach(namespace)?;
    let attached: FdLink = program.take_link(id)?.into();
    attached
        .pin(link)
        .with_context(|| format!("cannot pin {}", link.display()))?;
    Ok(())
}

/// Whether the link is there and of this namespace.
pub(super) fn is_attached_here(link: &Path) -> bool {
    let here = || -> io::Result<u64> { Ok(fs::metadata(NAMESPACE)?.ino()) };
    match (pinned_link_namespace(link), here()) {
        (Ok(attached), Ok(here)) => attached == here,
        _ => false,
    }
}
