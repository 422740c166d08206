//! From what a former agent left to attached programs: load, copy, let it be filled, switch.

use lbagent_common::limits;
use tokio::sync::watch;

use super::attach::Attachments;
use super::host::HostAddresses;
use super::journal::Journal;
use super::kernel::{KernelDataplane, OpenOptions, Surroundings};
use super::neighbours::Neighbours;
use super::netlink::Netlink;
use super::object::Object;
use super::pins::Pins;
use super::read::read_maps;
use super::running::Running;
use super::staging::{Built, Staged};
use super::surroundings::Host;
use super::typed_maps::Maps;
use super::watch::network_and_neighbours;
use super::xdp_features::XdpFeatures;
use super::{ActualState, Dataplane, LoadError, Step, steer};
use crate::plan::named_regions;

impl KernelDataplane {
    /// Loads the programs and takes over what is pinned, or makes everything anew. Nothing that
    /// carries packets is replaced before [`attach`](Self::attach), so a failure up to there leaves
    /// the attached programs, their maps and the pins as they were.
    pub fn open(options: &OpenOptions) -> Result<Self, LoadError> {
        let object = Object::read(options.object.as_deref())?;
        let pins = Pins::new(&options.bpffs_dir);
        pins.prepare()?;
        let lock = pins.lock()?;
        let mut netlink = Netlink::open().map_err(LoadError::Netlink)?;
        // Before anything is read, so that no change is missed.
        let changes = network_and_neighbours().map_err(LoadError::Netlink)?;
        let journal = Journal::open(&options.state_dir)?;
        let Built {
            staged,
            loaded,
            copied,
        } = Staged::build(&object, &options.capacity, &pins)?;
        let neighbours = Neighbours::read(&mut netlink).map_err(LoadError::Netlink)?;
        let host = Host {
            netlink,
            addresses: HostAddresses::new(options.vip_mode, options.client_interfaces.clone()),
            neighbours,
            xdp_features: XdpFeatures::open().map_err(LoadError::Netlink)?,
            changes,
            view: None,
            attachments: Attachments::new(
                options.client_interfaces.clone(),
                options.backend_interfaces.clone(),
                options.xdp_mode,
                pins,
            ),
            journal,
            status: watch::Sender::new(Vec::new()),
            pairs: Vec::new(),
            attached: false,
            _lock: lock,
        };
        let mut dataplane = Self {
            loaded,
            capacity: options.capacity,
            running: Running::default(),
            surroundings: Surroundings::Host(Box::new(host)),
            staged: Some(staged),
        };
        if let Some(copied) = copied {
            dataplane.copy_from(&copied)?;
        }
        Ok(dataplane)
    }

    /// Whether [`attach`](Self::attach) replaces programs that carry packets by ones whose maps
    /// nobody has filled yet.
    pub fn must_be_filled(&self) -> bool {
        self.staged
            .as_ref()
            .is_some_and(|staged| staged.has_new_maps && staged.replaces_attached())
    }

    /// Publishes the pins and attaches the programs, in the place of those of a former agent: each
    /// interface in one step.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        let (Surroundings::Host(host), Some(staged)) = (&mut self.surroundings, &self.staged)
        else {
            return Ok(());
        };
        host.addresses
            .remove_others(&mut host.netlink)
            .map_err(LoadError::Netlink)?;
        let generation = staged.publish()?;
        host.start(&mut self.loaded)?;
        let program = generation.program(limits::PROGRAM_STEER);
        steer::attach(
            &mut self.loaded,
            &program,
            &host.attachments.pins.steer_link(),
        )
        .map_err(LoadError::Steer)?;
        staged.activate(&generation)?;
        self.staged = None;
        Ok(())
    }

    /// Copies what the agent wrote into another version's maps. Ids stay what they are.
    fn copy_from(&mut self, maps: &Maps) -> Result<(), LoadError> {
        let actual = read_maps(maps)?;
        let regions = named_regions(&actual);
        let ActualState {
            vips,
            slots,
            backends,
            returns,
            ..
        } = actual;
        let backends = backends
            .into_iter()
            .map(|(id, it)| Step::PutBackend(id, it));
        let tables = regions.into_iter().filter_map(|region| {
            let slots = slots.as_ref()?.read(region)?;
            Some(Step::PutTable(region, slots))
        });
        let returns = returns
            .into_iter()
            .map(|(key, it)| Step::PutReturn(key, it));
        let vips = vips.into_iter().map(|(key, it)| Step::PutVip(key, it));
        for step in backends.chain(tables).chain(returns).chain(vips) {
            self.apply(&step)?;
        }
        Ok(())
    }
}
