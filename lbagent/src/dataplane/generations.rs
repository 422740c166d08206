//! Generations of the data plane: which programs are attached, and which were before them.
//!
//! A generation is a directory `v<ABI>/<tags of its programs>` with the pins of its programs,
//! beside the maps of that ABI version. The symbolic links `active` and `previous` of the pin
//! directory name two of them; each is replaced in one step. The BPF file system holds no text, so
//! what has to be known about a generation later is the target of a symbolic link too.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use aya::programs::ProgramInfo;
use lbagent_common::limits;
use time::OffsetDateTime;

use super::load::remove_if_there;
use super::pins::{MapShape, Pins, unusable};
use super::{LoadError, OpenOptions};

/// Name of the link in a generation that tells the version of lbagent.
const VERSION: &str = "version";
/// Name of the link beside the maps that tells their layouts.
const LAYOUTS: &str = "layouts";

/// Which generation is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its programs are attached.
    Active,
    /// Its programs were attached before; `lbagent rollback` attaches them again.
    Previous,
}

impl Role {
    fn link(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Previous => "previous",
        }
    }
}

/// A generation that is pinned whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    directory: PathBuf,
}

impl Generation {
    /// The generation in this role; `None` when there is none, or one of its pins is gone.
    pub(super) fn find(pins: &Pins, role: Role) -> Option<Self> {
        let target = fs::read_link(pins.base().join(role.link())).ok()?;
        Self::at(pins.base().join(target))
    }

    /// The generation of a directory, if its pins are there.
    pub(super) fn at(directory: PathBuf) -> Option<Self> {
        let generation = Self { directory };
        let mut programs = programs(generation.abi_version()?).iter();
        let whole = programs.all(|name| generation.program(name).exists());
        whole.then_some(generation)
    }

    /// Pin of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Directory of its ABI version.
    pub(super) fn abi_directory(&self) -> &Path {
        self.directory.parent().unwrap_or(Path::new("/"))
    }

    /// The ABI version of its maps.
    pub(super) fn abi_version(&self) -> Option<u32> {
        let name = self.abi_directory().file_name()?.to_str()?;
        name.strip_prefix('v')?.parse().ok()
    }

    /// What to say about it.
    pub(super) fn describe(&self) -> GenerationInfo {
        let info = |name| ProgramInfo::from_pin(self.program(name)).ok();
        let tag = |info: &Option<ProgramInfo>| info.as_ref().map_or(0, ProgramInfo::tag);
        let (ingress, reply) = (info(limits::PROGRAM_INGRESS), info(limits::PROGRAM_RETURN));
        let version = fs::read_link(self.directory.join(VERSION)).unwrap_or_default();
        GenerationInfo {
            version: version.display().to_string(),
            abi_version: self.abi_version().unwrap_or_default(),
            ingress_tag: tag(&ingress),
            return_tag: tag(&reply),
            loaded_at: ingress
                .and_then(|info| info.loaded_at())
                .map(OffsetDateTime::from),
        }
    }

    /// Gives it a role, in one step.
    pub(super) fn assume(&self, pins: &Pins, role: Role) -> Result<(), LoadError> {
        let base = pins.base();
        let target = self.directory.strip_prefix(base).unwrap_or(&self.directory);
        let (link, fresh) = (base.join(role.link()), base.join("link-new"));
        remove_if_there(&fresh)
            .and_then(|_| symlink(target, &fresh))
            .and_then(|()| fs::rename(&fresh, &link))
            .map_err(|source| unusable(&link, source))
    }
}

/// Names of the pins of a generation.
pub(super) const PROGRAMS: [&str; 3] = [
    limits::PROGRAM_INGRESS,
    limits::PROGRAM_RETURN,
    limits::PROGRAM_STEER,
];

/// Those of them that a generation of some ABI version has: `lb_steer` came with version 3.
fn programs(abi_version: u32) -> &'static [&'static str] {
    let len = if abi_version < 3 { 2 } else { PROGRAMS.len() };
    &PROGRAMS[..len]
}

/// What to say about a generation of the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationInfo {
    /// Version of the lbagent that its object belongs to.
    pub version: String,
    /// Version of its map layout.
    pub abi_version: u32,
    /// The kernel's tag of `lb_ingress`: a hash of its instructions.
    pub ingress_tag: u64,
    /// The kernel's tag of `lb_return`.
    pub return_tag: u64,
    /// When the kernel loaded it; absent where it does not tell.
    pub loaded_at: Option<OffsetDateTime>,
}

/// Which object runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The file that it was read from, or that it is the built-in one.
    pub origin: String,
    /// What is attached.
    pub active: GenerationInfo,
    /// What `lbagent rollback` attaches again.
    pub previous: Option<GenerationInfo>,
}

impl ObjectStatus {
    /// Of an agent with these options; absent when nothing is attached.
    pub fn read(options: &OpenOptions) -> Option<Self> {
        let pins = Pins::new(&options.bpffs_dir);
        let active = Generation::find(&pins, Role::Active)?;
        let previous = Generation::find(&pins, Role::Previous);
        let file = options.object.as_ref().map(|path| path.display());
        Some(Self {
            origin: file.map_or("built in".to_owned(), |path| path.to_string()),
            active: active.describe(),
            previous: previous
                .filter(|previous| *previous != active)
                .map(|previous| previous.describe()),
        })
    }
}

