//! What one pass does outside of the maps: keep the programs attached and forwarding on, find the
//! ways to backends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use tokio::sync::watch;

use super::attach::{AttachedMode, Attachments, InterfaceStatus};
use super::host::{self, Address, HostAddresses};
use super::interfaces::Interfaces;
use super::journal::Journal;
use super::load::Loaded;
use super::neighbours::Neighbours;
use super::netlink::Netlink;
use super::next_hops::{self, Neighbourhood};
use super::watch::Changes;
use super::ways::{self, Way};
use super::xdp_features::XdpFeatures;
use super::{DataplaneError, HostState, LoadError, Path, sysctl};

/// Passes over everything look at the whole host again when they last did so as long ago as this,
/// although the kernel tells of changes: not of a sysctl or a TC program, and not of what a link's far end
/// lets XDP send. Rounds always do.
const WHOLE_VIEW: Duration = Duration::from_secs(20);

/// The host around the maps.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) netlink: Netlink,
    pub(super) xdp_features: XdpFeatures,
    pub(super) addresses: HostAddresses,
    pub(super) neighbours: Neighbours,
    pub(super) changes: watch::Receiver<Changes>,
    /// What the last pass saw; `None` when it is not to be relied on.
    pub(super) view: Option<View>,
    pub(super) attachments: Attachments,
    pub(super) journal: Journal,
    pub(super) status: watch::Sender<Vec<InterfaceStatus>>,
    /// Interfaces towards clients that were one end of a pair when the programs were attached, natively.
    pub(super) pairs: Vec<String>,
    /// Whether the programs are attached, and kept so by each pass.
    pub(super) attached: bool,
    /// Keeps a second agent off these pins.
    pub(super) _lock: Flock<File>,
}

/// The host's network as it was found.
#[derive(Debug)]
pub(super) struct View {
    /// What the kernel had told before the view was taken.
    seen: Changes,
    /// The agent itself has changed the network since.
    is_outdated: bool,
    taken_at: Instant,
    interfaces: Interfaces,
    present: Vec<Address>,
    /// VIPs that the host answers for.
    answered: BTreeSet<IpAddr>,
    neighbourhood: Neighbourhood,
    /// Ways to the addresses that were asked for.
    ways: BTreeMap<IpAddr, Asked>,
    /// How many rounds have begun.
    round: u32,
    /// Whether an interface sends what XDP redirects to it.
    takes_xdp: HashMap<u32, bool>,
}

impl View {
    /// Whether its ways still hold after these changes.
    fn has_ways_of(&self, changes: Changes) -> bool {
        !self.is_outdated && self.seen.ways == changes.ways
    }
}

/// What the routing table said of an address.
#[derive(Clone, Debug)]
struct Asked {
    /// `None` where there is no way.
    way: Option<Arc<Way>>,
    /// The round that it was asked in.
    round: u32,
}

/// Those of the ways that there are.
fn found(ways: &BTreeMap<IpAddr, Asked>) -> impl Iterator<Item = (&IpAddr, &Way)> {
    ways.iter()
        .filter_map(|(ip, asked)| Some((ip, asked.way.as_deref()?)))
}

impl Host {
    /// Attaches for the first time. One interface that refuses must not stop the others, but an
    /// agent without any has nothing to do.
    pub(super) fn start(&mut self, loaded: &mut Loaded) -> Result<(), LoadError> {
        let interfaces = Interfaces::read(&mut self.netlink).map_err(LoadError::Netlink)?;
        self.ensure_forwarding(&interfaces)?;
        let mut status = self.attachments.ensure_clients(loaded, &interfaces);
        let is_pair = |client: &&InterfaceStatus| {
            let interface = interfaces.get(&client.interface);
            client.mode == Some(AttachedMode::Native) && interface.is_some_and(|it| it.is_veth)
        };
        let pairs = status.iter().filter(is_pair);
        self.pairs = pairs.map(|client| client.interface.clone()).collect();
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
        // What was seen before was not kept in place yet.
        self.view = None;
        match self.attachments.remove_others() {
            Ok(removed) => removed
                .iter()
                .for_each(|link| tracing::info!(link, "removed a link")),
            Err(error) => tracing::warn!(%error, "cannot remove links of former interfaces"),
        }
        Ok(())
    }

