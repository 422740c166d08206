//! What a flood of SYNs leaves to connections that were there before: one that XDP forwards, and one that
//! lbterm ends, both as fast as the machine lets them.

use anyhow::Result;

use super::super::control::Figure;
use crate::flooded_site::{Flood, FloodedSite};

/// Of what they have beside SYNs that XDP drops, SYNs that it answers may take so much from connections.
const GOAL: f64 = 0.10;

/// Lets floods take turns.
pub(super) fn measure(is_quick: bool) -> Result<Vec<Figure>> {
    let mut flooded = FloodedSite::start()?;
    let turns = if is_quick { 40 } else { 200 };
    let kept = flooded.compare(turns)?;
    flooded.finish()?;
    let mut figures = Vec::new();
    for kept in kept {
        let flood = match kept.flood {
            Flood::Dropped => "dropped by XDP",
            Flood::Answered => "answered by XDP",
            Flood::Kernels => "answered by the kernel",
        };
        let mut add = |what: String, value, unit, goal| {
            let what = format!("200,000 SYNs/s {flood}: {what}");
            figures.push(Figure::new(what, value, unit, goal));
        };
        add("worked off".into(), kept.handled, "×", None);
        for (index, connection) in ["forwarded", "terminated"].into_iter().enumerate() {
            let rate = kept.rates[index] / f64::from(1 << 20);
            add(connection.to_owned(), rate, "MiB/s", None);
            let goal = (kept.flood == Flood::Answered).then_some(GOAL);
            if kept.flood != Flood::Dropped {
                let loss = 1.0 - kept.parts[index];
                add(format!("{connection} loses"), loss, "×", goal);
            }
        }
    }
    Ok(figures)
}
