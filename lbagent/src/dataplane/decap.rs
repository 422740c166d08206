//! The decapsulating programs of a backend host: load them, fill their maps, read them back.
//!
//! Each interface has its own programs and maps, pinned below `<bpffs_dir>/decap-<interface>/`, so
//! that nothing has to go on running.

mod attach;
mod detach;
mod host;
mod status;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray};
use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use lbagent_common::decap::{self as abi, DecapOutcome, DecapSettings};
use lbagent_common::{Addr, PacketCounter};

pub use self::attach::{Attached, TcMode, attach};
pub use self::detach::detach;
pub use self::host::HostView;
pub use self::status::{DecapStatus, status};
use super::load::{load_program, program, refused, remove_if_there};
use super::pins::escape;
use super::{LoadError, XdpMode};

/// The object that was built with the agent; empty when there was none.
static EMBEDDED: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbagent-decap-ebpf"));

/// The object that was built with the agent; empty when there was none. For tests, which look into
/// it.
pub fn embedded_object() -> &'static [u8] {
    EMBEDDED
}

/// Every map, with the sizes of its key and value.
const MAPS: [(&str, usize, usize); 3] = [
    (abi::SETTINGS, size_of::<u32>(), size_of::<DecapSettings>()),
    (abi::ADDRESSES, size_of::<Addr>(), size_of::<u32>()),
    (abi::OUTCOMES, size_of::<u32>(), size_of::<PacketCounter>()),
];

/// What an interface is to do.
#[derive(Clone, Debug)]
pub struct DecapRequest {
    /// Its name.
    pub interface: String,
    /// Encapsulations, port and MSS; `host` and `abi_version` are filled in here.
    pub settings: DecapSettings,
    /// Addresses by their `ROLE_*` bits.
    pub roles: BTreeMap<IpAddr, u32>,
    /// How `lb_decap` is attached.
    pub xdp_mode: XdpMode,
    /// How `lb_clamp` is attached.
    pub tc_mode: TcMode,
}