    /// Keeps attachments and settings in place, and tells which VIPs the host answers for and how
    /// it reaches the wanted addresses. Only what may have changed is asked for again.
    pub(super) fn pass(
        &mut self,
        loaded: &mut Loaded,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<HostState, DataplaneError> {
        // What changes from here on leads to another pass.
        let now = *self.changes.borrow();
        let mut view = match self.view.take().filter(|view| view.has_ways_of(now)) {
            Some(view) => view,
            None => self.look(loaded, now)?,
        };
        if view.seen.neighbours != now.neighbours {
            view.neighbourhood = self.read_neighbours()?;
            view.seen = now;
        }
        self.find_ways(&mut view, wanted, 0)?;
        self.forget_ways(&mut view, wanted);
        let paths = self.paths(&mut view, wanted);
        let addresses = view.answered.clone();
        self.view = Some(view);
        Ok(HostState { addresses, paths })
    }

    /// The same, but also what the kernel tells nothing of is looked at, if that was not done lately.
    pub(super) fn whole_pass(
        &mut self,
        loaded: &mut Loaded,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<HostState, DataplaneError> {
        self.view
            .take_if(|view| view.taken_at.elapsed() >= WHOLE_VIEW);
        self.pass(loaded, wanted)
    }

    /// Keeps attachments and settings in place, and begins to ask for all ways anew: those that
    /// [`glimpse`](Self::glimpse) is asked about. Tells which VIPs the host answers for.
    pub(super) fn begin_round(
        &mut self,
        loaded: &mut Loaded,
    ) -> Result<BTreeSet<IpAddr>, DataplaneError> {
        let now = *self.changes.borrow();
        let former = self.view.take().filter(|view| view.has_ways_of(now));
        let mut view = self.look(loaded, now)?;
        if let Some(former) = former {
            view.ways = former.ways;
            view.round = former.round + 1;
        }
        let addresses = view.answered.clone();
        self.view = Some(view);
        Ok(addresses)
    }

    /// Lets go of what was not asked for since the round began, and of the neighbours that no way
    /// leads through any more; tells which addresses nobody has asked about.
    pub(super) fn end_round(&mut self) -> Vec<IpAddr> {
        let Some(view) = &mut self.view else {
            return Vec::new();
        };
        let mut forgotten = Vec::new();
        let round = view.round;
        view.ways.retain(|ip, asked| {
            let is_kept = asked.round == round;
            if !is_kept {
                forgotten.push(*ip);
            }
            is_kept
        });
        self.neighbours
            .release_others(&mut self.netlink, found(&view.ways));
        forgotten
    }

    /// How the host reaches some addresses, with its network as the last pass or round saw it. Nothing is
    /// put right, and no neighbour let go.
    pub(super) fn glimpse(
        &mut self,
        loaded: &mut Loaded,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<BTreeMap<IpAddr, Path>, DataplaneError> {
        let now = *self.changes.borrow();
        let mut view = match self.view.take() {
            Some(view) => view,
            None => self.look(loaded, now)?,
        };
        let round = view.round;
        self.find_ways(&mut view, wanted, round)?;
        let paths = self.paths(&mut view, wanted);
        self.view = Some(view);
        Ok(paths)
    }

    /// Whether the kernel has told of nothing since the last pass.
    pub(super) fn is_current(&self) -> bool {
        let view = self.view.as_ref();
        view.is_some_and(|view| !view.is_outdated && view.seen == *self.changes.borrow())
    }

    /// Whether the ways and link addresses of the last pass still hold, or a change has been told
    /// since, which the next pass is about to take up.
    pub(super) fn is_followed(&self) -> bool {
        self.view.is_some() && self.changes.has_changed().is_ok()
    }

    /// Puts right what lies around the maps, and looks at the whole network.
    fn look(&mut self, loaded: &mut Loaded, seen: Changes) -> Result<View, DataplaneError> {
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
        Ok(View {
            seen,
            is_outdated: false,
            taken_at: Instant::now(),
            interfaces,
            present,
            answered,
            neighbourhood: self.read_neighbours()?,
            ways: BTreeMap::new(),
            round: 1,
            takes_xdp: HashMap::new(),
        })
    }

    /// No neighbours where only the routing table knows the way of a packet.
    fn read_neighbours(&mut self) -> Result<Neighbourhood, DataplaneError> {
        let list = |object: &str| host::failed("list", object.to_owned());
        if next_hops::destination_decides(&mut self.netlink).map_err(list("routing rules"))? {
            Neighbourhood::read(&mut self.netlink).map_err(list("neighbours"))
        } else {
            Ok(Neighbourhood::default())
        }
    }

    /// Asks for the ways that are not known yet, or only from before a round.
    fn find_ways(
        &mut self,
        view: &mut View,
        wanted: &BTreeSet<IpAddr>,
        since: u32,
    ) -> Result<(), DataplaneError> {
        let is_unknown = |ip: &IpAddr| view.ways.get(ip).is_none_or(|asked| asked.round < since);
        let unknown: Vec<IpAddr> = wanted.iter().copied().filter(is_unknown).collect();
        let ways = ways::ways(&mut self.netlink, &unknown, &view.present)
            .map_err(host::failed("look up routes to", "backends"))?;
        let round = view.round;
        let asked = ways.into_iter().map(|way| Asked { way, round });
        let asked = unknown.into_iter().zip(asked);
        if view.ways.is_empty() {
            // A map that is made at once takes half the memory of one that grows.
            view.ways = asked.collect();
        } else {
            view.ways.extend(asked);
        }
        Ok(())
    }

    /// Forgets the ways that nobody wants any more, and the neighbours that none leads through.
    fn forget_ways(&mut self, view: &mut View, wanted: &BTreeSet<IpAddr>) {
        view.ways.retain(|ip, _| wanted.contains(ip));
        self.neighbours
            .release_others(&mut self.netlink, found(&view.ways));
    }

    /// Those of the wanted addresses that the host reaches.
    fn paths(&self, view: &mut View, wanted: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Path> {
        let View {
            interfaces,
            neighbourhood,
            ways,
            takes_xdp,
            ..
        } = view;
        let mut takes_xdp = |ifindex| {
            *takes_xdp
                .entry(ifindex)
                .or_insert_with(|| self.xdp_features.sends(ifindex))
        };
        wanted
            .iter()
            .filter_map(|ip| {
                let way = ways.get(ip)?.way.as_deref()?;
                let path = next_hops::complete(*ip, way, interfaces, neighbourhood, &mut takes_xdp);
                Some((*ip, path))
            })
            .collect()
    }

    /// Makes the host answer for a VIP.
    pub(super) fn add_address(&mut self, ip: IpAddr) -> Result<(), DataplaneError> {
        self.look_again();
        self.addresses.add(&mut self.netlink, ip)
    }

    /// Stops it answering for a VIP.
    pub(super) fn remove_address(&mut self, ip: IpAddr) -> Result<(), DataplaneError> {
        self.look_again();
        self.addresses.remove(&mut self.netlink, ip)
    }

    /// Makes the next pass look at everything, while this one goes on with the ways that its steps
    /// were planned with.
    fn look_again(&mut self) {
        if let Some(view) = &mut self.view {
            view.is_outdated = true;
        }
    }

    /// Has the kernel resolve the way to an address.
    pub(super) fn resolve(&mut self, ip: IpAddr, path: &Path) -> Result<(), DataplaneError> {
        let ways = self.view.as_ref().map(|view| &view.ways);
        let way = ways.and_then(|ways| ways.get(&ip)?.way.as_deref());
        // The path came out of a way: without one, the next pass finds another.
        let Some(way) = way else { return Ok(()) };
        self.neighbours
            .keep(&mut self.netlink, path.ifindex, way.next_hop(ip))
    }

    /// Has the kernel accept SYN cookies.
    pub(super) fn ensure_syncookies(&mut self) -> Result<(), DataplaneError> {
        sysctl::ensure_syncookies(&mut self.journal)
    }

    fn ensure_forwarding(&mut self, interfaces: &Interfaces) -> Result<(), DataplaneError> {
        let Attachments {
            clients, backends, ..
        } = &self.attachments;
        let named = clients.iter().chain(backends).map(String::as_str);
        let forwarding = interfaces.with_vlans(named);
        sysctl::ensure_forwarding(forwarding.into_iter(), &mut self.journal)
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