impl std::fmt::Display for GenerationInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            version,
            abi_version,
            ingress_tag,
            return_tag,
            loaded_at: _,
        } = self;
        write!(
            f,
            "lbagent {version}, ABI {abi_version}, programs {ingress_tag:016x} and {return_tag:016x}"
        )
    }
}

/// Writes what [`Generation::describe`] tells.
pub(super) fn write_version(directory: &Path, version: &str) -> io::Result<()> {
    let link = directory.join(VERSION);
    remove_if_there(&link)?;
    // An empty target is refused.
    symlink(if version.is_empty() { "?" } else { version }, link)
}

/// Writes down the layouts of the maps of an ABI directory.
pub(super) fn write_layouts(directory: &Path, shapes: &[MapShape]) -> io::Result<()> {
    let layouts = shapes
        .iter()
        .map(|shape| format!("{}={}", shape.name, shape.layout()));
    symlink(
        layouts.collect::<Vec<_>>().join(" "),
        directory.join(LAYOUTS),
    )
}

/// The layouts of the maps of an ABI directory, by name; none when nothing is written there.
pub(super) fn read_layouts(directory: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_link(directory.join(LAYOUTS)).unwrap_or_default();
    let text = text.to_string_lossy();
    let layout = |word: &str| {
        let (name, number) = word.split_once('=')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    text.split(' ').filter_map(layout).collect()
}

/// Removes every generation but these, and the maps of ABI versions that then have none.
pub(super) fn remove_others(pins: &Pins, kept: &[&Generation]) -> io::Result<()> {
    for version in pins.versions()? {
        if !kept.iter().any(|kept| kept.abi_directory() == version) {
            tracing::info!(path = %version.display(), "removing a former data plane with its maps");
            fs::remove_dir_all(&version)?;
            continue;
        }
        for entry in fs::read_dir(&version)? {
            let path = entry?.path();
            let is_generation = Generation::at(path.clone()).is_some();
            if is_generation && !kept.iter().any(|kept| kept.directory == path) {
                tracing::info!(path = %path.display(), "removing former programs");
                fs::remove_dir_all(&path)?;
            }
        }
    }
    Ok(())
}

/// Name of the directory of a generation with programs of these tags.
pub(super) fn directory_name(tags: [u64; PROGRAMS.len()]) -> String {
    tags.map(|tag| format!("{tag:016x}")).join("-")
}

/// Whether an entry of the pin directory is a link of this file.
pub(super) fn is_role(name: &OsStr) -> bool {
    [Role::Active, Role::Previous]
        .iter()
        .any(|role| name == role.link())
        || name == "link-new"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(pins: &Pins, version: &str, name: &str) -> Generation {
        let directory = pins.base().join(version).join(name);
        fs::create_dir_all(&directory).unwrap();
        for program in PROGRAMS {
            fs::write(directory.join(program), "").unwrap();
        }
        write_version(&directory, "1.0.0").unwrap();
        Generation::at(directory).unwrap()
    }

    #[test]
    fn roles_are_found_again_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        assert_eq!(Generation::find(&pins, Role::Active), None);
        let (old, new) = (generation(&pins, "v1", "a"), generation(&pins, "v2", "b"));
        for it in [&old, &new] {
            it.assume(&pins, Role::Active).unwrap();
            assert_eq!(Generation::find(&pins, Role::Active).as_ref(), Some(it));
        }
        assert_eq!((old.abi_version(), new.abi_version()), (Some(1), Some(2)));
        assert_eq!(new.describe().version, "1.0.0");
        fs::remove_file(new.program(PROGRAMS[1])).unwrap();
        assert_eq!(Generation::find(&pins, Role::Active), None, "half of one");
    }

    #[test]
    fn what_has_no_role_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        fs::create_dir_all(pins.links()).unwrap();
        let kept = [generation(&pins, "v1", "a"), generation(&pins, "v2", "b")];
        for (version, name) in [("v1", "c"), ("v2", "d"), ("v3", "e")] {
            generation(&pins, version, name);
        }
        fs::create_dir(pins.base().join("v2/maps")).unwrap();
        remove_others(&pins, &kept.each_ref()).unwrap();
        let left = |version: &str| {
            let entries = fs::read_dir(pins.base().join(version))
                .into_iter()
                .flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left("v1"), ["a"]);
        assert_eq!(left("v2"), ["b", "maps"]);
        assert_eq!(left(""), ["links", "v1", "v2"]);
    }

    #[test]
    fn layouts_come_back() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_layouts(directory.path()), BTreeMap::new());
        let shapes = MapShape::all(&crate::dataplane::Capacity::default());
        write_layouts(directory.path(), &shapes).unwrap();
        let layouts = read_layouts(directory.path());
        assert_eq!(layouts.len(), shapes.len());
        let same = |shape: &MapShape| layouts.get(shape.name) == Some(&shape.layout());
        assert!(shapes.iter().all(same), "{layouts:?}");
    }
}
