//! Attaches both programs to an interface, or replaces those of a former call in one step.

use std::fs;
use std::mem;
use std::path::Path;

use anyhow::{Context, bail};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
};
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};
use lbagent_common::decap::{self as abi, DecapSettings};
use netlink_packet_route::link::XdpAttached;
use serde::{Deserialize, Serialize};

use super::detach::{remove_all, remove_if_empty, remove_link};
use super::host::open_netlink;
use super::{DecapError, DecapPins, DecapRequest, Decapsulator, pin_error};
use crate::dataplane::attach::{attach_xdp_as, has_tcx, is_taken, taken};
use crate::dataplane::clsact::exists;
use crate::dataplane::interfaces::Interfaces;
use crate::dataplane::load::remove_if_there;
use crate::dataplane::pins::Pins;
use crate::dataplane::syscalls::pinned_link_ifindex;
use crate::dataplane::{AttachedMode, LoadError, XdpMode};

/// Priority and handle of the filter on kernels without tcx; fixed, so that another call finds it.
const FILTER_PRIORITY: u16 = 199;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0x4c43);

/// How `lb_clamp` is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcMode {
    /// By a link where the kernel has them (6.6), else by a filter.
    #[default]
    Auto,
    /// By a link.
    Tcx,
    /// By a filter of the `clsact` queueing discipline.
    Clsact,
}

/// How the programs of an interface came to be attached.
#[derive(Clone, Debug)]
pub struct Attached {
    /// `lb_decap`.
    pub xdp: AttachedMode,
    /// Why it is not in the driver though that was tried.
    pub xdp_reason: Option<String>,
    /// `lb_clamp`.
    pub tc: AttachedMode,
}

/// Makes an interface decapsulate. Repeating it replaces programs, settings and addresses without a
/// gap and keeps the counters. If it fails for the first time, nothing is left behind.
pub fn attach(bpffs_dir: &Path, request: &DecapRequest) -> Result<Attached, DecapError> {
    let interface = &request.interface;
    let mut netlink = open_netlink()?;
    let interfaces = Interfaces::read(&mut netlink).map_err(|source| DecapError::Host {
        what: "interfaces",
        source,
    })?;
    let Some(ifindex) = interfaces.index(interface) else {
        return Err(DecapError::NoInterface {
            interface: interface.clone(),
        });
    };
    Pins::new(bpffs_dir).check_file_system()?;
    let pins = DecapPins::new(bpffs_dir, interface);
    let fresh = !pins.directory.exists();
    fs::create_dir_all(&pins.directory).map_err(|source| pin_error(&pins.directory, source))?;
    let _lock = Pins::lock_directory(&pins.directory).map_err(busy(interface))?;
    let attached = match interfaces.xdp(interface) {
        Some(XdpAttached::Driver | XdpAttached::Hardware) => Some(AttachedMode::Native),
        Some(XdpAttached::SocketBuffer) => Some(AttachedMode::Generic),
        _ => None,
    };
    let target = Target {
        request,
        pins: &pins,
        ifindex,
        attached,
    };
    let done = target.attach();
    if done.is_err() && fresh {
        // The first error is the one that matters.
        if let Err(error) = remove_all(&pins, interface, &mut netlink) {
            tracing::warn!(%error, "cannot clean up");
        }
        remove_if_empty(bpffs_dir)?;
    }
    done
}

/// Names the interface instead of the directory.
pub(super) fn busy(interface: &str) -> impl Fn(LoadError) -> DecapError {
    move |error| match error {
        LoadError::PinsInUse { .. } => DecapError::Busy {
            interface: interface.to_owned(),
        },
        error => error.into(),
    }
}

/// An interface at the moment of the call.
struct Target<'a> {
    request: &'a DecapRequest,
    pins: &'a DecapPins,
    ifindex: u32,
    /// Whatever XDP program it has.
    attached: Option<AttachedMode>,
}