/// Why decapsulation could not be set up, taken off or read.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// The agent was built without the BPF toolchain.
    #[error(
        "this lbagent was built without its decapsulating programs; build it with `cargo xtask build`"
    )]
    NoObject,
    /// The object does not load, or the pins cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no such interface.
    #[error("there is no interface {interface}; see `ip link`")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// Nothing is attached.
    #[error(
        "nothing is decapsulated on {interface}; `lbagent decap --iface {interface}` starts it"
    )]
    NotAttached {
        /// The interface.
        interface: String,
    },
    /// Another process changes the same pins.
    #[error("another `lbagent decap` works on {interface} right now; try again")]
    Busy {
        /// The interface.
        interface: String,
    },
    /// A program could not be attached.
    #[error("cannot attach {program} to {interface}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// Something could not be removed.
    #[error("cannot remove {object}")]
    Remove {
        /// What.
        object: String,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// A map operation failed.
    #[error("map {map}: {operation} failed")]
    Map {
        /// Its name.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A pin cannot be read or written.
    #[error("cannot use the pin {}", path.display())]
    Pin {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's tables cannot be read.
    #[error("cannot read the host's {what}")]
    Host {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The pins of one interface.
#[derive(Clone, Debug)]
struct DecapPins {
    directory: PathBuf,
}

impl DecapPins {
    fn new(bpffs_dir: &Path, interface: &str) -> Self {
        Self {
            directory: bpffs_dir.join(format!("decap-{}", escape(interface))),
        }
    }

    fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn xdp(&self) -> PathBuf {
        self.directory.join("link-xdp")
    }

    fn tc(&self) -> PathBuf {
        self.directory.join("link-tc")
    }
}

/// Both programs and their maps, loaded.
pub struct Decapsulator {
    ebpf: Ebpf,
    maps: DecapMaps,
}

impl Decapsulator {
    /// Loads the programs, attaches and pins nothing.
    pub fn load() -> Result<Self, DecapError> {
        Self::load_with(None)
    }

    /// Loads the programs into the maps that are pinned, or pins new ones.
    fn load_with(pins: Option<&DecapPins>) -> Result<Self, DecapError> {
        if EMBEDDED.is_empty() {
            return Err(DecapError::NoObject);
        }
        let mut loader = EbpfLoader::new();
        for (name, key, value) in MAPS {
            let Some(pins) = pins else { continue };
            let path = pins.map(name);
            discard_unfit(&path, key, value)?;
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader.load(EMBEDDED).map_err(refused)?;
        load_program::<Xdp>(&mut ebpf, abi::PROGRAM_DECAP, Xdp::load)?;
        load_program::<SchedClassifier>(&mut ebpf, abi::PROGRAM_CLAMP, SchedClassifier::load)?;
        let maps = DecapMaps::take(|name| {
            ebpf.take_map(name).ok_or(MapError::PinError {
                name: Some(name.to_owned()),
                error: aya::pin::PinError::NoFd {
                    name: name.to_owned(),
                },
            })
        })?;
        Ok(Self { ebpf, maps })
    }

    /// Writes settings and addresses; those of a former call go.
    pub fn configure(
        &mut self,
        settings: &DecapSettings,
        roles: &BTreeMap<IpAddr, u32>,
    ) -> Result<(), DecapError> {
        self.maps.put_roles(roles)?;
        self.maps.put_settings(&DecapSettings {
            abi_version: abi::ABI_VERSION,
            ..*settings
        })
    }

    /// Packets and bytes by outcome, in the order of [`DecapOutcome::ALL`].
    pub fn counters(&self) -> Result<Vec<(DecapOutcome, PacketCounter)>, DecapError> {
        self.maps.counters()
    }

    /// The program that takes outer headers off.
    pub fn decap_program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, abi::PROGRAM_DECAP)
    }

    /// The program that lowers the MSS.
    pub fn clamp_program(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, abi::PROGRAM_CLAMP)
    }
}

/// A pinned map of another version cannot be taken over. Only counters are lost with it.
fn discard_unfit(path: &Path, key: usize, value: usize) -> Result<(), DecapError> {
    if !path.exists() {
        return Ok(());
    }
    let fits = MapInfo::from_pin(path)
        .is_ok_and(|info| info.key_size() as usize == key && info.value_size() as usize == value);
    if !fits {
        tracing::info!(map = %path.display(), "replaces a map of another version");
        remove_if_there(path).map_err(|source| pin_error(path, source))?;
    }
    Ok(())
}

fn pin_error(path: &Path, source: io::Error) -> DecapError {
    DecapError::Pin {
        path: path.to_owned(),
        source,
    }
}

/// The maps of one interface.
struct DecapMaps {
    settings: Array<MapData, DecapSettings>,
    addresses: HashMap<MapData, Addr, u32>,
    outcomes: PerCpuArray<MapData, PacketCounter>,
}

impl DecapMaps {
    /// The pinned ones; `None` when there are none.
    fn open(pins: &DecapPins) -> Result<Option<Self>, DecapError> {
        if !fs::exists(pins.map(abi::SETTINGS)).unwrap_or(false) {
            return Ok(None);
        }
        let pinned = |name: &str| {
            let data = MapData::from_pin(pins.map(name))?;
            Ok(match name {
                abi::ADDRESSES => Map::HashMap(data),
                abi::OUTCOMES => Map::PerCpuArray(data),
                _ => Map::Array(data),
            })
        };
        Self::take(pinned).map(Some)
    }

    fn take(mut map: impl FnMut(&str) -> Result<Map, MapError>) -> Result<Self, DecapError> {
        let (settings, addresses, outcomes) = (abi::SETTINGS, abi::ADDRESSES, abi::OUTCOMES);
        Ok(Self {
            settings: map(settings)
                .and_then(Array::try_from)
                .map_err(failed(settings, "open"))?,
            addresses: map(addresses)
                .and_then(HashMap::try_from)
                .map_err(failed(addresses, "open"))?,
            outcomes: map(outcomes)
                .and_then(PerCpuArray::try_from)
                .map_err(failed(outcomes, "open"))?,
        })
    }

    fn settings(&self) -> Result<DecapSettings, DecapError> {
        self.settings
            .get(&0, 0)
            .map_err(failed(abi::SETTINGS, "read"))
    }

    fn put_settings(&mut self, settings: &DecapSettings) -> Result<(), DecapError> {
        self.settings
            .set(0, settings, 0)
            .map_err(failed(abi::SETTINGS, "write"))
    }

    fn roles(&self) -> Result<BTreeMap<IpAddr, u32>, DecapError> {
        self.addresses
            .iter()
            .map(|entry| entry.map(|(address, roles)| (address.into(), roles)))
            .collect::<Result<_, _>>()
            .map_err(failed(abi::ADDRESSES, "read"))
    }

    /// New addresses come before old ones go, so that a VIP that stays is never absent.
    fn put_roles(&mut self, wanted: &BTreeMap<IpAddr, u32>) -> Result<(), DecapError> {
        let present = self.roles()?;
        for (address, roles) in wanted {
            self.addresses
                .insert(Addr::from(*address), roles, 0)
                .map_err(failed(abi::ADDRESSES, "write"))?;
        }
        for address in present.keys().filter(|ip| !wanted.contains_key(ip)) {
            self.addresses
                .remove(&Addr::from(*address))
                .map_err(failed(abi::ADDRESSES, "delete from"))?;
        }
        Ok(())
    }

    fn counters(&self) -> Result<Vec<(DecapOutcome, PacketCounter)>, DecapError> {
        let sum = |outcome: &DecapOutcome| {
            let per_cpu = self
                .outcomes
                .get(&(*outcome as u32), 0)
                .map_err(failed(abi::OUTCOMES, "read"))?;
            let mut sum = PacketCounter::default();
            for counter in per_cpu.iter() {
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
            }
            Ok((*outcome, sum))
        };
        DecapOutcome::ALL.iter().map(sum).collect()
    }
}

fn failed(map: &'static str, operation: &'static str) -> impl Fn(MapError) -> DecapError {
    move |source| DecapError::Map {
        map,
        operation,
        source: Box::new(source),
    }
}
