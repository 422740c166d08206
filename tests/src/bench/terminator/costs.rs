//! What a program and its descendants have taken, by `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of all threads.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for pid in family(pid)? {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let file = task?.path().join("schedstat");
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let first = text.split_whitespace().next().context("no CPU time")?;
            nanoseconds += first.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Memory in KiB, what is shared counted in parts.
pub(super) fn memory(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for pid in family(pid)? {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Pss:"));
        let value = lines.next().context("no Pss in smaps_rollup")?;
        sum += value.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(sum)
}

/// A process and its descendants.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut all = vec![pid];
    let mut index = 0;
    while let Some(pid) = all.get(index) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .with_context(|| format!("process {pid} has ended"))?;
        for child in children.split_whitespace() {
            all.push(child.parse()?);
        }
        index += 1;
    }
    Ok(all)
}
