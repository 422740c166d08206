//! Takes programs, links and maps off an interface.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use lbagent_common::decap::DecapSettings;

use super::attach::{busy, remove_filter};
use super::host::open_netlink;
use super::{DecapError, DecapMaps, DecapPins, MAPS};
use crate::dataplane::clsact;
use crate::dataplane::interfaces::Interfaces;
use crate::dataplane::load::remove_if_there;
use crate::dataplane::netlink::Netlink;
use crate::dataplane::pins::Pins;
use crate::dataplane::syscalls::detach_link;

/// Takes everything off again and returns what it was, one line each; nothing when there was
/// nothing. It works without the interface too.
pub fn detach(bpffs_dir: &Path, interface: &str) -> Result<Vec<String>, DecapError> {
    let pins = DecapPins::new(bpffs_dir, interface);
    if !pins.directory.exists() {
        return Ok(Vec::new());
    }
    let lock = Pins::lock_directory(&pins.directory).map_err(busy(interface))?;
    let removed = remove_all(&pins, interface, &mut open_netlink()?)?;
    drop(lock);
    remove_if_empty(bpffs_dir)?;
    Ok(removed)
}

/// Removes the directory of all pins; what others pinned there stays.
pub(super) fn remove_if_empty(bpffs_dir: &Path) -> Result<(), DecapError> {
    match fs::remove_dir(bpffs_dir) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::ResourceBusy
            ) =>
        {
            Err(removing(bpffs_dir.display(), error))
        }
        _ => Ok(()),
    }
}

/// Removes what the pins name, the links first: from there on packets go as if nothing had been.
pub(super) fn remove_all(
    pins: &DecapPins,
    interface: &str,
    netlink: &mut Netlink,
) -> Result<Vec<String>, DecapError> {
    let mut removed = Vec::new();
    for (what, pin) in [("lb_decap", pins.xdp()), ("lb_clamp", pins.tc())] {
        if remove_link(&pin).map_err(|error| removing(pin.display(), error))? {
            removed.push(format!("{what} of {interface}"));
        }
    }
    let interfaces = Interfaces::read(netlink).map_err(|error| removing(interface, error))?;
    if interfaces.index(interface).is_some() {
        let filter = format!("the filter of {interface}");
        if remove_filter(interface).map_err(|error| removing(&filter, error))? {
            removed.push(format!("lb_clamp of {interface}"));
        }
        let settings = DecapMaps::open(pins)
            .ok()
            .flatten()
            .and_then(|maps| maps.settings().ok());
        if settings.is_some_and(|settings| settings.host & DecapSettings::HOST_CLSACT != 0)
            && clsact::remove_clsact(netlink, interface)
                .map_err(|error| removing(format!("clsact of {interface}"), error))?
        {
            removed.push(format!("clsact of {interface}"));
        }
    }
    for (name, ..) in MAPS {
        let pin = pins.map(name);
        if remove_if_there(&pin).map_err(|error| removing(pin.display(), error))? {
            removed.push(format!("map {name} of {interface}"));
        }
    }
    fs::remove_dir(&pins.directory).map_err(|error| removing(pins.directory.display(), error))?;
    Ok(removed)
}

/// Takes a program off its interface now, and removes the pin; false when there is none.
pub(super) fn remove_link(pin: &Path) -> anyhow::Result<bool> {
    if !pin.exists() {
        return Ok(false);
    }
    if let Err(error) = detach_link(pin) {
        // An interface that is gone took the link with it; anything else ends with the pin.
        tracing::debug!(pin = %pin.display(), %error, "cannot detach a link at once");
    }
    remove_if_there(pin).with_context(|| format!("cannot remove {}", pin.display()))
}

fn removing(object: impl ToString, source: impl Into<anyhow::Error>) -> DecapError {
    DecapError::Remove {
        object: object.to_string(),
        source: source.into(),
    }
}
