//! Puts a data plane together where nobody looks for one, and publishes it when it is whole.
//!
//! The order is what makes `kill -9` harmless: pins are made below `staging`, which the next start
//! removes; one rename publishes them; then `previous` names what was attached, then each link is
//! switched in one step, and last `active` names the new programs. Whatever was reached, the next
//! start, or `lbagent rollback`, finds whole directories and links that carry packets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use lbagent_common::limits;

use super::carry::Carried;
use super::generations::{self, Generation, PROGRAMS, Role};
use super::load::{self, Loaded};
use super::object::Object;
use super::pins::{MapShape, Pins, unusable};
use super::typed_maps::Maps;
use super::{Capacity, LoadError, cookies};

/// A loaded data plane that is not attached yet. Dropped, it leaves no pin behind.
#[derive(Debug)]
pub(super) struct Staged {
    pins: Pins,
    /// What is attached now.
    active: Option<Generation>,
    /// Name of the new generation's directory.
    name: String,
    /// Whether the maps are new: no attached program uses them.
    pub(super) has_new_maps: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.pins.staging()) {
            tracing::debug!(%error, "cannot remove unfinished pins; the next start does");
        }
    }
}

/// What [`Staged::build`] yields.
pub(super) struct Built {
    pub(super) staged: Staged,
    pub(super) loaded: Loaded,
    /// The agent's maps of the attached data plane, to copy from.
    pub(super) copied: Option<Maps>,
}

impl Staged {
    /// Loads the object into the maps that are pinned for its ABI version and in use, or else into
    /// new ones, and pins it all in the staging directory.
    pub(super) fn build(
        object: &Object,
        capacity: &Capacity,
        pins: &Pins,
    ) -> Result<Built, LoadError> {
        let staging = pins.staging();
        clear(&staging).map_err(|source| unusable(&staging, source))?;
        let active = Generation::find(pins, Role::Active);
        let in_use = active.as_ref().map(Generation::abi_directory);
        let has_new_maps = in_use != Some(&pins.version());
        // From here on a failure removes what was pinned.
        let mut staged = Self {
            pins: pins.clone(),
            active: active.clone(),
            name: String::new(),
            has_new_maps,
        };
        let (mut ebpf, copied) = if has_new_maps {
            new_maps(object, capacity, &staging, in_use)?
        } else {
            let maps = pins.version().join("maps");
            let pinned = |name: &str| Some(maps.join(name));
            (
                load::load_maps(object, capacity, cookies::are_supported(), pinned)?,
                None,
            )
        };
        load::load_programs(&mut ebpf)?;
        staged.name = pin_programs(&mut ebpf, object, &staging)?;
        let loaded = Loaded::new(ebpf, capacity)?;
        if !has_new_maps {
            check_abi(&loaded.maps, pins)?;
        }
        Ok(Built {
            staged,
            loaded,
            copied,
        })
    }

    /// Whether programs carry packets that the new ones will replace.
    pub(super) fn replaces_attached(&self) -> bool {
        let mut links = fs::read_dir(self.pins.links()).into_iter().flatten();
        links.next().is_some()
    }

    /// Moves the pins to where the next start and a rollback look for them.
    pub(super) fn publish(&self) -> Result<Generation, LoadError> {
        let (staging, version) = (self.pins.staging(), self.pins.version());
        let directory = version.join(&self.name);
        if let Some(active) = &self.active
            && *active.program(limits::PROGRAM_INGRESS) != directory.join(limits::PROGRAM_INGRESS)
        {
            active.assume(&self.pins, Role::Previous)?;
        }
        let published = if self.has_new_maps {
            // What lies there belongs to no attached program.
            clear(&version).and_then(|()| fs::rename(&staging, &version))
        } else if directory.exists() {
            replace_programs(&staging.join(&self.name), &directory)
        } else {
            fs::rename(staging.join(&self.name), &directory)
        };
        published.map_err(|source| unusable(&directory, source))?;
        Generation::at(directory.clone())
            .ok_or_else(|| unusable(&directory, io::ErrorKind::NotFound.into()))
    }

