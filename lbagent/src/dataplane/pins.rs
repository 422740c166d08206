//! Where programs, links and maps are pinned, and whether pinned maps are ours.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use lbagent_common::redirect::Passed;
use lbagent_common::{
    ABI_VERSION, AnswerBudget, BackendEntry, BackendId, ConnBucket, EventDraft, FragmentEntry,
    FragmentKey, HostEntry, HostKey, NatFlowEntry, NatFlowKey, Outcome, PacketCounter,
    QuicServerKey, ReturnEntry, ReturnKey, Settings, Slot, SourceEntry, SourceKey, Steered,
    TrafficCounter, VipEntry, VipKey, layout_since, limits,
};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Capacity, LoadError};

/// The pin directory of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    base: PathBuf,
}

impl Pins {
    /// Pins below `bpffs_dir`.
    pub(crate) fn new(bpffs_dir: &Path) -> Self {
        Self {
            base: bpffs_dir.to_owned(),
        }
    }

    /// The directory that everything is pinned below.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Checks the file system and makes the directories.
    pub(super) fn prepare(&self) -> Result<(), LoadError> {
        self.check_file_system()?;
        let links = self.links();
        fs::create_dir_all(&links).map_err(|source| unusable(&links, source))
    }

    /// Keeps a second agent off these pins until the lock is dropped.
    pub(super) fn lock(&self) -> Result<Flock<File>, LoadError> {
        Self::lock_directory(&self.base)
    }

    /// Locks a directory of pins. The kernel lets go of it when the process ends, however it ends.
    pub(super) fn lock_directory(path: &Path) -> Result<Flock<File>, LoadError> {
        let file = File::open(path).map_err(|source| unusable(path, source))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| LoadError::PinsInUse {
            path: path.to_owned(),
        })
    }

    /// The directory of this ABI version.
    pub(super) fn version(&self) -> PathBuf {
        self.base.join(format!("v{ABI_VERSION}"))
    }

    /// Where a data plane is put together before anybody may find it.
    pub(super) fn staging(&self) -> PathBuf {
        self.base.join("staging")
    }

    /// Links between programs and interfaces. They outlive every version of maps and programs.
    pub(super) fn links(&self) -> PathBuf {
        self.base.join("links")
    }

    /// Pin of the link between `lb_steer` and the network namespace. Not of the form of the others,
    /// which name an interface.
    pub(super) fn steer_link(&self) -> PathBuf {
        self.links().join("steer")
    }

    /// A link's pin; `hook` is `xdp` or `tc`.
    pub(super) fn link(&self, hook: &str, interface: &str) -> PathBuf {
        self.links().join(format!("{hook}-{}", escape(interface)))
    }

    /// Directories of all ABI versions, this one included.
    pub(crate) fn versions(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix('v'));
            if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    pub(super) fn check_file_system(&self) -> Result<(), LoadError> {
        let existing = self
            .base
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let of_bpf = statfs(existing)
            .map_err(|error| unusable(existing, error.into()))?
            .filesystem_type()
            == BPF_FS_MAGIC;
        if of_bpf {
            return Ok(());
        }
        let mount_point = self.base.parent().unwrap_or(&self.base).to_owned();
        Err(LoadError::NotBpffs {
            path: self.base.clone(),
            mount_point,
        })
    }
}

pub(super) fn unusable(path: &Path, source: io::Error) -> LoadError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return LoadError::NotPermitted;
    }
    LoadError::PinDirectory {
        path: path.to_owned(),
        source,
    }
}

/// The BPF file system reserves dots in names; VLAN interfaces have them.
pub(super) fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// What [`escape`] was given.
pub(crate) fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// What a map must look like.
pub(super) struct MapShape {
    pub(super) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// Number of entries, and the configuration key that sets it.
    pub(super) capacity: u32,
    setting: &'static str,
}

