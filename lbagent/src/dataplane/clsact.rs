//! The return program on kernels without tcx: a filter of the `clsact` queueing discipline.

use std::io;
use std::mem;

use anyhow::Context;
use aya::programs::links::Link;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle,
    qdisc_add_clsact,
};
use aya::programs::{ProgramError, SchedClassifier};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle as NetlinkHandle, TcMessage};

use super::interfaces::Interfaces;
use super::journal::Journal;
use super::netlink::Netlink;

/// Priority and handle of the filter on kernels without tcx; fixed, so that a restarted agent and
/// `lbagent detach` find it.
const FILTER_PRIORITY: u16 = 199;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0x4c42);

/// Replaces the filter if it is there, else makes it.
pub(super) fn attach_filter(
    program: &mut SchedClassifier,
    name: &str,
    journal: &mut Journal,
) -> anyhow::Result<()> {
    match qdisc_add_clsact(name) {
        Ok(()) => journal.clsact_made(name)?,
        Err(error) if exists(&error) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot add clsact to {name}")),
    }
    journal.filter_made(name)?;
    let id = match program.attach_to_link(filter(name)?) {
        Ok(id) => id,
        Err(ProgramError::TcError(_) | ProgramError::NetlinkError(_)) => {
            let options = NlOptions {
                priority: FILTER_PRIORITY,
                handle: FILTER_HANDLE,
                classid: None,
            };
            let options = TcAttachOptions::Netlink(options);
            program.attach_with_options(name, TcAttachType::Ingress, options)?
        }
        Err(error) => return Err(error.into()),
    };
    // Dropping the link would remove the filter, which is to outlive this process.
    mem::forget(program.take_link(id)?);
    Ok(())
}

/// Replaces the program of an interface's filter in one step; false if there is no such filter.
pub(super) fn replace_filter(program: &mut SchedClassifier, name: &str) -> anyhow::Result<bool> {
    if nix::net::if_::if_nametoindex(name).is_err() {
        return Ok(false);
    }
    match program.attach_to_link(filter(name)?) {
        Ok(id) => {
            // Dropping the link would remove the filter.
            mem::forget(program.take_link(id)?);
            Ok(true)
        }
        Err(
            ProgramError::TcError(TcError::NetlinkError(error)) | ProgramError::NetlinkError(error),
        ) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot replace the filter of {name}")),
    }
}

/// Removes the filter of an interface; true if it was there.
pub(super) fn remove_filter(netlink: &mut Netlink, name: &str) -> anyhow::Result<bool> {
    let Some(index) = Interfaces::read(netlink)?.index(name) else {
        return Ok(false);
    };
    if !has_filter(netlink, index, INGRESS)? {
        return Ok(false);
    }
    match filter(name)?.detach() {
        Ok(()) => Ok(true),
        Err(ProgramError::NetlinkError(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove the filter of {name}")),
    }
}

/// Removes `clsact`, unless somebody else has put filters there meanwhile.
pub(super) fn remove_clsact(netlink: &mut Netlink, name: &str) -> io::Result<bool> {
    let Some(index) = Interfaces::read(netlink)?.index(name) else {
        return Ok(false);
    };
    if has_filter(netlink, index, INGRESS)? || has_filter(netlink, index, EGRESS)? {
        return Ok(false);
    }
    let mut message = TcMessage::with_index(index as i32);
    message.header.handle = NetlinkHandle {
        major: 0xffff,
        minor: 0,
    };
    message.header.parent = NetlinkHandle {
        major: 0xffff,
        minor: 0xfff1,
    };
    match netlink.request(RouteNetlinkMessage::DelQueueDiscipline(message), 0) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Hooks of `clsact`: `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and `…_EGRESS`.
const INGRESS: NetlinkHandle = NetlinkHandle {
    major: 0xffff,
    minor: 0xfff2,
};
pub(super) const EGRESS: NetlinkHandle = NetlinkHandle {
    major: 0xffff,
    minor: 0xfff3,
};

pub(super) fn has_filter(
    netlink: &mut Netlink,
    index: u32,
    hook: NetlinkHandle,
) -> io::Result<bool> {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = hook;
    match netlink.dump(RouteNetlinkMessage::GetTrafficFilter(message)) {
        Ok(filters) => Ok(!filters.is_empty()),
        // There is no `clsact`.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Our filter on an interface, whether it is there or not.
fn filter(name: &str) -> anyhow::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(
        name,
        TcAttachType::Ingress,
        FILTER_PRIORITY,
        FILTER_HANDLE,
        None,
    )
    .with_context(|| format!("cannot address the filter of {name}"))
}

pub(super) fn exists(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}
