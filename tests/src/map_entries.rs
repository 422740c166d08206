//! How many entries maps have, and what they take: what a test leaves behind.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{MapInfo, MapType};
use aya::programs::ProgramInfo;
use lbagent_common::limits;

use crate::agent::BPFFS_DIR;
use crate::netns::HostNs;
use crate::syscalls::{count_entries, count_used};

/// Arrays whose entries are taken by connections.
const TAKEN: [&str; 2] = [limits::CONNS, "REDIRECT_NOTES"];

/// Entries of the maps of a gateway's `lb_ingress` that packets can make.
pub fn of_ingress(gateway: &HostNs) -> Result<BTreeMap<String, usize>> {
    let program = Path::new(BPFFS_DIR).join("active/lb_ingress");
    let info = gateway.run(|| ProgramInfo::from_pin(&program));
    let info = info.with_context(|| program.display().to_string())?;
    let maps = info
        .map_ids()?
        .context("this kernel does not tell which maps a program uses")?;
    let mut entries = BTreeMap::new();
    for id in maps {
        let info = MapInfo::from_id(id)?;
        let name = info.name_as_str().unwrap_or_default().to_owned();
        let map = info.fd()?;
        let count = match info.map_type()? {
            MapType::Hash | MapType::LruHash | MapType::LpmTrie => {
                count_entries(map.as_fd(), info.key_size() as usize)
            }
            MapType::Array if TAKEN.contains(&name.as_str()) => {
                count_used(map.as_fd(), info.max_entries(), info.value_size() as usize)
            }
            _ => continue,
        };
        entries.insert(
            name.clone(),
            count.with_context(|| format!("entries of {name}"))?,
        );
    }
    Ok(entries)
}

/// Bytes that the kernel counts for a map of a program.
pub fn memory(program: &ProgramInfo, name: &str) -> Result<u64> {
    let maps = program
        .map_ids()?
        .context("this kernel does not tell which maps a program uses")?;
    for id in maps {
        let info = MapInfo::from_id(id)?;
        if info.name_as_str() != Some(name) {
            continue;
        }
        let map = info.fd()?;
        let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        return Ok(bytes.context("no memory is told")?.trim().parse()?);
    }
    bail!("the program has no map {name}")
}