    /// The new programs are attached.
    pub(super) fn activate(&self, generation: &Generation) -> Result<(), LoadError> {
        generation.assume(&self.pins, Role::Active)?;
        let previous = Generation::find(&self.pins, Role::Previous);
        let kept: Vec<_> = previous.iter().chain([generation]).collect();
        if let Err(error) = generations::remove_others(&self.pins, &kept) {
            tracing::warn!(%error, "cannot remove former data planes");
        }
        Ok(())
    }
}

/// The object with maps that nobody uses yet, pinned in the staging directory, and the maps to copy
/// from.
fn new_maps(
    object: &Object,
    capacity: &Capacity,
    staging: &Path,
    in_use: Option<&Path>,
) -> Result<(Ebpf, Option<Maps>), LoadError> {
    let shapes = MapShape::all(capacity);
    let carried = in_use.map_or_else(Carried::default, |directory| {
        let carried = Carried::from(directory, &shapes);
        carried.log();
        carried
    });
    let has_cookies = cookies::are_supported();
    let shared = |name: &str| carried.shared.get(name).cloned();
    let ebpf = load::load_maps(object, capacity, has_cookies, shared)?;
    let directory = staging.join("maps");
    fs::create_dir_all(&directory)
        .and_then(|()| generations::write_layouts(staging, &shapes))
        .map_err(|source| unusable(staging, source))?;
    for shape in &shapes {
        let path = directory.join(shape.name);
        if let Some(map) = ebpf.map(shape.name).and_then(load::map_data) {
            map.pin(&path)
                .map_err(|error| unusable(&path, io::Error::other(error)))?;
        }
    }
    let copied = carried.copied.map(|pins| -> Result<Maps, LoadError> {
        let pin = |name: &str| pins.get(name).cloned();
        let mut old = load::load_maps(object, capacity, has_cookies, pin)?;
        Ok(Maps::take(&mut old, capacity)?)
    });
    Ok((ebpf, copied.transpose()?))
}

/// Pins the programs in a directory of their own below the staging directory; returns its name.
fn pin_programs(ebpf: &mut Ebpf, object: &Object, staging: &Path) -> Result<String, LoadError> {
    let failed =
        |program: &'static str| move |source: anyhow::Error| LoadError::Program { program, source };
    let mut tags = [0; PROGRAMS.len()];
    for (tag, name) in tags.iter_mut().zip(PROGRAMS) {
        let program = ebpf.program(name);
        let program = program.ok_or(LoadError::NoProgram { program: name })?;
        let info = program.info().map_err(|error| failed(name)(error.into()))?;
        *tag = info.tag();
    }
    let name = generations::directory_name(tags);
    let directory = staging.join(&name);
    fs::create_dir_all(&directory)
        .and_then(|()| generations::write_version(&directory, &object.version))
        .map_err(|source| unusable(&directory, source))?;
    for name in PROGRAMS {
        let program = ebpf.program_mut(name);
        let program = program.ok_or(LoadError::NoProgram { program: name })?;
        program
            .pin(directory.join(name))
            .map_err(|error| failed(name)(error.into()))?;
    }
    Ok(name)
}

/// Puts pins in the place of those of the same names, each in one step.
fn replace_programs(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let from: PathBuf = entry?.path();
        fs::rename(&from, to.join(from.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The settings entry names the version of the agent that filled the maps; 0 is a fresh map.
fn check_abi(maps: &Maps, pins: &Pins) -> Result<(), LoadError> {
    match maps.settings.get(0)?.abi_version {
        0 | lbagent_common::ABI_VERSION => Ok(()),
        found => Err(LoadError::OtherAbi {
            path: pins.version(),
            found,
        }),
    }
}

/// Removes a directory with everything in it, if it is there.
fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
