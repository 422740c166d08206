//! Loads the BPF object: which object, into which maps, and what to say when it does not load.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapError;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use lbagent_common::{ABI_VERSION, limits};

use super::pins::{MapShape, Pins};
use super::typed_maps::Maps;
use super::{Capacity, DataplaneError};

/// The object that was built with the agent; empty when there was none.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbagent-ebpf"));

/// Lines of the verifier's log that an error shows: its end says what was refused.
const LOG_LINES: usize = 25;

/// Why the data plane could not be set up. Packets go on as before: nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The agent was built without the BPF toolchain.
    #[error(
        "this lbagent was built without its BPF object; build it with `cargo xtask build`, or name \
         one with --bpf-object FILE or LBAGENT_BPF_OBJECT"
    )]
    NoObject,
    /// The object named by the operator cannot be read.
    #[error("cannot read the BPF object {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Pins need a BPF file system.
    #[error(
        "{} is not on a BPF file system; mount one with `mount -t bpf bpf {}`, or set bpffs_dir to \
         a directory on one", path.display(), mount_point.display()
    )]
    NotBpffs {
        /// The pin directory.
        path: PathBuf,
        /// Where to mount.
        mount_point: PathBuf,
    },
    /// A directory for pins could not be made or read.
    #[error("cannot use the pin directory {}", path.display())]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent works on the same pins.
    #[error("{} is in use by another lbagent; give each its own bpffs_dir", path.display())]
    PinsInUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// Pinned state of another ABI version.
    #[error(
        "{} was pinned by an lbagent with another map layout (this one has version {}); run \
         `lbagent detach` first: it ends the connections that the old one carries", path.display(),
        ABI_VERSION
    )]
    OtherAbi {
        /// The directory of that version.
        path: PathBuf,
    },
    /// A pinned map cannot be opened.
    #[error("cannot open the pinned map {map} at {}", path.display())]
    PinnedMap {
        /// Its name.
        map: &'static str,
        /// Its pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A map's layout is not the one that this agent was built with.
    #[error(
        "map {map} has the {what} {found}, this lbagent wants {wanted}; run `lbagent detach` first, \
         or use the BPF object of this version"
    )]
    MapLayout {
        /// Its name.
        map: &'static str,
        /// Which property.
        what: &'static str,
        /// The map's.
        found: String,
        /// Ours.
        wanted: String,
    },
    /// A capacity was changed while maps are pinned.
    #[error(
        "map {map} is pinned with {pinned} entries but {setting} asks for {wanted}; set {setting} \
         back to {pinned}, or run `lbagent detach` first: it ends the connections being carried"
    )]
    Capacity {
        /// Its name.
        map: &'static str,
        /// Configuration key.
        setting: &'static str,
        /// The pinned map's.
        pinned: u32,
        /// The configuration's.
        wanted: u32,
    },
    /// The kernel refuses this process.
    #[error(
        "the kernel refuses BPF to this process; run lbagent as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted,
    /// The object does not parse, or its maps cannot be made.
    #[error("cannot load the BPF object")]
    Object(#[source] Box<EbpfError>),
    /// The object has no such program.
    #[error("the BPF object has no program {program} of the right type")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// The kernel refused a program.
    #[error("the kernel refuses the program {program}: {error}; the verifier's last lines:\n{log}")]
    Verifier {
        /// Its name.
        program: &'static str,
        /// The system call's error.
        error: io::Error,
        /// End of the log.
        log: String,
    },
    /// A program could not be loaded or pinned.
    #[error("cannot load the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// No client interface took its program.
    #[error("cannot attach lb_ingress to {interface}: {reason}")]
    Attach {
        /// The first that refused.
        interface: String,
        /// Why.
        reason: String,
    },
    /// A map of the loaded object cannot be used.
    #[error(transparent)]
    Map(#[from] DataplaneError),
    /// The network of the host cannot be read or watched.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] io::Error),
    /// The record of changed host settings cannot be read or written.
    #[error("cannot keep the record of changed host settings {}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A loaded object.
pub(super) struct Loaded {
    /// Holds the programs.
    pub(super) ebpf: Ebpf,
    /// Its maps.
    pub(super) maps: Maps,
}

impl Loaded {
    /// The program on client-facing interfaces.
    pub(super) fn ingress(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, limits::PROGRAM_INGRESS)
    }

    /// The program on backend-facing interfaces.
    pub(super) fn reply(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, limits::PROGRAM_RETURN)
    }
}

/// The bytes of the object: the file that the operator names, or what was built in.
pub(super) fn object(path: Option<&Path>) -> Result<Cow<'static, [u8]>, LoadError> {
    match path {
        Some(path) => fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| LoadError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        None if EMBEDDED.is_empty() => Err(LoadError::NoObject),
        None => Ok(Cow::Borrowed(EMBEDDED)),
    }
}

