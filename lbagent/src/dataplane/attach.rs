//! Attaches the programs to interfaces, and keeps them attached.
//!
//! Every attachment outlives the agent: XDP and, from kernel 6.6 on, TC by a pinned link whose
//! program is replaced in one step; TC on older kernels by a filter with a handle of our own.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use anyhow::{Context, anyhow, bail};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};
use aya::programs::{LinkOrder, Xdp};
use aya::util::KernelVersion;
use netlink_packet_route::link::XdpAttached;
use serde::{Deserialize, Serialize};

use super::clsact::attach_filter;
use super::interfaces::Interfaces;
use super::journal::Journal;
use super::load::{Loaded, remove_if_there};
use super::pins::Pins;
use super::syscalls::pinned_link_ifindex;

/// A change of mode needs a moment without a program, so it is left to the operator.
const KEPT_GENERIC: &str = "taken over from a former agent as it was attached; set xdp_mode to \
     \"native\", or run `lbagent detach`, to try the driver again";

/// How `lb_ingress` is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, else in the stack.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack.
    Generic,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachedMode {
    /// XDP in the driver.
    Native,
    /// XDP in the stack, for drivers without XDP.
    Generic,
    /// TC through a link.
    Tcx,
    /// TC through a filter of the `clsact` queueing discipline.
    Clsact,
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// Which program an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// `lb_ingress` by XDP.
    Client,
    /// `lb_return` by TC.
    Backend,
}

/// One program on one interface, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub interface: String,
    /// Which side it faces.
    pub hook: Hook,
    /// Index; absent while there is no such interface.
    pub ifindex: Option<u32>,
    /// How the program is attached; absent when it is not.
    pub mode: Option<AttachedMode>,
    /// Why it is not attached, or not in the driver.
    pub reason: Option<String>,
}

/// The interfaces of one agent and their programs.
#[derive(Debug)]
pub(super) struct Attachments {
    pub(super) clients: Vec<String>,
    pub(super) backends: Vec<String>,
    pub(super) xdp_mode: XdpMode,
    pub(super) pins: Pins,
    /// Links that already run the program of this process.
    updated: BTreeSet<(Hook, u32)>,
    /// Why an interface got generic XDP though native was tried.
    generic_reasons: Vec<(u32, String)>,
}

impl Attachments {
    pub(super) fn new(
        clients: Vec<String>,
        backends: Vec<String>,
        xdp_mode: XdpMode,
        pins: Pins,
    ) -> Self {
        let (updated, generic_reasons) = (BTreeSet::new(), Vec::new());
        Self {
            clients,
            backends,
            xdp_mode,
            pins,
            updated,
            generic_reasons,
        }
    }

    /// Attaches what is not attached, and replaces the programs of a former agent.
    pub(super) fn ensure(
        &mut self,
        loaded: &mut Loaded,
        interfaces: &Interfaces,
        journal: &mut Journal,
    ) -> Vec<InterfaceStatus> {
        let mut status = self.ensure_clients(loaded, interfaces);
        status.extend(self.ensure_backends(loaded, interfaces, journal));
        status
    }

    /// [`ensure`](Self::ensure) for the client interfaces.
    pub(super) fn ensure_clients(
        &mut self,
        loaded: &mut Loaded,
        interfaces: &Interfaces,
    ) -> Vec<InterfaceStatus> {
        let mut status = Vec::new();
        for name in self.clients.clone() {
            let attached = match interfaces.index(&name) {
                None => self.gone("xdp", &name),
                Some(ifindex) => self.ensure_xdp(loaded, &name, ifindex, interfaces),
            };
            status.push(self.status(name, Hook::Client, interfaces, attached));
        }
        status
    }

    /// [`ensure`](Self::ensure) for the backend interfaces.
    pub(super) fn ensure_backends(
        &mut self,
        loaded: &mut Loaded,
        interfaces: &Interfaces,
        journal: &mut Journal,
    ) -> Vec<InterfaceStatus> {
        let mut status = Vec::new();
        for name in self.backends.clone() {
            let attached = match interfaces.index(&name) {
                None => self.gone("tc", &name),
                Some(ifindex) => self.ensure_tc(loaded, &name, ifindex, journal),
            };
            status.push(self.status(name, Hook::Backend, interfaces, attached));
        }
        status
    }