impl MapShape {
    /// All maps at these capacities.
    pub(super) fn all(capacity: &Capacity) -> [Self; limits::ALL_MAPS.len()] {
        use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray, SockMap};
        let Capacity {
            vips,
            slots,
            backends,
            returns,
            conns: _,
            nat_flows,
            hosts,
        } = *capacity;
        let conn_buckets = capacity.conn_buckets();
        let (udp_seen, outcomes) = (limits::UDP_SEEN_LEN, Outcome::COUNT);
        let shielded = u32::from(VipEntry::MAX_VIP_INDEX) + 1;
        let [for_vips, for_backends] = ["limits.vips", "limits.backends"];
        [
            Self::of::<u32, Settings>(limits::SETTINGS, Array, 1, ""),
            Self::of::<VipKey, VipEntry>(limits::VIPS, Hash, vips, for_vips),
            Self::of::<u32, Slot>(limits::SLOTS, Array, slots, "limits.slots"),
            Self::of::<u32, BackendEntry>(limits::BACKENDS, Array, backends, for_backends),
            Self::of::<ReturnKey, ReturnEntry>(limits::RETURNS, Hash, returns, "limits.returns"),
            Self::of::<u32, ConnBucket>(limits::CONNS, Array, conn_buckets, "limits.conns"),
            Self::of::<u32, u32>(limits::REFUSALS, Array, vips, for_vips),
            Self::of::<NatFlowKey, NatFlowEntry>(
                limits::NAT_FLOWS,
                LruHash,
                nat_flows,
                "limits.nat_flows",
            ),
            Self::of::<u32, u32>(limits::UDP_SEEN, Array, udp_seen, ""),
            Self::of::<u32, PacketCounter>(limits::OUTCOMES, PerCpuArray, outcomes, ""),
            Self::of::<u32, TrafficCounter>(limits::VIP_COUNTERS, PerCpuArray, vips, for_vips),
            Self::of::<u32, TrafficCounter>(
                limits::BACKEND_COUNTERS,
                PerCpuArray,
                backends,
                for_backends,
            ),
            Self::of::<SourceKey, SourceEntry>(limits::SOURCES, LpmTrie, limits::MAX_SOURCES, ""),
            Self::of::<QuicServerKey, BackendId>(
                limits::QUIC_SERVERS,
                Hash,
                limits::MAX_QUIC_SERVERS,
                "",
            ),
            Self::of::<FragmentKey, FragmentEntry>(
                limits::FRAGMENTS,
                LruHash,
                limits::MAX_FRAGMENTS,
                "",
            ),
            Self::ring(limits::HELD, limits::HELD_LEN),
            Self::of::<u32, AnswerBudget>(limits::ANSWERS, PerCpuArray, 1, ""),
            Self::ring(limits::EVENTS, limits::EVENTS_LEN),
            Self::of::<u32, EventDraft>(limits::EVENT_DRAFTS, PerCpuArray, 1, ""),
            Self::of::<HostKey, HostEntry>(limits::HOSTS, Hash, hosts, "limits.hosts"),
            Self::of::<u32, u32>(limits::TERMINATORS, SockMap, limits::MAX_TERMINATORS, ""),
            Self::of::<u32, u64>(limits::STEER_COUNTERS, PerCpuArray, Steered::COUNT, ""),
            Self::of::<u32, u64>(limits::REDIRECT_COUNTERS, PerCpuArray, Passed::COUNT, ""),
            Self::of::<u32, AnswerBudget>(limits::SHIELD, PerCpuArray, shielded, ""),
        ]
    }

    fn of<K, V>(name: &'static str, kind: MapType, capacity: u32, setting: &'static str) -> Self {
        Self {
            name,
            kind,
            key: size_of::<K>(),
            value: size_of::<V>(),
            capacity,
            setting,
        }
    }

    /// A ring buffer: no keys, no values, and a capacity in bytes.
    fn ring(name: &'static str, bytes: u32) -> Self {
        Self {
            key: 0,
            value: 0,
            ..Self::of::<u32, u32>(name, MapType::RingBuf, bytes, "")
        }
    }

    /// The ABI version that its layout changed in last.
    pub(super) fn layout(&self) -> u32 {
        layout_since(self.name)
    }

    /// Checks a map that is pinned already, before anything is loaded.
    pub(super) fn check_pin(&self, path: &Path) -> Result<(), LoadError> {
        if !path.exists() {
            return Ok(());
        }
        let info = MapInfo::from_pin(path).map_err(|source| LoadError::PinnedMap {
            map: self.name,
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        self.check(&info)
    }

    /// Checks the kernel's own description of a map.
    pub(super) fn check(&self, info: &MapInfo) -> Result<(), LoadError> {
        let layout = |what, found: String, wanted: String| LoadError::MapLayout {
            map: self.name,
            what,
            found,
            wanted,
        };
        let kind = info.map_type().ok();
        if kind != Some(self.kind) {
            return Err(layout(
                "type",
                format!("{kind:?}"),
                format!("{:?}", self.kind),
            ));
        }
        if info.key_size() as usize != self.key {
            return Err(layout(
                "key size",
                info.key_size().to_string(),
                self.key.to_string(),
            ));
        }
        if info.value_size() as usize != self.value {
            return Err(layout(
                "value size",
                info.value_size().to_string(),
                self.value.to_string(),
            ));
        }
        if info.max_entries() == self.capacity {
            return Ok(());
        }
        if self.setting.is_empty() {
            return Err(layout(
                "capacity",
                info.max_entries().to_string(),
                self.capacity.to_string(),
            ));
        }
        Err(LoadError::Capacity {
            map: self.name,
            setting: self.setting,
            pinned: info.max_entries(),
            wanted: self.capacity,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_come_back() {
        #[track_caller]
        fn check(interface: &str, escaped: &str) {
            assert_eq!(escape(interface), escaped);
            assert_eq!(unescape(escaped), interface);
        }
        check("eth0", "eth0");
        check("eth0.100", "eth0%2e100");
        check("a%2eb", "a%252eb");
        check("%", "%25");
    }

    #[test]
    fn every_map_has_a_shape() {
        let shapes = MapShape::all(&Capacity::default());
        let mut shaped: Vec<_> = shapes.iter().map(|shape| shape.name).collect();
        let mut named = limits::ALL_MAPS.to_vec();
        shaped.sort_unstable();
        named.sort_unstable();
        assert_eq!(shaped, named);
    }

    #[test]
    fn a_directory_of_another_file_system_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Pins::new(&directory.path().join("lbagent"))
            .prepare()
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&format!("mount -t bpf bpf {}", directory.path().display())),
            "{message}"
        );
    }
}