/// Loads the object and both programs; with `pins`, into the maps pinned there.
pub(super) fn load(
    object: &[u8],
    capacity: &Capacity,
    pins: Option<&Pins>,
) -> Result<Loaded, LoadError> {
    let shapes = MapShape::all(capacity);
    let mut loader = EbpfLoader::new();
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.capacity);
        if let Some(pins) = pins {
            let path = pins.map(shape.name);
            shape.check_pin(&path)?;
            loader.map_pin_path(shape.name, path);
        }
    }
    let mut ebpf = loader.load(object).map_err(refused)?;
    for shape in &shapes {
        check_loaded(&ebpf, shape)?;
    }
    load_program::<Xdp>(&mut ebpf, limits::PROGRAM_INGRESS, Xdp::load)?;
    load_program::<SchedClassifier>(&mut ebpf, limits::PROGRAM_RETURN, SchedClassifier::load)?;
    let maps = Maps::take(&mut ebpf, capacity)?;
    check_abi(&maps, pins)?;
    Ok(Loaded { ebpf, maps })
}

/// Puts both programs at their pins, in place of their predecessors.
pub(super) fn pin_programs(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), LoadError> {
    for name in [limits::PROGRAM_INGRESS, limits::PROGRAM_RETURN] {
        let failed = |source: anyhow::Error| LoadError::Program {
            program: name,
            source,
        };
        let program = ebpf
            .program_mut(name)
            .ok_or(LoadError::NoProgram { program: name })?;
        let fresh = pins.program(&format!("{name}-new"));
        remove_if_there(&fresh).map_err(|error| failed(error.into()))?;
        program.pin(&fresh).map_err(|error| failed(error.into()))?;
        fs::rename(&fresh, pins.program(name)).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Removes a file; its absence is no failure.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::NoProgram { program: name })
}

pub(super) fn load_program<P>(
    ebpf: &mut Ebpf,
    name: &'static str,
    load: impl Fn(&mut P) -> Result<(), ProgramError>,
) -> Result<(), LoadError>
where
    for<'a> &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    load(program(ebpf, name)?).map_err(|error| match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => LoadError::Verifier {
            program: name,
            error: io_error,
            log: tail(&verifier_log.to_string()),
        },
        error => LoadError::Program {
            program: name,
            source: error.into(),
        },
    })
}

/// A map of the object itself may be wrong too, when the operator names an object of another
/// version.
fn check_loaded(ebpf: &Ebpf, shape: &MapShape) -> Result<(), LoadError> {
    let map = ebpf.map(shape.name).ok_or_else(|| LoadError::MapLayout {
        map: shape.name,
        what: "state",
        found: "missing".to_owned(),
        wanted: "it".to_owned(),
    })?;
    let info = map_data(map)
        .ok_or_else(|| LoadError::MapLayout {
            map: shape.name,
            what: "type",
            found: "unknown".to_owned(),
            wanted: "an array or a hash".to_owned(),
        })?
        .info()
        .map_err(|source| DataplaneError::Map {
            map: shape.name,
            operation: "describe",
            source: source.into(),
        })?;
    shape.check(&info)
}

fn map_data(map: &aya::maps::Map) -> Option<&aya::maps::MapData> {
    use aya::maps::Map;
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}

/// The settings entry names the version of the agent that filled the maps; 0 is a fresh map.
fn check_abi(maps: &Maps, pins: Option<&Pins>) -> Result<(), LoadError> {
    let found = maps.settings.get(0)?.abi_version;
    match pins {
        Some(pins) if found != 0 && found != ABI_VERSION => Err(LoadError::OtherAbi {
            path: pins.version(),
        }),
        _ => Ok(()),
    }
}

/// Most failures of the loader are those of an unprivileged user.
pub(super) fn refused(error: EbpfError) -> LoadError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
            == Some(libc::EPERM)
        {
            return LoadError::NotPermitted;
        }
        cause = inner.source();
    }
    LoadError::Object(Box::new(error))
}

/// The last lines of a text.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_kept() {
        #[track_caller]
        fn check(lines: usize, first: &str) {
            let log: Vec<_> = (0..lines).map(|line| format!("{line}\n\n")).collect();
            let tail = tail(&log.concat());
            assert_eq!(tail.lines().next().unwrap_or_default(), first);
            assert_eq!(tail.lines().count(), lines.min(LOG_LINES));
        }
        check(0, "");
        check(3, "0");
        check(100, "75");
    }

    #[test]
    fn a_missing_object_is_named() {
        let error = object(Some(Path::new("/nonexistent/object"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the BPF object /nonexistent/object"
        );
    }
}
