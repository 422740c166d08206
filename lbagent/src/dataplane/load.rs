//! Loads the BPF object: into which maps, and what to say when it does not load.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::{ProgramError, SchedClassifier, SkLookup, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use lbagent_common::limits;

use super::object::Object;
use super::pins::MapShape;
use super::typed_maps::Maps;
use super::{Capacity, DataplaneError, LoadError, cookies};

/// Lines of the verifier's log that an error shows: its end says what was refused.
const LOG_LINES: usize = 25;

/// A loaded object.
pub(super) struct Loaded {
    /// Holds the programs.
    pub(super) ebpf: Ebpf,
    /// Its maps.
    pub(super) maps: Maps,
}

impl Loaded {
    /// Takes the maps out of an object whose programs are loaded.
    pub(super) fn new(mut ebpf: Ebpf, capacity: &Capacity) -> Result<Self, LoadError> {
        let maps = Maps::take(&mut ebpf, capacity)?;
        Ok(Self { ebpf, maps })
    }

    /// The program on client-facing interfaces.
    pub(super) fn ingress(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, limits::PROGRAM_INGRESS)
    }

    /// The program of the network namespace.
    pub(super) fn steer(&mut self) -> Result<&mut SkLookup, LoadError> {
        program(&mut self.ebpf, limits::PROGRAM_STEER)
    }

    /// The program on backend-facing interfaces.
    pub(super) fn reply(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, limits::PROGRAM_RETURN)
    }
}

/// Loads the programs of an object whose maps are there.
pub(super) fn load_programs(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    load_program::<Xdp>(ebpf, limits::PROGRAM_INGRESS, Xdp::load)?;
    load_program::<SchedClassifier>(ebpf, limits::PROGRAM_RETURN, SchedClassifier::load)?;
    load_program::<SkLookup>(ebpf, limits::PROGRAM_STEER, SkLookup::load)
}

/// Makes the object's maps; one for which `pinned` names a pin is opened there instead. Without
/// `has_cookies` the programs answer no SYN and call no helper that this takes.
pub(super) fn load_maps(
    object: &Object,
    capacity: &Capacity,
    has_cookies: bool,
    pinned: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Ebpf, LoadError> {
    let shapes = MapShape::all(capacity);
    let mut loader = EbpfLoader::new();
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.capacity);
        if let Some(path) = pinned(shape.name) {
            shape.check_pin(&path)?;
            loader.map_pin_path(shape.name, path);
        }
    }
    if !has_cookies {
        loader.override_global(cookies::GLOBAL, &0_u32, true);
    }
    let ebpf = loader.load(&object.bytes).map_err(refused)?;
    for shape in &shapes {
        check_loaded(&ebpf, shape)?;
    }
    Ok(ebpf)
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

pub(super) fn map_data(map: &aya::maps::Map) -> Option<&aya::maps::MapData> {
    use aya::maps::Map;
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SockMap(data) => Some(data),
        _ => None,
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
}
