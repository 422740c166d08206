//! Why the data plane could not be set up.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use lbagent_common::ABI_VERSION;

use super::DataplaneError;

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
    /// The file is no BPF object of an lbagent.
    #[error("{origin} is not a BPF object of lbagent: {reason}")]
    NotAnObject {
        /// Which.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object belongs to an agent with other maps.
    #[error(
        "{origin} (lbagent {version}) has ABI version {found}, this lbagent drives version {ABI_VERSION}; \
         run the lbagent that the object belongs to, or use an object of this one"
    )]
    ObjectAbi {
        /// Which.
        origin: String,
        /// The object's ABI version.
        found: u32,
        /// The lbagent that it belongs to.
        version: String,
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
    /// The socket lookup program could not be attached to the network namespace.
    #[error(
        "cannot attach lb_steer, which steers connections to the terminator, to the network namespace"
    )]
    Steer(#[source] anyhow::Error),
    /// The pinned settings contradict the directory that they are pinned in.
    #[error(
        "the maps below {} say that they have ABI version {found}; run `lbagent detach` first: it \
         ends the connections being carried", path.display()
    )]
    OtherAbi {
        /// The directory.
        path: PathBuf,
        /// What the settings entry says.
        found: u32,
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

impl LoadError {
    /// Whether it says nothing about the object or its maps: it is the host that lacks something.
    pub const fn is_of_host(&self) -> bool {
        matches!(
            self,
            Self::NotBpffs { .. }
                | Self::PinDirectory { .. }
                | Self::Netlink(_)
                | Self::Journal { .. }
        )
    }
}