impl Target<'_> {
    fn attach(&self) -> Result<Attached, DecapError> {
        let mut loaded = Decapsulator::load_with(Some(self.pins))?;
        let host = loaded.maps.settings()?.host;
        let mut settings = DecapSettings {
            host,
            ..self.request.settings
        };
        loaded.configure(&settings, &self.request.roles)?;
        let failed = |program| {
            move |source| DecapError::Attach {
                program,
                interface: self.request.interface.clone(),
                source,
            }
        };
        let (xdp, xdp_reason) = self
            .ensure_xdp(&mut loaded)
            .map_err(failed(abi::PROGRAM_DECAP))?;
        let tc = self
            .ensure_tc(&mut loaded, &mut settings)
            .map_err(failed(abi::PROGRAM_CLAMP))?;
        Ok(Attached {
            xdp,
            xdp_reason,
            tc,
        })
    }

    fn ensure_xdp(
        &self,
        loaded: &mut Decapsulator,
    ) -> anyhow::Result<(AttachedMode, Option<String>)> {
        let pin = self.pins.xdp();
        let wanted = match self.request.xdp_mode {
            XdpMode::Auto => self.attached.is_some(),
            XdpMode::Native => self.attached == Some(AttachedMode::Native),
            XdpMode::Generic => self.attached == Some(AttachedMode::Generic),
        };
        let program = loaded.decap_program()?;
        if let (true, true, Some(mode)) = (self.is_linked(&pin), wanted, self.attached) {
            let link = FdLink::from(PinnedLink::from_pin(&pin)?);
            let id = program.attach_to_link(XdpLink::try_from(link)?)?;
            drop(program.take_link(id)?);
            return Ok((mode, None));
        }
        remove_link(&pin)?;
        let mut reason = None;
        if self.request.xdp_mode != XdpMode::Generic {
            match attach_xdp_as(program, self.ifindex, AyaMode::Driver) {
                Ok(link) => {
                    link.pin(&pin)?;
                    return Ok((AttachedMode::Native, None));
                }
                Err(error) if is_taken(&error) => return Err(taken(&error)),
                Err(error) if self.request.xdp_mode == XdpMode::Native => {
                    return Err(error
                        .context("the driver refuses native XDP; try --xdp-mode auto or generic"));
                }
                Err(error) => reason = Some(format!("the driver refuses native XDP: {error:#}")),
            }
        }
        match attach_xdp_as(program, self.ifindex, AyaMode::Skb) {
            Ok(link) => {
                link.pin(&pin)?;
                Ok((AttachedMode::Generic, reason))
            }
            Err(error) if is_taken(&error) => Err(taken(&error)),
            Err(error) => Err(error.context("generic XDP was refused")),
        }
    }

    fn ensure_tc(
        &self,
        loaded: &mut Decapsulator,
        settings: &mut DecapSettings,
    ) -> anyhow::Result<AttachedMode> {
        let pin = self.pins.tc();
        let name = &self.request.interface;
        let by_link = match self.request.tc_mode {
            TcMode::Auto => has_tcx(),
            TcMode::Tcx if has_tcx() => true,
            TcMode::Tcx => bail!("the kernel has no TC links, Linux 6.6 has; try --tc-mode auto"),
            TcMode::Clsact => false,
        };
        if !by_link {
            if add_clsact(name)? {
                settings.host |= DecapSettings::HOST_CLSACT;
                let roles = loaded.maps.roles()?;
                loaded.configure(settings, &roles)?;
            }
            attach_filter(loaded.clamp_program()?, name)?;
            remove_link(&pin)?;
            return Ok(AttachedMode::Clsact);
        }
        let program = loaded.clamp_program()?;
        if self.is_linked(&pin) {
            let link = FdLink::from(PinnedLink::from_pin(&pin)?);
            let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
            drop(program.take_link(id)?);
        } else {
            remove_if_there(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
            // First, because a program that answers "ok" ends the chain.
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(name, TcAttachType::Egress, options)?;
            let link: FdLink = program.take_link(id)?.try_into()?;
            link.pin(&pin)
                .with_context(|| format!("cannot pin the link of {name}"))?;
        }
        remove_filter(name)?;
        Ok(AttachedMode::Tcx)
    }

    /// Whether a pinned link holds this very interface: one of that name may have gone and come.
    fn is_linked(&self, pin: &Path) -> bool {
        pin.exists() && pinned_link_ifindex(pin).ok() == Some(self.ifindex)
    }
}

/// Adds the queueing discipline; false when somebody else has.
fn add_clsact(name: &str) -> anyhow::Result<bool> {
    match qdisc_add_clsact(name) {
        Ok(()) => Ok(true),
        Err(error) if exists(&error) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot add clsact to {name}")),
    }
}

/// Replaces the filter if it is there, else makes it.
fn attach_filter(program: &mut SchedClassifier, name: &str) -> anyhow::Result<()> {
    let id = match program.attach_to_link(filter(name)?) {
        Ok(id) => id,
        Err(ProgramError::TcError(_) | ProgramError::NetlinkError(_)) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: FILTER_PRIORITY,
                handle: FILTER_HANDLE,
                classid: None,
            });
            program.attach_with_options(name, TcAttachType::Egress, options)?
        }
        Err(error) => return Err(error.into()),
    };
    // Dropping the link would remove the filter, which is to outlive this process.
    mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes the filter; false when there is none.
pub(super) fn remove_filter(name: &str) -> anyhow::Result<bool> {
    use aya::programs::links::Link;
    match filter(name)?.detach() {
        Ok(()) => Ok(true),
        Err(ProgramError::NetlinkError(error))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove the filter of {name}")),
    }
}

/// Our filter on an interface, whether it is there or not.
fn filter(name: &str) -> anyhow::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(
        name,
        TcAttachType::Egress,
        FILTER_PRIORITY,
        FILTER_HANDLE,
        None,
    )
    .with_context(|| format!("cannot address the filter of {name}"))
}