    fn status(
        &self,
        interface: String,
        hook: Hook,
        interfaces: &Interfaces,
        attached: anyhow::Result<AttachedMode>,
    ) -> InterfaceStatus {
        let ifindex = interfaces.index(&interface);
        let (mode, reason) = match attached {
            Ok(AttachedMode::Generic) => {
                let reason = self
                    .generic_reasons
                    .iter()
                    .find(|(index, _)| Some(*index) == ifindex);
                let reason = match (reason, self.xdp_mode) {
                    (Some((_, reason)), _) => Some(reason.clone()),
                    (None, XdpMode::Generic) => None,
                    (None, _) => Some(KEPT_GENERIC.to_owned()),
                };
                (Some(AttachedMode::Generic), reason)
            }
            Ok(mode) => (Some(mode), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        InterfaceStatus {
            interface,
            hook,
            ifindex,
            mode,
            reason,
        }
    }

    /// The kernel empties a link when its interface goes; the pin would keep a newcomer of that
    /// name from being attached.
    fn gone(&self, hook: &str, name: &str) -> anyhow::Result<AttachedMode> {
        remove_if_there(&self.pins.link(hook, name))
            .with_context(|| format!("cannot remove the link of the vanished {name}"))?;
        bail!("there is no interface {name}; it gets its program when it appears")
    }

    fn ensure_xdp(
        &mut self,
        loaded: &mut Loaded,
        name: &str,
        ifindex: u32,
        interfaces: &Interfaces,
    ) -> anyhow::Result<AttachedMode> {
        let pin = self.pins.link("xdp", name);
        let attached = match interfaces.xdp(name) {
            Some(XdpAttached::Driver | XdpAttached::Hardware) => Some(AttachedMode::Native),
            Some(XdpAttached::SocketBuffer) => Some(AttachedMode::Generic),
            _ => None,
        };
        let wanted = match self.xdp_mode {
            XdpMode::Auto => true,
            XdpMode::Native => attached == Some(AttachedMode::Native),
            XdpMode::Generic => attached == Some(AttachedMode::Generic),
        };
        let ours = pin.exists() && pinned_link_ifindex(&pin).ok() == Some(ifindex);
        if let (true, true, Some(mode)) = (ours, wanted, attached) {
            if !self.updated.contains(&(Hook::Client, ifindex)) {
                let link = FdLink::from(PinnedLink::from_pin(&pin)?);
                let program = loaded.ingress()?;
                let id = program.attach_to_link(XdpLink::try_from(link)?)?;
                drop(program.take_link(id)?);
                self.updated.insert((Hook::Client, ifindex));
            }
            return Ok(mode);
        }
        remove_if_there(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
        let (link, mode) = self.attach_xdp(loaded.ingress()?, ifindex)?;
        link.pin(&pin)
            .with_context(|| format!("cannot pin the link of {name}"))?;
        self.updated.insert((Hook::Client, ifindex));
        Ok(mode)
    }

    fn attach_xdp(
        &mut self,
        program: &mut Xdp,
        ifindex: u32,
    ) -> anyhow::Result<(FdLink, AttachedMode)> {
        self.generic_reasons.retain(|(index, _)| *index != ifindex);
        if self.xdp_mode != XdpMode::Generic {
            match attach_xdp_as(program, ifindex, AyaMode::Driver) {
                Ok(link) => return Ok((link, AttachedMode::Native)),
                Err(error) if is_taken(&error) => return Err(taken(&error)),
                Err(error) if self.xdp_mode == XdpMode::Native => {
                    return Err(error.context(
                        "the driver refuses native XDP; set xdp_mode to \"auto\" or \"generic\"",
                    ));
                }
                Err(error) => {
                    self.generic_reasons
                        .push((ifindex, format!("the driver refuses native XDP: {error:#}")));
                }
            }
        }
        match attach_xdp_as(program, ifindex, AyaMode::Skb) {
            Ok(link) => Ok((link, AttachedMode::Generic)),
            Err(error) if is_taken(&error) => Err(taken(&error)),
            Err(error) => Err(error.context("generic XDP was refused")),
        }
    }

    fn ensure_tc(
        &mut self,
        loaded: &mut Loaded,
        name: &str,
        ifindex: u32,
        journal: &mut Journal,
    ) -> anyhow::Result<AttachedMode> {
        let program = loaded.reply()?;
        let known = self.updated.contains(&(Hook::Backend, ifindex));
        if !has_tcx() {
            if !known {
                attach_filter(program, name, journal)?;
                self.updated.insert((Hook::Backend, ifindex));
            }
            return Ok(AttachedMode::Clsact);
        }
        let pin = self.pins.link("tc", name);
        if pin.exists() && pinned_link_ifindex(&pin).ok() == Some(ifindex) {
            if !known {
                let link = FdLink::from(PinnedLink::from_pin(&pin)?);
                let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
                drop(program.take_link(id)?);
                self.updated.insert((Hook::Backend, ifindex));
            }
            return Ok(AttachedMode::Tcx);
        }
        remove_if_there(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
        // First, so that a reply is restored before other programs judge its addresses.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(name, TcAttachType::Ingress, options)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(&pin)
            .with_context(|| format!("cannot pin the link of {name}"))?;
        self.updated.insert((Hook::Backend, ifindex));
        Ok(AttachedMode::Tcx)
    }

    /// Removes the links of interfaces that the configuration no longer names.
    pub(super) fn remove_others(&self) -> anyhow::Result<Vec<String>> {
        let mut kept: BTreeSet<_> = self
            .clients
            .iter()
            .map(|name| self.pins.link("xdp", name))
            .collect();
        kept.extend(self.backends.iter().map(|name| self.pins.link("tc", name)));
        kept.insert(self.pins.steer_link());
        let directory = self.pins.links();
        let mut removed = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if !kept.contains(&path) {
                remove_if_there(&path)?;
                removed.push(path.display().to_string());
            }
        }
        Ok(removed)
    }
}

pub(super) fn attach_xdp_as(
    program: &mut Xdp,
    ifindex: u32,
    mode: AyaMode,
) -> anyhow::Result<FdLink> {
    let id = program.attach_to_if_index(ifindex, mode)?;
    // aya attaches without a link when the kernel finds the request invalid; such a program could
    // not be replaced in one step, so it is taken off again.
    program
        .take_link(id)?
        .try_into()
        .map_err(|_| anyhow!("the kernel makes no link for this interface"))
}

/// Whether another program holds the interface.
pub(super) fn is_taken(error: &anyhow::Error) -> bool {
    let errno = error.chain().find_map(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
    });
    matches!(errno, Some(libc::EBUSY | libc::EEXIST))
}

pub(super) fn taken(error: &anyhow::Error) -> anyhow::Error {
    anyhow!(
        "another XDP program is attached ({error:#}); see which with `ip link` or `bpftool net` and \
         detach it first"
    )
}

/// Whether the kernel has TC links (Linux 6.6, commit e420bed02507).
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}
