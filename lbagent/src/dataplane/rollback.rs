//! `lbagent rollback`: puts the programs that were attached before the last upgrade back. They are
//! still pinned, with the maps that they were filled with then.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::SchedClassifier;
use lbagent_common::limits;

use super::attach::has_tcx;
use super::generations::{Generation, GenerationInfo, Role};
use super::journal::Journal;
use super::load::remove_if_there;
use super::pins::{Pins, unescape};
use super::syscalls::{self, pinned_link_ifindex};
use super::{DetachOptions, LoadError, clsact};

/// Why the programs were not put back. Those that are attached go on.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is nothing to put back.
    #[error(
        "no former data plane is pinned below {}: there was no upgrade since the first start or \
         the last `lbagent detach`", path.display()
    )]
    Nothing {
        /// The pin directory.
        path: PathBuf,
    },
    /// The agent would replace the programs again.
    #[error("an lbagent is running on {}; stop it first", path.display())]
    Running {
        /// The pin directory.
        path: PathBuf,
    },
    /// The pins or the record of changed settings cannot be used.
    #[error(transparent)]
    Pins(#[from] LoadError),
    /// An interface kept its program. The others have theirs; running it again is safe.
    #[error("cannot attach the former program to {interface}")]
    Attach {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}

/// What was done.
#[derive(Debug)]
pub struct RolledBack {
    /// What is attached now.
    pub now: GenerationInfo,
    /// What was attached before; a second rollback goes back to it.
    pub before: Option<GenerationInfo>,
    /// The interfaces that were switched.
    pub interfaces: Vec<String>,
    /// Interfaces that are gone; nothing can be attached there.
    pub gone: Vec<String>,
}

/// Switches every link to the former programs, each in one step.
pub fn rollback(options: &DetachOptions) -> Result<RolledBack, RollbackError> {
    let pins = Pins::new(&options.bpffs_dir);
    let nothing = || RollbackError::Nothing {
        path: options.bpffs_dir.clone(),
    };
    if !pins.links().exists() {
        return Err(nothing());
    }
    let _lock = pins.lock().map_err(|error| match error {
        LoadError::PinsInUse { path } => RollbackError::Running { path },
        error => error.into(),
    })?;
    let former = Generation::find(&pins, Role::Previous).ok_or_else(nothing)?;
    let attached = Generation::find(&pins, Role::Active);
    let journal = Journal::open(&options.state_dir)?;
    let mut switch = Switch {
        former: &former,
        interfaces: Vec::new(),
        gone: Vec::new(),
    };
    switch.links(&pins.links())?;
    switch.steering(&pins.steer_link())?;
    if !has_tcx() {
        let recorded = journal.record().filters.iter();
        let names: BTreeSet<_> = recorded.chain(&options.backend_interfaces).collect();
        switch.filters(names.into_iter())?;
    }
    switch.interfaces.sort_unstable();
    switch.interfaces.dedup();
    let (now, before) = (
        former.describe(),
        attached.as_ref().map(Generation::describe),
    );
    // In this order: between the two steps both links name the former programs, and a second
    // rollback does the same again.
    former.assume(&pins, Role::Active)?;
    if let Some(attached) = attached {
        attached.assume(&pins, Role::Previous)?;
    }
    Ok(RolledBack {
        now,
        before,
        interfaces: switch.interfaces,
        gone: switch.gone,
    })
}

/// The former programs and what they were attached to.
struct Switch<'a> {
    former: &'a Generation,
    interfaces: Vec<String>,
    gone: Vec<String>,
}

impl Switch<'_> {
    fn links(&mut self, directory: &Path) -> Result<(), RollbackError> {
        let unreadable = |source| super::pins::unusable(directory, source);
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some((hook, interface)) = name.split_once('-') else {
                continue;
            };
            let interface = unescape(interface);
            if pinned_link_ifindex(&path).is_ok_and(|ifindex| ifindex == 0) {
                self.gone.push(interface);
                continue;
            }
            let program = match hook {
                "xdp" => limits::PROGRAM_INGRESS,
                _ => limits::PROGRAM_RETURN,
            };
            syscalls::update_link(&path, &self.former.program(program)).map_err(|error| {
                RollbackError::Attach {
                    interface: interface.clone(),
                    source: error.into(),
                }
            })?;
            self.interfaces.push(interface);
        }
        Ok(())
    }

    /// In the network namespace; a generation from before `lb_steer` has none.
    fn steering(&self, link: &Path) -> Result<(), RollbackError> {
        let failed = |error: io::Error| RollbackError::Attach {
            interface: "the network namespace".to_owned(),
            source: error.into(),
        };
        let program = self.former.program(limits::PROGRAM_STEER);
        if !link.exists() {
            Ok(())
        } else if program.exists() {
            syscalls::update_link(link, &program).map_err(failed)
        } else {
            let detached = syscalls::detach_link(link);
            detached
                .and_then(|()| remove_if_there(link))
                .map(drop)
                .map_err(failed)
        }
    }

    /// On kernels without TC links.
    fn filters<'a>(
        &mut self,
        names: impl Iterator<Item = &'a String>,
    ) -> Result<(), RollbackError> {
        let path = self.former.program(limits::PROGRAM_RETURN);
        let mut program = SchedClassifier::from_pin(path).map_err(|source| LoadError::Program {
            program: limits::PROGRAM_RETURN,
            source: source.into(),
        })?;
        for interface in names {
            let replaced = clsact::replace_filter(&mut program, interface);
            let replaced = replaced.map_err(|source| RollbackError::Attach {
                interface: interface.clone(),
                source,
            })?;
            if replaced {
                self.interfaces.push(interface.clone());
            }
        }
        Ok(())
    }
}
