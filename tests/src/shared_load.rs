//! One verification for many rigs: a data plane that a test leaves goes to the next one, its maps
//! as empty as those of a new one.
//!
//! Verifying the programs is most of what a short test takes, and on kernels in virtual machines
//! without hardware support it takes most of a minute.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use aya::maps::{MapInfo, MapType};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramInfo, XdpMode};
use lbagent::dataplane::{Capacity, Dataplane, KernelDataplane, Sampling, Step};
use lbagent_common::limits;

use crate::syscalls;

/// Data planes that nobody uses now.
static IDLE: Mutex<Vec<(Capacity, KernelDataplane)>> = Mutex::new(Vec::new());

/// A data plane for one rig.
pub struct SharedLoad {
    capacity: Capacity,
    /// There until the end.
    dataplane: Option<KernelDataplane>,
    link: Option<XdpLinkId>,
    /// Whether other rigs may have it afterwards.
    is_usual: bool,
}

impl SharedLoad {
    /// An idle data plane with these capacities, or a new one.
    pub fn take(capacity: Capacity) -> Result<Self> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = idle.iter().position(|(theirs, _)| *theirs == capacity);
        let used = fitting.map(|index| idle.swap_remove(index).1);
        drop(idle);
        let dataplane = match used {
            Some(mut used) => {
                empty(&mut used).context("emptying the maps of an earlier test")?;
                used
            }
            None => {
                KernelDataplane::open_unattached(super::prog_run::object().as_deref(), capacity)?
            }
        };
        Ok(Self {
            capacity,
            dataplane: Some(dataplane),
            link: None,
            is_usual: true,
        })
    }

    /// Takes another data plane instead, empty and attached, as on a kernel without the helpers for
    /// SYN cookies.
    pub fn lose_cookies(&mut self, interface: &str) -> Result<()> {
        let capacity = self.capacity;
        let object = super::prog_run::object();
        let dataplane = KernelDataplane::open_unattached_as(object.as_deref(), capacity, false)?;
        let other = Self {
            capacity,
            dataplane: Some(dataplane),
            link: None,
            is_usual: false,
        };
        drop(std::mem::replace(self, other));
        self.attach(interface)
    }

    /// Makes the programs forget every flow that they have seen.
    pub fn forget_flows(&mut self) -> Result<()> {
        const FLOWS: [&str; 4] = [
            limits::CONNS,
            limits::REFUSALS,
            limits::UDP_SEEN,
            "REDIRECT_NOTES",
        ];
        for id in maps_of(&self.ingress_program()?.info()?)? {
            let info = MapInfo::from_id(id)?;
            if FLOWS.contains(&info.name_as_str().unwrap_or_default()) {
                empty_map(id)?;
            }
        }
        Ok(())
    }

    /// Attaches the program of the client side to an interface, as long as the rig lives.
    pub fn attach(&mut self, interface: &str) -> Result<()> {
        let link = self.ingress_program()?.attach(interface, XdpMode::Driver)?;
        self.link = Some(link);
        Ok(())
    }
}

impl Deref for SharedLoad {
    type Target = KernelDataplane;

    fn deref(&self) -> &KernelDataplane {
        self.dataplane.as_ref().expect("it is there until the end")
    }
}

impl DerefMut for SharedLoad {
    fn deref_mut(&mut self) -> &mut KernelDataplane {
        self.dataplane.as_mut().expect("it is there until the end")
    }
}

impl Drop for SharedLoad {
    fn drop(&mut self) {
        // What a failed test leaves is not worth knowing.
        if std::thread::panicking() {
            return;
        }
        let Some(mut dataplane) = self.dataplane.take() else {
            return;
        };
        let program = dataplane.ingress_program().ok();
        let detached = match (program, self.link.take()) {
            (Some(program), Some(link)) => program.detach(link).is_ok(),
            (_, link) => link.is_none(),
        };
        if detached && self.is_usual {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.capacity, dataplane));
        }
    }
}

/// Makes a data plane as it was after loading.
fn empty(dataplane: &mut KernelDataplane) -> Result<()> {
    dataplane.set_paths(Default::default());
    dataplane.set_sampling(Sampling::OFF)?;
    if let Some(held) = &mut dataplane.maps_mut().held {
        while held.pop().is_some() {}
    }
    for address in dataplane.read(&Default::default())?.host_addresses {
        dataplane.apply(&Step::DeleteHostAddress(address))?;
    }
    let mut maps = maps_of(&dataplane.ingress_program()?.info()?)?;
    maps.extend(maps_of(&dataplane.return_program()?.info()?)?);
    maps.sort_unstable();
    maps.dedup();
    maps.into_iter().try_for_each(empty_map)
}

fn maps_of(program: &ProgramInfo) -> Result<Vec<u32>> {
    program
        .map_ids()?
        .context("this kernel does not tell which maps a program uses")
}

fn empty_map(id: u32) -> Result<()> {
    let info = MapInfo::from_id(id)?;
    let name = info.name_as_str().unwrap_or_default().to_owned();
    // Sections of the object, `.rodata` and its like, are as the compiler made them.
    if name.contains('.') {
        return Ok(());
    }
    let map = info.fd()?;
    let map = map.as_fd();
    let (entries, value_size) = (info.max_entries(), info.value_size());
    let emptied = match info.map_type()? {
        MapType::Array if info.map_flags() & syscalls::MMAPABLE != 0 => {
            syscalls::zero_mapped(map, entries, value_size)
        }
        MapType::Array => syscalls::zero_entries(map, entries, value_size as usize),
        MapType::PerCpuArray => {
            let cpus = aya::util::nr_cpus()
                .map_err(|(file, error)| anyhow::Error::new(error).context(file))?;
            let all = value_size.next_multiple_of(8) as usize * cpus;
            syscalls::zero_entries(map, entries, all)
        }
        // Nobody reads the events of test runs; a full ring refuses more of them. What fragments
        // are held is read above.
        MapType::RingBuf => Ok(()),
        // Sockets leave when they are closed.
        MapType::SockMap => Ok(()),
        MapType::Hash | MapType::LruHash | MapType::LpmTrie => {
            syscalls::delete_entries(map, info.key_size() as usize)
        }
        other => bail!("nobody knows how to empty {name}, which is a {other:?}"),
    };
    emptied.with_context(|| format!("emptying {name}"))
}
