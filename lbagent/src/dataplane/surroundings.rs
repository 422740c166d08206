//! What one pass does outside of the maps: keep the programs attached and forwarding on, find the
//! ways to backends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;

use nix::fcntl::Flock;
use tokio::sync::watch;

use super::attach::{Attachments, InterfaceStatus};
use super::host::{self, HostAddresses};
use super::interfaces::Interfaces;
use super::journal::Journal;
use super::load::Loaded;
use super::neighbours::{self, Neighbours, Way};
use super::netlink::Netlink;
use super::xdp_features::XdpFeatures;
use super::{DataplaneError, LoadError, Path, sysctl};

/// The host around the maps.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) netlink: Netlink,
    pub(super) xdp_features: XdpFeatures,
    pub(super) addresses: HostAddresses,
    pub(super) neighbours: Neighbours,
    pub(super) ways: BTreeMap<IpAddr, Way>,
    pub(super) attachments: Attachments,
    pub(super) journal: Journal,
    pub(super) status: watch::Sender<Vec<InterfaceStatus>>,
    /// Whether the programs are attached, and kept so by each pass.
    pub(super) attached: bool,
    /// Keeps a second agent off these pins.
    pub(super) _lock: Flock<File>,
}

impl Host {
    /// Attaches for the first time. One interface that refuses must not stop the others, but an
    /// agent without any has nothing to do.
    pub(super) fn start(&mut self, loaded: &mut Loaded) -> Result<(), LoadError> {
        let interfaces = Interfaces::read(&mut self.netlink).map_err(LoadError::Netlink)?;
        self.ensure_forwarding(&interfaces)?;
        let mut status = self.attachments.ensure_clients(loaded, &interfaces);
        let refused = status.iter().find(|client| client.ifindex.is_some());
        if let Some(refused) = refused
            && status.iter().all(|client| client.mode.is_none())
        {
            return Err(LoadError::Attach {
                interface: refused.interface.clone(),
                reason: refused.reason.clone().unwrap_or_default(),
            });
        }
        status.extend(
            self.attachments
                .ensure_backends(loaded, &interfaces, &mut self.journal),
        );
        self.publish(status);
        self.attached = true;
        match self.attachments.remove_others() {
            Ok(removed) => removed
                .iter()
                .for_each(|link| tracing::info!(link, "removed a link")),
            Err(error) => tracing::warn!(%error, "cannot remove links of former interfaces"),
        }
        Ok(())
    }

    /// Keeps attachments and settings in place, and reads the host's network.
    pub(super) fn pass(
        &mut self,
        loaded: &mut Loaded,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<(BTreeSet<IpAddr>, BTreeMap<IpAddr, Path>), DataplaneError> {
        let list = |object: &str| host::failed("list", object.to_owned());
        let interfaces = Interfaces::read(&mut self.netlink).map_err(list("interfaces"))?;
        self.ensure_forwarding(&interfaces)?;
        if self.attached {
            let status = self
                .attachments
                .ensure(loaded, &interfaces, &mut self.journal);
            self.publish(status);
        }
        let present = host::addresses(&mut self.netlink).map_err(list("addresses"))?;
        let answered = self
            .addresses
            .answered(&mut self.netlink, &present, &interfaces)
            .map_err(list("VIP addresses"))?;
        self.ways.clear();
        for ip in wanted {
            let takes_xdp = |ifindex| self.xdp_features.sends(ifindex);
            let way = neighbours::way(&mut self.netlink, *ip, &present, takes_xdp)
                .map_err(host::failed("look up the route to", ip))?;
            if let Some(way) = way {
                self.ways.insert(*ip, way);
            }
        }
        self.neighbours
            .release_others(&mut self.netlink, &self.ways);
        Ok((
            answered,
            self.ways.iter().map(|(ip, way)| (*ip, way.path)).collect(),
        ))
    }

    fn ensure_forwarding(&mut self, interfaces: &Interfaces) -> Result<(), DataplaneError> {
        let Attachments {
            clients, backends, ..
        } = &self.attachments;
        let present = clients
            .iter()
            .chain(backends)
            .map(String::as_str)
            .filter(|name| interfaces.get(name).is_some());
        sysctl::ensure_forwarding(present, &mut self.journal)
    }

    fn publish(&self, status: Vec<InterfaceStatus>) {
        self.status.send_if_modified(|current| {
            if *current == status {
                return false;
            }
            for interface in &status {
                let InterfaceStatus {
                    interface,
                    hook,
                    mode,
                    reason,
                    ..
                } = interface;
                let reason = reason.as_deref().unwrap_or_default();
                match mode {
                    Some(mode) => tracing::info!(interface, ?hook, ?mode, reason, "attached"),
                    None => tracing::error!(interface, ?hook, reason, "not attached"),
                }
            }
            *current = status;
            true
        });
    }
}
